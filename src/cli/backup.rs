//! `rnostr backup`: writes a consistent copy of the embedded store, with its checksum beside it.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nostr_protocol::hex;
use nostr_store::embedded::tools::{Beside, Depth, Digest, check, hash};

use super::moving::{configured, embedded, private, progress::Progress};

/// Time between two looks at the size of the copy.
const LOOK_MS: u64 = 200;

/// Write a consistent copy of the embedded store, while the relay runs and writes
///
/// The copy holds every event that was acknowledged before the command began. Beside it stands its SHA-256, which
/// `restore` and `sha256sum -c` check. It is for its owner alone: it holds what only members and recipients may read.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example, each night, also in the container of a relay:\n  \
    mkdir -p /var/backups/rnostr\n  rnostr backup -c rnostr.toml --to /var/backups/rnostr\n\
    writes /var/backups/rnostr/rnostr-20261130T031500Z.mdb and the same name with .sha256.")]
pub(super) struct Backup {
    /// The configuration, as for `relay`; it names the store
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The new file to write, or a directory that exists, in which it gets a name by the time
    #[arg(long, value_name = "FILE|DIRECTORY")]
    to: PathBuf,
}

impl Backup {
    pub(super) fn run(self) -> Result<(), String> {
        let config = configured(self.config.as_deref())?;
        let store = Beside::open(embedded(&config)?.0).map_err(|error| error.to_string())?;
        let to = if self.to.is_dir() { self.to.join(name()) } else { self.to };
        if to.exists() {
            return Err(format!("{} exists already; use another name, or name a directory", to.display()));
        }
        let part = beside(&to, ".part");
        let made = write(&store, &part, &to);
        if made.is_err() {
            let _ = fs::remove_file(&part);
        }
        let (events, bytes, digest) = made?;
        println!("backed up to {}: {events} events, {bytes} bytes\nsha256 {}", to.display(), hex::to_hex(&digest));
        Ok(())
    }
}

/// The path with an ending more.
pub(super) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn name() -> String {
    format!("rnostr-{}.mdb", jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ"))
}

/// Writes the copy to `part`, checks it, and names it `to`. Returns its events, its bytes and its checksum.
fn write(store: &Beside, part: &Path, to: &Path) -> Result<(u64, u64, Digest), String> {
    let failed = |error: io::Error| format!("{}: {error}", part.display());
    let mut file = create(part).map_err(failed)?;
    copy(store, &mut file, part)?;
    let bytes = file.metadata().map_err(failed)?.len();
    let mut progress = Progress::new("bytes", Some(bytes));
    let mut copied = File::open(part).map_err(failed)?;
    let digest = hash(&mut copied, &mut io::sink(), &mut |at| progress.at(at, 0)).map_err(failed)?;
    progress.end();
    let checked = check(part, Depth::Rows, &mut |_, _| {}).map_err(|error| error.to_string())?;
    if let Some(first) = checked.faults.told().first() {
        return Err(format!(
            "the store is damaged, and so would be its copy: {first}; see `rnostr verify-store --help`"
        ));
    }
    let sum = beside(to, ".sha256");
    let name = to.file_name().unwrap_or_default().to_string_lossy();
    let written = create(&sum)
        .and_then(|mut file| {
            file.write_all(format!("{}  {name}\n", hex::to_hex(&digest)).as_bytes())?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(part, to))
        .and_then(|()| File::open(to.parent().filter(|it| *it != Path::new("")).unwrap_or(Path::new(".")))?.sync_all());
    written.map_err(|error| format!("{}: {error}", to.display()))?;
    Ok((checked.events, bytes, digest))
}

/// Creates a file anew, so that no link that somebody left under its name is followed.
fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => private().write(true).create_new(true).open(path),
    }
}

/// Copies in a thread of its own, and shows how far it is.
fn copy(store: &Beside, file: &mut File, part: &Path) -> Result<(), String> {
    let of = store.sizes(false).ok().map(|sizes| sizes.used);
    let mut progress = Progress::new("bytes", of);
    let copied = thread::scope(|scope| {
        let copying = scope.spawn(|| store.copy_to(file));
        while !copying.is_finished() {
            progress.at(fs::metadata(part).map_or(0, |there| there.len()), 0);
            thread::sleep(Duration::from_millis(LOOK_MS));
        }
        copying.join()
    });
    progress.end();
    let copied = copied.map_err(|_| "the copy ended early".to_owned())?;
    copied.map_err(|error| error.to_string())
}
