//! The one place where randomness comes from.

use nostr_protocol::hex::to_hex;

/// 32 random bytes.
///
/// # Panics
/// When the operating system gives no randomness: nothing that a relay promises could be kept then.
#[must_use]
pub fn bytes32() -> [u8; 32] {
    let mut bytes = [0; 32];
    #[allow(clippy::expect_used, reason = "without randomness no challenge is a challenge")]
    getrandom::fill(&mut bytes).expect("the operating system gives randomness");
    bytes
}

/// A challenge for NIP-42: 128 bits as hex.
#[must_use]
pub fn challenge() -> String {
    to_hex(&bytes32()[..16])
}

/// A number below `bound`, near enough evenly; 0 where that is 0. To spread what would else happen at one time.
#[must_use]
pub fn below(bound: u64) -> u64 {
    let bytes = bytes32();
    let number = bytes.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
    number.checked_rem(bound).unwrap_or(0)
}
