//! An event before its author signs it, for the few events that this program writes itself.
//!
//! Source: NIP-01. `serde_json` writes the canonical form, by which the id is computed.

use secp256k1::{Keypair, schnorr};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::{Event, EventError, Kind, PublicKey, UnixSecs, Unverified, hex};

/// See the module.
#[derive(Clone, Debug)]
pub struct Draft {
    kind: Kind,
    created_at: UnixSecs,
    tags: Vec<Vec<String>>,
    content: String,
}

impl Draft {
    /// A draft without tags and content.
    #[must_use]
    pub const fn new(kind: Kind, created_at: UnixSecs) -> Self {
        Self { kind, created_at, tags: Vec::new(), content: String::new() }
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

    /// Signs it.
    ///
    /// # Errors
    /// The event is longer than an event may be, or has more tags.
    pub fn sign(&self, by: &Keypair) -> Result<Event, EventError> {
        let pubkey = public_key(by).to_hex();
        let kind = self.kind.0;
        let canonical = json!([0, pubkey, self.created_at, kind, self.tags, self.content]).to_string();
        let id: [u8; 32] = Sha256::digest(canonical).into();
        let sig = schnorr::sign_no_aux_rand(&id, by).to_byte_array();
        let event = json!({
            "id": hex::to_hex(&id), "pubkey": pubkey, "created_at": self.created_at, "kind": kind,
            "tags": self.tags, "content": self.content, "sig": hex::to_hex(&sig),
        });
        Ok(Unverified::parse(event.to_string().as_bytes())?.verify()?.into_event())
    }
}

/// The public half of a key pair.
#[must_use]
pub fn public_key(keys: &Keypair) -> PublicKey {
    PublicKey::from_bytes(keys.x_only_public_key().0.to_byte_array())
}
