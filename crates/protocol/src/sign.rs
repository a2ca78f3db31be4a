//! Signing: a secret key, and events that it signs.
//!
//! Source: NIP-01, "Events and signatures"; BIP-340; NIP-19.

use std::fmt;

use bech32::{Bech32, primitives::decode::CheckedHrpstring};
use secp256k1::{Keypair, schnorr};
use sha2::{Digest as _, Sha256};

use crate::{EventError, PublicKey, Unverified, Verified, hex};

/// A secret key. Nothing shows it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey(Keypair);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretKey(…)")
    }
}

/// An event to be signed.
#[derive(Clone, Debug)]
pub struct Unsigned<'a> {
    /// Unix seconds.
    pub created_at: u64,
    /// The kind's number.
    pub kind: u16,
    /// The tags.
    pub tags: &'a [Vec<String>],
    /// The content.
    pub content: &'a str,
}

impl From<Keypair> for SecretKey {
    fn from(keys: Keypair) -> Self {
        Self(keys)
    }
}

impl SecretKey {
    /// Reads 64 hex digits or an `nsec` (NIP-19). `None` for anything else, and for a number that is no key.
    #[must_use]
    pub fn from_hex_or_nsec(text: &str) -> Option<Self> {
        let bytes: [u8; 32] = match CheckedHrpstring::new::<Bech32>(text) {
            Ok(decoded) if decoded.hrp().as_str() == "nsec" => {
                decoded.byte_iter().collect::<Vec<u8>>().try_into().ok()?
            }
            Ok(_) => return None,
            Err(_) => hex::parse_any(text.as_bytes())?.try_into().ok()?,
        };
        Keypair::from_secret_bytes(bytes).ok().map(Self)
    }

    /// Reads the text of a key file: a key in one of these spellings, or the pair that `rnostr keygen --out` writes, in
    /// lines or as JSON.
    #[must_use]
    pub fn from_file_text(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Ok(serde_json::Value::Object(pair)) = serde_json::from_str(text) {
            return Self::from_hex_or_nsec(pair.get("secret_key")?.as_str()?);
        }
        let line = text.lines().find_map(|line| line.trim().strip_prefix("secret_key"));
        Self::from_hex_or_nsec(line.unwrap_or(text).trim())
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        PublicKey::from_bytes(self.0.x_only_public_key().0.to_byte_array())
    }

    /// Signs a SHA-256 (BIP-340).
    pub(crate) fn sign_digest(&self, digest: &[u8; 32]) -> [u8; 64] {
        schnorr::sign_no_aux_rand(digest, &self.0).to_byte_array()
    }

    /// Signs an event.
    ///
    /// # Errors
    /// [`EventError`] if the values make no event, such as tags beyond what an event may have.
    pub fn sign(&self, unsigned: &Unsigned<'_>) -> Result<Verified, EventError> {
        let Unsigned { created_at, kind, tags, content } = unsigned;
        let pubkey = self.public().to_hex();
        let id: [u8; 32] =
            Sha256::digest(serde_json::json!([0, pubkey, created_at, kind, tags, content]).to_string()).into();
        let signed = serde_json::json!({
            "id": hex::to_hex(&id), "pubkey": pubkey, "created_at": created_at, "kind": kind, "tags": tags,
            "content": content, "sig": hex::to_hex(&self.sign_digest(&id)),
        });
        Unverified::parse(signed.to_string().as_bytes())?.verify()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "67dea2ed018072d675f5415ecfaed7d2597555e202d85b3d65ea4e58d2d92ffa";
    const NSEC: &str = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5";

    #[test]
    fn both_spellings_are_one_key_that_signs() {
        let key = SecretKey::from_hex_or_nsec(HEX).expect("NIP-19's example");
        assert_eq!(SecretKey::from_hex_or_nsec(NSEC), Some(key.clone()));
        assert_eq!(format!("{key:?}"), "SecretKey(…)");
        let tags = [vec!["p".to_owned(), HEX.to_owned()]];
        let event = key.sign(&Unsigned { created_at: 9, kind: 447, tags: &tags, content: "{\"a\":\"b\"}" });
        let event = event.expect("it is an event").into_event();
        assert_eq!((event.pubkey(), event.kind().0, event.created_at()), (key.public(), 447, 9));
        assert_eq!(event.content(), "{\"a\":\"b\"}");
    }

    #[test]
    fn a_key_file_holds_one_key_or_a_pair() {
        let lines = format!("public_key  aa\nnpub        bb\nsecret_key  {HEX}\nnsec        {NSEC}\n");
        let json = format!("{{\"public_key\":\"aa\",\"secret_key\":\"{HEX}\",\"nsec\":\"{NSEC}\"}}\n");
        for text in [HEX, &format!(" {NSEC}\n"), &lines, &json] {
            assert_eq!(SecretKey::from_file_text(text), SecretKey::from_hex_or_nsec(HEX), "{text}");
        }
        for text in ["", "{}", "{\"secret_key\":1}", "secret_key", &format!("{HEX}\n{HEX}")] {
            assert_eq!(SecretKey::from_file_text(text), None, "{text}");
        }
    }

    #[test]
    fn anything_else_is_no_secret_key() {
        let npub = PublicKey::from_bytes([7; 32]).to_npub();
        for text in ["", "nsec1xyz", &npub, &HEX[1..], &"0".repeat(64), &"f".repeat(64)] {
            assert_eq!(SecretKey::from_hex_or_nsec(text), None, "{text}");
        }
    }
}
