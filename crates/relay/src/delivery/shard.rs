//! One shard of live delivery: the task that takes events from the shard's queue to the subscriptions of the shard's
//! connections, in the order of the log.
//!
//! The queue is bounded, and the writer does not wait for it. A shard that falls behind reads the store's log up to the
//! event from which the queue goes on. The state of a group is then the one of that moment: a key that was added since
//! may get the event, and a key that was removed since does not.

use std::{sync::Arc, time::Duration};

use nostr_extensions::Sealed;
use nostr_store::{Cursor, LogEntry, Store, StoreError};
use tokio::{task::JoinHandle, time::sleep};

use super::{
    groups::{GroupState, Groups},
    live::Live,
    queue::{Feed, LiveEvent, ShardQueue, Step},
};

/// Most events that a shard reads from the log at one time.
const LOG_EVENTS_MAX: usize = 32;
/// Pause after a read of the log that failed, in milliseconds.
const RETRY_MS: u64 = 200;
/// Most times that the state of one event's group is asked for, so that one failed read loses no message.
const STATE_TRIES_MAX: u32 = 5;

/// See the module.
pub(super) struct Shard {
    number: usize,
    queue: Arc<ShardQueue>,
    live: Arc<Live>,
    store: Arc<dyn Store>,
    groups: Arc<Groups>,
}

impl Shard {
    /// The end that events are put into, and the shards of `live`, none of which runs yet.
    pub(super) fn all(live: &Arc<Live>, store: &Arc<dyn Store>, groups: &Arc<Groups>) -> (Feed, Vec<Self>) {
        let shard = |number| Self {
            number,
            queue: Arc::default(),
            live: Arc::clone(live),
            store: Arc::clone(store),
            groups: Arc::clone(groups),
        };
        let shards: Vec<Self> = (0..live.shards()).map(shard).collect();
        live.note_queues(shards.iter().map(|shard| Arc::clone(&shard.queue)).collect());
        (Feed::new(shards.iter().map(|shard| Arc::clone(&shard.queue)).collect()), shards)
    }

    /// Starts a task for each shard. They end after the [`Feed`] is dropped and every event is delivered.
    pub(super) fn start(live: &Arc<Live>, store: &Arc<dyn Store>, groups: &Arc<Groups>) -> (Feed, Vec<JoinHandle<()>>) {
        let (feed, shards) = Self::all(live, store, groups);
        (feed, shards.into_iter().map(|shard| tokio::spawn(shard.run())).collect())
    }

    pub(super) async fn run(self) {
        loop {
            match self.queue.step() {
                Step::Deliver(events) => self.deliver(&events).await,
                Step::ReadLog(up_to) => match self.deliver_from_log(up_to).await {
                    Ok(()) => {}
                    Err(error) if self.queue.is_ended() => {
                        tracing::warn!(%error, "events were not delivered live before the end");
                        return;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the log cannot be read: live delivery waits");
                        sleep(Duration::from_millis(RETRY_MS)).await;
                    }
                },
                Step::Rest(through) => {
                    self.live.advance(self.number, through);
                    self.queue.filled().await;
                }
                Step::End => return,
            }
            tokio::task::yield_now().await;
        }
    }

    /// Events and bytes that wait in the queue.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> (usize, usize) {
        self.queue.waiting()
    }

    async fn deliver(&self, events: &[Arc<LiveEvent>]) {
        for event in events {
            if event.awaits_state() {
                self.read_state(event).await;
            }
            self.live.deliver(self.number, event).await;
        }
    }

    /// Reads the state of an event's group, which was not in memory when the event was committed: the state as of the
    /// event, or a later one.
    async fn read_state(&self, event: &LiveEvent) {
        let Some(id) = event.sealed.group() else { return };
        let mut tries = 1;
        loop {
            let error = match self.groups.get(id).await {
                Ok(state) => return event.set_state(state),
                Err(error) => error,
            };
            if tries == STATE_TRIES_MAX {
                // A group whose state is not known is closed to every reader.
                tracing::error!(%error, "the state of a group cannot be read: a message was delivered to nobody");
                return;
            }
            tries += 1;
            sleep(Duration::from_millis(RETRY_MS)).await;
        }
    }

    /// Delivers some of the log's events up to `up_to`, and among them those of the queue that are in no log.
    async fn deliver_from_log(&self, up_to: Cursor) -> Result<(), StoreError> {
        let from = self.live.delivered(self.number);
        let page = self.store.after(from, LOG_EVENTS_MAX).await?;
        let reached = if page.is_head { up_to } else { page.through.min(up_to) };
        let mut delivered = 0;
        for entry in page.entries.into_iter().filter(|entry| (from + 1..=up_to).contains(&entry.cursor)) {
            let group = self.state(&entry).await?;
            self.deliver_unlogged_before(entry.cursor).await;
            let LogEntry { cursor, routes, sealed, .. } = entry;
            if let Some(sealed) = self.event(cursor, sealed).await? {
                self.live.deliver(self.number, &LiveEvent::of_log(sealed, group, routes)).await;
                delivered += 1;
            }
        }
        self.deliver_unlogged_before(reached.saturating_add(1)).await;
        self.live.advance(self.number, reached);
        self.live.metrics().delivered_from_log(delivered);
        self.queue.log_read(reached);
        Ok(())
    }

    async fn deliver_unlogged_before(&self, cursor: Cursor) {
        loop {
            let events = self.queue.take_before(cursor);
            if events.is_empty() {
                return;
            }
            self.deliver(&events).await;
        }
    }

    /// The state of the entry's group as of the entry, or a later one. Without one the event is delivered to nobody.
    async fn state(&self, entry: &LogEntry) -> Result<Option<Arc<GroupState>>, StoreError> {
        let Some(id) = &entry.group else { return Ok(None) };
        match self.groups.get(id).await {
            Ok(state) => Ok(Some(state)),
            Err(error @ StoreError::Unavailable(_)) => Err(error),
            Err(error) => {
                tracing::error!(%error, "the state of a group cannot be read: a message was delivered to nobody");
                Ok(None)
            }
        }
    }

    /// The event of an entry; `None` where it is gone.
    async fn event(&self, cursor: Cursor, at_hand: Option<Sealed>) -> Result<Option<Sealed>, StoreError> {
        match at_hand {
            Some(sealed) => Ok(Some(sealed)),
            None => Ok(self.store.events_at(&[cursor]).await?.pop()),
        }
    }
}
