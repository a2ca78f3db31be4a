//! How committed events reach the open subscriptions.
//!
//! A relay delivers in one of two modes, which depends on its store. `Delivery` names the mode.
//!
//! ```text
//! Direct: this process alone writes           Followed: other processes may write too
//!
//!    connections                                 connections         other instances
//!         │ admitted events                           │ admitted events     │
//!         ▼                                           ▼                     ▼
//!      writer ──save──▶ store                      writer ──save──▶ the store's log
//!         │ committed batches                         │ notification        │ entries
//!         ▼                                           ▼                     │
//!      direct                                      follower ◀───────────────┘
//!         │ event, state of its group                 │ event, state of its group
//!         ▼                                           ▼
//!      queues ──▶ shards of live ──▶ gate          queues ──▶ shards of live ──▶ gate
//!                               ──▶ outboxes                                ──▶ outboxes
//! ```
//!
//! Connections are spread over *shards*, as many as threads serve connections. Each shard has a queue, an index of its
//! connections' subscriptions and a task, and gets every event in the order of the log.
//!
//! Direct:
//!
//! 1. The writer saves a batch; the store gives each new event its cursor.
//! 2. `Delivery::note`: the group cache forgets the groups that the batch changed, and takes the state of each
//!    event's group as of the event, if it is in memory. The archive may be read up to the batch's end.
//! 3. The writer answers the publishers.
//! 4. `Delivery::committed`: the batch joins the queue of each shard. The writer never waits: a queue that is full
//!    drops the events that the store's log holds, and the shard reads them from there. Events that are in no log stay
//!    in the queue; while many of them wait, the writer refuses further ones with `error:`.
//! 5. The task of each `shard` hands the queue's events to `live` in commit order. It reads the states of groups that
//!    were not in memory.
//!
//! Followed:
//!
//! 1. The writer saves a batch; the events join those of other instances in the log.
//! 2. `Delivery::note`: the group cache notes the batch's changes ahead of the log, so that they count for the events
//!    that this process admits next.
//! 3. The writer answers the publishers.
//! 4. `Delivery::committed`: the batch's events are kept at hand, the follower is notified, and the costs of the
//!    events are queued for the other instances (`crate::peers`).
//! 5. The `follower` makes a pass: it reads the log page by page, from the last event that it handed on to the head,
//!    and puts the events that a subscription waits for into the queues. It waits while a queue is full. Its module
//!    lists the steps for a page.
//! 6. A request waits for a pass that began after it (`Delivery::fresh`), so that it finds every event that any
//!    instance acknowledged before.
//!
//! A *notification* says that the log may have grown. It carries no event and it may be lost: the follower also looks
//! at the log at an interval, so a lost notification delays events by that interval at most. Notifications come from
//! the store, from this process's writer, from requests and, where the operator chose so, over Redis.

pub(crate) mod direct;
pub(crate) mod follow;
pub(crate) mod follower;
pub(crate) mod groups;
pub(crate) mod index;
pub(crate) mod live;
mod members;
pub(crate) mod outbox;
mod payers;
mod queue;
mod routes;
mod shard;
#[cfg(test)]
mod tests;
pub(crate) mod writer;

use std::{sync::Arc, time::Duration};

use nostr_extensions::{CurrentPolicy, Persistence, Policy, Sealed, kinds::rules};
use nostr_protocol::{Kind, Rejection};
use nostr_store::{Saved, Store, StoreError};
use tokio::{sync::Notify, task::JoinHandle};

use self::{
    direct::Direct,
    follow::Followed,
    groups::{GroupState, Groups},
};
pub use self::{
    index::ConnectionId,
    live::Live,
    outbox::{Outbox, Outgoing},
};
use crate::{
    config::Config,
    error::StartError,
    observe::metrics::Metrics,
    peers::PeerChannel,
    rate_limit::{BucketId, Charges, RateLimits},
    system::clock::StoreClock,
};

/// The mode in which committed events go from the writer to live delivery; see the module.
pub(crate) enum Delivery {
    /// This process alone writes to the store, so its commits are the log.
    Direct(Direct),
    /// Other processes may write to the store too, so delivery follows its log, also where only one instance runs.
    Followed(Followed),
}

/// The parts that delivery works with. The writer is none of them, so that it can end before delivery does.
pub(crate) struct Parts {
    pub(crate) config: Arc<Config>,
    pub(crate) policy: CurrentPolicy,
    /// Told when another instance has carried out an order of management.
    pub(crate) ordered: Arc<Notify>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) groups: Arc<Groups>,
    pub(crate) live: Arc<Live>,
    pub(crate) limits: Arc<RateLimits>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Arc<StoreClock>,
}

/// Highest age, in milliseconds, of the states by which a page of the archive is released, as far as other processes
/// change them.
const RECENT_MS_MAX: u64 = 100;

/// The state of the group of each new event in a batch, where it is in memory; empty where the follower looks the
/// states up.
type GroupStates = Vec<Option<Arc<GroupState>>>;

