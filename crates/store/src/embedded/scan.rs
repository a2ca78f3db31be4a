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
    keys::{Key, LOG_ONLY, ORDER_BYTES, SUFFIX_BYTES, Stored, TIME_MAX, number_from, order, time_bytes},
    log::{seal, seal_and_keep},
    plan::plan,
    tables::Tables,
    vanished::Vanishing,
};
use crate::{Cost, Cursor, Page, PageBounds};

/// The question that a page answers.
pub(super) struct Scan<'a> {
    pub(super) tables: &'a Tables,
    pub(super) vanishing: &'a Vanishing,
    pub(super) hot: &'a Hot,
    pub(super) query: &'a Query,
    /// The cursors that [`super::ids::Recent`] gave for each id of the part before the snapshot was taken.
    pub(super) recent: &'a [Vec<Cursor>],
    pub(super) from: Option<Position>,
    pub(super) up_to: Cursor,
    pub(super) bounds: PageBounds,
    pub(super) now: UnixSecs,
}

/// A range of the index that is being read, at one entry.
struct Range<'t> {
    entries: RoRevRange<'t, Bytes, Bytes>,
    prefix_len: usize,
    at: [u8; SUFFIX_BYTES],
}

impl<'t> Range<'t> {
    /// On its first entry; `None` where it has none.
    fn open(scan: &Scan<'_>, txn: &'t RoTxn<'_>, prefix: Key) -> Result<Option<Self>, Fail> {
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
        let mut opened = Self { entries, prefix_len: prefix.len(), at: [0; SUFFIX_BYTES] };
        Ok(opened.advance()?.then_some(opened))
    }

    /// Goes to the next entry; `false` where there is none.
    fn advance(&mut self) -> Result<bool, Fail> {
        let Some(entry) = self.entries.next().transpose()? else { return Ok(false) };
        self.at = *entry
            .0
            .get(self.prefix_len..)
            .and_then(|suffix| suffix.first_chunk())
            .ok_or(Fail::Corrupt("an entry of the index is cut short"))?;
        Ok(true)
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
        for (id, recent) in ids.iter().zip(self.recent) {
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
        let (mut prefixes, descents) = plan(self.tables, txn, self.query, self.bounds.part)?;
        let descents = descents + prefixes.len();
        // Neighbours lie on the same pages; a reader may hold ten thousand groups.
        prefixes.sort_unstable_by(|a, b| a[..].cmp(&b[..]));
        let mut ranges = BinaryHeap::new();
        for prefix in prefixes {
            ranges.extend(Range::open(self, txn, prefix)?);
        }
        let mut filling = Filling::default();
        let mut tied = Vec::new();
        let mut events = Vec::new();
        while pop_tied(&mut ranges, &mut tied)? {
            // One event may stand in several ranges, and several events may share all that the index orders by.
            filling.entries += tied.len() as u64;
            tied.sort_unstable();
            tied.dedup();
            for cursor in tied.drain(..) {
                let value = self.tables.value(txn, self.hot, cursor)?;
                let value = value.ok_or(Fail::Corrupt("the index leads to no event"))?;
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

/// Moves the cursors of all entries that stand first into `tied`; `false` where there are none.
fn pop_tied(ranges: &mut BinaryHeap<Range<'_>>, tied: &mut Vec<Cursor>) -> Result<bool, Fail> {
    tied.clear();
    let Some(first) = ranges.peek() else { return Ok(false) };
    let first: [u8; SUFFIX_BYTES] = first.at;
    while let Some(mut range) = ranges.peek_mut() {
        if range.at[..ORDER_BYTES] != first[..ORDER_BYTES] {
            break;
        }
        tied.push(number_from(&range.at[ORDER_BYTES..]));
        if !range.advance()? {
            PeekMut::pop(range);
        }
    }
    Ok(true)
}
