//! Opens the store that the configuration names.

use std::{
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
    error::StartError,
    system::backoff,
};

/// A store that was opened.
enum OpenedStore {
    Embedded(Box<Embedded>),
    Postgres(Box<Postgres>),
    #[cfg(feature = "firestore")]
    Firestore(Box<Firestore>),
}

/// Opens the store. A database that does not answer is tried again for `server.startup_timeout_secs`.
///
/// # Errors
/// [`StartError`], in words for the operator.
pub(crate) async fn open(config: &Config) -> Result<Arc<dyn Store>, StartError> {
    Ok(match open_named(config).await? {
        OpenedStore::Embedded(store) => Arc::<Embedded>::from(store),
        OpenedStore::Postgres(store) => Arc::<Postgres>::from(store),
        #[cfg(feature = "firestore")]
        OpenedStore::Firestore(store) => Arc::<Firestore>::from(store),
    })
}

/// Opens the store for the operator's commands, which read and write everything. It tries as often as the relay does at
/// a start.
///
/// # Errors
/// [`StartError`], in words for the operator.
pub async fn open_for_moving(config: &Config) -> Result<Arc<dyn Moving>, StartError> {
    Ok(match open_named(config).await? {
        OpenedStore::Embedded(store) => Arc::<Embedded>::from(store),
        OpenedStore::Postgres(store) => Arc::<Postgres>::from(store),
        #[cfg(feature = "firestore")]
        OpenedStore::Firestore(store) => Arc::<Firestore>::from(store),
    })
}

/// The options of the embedded store.
#[must_use]
pub const fn embedded_options(config: &Config) -> embedded::Options {
    let durability = match config.data.durability {
        config::Durability::Commit => embedded::Durability::Commit,
        config::Durability::Interval => embedded::Durability::Interval { ms: config.data.sync_interval_ms },
    };
    embedded::Options { durability, map_bytes_max: config.data.map_size_max_mib << 20 }
}

async fn open_named(config: &Config) -> Result<OpenedStore, StartError> {
    let until = Instant::now() + Duration::from_secs(config.server.startup_timeout_secs);
    let mut failures = 0;
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
        // The last try comes at the end of the time, and not before.
        let wait = backoff::START.pause(failures).min(left);
        tracing::warn!(%error, "the database cannot be reached; trying again in {} ms", wait.as_millis());
        tokio::time::sleep(wait).await;
        failures += 1;
    }
}

async fn open_once(config: &Config) -> Result<OpenedStore, OpenError> {
    let gateway = &config.mls_gateway;
    match gateway.storage_backend {
        StorageBackend::Embedded => {
            Ok(OpenedStore::Embedded(Box::new(Embedded::open(&config.data.path, embedded_options(config))?)))
        }
        StorageBackend::Postgres => {
            let url = gateway.database_url.as_ref().map(config::Secret::expose).unwrap_or_default();
            let mut options = postgres::Options::default();
            options.notifies = gateway.wake == WakeBy::Store;
            options.connections_max = gateway.max_connections.unwrap_or(options.connections_max);
            Ok(OpenedStore::Postgres(Box::new(Postgres::open(url, options).await?)))
        }
        #[cfg(feature = "firestore")]
        StorageBackend::Firestore => {
            let mut options = nostr_store::firestore::Options::new(gateway.project_id.as_deref().unwrap_or_default());
            options.batch_size = gateway.firestore_batch_size;
            options.reads_per_minute_max = gateway.firestore_reads_per_minute_max;
            Ok(OpenedStore::Firestore(Box::new(Firestore::open(options).await?)))
        }
        // The configuration's reader refuses this backend before.
        #[cfg(not(feature = "firestore"))]
        StorageBackend::Firestore => Err(OpenError::Refused("firestore is not in this build".to_owned())),
    }
}
