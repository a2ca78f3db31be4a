//! Which road committed events take from the writer to live delivery: straight, where this process alone writes to the
//! store; else through the log, where they meet those of others.

pub mod follow;
pub mod follower;
pub mod groups;
pub mod index;
pub mod live;
pub mod outbox;
pub mod writer;

use std::sync::Arc;

use nostr_store::Store;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    config::{Config, WakeBy},
    follow::{Follow, Handover},
    peers::{Hearing, Wake, redis::Redis, store::Told},
    rate_limit::RateLimits,
    start::StartError,
    writer::{Committed, LIVE_BATCHES_MAX, Onward},
};

/// A road and what stands along it.
pub struct Roads {
    /// How far the log is followed, where it is.
    pub follow: Option<Arc<Follow>>,
    /// What is told to other instances beside the log.
    pub wake: Option<Arc<Wake>>,
    /// The writer's end.
    pub onward: Onward,
    /// The end of live delivery.
    pub delivery: Delivery,
}

/// Where live delivery gets events from.
pub enum Delivery {
    /// The writer.
    OfCommitted(mpsc::Receiver<Vec<Committed>>),
    /// The log, until the writer has ended.
    OfLog {
        /// How far it is followed.
        follow: Arc<Follow>,
        /// What instances tell each other beside the log.
        beside: Option<Beside>,
        /// Cancelled when the writer has ended.
        ended: CancellationToken,
    },
}

/// How instances tell each other what has no place in the log.
pub enum Beside {
    /// What events cost, and wake-ups.
    Redis(Box<Redis>),
    /// What events cost.
    Store(Box<Told>),
}

impl Beside {
    /// Starts its tasks, until `ended`.
    pub fn start(self, ended: &CancellationToken) -> [JoinHandle<()>; 2] {
        match self {
            Self::Redis(redis) => redis.start(ended),
            Self::Store(told) => told.start(ended),
        }
    }
}

/// The rate limits: where instances share a store their buckets have the same names, so that they can tell each other.
pub fn limits(config: &Config, store: &dyn Store) -> RateLimits {
    let rates = &config.mls_gateway.rate_limits;
    match store.notifications() {
        Some(_) => RateLimits::shared(rates, &store.route_hasher()),
        None => RateLimits::new(rates),
    }
}

/// The road that the store asks for.
///
/// # Errors
/// [`StartError`] where Redis is to be used and its URL is missing or none.
pub fn roads(
    config: &Config,
    store: &Arc<dyn Store>,
    limits: &Arc<RateLimits>,
    clock: &Arc<dyn Clock>,
) -> Result<Roads, StartError> {
    if store.notifications().is_none() {
        let (sender, committed) = mpsc::channel(LIVE_BATCHES_MAX);
        let (onward, delivery) = (Onward::Live(sender), Delivery::OfCommitted(committed));
        return Ok(Roads { follow: None, wake: None, onward, delivery });
    }
    let follow = Arc::new(Follow::default());
    let wake = Arc::<Wake>::default();
    let hearing = Hearing { wake: Arc::clone(&wake), limits: Arc::clone(limits), clock: Arc::clone(clock) };
    let beside = match config.mls_gateway.wake {
        WakeBy::Redis => Some(Beside::Redis(Box::new(redis(config, &**store, hearing, &follow)?))),
        WakeBy::Store => {
            store.messages().map(|heard| Beside::Store(Box::new(Told::new(Arc::clone(store), heard, hearing))))
        }
    };
    let wake = beside.is_some().then_some(wake);
    let ended = CancellationToken::new();
    let onward = Onward::Followed(Handover {
        follow: Arc::clone(&follow),
        wake: wake.clone(),
        ends: ended.clone().drop_guard(),
    });
    Ok(Roads { follow: Some(Arc::clone(&follow)), wake, onward, delivery: Delivery::OfLog { follow, beside, ended } })
}

fn redis(config: &Config, store: &dyn Store, hearing: Hearing, follow: &Arc<Follow>) -> Result<Redis, StartError> {
    let failed =
        |what: &str| StartError::new(format!("extensions.mls_gateway.redis_url: {what}; write redis://host:6379"));
    let url = config.mls_gateway.redis_url.as_ref().ok_or_else(|| failed("wake = \"redis\" needs it"))?;
    Redis::new(url, &store.route_hasher(), hearing, Arc::clone(follow)).map_err(|what| failed(&what))
}
