//! Records of the relay itself: a version in front of the value.

use heed::RoTxn;

use super::{fail::Fail, tables::Tables, write::Tx};
use crate::{RecordName, StoredRecord};

impl Tables {
    /// The record of a name; version 0 and nothing where it was never written.
    pub(super) fn record(&self, txn: &RoTxn<'_>, name: RecordName) -> Result<StoredRecord, Fail> {
        let Some(stored) = self.records.get(txn, name.as_str().as_bytes())? else {
            return Ok(StoredRecord { version: 0, value: Vec::new() });
        };
        let (version, value) = stored.split_first_chunk().ok_or(Fail::Corrupt("a record is cut short"))?;
        Ok(StoredRecord { version: u64::from_be_bytes(*version), value: value.to_vec() })
    }
}

impl Tx<'_> {
    /// Writes a record; `false` where its version is not `known`.
    pub(super) fn put_record(&mut self, name: RecordName, known: u64, value: &[u8]) -> Result<bool, Fail> {
        if self.tables.record(&self.txn, name)?.version != known {
            return Ok(false);
        }
        let stored = [&(known + 1).to_be_bytes()[..], value].concat();
        self.tables.records.put(&mut self.txn, name.as_str().as_bytes(), &stored)?;
        self.rows += 1;
        Ok(true)
    }
}
