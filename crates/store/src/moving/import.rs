//! Reading an export into a store, page by page: a page is written when its mark says that it is what was exported.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Read},
};

use nostr_extensions::Restored;
use nostr_protocol::{EventId, UnixSecs};
use serde::{Deserialize, Serialize};

use super::{
    Imported, Moving, Record,
    line::{FORMAT, Header, Hex, Line},
    lines::Count,
    verify::{Next, ReadLine, Verified},
};
use crate::StoreError;

/// Most records between two marks; an export has a tenth of it.
const PAGE_RECORDS_MAX: usize = 10_000;
/// Most bytes between two marks; an export has far fewer.
const PAGE_BYTES_MAX: usize = 128 << 20;
/// Events by which it is seen that the store is still the one into which was imported.
const PROBE_EVENTS_MAX: usize = 8;
/// Most numbers of bad lines that are kept to be shown.
const BAD_LINES_SHOWN_MAX: usize = 10;

/// Why an import ended before its end. What it had written stays.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The store.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The file, or whoever writes.
    #[error("cannot read: {0}")]
    Read(io::Error),
    /// It is no export, or one that this build does not know.
    #[error("{0}")]
    NoExport(String),
    /// A line that is none of an export.
    #[error("line {number}: {reason}")]
    Line {
        /// Which.
        number: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// Lines that are not what was exported.
    #[error("lines {first} to {last} are not what was exported: the checksum in line {last} does not hold")]
    Damaged {
        /// The first that may be another.
        first: u64,
        /// Where it was noticed.
        last: u64,
    },
    /// The last line is missing.
    #[error("the file is cut off behind line {lines}: its last line, which says that it is whole, is missing")]
    Cut {
        /// How many whole lines there are.
        lines: u64,
    },
    /// Lines that are not what was exported, among what has no signature of its own.
    #[error(
        "lines {first} to {last} are not what was exported, and have no signatures by which to tell groups and what was \
         taken back from what somebody made of them; export again"
    )]
    Unsigned {
        /// The first line that may be another.
        first: u64,
        /// The last.
        last: u64,
    },
    /// It is not the file of which a part is imported.
    #[error("this is not the file of which a part is imported already; run without --resume")]
    OtherFile,
}

/// How an import is done.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// Threads that check signatures.
    pub threads: usize,
    /// Whether bad lines are passed over and counted.
    pub skip_bad: bool,
    /// What an import before had written.
    pub done: Option<Done>,
}

/// How far an import has come: kept beside the file, to go on from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Lines whose records are in the store.
    pub lines: u64,
    pub(super) sha256: [u8; 32],
    /// Some of the last events that are in it.
    probe: Vec<EventId>,
}

#[derive(Serialize, Deserialize)]
struct WireDone {
    lines: u64,
    sha256: Hex<32>,
    probe: Vec<Hex<32>>,
}

impl Done {
    /// As text.
    #[must_use]
    pub fn to_json(&self) -> String {
        let probe = self.probe.iter().map(|id| Hex(*id.as_bytes())).collect();
        let wire = WireDone { lines: self.lines, sha256: Hex(self.sha256), probe };
        serde_json::to_string(&wire).unwrap_or_default()
    }

    /// Reads what [`Done::to_json`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let wire: WireDone = serde_json::from_str(text).ok()?;
        let probe = wire.probe.into_iter().map(|id| EventId::from_bytes(id.0)).collect();
        Some(Self { lines: wire.lines, sha256: wire.sha256.0, probe })
    }
}

/// What an import has done so far.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What the first line said.
    pub header: Option<Header>,
    /// By sort: how many records came to what.
    pub records: BTreeMap<&'static str, BTreeMap<Imported, u64>>,
    /// Lines that were passed over because an import before had written them.
    pub passed_over: u64,
    /// Bad lines that were skipped.
    pub bad_lines: u64,
    /// The first of them, with what is wrong.
    pub bad: Vec<(u64, String)>,
    /// The first and the last line of what is not what was exported, where that was to be passed over.
    pub damaged: Option<(u64, u64)>,
    /// Bytes of the file that are dealt with.
    pub bytes: u64,
    /// How far it has come.
    pub done: Option<Done>,
}

/// Reads an export into `store`; `written` hears after each page how far it is.
///
/// # Errors
/// [`ImportError`], beside the report of what is written; the same file again does no harm.
pub async fn import(
    store: &dyn Moving,
    input: Box<dyn Read + Send>,
    options: ImportOptions,
    now: impl Fn() -> UnixSecs,
    mut written: impl FnMut(&Report),
) -> (Report, Result<(), ImportError>) {
    let mut report = Report::default();
    let mut importing = Importing {
        store,
        skip_bad: options.skip_bad,
        report: &mut report,
        page: Vec::new(),
        page_bytes: 0,
        checked: 0,
        at_events: false,
        probe: VecDeque::new(),
        ended: false,
    };
    let imported = importing.run(input, options, &now, &mut written).await;
    (report, imported)
}

struct Importing<'a> {
    store: &'a dyn Moving,
    skip_bad: bool,
    report: &'a mut Report,
    /// What was read since the last mark.
    page: Vec<Record<Restored>>,
    page_bytes: usize,
    /// The last line of which the checksum held.
    checked: u64,
    /// Whether a page of events was read: nothing else comes behind it.
    at_events: bool,
    probe: VecDeque<EventId>,
    ended: bool,
}

