//! Common parts of `rnostr export` and `rnostr import`: the configured store, the file, and the progress display.

pub(super) mod progress;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use nostr_relay::{
    config::{self, Config, StorageBackend},
    observe::telemetry,
    storage,
};
use nostr_store::{
    embedded::Options,
    moving::{FileKey, Moving},
};

/// The file to write or read, or `-` for standard output or input.
#[derive(Debug)]
pub(super) enum Endpoint {
    Pipe,
    File(PathBuf),
}

impl Endpoint {
    /// Reads the operator's word; a pipe if there is none.
    pub(super) fn of(typed: Option<PathBuf>) -> Self {
        match typed {
            Some(path) if path != Path::new("-") => Self::File(path),
            _ => Self::Pipe,
        }
    }
}

/// Reads the configuration as `rnostr relay` does, and starts the log.
pub(super) fn configured(path: Option<&Path>) -> Result<Config, String> {
    let config = Config::load(path, config::process_environment()).map_err(|error| error.to_string())?;
    telemetry::init(&config.server);
    Ok(config)
}

/// Reads the key of an export from its file, where the operator names one.
pub(super) fn file_key(path: Option<&Path>) -> Result<Option<FileKey>, String> {
    let Some(path) = path else { return Ok(None) };
    let content = std::fs::read(path).map_err(|error| format!("--key-file {}: {error}", path.display()))?;
    let fault = || format!("--key-file {}: not a key; write 64 hex digits (openssl rand -hex 32)", path.display());
    FileKey::parse(&content).ok_or_else(fault).map(Some)
}

/// Opens the store and runs `work` with it.
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

/// Refuses to export from a missing embedded store, which opening would create.
pub(super) fn require_store(config: &Config) -> Result<(), String> {
    let path = &config.data.path;
    if config.mls_gateway.storage_backend == StorageBackend::Embedded && !path.join("data.mdb").exists() {
        return Err(format!("there is no store in {}; is data.path right?", path.display()));
    }
    Ok(())
}

/// The directory of the embedded store and its options. A database has tools of its own, which the error names.
pub(super) fn embedded(config: &Config) -> Result<(&Path, Options), String> {
    match config.mls_gateway.storage_backend {
        StorageBackend::Embedded => Ok((&config.data.path, storage::embedded_options(config))),
        StorageBackend::Postgres => {
            Err("the store is PostgreSQL, which has tools of its own: `pg_dump --schema=rnostr \
             --format=custom --file=FILE DATABASE_URL` and `pg_restore`, `VACUUM`, `pg_amcheck`; or move it by \
             `rnostr export` and `rnostr import`"
                .to_owned())
        }
        StorageBackend::Firestore => {
            Err("the store is Firestore, which has tools of its own: `gcloud firestore export \
             gs://BUCKET` and `gcloud firestore import`; or move it by `rnostr export` and `rnostr import`"
                .to_owned())
        }
    }
}

/// Asks the operator at the terminal, and returns whether the answer is yes.
///
/// # Errors
/// The answer cannot be read.
pub(super) fn confirmed_by_terminal(question: &str) -> Result<bool, String> {
    eprint!("{question} [y/N] ");
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer).map_err(|error| format!("cannot read the answer: {error}"))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// The time, in Unix seconds.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Options for a file that only its owner may read, because it holds events for members and recipients.
pub(super) fn private() -> std::fs::OpenOptions {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    options.mode(0o600);
    options
}
