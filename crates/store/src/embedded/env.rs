//! Opening the environment: the directory, the lock that keeps a second process out, and the map.

use std::{
    fs::{File, TryLockError},
    path::Path,
};

use heed::{Env, EnvFlags, EnvOpenOptions, WithTls};

use super::{Durability, Options, tables::Tables};
use crate::OpenError;

/// Most transactions that read at one time: one a thread.
const READERS_MAX: u32 = 4_096;
pub(super) const LOCK_FILE: &str = "rnostr.lock";

/// Creates `directory` where it is missing and locks it against a second process, for as long as the file is open.
///
/// # Errors
/// [`OpenError`] where that cannot be done, or another has the lock.
pub(super) fn lock(directory: &Path) -> Result<File, OpenError> {
    let shown = directory.display();
    std::fs::create_dir_all(directory)
        .map_err(|error| OpenError::Refused(format!("data directory {shown} cannot be created: {error}")))?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(directory.join(LOCK_FILE))
        .map_err(|error| OpenError::Refused(format!("data directory {shown} cannot be written: {error}")))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::Refused(format!(
            "data directory {shown} is in use by another rnostr; stop it, or use another"
        ))),
        Err(TryLockError::Error(error)) => Err(OpenError::Refused(format!(
            "data directory {shown} cannot be locked: {error}; is it on a network drive?"
        ))),
    }
}

/// Maps the environment in `directory`, which the caller has locked.
///
/// Readers keep their slot for the life of their thread (`WithTls`), so that beginning to read takes no lock; a reader
/// lives inside one call and never goes from one thread to another. `NORDAHEAD` is set as reads are far apart.
///
/// # Errors
/// [`OpenError`].
pub(super) fn open_env(directory: &Path, options: &Options) -> Result<Env<WithTls>, OpenError> {
    let page = 64 * 1024;
    let map_bytes = usize::try_from(options.map_bytes_max)
        .unwrap_or(usize::MAX)
        .checked_next_multiple_of(page)
        .unwrap_or(usize::MAX - page + 1)
        .max(16 * page);
    let mut flags = EnvFlags::NO_READ_AHEAD;
    if matches!(options.durability, Durability::Interval { .. }) {
        flags |= EnvFlags::NO_SYNC;
    }
    let env = map(directory, flags, Some(map_bytes)).map_err(|error| {
        OpenError::Refused(format!(
            "the store in {} cannot be mapped ({} MiB of address space): {error}",
            directory.display(),
            map_bytes >> 20
        ))
    })?;
    // Slots of a process that was killed; with the lock held, every other process is gone.
    env.clear_stale_readers().map_err(|error| OpenError::Refused(format!("the store's readers: {error}")))?;
    Ok(env)
}

/// Maps the environment in `directory` for reading, beside a process that may be writing it.
///
/// # Errors
/// [`OpenError`].
pub(super) fn open_beside(directory: &Path) -> Result<Env<WithTls>, OpenError> {
    reading(directory, EnvFlags::READ_ONLY | EnvFlags::NO_READ_AHEAD)
}

/// Maps a data file that no process writes, for reading.
///
/// # Errors
/// [`OpenError`].
pub(super) fn open_file(path: &Path) -> Result<Env<WithTls>, OpenError> {
    reading(path, EnvFlags::READ_ONLY | EnvFlags::NO_SUB_DIR | EnvFlags::NO_LOCK)
}

fn reading(path: &Path, flags: EnvFlags) -> Result<Env<WithTls>, OpenError> {
    map(path, flags, None)
        .map_err(|error| OpenError::Refused(format!("{} cannot be read as a store: {error}", path.display())))
}

/// Maps a file; a size that is not given is the file's own.
fn map(path: &Path, flags: EnvFlags, map_bytes: Option<usize>) -> heed::Result<Env<WithTls>> {
    let mut opener = EnvOpenOptions::new();
    opener.max_dbs(Tables::COUNT).max_readers(READERS_MAX);
    if let Some(bytes) = map_bytes {
        opener.map_size(bytes);
    }
    #[allow(unsafe_code, reason = "mapping a file is only as safe as everyone who writes to it")]
    // SAFETY: the map is sound as long as nothing but LMDB writes to the file. `lock` holds the directory against a
    // second rnostr that writes, heed refuses to open one environment twice in a process, and LMDB's own lock file is
    // in use where another process may write (NO_LOCK stands for files that nobody writes). WRITE_MAP is off, so that
    // no pointer of this process can write into the map. NO_SYNC endangers what is on disk when the machine loses
    // power, which `Durability::Interval` says, and no memory.
    unsafe {
        opener.flags(flags).open(path)
    }
}

/// Bytes of a page of the environment.
pub(super) fn page_bytes(env: &Env<WithTls>) -> u64 {
    u64::from(env.unnamed_database_stat().page_size)
}
