//! Messages between the instances that share a store, beside the store's log.
//!
//! An instance tells the others that it committed something, and which buckets its events were paid from. Only time and
//! the exactness of rate limits depend on a message: an instance that misses one finds the events at its next look at
//! the log. Messages are sent in the background; no request waits for one. All that waits to be sent is one message,
//! into which each further charge goes.

mod message;
mod redis;
mod store;

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use self::{
    message::{CHARGES_MAX, PeerMessage},
    redis::RedisTransport,
    store::StoreTransport,
};
use crate::{
    config::WakeBy,
    delivery::{Parts, follow::FollowedLog},
    error::StartError,
    rate_limit::{BucketId, Charge, RateLimits},
    system::{clock::Clock, random},
};

/// The channel to the other instances, and the message that waits for it.
pub(crate) struct PeerChannel {
    /// Name of this instance, drawn at random at each start.
    instance: [u8; 16],
    pending: Mutex<Pending>,
    filled: Notify,
}

#[derive(Default)]
struct Pending {
    has_commits: bool,
    charges: HashMap<BucketId, u32>,
}

/// The way on which messages travel.
pub(crate) enum Transport {
    /// Redis carries notifications and charges.
    Redis(Box<RedisTransport>),
    /// The store carries charges; its own notifications say that something was committed.
    Store(Box<StoreTransport>),
}

/// The receiving side of a channel.
struct PeerReceiver {
    channel: Arc<PeerChannel>,
    /// The buckets from which the events of other instances are paid too.
    limits: Arc<RateLimits>,
    clock: Arc<dyn Clock>,
}

/// Opens the channel that the configuration and the store give; `None` where there is none beside the log.
///
/// # Errors
/// [`StartError`] where the instances are to use Redis and its URL is missing or malformed.
pub(crate) fn open(parts: &Parts, log: &Arc<FollowedLog>) -> Result<Option<(Arc<PeerChannel>, Transport)>, StartError> {
    let channel = Arc::<PeerChannel>::default();
    let receiver = PeerReceiver {
        channel: Arc::clone(&channel),
        limits: Arc::clone(&parts.limits),
        clock: Arc::clone(&parts.clock),
    };
    let gateway = &parts.config.mls_gateway;
    let transport = match gateway.wake {
        WakeBy::Redis => {
            let url = gateway.redis_url.as_ref();
            let redis = RedisTransport::new(url, &parts.store.route_hasher(), receiver, Arc::clone(log))?;
            Some(Transport::Redis(Box::new(redis)))
        }
        WakeBy::Store => parts.store.messages().map(|messages| {
            Transport::Store(Box::new(StoreTransport::new(Arc::clone(&parts.store), messages, receiver)))
        }),
    };
    Ok(transport.map(|transport| (channel, transport)))
}

impl Transport {
    /// Starts the tasks that send and receive until `ended`.
    pub(crate) fn start(self, ended: &CancellationToken) -> [JoinHandle<()>; 2] {
        match self {
            Self::Redis(redis) => redis.start(ended),
            Self::Store(store) => store.start(ended),
        }
    }
}

impl Default for PeerChannel {
    fn default() -> Self {
        let mut instance = [0; 16];
        instance.copy_from_slice(&random::bytes32()[..16]);
        Self { instance, pending: Mutex::default(), filled: Notify::new() }
    }
}

impl PeerChannel {
    /// Queues the news that something was committed, and the buckets that paid for it. Buckets past [`CHARGES_MAX`] are
    /// dropped.
    pub(crate) fn committed(&self, paid: impl IntoIterator<Item = BucketId>) {
        let mut pending = self.pending.lock();
        pending.has_commits = true;
        pending.charge(paid);
        drop(pending);
        self.filled.notify_one();
    }

    /// Takes the message that waits.
    fn take(&self) -> PeerMessage {
        let Pending { has_commits, charges } = std::mem::take(&mut *self.pending.lock());
        let charges = charges.into_iter().map(|(bucket, times)| Charge { bucket, times }).collect();
        PeerMessage { instance: self.instance, has_commits, charges }
    }

    fn is_empty(&self) -> bool {
        !self.pending.lock().has_commits
    }
}

impl PeerReceiver {
    /// Takes in a message: charges the buckets that it names. Returns whether another instance committed something.
    fn receive(&self, message: &[u8]) -> bool {
        let Some(message) = PeerMessage::decode(message) else { return false };
        if message.instance == self.channel.instance {
            return false;
        }
        let now_ms = self.clock.now_ms();
        for charge in &message.charges {
            self.limits.charge(*charge, now_ms);
        }
        message.has_commits
    }
}

impl Pending {
    fn charge(&mut self, paid: impl IntoIterator<Item = BucketId>) {
        for bucket in paid {
            if self.charges.len() < CHARGES_MAX || self.charges.contains_key(&bucket) {
                let times = self.charges.entry(bucket).or_default();
                *times = times.saturating_add(1);
            }
        }
    }
}
