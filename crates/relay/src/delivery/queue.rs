//! The events that wait for one shard of live delivery.
//!
//! Nobody who puts events into the queue has to wait. When the queue is full, the events in it that the store's log
//! holds are dropped, and the shard reads them from the log instead. Events that are in no log stay in the queue, in
//! their order.

use std::{
    collections::VecDeque,
    sync::{Arc, OnceLock},
    time::Instant,
};

use nostr_extensions::{RouteHasher, Sealed};
use nostr_store::Cursor;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{groups::GroupState, outbox::Sharing};

/// Most events that wait for a shard. The queues of several shards share their events.
const QUEUE_EVENTS_MAX: usize = 8_192;
/// Most bytes of events that wait for a shard.
const QUEUE_BYTES_MAX: usize = 16 << 20;
/// Most events in no log that wait for a shard. The relay takes no further ones until fewer wait.
const UNLOGGED_EVENTS_MAX: usize = 4_096;
/// Most bytes of events in no log that wait for a shard.
const UNLOGGED_BYTES_MAX: usize = 8 << 20;
/// Most events that a shard takes out of its queue at one time.
const TAKEN_EVENTS_MAX: usize = 64;
/// Bytes of events that a shard takes out of its queue at one time; the last event may exceed them.
const TAKEN_BYTES_MAX: usize = 1 << 20;

/// An event on its way to live delivery, which all shards share.
pub(super) struct LiveEvent {
    pub(super) sealed: Sealed,
    /// The state of the event's group that decides about the event, once it is known.
    state: OnceLock<Arc<GroupState>>,
    /// Set where the store's log holds the event.
    is_logged: bool,
    routes: OnceLock<Vec<u64>>,
    /// The event's bytes in the outboxes of clients.
    pub(super) sharing: Sharing,
    /// Time at which this process committed the event, or read it from the log.
    pub(super) committed: Instant,
}

impl LiveEvent {
    /// An event whose routes the first shard works out.
    pub(super) fn new(sealed: Sealed, state: Option<Arc<GroupState>>, is_logged: bool, committed: Instant) -> Self {
        Self { sealed, state: known(state), is_logged, routes: OnceLock::new(), sharing: Sharing::default(), committed }
    }

    /// An event of the log, with its routes.
    pub(super) fn of_log(sealed: Sealed, state: Option<Arc<GroupState>>, routes: Vec<u64>) -> Self {
        Self {
            sealed,
            state: known(state),
            is_logged: true,
            routes: OnceLock::from(routes),
            sharing: Sharing::default(),
            committed: Instant::now(),
        }
    }

    /// The state of the event's group that decides about the event. Without one the event is for nobody.
    pub(super) fn group(&self) -> Option<&GroupState> {
        self.state.get().map(|state| &**state)
    }

    /// Returns whether the state of the event's group is still to be read.
    pub(super) fn awaits_state(&self) -> bool {
        self.sealed.group().is_some() && self.state.get().is_none()
    }

    /// Sets the state, unless it is known.
    pub(super) fn set_state(&self, state: Arc<GroupState>) {
        let _ = self.state.set(state);
    }

    pub(super) fn routes(&self, hasher: &RouteHasher) -> &[u64] {
        self.routes.get_or_init(|| hasher.routes(&self.sealed))
    }
}

fn known(state: Option<Arc<GroupState>>) -> OnceLock<Arc<GroupState>> {
    state.map_or_else(OnceLock::new, OnceLock::from)
}

/// See the module.
#[derive(Default)]
pub(super) struct ShardQueue {
    pending: Mutex<Pending>,
    filled: Notify,
    emptied: Notify,
}

#[derive(Default)]
struct Pending {
    events: VecDeque<Arc<LiveEvent>>,
    bytes: usize,
    unlogged: usize,
    unlogged_bytes: usize,
    /// The log is to be read up to this cursor before the events that wait.
    behind: Option<Cursor>,
    /// No event up to this cursor is left to be put into the queue.
    through: Cursor,
    is_ended: bool,
}

/// The next work of a shard.
pub(super) enum Step {
    /// Deliver these, in their order.
    Deliver(Vec<Arc<LiveEvent>>),
    /// Deliver the log's events up to this cursor.
    ReadLog(Cursor),
    /// Nothing, and every event up to this cursor is delivered.
    Rest(Cursor),
    /// Nothing ever again.
    End,
}

impl ShardQueue {
    /// Puts events at the end, in the order of the log, and leaves to the log what finds no room. No event up to
    /// `through` is left to be put.
    pub(super) fn put(&self, events: &[Arc<LiveEvent>], through: Cursor) {
        let mut pending = self.pending.lock();
        events.iter().for_each(|event| pending.put(event));
        pending.through = pending.through.max(through);
        drop(pending);
        self.filled.notify_one();
    }

