//! Direct delivery: committed batches go through a bounded queue to the open subscriptions, in commit order.

use std::sync::Arc;

use nostr_extensions::{Group, Sealed};
use nostr_store::{Saved, StoreError};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{GroupStates, groups::Groups, live::Live, new_events};

/// Most committed batches that wait for live delivery; then the writer waits.
const LIVE_BATCHES_MAX: usize = 16;

/// The writer's end of direct delivery. The task at the other end finishes when this is dropped.
pub(crate) struct Direct {
    groups: Arc<Groups>,
    batches: mpsc::Sender<Vec<CommittedEvent>>,
}

/// An event on its way to live delivery.
struct CommittedEvent {
    sealed: Sealed,
    /// The state of the event's group when the event was committed.
    group: Option<Arc<Group>>,
}

impl Direct {
    pub(super) fn start(groups: Arc<Groups>, live: Arc<Live>) -> (Self, JoinHandle<()>) {
        let (batches, committed) = mpsc::channel(LIVE_BATCHES_MAX);
        (Self { groups, batches }, tokio::spawn(deliver(committed, live)))
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

    pub(super) async fn committed(&self, events: Vec<Sealed>, states: GroupStates) {
        let batch = events.into_iter().zip(states).map(|(sealed, group)| CommittedEvent { sealed, group });
        if self.batches.send(batch.collect()).await.is_err() {
            tracing::error!("live delivery has ended while events were being stored");
        }
    }
}

/// Delivers batches until the writer's end is dropped.
async fn deliver(mut batches: mpsc::Receiver<Vec<CommittedEvent>>, live: Arc<Live>) {
    while let Some(batch) = batches.recv().await {
        for CommittedEvent { sealed, group } in batch {
            live.deliver(&sealed, group.as_deref());
        }
        tokio::task::yield_now().await;
    }
}

fn log_unknown_state(error: &StoreError) {
    tracing::error!(
        %error,
        "the state of a group cannot be read: a message was delivered to nobody, and is in the archive"
    );
}
