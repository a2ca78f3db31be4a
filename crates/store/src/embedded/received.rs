//! Lists in the order of receipt: the ranges of a few prefixes, merged by cursor.

use std::ops::Bound;

use heed::{RoRange, RoTxn, types::Bytes};
use nostr_protocol::UnixSecs;

use super::{
    fail::Fail,
    hot::Hot,
    keys::{Key, LOG_ONLY, Stored, cursor_bytes, number_from},
    log::seal_and_keep,
    rows::{Kept, Mark, RecentRows, Slice},
    tables::Tables,
    vanished::Vanishing,
};
use crate::{Cost, Cursor, Receipt, Received, ReceivedBounds, ReceivedPage};

/// Arguments of [`crate::Store::received`].
pub(super) struct List<'a> {
    pub(super) tables: &'a Tables,
    pub(super) vanishing: &'a Vanishing,
    pub(super) hot: &'a Hot,
    pub(super) query: &'a Received,
    pub(super) from: Receipt,
    pub(super) up_to: Cursor,
    pub(super) bounds: ReceivedBounds,
    pub(super) now: UnixSecs,
    pub(super) before: Before<'a>,
}

/// All that was taken from memory before the snapshot was.
pub(super) struct Before<'a> {
    rows: &'a RecentRows,
    mark: Mark,
    leads: Vec<(Key, Slice)>,
}

impl<'a> Before<'a> {
    /// Takes it.
    pub(super) fn take(rows: &'a RecentRows, query: &Received) -> Self {
        let mark = rows.mark();
        let leads = query.prefixes().into_iter().map(|prefix| (prefix, rows.of(Kept::Received, &prefix))).collect();
        Self { rows, mark, leads }
    }
}

/// One prefix that is being read, at one entry.
struct Range<'t> {
    entries: RoRange<'t, Bytes, Bytes>,
    /// The next entry of the table.
    written: Option<Cursor>,
    /// The entries in memory that come next.
    recent: Slice,
    at: Cursor,
    /// Whether the entry was in memory.
    is_recent: bool,
}

impl<'t> Range<'t> {
    /// On its first entry; `None` where it has none.
    fn open(list: &List<'_>, txn: &'t RoTxn<'_>, (prefix, recent): &(Key, Slice)) -> Result<Option<Self>, Fail> {
        let after = list.from.cursor.saturating_add(1);
        let (lower, upper) = (prefix.with(&cursor_bytes(after)), prefix.with(&cursor_bytes(list.up_to)));
        let range = (Bound::Included(&lower[..]), Bound::Included(&upper[..]));
        let entries = list.tables.received.range(txn, &range)?;
        let recent = recent.clone().between(&lower, &upper);
        let mut opened = Self { entries, written: None, recent, at: 0, is_recent: false };
        opened.read_written()?;
        Ok(opened.advance()?.then_some(opened))
    }

    /// Goes to the next entry; `false` where there is none.
    fn advance(&mut self) -> Result<bool, Fail> {
        let recent = self.recent.first().map(cursor_of).transpose()?;
        let Some(next) = recent.into_iter().chain(self.written).min() else { return Ok(false) };
        self.at = next;
        self.is_recent = recent == Some(next);
        if self.is_recent {
            self.recent.drop_first();
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
            Some((key, _)) => Some(cursor_of(key)?),
            None => None,
        };
        Ok(())
    }
}

fn cursor_of(key: &[u8]) -> Result<Cursor, Fail> {
    let cursor = key.last_chunk::<6>().ok_or(Fail::Corrupt("an entry of a list is cut short"))?;
    Ok(number_from(cursor))
}

impl List<'_> {
    /// The page.
    pub(super) fn run(&self, txn: &RoTxn<'_>) -> Result<ReceivedPage, Fail> {
        let end = Receipt { cursor: self.up_to.max(self.from.cursor), look_from: 0 };
        let mut page = ReceivedPage { next: end, ..ReceivedPage::default() };
        if self.from.cursor >= self.up_to {
            return Ok(page);
        }
        let mut ranges = Vec::new();
        for lead in &self.before.leads {
            page.cost += Cost::of_units(1);
            ranges.extend(Range::open(self, txn, lead)?);
        }
        let is_as_marked = self.before.rows.is_as_marked(self.before.mark);
        let (mut bytes, mut entries) = (0, 0);
        while let Some(first) = ranges.iter().enumerate().min_by_key(|(_, range)| range.at).map(|(n, _)| n) {
            let (cursor, is_recent) = (ranges[first].at, ranges[first].is_recent);
            let is_full = page.events.len() >= self.bounds.events_max.max(1)
                || bytes >= self.bounds.bytes_max.max(1)
                || entries >= self.bounds.entries_max.max(1);
            if is_full {
                page.has_more = true;
                page.next.cursor = cursor - 1;
                break;
            }
            if !ranges[first].advance()? {
                ranges.swap_remove(first);
            }
            entries += 1;
            page.cost += Cost::of_units(1);
            let found = self.tables.led_to(txn, self.hot, cursor, is_recent && !is_as_marked)?;
            let Some(value) = found else { continue };
            let stored = Stored::read(value.bytes())?;
            page.cost += Cost::of_units(Cost::of_event(stored.event));
            let is_shown = stored.expires_at > self.now
                && !stored.has(LOG_ONLY)
                && !self.vanishing.hides(stored.event)
                && !self.tables.is_removed(txn, cursor)?;
            if is_shown {
                let sealed = seal_and_keep(value, self.hot, cursor)?;
                if self.query.holds(&sealed) {
                    bytes += sealed.byte_len();
                    page.events.push(sealed);
                }
            }
        }
        Ok(page)
    }
}
