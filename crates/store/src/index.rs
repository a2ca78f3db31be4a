//! Index prefixes under which events are found, one for each audience, author or tag.
//!
//! An event of a group has one prefix, the group and the kind; a roster has one more. An event for named keys has one
//! prefix for each key, with the kind. A public event has one for each way to ask for it. A store orders the entries of
//! a prefix as NIP-01 orders events.
//!
//! A query is planned over the audiences that its reader holds ([`crate::plan`]), so it costs the same beside ten
//! messages of other groups and beside ten million. Public events are looked up by the narrowest condition of the
//! filter: authors with kinds, then a tag, then authors, kinds, time.

use nostr_extensions::{Audience, NostrGroupId, audience::is_for_admin_keys};
use nostr_protocol::{EventRef, Kind, Lifetime, PublicKey, tag::name};
use sha2::{Digest as _, Sha256};

/// A key of at most [`Key::BYTES_MAX`] bytes, built without the heap.
#[derive(Clone, Copy)]
pub(crate) struct Key {
    bytes: [u8; Self::BYTES_MAX],
    len: usize,
}

impl Key {
    /// Most bytes of a key of the index.
    pub(crate) const BYTES_MAX: usize = 80;

    pub(crate) const fn new() -> Self {
        Self { bytes: [0; Self::BYTES_MAX], len: 0 }
    }

    /// Appends `part`. The parts of a key have fixed lengths, which together stay below the limit.
    pub(crate) fn with(mut self, part: &[u8]) -> Self {
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

pub(crate) fn hash16(text: &[u8]) -> [u8; 16] {
    let digest = Sha256::digest(text);
    let mut out = [0; 16];
    out.copy_from_slice(&digest[..16]);
    out
}

/// The first 16 bytes of an id, a key or a hash: enough to name something that is gone for good, because nobody finds a
/// second one with the same front.
pub type Front = [u8; 16];

/// See [`Front`].
pub(crate) fn front(bytes: &[u8; 32]) -> Front {
    let mut out = [0; 16];
    out.copy_from_slice(&bytes[..16]);
    out
}

fn hash8(text: &[u8]) -> [u8; 8] {
    let digest = Sha256::digest(text);
    let mut out = [0; 8];
    out.copy_from_slice(&digest[..8]);
    out
}

/// Prefixes of one audience and kind, of one author and kind, or of one tag value.
pub(crate) mod prefix {
    use super::{Key, Kind, NostrGroupId, PublicKey, hash8, hash16};

    pub(crate) fn group(group: &NostrGroupId, kind: Kind) -> Key {
        Key::new().with(b"G").with(&hash8(group.as_str().as_bytes())).with(&kind.0.to_be_bytes())
    }

    pub(crate) fn reader(key: &PublicKey, kind: Kind) -> Key {
        Key::new().with(b"R").with(&key.as_bytes()[..8]).with(&kind.0.to_be_bytes())
    }

    pub(crate) fn author(key: &PublicKey) -> Key {
        Key::new().with(b"P").with(&key.as_bytes()[..8])
    }

    pub(crate) fn author_kind(key: &PublicKey, kind: Kind) -> Key {
        author(key).with(&kind.0.to_be_bytes())
    }

    pub(crate) fn tag(letter: u8, value: &str) -> Key {
        Key::new().with(&[b'T', letter]).with(&hash16(value.as_bytes()))
    }

    pub(crate) fn kind(kind: Kind) -> Key {
        Key::new().with(b"K").with(&kind.0.to_be_bytes())
    }

    pub(crate) fn everything_public() -> Key {
        Key::new().with(b"E")
    }

    pub(crate) fn all_rosters() -> Key {
        Key::new().with(b"L")
    }
}

/// Calls `put` with each prefix of an event.
///
/// # Errors
/// The first error of `put`.
pub(crate) fn each_prefix<E>(
    event: EventRef<'_>,
    audience: &Audience,
    mut put: impl FnMut(Key) -> Result<(), E>,
) -> Result<(), E> {
    let kind = event.kind();
    match audience {
        Audience::Nobody => {}
        Audience::Group(group) => {
            put(prefix::group(group, kind))?;
            if is_for_admin_keys(kind) {
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

/// An address of replaceable or addressable events: `pubkey (32) | kind (2) | hash of d (16)`.
pub(crate) type Address = [u8; 50];

/// See [`Address`].
pub(crate) fn address(key: &PublicKey, kind: Kind, identifier: &str) -> Address {
    address_of_hash(key, kind, &hash16(identifier.as_bytes()))
}

/// See [`Address`].
pub(crate) fn address_of_hash(key: &PublicKey, kind: Kind, hash: &[u8; 16]) -> Address {
    let mut address = [0; 50];
    address[..32].copy_from_slice(key.as_bytes());
    address[32..34].copy_from_slice(&kind.0.to_be_bytes());
    address[34..].copy_from_slice(hash);
    address
}

/// See [`Address`]; `None` for a kind that has none.
pub(crate) fn address_of(event: EventRef<'_>) -> Option<Address> {
    let identifier = match event.kind().lifetime() {
        Lifetime::Replaceable => "",
        Lifetime::Addressable => event.tags().value(name::IDENTIFIER).unwrap_or(""),
        Lifetime::Regular | Lifetime::Ephemeral => return None,
    };
    Some(address(&event.pubkey(), event.kind(), identifier))
}