    /// Waits until there is room. For a caller that may wait.
    pub(super) async fn room(&self) {
        loop {
            let emptied = self.emptied.notified();
            if !self.pending.lock().is_full() {
                return;
            }
            emptied.await;
        }
    }

    /// Returns whether an event in no log finds room.
    pub(super) fn takes_unlogged(&self) -> bool {
        let pending = self.pending.lock();
        pending.unlogged < UNLOGGED_EVENTS_MAX && pending.unlogged_bytes < UNLOGGED_BYTES_MAX
    }

    /// No event will come after those that wait.
    pub(super) fn end(&self) {
        self.pending.lock().is_ended = true;
        self.filled.notify_one();
    }

    pub(super) fn is_ended(&self) -> bool {
        self.pending.lock().is_ended
    }

    pub(super) fn step(&self) -> Step {
        let mut pending = self.pending.lock();
        if let Some(cursor) = pending.behind {
            return Step::ReadLog(cursor);
        }
        let taken = pending.take(|_| true);
        if !taken.is_empty() {
            drop(pending);
            self.emptied.notify_one();
            return Step::Deliver(taken);
        }
        if pending.is_ended { Step::End } else { Step::Rest(pending.through) }
    }

    /// Takes some of the events that wait and come before `cursor`. While the log is to be read, they are in no log.
    pub(super) fn take_before(&self, cursor: Cursor) -> Vec<Arc<LiveEvent>> {
        self.pending.lock().take(|event| event.sealed.cursor() < cursor)
    }

    /// Notes that the log has been read up to `cursor`.
    pub(super) fn log_read(&self, cursor: Cursor) {
        self.pending.lock().behind.take_if(|behind| *behind <= cursor);
    }

    /// Waits for events since the last wait.
    pub(super) async fn filled(&self) {
        self.filled.notified().await;
    }

    /// Events and bytes that wait.
    pub(super) fn waiting(&self) -> (usize, usize) {
        let pending = self.pending.lock();
        (pending.events.len(), pending.bytes)
    }
}

impl Pending {
    const fn is_full_beside(&self, events: usize, bytes: usize) -> bool {
        events >= QUEUE_EVENTS_MAX || bytes >= QUEUE_BYTES_MAX
    }

    fn is_full(&self) -> bool {
        self.is_full_beside(self.events.len(), self.bytes)
    }

    fn put(&mut self, event: &Arc<LiveEvent>) {
        if event.is_logged && self.is_full() {
            self.leave_to_log();
            if self.is_full() {
                self.behind = Some(event.sealed.cursor());
                return;
            }
        }
        let bytes = event.sealed.byte_len();
        self.bytes += bytes;
        if !event.is_logged {
            self.unlogged += 1;
            self.unlogged_bytes += bytes;
        }
        self.events.push_back(Arc::clone(event));
    }

    /// Drops the events that the log holds.
    fn leave_to_log(&mut self) {
        if let Some(last) = self.events.iter().rev().find(|event| event.is_logged) {
            self.behind = Some(last.sealed.cursor());
        }
        self.events.retain(|event| !event.is_logged);
        self.bytes = self.unlogged_bytes;
    }

    /// Takes events off the front while `takes` and the bounds allow it.
    fn take(&mut self, takes: impl Fn(&LiveEvent) -> bool) -> Vec<Arc<LiveEvent>> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while taken.len() < TAKEN_EVENTS_MAX && bytes < TAKEN_BYTES_MAX {
            if !self.events.front().is_some_and(|event| takes(event)) {
                break;
            }
            let Some(event) = self.events.pop_front() else { break };
            bytes += event.sealed.byte_len();
            if !event.is_logged {
                self.unlogged -= 1;
                self.unlogged_bytes -= event.sealed.byte_len();
            }
            taken.push(event);
        }
        self.bytes -= bytes;
        taken
    }
}

/// The end of delivery that events are put into: a queue for each shard.
pub(super) struct Feed {
    queues: Vec<Arc<ShardQueue>>,
}

impl Feed {
    pub(super) const fn new(queues: Vec<Arc<ShardQueue>>) -> Self {
        Self { queues }
    }

    /// Puts events into every queue. Never waits.
    pub(super) fn put(&self, events: &[Arc<LiveEvent>], through: Cursor) {
        self.queues.iter().for_each(|queue| queue.put(events, through));
    }

    /// Waits until every queue has room.
    pub(super) async fn room(&self) {
        for queue in &self.queues {
            queue.room().await;
        }
    }

    /// Returns whether an event in no log finds room in every queue.
    pub(super) fn takes_unlogged(&self) -> bool {
        self.queues.iter().all(|queue| queue.takes_unlogged())
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.queues.iter().for_each(|queue| queue.end());
    }
}
