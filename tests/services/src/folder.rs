//! Temporary folders for engines, on disk or in memory, and the user to whom they belong.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use tempfile::TempDir;

/// A socket's path has room for 107 bytes; what is left is for the names of folder and socket.
const PLACE_BYTES_MAX: usize = 64;
/// May be entered by others.
const OTHERS_ENTER: u32 = 0o001;
/// Linux's file system in memory. It is taken when there is room in it and in memory, for what tests write is not little.
const MEMORY: &str = "/dev/shm";
const MEMORY_FREE_MIN: u64 = 4 << 30;
const MEMORY_AVAILABLE_MIN: u64 = 8 << 30;

/// Where a folder is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Medium {
    /// Where the system has temporary files.
    Disk,
    /// In memory, where there is enough of it: for what no power cut needs to spare.
    Memory,
}

/// Another user than root, as `/etc/passwd` numbers it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl User {
    /// Who runs an engine that refuses to run as root: `None` for whoever this is, when it is not root.
    ///
    /// # Panics
    /// When this is root and there is neither a user `postgres` nor `nobody`.
    pub(crate) fn beside_root() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return None;
        }
        let users = fs::read_to_string("/etc/passwd").expect("root can read it");
        let found = ["postgres", "nobody"].iter().find_map(|name| Self::named(name, &users));
        Some(found.expect("a system has the user nobody"))
    }

    fn named(name: &str, users: &str) -> Option<Self> {
        let line = users.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        let mut numbers = line.split(':').skip(1).map(str::parse);
        Some(Self { uid: numbers.next()?.ok()?, gid: numbers.next()?.ok()? })
    }

    /// Hands a file or folder over to this user.
    ///
    /// # Panics
    /// When it is not there.
    pub(crate) fn own(self, path: &Path) {
        chown(path, Some(self.uid), Some(self.gid)).expect("root may give away what is there");
    }
}

/// A new folder that only its owner enters; `owner` is `None` for whoever this is.
///
/// # Panics
/// When there is no place for it.
pub(crate) fn new(prefix: &str, place: Medium, owner: Option<User>) -> TempDir {
    let parent = if place == Medium::Memory && has_memory() { MEMORY.into() } else { on_disk() };
    let folder = tempfile::Builder::new().prefix(prefix).tempdir_in(parent).expect("temporary folders can be made");
    if let Some(owner) = owner {
        owner.own(folder.path());
    }
    folder
}

fn has_memory() -> bool {
    let free = rustix::fs::statvfs(MEMORY).map_or(0, |it| it.f_bavail * it.f_frsize);
    let figures = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = figures.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB"));
    let available = available.and_then(|kib| kib.parse::<u64>().ok()).map_or(0, |kib| kib * 1024);
    free >= MEMORY_FREE_MIN && available >= MEMORY_AVAILABLE_MIN
}

/// The system's place for temporary files, unless a user beside root could not enter it or sockets in it would have names
/// that are too long.
fn on_disk() -> PathBuf {
    let place = std::env::temp_dir();
    let entered = |folder: &Path| fs::metadata(folder).is_ok_and(|it| it.permissions().mode() & OTHERS_ENTER != 0);
    let fits = place.is_absolute() && place.as_os_str().len() <= PLACE_BYTES_MAX && place.ancestors().all(entered);
    if fits { place } else { PathBuf::from("/tmp") }
}
