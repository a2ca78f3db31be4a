//! What keys and values look like: numbers big-endian, so that LMDB's order of bytes is the order of time.
//!
//! An entry of the index is `prefix | created_at (5) | inverted id (4) | cursor (6)` without a value. Read backwards, a
//! prefix gives NIP-01's order, `created_at` falling and then the id rising; where four bytes of the id do not tell, the
//! reader compares whole ids. The cursor makes each key its own, so that an id ground to share its front with another
//! displaces nothing.

use nostr_extensions::{Audience, NostrGroupId, Stamp, admit::NEVER};
use nostr_protocol::{EventRef, Kind, Lifetime, PublicKey, UnixSecs, tag::name};
use sha2::{Digest as _, Sha256};

use super::fail::Fail;
use crate::Cursor;

/// Times are kept in 40 bits: until the year 36,812. The largest stands for "never".
pub(super) const TIME_MAX: u64 = (1 << 40) - 1;
/// Cursors are kept in 48 bits.
pub(super) const CURSOR_MAX: Cursor = (1 << 48) - 1;
/// Bytes of an index key behind its prefix.
pub(super) const SUFFIX_BYTES: usize = 15;
/// Bytes of the suffix that order entries: all but the cursor.
pub(super) const ORDER_BYTES: usize = 9;
/// Bytes of an id that the `ids` table is keyed by.
pub(super) const ID_BYTES: usize = 8;

/// Kinds that are stored for named keys; [`nostr_extensions::audience::may_be_for_keys`] says the same.
pub(super) const KEY_KINDS: [Kind; 5] =
    [Kind::ENCRYPTED_DM, Kind::DELETION, Kind::NOISE_DM, Kind::KEY_PACKAGE_REQUEST, Kind::GIFT_WRAP];
/// Kinds that are stored for groups; [`nostr_extensions::audience::is_for_group`] says the same.
pub(super) const GROUP_KINDS: [Kind; 2] = [Kind::GROUP_MESSAGE, Kind::ROSTER];

/// A key of at most [`Key::BYTES_MAX`] bytes, built without the heap.
#[derive(Clone, Copy)]
pub(super) struct Key {
    bytes: [u8; Self::BYTES_MAX],
    len: usize,
}

impl Key {
    pub(super) const BYTES_MAX: usize = 80;

    pub(super) const fn new() -> Self {
        Self { bytes: [0; Self::BYTES_MAX], len: 0 }
    }

    /// With `part` behind it. The parts of a key have fixed lengths, which add up to less than the most.
    pub(super) fn with(mut self, part: &[u8]) -> Self {
        self.bytes[self.len..self.len + part.len()].copy_from_slice(part);
        self.len += part.len();
        self
    }
}

impl std::ops::Deref for Key {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

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

/// The cursors in a packed list.
pub(super) fn cursors_from(packed: &[u8]) -> impl Iterator<Item = Cursor> {
    packed.chunks_exact(6).map(number_from)
}

pub(super) fn hash16(text: &[u8]) -> [u8; 16] {
    let digest = Sha256::digest(text);
    let mut out = [0; 16];
    out.copy_from_slice(&digest[..16]);
    out
}

fn hash8(text: &[u8]) -> [u8; 8] {
    let digest = Sha256::digest(text);
    let mut out = [0; 8];
    out.copy_from_slice(&digest[..8]);
    out
}

/// Everything of one audience and kind, or of one author and kind, or of one tag value.
pub(super) mod prefix {
    use super::{Key, Kind, NostrGroupId, PublicKey, hash8, hash16};

    pub(in super::super) fn group(group: &NostrGroupId, kind: Kind) -> Key {
        Key::new().with(b"G").with(&hash8(group.as_str().as_bytes())).with(&kind.0.to_be_bytes())
    }

    pub(in super::super) fn reader(key: &PublicKey, kind: Kind) -> Key {
        Key::new().with(b"R").with(&key.as_bytes()[..8]).with(&kind.0.to_be_bytes())
    }

    pub(in super::super) fn author(key: &PublicKey) -> Key {
        Key::new().with(b"P").with(&key.as_bytes()[..8])
    }

    pub(in super::super) fn author_kind(key: &PublicKey, kind: Kind) -> Key {
        author(key).with(&kind.0.to_be_bytes())
    }

    pub(in super::super) fn tag(letter: u8, value: &str) -> Key {
        Key::new().with(&[b'T', letter]).with(&hash16(value.as_bytes()))
    }

    pub(in super::super) fn kind(kind: Kind) -> Key {
        Key::new().with(b"K").with(&kind.0.to_be_bytes())
    }

    pub(in super::super) fn everything_public() -> Key {
        Key::new().with(b"E")
    }

