//! `rnostr import`: an export, into the store that the configuration names.

use std::{
    fmt::Write as _,
    fs,
    io::{self, IsTerminal as _, Read, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nostr_store::moving::{Done, ImportError, ImportOptions, Imported, Report, import};

use super::moving::{End, configured, now, private, progress::Progress, with_store};

/// Least time between two notes of how far it is.
const NOTE_PERIOD: Duration = Duration::from_secs(1);

/// Read what `export` wrote into the store, each event's signature checked; the same again changes nothing
#[derive(Debug, clap::Args)]
pub(super) struct Import {
    /// The configuration, as for `relay`: it names the store
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where from; - for standard input
    #[arg(long, value_name = "FILE|-")]
    from: Option<PathBuf>,
    /// Pass over what an import of this file before has written, which FILE.imported says
    #[arg(long)]
    resume: bool,
    /// Pass over events that are not what was exported, and count them
    #[arg(long)]
    skip_bad: bool,
}

impl Import {
    pub(super) fn run(self) -> Result<(), String> {
        let from = End::of(self.from);
        let config = configured(self.config.as_deref())?;
        let (input, bytes, name): (Box<dyn Read + Send>, _, _) = match &from {
            End::Pipe if self.resume => return Err("--resume goes on with a file; name it by --from".to_owned()),
            End::Pipe if io::stdin().is_terminal() => return Err("name the file by --from".to_owned()),
            End::Pipe => (Box::new(io::stdin()), None, "standard input".to_owned()),
            End::File(path) => {
                let failed = |error: io::Error| format!("{}: {error}", path.display());
                let file = fs::File::open(path).map_err(failed)?;
                let bytes = file.metadata().map_err(failed)?.len();
                (Box::new(file), Some(bytes), path.display().to_string())
            }
        };
        let mut note = Note::beside(&from);
        let done = if self.resume { note.read() } else { None };
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let options = ImportOptions { threads, skip_bad: self.skip_bad, done };
        with_store(&config, async |store| {
            let mut progress = Progress::new("bytes", bytes);
            let written = |report: &Report| {
                progress.at(report.bytes, count(report));
                note.write_at_times(report);
            };
            let (report, imported) = import(&*store, input, options, now, written).await;
            progress.end();
            let text = text_of(&name, &report);
            // A reader that has seen enough is no failure.
            let _ = io::stdout().lock().write_all(text.as_bytes());
            match imported {
                Ok(()) => {
                    note.remove();
                    Ok(())
                }
                Err(error) => {
                    note.write(&report);
                    Err(refusal(&name, &report, &error))
                }
            }
        })
    }
}

/// Why it stopped, and what is in.
fn refusal(name: &str, report: &Report, error: &ImportError) -> String {
    let lines = report.done.as_ref().map_or(0, |done| done.lines);
    let kept = match lines {
        0 => "nothing is imported".to_owned(),
        lines => format!("everything up to line {lines} is imported"),
    };
    let next = match error {
        ImportError::Line { .. } | ImportError::Damaged { .. } => "; --skip-bad passes over such lines",
        ImportError::Cut { .. } => "; with the whole file, --resume goes on from there",
        ImportError::Store(_) | ImportError::Read(_) if lines > 0 => "; --resume goes on from there",
        _ => "",
    };
    format!("{name}: {error}; {kept}{next}")
}

fn count(report: &Report) -> u64 {
    report.records.values().flat_map(|outcomes| outcomes.values()).sum()
}

/// What came of it: a line for each sort, and one for what an operator may wonder about.
fn text_of(name: &str, report: &Report) -> String {
    let mut text = format!("imported from {name}: {} records\n", count(report));
    for (sort, outcomes) in &report.records {
        let each: Vec<String> = outcomes.iter().map(|(outcome, count)| format!("{count} {}", word(*outcome))).collect();
        let _ = writeln!(text, "  {sort}: {}", each.join(", "));
    }
    if report.passed_over > 0 {
        let _ = writeln!(text, "  lines that were imported before: {}", report.passed_over);
    }
    if report.bad_lines > 0 {
        let _ = writeln!(text, "  bad lines: {}", report.bad_lines);
        for (number, reason) in &report.bad {
            let _ = writeln!(text, "    line {number}: {reason}");
        }
    }
    if let Some((first, last)) = report.damaged {
        let _ = writeln!(text, "  not what was exported: something in lines {first} to {last}, and maybe behind them");
    }
    let kept = report.records.get("group").and_then(|outcomes| outcomes.get(&Imported::Kept));
    if kept.is_some() {
        let _ = writeln!(text, "  A group was kept where the one in the store has a seq as high or higher.");
    }
    text
}

const fn word(outcome: Imported) -> &'static str {
    match outcome {
        Imported::New => "new",
        Imported::Unchanged => "known",
        Imported::Replaced => "replaced",
        Imported::Kept => "kept",
        Imported::Superseded => "older than what is here",
        Imported::Deleted => "deleted here",
        Imported::Expired => "expired",
        Imported::Conflicting => "with a reference that is taken here",
    }
}

/// How far an import of a file is, in a file beside it. Whether the store is still the one that it speaks of is asked
/// before it is believed.
struct Note {
    path: Option<PathBuf>,
    written: Instant,
}

impl Note {
    fn beside(from: &End) -> Self {
        let path = match from {
            End::Pipe => None,
            End::File(path) => Some(Path::new(&format!("{}.imported", path.display())).to_owned()),
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

    /// Whole or not at all. Without it an import is slower the second time, and nothing else.
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
            eprintln!("warning: {} is not written, so --resume will begin anew: {error}", path.display());
            self.path = None;
        }
    }

    fn remove(&self) {
        if let Some(path) = &self.path {
            let _ = fs::remove_file(path);
        }
    }
}
