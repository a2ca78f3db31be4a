//! The one source of randomness in this crate.

use nostr_protocol::hex::to_hex;

/// 32 random bytes.
///
/// # Panics
/// When the operating system gives no randomness: nothing that a relay promises could be kept then.
#[allow(clippy::disallowed_methods, reason = "this module is the one source of chance")]
pub(crate) fn bytes32() -> [u8; 32] {
    let mut bytes = [0; 32];
    #[allow(clippy::expect_used, reason = "without randomness no challenge is a challenge")]
    getrandom::fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}

/// A challenge for NIP-42: 128 bits as hex.
pub(crate) fn challenge() -> String {
    to_hex(&bytes32()[..16])
}

/// A number below `bound`, and 0 where that is 0. Every number is as likely as another, as far as 64 bits divide
/// evenly.
pub(crate) fn below(bound: u64) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = bytes32();
    u64::from_be_bytes([a, b, c, d, e, f, g, h]).checked_rem(bound).unwrap_or(0)
}
