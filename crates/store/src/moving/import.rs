//! Import of an export into a store, page by page. A page is written to the store after its mark has proved that the
//! page is unchanged.
//!
//! A file of one signed event a line, as other relays export them, is imported too. It has no marks: each event proves
//! itself.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{self, Read},
    sync::Arc,
};

use nostr_extensions::{Effect, ForeignRules, Restored};
use nostr_protocol::{EventId, UnixSecs};
use serde::{Deserialize, Serialize};

use super::{
    FileKey, Imported, Moving, Record,
    line::{FORMAT, Format, Header, Hex, Line, ORDERS},
    lines::Count,
    verify::{Next, ReadLine, VerifiedLines},
};
use crate::{RecordName, StoreError, weight::BATCH_TARGETS_MAX};

/// Most records between two marks. An export writes a tenth of it.
const PAGE_RECORDS_MAX: usize = 10_000;
/// Most bytes between two marks. An export writes far fewer.
const PAGE_BYTES_MAX: usize = 128 << 20;
/// Most imported events that a resumed import looks for, to see that the store is still the same.
const PROBE_EVENTS_MAX: usize = 8;
/// Events of another relay after which an import writes to the store, at the next end of a chunk of lines.
const EVENTS_RECORDS_MAX: usize = 1_000;
/// Bytes of lines of another relay's events after which an import writes to the store, at the next end of a chunk.
const EVENTS_BYTES_MAX: usize = 4 << 20;
/// Most reasons for which events are passed over that the report tells apart.
const REASONS_MAX: usize = 20;
/// The reason of the events beyond [`REASONS_MAX`].
const OTHER_REASONS: &str = "for other reasons";
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
    /// The export is under no key, and the operator did not say that it may be imported as a whole.
    #[error(
        "the export is under no key, so whoever had the file may have changed groups, bans and removals in it; --trust \
         imports it all the same, and --events takes its events alone"
    )]
    Untrusted,
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
    /// The rules for a file of another relay's events.
    pub foreign: Arc<ForeignRules>,
    /// Whether to take events alone, each by the rules for another relay's events, also out of an export. Otherwise the
    /// first line tells the format.
    pub events: bool,
    /// Whether an export without a key is imported as a whole. Its groups, orders and removals carry no signatures.
    pub trust: bool,
    /// Checks the document of an export's orders, and says what is wrong with it.
    pub check_orders: fn(&[u8]) -> Result<(), String>,
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
    /// Number of another relay's events that were not taken, by the reason.
    pub not_taken: BTreeMap<String, u64>,
    /// First and last line of the first page with a wrong checksum, where the import was to skip bad lines.
    pub damaged: Option<(u64, u64)>,
    /// Bytes of the file up to the last mark that was read.
    pub bytes: u64,
    /// Progress, for a later import that continues.
    pub done: Option<Done>,
}

/// Reads an export, or a file of one event a line, into `store`. After each page it calls `written` with the report so
/// far.
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
        trust: options.trust,
        check_orders: options.check_orders,
        report: &mut report,
        orders: None,
        page: Vec::new(),
        page_bytes: 0,
        targets: 0,
        checked: 0,
        at_events: false,
        probe: VecDeque::new(),
        ended: false,
        format: if options.events { Format::Events } else { Format::Export },
    };
    let imported = importing.run(input, options, &now, &mut written).await;
    (report, imported)
}

struct Importing<'a> {
    store: &'a dyn Moving,
    skip_bad: bool,
    key: Option<FileKey>,
    trust: bool,
    check_orders: fn(&[u8]) -> Result<(), String>,
    report: &'a mut Report,
    /// The orders since the last mark.
    orders: Option<Vec<u8>>,
    /// Records since the last mark.
    page: Vec<Record<Restored>>,
    page_bytes: usize,
    /// Targets of the deletions among another relay's events since the last write.
    targets: usize,
    /// The last line with a right checksum.
    checked: u64,
    /// Whether a page of events has been read. An export writes events last.
    at_events: bool,
    probe: VecDeque<EventId>,
    ended: bool,
    format: Format,
}