    pub(in super::super) fn all_rosters() -> Key {
        Key::new().with(b"L")
    }
}

pub(super) fn suffix(event: EventRef<'_>, cursor: Cursor) -> [u8; SUFFIX_BYTES] {
    let mut out = [0; SUFFIX_BYTES];
    out[..ORDER_BYTES].copy_from_slice(&order(event.created_at(), event.id().as_bytes()));
    out[ORDER_BYTES..].copy_from_slice(&cursor_bytes(cursor));
    out
}

/// The part of a suffix that orders, larger for what comes earlier in NIP-01's order.
pub(super) fn order(created_at: UnixSecs, id: &[u8; 32]) -> [u8; ORDER_BYTES] {
    let mut out = [0; ORDER_BYTES];
    out[..5].copy_from_slice(&time_bytes(created_at));
    for (to, from) in out[5..].iter_mut().zip(id) {
        *to = !from;
    }
    out
}

/// Calls `visit` with each index key of an event: one for what is private (a kind 4 has one for each of its keys, a
/// roster one more), and for what is public time, kind, author and tags.
///
/// # Errors
/// Whatever `visit` gives.
pub(super) fn index_keys(
    event: EventRef<'_>,
    audience: &Audience,
    cursor: Cursor,
    mut visit: impl FnMut(&[u8]) -> Result<(), Fail>,
) -> Result<(), Fail> {
    let suffix = suffix(event, cursor);
    let mut put = |prefix: Key| visit(&prefix.with(&suffix));
    let kind = event.kind();
    match audience {
        Audience::Nobody => {}
        Audience::Group(group) => {
            put(prefix::group(group, kind))?;
            if kind == Kind::ROSTER {
                put(prefix::all_rosters())?;
            }
        }
        Audience::Keys(keys) => {
            for key in keys {
                put(prefix::reader(key, kind))?;
            }
        }
        Audience::Everyone => {
            put(prefix::everything_public())?;
            put(prefix::kind(kind))?;
            put(prefix::author_kind(&event.pubkey(), kind))?;
            let mut tags: Vec<(u8, &str)> = event.tags().indexed().collect();
            tags.sort_unstable();
            tags.dedup();
            for (letter, value) in tags {
                put(prefix::tag(letter, value))?;
            }
        }
    }
    Ok(())
}

/// The address of a replaceable or addressable event: `pubkey | kind | hash of d`.
pub(super) fn address(key: &PublicKey, kind: Kind, identifier: &str) -> Key {
    Key::new().with(key.as_bytes()).with(&kind.0.to_be_bytes()).with(&hash16(identifier.as_bytes()))
}

/// See [`address`]; `None` for a kind that has none.
pub(super) fn address_of(event: EventRef<'_>) -> Option<Key> {
    let identifier = match event.kind().lifetime() {
        Lifetime::Replaceable => "",
        Lifetime::Addressable => event.tags().value(name::IDENTIFIER).unwrap_or(""),
        Lifetime::Regular | Lifetime::Ephemeral => return None,
    };
    Some(address(&event.pubkey(), event.kind(), identifier))
}

/// An event as it lies in the `events` table: `received_at (5) | expires_at (5) | flags (1) | record`.
#[derive(Clone, Copy)]
pub(super) struct Stored<'a> {
    pub(super) event: EventRef<'a>,
    pub(super) expires_at: UnixSecs,
    received_at: UnixSecs,
    flags: u8,
}

pub(super) const HEADER: usize = 11;
/// A deletion that names what is not public.
pub(super) const AUTHOR_ONLY: u8 = 1;
/// In the log that feeds live delivery, and found by no query.
pub(super) const LOG_ONLY: u8 = 2;
/// It took events out of the log that had changed groups, so that whoever follows the log has to forget every group.
pub(super) const TOUCHES_GROUPS: u8 = 4;

impl<'a> Stored<'a> {
    /// # Errors
    /// [`Fail::Corrupt`] where the bytes are no event.
    pub(super) fn read(value: &'a [u8]) -> Result<Self, Fail> {
        let (header, record) = value.split_at_checked(HEADER).ok_or(Fail::Corrupt("an event is cut short"))?;
        Ok(Self {
            event: EventRef::new(record).ok_or(Fail::Corrupt("an event's record is cut short"))?,
            received_at: number_from(&header[..5]),
            expires_at: expiry_from(&header[5..10]),
            flags: header[10],
        })
    }

    /// Writes the value for `stamp` and `record` over `out`.
    pub(super) fn write(out: &mut Vec<u8>, stamp: &Stamp, flags: u8, record: &[u8]) {
        out.clear();
        out.extend_from_slice(&time_bytes(stamp.received_at));
        out.extend_from_slice(&time_bytes(stamp.expires_at));
        out.push(flags);
        out.extend_from_slice(record);
    }

    pub(super) const fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    pub(super) const fn stamp(&self, cursor: Cursor) -> Stamp {
        Stamp { cursor, received_at: self.received_at, expires_at: self.expires_at, author_only: self.has(AUTHOR_ONLY) }
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
    use nostr_extensions::audience::{is_for_group, may_be_for_keys};

    use super::*;

    #[test]
    fn planned_kinds_are_those_of_the_audiences() {
        let stored = |kind: &Kind| kind.lifetime() != Lifetime::Ephemeral;
        let all = || (0..=u16::MAX).map(Kind).filter(stored);
        assert_eq!(all().filter(|kind| may_be_for_keys(*kind)).collect::<Vec<_>>(), KEY_KINDS);
        assert_eq!(all().filter(|kind| is_for_group(*kind)).collect::<Vec<_>>(), GROUP_KINDS);
    }

    #[test]
    fn numbers_read_back() {
        assert_eq!(number_from(&cursor_bytes(CURSOR_MAX)), CURSOR_MAX);
        assert_eq!(expiry_from(&time_bytes(NEVER)), NEVER);
        assert_eq!(expiry_from(&time_bytes(1_795_370_771)), 1_795_370_771);
    }
}
