//! `rnostr import`: reads an export, or another relay's events, into the store that the configuration names.

mod sqlite;

use std::{
    fmt::Write as _,
    fs,
    io::{self, IsTerminal as _, Read, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use nostr_relay::{config::Config, manage::check_orders};
use nostr_store::moving::{Done, FileKey, ImportError, ImportOptions, Imported, Moving, Report, import};

use super::moving::{
    Endpoint, configured, confirmed_by_terminal, file_key, now, private, progress::Progress, with_store,
};

/// Shortest time between two writes of the progress note.
const NOTE_PERIOD: Duration = Duration::from_secs(1);

/// Read an export, a file of one event a line, or nostr-rs-relay's SQLite file into the store, checking each event's
/// signature; importing a file again changes nothing
#[derive(Debug, clap::Args)]
#[command(after_help = "Example, with nostr-rs-relay and the relay stopped:\n  \
    rnostr import -c rnostr.toml --from nostr.db\n\
    reads its events in the order in which it stored them; --resume goes on after an interruption.")]
pub(super) struct Import {
    /// The configuration, as for `relay`; it names the store
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The file to read, or - for standard input
    #[arg(long, value_name = "FILE|-")]
    from: Option<PathBuf>,
    /// Skip the lines that an earlier import of this file has written; FILE.imported says how many
    #[arg(long)]
    resume: bool,
    /// Skip and count events that were changed after the export, and lines that hold none
    #[arg(long)]
    skip_bad: bool,
    /// The file of the key that the export was made under
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Import an export without a key as a whole, with its groups, orders and removals, which carry no signatures
    #[arg(long, conflicts_with_all = ["key_file", "events"])]
    trust: bool,
    /// Take events alone, from whatever file, by the rules for events of other relays
    #[arg(long, conflicts_with = "key_file")]
    events: bool,
}

impl Import {
    pub(super) fn run(self) -> Result<(), String> {
        let from = Endpoint::of(self.from.clone());
        let config = configured(self.config.as_deref())?;
        let key = file_key(self.key_file.as_deref())?;
        let source = Source::open(&from, self.resume)?;
        with_store(&config, async |store| {
            let ended = self.import(&config, (&from, source), &*store, key.clone(), self.trust).await;
            // Standard input is no terminal where the export itself comes from there.
            if !matches!(ended, Err(Ended::Untrusted(_))) || !io::stdin().is_terminal() {
                return ended.map_err(Ended::text);
            }
            let asked = "The export is under no key: whoever had it may have changed groups, bans and removals in it.\n\
                         Import it as a whole?";
            if !confirmed_by_terminal(asked)? {
                return ended.map_err(Ended::text);
            }
            let source = Source::open(&from, self.resume)?;
            self.import(&config, (&from, source), &*store, key, true).await.map_err(Ended::text)
        })
    }

    async fn import(
        &self,
        config: &Config,
        (from, source): (&Endpoint, Source),
        store: &dyn Moving,
        key: Option<FileKey>,
        trust: bool,
    ) -> Result<(), Ended> {
        let mut note = Note::beside(from);
        let Source { input, name, progress: (unit, of), hidden } = source;
        let options = ImportOptions {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            skip_bad: self.skip_bad,
            done: if self.resume { note.read() } else { None },
            key,
            foreign: Arc::new(config.foreign_rules()),
            events: self.events || hidden.is_some(),
            trust,
            check_orders,
        };
        let mut progress = Progress::new(unit, of);
        let written = |report: &Report| {
            let rows = report.done.as_ref().map_or(0, |done| done.lines);
            progress.at(if hidden.is_some() { rows } else { report.bytes }, count(report));
            note.write_at_times(report);
        };
        let (mut report, imported) = import(store, input, options, now, written).await;
        progress.end();
        if let Err(error @ ImportError::Untrusted) = &imported {
            return Err(Ended::Untrusted(refusal(&name, &report, error)));
        }
        if let Some(rows @ 1..) = hidden {
            report.not_taken.insert("hidden by nostr-rs-relay, as deleted ones".to_owned(), rows);
        }
        // The reader of a pipe may close it early, which is no failure.
        let _ = io::stdout().lock().write_all(text_of(&name, &report).as_bytes());
        match imported {
            Ok(()) => {
                note.remove();
                Ok(())
            }
            Err(error) => {
                note.write(&report);
                Err(Ended::Other(refusal(&name, &report, &error)))
            }
        }
    }
}

/// The end of an import that failed, in words for the operator.
enum Ended {
    /// The export is under no key. Nothing was imported, and the operator may be asked.
    Untrusted(String),
    Other(String),
}

impl Ended {
    fn text(self) -> String {
        let (Self::Untrusted(text) | Self::Other(text)) = self;
        text
    }
}

/// The input of an import.
struct Source {
    input: Box<dyn Read + Send>,
    /// The input's name in reports.
    name: String,
    /// The unit of the progress display, and the total.
    progress: (&'static str, Option<u64>),
    /// The rows that a SQLite file hides; `None` for any other input.
    hidden: Option<u64>,
}

impl Source {
    fn open(from: &Endpoint, resume: bool) -> Result<Self, String> {
        let path = match from {
            Endpoint::Pipe if resume => {
                return Err("--resume continues with a file; name it with --from".to_owned());
            }
            Endpoint::Pipe if io::stdin().is_terminal() => return Err("name the file with --from".to_owned()),
            Endpoint::Pipe => {
                let (input, name) = (Box::new(io::stdin()), "standard input".to_owned());
                return Ok(Self { input, name, progress: ("bytes", None), hidden: None });
            }
            Endpoint::File(path) => path,
        };
        let name = path.display().to_string();
        let failed = |error: io::Error| format!("{name}: {error}");
        let mut file = fs::File::open(path).map_err(failed)?;
        if sqlite::is_database(&mut file).map_err(failed)? {
            let rows = sqlite::Rows::open(path).map_err(|error| format!("{name}: {error}"))?;
            let (shown, hidden) = rows.counts();
            return Ok(Self { input: Box::new(rows), name, progress: ("rows", Some(shown)), hidden: Some(hidden) });
        }
        let bytes = file.metadata().map_err(failed)?.len();
        Ok(Self { input: Box::new(file), name, progress: ("bytes", Some(bytes)), hidden: None })
    }
}

/// Writes the error of an import, the imported part and the option that helps.
fn refusal(name: &str, report: &Report, error: &ImportError) -> String {
    let lines = report.done.as_ref().map_or(0, |done| done.lines);
    let kept = match lines {
        0 => "nothing is imported".to_owned(),
        lines => format!("everything up to line {lines} is imported"),
    };
    let next = match error {
        ImportError::Line { .. } | ImportError::Damaged { .. } => "; --skip-bad skips such lines",
        ImportError::Cut { .. } => "; with the whole file, --resume continues from there",
        ImportError::Store(_) | ImportError::Read(_) if lines > 0 => "; --resume continues from there",
        _ => "",
    };
    format!("{name}: {error}; {kept}{next}")
}

fn count(report: &Report) -> u64 {
    report.records.values().flat_map(|outcomes| outcomes.values()).sum()
}

/// Writes the result: a line for each sort of record, and further lines for skipped, bad and kept records.
fn text_of(name: &str, report: &Report) -> String {
    format!("imported from {name}: {} records\n{}", count(report), outcomes_of(report))
}

/// Writes the outcomes of a report, a line for each sort of record and for each reason.
pub(super) fn outcomes_of(report: &Report) -> String {
    let mut text = String::new();
    for (sort, outcomes) in &report.records {
        let each: Vec<String> = outcomes.iter().map(|(outcome, count)| format!("{count} {}", word(*outcome))).collect();
        let _ = writeln!(text, "  {sort}: {}", each.join(", "));
    }
    if report.passed_over > 0 {
        let _ = writeln!(text, "  lines that were imported before: {}", report.passed_over);
    }
    for (reason, count) in &report.not_taken {
        let _ = writeln!(text, "  passed over: {count}, {reason}");
    }
    if report.bad_lines > 0 {
        let _ = writeln!(text, "  bad lines: {}", report.bad_lines);
        for (number, reason) in &report.bad {
            let _ = writeln!(text, "    line {number}: {reason}");
        }
    }
    if let Some((first, last)) = report.damaged {
        let _ =
            writeln!(text, "  changed after the export: a line from {first} to {last}, and maybe lines behind them");
    }
    let kept = |sort| report.records.get(sort).is_some_and(|outcomes| outcomes.contains_key(&Imported::Kept));
    if kept("orders") {
        text.push_str("  The store kept its own orders of management; give those that it lacks over NIP-86.\n");
    }
    if kept("group") {
        let _ = writeln!(text, "  The store kept its own group where its seq is not lower than the imported one's.");
    }
    text
}

const fn word(outcome: Imported) -> &'static str {
    match outcome {
        Imported::New => "new",
        Imported::Unchanged => "unchanged",
        Imported::Replaced => "replaced",
        Imported::Kept => "kept",
        Imported::Superseded => "older than the stored one",
        Imported::Deleted => "deleted in this store",
        Imported::Expired => "expired",
        Imported::Conflicting => "with a reference that is taken in this store",
        Imported::Refused => "refused, as deletions that may delete nothing and messages to no group",
    }
}

/// The progress of an import, in a file beside the imported one. An import checks that its store is still the same
/// before it relies on the note.
struct Note {
    path: Option<PathBuf>,
    written: Instant,
}

impl Note {
    fn beside(from: &Endpoint) -> Self {
        let path = match from {
            Endpoint::Pipe => None,
            Endpoint::File(path) => Some(Path::new(&format!("{}.imported", path.display())).to_owned()),
        };
        Self { path, written: Instant::now() }
    }

    fn read(&self) -> Option<Done> {
        Done::parse(&fs::read_to_string(self.path.as_ref()?).ok()?)
    }

    fn write_at_times(&mut self, report: &Report) {
        if self.written.elapsed() >= NOTE_PERIOD {
            self.write(report);
        }
    }

    /// Writes the note as a whole or not at all. A missing note only makes the next import slower.
    fn write(&mut self, report: &Report) {
        let (Some(path), Some(done)) = (&self.path, &report.done) else { return };
        self.written = Instant::now();
        let beside = path.with_extension("imported-new");
        let write = || {
            let mut file = private().write(true).create(true).truncate(true).open(&beside)?;
            file.write_all(done.to_json().as_bytes())?;
            fs::rename(&beside, path)
        };
        if let Err(error) = write() {
            eprintln!("warning: cannot write {}, so --resume starts at the first line: {error}", path.display());
            self.path = None;
        }
    }

    fn remove(&self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}
