//! Direct delivery: committed events go through the queues of the shards to the open subscriptions, in commit order.

use std::sync::Arc;

use nostr_extensions::{Policy, Sealed};
use nostr_protocol::Kind;
use nostr_store::{Saved, Store, StoreError};
use tokio::task::JoinHandle;

use super::{
    GroupStates,
    groups::Groups,
    is_logged,
    live::Live,
    new_events,
    queue::{Feed, LiveEvent},
    shard::Shard,
};

/// The writer's end of direct delivery. The tasks at the other end finish when this is dropped.
pub(crate) struct Direct {
    groups: Arc<Groups>,
    policy: Arc<Policy>,
    feed: Feed,
}

impl Direct {
    pub(super) fn start(
        groups: Arc<Groups>,
        policy: Arc<Policy>,
        live: &Arc<Live>,
        store: &Arc<dyn Store>,
    ) -> (Self, Vec<JoinHandle<()>>) {
        let (feed, tasks) = Shard::start(live, store, &groups);
        (Self { groups, policy, feed }, tasks)
    }

    /// Direct delivery into queues that a test reads.
    #[cfg(test)]
    pub(super) const fn over(groups: Arc<Groups>, policy: Arc<Policy>, feed: Feed) -> Self {
        Self { groups, policy, feed }
    }

    /// Notes the changes that a batch made, and takes the state of each new event's group: the cached one as of the
    /// event, or the store's if the cache has none. The store's may be as of the end of the batch.
    pub(super) async fn note(&self, saved: &[Result<Saved, StoreError>]) -> GroupStates {
        let mut states = GroupStates::new();
        let mut last = 0;
        for sealed in new_events(saved) {
            last = last.max(sealed.cursor());
            self.groups.note_change(sealed.kind(), &sealed.touches(), sealed.cursor());
            states.push(match sealed.group() {
                // A group whose state is not known is closed to every reader.
                Some(id) => self.groups.get(id).await.inspect_err(log_unknown_state).ok(),
                None => None,
            });
        }
        self.groups.allow_reading_up_to(last);
        states
    }

    /// Hands events on. The writer calls this, so it never waits: events that find no room are delivered from the log.
    pub(super) fn committed(&self, events: Vec<Sealed>, states: GroupStates) {
        let through = events.last().map_or(0, Sealed::cursor);
        let live_event = |(sealed, group): (Sealed, _)| {
            let is_logged = is_logged(sealed.kind(), &self.policy);
            Arc::new(LiveEvent::new(sealed, group, is_logged))
        };
        let events: Vec<Arc<LiveEvent>> = events.into_iter().zip(states).map(live_event).collect();
        self.feed.put(&events, through);
    }

    /// Returns whether the log holds events of this kind, or delivery has room for one that is in no log.
    pub(super) fn takes(&self, kind: Kind) -> bool {
        is_logged(kind, &self.policy) || self.feed.takes_unlogged()
    }
}

fn log_unknown_state(error: &StoreError) {
    tracing::error!(
        %error,
        "the state of a group cannot be read: a message was delivered to nobody, and is in the archive"
    );
}
