//! The reader: the keys that a connection has authenticated.
//!
//! Source: docs/rules.md, "Identity".

use std::sync::Arc;

use nostr_protocol::PublicKey;

/// Most keys that one connection authenticates.
pub const READER_KEYS_MAX: usize = 16;

/// A connection's set of authenticated keys; the first is the primary one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reader {
    keys: Arc<[PublicKey]>,
}

impl Reader {
    /// A reader of these keys, which the caller has seen authenticated.
    #[must_use]
    pub fn new(keys: &[PublicKey]) -> Self {
        Self { keys: keys.into() }
    }

    /// The keys in the order in which they were authenticated.
    #[must_use]
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// Whether `key` is one of them.
    #[must_use]
    pub fn has(&self, key: &PublicKey) -> bool {
        self.keys.contains(key)
    }

    /// The key that authenticated first.
    #[must_use]
    pub fn primary(&self) -> Option<PublicKey> {
        self.keys.first().copied()
    }

    /// Whether no key has authenticated.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.keys.is_empty()
    }
}
