//! Messages between the instances that share a store, beside the store's log.
//!
//! An instance tells the others that it committed something, and which buckets its events were paid from. Only time and
//! the exactness of rate limits depend on a message: an instance that misses one finds the events at its next look at
//! the log. Messages are sent in the background; no request waits for one. All that waits to be sent is one message,
//! into which each further charge goes.
//!
//! A stranger that reaches the channel may repeat a message or invent one. So each carries a code under a key of the
//! store's, a time and a number ([`receiver`]).

mod announcement;
mod message;
mod receiver;
mod redis;
mod store;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use nostr_extensions::RouteHasher;
use parking_lot::Mutex;
use tokio::{sync::Notify, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub(crate) use self::announcement::{Announcement, Seen};
use self::{
    announcement::Announced,
    message::{CHARGES_MAX, MessageKey, PeerMessage},
    receiver::PeerReceiver,
    redis::RedisTransport,
    store::StoreTransport,
};
use crate::{
    config::WakeBy,
    delivery::{Parts, follow::FollowedLog},
    error::StartError,
    rate_limit::{BucketId, Charge},
    system::{
        clock::{Clock, StoreClock},
        random,
    },
};

/// The channel to the other instances, and the message that waits for it.
pub(crate) struct PeerChannel {
    /// Name of this instance, drawn at random at each start.
    instance: [u8; 16],
    key: MessageKey,
    clock: Arc<dyn Clock>,
    /// Number of the last message.
    number: AtomicU64,
    pending: Mutex<Pending>,
    filled: Notify,
    /// The other instances.
    announced: Announced,
}

#[derive(Default)]
struct Pending {
    has_commits: bool,
    has_orders: bool,
    announcement: Option<Announcement>,
    charges: HashMap<BucketId, u32>,
}

/// The way on which messages travel.
pub(crate) enum Transport {
    /// Redis carries notifications and charges.
    Redis(Box<RedisTransport>),
    /// The store carries charges; its own notifications say that something was committed.
    Store(Box<StoreTransport>),
}

/// Opens the channel that the configuration and the store give; `None` where there is none beside the log.
///
/// # Errors
/// [`StartError`] where the instances are to use Redis and its URL is missing or malformed.
pub(crate) fn open(parts: &Parts, log: &Arc<FollowedLog>) -> Result<Option<(Arc<PeerChannel>, Transport)>, StartError> {
    let channel = Arc::new(PeerChannel::new(&parts.store.route_hasher(), Arc::<StoreClock>::clone(&parts.clock)));
    let receiver = PeerReceiver::new(
        Arc::clone(&channel),
        Arc::clone(&parts.limits),
        Arc::clone(&parts.metrics),
        Arc::clone(&parts.ordered),
    );
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

impl PeerChannel {
    fn new(hasher: &RouteHasher, clock: Arc<dyn Clock>) -> Self {
        let mut instance = [0; 16];
        instance.copy_from_slice(&random::bytes32()[..16]);
        Self {
            instance,
            key: MessageKey::new(hasher),
            clock,
            number: AtomicU64::new(0),
            pending: Mutex::default(),
            filled: Notify::new(),
            announced: Announced::default(),
        }
    }

    /// The name of this instance.
    pub(crate) const fn instance(&self) -> [u8; 16] {
        self.instance
    }

    /// The other instances that announced themselves of late.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.announced.now(self.clock.now_ms())
    }

    /// Queues a statement about this instance. A newer one replaces one that waits.
    pub(crate) fn announce(&self, announcement: Announcement) {
        self.pending.lock().announcement = Some(announcement);
        self.filled.notify_one();
    }

    /// Queues the news that something was committed, and the buckets that paid for it. Buckets past [`CHARGES_MAX`] are
    /// dropped.
    pub(crate) fn committed(&self, paid: impl IntoIterator<Item = BucketId>) {
        let mut pending = self.pending.lock();
        pending.has_commits = true;
        pending.charge(paid);
        drop(pending);
        self.filled.notify_one();
    }

    /// Queues the news that an order of management was carried out.
    pub(crate) fn ordered(&self) {
        self.pending.lock().has_orders = true;
        self.filled.notify_one();
    }

    /// Takes the message that waits.
    fn take(&self) -> PeerMessage {
        let Pending { has_commits, has_orders, announcement, charges } = std::mem::take(&mut *self.pending.lock());
        PeerMessage {
            instance: self.instance,
            number: self.number.fetch_add(1, Ordering::Relaxed) + 1,
            sent_ms: self.clock.now_ms(),
            has_commits,
            has_orders,
            announcement,
            charges: charges.into_iter().map(|(bucket, times)| Charge { bucket, times }).collect(),
        }
    }

    fn is_empty(&self) -> bool {
        let pending = self.pending.lock();
        !pending.has_commits && !pending.has_orders
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
