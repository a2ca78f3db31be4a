//! Which road committed events take from the writer to live delivery: straight, where this process alone writes to the
//! store; else through the log, where they meet those of others.

use std::sync::Arc;

use nostr_store::Store;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::Clock,
    config::{Config, WakeBy},
    follow::{Follow, Handover},
    rate_limit::RateLimits,
    start::StartError,
    wake::{Wake, redis::Redis},
    writer::{Committed, LIVE_BATCHES_MAX, Onward},
};

/// A road and what stands along it.
pub struct Roads {
    /// How far the log is followed, where it is.
    pub follow: Option<Arc<Follow>>,
    /// What tells other instances, where the store does not.
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
        /// Wake-ups beside those of the store.
        redis: Option<Box<Redis>>,
        /// Cancelled when the writer has ended.
        ended: CancellationToken,
    },
}

/// The rate limits: where instances share a store their buckets have the same names, so that they can tell each other.
pub fn limits(config: &Config, store: &dyn Store) -> RateLimits {
    let rates = &config.mls_gateway.rate_limits;
    match store.knocks() {
        Some(_) => RateLimits::shared(rates, &store.router()),
        None => RateLimits::new(rates),
    }
}

/// The road that the store asks for.
///
/// # Errors
/// [`StartError`] where Redis is to be used and its URL is missing or none.
pub fn roads(
    config: &Config,
    store: &dyn Store,
    limits: &Arc<RateLimits>,
    clock: &Arc<dyn Clock>,
) -> Result<Roads, StartError> {
    if store.knocks().is_none() {
        let (sender, committed) = mpsc::channel(LIVE_BATCHES_MAX);
        let (onward, delivery) = (Onward::Live(sender), Delivery::OfCommitted(committed));
        return Ok(Roads { follow: None, wake: None, onward, delivery });
    }
    let follow = Arc::new(Follow::default());
    let wake = (config.mls_gateway.wake == WakeBy::Redis).then(Arc::<Wake>::default);
    let redis = match &wake {
        Some(wake) => Some(Box::new(redis(config, store, wake, &follow, limits, clock)?)),
        None => None,
    };
    let ended = CancellationToken::new();
    let onward = Onward::Followed(Handover {
        follow: Arc::clone(&follow),
        wake: wake.clone(),
        ends: ended.clone().drop_guard(),
    });
    Ok(Roads { follow: Some(Arc::clone(&follow)), wake, onward, delivery: Delivery::OfLog { follow, redis, ended } })
}

fn redis(
    config: &Config,
    store: &dyn Store,
    wake: &Arc<Wake>,
    follow: &Arc<Follow>,
    limits: &Arc<RateLimits>,
    clock: &Arc<dyn Clock>,
) -> Result<Redis, StartError> {
    let failed =
        |what: &str| StartError::new(format!("extensions.mls_gateway.redis_url: {what}; write redis://host:6379"));
    let url = config.mls_gateway.redis_url.as_ref().ok_or_else(|| failed("wake = \"redis\" needs it"))?;
    let (wake, follow, limits) = (Arc::clone(wake), Arc::clone(follow), Arc::clone(limits));
    Redis::new(url, &store.router(), wake, follow, limits, Arc::clone(clock)).map_err(|what| failed(&what))
}
