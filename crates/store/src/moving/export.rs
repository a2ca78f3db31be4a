//! Writer of exports, which can also finish an export that was broken off.
//!
//! A mark after each page holds the position at which the store continues. A resumed export cuts the file off after
//! the last mark and continues at its position, so the file never misses a record and never holds one twice.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
};

use nostr_protocol::UnixSecs;

use super::{
    ExportBounds, ExportPosition, FileKey, Moving, Record,
    line::{self, END, EndLine, Header, Hex, Line, MARK, Mark, ORDERS, sort_of},
    lines::{Count, Lines},
};
use crate::{RecordName, StoreError};

/// Bounds of a page of an export. An import writes one such page at a time.
const PAGE: ExportBounds = ExportBounds { records_max: 1_000, bytes_max: 4 << 20 };

/// Number of records of each sort.
pub type Counts = BTreeMap<String, u64>;

/// The reason why an export stopped early.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The output failed: a full disk, for example, or a closed pipe.
    #[error("cannot write: {0}")]
    Write(#[from] io::Error),
    /// The existing file cannot be continued. The text is for the operator.
    #[error("{0}")]
    File(String),
}

/// The content of the file that an export is to continue.
pub enum FileContent {
    /// Nothing to continue: no mark yet.
    Nothing,
    /// A part of an export, up to its last mark.
    Part(Begun),
    /// A finished export.
    Whole(Counts),
}

/// The part of an export up to its last mark.
pub struct Begun {
    count: Count,
    records: Counts,
    next: ExportPosition,
}

impl Begun {
    /// Length of the part in bytes. The caller cuts the rest of the file off.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.count.bytes
    }

    /// The records of the part.
    #[must_use]
    pub const fn records(&self) -> &Counts {
        &self.records
    }
}

/// Reads the file that an earlier export under `key`, or without one, has left.
///
/// # Errors
/// [`ExportError::File`] for a file that is no export, that was made under another key, or that was changed since the
/// export wrote it.
pub fn resume(input: impl Read, key: Option<&FileKey>) -> Result<FileContent, ExportError> {
    let damaged = |number: u64| {
        ExportError::File(format!("line {number} was changed since it was written; remove the file and export again"))
    };
    let mut lines = Lines::new(input);
    let (mut count, mut records, mut begun) = (Count::new(key), Counts::new(), None);
    while let Some(raw) = lines.next().map_err(|error| ExportError::File(error.to_string()))? {
        let (content, number) = (raw.content(), count.lines + 1);
        if number == 1 {
            // The first write may have been cut off inside the header.
            let prefix = &line::HEADER[..line::HEADER.len().min(content.len())];
            match line::read(content) {
                Ok(Line::Header(header)) => header.fits(key).map_err(|fault| ExportError::File(fault.to_owned()))?,
                _ if !raw.is_whole() && content.starts_with(prefix) => return Ok(FileContent::Nothing),
                _ => {
                    let fault = "the file exists and is no export of rnostr; use another name";
                    return Err(ExportError::File(fault.to_owned()));
                }
            }
        }
        if !raw.is_whole() {
            break;
        }
        let holds = |lines: u64, checksum: Hex<32>| lines == count.lines && checksum.0 == count.checksum();
        if content.starts_with(END) {
            return match line::read(content) {
                Ok(Line::End(end)) if holds(end.lines, end.checksum) => Ok(FileContent::Whole(end.records)),
                _ => Err(damaged(number)),
            };
        }
        let mut next = None;
        if content.starts_with(MARK) {
            next = match line::read(content) {
                Ok(Line::Mark(mark)) if holds(mark.lines, mark.checksum) => ExportPosition::parse(&mark.next),
                _ => None,
            };
            if next.is_none() {
                return Err(damaged(number));
            }
        } else if number > 1 {
            *records.entry(sort_of(content).unwrap_or_default().to_owned()).or_default() += 1;
        }
        count.add(&raw.text, 1);
        if let Some(next) = next {
            begun = Some(Begun { count: count.clone(), records: records.clone(), next });
        }
    }
    Ok(begun.map_or(FileContent::Nothing, FileContent::Part))
}

