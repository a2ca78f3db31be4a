//! The writer: gathers admitted events of all connections into batches for the store, and answers each after its
//! commit.
//!
//! The writer never waits for delivery. It refuses an event that no log holds while many of them wait to be delivered.
//!
//! While one batch is made durable the next one gathers, so that one fsync serves all publishers that wait. The writer
//! then goes on in commit order: delivery notes the changes of groups, the publishers are answered, and delivery gets
//! the new events (see [`Delivery`]).
//!
//! A batch is cut by the work that its events give the store, so that each takes a bounded time, and it is filled in
//! fair turns of the payers ([`Backlog`]). An event of a payer that writes little is therefore in one of the next two
//! batches, however much others wait to write.

mod backlog;
mod health;
mod room;

use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use nostr_extensions::{
    Admitted,
    kinds::{GroupChange, rules},
    mls_gateway::group::Refusal,
};
use nostr_protocol::{
    EventId, Kind, Rejection,
    message::{Answer, ok_frame, refused_frame},
    mutation,
};
use nostr_store::{
    Saved, Store, StoreError,
    weight::{BATCH_EVENTS_MAX, Weight},
};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

pub(crate) use self::health::WriteHealth;
use self::{
    backlog::Backlog,
    room::{Place, Room},
};
use super::{Delivery, outbox::Outbox};
use crate::{
    error::storage_unavailable,
    observe::{metrics::Metrics, request_id::RequestId, request_log::RequestLog, slow::EventTimes},
    quotas::Held,
    rate_limit::Charges,
};

/// Time between two questions to a store that took no event whether it would take one now, in milliseconds.
const PROBE_MS: u64 = 1_000;
/// Most events of one connection that are under way.
pub(crate) const IN_FLIGHT_MAX: usize = 256;

/// The reason of `OK false` for an event that the store would not hold and delivery has no room for.
const BEHIND: &str = "live delivery is behind, and an ephemeral event waits nowhere else; publish it again in a second";

/// The events of one connection that wait for their answer, and the outbox that the answers go to.
#[derive(Default)]
pub(crate) struct InFlight {
    outbox: Arc<Outbox>,
    events: AtomicUsize,
    /// Events among them that change a group's members.
    group_changes: AtomicUsize,
    /// The payer of the events that are under way.
    payer: AtomicU64,
    settled: Notify,
    /// The place of the outcome of a request's one event. Without it outcomes go to the outbox.
    kept: Option<Mutex<Option<Outcome>>>,
}

/// The outcome of an event, for its publisher.
#[derive(Clone, Debug)]
pub(crate) enum Outcome {
    /// The event is stored, now or since earlier, which the text says.
    Accepted(Cow<'static, str>),
    /// A newer version is stored, or the event was deleted for good.
    Conflict(Rejection),
    /// Any other refusal.
    Refused(Rejection),
}

impl Outcome {
    /// The `OK` frame for the event of this id.
    fn frame(self, id: &EventId) -> Answer {
        match self {
            Self::Accepted(reason) => ok_frame(id, true, &reason),
            Self::Conflict(rejection) | Self::Refused(rejection) => refused_frame(id, &rejection),
        }
    }
}

impl InFlight {
    /// No events; answers go to `outbox`.
    pub(crate) fn new(outbox: Arc<Outbox>) -> Self {
        Self { outbox, ..Self::default() }
    }

    /// No events, of which the first one's outcome is kept for [`Self::take_outcome`].
    pub(crate) fn of_request(outbox: Arc<Outbox>) -> Self {
        Self { outbox, kept: Some(Mutex::default()), ..Self::default() }
    }

    /// The outcome of the request's event, once it has [settled](Self::settled).
    pub(crate) fn take_outcome(&self) -> Outcome {
        let kept = self.kept.as_ref().and_then(|kept| kept.lock().take());
        kept.unwrap_or_else(|| Outcome::Refused(storage_unavailable()))
    }

    /// The connection's outbox.
    pub(crate) const fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// Number of events under way.
    pub(crate) fn count(&self) -> usize {
        self.events.load(Ordering::Acquire)
    }

    /// Answers text that is no event.
    pub(crate) fn answer(&self, answer: Answer) {
        self.outbox.push(answer);
    }