impl Importing<'_> {
    async fn run(
        &mut self,
        input: Box<dyn Read + Send>,
        mut options: ImportOptions,
        now: &impl Fn() -> UnixSecs,
        written: &mut impl FnMut(&Report),
    ) -> Result<(), ImportError> {
        let mut done = None;
        if let Some(before) = options.done.take()
            && self.is_in(&before).await?
        {
            self.report.passed_over = before.lines;
            self.checked = before.lines;
            self.probe.extend(&before.probe);
            self.report.done = Some(before.clone());
            done = Some(before);
        }
        let mut lines = VerifiedLines::new(input, &options, done, now())?;
        loop {
            match lines.next().await? {
                Next::Lines(read) => {
                    for line in read {
                        self.line(line, now, written).await?;
                    }
                }
                Next::Ended(_) if self.ended => return Ok(()),
                Next::Ended(_) if self.format == Format::Events => {
                    self.write(now()).await?;
                    written(self.report);
                    return Ok(());
                }
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
                if self.key.is_none() && !self.trust {
                    return Err(ImportError::Untrusted);
                }
                self.report.header = Some(header);
                return Ok(());
            }
            _ if read.format == Format::Events => return self.event_line(read, now, written).await,
            _ if number == 1 => {
                let fault = "this is no export of rnostr, and no file of one event a line";
                return Err(ImportError::NoExport(fault.to_owned()));
            }
            _ if self.ended => Err("the file goes on behind the line that ends the export".to_owned()),
            Ok(Line::Header(_)) => Err("another export begins here; import one file at a time".to_owned()),
            Ok(line) => Ok(line),
            Err(reason) => Err(reason),
        };
        let line = match line {
            Ok(line) => line,
            Err(reason) => return self.bad_line(number, reason),
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
            Line::Orders(document) => {
                let fault = |reason| ImportError::NoExport(format!("line {number}: {reason}"));
                (self.check_orders)(&document).map_err(fault)?;
                self.orders = Some(document);
                return Ok(());
            }
            Line::Header(_) | Line::PassedOver(_) => return Ok(()),
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

    /// Takes in a line of another relay's file, and writes what was gathered once it is enough.
    async fn event_line(
        &mut self,
        read: ReadLine,
        now: &impl Fn() -> UnixSecs,
        written: &mut impl FnMut(&Report),
    ) -> Result<(), ImportError> {
        self.format = Format::Events;
        if self.key.is_some() {
            return Err(ImportError::Key("the file holds events alone, under no key; leave out --key-file"));
        }
        match read.line {
            Ok(Line::Record(record)) => {
                self.page_bytes += read.bytes;
                self.targets += targets(&record);
                self.page.push(record);
                if self.targets >= BATCH_TARGETS_MAX {
                    self.write(now()).await?;
                }
            }
            Ok(Line::PassedOver(Some(reason))) => self.pass_over(reason),
            Ok(_) => {}
            Err(reason) => self.bad_line(read.number, reason)?,
        }
        if let Some((_, after)) = read.around
            && (self.page.len() >= EVENTS_RECORDS_MAX || self.page_bytes >= EVENTS_BYTES_MAX)
        {
            self.write(now()).await?;
            self.report.bytes = after.bytes;
            let probe = self.probe.iter().copied().collect();
            self.report.done = Some(Done { lines: read.number, checksum: after.checksum(), probe });
            written(self.report);
        }
        Ok(())
    }

    fn pass_over(&mut self, reason: String) {
        let not_taken = &mut self.report.not_taken;
        let is_room = not_taken.len() < REASONS_MAX || not_taken.contains_key(&reason);
        let reason = if is_room { reason } else { OTHER_REASONS.to_owned() };
        *not_taken.entry(reason).or_default() += 1;
    }

    /// Skips and counts a bad line.
    ///
    /// # Errors
    /// The line's fault, if the import is not to skip bad lines.
    fn bad_line(&mut self, number: u64, reason: String) -> Result<(), ImportError> {
        if !self.skip_bad {
            return Err(ImportError::Line { number, reason });
        }
        self.report.bad_lines += 1;
        if self.report.bad.len() < BAD_LINES_SHOWN_MAX {
            self.report.bad.push((number, reason));
        }
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
        if self.orders.is_some() || !(self.at_events && self.page.iter().all(is_event)) {
            return Err(ImportError::Unsigned { first, last });
        }
        // Each checksum covers all lines before it, so after a wrong one all others are wrong too.
        self.report.damaged.get_or_insert((first, last));
        Ok(())
    }

    /// Writes the orders of the page, unless the store has orders of its own.
    async fn write_orders(&mut self) -> Result<(), ImportError> {
        let Some(document) = self.orders.take() else { return Ok(()) };
        let outcome = if self.store.put_record(RecordName::Management, 0, document.clone()).await? {
            Imported::New
        } else {
            let stored = self.store.record(RecordName::Management, 0).await?;
            if stored.is_some_and(|stored| stored.value == document) { Imported::Unchanged } else { Imported::Kept }
        };
        *self.report.records.entry(ORDERS).or_default().entry(outcome).or_default() += 1;
        Ok(())
    }

    async fn write(&mut self, now: UnixSecs) -> Result<(), ImportError> {
        self.write_orders().await?;
        let page = std::mem::take(&mut self.page);
        (self.page_bytes, self.targets) = (0, 0);
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

fn targets(record: &Record<Restored>) -> usize {
    let Record::Event(restored) = record else { return 0 };
    match restored.effect() {
        Effect::Delete(deletion) => deletion.ids.len() + deletion.addresses.len(),
        _ => 0,
    }
}

fn sort_and_id(record: &Record<Restored>) -> (&'static str, Option<EventId>) {
    let id = if let Record::Event(restored) = record { Some(restored.event().id()) } else { None };
    (record.sort(), id)
}