/// Writes everything that `store` holds at `now`, or with `begun` the rest of that export, which was begun under the
/// same `key`. After each page it calls `written` with the records that the file holds.
///
/// # Errors
/// [`ExportError`]; the written part can be [resumed](resume).
pub async fn export(
    store: &dyn Moving,
    out: &mut dyn Write,
    begun: Option<Begun>,
    key: Option<&FileKey>,
    version: &str,
    now: UnixSecs,
    mut written: impl FnMut(&Counts),
) -> Result<Counts, ExportError> {
    let mut text = Vec::new();
    let unwritable = |error: String| ExportError::Store(StoreError::Unavailable(error));
    let (mut count, mut records, mut position) = match begun {
        Some(begun) => {
            if begun.next.up_to() > store.head() {
                return Err(ExportError::File(
                    "the file is the export of another store; remove it, or configure that store".to_owned(),
                ));
            }
            (begun.count, begun.records, begun.next)
        }
        None => {
            let position = ExportPosition::start(store.head());
            let stats = store.stats().await?;
            let orders = orders(store).await?;
            let header = Header::new(version, now, [stats.events, stats.groups], key, orders.is_some());
            line::write_header(header, &mut text).map_err(unwritable)?;
            let mut records = Counts::new();
            if let Some(document) = orders {
                line::write_orders(&document, &mut text).map_err(unwritable)?;
                records.insert(ORDERS.to_owned(), 1);
            }
            (Count::new(key), records, position)
        }
    };
    // The lines before the first page are there once.
    let mut lines = if count.lines == 0 { 1 + records.get(ORDERS).copied().unwrap_or(0) } else { 0 };
    loop {
        let page = store.export(&position, PAGE, now).await?;
        for record in &page.records {
            line::write(record, &mut text).map_err(unwritable)?;
            *records.entry(record.sort().to_owned()).or_default() += 1;
        }
        lines += page.records.len() as u64;
        count.add(&text, lines);
        let empty = page.records.is_empty() && lines == 0;
        lines = 0;
        let mut last = Vec::new();
        let ended = match page.next {
            Some(next) => {
                // A page without records needs no mark: a resumed export only reads the empty page again.
                if !empty {
                    let mark = Mark { next: next.to_string(), lines: count.lines, checksum: Hex(count.checksum()) };
                    line::write_mark(mark, &mut last).map_err(unwritable)?;
                    count.add(&last, 1);
                }
                position = next;
                false
            }
            None => {
                let checksum = Hex(count.checksum());
                let end = EndLine { lines: count.lines, records: records.clone(), checksum };
                line::write_end(end, &mut last).map_err(unwritable)?;
                true
            }
        };
        text.extend_from_slice(&last);
        if !text.is_empty() {
            out.write_all(&text)?;
            out.flush()?;
            text.clear();
        }
        written(&records);
        if ended {
            return Ok(records);
        }
    }
}

/// The operator's orders, if any was ever given. They come before all events, so that no event is imported without the
/// ban that hides it.
async fn orders(store: &dyn Moving) -> Result<Option<Vec<u8>>, StoreError> {
    let record = store.record(RecordName::Management, 0).await?;
    Ok(record.map(|record| record.value).filter(|value| !value.is_empty()))
}

/// Writes the events that `store` holds at `now`, one a line, in the order of the log: for other relays, which know no
/// groups. Messages that are kept for live delivery alone are left out. After each page it calls `written` with the
/// number of events so far, which it returns in the end.
///
/// # Errors
/// [`ExportError`]; the written part cannot be resumed.
pub async fn export_events(
    store: &dyn Moving,
    out: &mut dyn Write,
    now: UnixSecs,
    mut written: impl FnMut(u64),
) -> Result<u64, ExportError> {
    let mut position = Some(ExportPosition::start(store.head()));
    let mut events = 0;
    while let Some(from) = position {
        let page = store.export(&from, PAGE, now).await?;
        let mut text = Vec::new();
        for record in &page.records {
            if let Record::Event(exported) = record
                && !exported.kept.log_only
            {
                line::write_event(exported, &mut text);
                events += 1;
            }
        }
        out.write_all(&text)?;
        written(events);
        position = page.next;
    }
    out.flush()?;
    Ok(events)
}
