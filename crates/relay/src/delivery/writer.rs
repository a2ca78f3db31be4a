//! The writer: gathers admitted events of all connections into batches for the store, and answers each after its
//! commit.
//!
//! While one batch is made durable the next one gathers, so that one fsync serves all publishers that wait. The writer
//! then goes on in commit order: delivery notes the changes of groups, the publishers are answered, and delivery gets
//! the new events (see [`Delivery`]).

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use nostr_extensions::{
    Admitted,
    kinds::{GroupChange, rules},
    mls_gateway::group::Refusal,
};
use nostr_protocol::{
    EventId, Kind, Rejection,
    message::{Answer, ok_frame, refused_frame},
};
use nostr_store::{Saved, Store, StoreError};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};

use super::{Delivery, outbox::Outbox};
use crate::{error::storage_unavailable, observe::metrics::Metrics, rate_limit::Charges};

/// Most events of one batch.
const BATCH_EVENTS_MAX: usize = 1_024;
/// Most events that wait for a batch; then publishers wait.
const WAITING_EVENTS_MAX: usize = 4_096;
/// Most KiB of events that wait for a batch or are in one; then publishers wait.
const WAITING_KIB_MAX: usize = 64 << 10;
/// Most events of one connection that are under way.
pub(crate) const IN_FLIGHT_MAX: usize = 256;

/// The reason of `OK true` for an event that is stored already.
pub(crate) const DUPLICATE: &str = "duplicate: this event is stored already";

/// The events of one connection that wait for their answer, and the outbox that the answers go to.
#[derive(Default)]
pub(crate) struct InFlight {
    outbox: Arc<Outbox>,
    events: AtomicUsize,
    /// Events among them that change a group's members.
    group_changes: AtomicUsize,
    settled: Notify,
}

impl InFlight {
    /// No events; answers go to `outbox`.
    pub(crate) fn new(outbox: Arc<Outbox>) -> Self {
        Self { outbox, ..Self::default() }
    }

    /// Number of events under way.
    pub(crate) fn count(&self) -> usize {
        self.events.load(Ordering::Acquire)
    }

    /// Answers an event that never was under way.
    pub(crate) fn answer(&self, answer: Answer) {
        self.outbox.push(answer);
    }

    /// Waits until no event is under way that changes a group's members, so that the events that this connection
    /// published before count for those it publishes now.
    pub(crate) async fn groups_settled(&self) {
        self.until(|| self.group_changes.load(Ordering::Acquire) == 0).await;
    }

    /// Waits until nothing is under way.
    pub(crate) async fn settled(&self) {
        self.until(|| self.events.load(Ordering::Acquire) == 0).await;
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

    fn begin(&self, kind: Kind) {
        self.events.fetch_add(1, Ordering::AcqRel);
        if changes_group(kind) {
            self.group_changes.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn end(&self, kind: Kind, answer: Answer) {
        self.outbox.push(answer);
        if changes_group(kind) {
            self.group_changes.fetch_sub(1, Ordering::AcqRel);
        }
        self.events.fetch_sub(1, Ordering::AcqRel);
        self.settled.notify_one();
    }
}

/// Returns whether events of this kind may change a group's members.
const fn changes_group(kind: Kind) -> bool {
    !matches!(rules(kind).changes, GroupChange::Nothing)
}

/// An admitted event that waits for the writer.
struct Submission {
    admitted: Admitted,
    publisher: Awaiting,
    permit: OwnedSemaphorePermit,
}

/// The side of a submission that the publisher's answer needs.
struct Awaiting {
    id: EventId,
    kind: Kind,
    in_flight: Arc<InFlight>,
    charges: Charges,
}

/// The writer's front, to which connections hand events.
pub(crate) struct Writer {
    submissions: mpsc::Sender<Submission>,
    room: Arc<Semaphore>,
}

impl Writer {
    /// Starts the writer, which hands new events to `delivery` in commit order. It ends when the [`Writer`] is dropped
    /// and every submitted event is answered.
    pub(crate) fn start(
        store: Arc<dyn Store>,
        delivery: Arc<Delivery>,
        metrics: Arc<Metrics>,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (submissions, waiting) = mpsc::channel(WAITING_EVENTS_MAX);
        let task = tokio::spawn(run(waiting, store, delivery, metrics));
        (Self { submissions, room: Arc::new(Semaphore::new(WAITING_KIB_MAX)) }, task)
    }

    /// Submits an event with the charges for it; the answer goes to the publisher's outbox. Waits while the bounds on
    /// waiting events are reached.
    pub(crate) async fn save(&self, admitted: Admitted, in_flight: &Arc<InFlight>, charges: Charges) {
        let (id, kind) = (admitted.event().id(), admitted.event().kind());
        let kib = u32::try_from(admitted.event().record().len() >> 10).unwrap_or(u32::MAX).saturating_add(1);
        // The semaphore is never closed, and one event is far smaller than all the room there is.
        let Ok(permit) = Arc::clone(&self.room).acquire_many_owned(kib.min(WAITING_KIB_MAX as u32)).await else {
            return;
        };
        let publisher = Awaiting { id, kind, in_flight: Arc::clone(in_flight), charges };
        in_flight.begin(kind);
        if self.submissions.send(Submission { admitted, publisher, permit }).await.is_err() {
            let reason = Rejection::error("this relay is stopping; publish again when it is back");
            in_flight.end(kind, refused_frame(&id, &reason));
        }
    }
}

async fn run(
    mut waiting: mpsc::Receiver<Submission>,
    store: Arc<dyn Store>,
    delivery: Arc<Delivery>,
    metrics: Arc<Metrics>,
) {
    let mut submissions = Vec::with_capacity(BATCH_EVENTS_MAX);
    while waiting.recv_many(&mut submissions, BATCH_EVENTS_MAX).await > 0 {
        let mut batch = Vec::with_capacity(submissions.len());
        let mut publishers = Vec::with_capacity(submissions.len());
        let mut permits = Vec::with_capacity(submissions.len());
        for Submission { admitted, publisher, permit } in submissions.drain(..) {
            batch.push(admitted);
            publishers.push(publisher);
            permits.push(permit);
        }
        let started = std::time::Instant::now();
        let saved = store.save(batch).await;
        metrics.db_operation("save", started.elapsed());
        // Changes of groups are noted before any publisher learns of them.
        let states = delivery.note(&saved).await;
        let mut events = Vec::with_capacity(saved.len());
        let mut paid = Vec::new();
        for (Awaiting { id, kind, in_flight, charges }, saved) in publishers.into_iter().zip(saved) {
            metrics.saved(kind, &saved);
            let answer = answer(&id, &saved);
            if let Ok(Saved::New(sealed)) = saved {
                events.push(sealed);
                paid.extend(charges.into_buckets());
            }
            in_flight.end(kind, answer);
        }
        drop(permits);
        if !events.is_empty() {
            delivery.committed(events, states, paid).await;
        }
    }
}

fn answer(id: &EventId, saved: &Result<Saved, StoreError>) -> Answer {
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
            refused_frame(id, &storage_unavailable())
        }
    }
}
