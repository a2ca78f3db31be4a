//! Answering queries: the ranges of a plan are read backwards and merged, newest first, until the page is full.
//!
//! Source: NIP-01 for the order. Events are matched in place, in the map, and only those that fit are copied.

use std::{cmp::Ordering, collections::BinaryHeap, collections::binary_heap::PeekMut, ops::Bound};

use heed::{RoRevRange, RoTxn, types::Bytes};
use nostr_extensions::{Query, Sealed, query::Position};
use nostr_protocol::{EventId, UnixSecs};

use super::{
    fail::Fail,
    hot::Hot,
    keys::{LOG_ONLY, ORDER_BYTES, SUFFIX_BYTES, Stored, TIME_MAX, number_from, order, time_bytes},
    log::{seal, seal_and_keep},
    plan::{Lead, Leads},
    recent::Recent,
    rows::{Mark, RecentRows, Slice},
    tables::Tables,
    vanished::Vanishing,
};
use crate::{Cost, Cursor, Page, PageBounds, Part};

/// The question that a page answers.
pub(super) struct Scan<'a> {
    pub(super) tables: &'a Tables,
    pub(super) vanishing: &'a Vanishing,
    pub(super) hot: &'a Hot,
    pub(super) query: &'a Query,
    pub(super) before: Before<'a>,
    pub(super) from: Option<Position>,
    pub(super) up_to: Cursor,
    pub(super) bounds: PageBounds,
    pub(super) now: UnixSecs,
}

/// All that was taken from memory before the snapshot was.
pub(super) struct Before<'a> {
    rows: &'a RecentRows,
    mark: Mark,
    leads: Leads,
    /// The cursors for each id of the part.
    ids: Vec<Vec<Cursor>>,
}

impl<'a> Before<'a> {
    /// Takes it.
    pub(super) fn take(recent: &'a Recent, query: &Query, part: Part) -> Self {
        let ids = query.filter.ids.as_deref().unwrap_or_default();
        let ids = part.of(ids).iter().map(|id| recent.ids.cursors(id)).collect();
        let mark = recent.rows.mark();
        // Ids lead to their events without the index.
        let leads = if query.filter.ids.is_some() { Leads::default() } else { Leads::of(query, part, &recent.rows) };
        Self { rows: &recent.rows, mark, leads, ids }
    }
}

/// The end of a key of the index.
type Suffix = [u8; SUFFIX_BYTES];

/// A range of the index that is being read, at one entry.
struct Range<'t> {
    entries: RoRevRange<'t, Bytes, Bytes>,
    /// The next entry of the table.
    written: Option<Suffix>,
    /// The entries in memory that come next.
    recent: Slice,
    prefix_len: usize,
    at: Suffix,
    /// Whether the entry was in memory.
    is_recent: bool,
}

impl<'t> Range<'t> {
    /// On its first entry; `None` where it has none.
    fn open(scan: &Scan<'_>, txn: &'t RoTxn<'_>, (prefix, recent): Lead) -> Result<Option<Self>, Fail> {
        let filter = &scan.query.filter;
        let until = filter.until.unwrap_or(TIME_MAX);
        let lower = prefix.with(&time_bytes(filter.since.unwrap_or(0)));
        let upper = match scan.from {
            Some(from) if from.created_at <= until => {
                prefix.with(&order(from.created_at, from.id.as_bytes())).with(&[0xff; SUFFIX_BYTES - ORDER_BYTES])
            }
            _ => prefix.with(&time_bytes(until)).with(&[0xff; SUFFIX_BYTES - 5]),
        };
        let range = (Bound::Included(&lower[..]), Bound::Included(&upper[..]));
        let entries = scan.tables.index.rev_range(txn, &range)?;
        let recent = recent.between(&lower, &upper);
        let (prefix_len, at) = (prefix.len(), [0; SUFFIX_BYTES]);
        let mut opened = Self { entries, written: None, recent, prefix_len, at, is_recent: false };
        opened.read_written()?;
        Ok(opened.advance()?.then_some(opened))
    }

    /// Goes to the next entry; `false` where there is none.
    fn advance(&mut self) -> Result<bool, Fail> {
        let recent = self.recent.last().map(|key| self.suffix_of(key)).transpose()?;
        let Some(next) = recent.max(self.written) else { return Ok(false) };
        self.at = next;
        self.is_recent = recent == Some(next);
        if self.is_recent {
            self.recent.drop_last();
        }
        // An entry may stand in both.
        if self.written == Some(next) {
            self.is_recent = false;
            self.read_written()?;
        }
        Ok(true)
    }

    fn read_written(&mut self) -> Result<(), Fail> {
        self.written = match self.entries.next().transpose()? {
            Some((key, _)) => Some(self.suffix_of(key)?),
            None => None,
        };
        Ok(())
    }

    fn suffix_of(&self, key: &[u8]) -> Result<Suffix, Fail> {
        let suffix = key.get(self.prefix_len..).and_then(|suffix| suffix.first_chunk());
        suffix.copied().ok_or(Fail::Corrupt("an entry of the index is cut short"))
    }
}

impl Ord for Range<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at.cmp(&other.at)
    }
}

impl PartialOrd for Range<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Range<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Range<'_> {}

/// A page that is being filled.
#[derive(Default)]
struct Filling {
    page: Page,
    bytes: usize,
    /// Entries looked at, with the work of their events.
    entries: u64,
    last: Option<Position>,
}

