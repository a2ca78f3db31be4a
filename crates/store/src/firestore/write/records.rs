//! Records of the relay itself: a document each, written under the precondition of the one that was read.

use crate::{
    RecordName, StoredRecord,
    firestore::{
        Inner,
        wire::{
            fail::Fail,
            value::{self, Fields, ReadFields as _, Version},
        },
    },
};

/// Number of the last write.
const VERSION: &str = "version";
/// The value of the last write.
const VALUE: &str = "value";

impl Inner {
    /// See [`crate::Store::record`]. The value is read where the version is another one alone.
    pub(crate) async fn record(&self, name: RecordName, known: u64) -> Result<Option<StoredRecord>, Fail> {
        self.history.is_ours()?;
        let name = self.names.meta(name.as_str());
        let looked = self.client.get(vec![name.clone()], Some(&[VERSION])).await?;
        let version = looked.get(&name).and_then(|document| document.secs(VERSION)).unwrap_or(0);
        if version == known {
            return Ok(None);
        }
        let got = self.client.get(vec![name.clone()], None).await?;
        let Some(document) = got.get(&name) else { return Ok(Some(StoredRecord { version: 0, value: Vec::new() })) };
        let version = document.secs(VERSION).ok_or(Fail::Damaged("a record"))?;
        let value = document.bytes(VALUE).ok_or(Fail::Damaged("a record"))?.to_vec();
        Ok(Some(StoredRecord { version, value }))
    }

    /// See [`crate::Store::put_record`].
    pub(crate) async fn put_record(&self, name: RecordName, known: u64, value: Vec<u8>) -> Result<bool, Fail> {
        self.history.is_ours()?;
        let name = self.names.meta(name.as_str());
        let looked = self.client.get(vec![name.clone()], Some(&[VERSION])).await?;
        let document = looked.get(&name);
        if document.and_then(|document| document.secs(VERSION)).unwrap_or(0) != known {
            return Ok(false);
        }
        let fields = Fields::default().number(VERSION, known + 1).bytes(VALUE, value);
        match self.client.commit(vec![value::put(name, fields, Version::of(document))], None).await {
            Ok(_) => Ok(true),
            Err(Fail::Conflict) => Ok(false),
            Err(fail) => Err(fail),
        }
    }
}
