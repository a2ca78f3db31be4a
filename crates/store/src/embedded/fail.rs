//! Failures inside the store, and the errors that callers get for them.

use heed::MdbError;

use crate::StoreError;

/// Why a transaction did not go through.
#[derive(Debug)]
pub(super) enum Fail {
    /// LMDB, or the disk below it.
    Lmdb(heed::Error),
    /// The map has no room but the reserve.
    Full,
    /// The bytes in a table do not have the form in which they were written.
    Corrupt(&'static str),
}

impl From<heed::Error> for Fail {
    fn from(error: heed::Error) -> Self {
        Self::Lmdb(error)
    }
}

impl Fail {
    /// The error for the caller, without a word about the event.
    pub(super) fn to_store_error(&self) -> StoreError {
        match self {
            Self::Full | Self::Lmdb(heed::Error::Mdb(MdbError::MapFull)) => {
                StoreError::Full("the store has reached its largest size".to_owned())
            }
            Self::Lmdb(heed::Error::Io(error)) if is_out_of_space(error) => StoreError::Full(error.to_string()),
            Self::Lmdb(heed::Error::Mdb(error @ (MdbError::BadValSize | MdbError::TxnFull))) => {
                StoreError::Event(error.to_string())
            }
            Self::Lmdb(error) => StoreError::Unavailable(error.to_string()),
            Self::Corrupt(what) => StoreError::Unavailable(format!("the store is damaged: {what}")),
        }
    }
}

fn is_out_of_space(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}
