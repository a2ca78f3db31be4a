//! The file by which `rnostr reload` finds a relay that runs.
//!
//! The relay holds a lock on it, so that a number that a killed relay left behind is never taken for a process that
//! the system has given the same number to.

use std::{
    fs::{self, File, TryLockError},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process, thread,
    time::Duration,
};

use crate::config::{Config, StorageBackend};

/// Name of the file in the directory of the embedded store.
const NAME: &str = "rnostr.pid";

/// Most times that the file is opened and locked. Another process may remove it in between, and `rnostr reload` holds
/// it for a moment.
const TRIES_MAX: usize = 50;
/// Milliseconds between two tries.
const RETRY_MS: u64 = 10;

/// See the module. The file goes with this value.
pub(crate) struct PidFile {
    path: PathBuf,
    locked: File,
}

fn path(config: &Config) -> Option<PathBuf> {
    let with_store = || config.data.path.join(NAME);
    let is_embedded = config.mls_gateway.storage_backend == StorageBackend::Embedded;
    config.server.pid_file.clone().or_else(|| is_embedded.then(with_store))
}

/// Whether the path leads to the file. A relay that ends removes its file, and one that starts may have opened it
/// before: its lock would keep no third one out.
fn leads_to(path: &Path, file: &File) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

impl PidFile {
    /// Writes and locks the file that the configuration names; `None` where it names none.
    ///
    /// # Errors
    /// In words for the operator.
    pub(crate) fn of(config: &Config) -> Result<Option<Self>, String> {
        let Some(path) = path(config) else { return Ok(None) };
        let held = Self::hold(&path).map_err(|error| format!("server.pid_file {}: {error}", path.display()))?;
        let taken = || format!("server.pid_file {}: another relay runs by it; write another one", path.display());
        held.map(Some).ok_or_else(taken)
    }

    /// The file under a lock, with the number of this process; `None` while another process holds it.
    fn hold(path: &Path) -> io::Result<Option<Self>> {
        for _ in 0..TRIES_MAX {
            let mut file = File::options().create(true).write(true).truncate(false).open(path)?;
            match file.try_lock() {
                Ok(()) if leads_to(path, &file)? => {
                    file.set_len(0)?;
                    writeln!(file, "{}", process::id())?;
                    return Ok(Some(Self { path: path.to_owned(), locked: file }));
                }
                Ok(()) | Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(RETRY_MS)),
                Err(TryLockError::Error(error)) => return Err(error),
            }
        }
        Ok(None)
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // A file that stays is not locked, and so stands for no process. One that took its place is another relay's.
        if leads_to(&self.path, &self.locked).unwrap_or(false) {
            let _ = fs::remove_file(&self.path);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(directory: &Path) -> Config {
        let mut config = Config::default();
        config.server.pid_file = Some(directory.join("relay.pid"));
        config
    }

    #[test]
    fn one_relay_holds_the_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let config = configured(directory.path());
        let held = PidFile::of(&config).expect("it is free").expect("it is named");
        assert_eq!(running(&config), Ok(process::id()));
        assert!(PidFile::of(&config).is_err_and(|text| text.contains("another relay runs by it")));
        drop(held);
        assert!(running(&config).is_err());
        assert!(PidFile::of(&config).is_ok());
    }

    /// A relay that ends removes the file which another one may have opened.
    #[test]
    fn a_path_leads_to_the_file_that_lies_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("relay.pid");
        let opened = File::create(&path).expect("a file");
        assert!(leads_to(&path, &opened).expect("both are there"));
        fs::remove_file(&path).expect("it is removed");
        assert!(!leads_to(&path, &opened).expect("one is there"));
        let _other = File::create(&path).expect("a file");
        assert!(!leads_to(&path, &opened).expect("both are there"));
    }

    #[test]
    fn a_file_of_another_relay_stays() {
        let directory = tempfile::tempdir().expect("a directory");
        let config = configured(directory.path());
        let first = PidFile::of(&config).expect("it is free").expect("it is named");
        fs::remove_file(&first.path).expect("it is removed");
        let second = PidFile::of(&config).expect("it is free").expect("it is named");
        drop(first);
        assert_eq!(running(&config), Ok(process::id()));
        drop(second);
    }

    /// `rnostr reload` holds the file for a moment, which keeps no relay from starting.
    #[test]
    fn a_look_at_the_file_keeps_no_relay_out() {
        let directory = tempfile::tempdir().expect("a directory");
        let config = configured(directory.path());
        let path = path(&config).expect("it is named");
        let looking = File::create(&path).expect("a file");
        looking.try_lock_shared().expect("nobody holds it");
        let started = thread::scope(|scope| {
            let starting = scope.spawn(|| PidFile::of(&config));
            thread::sleep(Duration::from_millis(20));
            drop(looking);
            starting.join().expect("no panic")
        });
        assert!(started.is_ok_and(|held| held.is_some()));
    }
}
