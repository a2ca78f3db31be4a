//! The check of the files that a configuration names, which `rnostr check-config` makes without starting a relay.

use std::{
    fs::{self, OpenOptions},
    io,
    path::Path,
};

use crate::{
    config::{Config, StorageBackend},
    directory::system_key,
    server::tls::Certificates,
};

/// Name of the file by which the check finds out whether the data path can be written to.
const PROBE: &str = ".rnostr-check";

/// Faults of the certificate, its key, the system key and the data path, in words for the operator.
#[must_use]
pub fn files(config: &Config) -> Vec<String> {
    let certificates = Certificates::of(&config.server).err();
    let data = match config.mls_gateway.storage_backend {
        StorageBackend::Embedded => data_path(&config.data.path).err(),
        StorageBackend::Postgres | StorageBackend::Firestore => None,
    };
    let system_key = system_key::of(config).err();
    certificates.into_iter().chain(system_key).chain(data).collect()
}

/// Checks that the embedded store can be opened in `path`, or made there.
fn data_path(path: &Path) -> Result<(), String> {
    let failed = |error: io::Error| format!("data.path {}: {error}", path.display());
    let store = path.join("data.mdb");
    if store.exists() {
        return OpenOptions::new().read(true).write(true).open(store).map(drop).map_err(failed);
    }
    // The relay makes the directories that are missing.
    let there = path.ancestors().map(|part| if part.as_os_str().is_empty() { Path::new(".") } else { part });
    let Some(there) = there.into_iter().find(|part| part.exists()) else {
        return Err(format!("data.path {}: there is no such place; write the path of a directory", path.display()));
    };
    if !there.is_dir() {
        let there = there.display();
        return Err(format!("data.path {}: {there} is no directory; write the path of one", path.display()));
    }
    let probe = there.join(PROBE);
    OpenOptions::new().write(true).create(true).truncate(false).open(&probe).map_err(failed)?;
    fs::remove_file(probe).map_err(failed)
}
