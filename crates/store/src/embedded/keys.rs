//! The forms of keys and values: numbers big-endian, so that LMDB's order of bytes is the order of time.
//!
//! An entry of the index is `prefix | created_at (5) | inverted id (4) | cursor (6)` without a value. Read backwards, a
//! prefix gives NIP-01's order, `created_at` falling and then the id rising; where four bytes of the id do not tell,
//! the reader compares whole ids. The cursor makes each key its own, so that an id ground to share its front with
//! another displaces nothing.

use nostr_extensions::{Audience, EventMeta, Stamp, admit::NEVER, gate::Touches};
use nostr_protocol::{EventRef, UnixSecs};

use super::{
    fail::Fail,
    summed::{SUM_BYTES, sum},
};
pub(super) use crate::index::{Key, address_of, hash16};
use crate::{
    Cursor,
    index::{Front, each_prefix},
    received::received_prefix,
};

/// Times are kept in 40 bits: until the year 36,812. The largest stands for "never".
pub(super) const TIME_MAX: u64 = (1 << 40) - 1;
/// Cursors are kept in 48 bits.
pub(super) const CURSOR_MAX: Cursor = (1 << 48) - 1;
/// Bytes of an index key after its prefix.
pub(super) const SUFFIX_BYTES: usize = 15;
/// Bytes of the suffix that order entries: all but the cursor.
pub(super) const ORDER_BYTES: usize = 9;
/// Bytes of an id that the `ids` table is keyed by.
pub(super) const ID_BYTES: usize = 8;

pub(super) fn time_bytes(secs: UnixSecs) -> [u8; 5] {
    let [_, _, _, a, b, c, d, e] = secs.min(TIME_MAX).to_be_bytes();
    [a, b, c, d, e]
}

/// The inverse of [`time_bytes`] for an expiry: the largest is "never".
pub(super) fn expiry_from(bytes: &[u8]) -> UnixSecs {
    match number_from(bytes) {
        TIME_MAX => NEVER,
        secs => secs,
    }
}

pub(super) fn cursor_bytes(cursor: Cursor) -> [u8; 6] {
    let [_, _, a, b, c, d, e, f] = cursor.to_be_bytes();
    [a, b, c, d, e, f]
}

/// A big-endian number of at most eight bytes.
pub(super) fn number_from(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The key of two fronts.
pub(super) fn pair((first, second): &(Front, Front)) -> Key {
    Key::new().with(first).with(second)
}

/// The cursors in a packed list.
pub(super) fn cursors_from(packed: &[u8]) -> impl Iterator<Item = Cursor> {
    packed.chunks_exact(6).map(number_from)
}

pub(super) fn suffix(event: EventRef<'_>, cursor: Cursor) -> [u8; SUFFIX_BYTES] {
    let mut out = [0; SUFFIX_BYTES];
    out[..ORDER_BYTES].copy_from_slice(&order(event.created_at(), event.id().as_bytes()));
    out[ORDER_BYTES..].copy_from_slice(&cursor_bytes(cursor));
    out
}

/// The part of a suffix that orders, larger for events that come earlier in NIP-01's order.
pub(super) fn order(created_at: UnixSecs, id: &[u8; 32]) -> [u8; ORDER_BYTES] {
    let mut out = [0; ORDER_BYTES];
    out[..5].copy_from_slice(&time_bytes(created_at));
    for (to, from) in out[5..].iter_mut().zip(id) {
        *to = !from;
    }
    out
}

/// Calls `visit` with each index key of an event, and gives their number.
///
/// # Errors
/// The first error of `visit`.
pub(super) fn index_keys(
    event: EventRef<'_>,
    audience: &Audience,
    cursor: Cursor,
    mut visit: impl FnMut(&[u8]) -> Result<(), Fail>,
) -> Result<usize, Fail> {
    let suffix = suffix(event, cursor);
    let mut keys = 0;
    each_prefix(event, audience, |prefix| {
        keys += 1;
        visit(&prefix.with(&suffix))
    })?;
    Ok(keys)
}

/// The key of `received` for an event, if it has one.
pub(super) fn received_key(event: EventRef<'_>, audience: &Audience, cursor: Cursor) -> Option<Key> {
    received_prefix(event.kind(), audience).map(|prefix| prefix.with(&cursor_bytes(cursor)))
}

/// An event as it lies in the `events` table: `received_at (5) | expires_at (5) | flags (1) | checksum (4) | record`.
/// An event that was stored before there were checksums has none, and a flag less.
#[derive(Clone, Copy)]
pub(super) struct Stored<'a> {
    pub(super) event: EventRef<'a>,
    pub(super) expires_at: UnixSecs,
    received_at: UnixSecs,
    flags: u8,
    value: &'a [u8],
}

