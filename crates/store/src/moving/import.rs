//! Import of an export into a store, page by page. A page is written to the store after its mark has proved that the
//! page is unchanged.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Read},
};

use nostr_extensions::Restored;
use nostr_protocol::{EventId, UnixSecs};
use serde::{Deserialize, Serialize};

use super::{
    FileKey, Imported, Moving, Record,
    line::{FORMAT, Header, Hex, Line},
    lines::Count,
    verify::{Next, ReadLine, VerifiedLines},
};
use crate::StoreError;

/// Most records between two marks. An export writes a tenth of it.
const PAGE_RECORDS_MAX: usize = 10_000;
/// Most bytes between two marks. An export writes far fewer.
const PAGE_BYTES_MAX: usize = 128 << 20;
/// Most imported events that a resumed import looks for, to see that the store is still the same.
const PROBE_EVENTS_MAX: usize = 8;
/// Most bad lines of which the report keeps number and reason.
const BAD_LINES_SHOWN_MAX: usize = 10;

/// The reason why an import stopped early. Written records stay in the store.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The input failed.
    #[error("cannot read: {0}")]
    Read(io::Error),
    /// The input is no export, or has a format that this build does not know.
    #[error("{0}")]
    NoExport(String),
    /// A line is not as an export writes lines, or holds an event that does not verify.
    #[error("line {number}: {reason}")]
    Line {
        /// The line's number, from 1.
        number: u64,
        /// The fault.
        reason: String,
    },
    /// A checksum is wrong: some line was changed.
    #[error("lines {first} to {last} were changed after the export: the checksum in line {last} is wrong")]
    Damaged {
        /// The first line that may have been changed.
        first: u64,
        /// The line with the wrong checksum.
        last: u64,
    },
    /// The last line is missing.
    #[error("the file is cut off behind line {lines}: the last line of the export is missing")]
    Cut {
        /// Number of whole lines.
        lines: u64,
    },
    /// A checksum over records without signatures is wrong, so that the changed ones cannot be told from the others.
    #[error(
        "lines {first} to {last} were changed after the export, and groups and deletions carry no signatures that show \
         which of them; export again"
    )]
    Unsigned {
        /// The first line that may have been changed.
        first: u64,
        /// The line with the wrong checksum.
        last: u64,
    },
    /// The file and the key do not belong together.
    #[error("{0}")]
    Key(&'static str),
    /// A checksum is wrong under the export's key, so whoever changed a line had not the key.
    #[error(
        "lines {first} to {last} were changed after the export: the checksum in line {last} is not made under the key; \
         export again"
    )]
    Forged {
        /// The first line that may have been changed.
        first: u64,
        /// The line with the wrong checksum.
        last: u64,
    },
    /// An import is to be resumed with another file.
    #[error("this is not the file of which a part has been imported; run without --resume")]
    OtherFile,
}

/// Options of an import.
#[derive(Clone, Debug)]
pub struct ImportOptions {
    /// Number of threads that check signatures.
    pub threads: usize,
    /// Whether the import skips and counts bad lines, instead of ending at the first one.
    pub skip_bad: bool,
    /// Progress of an earlier import of the same file.
    pub done: Option<Done>,
    /// The key of the export, if it was made under one.
    pub key: Option<FileKey>,
}

/// Progress of an import. The command keeps it beside the file, so that a later import can continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Lines whose records are in the store.
    pub lines: u64,
    /// Checksum of those lines.
    pub(super) checksum: [u8; 32],
    /// Some of the last imported events.
    probe: Vec<EventId>,
}

#[derive(Serialize, Deserialize)]
struct WireDone {
    lines: u64,
    #[serde(rename = "sha256")]
    checksum: Hex<32>,
    probe: Vec<Hex<32>>,
}

impl Done {
    /// Writes it as text.
    #[must_use]
    pub fn to_json(&self) -> String {
        let probe = self.probe.iter().map(|id| Hex(*id.as_bytes())).collect();
        let wire = WireDone { lines: self.lines, checksum: Hex(self.checksum), probe };
        serde_json::to_string(&wire).unwrap_or_default()
    }

    /// Reads what [`Done::to_json`] wrote.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let wire: WireDone = serde_json::from_str(text).ok()?;
        let probe = wire.probe.into_iter().map(|id| EventId::from_bytes(id.0)).collect();
        Some(Self { lines: wire.lines, checksum: wire.checksum.0, probe })
    }
}