impl Importing<'_> {
    async fn run(
        &mut self,
        input: Box<dyn Read + Send>,
        options: ImportOptions,
        now: &impl Fn() -> UnixSecs,
        written: &mut impl FnMut(&Report),
    ) -> Result<(), ImportError> {
        let mut done = None;
        if let Some(before) = options.done
            && self.is_in(&before).await?
        {
            self.report.passed_over = before.lines;
            self.checked = before.lines;
            self.probe.extend(&before.probe);
            self.report.done = Some(before.clone());
            done = Some(before);
        }
        let mut lines = Verified::new(input, options.threads, done)?;
        loop {
            match lines.next().await? {
                Next::Lines(read) => {
                    for line in read {
                        self.line(line, now, written).await?;
                    }
                }
                Next::Ended(_) if self.ended => return Ok(()),
                Next::Ended(0) => return Err(ImportError::NoExport("there is nothing to import".to_owned())),
                Next::Ended(lines) => return Err(ImportError::Cut { lines }),
            }
        }
    }

    /// Whether what an import before had written is in this store.
    async fn is_in(&self, done: &Done) -> Result<bool, ImportError> {
        for id in &done.probe {
            if !self.store.holds(id).await? {
                return Ok(false);
            }
        }
        Ok(!done.probe.is_empty())
    }

    async fn line(
        &mut self,
        read: ReadLine,
        now: &impl Fn() -> UnixSecs,
        written: &mut impl FnMut(&Report),
    ) -> Result<(), ImportError> {
        let number = read.number;
        let line = match read.line {
            Ok(Line::Header(header)) if number == 1 => {
                if header.format > FORMAT {
                    return Err(ImportError::NoExport(format!(
                        "the export is of format {}, made by rnostr {}; this build knows formats up to {FORMAT}",
                        header.format, header.version
                    )));
                }
                self.report.header = Some(header);
                return Ok(());
            }
            _ if number == 1 => return Err(ImportError::NoExport("this is no export of rnostr".to_owned())),
            _ if self.ended => Err("there is something behind the line that says that it is the last".to_owned()),
            Ok(Line::Header(_)) => Err("an export begins here; import one at a time".to_owned()),
            Ok(line) => Ok(line),
            Err(reason) => Err(reason),
        };
        let line = match line {
            Ok(line) => line,
            Err(reason) if self.skip_bad => {
                self.report.bad_lines += 1;
                if self.report.bad.len() < BAD_LINES_SHOWN_MAX {
                    self.report.bad.push((number, reason));
                }
                return Ok(());
            }
            Err(reason) => return Err(ImportError::Line { number, reason }),
        };
        let (lines, sha256, ends) = match line {
            Line::Record(record) => {
                self.page.push(record);
                self.page_bytes += read.bytes;
                if self.page.len() > PAGE_RECORDS_MAX || self.page_bytes > PAGE_BYTES_MAX {
                    return Err(ImportError::NoExport(format!("line {number}: a page without its mark")));
                }
                return Ok(());
            }
            Line::Header(_) => return Ok(()),
            Line::Mark(mark) => (mark.lines, mark.sha256, false),
            Line::End(end) => (end.lines, end.sha256, true),
        };
        let Some((before, after)) = read.around else {
            return Err(ImportError::Line { number, reason: "a mark is not written as one".to_owned() });
        };
        self.check(&before, lines, sha256, number)?;
        self.write(now()).await?;
        self.ended = ends;
        self.report.bytes = after.bytes;
        let probe = self.probe.iter().copied().collect();
        self.report.done = Some(Done { lines: number, sha256: after.sha256(), probe });
        written(self.report);
        Ok(())
    }

    fn check(&mut self, before: &Count, lines: u64, sha256: Hex<32>, number: u64) -> Result<(), ImportError> {
        if lines == before.lines && sha256.0 == before.sha256() {
            self.checked = number;
            self.at_events |= matches!(self.page.last(), Some(Record::Event(_)));
            return Ok(());
        }
        let (first, last) = (self.checked + 1, number);
        if !self.skip_bad {
            return Err(ImportError::Damaged { first, last });
        }
        // Events come last, and each proves itself; who is in a group stands in nothing but its line.
        let is_event = |record: &Record<Restored>| matches!(record, Record::Event(_));
        self.at_events |= !self.page.is_empty() && self.page.iter().all(is_event);
        if !(self.at_events && self.page.iter().all(is_event)) {
            return Err(ImportError::Unsigned { first, last });
        }
        // Each checksum is of all lines before, so those behind the first that does not hold say nothing more.
        self.report.damaged.get_or_insert((first, last));
        Ok(())
    }

    async fn write(&mut self, now: UnixSecs) -> Result<(), ImportError> {
        let page = std::mem::take(&mut self.page);
        self.page_bytes = 0;
        if page.is_empty() {
            return Ok(());
        }
        let what: Vec<(&'static str, Option<EventId>)> = page.iter().map(sort_and_id).collect();
        let outcomes = self.store.import(page, now).await?;
        for ((sort, id), outcome) in what.into_iter().zip(outcomes) {
            *self.report.records.entry(sort).or_default().entry(outcome).or_default() += 1;
            if let Some(id) = id.filter(|_| matches!(outcome, Imported::New | Imported::Unchanged)) {
                if self.probe.len() >= PROBE_EVENTS_MAX {
                    self.probe.pop_front();
                }
                self.probe.push_back(id);
            }
        }
        Ok(())
    }
}

fn sort_and_id(record: &Record<Restored>) -> (&'static str, Option<EventId>) {
    let id = if let Record::Event(restored) = record { Some(restored.event().id()) } else { None };
    (record.sort(), id)
}
