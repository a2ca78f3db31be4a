//! Lists in the order of receipt: the ranges of a few prefixes, merged by cursor.

use std::ops::Bound;

use heed::{RoRange, RoTxn, types::Bytes};
use nostr_protocol::UnixSecs;

use super::{
    fail::Fail,
    hot::Hot,
    keys::{Key, LOG_ONLY, Stored, cursor_bytes, number_from},
    log::seal_and_keep,
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
}

/// One prefix that is being read, at one entry.
struct Range<'t> {
    entries: RoRange<'t, Bytes, Bytes>,
    at: Cursor,
}

impl<'t> Range<'t> {
    /// On its first entry; `None` where it has none.
    fn open(list: &List<'_>, txn: &'t RoTxn<'_>, prefix: Key) -> Result<Option<Self>, Fail> {
        let (lower, upper) = (prefix.with(&cursor_bytes(list.from.cursor)), prefix.with(&cursor_bytes(list.up_to)));
        let range = (Bound::Excluded(&lower[..]), Bound::Included(&upper[..]));
        let mut opened = Self { entries: list.tables.received.range(txn, &range)?, at: 0 };
        Ok(opened.advance()?.then_some(opened))
    }

    /// Goes to the next entry; `false` where there is none.
    fn advance(&mut self) -> Result<bool, Fail> {
        let Some(entry) = self.entries.next().transpose()? else { return Ok(false) };
        let cursor = entry.0.last_chunk::<6>().ok_or(Fail::Corrupt("an entry of a list is cut short"))?;
        self.at = number_from(cursor);
        Ok(true)
    }
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
        for prefix in self.query.prefixes() {
            page.cost += Cost::of_units(1);
            ranges.extend(Range::open(self, txn, prefix)?);
        }
        let (mut bytes, mut entries) = (0, 0);
        while let Some(first) = ranges.iter().enumerate().min_by_key(|(_, range)| range.at).map(|(n, _)| n) {
            let cursor = ranges[first].at;
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
            let value = self.tables.value(txn, self.hot, cursor)?;
            let value = value.ok_or(Fail::Corrupt("a list leads to no event"))?;
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
