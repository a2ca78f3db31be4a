//! The store that the configuration names, opened.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::{Duration, Instant},
};

#[cfg(feature = "firestore")]
use nostr_store::firestore::Firestore;
use nostr_store::{
    OpenError, Store,
    embedded::{self, Embedded},
    moving::Moving,
    postgres::{self, Postgres},
};

use crate::{
    config::{self, Config, StorageBackend, WakeBy},
    start::StartError,
};

/// Wait before the second attempt to reach an engine, and the longest one; each is up to half longer, by chance.
const RETRY_MS_MIN: u64 = 250;
const RETRY_MS_MAX: u64 = 5_000;

/// The store that is named.
enum Opened {
    Embedded(Box<Embedded>),
    Postgres(Postgres),
    #[cfg(feature = "firestore")]
    Firestore(Box<Firestore>),
}

/// Opens the store. An engine that does not answer is tried again for `server.startup_timeout_secs`.
///
/// # Errors
/// [`StartError`], in words for the operator.
pub async fn open(config: &Config) -> Result<Arc<dyn Store>, StartError> {
    Ok(match open_named(config).await? {
        Opened::Embedded(store) => Arc::<Embedded>::from(store),
        Opened::Postgres(store) => Arc::new(store),
        #[cfg(feature = "firestore")]
        Opened::Firestore(store) => Arc::<Firestore>::from(store),
    })
}

/// See [`open`]; for the operator's commands, which read and write everything.
///
/// # Errors
/// [`StartError`], in words for the operator.
pub async fn open_for_moving(config: &Config) -> Result<Arc<dyn Moving>, StartError> {
    Ok(match open_named(config).await? {
        Opened::Embedded(store) => Arc::<Embedded>::from(store),
        Opened::Postgres(store) => Arc::new(store),
        #[cfg(feature = "firestore")]
        Opened::Firestore(store) => Arc::<Firestore>::from(store),
    })
}

async fn open_named(config: &Config) -> Result<Opened, StartError> {
    let until = Instant::now() + Duration::from_secs(config.server.startup_timeout_secs);
    let mut wait_ms = RETRY_MS_MIN;
    loop {
        let error = match open_once(config).await {
            Ok(store) => return Ok(store),
            Err(OpenError::Refused(text)) if config.mls_gateway.storage_backend == StorageBackend::Embedded => {
                return Err(StartError::new(text));
            }
            Err(OpenError::Refused(text)) => {
                return Err(StartError::new(format!("Failed to connect to database: {text}")));
            }
            Err(OpenError::Unreachable(text)) => text,
        };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(StartError::new(format!("Failed to connect to database: {error}")));
        }
        // The last try is made when the time is over, and not before.
        let wait = Duration::from_millis(wait_ms + RandomState::new().hash_one(0) % (wait_ms / 2 + 1)).min(left);
        tracing::warn!(%error, "the database cannot be reached; trying again in {} ms", wait.as_millis());
        tokio::time::sleep(wait).await;
        wait_ms = (wait_ms * 2).min(RETRY_MS_MAX);
    }
}

async fn open_once(config: &Config) -> Result<Opened, OpenError> {
    let gateway = &config.mls_gateway;
    match gateway.storage_backend {
        StorageBackend::Embedded => {
            let durability = match config.data.durability {
                config::Durability::Commit => embedded::Durability::Commit,
                config::Durability::Interval => embedded::Durability::Interval { ms: config.data.sync_interval_ms },
            };
            let options = embedded::Options { durability, map_bytes_max: config.data.map_size_max_mib << 20 };
            Ok(Opened::Embedded(Box::new(Embedded::open(&config.data.path, options)?)))
        }
        StorageBackend::Postgres => {
            let url = gateway.database_url.as_ref().map(config::Secret::expose).unwrap_or_default();
            let mut options = postgres::Options::default();
            options.notifies = gateway.wake == WakeBy::Store;
            options.connections_max = gateway.max_connections.unwrap_or(options.connections_max);
            Ok(Opened::Postgres(Postgres::open(url, options).await?))
        }
        #[cfg(feature = "firestore")]
        StorageBackend::Firestore => {
            let mut options = nostr_store::firestore::Options::new(gateway.project_id.as_deref().unwrap_or_default());
            options.batch_size = gateway.firestore_batch_size;
            Ok(Opened::Firestore(Box::new(Firestore::open(options).await?)))
        }
        // Reading the configuration refuses it before.
        #[cfg(not(feature = "firestore"))]
        StorageBackend::Firestore => Err(OpenError::Refused("firestore is not in this build".to_owned())),
    }
}
