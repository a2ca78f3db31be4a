//! The writer: gathers admitted events of all connections into batches for the store, and answers each after its commit.
//!
//! While one batch is made durable the next one gathers, so that one fsync serves all who wait. What was committed goes
//! on in commit order: first the cached states of groups that it changed are forgotten, then the publishers hear `OK`,
//! then live delivery gets it. Where other processes write too, live delivery gets it from the log that it is in with
//! theirs, and the writer knocks.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use nostr_extensions::{
    Admitted, Group, Sealed,
    kinds::{GroupChange, rules},
    mls_gateway::group::Refusal,
};
use nostr_protocol::{
    EventId, Kind, Rejection,
    message::{ok_frame, refused_frame},
};
use nostr_store::{Saved, Store, StoreError};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use crate::{
    follow::Handover,
    groups::Groups,
    metrics::Metrics,
    outbox::Outbox,
    rate_limit::{Debit, Receipt},
};

/// Most events of one batch.
pub const BATCH_EVENTS_MAX: usize = 1_024;
/// Most events that wait for a batch; then publishers wait.
pub const WAITING_EVENTS_MAX: usize = 4_096;
/// Most KiB of events that wait for a batch or are in one; then publishers wait.
pub const WAITING_KIB_MAX: usize = 64 << 10;
/// Most events of one connection that are under way.
pub const IN_FLIGHT_MAX: usize = 256;
/// Most committed batches that wait for live delivery; then the writer waits.
pub const LIVE_BATCHES_MAX: usize = 16;

/// Who is told what became of an event.
#[derive(Default)]
pub struct InFlight {
    /// Where answers go.
    pub outbox: Arc<Outbox>,
    in_flight: AtomicUsize,
    /// Events under way that change who is in a group.
    changes_in_flight: AtomicUsize,
    settled: Notify,
}

impl InFlight {
    /// A publisher with nothing under way.
    #[must_use]
    pub fn new(outbox: Arc<Outbox>) -> Self {
        Self { outbox, ..Self::default() }
    }

    /// How many events are under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }

    /// Waits until no event is under way that changes who is in a group, so that what this connection published before
    /// counts for what it publishes now.
    pub async fn groups_settled(&self) {
        self.until(|| self.changes_in_flight.load(Ordering::Acquire) == 0).await;
    }

    /// Waits until nothing is under way.
    pub async fn settled(&self) {
        self.until(|| self.in_flight.load(Ordering::Acquire) == 0).await;
    }

    async fn until(&self, done: impl Fn() -> bool) {
        while !done() {
            let changed = self.settled.notified();
            if done() {
                return;
            }
            changed.await;
        }
    }

