//! The newest rows of the indexes, kept in memory beside their tables.
//!
//! Each event puts rows at some places of `index` and of `received`, and LMDB copies and writes a page for each place
//! that a transaction touches. Here rows wait until there are many, and then those of one 256th of all places go into
//! the tables together, so that a page takes several at once. The log makes them durable: after a start they are read
//! back out of it, and `meta` says for each 256th up to which cursor its rows are written.
//!
//! A reader takes what it needs from here first and opens its snapshot then: a row that has left is in every later
//! snapshot. A row may stand in both places. It may also lead to an event that was removed before the snapshot was
//! taken; a [`Mark`] tells whether any row was removed meanwhile.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use heed::RwTxn;
use parking_lot::RwLock;

use super::{
    fail::Fail,
    tables::{Table, Tables},
    written::{SHARDS, Written},
};
use crate::{Cursor, weight::BATCH_ROWS_MAX};

/// Most rows in memory, at [`Row::BYTES`] bytes each.
pub(super) const RECENT_ROWS_MAX: usize = 262_144;
/// Rows of one shard after which it is written with the next transaction, so that to insert one moves few others.
const SHARD_ROWS_MAX: usize = 2_048;
/// Rows after which one transaction writes no further shard, unless it adds as many.
const WRITTEN_ROWS_MAX: usize = BATCH_ROWS_MAX;
/// Cursors after which a shard is written at the latest: a start reads so many events back, about.
pub(super) const UNWRITTEN_EVENTS_MAX: Cursor = 262_144;

/// A table whose newest rows are kept in memory. Its rows have no values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kept {
    Index = 0,
    Received = 1,
}

impl Kept {
    const fn table(self, tables: &Tables) -> Table {
        match self {
            Self::Index => tables.index,
            Self::Received => tables.received,
        }
    }
}

/// A row: its table, its key, zeros, and the length of its key. Rows are in the order of their tables and keys.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Row([u8; Self::BYTES]);

impl Row {
    const BYTES: usize = 40;

    /// `None` for a key that is too long; those of today have 33 bytes at most.
    fn new(table: Kept, key: &[u8]) -> Option<Self> {
        let mut row = [0; Self::BYTES];
        row[0] = table as u8;
        row[1..Self::BYTES - 1].get_mut(..key.len())?.copy_from_slice(key);
        row[Self::BYTES - 1] = u8::try_from(key.len()).ok()?;
        Some(Self(row))
    }

    pub(super) fn key(&self) -> &[u8] {
        let len = usize::from(self.0[Self::BYTES - 1]);
        &self.0[1..=len]
    }

    const fn table(&self, tables: &Tables) -> Table {
        if self.0[0] == Kept::Index as u8 { tables.index } else { tables.received }
    }
}

/// The shard of a key or of a prefix, by a byte of the prefix behind its letter: most prefixes go on with a hash or a
/// key, and rows that lie close together in a table are in one shard. `E` and `L` are prefixes by themselves.
pub(super) fn shard_of(key: &[u8]) -> usize {
    let byte = |at: usize| key.get(at).copied().unwrap_or(0);
    let spread = match byte(0) {
        b'E' | b'L' => 0,
        b'T' => byte(2),
        _ => byte(1),
    };
    usize::from(byte(0).wrapping_mul(37).wrapping_add(spread))
}

/// Sorted. A reader holds what it was given, and the writer goes on with a copy then.
type Shard = RwLock<Arc<Vec<Row>>>;

/// Rows that are not in their tables yet. See the module.
pub(super) struct RecentRows {
    shards: Box<[Shard]>,
    len: AtomicUsize,
    most: usize,
    /// Twice the number of transactions that removed rows, and one more while one of them is being committed.
    removals: AtomicU64,
}

/// The removals of rows up to a moment.
#[derive(Clone, Copy)]
pub(super) struct Mark(u64);

impl RecentRows {
    /// Without rows; they stay at most about `most`.
    pub(super) fn new(most: usize) -> Self {
        let shards = std::iter::repeat_with(Shard::default).take(SHARDS).collect();
        Self { shards, len: AtomicUsize::new(0), most, removals: AtomicU64::new(0) }
    }

    /// To be taken before the rows.
    pub(super) fn mark(&self) -> Mark {
        Mark(self.removals.load(Ordering::SeqCst))
    }

