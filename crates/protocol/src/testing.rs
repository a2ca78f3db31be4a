//! Keys and signed events for tests (feature `testing`). `serde_json` writes the canonical form here, so that tests do
//! not compare the parser with itself.

use secp256k1::{Keypair, schnorr};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{Event, PublicKey, Unverified, Verified, hex};

/// The key pair of a name, the same at each call.
///
/// # Panics
/// Never in practice: the hash of a name is no valid secret key with a chance of 2^-128.
#[must_use]
#[allow(clippy::expect_used, reason = "for tests alone")]
pub fn keypair(name: &str) -> Keypair {
    Keypair::from_secret_bytes(Sha256::digest(name).into()).expect("a hash is a secret key")
}

/// A new random key pair.
#[must_use]
pub fn random_keypair() -> Keypair {
    Keypair::new(&mut secp256k1::rand::rng())
}

/// The public half of a key pair.
#[must_use]
pub fn public_key(keypair: &Keypair) -> PublicKey {
    PublicKey::from_bytes(keypair.x_only_public_key().0.to_byte_array())
}

/// The public half of [`keypair`].
#[must_use]
pub fn key(name: &str) -> PublicKey {
    public_key(&keypair(name))
}

/// An event to be signed.
#[derive(Clone, Debug, Default)]
pub struct EventBuilder {
    /// The kind.
    pub kind: u16,
    /// The tags.
    pub tags: Vec<Vec<String>>,
    /// The content.
    pub content: String,
    /// Unix seconds.
    pub created_at: u64,
}

impl EventBuilder {
    /// An empty event of this kind, of the year 2026.
    #[must_use]
    pub fn new(kind: u16) -> Self {
        Self { kind, created_at: 1_795_370_771, ..Self::default() }
    }

    /// Adds a tag.
    #[must_use]
    pub fn tag(mut self, strings: &[&str]) -> Self {
        self.tags.push(strings.iter().map(|&text| text.to_owned()).collect());
        self
    }

    /// Sets the content.
    #[must_use]
    pub fn content(mut self, content: impl Into<String>) -> Self {
        self.content = content.into();
        self
    }

    /// Sets `created_at`.
    #[must_use]
    pub const fn at(mut self, created_at: u64) -> Self {
        self.created_at = created_at;
        self
    }

    /// Signs it and returns its members.
    #[must_use]
    pub fn value(&self, by: &Keypair) -> Value {
        let pubkey = public_key(by).to_hex();
        let canonical = json!([0, pubkey, self.created_at, self.kind, self.tags, self.content]).to_string();
        let id: [u8; 32] = Sha256::digest(canonical).into();
        let sig = schnorr::sign_no_aux_rand(&id, by).to_byte_array();
        json!({
            "id": hex::to_hex(&id), "pubkey": pubkey, "created_at": self.created_at, "kind": self.kind,
            "tags": self.tags, "content": self.content, "sig": hex::to_hex(&sig),
        })
    }

    /// Signs it and returns its JSON.
    #[must_use]
    pub fn json(&self, by: &Keypair) -> String {
        self.value(by).to_string()
    }

    /// Signs it and parses it, without checking the signature.
    ///
    /// # Panics
    /// When the parser refuses it.
    #[must_use]
    #[allow(clippy::expect_used, reason = "for tests alone")]
    pub fn unverified(&self, by: &Keypair) -> Unverified {
        Unverified::parse(self.json(by).as_bytes()).expect("a built event is read")
    }

    /// Signs and verifies it.
    ///
    /// # Panics
    /// When the parser refuses it or the signature is wrong.
    #[must_use]
    #[allow(clippy::expect_used, reason = "for tests alone")]
    pub fn sign(&self, by: &Keypair) -> Verified {
        self.unverified(by).verify().expect("a built event verifies")
    }

    /// Signs it and returns the plain event.
    #[must_use]
    pub fn event(&self, by: &Keypair) -> Event {
        self.sign(by).into_event()
    }
}
