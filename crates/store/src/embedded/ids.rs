//! The cursors that an id leads to.
//!
//! Ids are hashes, so each one that goes into a tree dirties a page of its own, which would be half of the cost of
//! storing a short event. The newest are therefore kept in memory, and written when there are many of them, one 256th
//! of all ids after the other, so that a page takes many at once. The log makes them durable: after a start they are
//! read back out of it, and `meta` says for each 256th up to which cursor its ids are written.

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicUsize, Ordering},
};

use heed::RwTxn;
use nostr_protocol::EventId;
use parking_lot::RwLock;

use super::{
    fail::Fail,
    keys::{cursor_bytes, cursors_from, number_from},
    tables::Tables,
    written::{SHARDS, Written},
};
use crate::Cursor;

/// Most ids in memory, at about 24 bytes each.
pub(super) const RECENT_IDS_MAX: usize = 262_144;

/// The first bytes of an id, by which the `ids` table is keyed.
pub(super) type IdPrefix = u64;
/// The prefix of an event's id, and the event's cursor.
type IdEntry = (IdPrefix, Cursor);
type Shard = RwLock<BTreeSet<IdEntry>>;

pub(super) fn prefix(id: &EventId) -> IdPrefix {
    number_from(&id.as_bytes()[..8])
}

/// The shard of an id, by its first byte.
pub(super) fn shard_of(prefix: IdPrefix) -> usize {
    usize::from(prefix.to_be_bytes()[0])
}

/// Ids that are not in the `ids` table yet. Readers ask here first and in their snapshot then: an id that leaves here
/// is in every later snapshot.
pub(super) struct RecentIds {
    shards: Box<[Shard]>,
    len: AtomicUsize,
    most: usize,
}

impl RecentIds {
    /// Cursors of events whose ids begin as this one does.
    pub(super) fn cursors(&self, id: &EventId) -> Vec<Cursor> {
        let prefix = prefix(id);
        let shard = self.shards[shard_of(prefix)].read();
        shard.range((prefix, 0)..=(prefix, Cursor::MAX)).map(|(_, cursor)| *cursor).collect()
    }

    fn insert(&self, entry: IdEntry) {
        if self.shards[shard_of(entry.0)].write().insert(entry) {
            self.len.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn remove(&self, entry: &IdEntry) {
        if self.shards[shard_of(entry.0)].write().remove(entry) {
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Without ids; they stay at most about `most`.
    pub(super) fn new(most: usize) -> Self {
        let shards = std::iter::repeat_with(RwLock::default).take(SHARDS).collect();
        Self { shards, len: AtomicUsize::new(0), most }
    }

    /// Keeps an id that an earlier process may not have written to the table.
    pub(super) fn recover(&self, id: &EventId, cursor: Cursor) {
        self.insert((prefix(id), cursor));
    }
}

/// The changes of ids in a transaction; readers learn of them when it is committed.
pub(super) struct IdChanges<'a> {
    recent: &'a RecentIds,
    written: Written,
    /// The shard to be written next.
    turn: usize,
    added: BTreeSet<IdEntry>,
    removed: BTreeSet<IdEntry>,
}

impl<'a> IdChanges<'a> {
    pub(super) const fn new(recent: &'a RecentIds, (written, turn): (Written, usize)) -> Self {
        Self { recent, written, turn, added: BTreeSet::new(), removed: BTreeSet::new() }
    }

    /// Cursors of events whose ids begin as this one does, which are not in the table.
    pub(super) fn cursors(&self, id: &EventId) -> Vec<Cursor> {
        let mut cursors = self.recent.cursors(id);
        let prefix = prefix(id);
        if !self.removed.is_empty() {
            cursors.retain(|cursor| !self.removed.contains(&(prefix, *cursor)));
        }
        cursors.extend(self.added.range((prefix, 0)..=(prefix, Cursor::MAX)).map(|(_, cursor)| *cursor));
        cursors
    }

    pub(super) fn add(&mut self, id: &EventId, cursor: Cursor) {
        self.added.insert((prefix(id), cursor));
    }

    pub(super) fn remove(
        &mut self,
        tables: &Tables,
        txn: &mut RwTxn<'_>,
        id: &EventId,
        cursor: Cursor,
    ) -> Result<(), Fail> {
        let entry = (prefix(id), cursor);
        if !self.written.has(shard_of(entry.0), cursor) {
            if !self.added.remove(&entry) {
                self.removed.insert(entry);
            }
            return Ok(());
        }
        let key = entry.0.to_be_bytes();
        let others: Vec<u8> = cursors_from(tables.ids.get(txn, &key)?.unwrap_or_default())
            .filter(|other| *other != cursor)
            .flat_map(cursor_bytes)
            .collect();
        if others.is_empty() {
            tables.ids.delete(txn, &key)?;
        } else {
            tables.ids.put(txn, &key, &others)?;
        }
        Ok(())
    }

    /// Writes shards in turn while there are too many ids in memory. `up_to` is the last cursor of the transaction,
    /// which adds nothing more.
    pub(super) fn write_overflow(&mut self, tables: &Tables, txn: &mut RwTxn<'_>, up_to: Cursor) -> Result<(), Fail> {
        let mut len = self.recent.len.load(Ordering::Relaxed) + self.added.len() - self.removed.len();
        let mut wrote = false;
        for _ in 0..SHARDS {
            if len <= self.recent.most {
                break;
            }
            len -= self.write_shard(tables, txn, up_to)?;
            wrote = true;
        }
        if wrote {
            self.written.put(tables, txn)?;
        }
        Ok(())
    }

    fn write_shard(&mut self, tables: &Tables, txn: &mut RwTxn<'_>, up_to: Cursor) -> Result<usize, Fail> {
        let shard = self.turn;
        self.turn = (self.turn + 1) % SHARDS;
        let first = (shard as u64) << 56;
        let range = (first, 0)..=(first | ((1 << 56) - 1), Cursor::MAX);
        let held = self.recent.shards[shard].read();
        let mut entries: BTreeSet<IdEntry> = held.difference(&self.removed).copied().collect();
        self.removed.extend(held.iter().copied());
        drop(held);
        let added: Vec<_> = self.added.range(range).copied().collect();
        for entry in added {
            self.added.remove(&entry);
            entries.insert(entry);
        }
        for (prefix, cursor) in &entries {
            put(tables, txn, *prefix, *cursor)?;
        }
        self.written.raise(shard, up_to);
        Ok(entries.len())
    }

    /// Tells readers, after the commit. Gives the start of the next transaction.
    pub(super) fn commit(self) -> (Written, usize) {
        for entry in &self.added {
            self.recent.insert(*entry);
        }
        for entry in &self.removed {
            self.recent.remove(entry);
        }
        (self.written, self.turn)
    }
}

/// Adds a cursor to those of its id.
pub(super) fn put(tables: &Tables, txn: &mut RwTxn<'_>, prefix: IdPrefix, cursor: Cursor) -> Result<(), Fail> {
    let key = prefix.to_be_bytes();
    if let Some(others) = tables.ids.get_or_put(txn, &key, &cursor_bytes(cursor))? {
        let mut cursors = others.to_vec();
        if cursors_from(&cursors).all(|other| other != cursor) {
            cursors.extend_from_slice(&cursor_bytes(cursor));
            tables.ids.put(txn, &key, &cursors)?;
        }
    }
    Ok(())
}
