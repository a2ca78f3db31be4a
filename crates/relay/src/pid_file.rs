//! The file by which `rnostr reload` finds a relay that runs.
//!
//! The relay holds a lock on it, so that a number that a killed relay left behind is never taken for a process that
//! the system has given the same number to.

use std::{
    fs::{self, File, TryLockError},
    io::Write as _,
    path::PathBuf,
    process,
};

use crate::config::{Config, StorageBackend};

/// Name of the file in the directory of the embedded store.
const NAME: &str = "rnostr.pid";

/// See the module. The file goes with this value.
pub(crate) struct PidFile {
    path: PathBuf,
    _locked: File,
}

fn path(config: &Config) -> Option<PathBuf> {
    let with_store = || config.data.path.join(NAME);
    let is_embedded = config.mls_gateway.storage_backend == StorageBackend::Embedded;
    config.server.pid_file.clone().or_else(|| is_embedded.then(with_store))
}

impl PidFile {
    /// Writes and locks the file that the configuration names; `None` where it names none.
    ///
    /// # Errors
    /// In words for the operator.
    pub(crate) fn of(config: &Config) -> Result<Option<Self>, String> {
        let Some(path) = path(config) else { return Ok(None) };
        let failed = |error: std::io::Error| format!("server.pid_file {}: {error}", path.display());
        let mut file = File::options().create(true).write(true).truncate(false).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(format!("server.pid_file {}: another relay runs by it; write another one", path.display()));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", process::id())).map_err(failed)?;
        Ok(Some(Self { path, _locked: file }))
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // A file that stays is not locked, and so stands for no process.
        let _ = fs::remove_file(&self.path);
    }
}

/// The number of the process that runs by this configuration.
///
/// # Errors
/// In words for the operator, where none runs by it, or where it names no file.
pub fn running(config: &Config) -> Result<u32, String> {
    let path = path(config).ok_or("write pid_file into [server], and start the relay anew")?;
    let shown = path.display();
    let none = || format!("no relay runs by this configuration ({shown} is not held by one)");
    let file = File::open(&path).map_err(|_| none())?;
    match file.try_lock_shared() {
        Ok(()) => return Err(none()),
        Err(TryLockError::WouldBlock) => {}
        Err(TryLockError::Error(error)) => return Err(format!("{shown}: {error}")),
    }
    let text = fs::read_to_string(&path).map_err(|error| format!("{shown}: {error}"))?;
    text.trim().parse().map_err(|_| format!("{shown} holds no number of a process"))
}
