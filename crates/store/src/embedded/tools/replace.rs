//! Putting a new data file in the place of a store's: out of a backup, out of the store without its free pages, or out
//! of the rows that a repair saves.
//!
//! Each one writes a file beside, checks and syncs it, and renames it as the last step. A run that breaks off leaves
//! the store as it was.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{MetadataExt as _, chown},
    path::{Path, PathBuf},
};

use heed::CompactionOption;

use super::{
    super::{
        Options,
        env::{LOCK_FILE, lock, open_env},
        fail::Fail,
        tables::{SECRET, Tables, sum_name},
    },
    DATA_FILE,
    check::{Checked, Depth, check},
    copy::{Digest, hash},
    rebuild::{Rebuilt, rebuild},
};
use crate::OpenError;

/// The directory for the new file, inside of the store's.
const WORK_DIRECTORY: &str = "rnostr.work";
/// LMDB's own lock beside a data file. It belongs to the file that it was made for.
const LMDB_LOCK_FILE: &str = "lock.mdb";

/// The sizes of a data file before and after it was compacted.
#[derive(Clone, Copy, Debug)]
pub struct Compacted {
    /// Bytes before.
    pub before: u64,
    /// Bytes after.
    pub after: u64,
}

/// The place of a new file, and the lock of the store's directory.
struct Work {
    directory: PathBuf,
    work: PathBuf,
    _lock: File,
}

impl Work {
    fn begin(directory: &Path) -> Result<Self, OpenError> {
        let held = lock(directory)?;
        let work = directory.join(WORK_DIRECTORY);
        let made = match fs::remove_dir_all(&work) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => fs::create_dir(&work),
        };
        made.map_err(|error| refused(&work, error))?;
        Ok(Self { directory: directory.to_owned(), work, _lock: held })
    }

    fn file(&self) -> PathBuf {
        self.work.join(DATA_FILE)
    }

    fn store(&self) -> PathBuf {
        self.directory.join(DATA_FILE)
    }

    /// Puts the new file in the place of the store's.
    fn finish(self) -> Result<(), OpenError> {
        let (from, to) = (self.file(), self.store());
        self.give_to_owner().map_err(|error| refused(&from, error))?;
        File::open(&from).and_then(|file| file.sync_all()).map_err(|error| refused(&from, error))?;
        fs::rename(&from, &to).map_err(|error| refused(&to, error))?;
        match fs::remove_file(self.directory.join(LMDB_LOCK_FILE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(refused(&self.directory, error)),
            _ => {}
        }
        let synced = File::open(&self.directory).and_then(|directory| directory.sync_all());
        synced.map_err(|error| refused(&self.directory, error))
    }
}

