//! `rnostr export`: writes everything that the store holds as JSON lines, or its events alone.

use std::{
    fs::File,
    io::{self, Seek as _, Write},
    path::{Path, PathBuf},
};

use nostr_relay::config::Config;
use nostr_store::moving::{Begun, Counts, FileContent, FileKey, export, export_events, resume};

use super::moving::{Endpoint, configured, file_key, now, private, progress::Progress, require_store, with_store};

/// Write everything that the store holds, events and groups, to a file that `import` reads
#[derive(Debug, clap::Args)]
pub(super) struct Export {
    /// The configuration, as for `relay`; it names the store
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The new file to write, or - for standard output
    #[arg(long, value_name = "FILE|-")]
    to: Option<PathBuf>,
    /// Finish a file that an earlier export left unfinished
    #[arg(long)]
    resume: bool,
    /// Make the checksums under the key in this file: 64 hex digits, as `openssl rand -hex 32` prints them. The import
    /// then needs the same key, and refuses a file that was changed by anyone who lacks it
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Write one signed event a line and nothing else, for other relays; it leaves out groups, rosters' effects and
    /// deletions' marks
    #[arg(long, conflicts_with_all = ["resume", "key_file"])]
    events: bool,
}

impl Export {
    pub(super) fn run(self) -> Result<(), String> {
        let to = Endpoint::of(self.to);
        if self.events {
            return write_events(&configured(self.config.as_deref())?, &to);
        }
        let config = configured(self.config.as_deref())?;
        let key = file_key(self.key_file.as_deref())?;
        require_store(&config)?;
        let (mut out, begun): (Box<dyn Write>, _) = match &to {
            Endpoint::Pipe if self.resume => return Err("--resume finishes a file; name it with --to".to_owned()),
            Endpoint::Pipe => (Box::new(io::stdout().lock()), None),
            Endpoint::File(path) => match open(path, self.resume, key.as_ref())? {
                Open::Whole(records) => {
                    println!("{} is complete already{}", path.display(), lines(&records));
                    return Ok(());
                }
                Open::Begun(file, begun) => (Box::new(file), begun),
            },
        };
        let exported = write(&config, &to, &mut *out, begun, key.as_ref());
        if let (Err(_), Endpoint::File(path)) = (&exported, &to)
            && std::fs::metadata(path).is_ok_and(|there| there.len() == 0)
        {
            // An empty file has nothing to resume, and the next export would refuse its name.
            let _ = std::fs::remove_file(path);
        }
        let records = exported?;
        match to {
            Endpoint::Pipe => eprint!("exported{}", lines(&records)),
            Endpoint::File(path) => {
                let synced = File::open(&path).and_then(|file| file.sync_all());
                synced.map_err(|error| format!("{}: {error}", path.display()))?;
                print!("exported to {}{}", path.display(), lines(&records));
            }
        }
        Ok(())
    }
}

fn write(
    config: &Config,
    to: &Endpoint,
    out: &mut dyn Write,
    begun: Option<Begun>,
    key: Option<&FileKey>,
) -> Result<Counts, String> {
    let version = env!("CARGO_PKG_VERSION");
    with_store(config, async |store| {
        let stats = store.stats().await.map_err(|error| error.to_string())?;
        let mut progress = Progress::new("events and groups", Some(stats.events + stats.groups));
        let written = |records: &Counts| {
            let of = |sort: &str| records.get(sort).copied().unwrap_or(0);
            progress.at(of("event") + of("group"), records.values().sum());
        };
        let exported = export(&*store, out, begun, key, version, now(), written).await;
        progress.end();
        exported.map_err(|error| match to {
            Endpoint::Pipe => error.to_string(),
            Endpoint::File(path) => {
                let path = path.display();
                format!("{path}: {error}; --resume finishes the file")
            }
        })
    })
}

/// Writes the events alone, one a line.
fn write_events(config: &Config, to: &Endpoint) -> Result<(), String> {
    require_store(config)?;
    let (mut out, name): (Box<dyn Write>, _) = match to {
        Endpoint::Pipe => (Box::new(io::stdout().lock()), None),
        Endpoint::File(path) => match open(path, false, None)? {
            Open::Begun(file, _) => (Box::new(io::BufWriter::new(file)), Some(path.display())),
            Open::Whole(_) => return Err(format!("{} exists already; use another name", path.display())),
        },
    };
    let exported = with_store(config, async |store| {
        let stats = store.stats().await.map_err(|error| error.to_string())?;
        let mut progress = Progress::new("events", Some(stats.events));
        let exported = export_events(&*store, &mut *out, now(), |events| progress.at(events, events)).await;
        progress.end();
        exported.map_err(|error| error.to_string())
    });
    let events = match (exported, to) {
        (Ok(events), _) => events,
        (Err(error), Endpoint::Pipe) => return Err(error),
        (Err(error), Endpoint::File(path)) => {
            // A part of the events looks like all of them.
            let _ = std::fs::remove_file(path);
            return Err(format!("{}: {error}; the part is removed", path.display()));
        }
    };
    match name {
        None => eprintln!("exported: {events} events"),
        Some(name) => println!("exported to {name}: {events} events"),
    }
    Ok(())
}

/// The file that the export writes to.
enum Open {
    Whole(Counts),
    Begun(File, Option<Begun>),
}

fn open(path: &Path, go_on: bool, key: Option<&FileKey>) -> Result<Open, String> {
    let failed = |error: io::Error| format!("{}: {error}", path.display());
    if !go_on || !path.exists() {
        let file = private().write(true).create_new(true).open(path).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                format!("{} exists already; finish it with --resume, or use another name", path.display())
            }
            _ => failed(error),
        })?;
        return Ok(Open::Begun(file, None));
    }
    let mut file = private().read(true).write(true).open(path).map_err(failed)?;
    let begun = match resume(&mut file, key).map_err(|error| format!("{}: {error}", path.display()))? {
        FileContent::Whole(records) => return Ok(Open::Whole(records)),
        FileContent::Part(begun) => Some(begun),
        FileContent::Nothing => None,
    };
    let bytes = begun.as_ref().map_or(0, Begun::bytes);
    file.set_len(bytes).and_then(|()| file.seek(io::SeekFrom::Start(bytes))).map_err(failed)?;
    Ok(Open::Begun(file, begun))
}

/// Writes the rest of the first line, and a line for each sort of record.
fn lines(records: &Counts) -> String {
    let each = records.iter().map(|(sort, count)| format!("  {sort} {count}\n"));
    format!(": {} records\n{}", records.values().sum::<u64>(), each.collect::<String>())
}
