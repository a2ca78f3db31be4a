//! Public keys (BIP-340, x-only) and event ids (SHA-256), 32 bytes each, and their NIP-19 spellings.

use std::fmt;

use bech32::{Bech32, Hrp, primitives::decode::CheckedHrpstring};

use crate::hex;

/// A BIP-340 x-only public key, as `pubkey` and `p` tags carry it. The bytes may lie outside the curve until a
/// signature by the key has been verified.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

/// The SHA-256 of an event's canonical form (NIP-01).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventId([u8; 32]);

macro_rules! bytes32 {
    ($name:ident) => {
        impl $name {
            /// Makes it of its 32 bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// Reads 64 lower-case hex digits; anything else is `None`.
            #[must_use]
            pub fn from_hex(text: &str) -> Option<Self> {
                hex::parse_lower(text.as_bytes()).map(Self)
            }

            /// 64 lower-case hex digits.
            #[must_use]
            pub fn to_hex(&self) -> String {
                hex::to_hex(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), hex::to_hex(&self.0[..4]))
            }
        }
    };
}
bytes32!(PublicKey);
bytes32!(EventId);

/// The reason why a text is no public key, and the form to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Upper-case hex digits.
    #[error("a public key is written in lower-case hex")]
    UpperCase,
    /// An `nsec` in the place of a public key. The message does not repeat the text, which is a secret.
    #[error("this is a secret key (nsec); write the public key: 64 lower-case hex digits or npub1…")]
    Secret,
    /// Anything else.
    #[error("not a public key; write 64 lower-case hex digits or npub1…")]
    Malformed,
}

impl PublicKey {
    /// Reads 64 lower-case hex digits or an `npub` (NIP-19), as people write keys in configurations and commands.
    ///
    /// # Errors
    /// [`KeyError`], in words for the person at the keyboard.
    pub fn from_hex_or_npub(text: &str) -> Result<Self, KeyError> {
        if let Some(key) = Self::from_hex(text) {
            return Ok(key);
        }
        if text.len() == 64 && text.bytes().all(|c| c.is_ascii_hexdigit()) {
            return Err(KeyError::UpperCase);
        }
        let decoded = CheckedHrpstring::new::<Bech32>(text).map_err(|_| KeyError::Malformed)?;
        match decoded.hrp().as_str() {
            "npub" => {
                let bytes: Vec<u8> = decoded.byte_iter().collect();
                bytes.try_into().map(Self).map_err(|_| KeyError::Malformed)
            }
            "nsec" => Err(KeyError::Secret),
            _ => Err(KeyError::Malformed),
        }
    }

    /// The `npub1…` spelling (NIP-19).
    #[must_use]
    pub fn to_npub(&self) -> String {
        to_bech32("npub", &self.0)
    }
}

/// Writes 32 bytes in bech32 under a human-readable part of NIP-19 (`npub`, `nsec`, `note`).
///
/// # Panics
/// Never for the parts that NIP-19 names, because they are valid and 32 bytes fit.
#[must_use]
pub fn to_bech32(part: &'static str, bytes: &[u8; 32]) -> String {
    #[allow(clippy::expect_used, reason = "the part is one of NIP-19's literals and the length is fixed")]
    bech32::encode::<Bech32>(Hrp::parse_unchecked(part), bytes).expect("32 bytes fit into bech32")
}
