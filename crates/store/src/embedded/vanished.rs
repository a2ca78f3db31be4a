//! Keys that vanished (NIP-62), and how far the events that they left are removed.

use std::collections::HashMap;

use heed::RoTxn;
use nostr_extensions::mls_gateway::deletion::is_taken_along;
use nostr_protocol::{EventRef, PublicKey, UnixSecs};

use super::{
    fail::Fail,
    keys::{Key, cursor_bytes, number_from},
    tables::Tables,
};
use crate::Cursor;

/// The record of a key that vanished.
#[derive(Clone, Copy)]
pub(super) struct Vanished {
    pub(super) at: UnixSecs,
    /// The log is to be searched up to here, exclusive.
    pub(super) until: Cursor,
    /// The log has been searched up to here, exclusive.
    pub(super) searched: Cursor,
}

impl Vanished {
    pub(super) fn read(value: &[u8]) -> Result<Self, Fail> {
        if value.len() != 20 {
            return Err(Fail::Corrupt("a vanished key's record is cut short"));
        }
        Ok(Self {
            at: number_from(&value[..8]),
            until: number_from(&value[8..14]),
            searched: number_from(&value[14..]),
        })
    }

    pub(super) fn bytes(self) -> Key {
        Key::new().with(&self.at.to_be_bytes()).with(&cursor_bytes(self.until)).with(&cursor_bytes(self.searched))
    }

    pub(super) const fn is_pending(self) -> bool {
        self.searched < self.until
    }
}

/// Vanished keys whose events are not all removed yet, each with the time up to which they are to go.
#[derive(Clone, Debug, Default)]
pub(super) struct Vanishing(pub(super) HashMap<PublicKey, UnixSecs>);

impl Vanishing {
    /// The keys of the table.
    pub(super) fn read(tables: &Tables, txn: &RoTxn<'_>) -> Result<Self, Fail> {
        let mut vanishing = Self::default();
        for row in tables.vanished.iter(txn)? {
            let (key, value) = row?;
            let vanished = Vanished::read(value)?;
            if vanished.is_pending() {
                let key = key.try_into().map_err(|_| Fail::Corrupt("a vanished key is cut short"))?;
                vanishing.0.insert(PublicKey::from_bytes(key), vanished.at);
            }
        }
        Ok(vanishing)
    }

    /// Whether the event is gone for every reader, if not yet from the disk. A request to vanish stays itself.
    pub(super) fn hides(&self, event: EventRef<'_>) -> bool {
        !self.0.is_empty() && is_taken_along(event, |key| self.0.get(key).copied())
    }
}
