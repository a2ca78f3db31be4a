//! A table whose rows carry a checksum, for facts that nothing else in the store repeats.
//!
//! LMDB has no checksums. An event has one of its own and an index follows from the events, but a flipped bit in a
//! membership or in a deletion's mark would be believed. The last four bytes of each value here are the CRC-32 of its
//! key and of the rest. A read of a value checks them, so a damaged value is an error and no answer. A read by a key
//! does not find a row whose key is damaged; a check of the whole file alone does (`tools::check`). [`Summed::has`]
//! checks nothing, for marks that say all by being there.

use std::ops::RangeBounds;

use heed::{Database, RoTxn, RwTxn, types::Bytes};

use super::fail::Fail;

/// Bytes of a checksum.
pub(super) const SUM_BYTES: usize = 4;

/// The checksum of these pieces, one behind the other.
pub(super) fn sum(pieces: &[&[u8]]) -> [u8; SUM_BYTES] {
    let mut hasher = crc32fast::Hasher::new();
    pieces.iter().for_each(|piece| hasher.update(piece));
    hasher.finalize().to_be_bytes()
}

/// The value of a row without its checksum.
///
/// # Errors
/// [`Fail::Corrupt`] where the checksum is another one.
pub(super) fn checked<'t>(key: &[u8], row: &'t [u8]) -> Result<&'t [u8], Fail> {
    let value = row.split_last_chunk().filter(|(value, kept)| sum(&[key, value]) == **kept);
    value.map(|(value, _)| value).ok_or(Fail::Corrupt("a row does not have its checksum"))
}

/// See the module.
#[derive(Clone, Copy)]
pub(super) struct Summed(pub(super) Database<'static, Bytes, Bytes>);

type KeyAndValue<'t> = (&'t [u8], &'t [u8]);
type Row<'t> = Result<KeyAndValue<'t>, Fail>;

fn checked_row(row: heed::Result<KeyAndValue<'_>>) -> Row<'_> {
    let (key, row) = row?;
    Ok((key, checked(key, row)?))
}

impl Summed {
    pub(super) fn get<'t>(&self, txn: &'t RoTxn<'_>, key: &[u8]) -> Result<Option<&'t [u8]>, Fail> {
        self.0.get(txn, key)?.map(|row| checked(key, row)).transpose()
    }

    /// Whether there is a row of this key, whole or damaged.
    pub(super) fn has(&self, txn: &RoTxn<'_>, key: &[u8]) -> Result<bool, Fail> {
        Ok(self.0.get(txn, key)?.is_some())
    }

    pub(super) fn put(&self, txn: &mut RwTxn<'_>, key: &[u8], value: &[u8]) -> Result<(), Fail> {
        Ok(self.0.put(txn, key, &[value, &sum(&[key, value])].concat())?)
    }

    /// Puts the value if there is none. Returns whether there was none.
    pub(super) fn put_new(&self, txn: &mut RwTxn<'_>, key: &[u8], value: &[u8]) -> Result<bool, Fail> {
        Ok(self.0.get_or_put(txn, key, &[value, &sum(&[key, value])].concat())?.is_none())
    }

    pub(super) fn delete(&self, txn: &mut RwTxn<'_>, key: &[u8]) -> Result<bool, Fail> {
        Ok(self.0.delete(txn, key)?)
    }

    pub(super) fn first<'t>(&self, txn: &'t RoTxn<'_>) -> Result<Option<KeyAndValue<'t>>, Fail> {
        self.0.first(txn).transpose().map(checked_row).transpose()
    }

    /// The key of the first row behind `key`, and whether the row is whole.
    pub(super) fn first_behind<'t>(&self, txn: &'t RoTxn<'_>, key: &[u8]) -> Result<Option<(&'t [u8], bool)>, Fail> {
        let row = self.0.get_greater_than(txn, key)?;
        Ok(row.map(|(key, row)| (key, checked(key, row).is_ok())))
    }

    pub(super) fn iter<'t>(&self, txn: &'t RoTxn<'_>) -> Result<impl Iterator<Item = Row<'t>> + use<'t>, Fail> {
        Ok(self.0.iter(txn)?.map(checked_row))
    }

    pub(super) fn range<'t>(
        &self,
        txn: &'t RoTxn<'_>,
        range: &impl RangeBounds<[u8]>,
    ) -> Result<Box<dyn Iterator<Item = Row<'t>> + 't>, Fail> {
        let bounds = (range.start_bound(), range.end_bound());
        Ok(Box::new(self.0.range(txn, &bounds)?.map(checked_row)))
    }

    pub(super) fn prefix_iter<'t>(
        &self,
        txn: &'t RoTxn<'_>,
        prefix: &[u8],
    ) -> Result<impl Iterator<Item = Row<'t>> + use<'t>, Fail> {
        Ok(self.0.prefix_iter(txn, prefix)?.map(checked_row))
    }

    pub(super) fn len(&self, txn: &RoTxn<'_>) -> Result<u64, Fail> {
        Ok(self.0.len(txn)?)
    }

    pub(super) fn is_empty(&self, txn: &RoTxn<'_>) -> Result<bool, Fail> {
        Ok(self.0.is_empty(txn)?)
    }
}
