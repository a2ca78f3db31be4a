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
const LOCK_FILE: &str = "rnostr.lock";

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
    let mut opener = EnvOpenOptions::new();
    opener.map_size(map_bytes).max_dbs(Tables::COUNT).max_readers(READERS_MAX);
    #[allow(unsafe_code, reason = "mapping a file is only as safe as everyone who writes to it")]
    // SAFETY: the map is sound as long as nothing but LMDB writes to the file. `lock` holds the directory against a
    // second rnostr, heed refuses to open one environment twice in a process, LMDB's own lock file is in use (no
    // NO_LOCK), and WRITE_MAP is off, so that no pointer of this process can write into the map. NO_SYNC endangers what
    // is on disk when the machine loses power, which `Durability::Interval` says, and no memory.
    let opened = unsafe { opener.flags(flags).open(directory) };
    let env = opened.map_err(|error| {
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
