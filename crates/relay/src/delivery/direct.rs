//! Direct delivery: committed events go through the queues of the shards to the open subscriptions, in commit order.

use std::{sync::Arc, time::Instant};

use nostr_extensions::{CurrentPolicy, Sealed};
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
    policy: CurrentPolicy,
    feed: Feed,
}

impl Direct {
    pub(super) fn start(
        groups: Arc<Groups>,
        policy: CurrentPolicy,
        live: &Arc<Live>,
        store: &Arc<dyn Store>,
    ) -> (Self, Vec<JoinHandle<()>>) {
        let (feed, tasks) = Shard::start(live, store, &groups);
        (Self { groups, policy, feed }, tasks)
    }

    /// Direct delivery into queues that a test reads.
    #[cfg(test)]
    pub(super) const fn over(groups: Arc<Groups>, policy: CurrentPolicy, feed: Feed) -> Self {
        Self { groups, policy, feed }
    }

    /// Notes the changes that a batch made, and takes the state of each new event's group as of the event, if it is in
    /// memory. The writer calls this before its answers, so it reads nothing: a shard reads the other states.
    pub(super) fn note(&self, saved: &[Result<Saved, StoreError>]) -> GroupStates {
        let mut states = GroupStates::new();
        let mut last = 0;
        for sealed in new_events(saved) {
            last = last.max(sealed.cursor());
            self.groups.note_change(&sealed.touches(), sealed.cursor());
            states.push(sealed.group().and_then(|id| self.groups.in_memory(id)));
        }
        self.groups.allow_reading_up_to(last);
        states
    }

    /// Hands events on. The writer calls this, so it never waits: events that find no room are delivered from the log.
    pub(super) fn committed(&self, events: Vec<Sealed>, states: GroupStates) {
        let through = events.last().map_or(0, Sealed::cursor);
        let committed = Instant::now();
        let live_event = |(sealed, group): (Sealed, _)| {
            let is_logged = is_logged(sealed.kind(), &self.policy.now());
            Arc::new(LiveEvent::new(sealed, group, is_logged, committed))
        };
        let events: Vec<Arc<LiveEvent>> = events.into_iter().zip(states).map(live_event).collect();
        self.feed.put(&events, through);
    }

    /// Returns whether the log holds events of this kind, or delivery has room for one that is in no log.
    pub(super) fn takes(&self, kind: Kind) -> bool {
        is_logged(kind, &self.policy.now()) || self.feed.takes_unlogged()
    }
}