    /// Whether no row was being removed from the mark until now, which is after the snapshot was taken.
    pub(super) fn is_as_marked(&self, mark: Mark) -> bool {
        mark.0.is_multiple_of(2) && self.removals.load(Ordering::SeqCst) == mark.0
    }

    /// The rows of the table whose keys begin with `prefix`.
    pub(super) fn of(&self, table: Kept, prefix: &[u8]) -> Slice {
        let rows = Arc::clone(&self.shards[shard_of(prefix)].read());
        let to = rows.len();
        Slice { rows, from: 0, to }.of(table, prefix)
    }

    /// Keeps a row of the log that an earlier process may not have written to its table.
    pub(super) fn recover(&self, table: Kept, key: &[u8]) {
        if let Some(row) = Row::new(table, key) {
            self.insert(shard_of(key), row);
        }
    }

    fn insert(&self, shard: usize, row: Row) {
        let mut rows = self.shards[shard].write();
        let rows = Arc::make_mut(&mut rows);
        // Mostly a row is the last of its list.
        if let Err(at) = rows.binary_search(&row) {
            rows.insert(at, row);
            self.len.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn remove(&self, shard: usize, row: &Row) {
        let mut rows = self.shards[shard].write();
        if let Ok(at) = rows.binary_search(row) {
            Arc::make_mut(&mut rows).remove(at);
            self.len.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Forgets rows that are written now.
    fn clear(&self, shard: usize) {
        let rows = std::mem::take(&mut *self.shards[shard].write());
        self.len.fetch_sub(rows.len(), Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    fn shard_len(&self, shard: usize) -> usize {
        self.shards[shard].read().len()
    }
}

/// Rows of one list, as they were when the reader asked.
#[derive(Clone, Default)]
pub(super) struct Slice {
    rows: Arc<Vec<Row>>,
    from: usize,
    to: usize,
}

impl Slice {
    /// Those of the table whose keys begin with `prefix`.
    pub(super) fn of(self, table: Kept, prefix: &[u8]) -> Self {
        let Some(first) = Row::new(table, prefix) else { return Self::default() };
        let range = ..=prefix.len();
        self.narrow(|row| row.0[range] < first.0[range], |row| row.0[range] <= first.0[range])
    }

    /// Those with keys in `from..=to`. All are of one table.
    pub(super) fn between(self, from: &[u8], to: &[u8]) -> Self {
        self.narrow(|row| row.key() < from, |row| row.key() <= to)
    }

    /// The key of the first one at `from` or behind it. All are of one table.
    pub(super) fn first_from(&self, from: &[u8]) -> Option<&[u8]> {
        let rows = &self.rows[self.from..self.to];
        rows.get(rows.partition_point(|row| row.key() < from)).map(Row::key)
    }

    fn narrow(mut self, is_before: impl Fn(&Row) -> bool, is_up_to: impl Fn(&Row) -> bool) -> Self {
        let rows = &self.rows[self.from..self.to];
        let start = rows.partition_point(is_before);
        // A range whose end lies before its start is empty.
        let end = rows.partition_point(is_up_to).max(start);
        (self.from, self.to) = (self.from + start, self.from + end);
        self
    }

    pub(super) fn first(&self) -> Option<&[u8]> {
        self.rows[self.from..self.to].first().map(Row::key)
    }

    pub(super) fn last(&self) -> Option<&[u8]> {
        self.rows[self.from..self.to].last().map(Row::key)
    }

    /// Goes behind the first row.
    pub(super) const fn drop_first(&mut self) {
        self.from += 1;
    }

    /// Goes before the last row.
    pub(super) const fn drop_last(&mut self) {
        self.to -= 1;
    }
}

/// The changes of rows in a transaction; readers learn of them when it is committed.
pub(super) struct RowChanges<'a> {
    recent: &'a RecentRows,
    written: Written,
    /// The shard to be written next.
    turn: usize,
    added: BTreeSet<(usize, Row)>,
    removed: BTreeSet<(usize, Row)>,
    /// Shards all of whose rows are in the tables with this transaction.
    emptied: Vec<usize>,
}

impl<'a> RowChanges<'a> {
    pub(super) const fn new(recent: &'a RecentRows, (written, turn): (Written, usize)) -> Self {
        Self { recent, written, turn, added: BTreeSet::new(), removed: BTreeSet::new(), emptied: Vec::new() }
    }

    /// Puts a row, once.
    pub(super) fn put(&mut self, tables: &Tables, txn: &mut RwTxn<'_>, table: Kept, key: &[u8]) -> Result<(), Fail> {
        match Row::new(table, key) {
            Some(row) => {
                self.added.insert((shard_of(key), row));
            }
            None => table.table(tables).put(txn, key, &[])?,
        }
        Ok(())
    }

    /// Removes a row, wherever it is.
    pub(super) fn delete(&mut self, tables: &Tables, txn: &mut RwTxn<'_>, table: Kept, key: &[u8]) -> Result<(), Fail> {
        let shard = shard_of(key);
        if let Some(row) = Row::new(table, key)
            && !self.added.remove(&(shard, row))
        {
            self.removed.insert((shard, row));
        }
        table.table(tables).delete(txn, key)?;
        Ok(())
    }

    /// Writes shards: the full ones, and others in turn while there are too many rows in memory. `up_to` is the last
    /// cursor of the transaction, which adds nothing more.
    pub(super) fn write_overflow(&mut self, tables: &Tables, txn: &mut RwTxn<'_>, up_to: Cursor) -> Result<(), Fail> {
        let before = self.recent.len.load(Ordering::Relaxed) + self.added.len();
        let wrote_max = WRITTEN_ROWS_MAX.max(self.added.len());
        let mut wrote = 0;
        for shard in self.full_shards() {
            if wrote < wrote_max {
                wrote += self.write_shard(tables, txn, shard, up_to)?;
            }
        }
        for _ in 0..SHARDS {
            if before.saturating_sub(wrote) <= self.recent.most || wrote >= wrote_max {
                break;
            }
            if !self.emptied.contains(&self.turn) {
                wrote += self.write_shard(tables, txn, self.turn, up_to)?;
            }
            self.turn = (self.turn + 1) % SHARDS;
        }
        // Shards to which few rows come are written for the sake of the next start.
        for _ in 0..SHARDS {
            let (shard, least) = self.written.least_shard();
            if up_to.saturating_sub(least) <= UNWRITTEN_EVENTS_MAX || wrote >= wrote_max {
                break;
            }
            wrote += self.write_shard(tables, txn, shard, up_to)?;
        }
        if self.emptied.is_empty() { Ok(()) } else { self.written.put(tables, txn) }
    }

    /// The shards to which this transaction adds, and which are full with that.
    fn full_shards(&self) -> Vec<usize> {
        let mut full = Vec::new();
        let mut added = self.added.iter().map(|(shard, _)| *shard).peekable();
        while let Some(shard) = added.next() {
            let mut len = self.recent.shard_len(shard) + 1;
            while added.next_if_eq(&shard).is_some() {
                len += 1;
            }
            if len >= SHARD_ROWS_MAX {
                full.push(shard);
            }
        }
        full
    }

    fn write_shard(
        &mut self,
        tables: &Tables,
        txn: &mut RwTxn<'_>,
        shard: usize,
        up_to: Cursor,
    ) -> Result<usize, Fail> {
        let held = Arc::clone(&self.recent.shards[shard].read());
        let mut behind = self.added.split_off(&(shard, Row([0; Row::BYTES])));
        let mut others = behind.split_off(&(shard + 1, Row([0; Row::BYTES])));
        self.added.append(&mut others);
        let mut rows: Vec<Row> = held.iter().copied().filter(|row| !self.removed.contains(&(shard, *row))).collect();
        rows.extend(behind.into_iter().map(|(_, row)| row));
        rows.sort_unstable();
        for row in &rows {
            row.table(tables).put(txn, row.key(), &[])?;
        }
        self.emptied.push(shard);
        self.written.raise(shard, up_to);
        Ok(rows.len())
    }

    /// To be called right before the commit.
    pub(super) fn begin_commit(&self) {
        if !self.removed.is_empty() {
            self.recent.removals.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// To be called after a commit that failed.
    pub(super) fn abandon_commit(&self) {
        self.end_removals();
    }

    /// Tells readers, after the commit. Gives the start of the next transaction.
    pub(super) fn commit(self) -> (Written, usize) {
        for shard in &self.emptied {
            self.recent.clear(*shard);
        }
        for (shard, row) in &self.added {
            self.recent.insert(*shard, *row);
        }
        for (shard, row) in &self.removed {
            self.recent.remove(*shard, row);
        }
        self.end_removals();
        (self.written, self.turn)
    }

    fn end_removals(&self) {
        if !self.removed.is_empty() {
            self.recent.removals.fetch_add(1, Ordering::SeqCst);
        }
    }
}
