//! Tokens: a key that has logged in, and the time until which the token counts, under a code of the store's.
//!
//! Source: docs/rules.md, "Console". Instances keep nothing of a token, and each that shares the store takes it. A
//! token says which key has signed a login, and not that the key is an admin: each door asks that anew.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use nostr_protocol::{PublicKey, UnixSecs};
use ring::hmac;

/// Seconds for which a token counts.
pub(super) const TOKEN_SECS: u64 = 900;
/// First byte of a token: the form of the rest.
const VERSION: u8 = 1;
const KEY_BYTES: usize = 32;
const TIME_BYTES: usize = 8;
/// Bytes in front of the code.
const SIGNED_BYTES: usize = 1 + KEY_BYTES + TIME_BYTES;
/// Characters of a token: base64 of its bytes and of the 32 bytes of its code.
const TOKEN_CHARS: usize = (SIGNED_BYTES + 32).div_ceil(3) * 4;

/// The tokens of one store.
pub(super) struct Tokens(hmac::Key);

/// The reason why a token counts for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// This store made no such token.
    Unknown,
    /// The token's time is over.
    Expired,
}

impl Tokens {
    /// The tokens of the store with this secret.
    pub(super) fn new(secret: &[u8; 32]) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret);
        Self(hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&root, b"console tokens").as_ref()))
    }

    /// A token of this key.
    pub(super) fn make(&self, key: &PublicKey, now: UnixSecs) -> String {
        let mut token = vec![VERSION];
        token.extend_from_slice(key.as_bytes());
        token.extend_from_slice(&now.saturating_add(TOKEN_SECS).to_be_bytes());
        let code = hmac::sign(&self.0, &token);
        token.extend_from_slice(code.as_ref());
        BASE64_URL_SAFE_NO_PAD.encode(token)
    }

    /// The key of a token.
    ///
    /// # Errors
    /// [`Refused`].
    pub(super) fn read(&self, token: &str, now: UnixSecs) -> Result<PublicKey, Refused> {
        if token.len() > TOKEN_CHARS {
            return Err(Refused::Unknown);
        }
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|_| Refused::Unknown)?;
        let (signed, code) = bytes.split_at_checked(SIGNED_BYTES).ok_or(Refused::Unknown)?;
        // The comparison takes the same time wherever the codes differ.
        hmac::verify(&self.0, signed, code).map_err(|_| Refused::Unknown)?;
        let (head, rest) = signed.split_at(1);
        let (key, until) = rest.split_first_chunk::<KEY_BYTES>().ok_or(Refused::Unknown)?;
        if head != [VERSION] {
            return Err(Refused::Unknown);
        }
        let until = until.try_into().map(UnixSecs::from_be_bytes).map_err(|_| Refused::Unknown)?;
        // A clock that was ahead and was set back makes no token count for longer.
        let counts = now < until && until <= now.saturating_add(TOKEN_SECS);
        if counts { Ok(PublicKey::from_bytes(*key)) } else { Err(Refused::Expired) }
    }
}

#[cfg(test)]
mod tests {
    use nostr_protocol::testing::key;

    use super::*;

    const NOW: UnixSecs = 1_800_000_000;

    #[test]
    fn a_token_counts_at_its_store_for_its_time() {
        let tokens = Tokens::new(&[7; 32]);
        let token = tokens.make(&key("alice"), NOW);
        assert!(token.len() <= TOKEN_CHARS);
        for (at, read) in [
            (NOW, Ok(key("alice"))),
            (NOW + TOKEN_SECS - 1, Ok(key("alice"))),
            (NOW + TOKEN_SECS, Err(Refused::Expired)),
            (NOW - 1, Err(Refused::Expired)),
        ] {
            assert_eq!(Tokens::new(&[7; 32]).read(&token, at), read, "{at}");
        }
        assert_eq!(Tokens::new(&[8; 32]).read(&token, NOW), Err(Refused::Unknown), "another store's");
    }

    #[test]
    fn a_changed_token_counts_for_nothing() {
        let tokens = Tokens::new(&[7; 32]);
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(tokens.make(&key("alice"), NOW)).expect("base64");
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            for changed in [&changed[..], &bytes[..at]] {
                let token = BASE64_URL_SAFE_NO_PAD.encode(changed);
                assert_eq!(tokens.read(&token, NOW), Err(Refused::Unknown), "{at}");
            }
        }
        for text in ["", "!", "AAAA", &"A".repeat(10_000)] {
            assert_eq!(tokens.read(text, NOW), Err(Refused::Unknown), "{text}");
        }
    }
}