/// Bytes before the checksum.
const HEADER: usize = 11;
/// Flag of a deletion that names an event that is not public, and is for its author alone.
pub(super) const AUTHOR_ONLY: u8 = 1;
/// Flag of an event in the log that feeds live delivery, which no query finds.
pub(super) const LOG_ONLY: u8 = 2;
/// Flag of an event that touched groups which its kind does not name: any group, or as [`TELLS_TOUCHES`] says.
pub(super) const TOUCHES_GROUPS: u8 = 4;
/// Flag of an event that touched those groups alone which the table `touched` names for it.
pub(super) const TELLS_TOUCHES: u8 = 8;

/// Flag of an event with a checksum of its cursor, its header and its record.
const SUMMED: u8 = 16;

pub(super) fn flags_of(meta: &EventMeta) -> u8 {
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    flag(meta.author_only, AUTHOR_ONLY)
        | flag(meta.log_only, LOG_ONLY)
        | match &meta.touches {
            None => 0,
            Some(Touches::Nothing) => TELLS_TOUCHES,
            Some(Touches::Groups(_)) => TELLS_TOUCHES | TOUCHES_GROUPS,
            Some(Touches::EveryGroup) => TOUCHES_GROUPS,
        }
}

impl<'a> Stored<'a> {
    /// # Errors
    /// [`Fail::Corrupt`] where the bytes are no event.
    pub(super) fn read(value: &'a [u8]) -> Result<Self, Fail> {
        let (header, rest) = value.split_at_checked(HEADER).ok_or(Fail::Corrupt("an event is cut short"))?;
        let sum = if header[10] & SUMMED == 0 { 0 } else { SUM_BYTES };
        let record = rest.get(sum..).ok_or(Fail::Corrupt("an event is cut short"))?;
        Ok(Self {
            event: EventRef::new(record).ok_or(Fail::Corrupt("an event's record is cut short"))?,
            received_at: number_from(&header[..5]),
            expires_at: expiry_from(&header[5..10]),
            flags: header[10],
            value,
        })
    }

    /// Refuses an event whose checksum is another one. Each event is held against it before it is given out, and none
    /// that is only looked at.
    ///
    /// # Errors
    /// [`Fail::Corrupt`] where it does not have its checksum.
    pub(super) fn require_whole(&self, cursor: Cursor) -> Result<(), Fail> {
        match Self::is_whole(self.value, cursor) {
            Some(false) => Err(Fail::Corrupt("an event does not have its checksum")),
            Some(true) | None => Ok(()),
        }
    }

    /// Writes the value for `stamp` and `record` over `out`.
    pub(super) fn write(out: &mut Vec<u8>, stamp: &Stamp, flags: u8, record: &[u8]) {
        out.clear();
        out.extend_from_slice(&time_bytes(stamp.received_at));
        out.extend_from_slice(&time_bytes(stamp.expires_at));
        out.push(flags | SUMMED);
        let sum = sum(&[&cursor_bytes(stamp.cursor), out, record]);
        out.extend_from_slice(&sum);
        out.extend_from_slice(record);
    }

    /// Whether the value of the event at `cursor` has its checksum; `None` where it was stored without one.
    pub(super) fn is_whole(value: &[u8], cursor: Cursor) -> Option<bool> {
        let (header, rest) = value.split_at_checked(HEADER)?;
        let (kept, record) = rest.split_at_checked(SUM_BYTES).filter(|_| header[10] & SUMMED != 0)?;
        Some(kept == sum(&[&cursor_bytes(cursor), header, record]))
    }

    /// The place of the record in the value.
    pub(super) fn record_at(value: &[u8]) -> usize {
        value.get(10).map_or(HEADER, |flags| if flags & SUMMED == 0 { HEADER } else { HEADER + SUM_BYTES })
    }

    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(super) const fn stamp(&self, cursor: Cursor) -> Stamp {
        Stamp { cursor, received_at: self.received_at, expires_at: self.expires_at, author_only: self.has(AUTHOR_ONLY) }
    }

    /// The data that is kept with the event, with the groups that it touched as [`super::tables::Tables::told`] gives
    /// them.
    pub(super) const fn meta(&self, touches: Option<Touches>) -> EventMeta {
        EventMeta {
            received_at: self.received_at,
            expires_at: self.expires_at,
            author_only: self.has(AUTHOR_ONLY),
            log_only: self.has(LOG_ONLY),
            touches,
        }
    }

    /// The key of `received` for the event at `cursor`, if it has one.
    pub(super) fn received_key(&self, cursor: Cursor) -> Option<Key> {
        if self.has(LOG_ONLY) {
            return None;
        }
        received_key(self.event, &self.audience(), cursor)
    }

    pub(super) fn audience(&self) -> Audience {
        if self.has(AUTHOR_ONLY) {
            Audience::Keys(vec![self.event.pubkey()])
        } else {
            nostr_extensions::audience::audience(self.event)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_read_back() {
        assert_eq!(number_from(&cursor_bytes(CURSOR_MAX)), CURSOR_MAX);
        assert_eq!(expiry_from(&time_bytes(NEVER)), NEVER);
        assert_eq!(expiry_from(&time_bytes(1_795_370_771)), 1_795_370_771);
    }
}
