//! The key of an export. Without it nobody changes a line of the file and makes the checksums hold again.

use hmac::{Hmac, KeyInit as _, Mac as _};
use nostr_protocol::hex;
use sha2::Sha256;

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// Bytes of a block of SHA-256.
const BLOCK_BYTES: usize = 64;
/// The text whose code under a key tells which key an export was made with, and tells nothing else.
const CHECKED: &[u8] = b"rnostr export, key";

/// A secret under which the checksums of an export are made (HMAC-SHA-256, RFC 2104).
#[derive(Clone)]
pub struct FileKey([u8; KEY_BYTES]);

impl std::fmt::Debug for FileKey {
    /// Does not show the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileKey").finish_non_exhaustive()
    }
}

impl FileKey {
    /// Reads the content of a key's file: 64 hex digits, or 32 bytes that are not all text. Text of 32 characters is a
    /// password or half a key, and is refused.
    #[must_use]
    pub fn parse(content: &[u8]) -> Option<Self> {
        if let Ok(bytes) = <[u8; KEY_BYTES]>::try_from(content)
            && !content.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace())
        {
            return Some(Self(bytes));
        }
        let bytes = hex::parse_any(content.trim_ascii())?;
        bytes.try_into().ok().map(Self)
    }

    /// The running code of a file's lines.
    pub(super) fn running(&self) -> Hmac<Sha256> {
        // HMAC itself fills a shorter key with zeros up to a block of the hash.
        let mut block = [0; BLOCK_BYTES];
        block[..KEY_BYTES].copy_from_slice(&self.0);
        Hmac::new(&block.into())
    }

    /// The text in the header by which an import knows its key.
    pub(super) fn check(&self) -> [u8; 16] {
        let code: [u8; 32] = self.running().chain_update(CHECKED).finalize().into_bytes().into();
        let mut front = [0; 16];
        front.copy_from_slice(&code[..16]);
        front
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test case 2 of RFC 4231, whose key is shorter than ours and so stands before zeros.
    #[test]
    fn the_code_is_that_of_rfc_4231() {
        let mut key = [0; KEY_BYTES];
        key[..4].copy_from_slice(b"Jefe");
        let code = FileKey(key).running().chain_update(b"what do ya want for nothing?").finalize().into_bytes();
        assert_eq!(hex::to_hex(&code), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    }

    #[test]
    fn a_key_is_sixty_four_hex_digits_or_thirty_two_bytes() {
        let digits = "ab".repeat(KEY_BYTES);
        for good in [digits.clone().into_bytes(), format!("{digits}\n").into_bytes(), vec![0xab; KEY_BYTES]] {
            assert_eq!(FileKey::parse(&good).map(|key| key.0), Some([0xab; KEY_BYTES]));
        }
        let half = "ab".repeat(KEY_BYTES / 2);
        for bad in
            [&b""[..], half.as_bytes(), b"correct horse battery staple 123", &digits.as_bytes()[1..], &[0xab; 31]]
        {
            assert!(FileKey::parse(bad).is_none(), "{bad:?}");
        }
    }
}