/// Result of an import so far.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// The file's first line.
    pub header: Option<Header>,
    /// Number of records by sort and outcome.
    pub records: BTreeMap<&'static str, BTreeMap<Imported, u64>>,
    /// Number of lines that were skipped because an earlier import had written them.
    pub passed_over: u64,
    /// Number of bad lines that were skipped.
    pub bad_lines: u64,
    /// Number and fault of the first bad lines.
    pub bad: Vec<(u64, String)>,
    /// First and last line of the first page with a wrong checksum, where the import was to skip bad lines.
    pub damaged: Option<(u64, u64)>,
    /// Bytes of the file up to the last mark that was read.
    pub bytes: u64,
    /// Progress, for a later import that continues.
    pub done: Option<Done>,
}

/// Reads an export into `store`. After each page it calls `written` with the report so far.
///
/// # Errors
/// [`ImportError`], beside the report. The store keeps the written pages, and importing the same file again is
/// harmless.
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
        key: options.key.clone(),
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
    key: Option<FileKey>,
    report: &'a mut Report,
    /// Records since the last mark.
    page: Vec<Record<Restored>>,
    page_bytes: usize,
    /// The last line with a right checksum.
    checked: u64,
    /// Whether a page of events has been read. An export writes events last.
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
        let mut lines = VerifiedLines::new(input, options.threads, done, self.key.as_ref())?;
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

    /// Whether this store holds the events that an earlier import wrote.
    async fn is_in(&self, done: &Done) -> Result<bool, ImportError> {
        for id in &done.probe {
            // An event that has expired since then was imported all the same.
            if !self.store.holds(id, 0).await? {
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
                header.fits(self.key.as_ref()).map_err(ImportError::Key)?;
                self.report.header = Some(header);
                return Ok(());
            }
            _ if number == 1 => return Err(ImportError::NoExport("this is no export of rnostr".to_owned())),
            _ if self.ended => Err("the file goes on behind the line that ends the export".to_owned()),
            Ok(Line::Header(_)) => Err("another export begins here; import one file at a time".to_owned()),
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
        let (lines, checksum, ends) = match line {
            Line::Record(record) => {
                self.page.push(record);
                self.page_bytes += read.bytes;
                if self.page.len() > PAGE_RECORDS_MAX || self.page_bytes > PAGE_BYTES_MAX {
                    return Err(ImportError::NoExport(format!("line {number}: the page is too long and has no mark")));
                }
                return Ok(());
            }
            Line::Header(_) => return Ok(()),
            Line::Mark(mark) => (mark.lines, mark.checksum, false),
            Line::End(end) => (end.lines, end.checksum, true),
        };
        let Some((before, after)) = read.around else {
            return Err(ImportError::Line { number, reason: "the mark is not spelled as exports spell it".to_owned() });
        };
        self.check(&before, lines, checksum, number)?;
        self.write(now()).await?;
        self.ended = ends;
        self.report.bytes = after.bytes;
        let probe = self.probe.iter().copied().collect();
        self.report.done = Some(Done { lines: number, checksum: after.checksum(), probe });
        written(self.report);
        Ok(())
    }

    fn check(&mut self, before: &Count, lines: u64, checksum: Hex<32>, number: u64) -> Result<(), ImportError> {
        if lines == before.lines && checksum.0 == before.checksum() {
            self.checked = number;
            self.at_events |= matches!(self.page.last(), Some(Record::Event(_)));
            return Ok(());
        }
        let (first, last) = (self.checked + 1, number);
        if self.key.is_some() {
            return Err(ImportError::Forged { first, last });
        }
        if !self.skip_bad {
            return Err(ImportError::Damaged { first, last });
        }
        // Every event carries its signature, so a page of events alone may be imported with a wrong checksum. Records
        // of groups and deletions carry none.
        let is_event = |record: &Record<Restored>| matches!(record, Record::Event(_));
        self.at_events |= !self.page.is_empty() && self.page.iter().all(is_event);
        if !(self.at_events && self.page.iter().all(is_event)) {
            return Err(ImportError::Unsigned { first, last });
        }
        // Each checksum covers all lines before it, so after a wrong one all others are wrong too.
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
