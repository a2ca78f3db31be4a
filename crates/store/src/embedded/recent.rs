//! The parts of the store that are kept in memory for the newest events, and written many at once: ids and rows of the
//! indexes. The log makes them durable.

use std::ops::Bound;

use heed::{RoTxn, RwTxn};

use super::{
    fail::Fail,
    ids::{self, IdChanges, RECENT_IDS_MAX, RecentIds},
    keys::{Stored, cursor_bytes, number_from},
    log::each_row,
    rows::{self, RECENT_ROWS_MAX, RecentRows, RowChanges},
    tables::Tables,
    written::{IDS_WRITTEN, ROWS_WRITTEN, Written},
};
use crate::Cursor;

/// Most ids and rows in memory.
#[derive(Clone, Copy)]
pub(super) struct Most {
    pub(super) ids: usize,
    pub(super) rows: usize,
}

impl Most {
    pub(super) const DEFAULT: Self = Self { ids: RECENT_IDS_MAX, rows: RECENT_ROWS_MAX };
}

/// See the module.
pub(super) struct Recent {
    pub(super) ids: RecentIds,
    pub(super) rows: RecentRows,
}

/// The place at which the writer goes on: what is written, and the shards that come next.
#[derive(Clone)]
pub(super) struct Progress {
    ids: (Written, usize),
    rows: (Written, usize),
}

impl Recent {
    /// Reads back what an earlier process had in memory.
    pub(super) fn recover(tables: &Tables, txn: &RoTxn<'_>, most: Most) -> Result<(Self, Progress), Fail> {
        let recent = Self { ids: RecentIds::new(most.ids), rows: RecentRows::new(most.rows) };
        let ids = Written::read(IDS_WRITTEN, tables, txn)?;
        let rows = Written::read(ROWS_WRITTEN, tables, txn)?;
        let from = cursor_bytes(ids.least().min(rows.least()));
        for entry in tables.events.range(txn, &(Bound::Excluded(&from[..]), Bound::Unbounded))? {
            let (key, value) = entry?;
            let (cursor, stored) = (number_from(key), Stored::read(value)?);
            let id = stored.event.id();
            if !ids.has(ids::shard_of(ids::prefix(&id)), cursor) && !tables.is_removed(txn, cursor)? {
                recent.ids.recover(&id, cursor);
            }
            each_row(&stored, cursor, |table, key| {
                if !rows.has(rows::shard_of(key), cursor) {
                    recent.rows.recover(table, key);
                }
                Ok(())
            })?;
        }
        Ok((recent, Progress { ids: (ids, 0), rows: (rows, 0) }))
    }
}

/// The changes of a transaction; readers learn of them when it is committed.
pub(super) struct Changes<'a> {
    pub(super) ids: IdChanges<'a>,
    pub(super) rows: RowChanges<'a>,
}

impl<'a> Changes<'a> {
    pub(super) fn new(recent: &'a Recent, progress: &Progress) -> Self {
        let Progress { ids, rows } = progress.clone();
        Self { ids: IdChanges::new(&recent.ids, ids), rows: RowChanges::new(&recent.rows, rows) }
    }

    /// Writes parts of what is in memory while it is too much. `up_to` is the last cursor of the transaction, which
    /// adds nothing more.
    pub(super) fn write_overflow(&mut self, tables: &Tables, txn: &mut RwTxn<'_>, up_to: Cursor) -> Result<(), Fail> {
        self.ids.write_overflow(tables, txn, up_to)?;
        self.rows.write_overflow(tables, txn, up_to)
    }

    /// Commits the transaction, and tells readers.
    pub(super) fn commit(self, txn: RwTxn<'_>) -> Result<Progress, Fail> {
        self.rows.begin_commit();
        if let Err(error) = txn.commit() {
            self.rows.abandon_commit();
            return Err(error.into());
        }
        Ok(Progress { ids: self.ids.commit(), rows: self.rows.commit() })
    }
}

#[cfg(test)]
mod tests;