    /// Tells the publisher the outcome of an event.
    pub(crate) fn conclude(&self, id: &EventId, outcome: Outcome) {
        match &self.kept {
            Some(kept) => *kept.lock() = Some(outcome),
            None => self.outbox.push(outcome.frame(id)),
        }
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

    /// Waits until nothing is under way that another payer pays for: turns are given to payers, and the events of one
    /// connection keep their order.
    async fn paid_by(&self, payer: u64) {
        if self.payer.swap(payer, Ordering::AcqRel) != payer {
            self.settled().await;
        }
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

    fn end(&self, id: &EventId, kind: Kind, outcome: Outcome) {
        if !(mutation!("ok-lost") && matches!(outcome, Outcome::Refused(_))) {
            self.conclude(id, outcome);
        }
        if changes_group(kind) {
            self.group_changes.fetch_sub(1, Ordering::AcqRel);
        }
        self.events.fetch_sub(1, Ordering::AcqRel);
        // A connection that ends waits as well as its event that was at the operator's program.
        self.settled.notify_waiters();
    }
}

/// Returns whether events of this kind may change a group's members.
const fn changes_group(kind: Kind) -> bool {
    !matches!(rules(kind).changes, GroupChange::Nothing)
}

/// An admitted event that waits for the writer.
struct Submission {
    admitted: Admitted,
    weight: Weight,
    payer: u64,
    publisher: Awaiting,
    /// Room for the event.
    place: Place,
}

/// The side of a submission that the publisher's answer needs.
struct Awaiting {
    id: EventId,
    kind: Kind,
    in_flight: Arc<InFlight>,
    charges: Charges,
    arrival: Arrival,
    room: Option<Held>,
    /// Time at which the event was handed to the writer.
    handed: Instant,
}

/// The arrival of an event.
#[derive(Clone, Copy)]
pub(crate) struct Arrival {
    /// The id that ties the event's log lines together.
    pub(crate) request: RequestId,
    pub(crate) at: Instant,
}

/// An admitted event, with all that the writer is handed beside it.
pub(crate) struct Handed {
    pub(crate) admitted: Admitted,
    /// The payer's number in fair turns.
    pub(crate) payer: u64,
    pub(crate) charges: Charges,
    pub(crate) arrival: Arrival,
    /// The room that the event holds in a quota of its author.
    pub(crate) room: Option<Held>,
}

/// The writer's front, to which connections hand events.
pub(crate) struct Writer {
    /// Every event in it holds its place in the room, which bounds them.
    submissions: mpsc::UnboundedSender<Submission>,
    room: Arc<Room>,
    health: Arc<WriteHealth>,
}

impl Writer {
    /// Starts the writer, which hands new events to `delivery` in commit order. It ends when the [`Writer`] is dropped
    /// and every submitted event is answered.
    pub(crate) fn start(
        store: Arc<dyn Store>,
        delivery: Arc<Delivery>,
        metrics: Arc<Metrics>,
        request_log: Arc<RequestLog>,
    ) -> (Self, tokio::task::JoinHandle<()>) {
        let (submissions, waiting) = mpsc::unbounded_channel();
        let health = Arc::<WriteHealth>::default();
        let task = Task { store, delivery, metrics, request_log, health: Arc::clone(&health) };
        let task = tokio::spawn(task.run(waiting));
        (Self { submissions, room: Room::new(), health }, task)
    }

    /// Whether the store takes events.
    pub(crate) fn health(&self) -> &WriteHealth {
        &self.health
    }

    /// Number of events that wait for a batch, or are in one.
    pub(crate) fn waiting(&self) -> usize {
        self.room.events()
    }

    /// Submits an event; the answer goes to the publisher's outbox. Waits while the bounds on waiting events are
    /// reached.
    pub(crate) async fn save(&self, handed: Handed, in_flight: &Arc<InFlight>) {
        let Handed { admitted, payer, charges, arrival, room } = handed;
        let handed = Instant::now();
        in_flight.paid_by(payer).await;
        let (id, kind) = (admitted.event().id(), admitted.event().kind());
        let weight = Weight::of(admitted.event().view());
        let kib = u32::try_from(weight.bytes >> 10).unwrap_or(u32::MAX).saturating_add(1);
        // Every event that waits is given its place.
        let Some(place) = self.room.take(payer, kib).await else { return };
        let publisher = Awaiting { id, kind, in_flight: Arc::clone(in_flight), charges, arrival, room, handed };
        in_flight.begin(kind);
        let submission = Submission { admitted, weight, payer, publisher, place };
        if self.submissions.send(submission).is_err() {
            let reason = Rejection::error("this relay is stopping; publish again when it is back");
            in_flight.end(&id, kind, Outcome::Refused(reason));
        }
    }
}

/// The task that writes.
struct Task {
    store: Arc<dyn Store>,
    delivery: Arc<Delivery>,
    metrics: Arc<Metrics>,
    request_log: Arc<RequestLog>,
    health: Arc<WriteHealth>,
}

impl Task {
    async fn run(self, mut waiting: mpsc::UnboundedReceiver<Submission>) {
        let mut backlog = Backlog::default();
        let mut incoming = Vec::with_capacity(BATCH_EVENTS_MAX);
        loop {
            if backlog.is_empty() && !self.wait(&mut waiting, &mut incoming).await {
                return;
            }
            while let Ok(submission) = waiting.try_recv() {
                incoming.push(submission);
            }
            for submission in incoming.drain(..) {
                backlog.push(submission.payer, submission.weight, submission);
            }
            self.write(backlog.batch()).await;
        }
    }

    /// Waits for events; `false` if none will come. Meanwhile it asks a store that took no event whether it would.
    async fn wait(&self, waiting: &mut mpsc::UnboundedReceiver<Submission>, incoming: &mut Vec<Submission>) -> bool {
        loop {
            tokio::select! {
                biased;
                count = waiting.recv_many(incoming, BATCH_EVENTS_MAX) => return count > 0,
                () = tokio::time::sleep(Duration::from_millis(PROBE_MS)), if self.health.fails() => {}
            }
            self.health.note(self.store.probe().await.is_ok());
        }
    }

    async fn write(&self, submissions: Vec<Submission>) {
        let mut batch = Vec::with_capacity(submissions.len());
        let mut publishers = Vec::with_capacity(submissions.len());
        let mut places = Vec::with_capacity(submissions.len());
        for Submission { admitted, publisher, place, .. } in submissions {
            if !self.delivery.takes(publisher.kind) {
                let Awaiting { id, kind, in_flight, .. } = publisher;
                in_flight.end(&id, kind, Outcome::Refused(Rejection::error(BEHIND)));
                continue;
            }
            batch.push(admitted);
            publishers.push(publisher);
            places.push(place);
        }
        if batch.is_empty() {
            return;
        }
        self.metrics.batch(batch.len());
        let started = Instant::now();
        self.health.begin();
        let saved = self.store.save(batch).await;
        self.health.end(&saved);
        let committed = Instant::now();
        self.metrics.db_operation("save", committed.duration_since(started));
        // Changes of groups are noted before any publisher learns of them.
        let states = self.delivery.note(&saved);
        let mut events = Vec::with_capacity(saved.len());
        let mut paid = Vec::new();
        for (Awaiting { id, kind, in_flight, charges, arrival, room, handed }, saved) in
            publishers.into_iter().zip(saved)
        {
            self.metrics.saved(kind, &saved);
            let request = arrival.request;
            tracing::debug!(%request, event_kind = kind.0, saved = answer_of(&saved), "event decided");
            let outcome = outcome(request, &saved);
            if let Some(sealed) = saved.ok().and_then(Saved::into_new_event) {
                events.push(sealed);
                if let Some(room) = room {
                    room.stored();
                }
                paid.extend(charges.into_buckets());
            }
            in_flight.end(&id, kind, outcome);
            self.metrics.event_answered(committed.duration_since(arrival.at));
            let times = EventTimes { arrived: arrival.at, handed, batched: started, committed };
            self.request_log.event(arrival, kind, &times);
        }
        drop(places);
        if !events.is_empty() {
            self.delivery.committed(events, states, paid);
        }
    }
}

/// The store's answer in a word, for the log.
fn answer_of(saved: &Result<Saved, StoreError>) -> &'static str {
    match saved {
        Ok(Saved::New(_) | Saved::Advised(_)) => "new",
        Ok(Saved::Duplicate | Saved::DeletedByRecipient) => "duplicate",
        Ok(Saved::Superseded) => "superseded",
        Ok(Saved::Deleted) => "deleted",
        Ok(Saved::Refused(_)) => "refused",
        Err(_) => "failed",
    }
}

fn outcome(request: RequestId, saved: &Result<Saved, StoreError>) -> Outcome {
    match saved {
        Ok(saved) => match (saved.answer(), saved) {
            (Ok(reason), _) => Outcome::Accepted(reason),
            (Err(rejection), Saved::Superseded | Saved::Deleted | Saved::Refused(Refusal::StockIsNewer)) => {
                Outcome::Conflict(rejection)
            }
            (Err(rejection), _) => Outcome::Refused(rejection),
        },
        Err(_) if mutation!("ok-without-commit") => Outcome::Accepted("".into()),
        Err(StoreError::Event(why)) => {
            tracing::debug!(%request, why, "an event cannot be stored");
            Outcome::Refused(Rejection::error("this event cannot be stored"))
        }
        Err(error) => {
            tracing::warn!(%request, %error, "writing failed");
            Outcome::Refused(storage_unavailable())
        }
    }
}
