//! Up to which cursor the rows of a table are written, whose newest ones are kept in memory.

use heed::{RoTxn, RwTxn};

use super::{
    fail::Fail,
    keys::{cursor_bytes, cursors_from},
    summed::checked,
    tables::{Tables, sum_name},
};
use crate::Cursor;

/// Parts of a table that are written one after the other.
pub(super) const SHARDS: usize = 256;
/// In `meta`: for each shard of ids the cursor up to which they are written, 6 bytes each.
pub(super) const IDS_WRITTEN: &[u8] = b"ids-written";
/// In `meta`: the same for the shards of rows of `index` and `received`.
pub(super) const ROWS_WRITTEN: &[u8] = b"rows-written";

/// For each shard the cursor up to which it is written.
#[derive(Clone)]
pub(super) struct Written {
    name: &'static [u8],
    up_to: [Cursor; SHARDS],
}

impl Written {
    /// The row of this name in `meta`; of a new store, nothing is written.
    ///
    /// # Errors
    /// [`Fail::Corrupt`] where it does not have its checksum.
    pub(super) fn read(name: &'static [u8], tables: &Tables, txn: &RoTxn<'_>) -> Result<Self, Fail> {
        let mut written = Self::all(name, 0);
        let Some(packed) = tables.meta.get(txn, name)? else { return Ok(written) };
        let sum = tables.meta.get(txn, &sum_name(name))?.unwrap_or_default();
        // By a row that says too much, rows of the log would be left out for good.
        let packed = [packed, sum].concat();
        for (to, cursor) in written.up_to.iter_mut().zip(cursors_from(checked(name, &packed)?)) {
            *to = cursor;
        }
        Ok(written)
    }

    /// All is written up to this cursor.
    pub(super) const fn all(name: &'static [u8], up_to: Cursor) -> Self {
        Self { name, up_to: [up_to; SHARDS] }
    }

    pub(super) fn put(&self, tables: &Tables, txn: &mut RwTxn<'_>) -> Result<(), Fail> {
        let packed: Vec<u8> = self.up_to.iter().copied().flat_map(cursor_bytes).collect();
        tables.put_meta(txn, self.name, &packed)
    }

    /// Whether the row of the event at `cursor` in this shard is written.
    pub(super) const fn has(&self, shard: usize, cursor: Cursor) -> bool {
        cursor <= self.up_to[shard]
    }

    pub(super) const fn raise(&mut self, shard: usize, up_to: Cursor) {
        self.up_to[shard] = up_to;
    }

    /// Everything up to this cursor is written.
    pub(super) fn least(&self) -> Cursor {
        self.least_shard().1
    }

    /// The shard that was written least, and up to which cursor.
    pub(super) fn least_shard(&self) -> (usize, Cursor) {
        self.up_to.iter().copied().enumerate().min_by_key(|(_, cursor)| *cursor).unwrap_or_default()
    }
}
