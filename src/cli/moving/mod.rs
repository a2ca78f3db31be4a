//! What `rnostr export` and `rnostr import` have in common: the store that the configuration names, and a word about how
//! far they are.

pub(super) mod progress;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use nostr_relay::{
    config::{self, Config, StorageBackend},
    storage, telemetry,
};
use nostr_store::moving::Moving;

/// A file, or `-`.
#[derive(Debug)]
pub(super) enum End {
    Pipe,
    File(PathBuf),
}

impl End {
    /// What was typed; a pipe where nothing was.
    pub(super) fn of(typed: Option<PathBuf>) -> Self {
        match typed {
            Some(path) if path != Path::new("-") => Self::File(path),
            _ => Self::Pipe,
        }
    }
}

/// Reads the configuration, as `rnostr relay` would.
pub(super) fn configured(path: Option<&Path>) -> Result<Config, String> {
    let config = Config::load(path, config::process_environment()).map_err(|error| error.to_string())?;
    telemetry::init(&config.log);
    Ok(config)
}

/// Opens the store and does something with it.
pub(super) fn with_store<T>(
    config: &Config,
    work: impl AsyncFnOnce(Arc<dyn Moving>) -> Result<T, String>,
) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| format!("the runtime cannot start: {error}"))?;
    runtime.block_on(async {
        let store = storage::open_for_moving(config).await.map_err(|error| error.to_string())?;
        work(store).await
    })
}

/// Whether there is a store, where opening it would make one.
pub(super) fn require_store(config: &Config) -> Result<(), String> {
    let path = &config.data.path;
    if config.mls_gateway.storage_backend == StorageBackend::Embedded && !path.join("data.mdb").exists() {
        return Err(format!("there is no store in {}; is data.path right?", path.display()));
    }
    Ok(())
}

/// Unix seconds.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Options of a file that nobody else may read: what is in it is for members and recipients alone.
pub(super) fn private() -> std::fs::OpenOptions {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    options.mode(0o600);
    options
}