impl Scan<'_> {
    /// The page.
    pub(super) fn run(&self, txn: &RoTxn<'_>) -> Result<Page, Fail> {
        match &self.query.filter.ids {
            Some(ids) => self.by_ids(txn, self.bounds.part.of(ids)),
            None => self.by_ranges(txn),
        }
    }

    fn shows(&self, txn: &RoTxn<'_>, cursor: Cursor, stored: &Stored<'_>) -> Result<bool, Fail> {
        let fits = cursor <= self.up_to
            && stored.expires_at > self.now
            && !stored.has(LOG_ONLY)
            && !self.vanishing.hides(stored.event)
            && self.query.filter.matches(stored.event);
        // The index may lead to a removed event still.
        Ok(fits && !self.tables.is_removed(txn, cursor)?)
    }

    fn is_behind_from(&self, position: Position) -> bool {
        self.from.is_none_or(|from| position > from)
    }

    fn is_full(&self, filling: &Filling) -> bool {
        filling.page.events.len() >= self.bounds.events_max.max(1)
            || filling.bytes >= self.bounds.bytes_max.max(1)
            || filling.entries >= self.bounds.entries_max.max(1) as u64
    }

    /// Each id is looked up; the caller bounds their number by the part.
    fn by_ids(&self, txn: &RoTxn<'_>, ids: &[EventId]) -> Result<Page, Fail> {
        let mut found = Vec::new();
        for (id, recent) in ids.iter().zip(&self.before.ids) {
            let Some((cursor, stored)) = self.tables.find(txn, id, recent)? else { continue };
            let position = position(&stored);
            if self.is_behind_from(position) {
                found.push((position, cursor, stored));
            }
        }
        found.sort_unstable_by_key(|(position, ..)| *position);
        let mut filling = Filling::default();
        for (position, cursor, stored) in found {
            if self.is_full(&filling) {
                filling.page.next = filling.last;
                break;
            }
            filling.entries += Cost::of_event(stored.event);
            if self.shows(txn, cursor, &stored)? {
                filling.take(seal(stored, cursor)?);
            }
            filling.last = Some(position);
        }
        Ok(filling.end(ids.len()))
    }

    fn by_ranges(&self, txn: &RoTxn<'_>) -> Result<Page, Fail> {
        let (mut leads, descents) = self.before.leads.ranges(self.tables, txn)?;
        let descents = descents + leads.len();
        // Neighbours lie on the same pages; a reader may hold ten thousand groups.
        leads.sort_unstable_by(|(a, _), (b, _)| a[..].cmp(&b[..]));
        let mut ranges = BinaryHeap::new();
        for lead in leads {
            ranges.extend(Range::open(self, txn, lead)?);
        }
        let is_as_marked = self.before.rows.is_as_marked(self.before.mark);
        let mut filling = Filling::default();
        let mut tied = Vec::new();
        let mut events = Vec::new();
        while pop_tied(&mut ranges, &mut tied)? {
            // One event may stand in several ranges, and several events may share all that the index orders by.
            filling.entries += tied.len() as u64;
            tied.sort_unstable();
            tied.dedup_by_key(|(cursor, _)| *cursor);
            for (cursor, is_recent) in tied.drain(..) {
                let found = self.tables.led_to(txn, self.hot, cursor, is_recent && !is_as_marked)?;
                let Some(value) = found else { continue };
                events.push((position(&Stored::read(value.bytes())?), cursor, value));
            }
            events.sort_unstable_by_key(|(position, ..)| *position);
            let mut ordered = events.drain(..).peekable();
            while let Some((position, cursor, value)) = ordered.next() {
                if !self.is_behind_from(position) {
                    // It stood on the page before. To look at it again must not keep this page from going on.
                    filling.entries = filling.entries.saturating_sub(1);
                    continue;
                }
                // An event of many tags is more work to match.
                let stored = Stored::read(value.bytes())?;
                filling.entries += Cost::of_event(stored.event);
                if self.shows(txn, cursor, &stored)? {
                    filling.take(seal_and_keep(value, self.hot, cursor)?);
                }
                filling.last = Some(position);
                if self.is_full(&filling) && (ordered.peek().is_some() || !ranges.is_empty()) {
                    filling.page.next = filling.last;
                    return Ok(filling.end(descents));
                }
            }
        }
        Ok(filling.end(descents))
    }
}

impl Filling {
    /// The page, after this many descents into the index.
    fn end(mut self, descents: usize) -> Page {
        self.page.cost = Cost::of_units(descents as u64 + self.entries);
        self.page
    }

    fn take(&mut self, sealed: Sealed) {
        self.bytes += sealed.byte_len();
        self.page.events.push(sealed);
    }
}

fn position(stored: &Stored<'_>) -> Position {
    Position { created_at: stored.event.created_at(), id: stored.event.id() }
}

/// Moves the cursors of all entries that stand first into `tied`, and whether the entry was in memory; `false` where
/// there are none.
fn pop_tied(ranges: &mut BinaryHeap<Range<'_>>, tied: &mut Vec<(Cursor, bool)>) -> Result<bool, Fail> {
    tied.clear();
    let Some(first) = ranges.peek() else { return Ok(false) };
    let first: Suffix = first.at;
    while let Some(mut range) = ranges.peek_mut() {
        if range.at[..ORDER_BYTES] != first[..ORDER_BYTES] {
            break;
        }
        tied.push((number_from(&range.at[ORDER_BYTES..]), range.is_recent));
        if !range.advance()? {
            PeekMut::pop(range);
        }
    }
    Ok(true)
}