    fn begin(&self, changes_group: bool) {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        if changes_group {
            self.changes_in_flight.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn end(&self, changes_group: bool, frame: String) {
        self.outbox.push(frame);
        if changes_group {
            self.changes_in_flight.fetch_sub(1, Ordering::AcqRel);
        }
        self.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.settled.notify_one();
    }
}

struct Job {
    admitted: Admitted,
    id: EventId,
    kind: Kind,
    publisher: Arc<InFlight>,
    receipt: Receipt,
    room: OwnedSemaphorePermit,
}

impl Job {
    fn changes_group(&self) -> bool {
        changes_group(self.kind)
    }
}

/// Whether events of this kind may change who is in a group.
#[must_use]
pub const fn changes_group(kind: Kind) -> bool {
    !matches!(rules(kind).changes, GroupChange::Nothing)
}

/// An event on its way to live delivery.
pub struct Committed {
    /// The event.
    pub sealed: Sealed,
    /// The state of its group when it was committed.
    pub group: Option<Arc<Group>>,
}

/// Where committed events go on.
pub enum Onward {
    /// To live delivery: no other process writes, so what is committed here is the log.
    Live(mpsc::Sender<Vec<Committed>>),
    /// To whoever follows the log.
    Followed(Handover),
}

/// The writer's front: where connections hand events in.
#[derive(Clone)]
pub struct Writer {
    jobs: mpsc::Sender<Job>,
    room: Arc<Semaphore>,
}

impl Writer {
    /// Starts the writer. It ends when every [`Writer`] is dropped and what was handed in is done; committed events go
    /// `onward` in commit order.
    pub fn start(
        store: Arc<dyn Store>,
        groups: Arc<Groups>,
        metrics: Arc<Metrics>,
        onward: Onward,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (jobs, waiting) = mpsc::channel(WAITING_EVENTS_MAX);
        let task = tokio::spawn(run(waiting, store, groups, metrics, onward));
        (Self { jobs, room: Arc::new(Semaphore::new(WAITING_KIB_MAX)) }, task)
    }

    /// Hands an event in with what was paid for it; the answer goes to the publisher's outbox. Waits while too many wait.
    pub async fn save(&self, admitted: Admitted, publisher: &Arc<InFlight>, receipt: Receipt) {
        let (id, kind) = (admitted.event().id(), admitted.event().kind());
        let kib = u32::try_from(admitted.event().record().len() >> 10).unwrap_or(u32::MAX).saturating_add(1);
        // The semaphore is never closed, and one event is far smaller than all the room there is.
        let Ok(room) = Arc::clone(&self.room).acquire_many_owned(kib.min(WAITING_KIB_MAX as u32)).await else { return };
        let job = Job { admitted, id, kind, publisher: Arc::clone(publisher), receipt, room };
        publisher.begin(changes_group(kind));
        if let Err(gone) = self.jobs.send(job).await {
            let job = gone.0;
            let reason = Rejection::error("this relay is stopping; publish again when it is back");
            job.publisher.end(job.changes_group(), refused_frame(&job.id, &reason));
        }
    }
}

async fn run(
    mut waiting: mpsc::Receiver<Job>,
    store: Arc<dyn Store>,
    groups: Arc<Groups>,
    metrics: Arc<Metrics>,
    onward: Onward,
) {
    let mut jobs = Vec::with_capacity(BATCH_EVENTS_MAX);
    while waiting.recv_many(&mut jobs, BATCH_EVENTS_MAX).await > 0 {
        let mut batch = Vec::with_capacity(jobs.len());
        let mut answers = Vec::with_capacity(jobs.len());
        let mut room = Vec::with_capacity(jobs.len());
        for job in jobs.drain(..) {
            answers.push((job.id, job.kind, job.publisher, job.receipt));
            batch.push(job.admitted);
            room.push(job.room);
        }
        let started = std::time::Instant::now();
        let saved = store.save(batch).await;
        metrics.db_operation("save", started.elapsed());
        // Before anyone hears of it, what was changed is forgotten.
        let mut states = match &onward {
            Onward::Live(_) => note(&groups, &saved).await,
            Onward::Followed(_) => {
                note_ahead(&groups, &saved);
                Vec::new()
            }
        }
        .into_iter();
        let mut log = Vec::with_capacity(saved.len());
        let mut costs: Vec<Debit> = Vec::new();
        for ((id, kind, publisher, receipt), saved) in answers.into_iter().zip(saved) {
            metrics.saved(kind, &saved);
            let frame = answer(&id, &saved);
            let group = states.next().flatten();
            if let Ok(Saved::New(sealed)) = saved {
                log.push(Committed { sealed, group });
                costs.extend(receipt.into_debits());
            }
            publisher.end(changes_group(kind), frame);
        }
        drop(room);
        if log.is_empty() {
            continue;
        }
        match &onward {
            Onward::Live(live) => {
                if live.send(log).await.is_err() {
                    tracing::error!("live delivery has ended while events were being stored");
                }
            }
            Onward::Followed(handover) => {
                handover.committed(log.into_iter().map(|committed| committed.sealed), costs);
            }
        }
    }
}

/// Notes what was committed. Each event of a group gets the group's state as of its own place in the log, not as of the
/// end of the batch.
async fn note(groups: &Groups, saved: &[Result<Saved, StoreError>]) -> Vec<Option<Arc<Group>>> {
    let mut states = Vec::with_capacity(saved.len());
    let mut last = 0;
    for saved in saved {
        let Ok(Saved::New(sealed)) = saved else {
            states.push(None);
            continue;
        };
        last = last.max(sealed.cursor());
        groups.changed(sealed.kind(), &sealed.touches(), sealed.cursor());
        states.push(match sealed.group() {
            // A group whose state is not known is shut.
            Some(id) => groups.get(id).await.inspect_err(log_shut).ok(),
            None => None,
        });
    }
    groups.applied_up_to(last);
    states
}

/// Notes what was committed here before the log has been followed up to it, so that it counts for what is published next.
fn note_ahead(groups: &Groups, saved: &[Result<Saved, StoreError>]) {
    for sealed in saved.iter().filter_map(|saved| match saved {
        Ok(Saved::New(sealed)) => Some(sealed),
        _ => None,
    }) {
        groups.changed_ahead(sealed.kind(), &sealed.touches(), sealed.cursor());
    }
}

fn log_shut(error: &StoreError) {
    tracing::error!(%error, "the state of a group cannot be read: a message was delivered to nobody, and is in the archive");
}

fn answer(id: &EventId, saved: &Result<Saved, StoreError>) -> String {
    match saved {
        Ok(Saved::New(_)) => ok_frame(id, true, ""),
        Ok(Saved::Duplicate) => ok_frame(id, true, DUPLICATE),
        Ok(Saved::Superseded) => ok_frame(id, true, "duplicate: a newer event of this address is stored"),
        Ok(Saved::Deleted) => {
            refused_frame(id, &Rejection::blocked("this event was deleted; what was deleted does not come back"))
        }
        Ok(Saved::Refused(refusal)) => refused_frame(id, &Rejection::from(Refusal::clone(refusal))),
        Err(StoreError::Event(why)) => {
            tracing::debug!(why, "an event cannot be stored");
            refused_frame(id, &Rejection::error("this event cannot be stored"))
        }
        Err(error) => {
            tracing::warn!(%error, "writing failed");
            refused_frame(id, &Rejection::error("storage unavailable, try again"))
        }
    }
}

/// The reason of `OK true` for an event that is stored already.
pub const DUPLICATE: &str = "duplicate: this event is stored already";