impl Delivery {
    /// Starts delivery in the mode that the store asks for. Its tasks end after the last handle to it is dropped.
    ///
    /// # Errors
    /// [`StartError`] where the instances are to use Redis and its URL is missing or malformed.
    pub(crate) fn start(parts: Parts) -> Result<(Arc<Self>, Vec<JoinHandle<()>>), StartError> {
        let (delivery, tasks) = match parts.store.notifications() {
            None => {
                let (direct, tasks) = Direct::start(parts.groups, parts.policy, &parts.live, &parts.store);
                (Self::Direct(direct), tasks)
            }
            Some(notifications) => {
                let (followed, tasks) = Followed::start(parts, notifications)?;
                (Self::Followed(followed), tasks)
            }
        };
        Ok((Arc::new(delivery), tasks))
    }

    /// Notes the changes of groups in a saved batch. The writer calls it before it answers any publisher.
    pub(crate) fn note(&self, saved: &[Result<Saved, StoreError>]) -> GroupStates {
        match self {
            Self::Direct(direct) => direct.note(saved),
            Self::Followed(followed) => {
                followed.note_ahead(saved);
                GroupStates::new()
            }
        }
    }

    /// Hands on the new events of a batch, in commit order, with the states that [`Self::note`] gave for them. `paid`
    /// are the buckets that their costs were taken from. The writer never waits for delivery.
    pub(crate) fn committed(&self, events: Vec<Sealed>, states: GroupStates, paid: Vec<BucketId>) {
        match self {
            Self::Direct(direct) => direct.committed(events, states),
            Self::Followed(followed) => followed.committed(events, paid),
        }
    }

    /// Returns whether an event of this kind may be committed: one that is in no log must find room in the queues.
    pub(crate) fn takes(&self, kind: Kind) -> bool {
        match self {
            Self::Direct(direct) => direct.takes(kind),
            Self::Followed(_) => true,
        }
    }

    /// Waits until this process knows every event that any process committed before this call.
    ///
    /// # Errors
    /// `error:` when the log cannot be followed.
    pub(crate) async fn fresh(&self) -> Result<(), Rejection> {
        match self {
            Self::Direct(_) => Ok(()),
            Self::Followed(followed) => followed.log().fresh().await,
        }
    }

    /// Waits until the cached states of groups hold every change that any process committed more than
    /// [`RECENT_MS_MAX`] before the end of this call.
    ///
    /// # Errors
    /// As [`Self::fresh`].
    pub(crate) async fn recent(&self) -> Result<(), Rejection> {
        match self.lag() {
            Some(lag) if lag > Duration::from_millis(RECENT_MS_MAX) => self.fresh().await,
            _ => Ok(()),
        }
    }

    /// Returns whether the cached states of groups may be relied on.
    pub(crate) fn is_current(&self) -> bool {
        match self {
            Self::Direct(_) => true,
            Self::Followed(followed) => followed.log().is_current(),
        }
    }

    /// The reason why this process should get no clients now, if there is one.
    pub(crate) fn not_ready(&self) -> Option<&'static str> {
        match self {
            Self::Direct(_) => None,
            Self::Followed(followed) => followed.not_ready(),
        }
    }

    /// Returns whether other processes may write to the store too.
    pub(crate) const fn is_followed(&self) -> bool {
        matches!(self, Self::Followed(_))
    }

    /// Time since the last pass that reached the head of the log began; `None` before the first one, and where delivery
    /// is direct.
    pub(crate) fn lag(&self) -> Option<Duration> {
        match self {
            Self::Direct(_) => None,
            Self::Followed(followed) => followed.log().lag(),
        }
    }

    /// The channel to the other instances; `None` where there are none, or where they have no channel beside the log.
    pub(crate) fn peers(&self) -> Option<&PeerChannel> {
        match self {
            Self::Direct(_) => None,
            Self::Followed(followed) => followed.peers(),
        }
    }

    /// An empty list of charges, which stays empty where no other instance is told.
    pub(crate) fn charges(&self) -> Charges {
        Charges::new(matches!(self, Self::Followed(followed) if followed.has_peers()))
    }

    /// Tells the other instances that an order of management was carried out.
    pub(crate) fn tell_of_orders(&self) {
        if let Self::Followed(followed) = self {
            followed.tell_of_orders();
        }
    }

    /// Tells the other instances which buckets have paid for a claim of KeyPackages.
    pub(crate) fn claimed(&self, charges: Charges) {
        if let Self::Followed(followed) = self {
            followed.tell_peers(charges.into_buckets());
        }
    }
}

/// Returns whether the log of a store of one process holds events of this kind.
fn is_logged(kind: Kind, policy: &Policy) -> bool {
    rules(kind).kept.persistence(policy) != Persistence::Ephemeral
}

/// The events of a saved batch that are new, in its order.
fn new_events(saved: &[Result<Saved, StoreError>]) -> impl Iterator<Item = &Sealed> {
    saved.iter().filter_map(|saved| saved.as_ref().ok().and_then(Saved::new_event))
}
