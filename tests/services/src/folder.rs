//! Temporary folders for engines, on disk or in memory, and the users that own them.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
};

use tempfile::TempDir;

/// Longest path to the folder's parent. A socket's path has room for 107 bytes; the rest is for the names of folder and
/// socket.
const PLACE_BYTES_MAX: usize = 64;
/// Permission bit that lets other users enter a folder.
const OTHERS_ENTER: u32 = 0o001;
/// Linux's file system in memory. Folders go there only when it and the memory have enough room, because tests write
/// much.
const MEMORY: &str = "/dev/shm";
const MEMORY_FREE_MIN: u64 = 4 << 30;
const MEMORY_AVAILABLE_MIN: u64 = 8 << 30;

/// Medium on which a folder is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Medium {
    /// The system's folder for temporary files.
    Disk,
    /// Memory, if there is enough of it. The data need not survive a power cut.
    Memory,
}

/// A user other than root, with the numbers in `/etc/passwd`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct User {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl User {
    /// The user for an engine that refuses to run as root. `None` when this process does not run as root, and can run
    /// the engine as its own user.
    ///
    /// # Panics
    /// When this process runs as root and there is neither a user `postgres` nor `nobody`.
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
    /// When the file or folder is missing.
    pub(crate) fn own(self, path: &Path) {
        chown(path, Some(self.uid), Some(self.gid)).expect("root may change the owner of an existing file");
    }
}

/// Makes a folder that only its owner can enter. `owner` is `None` for this process's own user.
///
/// # Panics
/// When no folder can be made.
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

/// The system's folder for temporary files. `/tmp` instead, if users other than root cannot enter that folder, or
/// sockets in it would have too long names.
fn on_disk() -> PathBuf {
    let place = std::env::temp_dir();
    let entered = |folder: &Path| fs::metadata(folder).is_ok_and(|it| it.permissions().mode() & OTHERS_ENTER != 0);
    let fits = place.is_absolute() && place.as_os_str().len() <= PLACE_BYTES_MAX && place.ancestors().all(entered);
    if fits { place } else { PathBuf::from("/tmp") }
}
