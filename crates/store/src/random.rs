//! The one source of chance in this crate. The keys of a hash table are random enough for pauses and for routes, which
//! need no secret against the process's own operator.
#![allow(clippy::disallowed_methods, reason = "this module is the one source of chance")]

use std::hash::{BuildHasher as _, RandomState};

use nostr_extensions::RouteHasher;
use sha2::{Digest as _, Sha256};

/// A number of at most `max`, near enough evenly.
pub(crate) fn up_to(max: u64) -> u64 {
    let number = RandomState::new().hash_one(0);
    max.checked_add(1).map_or(number, |count| number % count)
}

/// A hasher for a store that no other process shares.
pub(crate) fn route_hasher() -> RouteHasher {
    let random = RandomState::new();
    let [a, b] = [random.hash_one(0), random.hash_one(1)];
    RouteHasher::new(&(u128::from(a) << 64 | u128::from(b)).to_be_bytes())
}

/// The secret of a new store.
pub(crate) fn secret() -> [u8; 32] {
    let random = RandomState::new();
    let mut secret = [0; 32];
    for (n, part) in secret.chunks_exact_mut(8).enumerate() {
        part.copy_from_slice(&random.hash_one(n).to_be_bytes());
    }
    secret
}

/// The secret of a store whose processes share this key.
pub(crate) fn secret_of(key: &[u8]) -> [u8; 32] {
    Sha256::digest([b"rnostr, the store's secret", key].concat()).into()
}

/// A key for the hasher of a store that several processes share.
///
/// # Errors
/// The operating system gives no randomness.
#[cfg(feature = "firestore")]
pub(crate) fn route_key() -> Result<[u8; 16], getrandom::Error> {
    let mut key = [0; 16];
    getrandom::fill(&mut key)?;
    Ok(key)
}
