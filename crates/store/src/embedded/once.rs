//! Names that are used once, and forgotten after their time.

use nostr_protocol::UnixSecs;

use super::{
    fail::Fail,
    keys::{Key, expiry_from, time_bytes},
    write::Tx,
};
use crate::{ONCE_FORGOTTEN_MAX, OnceName};

/// Bytes of a time in front of a name.
const TIME_BYTES: usize = 5;

/// The key of `once-expiry` for a name.
fn expiry_key(until: UnixSecs, name: &[u8]) -> Key {
    Key::new().with(&time_bytes(until)).with(name)
}

impl Tx<'_> {
    /// Uses a name; `false` where it is used.
    pub(super) fn use_once(&mut self, name: &OnceName, until: UnixSecs, now: UnixSecs) -> Result<bool, Fail> {
        if let Some(used) = self.tables.once.get(&self.txn, name)?.map(expiry_from) {
            if used > now {
                return Ok(false);
            }
            self.tables.once_expiry.delete(&mut self.txn, &expiry_key(used, name))?;
        }
        self.tables.once.put(&mut self.txn, name, &time_bytes(until))?;
        self.tables.once_expiry.put(&mut self.txn, &expiry_key(until, name), &[])?;
        self.rows += 2;
        Ok(true)
    }

    /// Forgets some names past their time, the earliest first. Returns whether more are left.
    pub(super) fn forget_once(&mut self, now: UnixSecs) -> Result<bool, Fail> {
        let mut past = Vec::new();
        for entry in self.tables.once_expiry.iter(&self.txn)?.take(ONCE_FORGOTTEN_MAX) {
            let (key, _) = entry?;
            let (until, _) = key.split_at_checked(TIME_BYTES).ok_or(Fail::Corrupt("a used name is cut short"))?;
            if expiry_from(until) > now {
                break;
            }
            past.push(key.to_vec());
        }
        for key in &past {
            self.tables.once_expiry.delete(&mut self.txn, key)?;
            self.tables.once.delete(&mut self.txn, &key[TIME_BYTES..])?;
        }
        self.rows += 2 * past.len();
        Ok(past.len() >= ONCE_FORGOTTEN_MAX)
    }
}