impl Work {
    /// Gives the new file, and the lock beside it, to the owner of the old file, or of the directory where there is
    /// none. An operator runs these tools as root, and the relay does not; a file of root would keep the relay out.
    /// Only root can give a file away, so that the files of any other user stay that user's.
    fn give_to_owner(&self) -> io::Result<()> {
        let was = fs::metadata(self.store()).or_else(|_| fs::metadata(&self.directory))?;
        for path in [self.file(), self.directory.join(LOCK_FILE)] {
            match chown(&path, Some(was.uid()), Some(was.gid())) {
                Err(error) if error.kind() != io::ErrorKind::PermissionDenied => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        // The next run removes the files that are left.
        let _ = fs::remove_dir_all(&self.work);
    }
}

fn refused(path: &Path, error: impl std::fmt::Display) -> OpenError {
    OpenError::Refused(format!("{}: {error}", path.display()))
}

/// Refuses a file that a check finds fault with.
fn whole(path: &Path, depth: Depth, shown: &str) -> Result<Checked, OpenError> {
    let checked = check(path, depth, &mut |_, _| {})?;
    match checked.faults.told().first() {
        None => Ok(checked),
        Some(first) => {
            let count = checked.faults.count();
            Err(OpenError::Refused(format!("{shown} is damaged, with {count} faults: {first}")))
        }
    }
}

/// Makes a store in `directory`, which holds none, out of a backup. `expected` is the backup's SHA-256, if it is known.
/// Calls `at` with the bytes so far.
///
/// The new store has a secret of its own: places in lists that the relay gave out before it was restored are refused
/// then, since the store gives their numbers to other events.
///
/// # Errors
/// [`OpenError`]: the directory holds a store, the backup is damaged, or a file cannot be read or written.
pub fn restore(
    backup: &Path,
    expected: Option<&Digest>,
    directory: &Path,
    options: Options,
    at: &mut dyn FnMut(u64),
) -> Result<Checked, OpenError> {
    let store = directory.join(DATA_FILE);
    if store.exists() {
        return Err(refused(&store, "there is a store already; move its directory away, or use another data.path"));
    }
    let work = Work::begin(directory)?;
    let mut copy = || -> io::Result<Digest> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let mut to = File::options().write(true).create_new(true).mode(0o600).open(work.file())?;
        let digest = hash(&mut File::open(backup)?, &mut to, at)?;
        to.sync_all()?;
        Ok(digest)
    };
    let digest = copy().map_err(|error| refused(backup, error))?;
    if expected.is_some_and(|expected| *expected != digest) {
        return Err(refused(backup, "it is not the file that its checksum was made of; use another backup"));
    }
    // LMDB may crash over a damaged page, so that it comes behind the first check.
    let shown = backup.display().to_string();
    whole(&work.file(), Depth::Rows, &shown)?;
    let env = open_env(&work.work, &options)?;
    let tables = Tables::open(&env)?;
    let forget = || -> Result<(), Fail> {
        let mut txn = env.write_txn()?;
        tables.meta.delete(&mut txn, SECRET)?;
        tables.meta.delete(&mut txn, &sum_name(SECRET))?;
        txn.commit()?;
        Ok(env.force_sync()?)
    };
    forget().map_err(|fail| refused(&store, fail.to_store_error()))?;
    env.prepare_for_closing().wait();
    let checked = whole(&work.file(), Depth::Relations, &shown)?;
    work.finish()?;
    Ok(checked)
}

/// Writes the store in `directory` anew without its free pages.
///
/// # Errors
/// [`OpenError`]: the relay runs, the store is damaged, or there is no room for a second one.
pub fn compact(directory: &Path, options: Options) -> Result<Compacted, OpenError> {
    let work = Work::begin(directory)?;
    let store = work.store();
    let size = |path: &Path| fs::metadata(path).map(|found| found.len()).map_err(|error| refused(path, error));
    let before = size(&store)?;
    whole(&store, Depth::Rows, &store.display().to_string())?;
    let env = open_env(directory, &options)?;
    // An older layout is brought up to date.
    Tables::open(&env)?;
    let copied = env.copy_to_path(work.file(), CompactionOption::Enabled).map_err(|error| refused(&store, error));
    env.prepare_for_closing().wait();
    keep_private(&copied?).map_err(|error| refused(&store, error))?;
    whole(&work.file(), Depth::Rows, "the copy")?;
    let after = size(&work.file())?;
    work.finish()?;
    Ok(Compacted { before, after })
}

fn keep_private(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(fs::Permissions::from_mode(0o600))
}

/// Checks the store in `directory`, while no relay uses it.
///
/// # Errors
/// [`OpenError`]: the relay runs, or the file cannot be read.
pub fn check_store(directory: &Path, depth: Depth, at: &mut dyn FnMut(u64, u64)) -> Result<Checked, OpenError> {
    let _lock = lock(directory)?;
    check(&directory.join(DATA_FILE), depth, at)
}

/// Makes the store in `directory` anew out of the rows that are whole, with every index. Keeps the damaged file under
/// the name that it returns. If rows would be lost, it only tells them, unless `accepts_loss`.
///
/// # Errors
/// [`OpenError`]: the relay runs, or the file cannot be read or written.
pub fn repair(directory: &Path, accepts_loss: bool) -> Result<(Rebuilt, Option<PathBuf>), OpenError> {
    let work = Work::begin(directory)?;
    let store = work.store();
    if check(&store, Depth::Rows, &mut |_, _| {})?.older_layout.is_some() {
        // Without checksums no row can be told from a damaged one.
        return Err(refused(&store, "its layout is an older one, which is not repaired; restore a backup"));
    }
    let rebuilt = rebuild(&store, &work.work)?;
    if !rebuilt.lost.is_empty() && !accepts_loss {
        return Ok((rebuilt, None));
    }
    whole(&work.file(), Depth::Relations, "the repaired store")?;
    let free = (1_u32..).map(|n| directory.join(format!("{DATA_FILE}.damaged-{n}"))).find(|path| !path.exists());
    let kept = free.ok_or_else(|| refused(&store, "no name is left for the damaged file"))?;
    fs::hard_link(&store, &kept).map_err(|error| refused(&kept, error))?;
    work.finish()?;
    Ok((rebuilt, Some(kept)))
}
