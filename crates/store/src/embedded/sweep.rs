//! Removing expired events, the events of vanished keys, and the rows that removals left, some at a time: a transaction
//! removes few rows, so that events wait for no more.
//!
//! The events of a vanished key are found by a search of the log up to the request: a wrap or a group message that the
//! key wrote is indexed under its audience and not under its author.

use std::{
    ops::Bound,
    sync::{Arc, atomic::Ordering},
};

use nostr_protocol::{PublicKey, UnixSecs};

use super::{
    fail::Fail,
    keys::{Stored, TIME_MAX, cursor_bytes, cursors_from, number_from, time_bytes},
    vanished::Vanished,
    write::Tx,
};
use crate::{
    Cursor, ExpiredPackage,
    weight::{SWEPT_ROWS_MAX, Weight},
};

/// Most events of the log among which one transaction searches for events of vanished keys.
const SEARCHED_MAX: usize = 20_000;
/// Most lists of `expiry` that one transaction goes through.
const LISTS_MAX: usize = 20_000;
/// Most damaged marks of removed events that a sweep passes over before it leaves the others to the next repair.
const DAMAGED_MAX: usize = 10_000;

/// The outcome of a sweep.
#[derive(Clone, Debug, Default)]
pub(super) struct Swept {
    pub(super) removed: usize,
    /// KeyPackages that expired without having been given.
    pub(super) expired: Vec<ExpiredPackage>,
    /// Whether there is more to do that it did not get to.
    pub(super) more: bool,
}

