//! Short keys by which stores find tombstones, claims and references.

use nostr_protocol::{EventId, PublicKey};

pub(crate) use crate::index::{Address, address};
use crate::index::{Front, front, hash16};

/// The key in an address.
pub(crate) fn author_of(address: &Address) -> PublicKey {
    let mut key = [0; 32];
    key.copy_from_slice(&address[..32]);
    PublicKey::from_bytes(key)
}

/// A reference of a KeyPackage: its owner, and a hash of its text.
pub(crate) type Reference = (PublicKey, [u8; 16]);

/// See [`Reference`].
pub(crate) fn reference_of(owner: PublicKey, text: &str) -> Reference {
    (owner, hash16(text.as_bytes()))
}

/// A deleted event and the key that deleted it.
pub(crate) type TombstoneKey = (Front, Front);

/// See [`TombstoneKey`].
pub(crate) fn tombstone_key(target: &EventId, by: &PublicKey) -> TombstoneKey {
    (front(target.as_bytes()), front(by.as_bytes()))
}

/// A claimed KeyPackage: its owner and its bytes.
pub(crate) type Claimed = (Front, Front);

/// See [`Claimed`].
pub(crate) fn claimed(owner: &PublicKey, content_hash: &[u8; 32]) -> Claimed {
    (front(owner.as_bytes()), front(content_hash))
}