impl Tx<'_> {
    /// Removes at most `events_max` events.
    pub(super) fn sweep(&mut self, now: UnixSecs, events_max: usize) -> Result<Swept, Fail> {
        self.flush_expiry()?;
        self.removable = usize::MAX;
        let mut swept = self.sweep_removed(events_max)?;
        let expired = self.sweep_expired(now, events_max - swept.removed)?;
        swept.removed += expired.removed;
        swept.more |= expired.more | self.sweep_lapses(now)?;
        swept.expired = expired.expired;
        if !self.vanishing.0.is_empty() && swept.removed < events_max {
            let vanished = self.sweep_vanished(events_max - swept.removed)?;
            swept.removed += vanished.removed;
            swept.more |= vanished.more;
        }
        Ok(swept)
    }

    /// Takes the rows of removed events off the disk. A damaged mark, or one of a damaged event, stays for a repair:
    /// the first may name another event than the one that was removed, and the second does not tell its rows of the
    /// index.
    fn sweep_removed(&mut self, events_max: usize) -> Result<Swept, Fail> {
        let mut swept = Swept::default();
        let (mut behind, mut damaged) = (cursor_bytes(0).to_vec(), 0);
        while let Some((key, is_whole)) = self.tables.removed.first_behind(&self.txn, &behind)? {
            if swept.removed >= events_max || self.rows >= SWEPT_ROWS_MAX {
                swept.more = true;
                break;
            }
            let cursor = number_from(key);
            behind = key.to_vec();
            let event = self.tables.events.get(&self.txn, key)?;
            if !is_whole || event.is_some_and(|value| Stored::is_whole(value, cursor) == Some(false)) {
                damaged += 1;
                if damaged >= DAMAGED_MAX {
                    break;
                }
                continue;
            }
            self.rows += 1 + self.tables.erase(&mut self.txn, &mut self.recent, cursor)?;
            self.tables.removed.delete(&mut self.txn, &cursor_bytes(cursor))?;
            swept.removed += 1;
        }
        // A sweep comes every few seconds, and tells of new damage alone.
        if self.shared.damaged_marks.swap(damaged, Ordering::Relaxed) < damaged {
            tracing::warn!(
                marks = damaged,
                "removed events stay on the disk, as they or their marks are damaged; see `rnostr verify-store`"
            );
        }
        Ok(swept)
    }

    fn sweep_expired(&mut self, now: UnixSecs, events_max: usize) -> Result<Swept, Fail> {
        let mut lists = Vec::new();
        let mut events = 0;
        let until = time_bytes(now.saturating_add(1).min(TIME_MAX));
        for list in self.tables.expiry.range(&self.txn, &(Bound::Unbounded, Bound::Excluded(&until[..])))? {
            let (key, cursors) = list?;
            lists.push((key.to_vec(), cursors.to_vec()));
            events += cursors.len() / 6;
            if events >= events_max || lists.len() >= LISTS_MAX {
                break;
            }
        }
        let mut swept = Swept { more: events >= events_max || lists.len() >= LISTS_MAX, ..Swept::default() };
        for (key, cursors) in lists {
            let mut left = &cursors[..];
            while let (Some(cursor), true) = (cursors_from(left).next(), swept.removed < events_max) {
                if self.rows >= SWEPT_ROWS_MAX {
                    swept.more = true;
                    break;
                }
                swept.expired.extend(self.tables.expiring_package(&self.txn, cursor)?);
                swept.removed += usize::from(self.remove_event(cursor)?);
                left = &left[6..];
            }
            if left.len() < cursors.len() {
                self.tables.expiry.delete(&mut self.txn, &key)?;
            }
            if !left.is_empty() {
                self.tables.expiry.put(&mut self.txn, &[&key[..5], &left[..6]].concat(), left)?;
                break;
            }
        }
        Ok(swept)
    }

    fn sweep_vanished(&mut self, events_max: usize) -> Result<Swept, Fail> {
        let mut pending: Vec<(PublicKey, Vanished)> = Vec::new();
        for key in self.vanishing.0.keys() {
            if let Some(value) = self.tables.vanished.get(&self.txn, key.as_bytes())? {
                pending.push((*key, Vanished::read(value)?));
            }
        }
        // Keys that are searched for furthest are finished first. A key that vanishes during a search waits for the
        // next search, so that it cannot start this one anew.
        let from = pending.iter().map(|(_, vanished)| vanished.searched).max().unwrap_or(0);
        let furthest = pending.iter().filter(|(_, vanished)| vanished.searched == from);
        let until = furthest.map(|(_, vanished)| vanished.until).max().unwrap_or(0);
        let (found, searched) = self.search(from, until, events_max)?;
        for cursor in &found {
            self.remove_event(*cursor)?;
        }
        let mut more = false;
        for (key, mut vanished) in pending {
            if vanished.searched != from {
                more = true;
                continue;
            }
            vanished.searched = searched;
            self.tables.vanished.put(&mut self.txn, key.as_bytes(), &vanished.bytes())?;
            if vanished.is_pending() {
                more = true;
            } else {
                Arc::make_mut(&mut self.vanishing).0.remove(&key);
            }
        }
        Ok(Swept { removed: found.len(), more, ..Swept::default() })
    }

    /// Cursors of events that are hidden, from `from` on, and how far the search came.
    fn search(&self, from: Cursor, until: Cursor, events_max: usize) -> Result<(Vec<Cursor>, Cursor), Fail> {
        let (lower, upper) = (cursor_bytes(from), cursor_bytes(until));
        let range = (Bound::Included(&lower[..]), Bound::Excluded(&upper[..]));
        let mut found = Vec::new();
        let mut rows = 0;
        for (count, entry) in self.tables.events.range(&self.txn, &range)?.enumerate() {
            let (key, value) = entry?;
            let cursor = number_from(key);
            if count >= SEARCHED_MAX || found.len() >= events_max || rows >= SWEPT_ROWS_MAX {
                return Ok((found, cursor));
            }
            let stored = Stored::read(value)?;
            if self.vanishing.hides(stored.event) && !self.tables.is_removed(&self.txn, cursor)? {
                rows += Weight::of(stored.event).rows;
                found.push(cursor);
            }
        }
        Ok((found, until))
    }
}
