//! Proof of work of an event.
//!
//! Source: NIP-13. The difficulty is the number of leading zero bits of the id. A `nonce` tag commits to the difficulty
//! that its author aimed at, so that an id that is low by chance proves no work beyond it.

use crate::{Event, EventId, tag::name};

/// Position of the difficulty in a `nonce` tag.
const TARGET: usize = 2;

/// The difficulty that an event proves, in bits: that of its id, at most the one to which its `nonce` tag commits. An
/// event that commits to none proves none.
#[must_use]
pub fn proven_bits(event: &Event) -> u32 {
    let nonce = event.tags().named(name::NONCE).next();
    let committed: u32 = nonce.and_then(|tag| tag.get(TARGET)).and_then(|bits| bits.parse().ok()).unwrap_or(0);
    leading_zero_bits(&event.id()).min(committed)
}

fn leading_zero_bits(id: &EventId) -> u32 {
    let bytes = id.as_bytes();
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    let bits = bytes.get(zeros).map_or(0, |byte| byte.leading_zeros());
    // An id has 32 bytes.
    zeros as u32 * u8::BITS + bits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{EventBuilder, keypair};

    #[test]
    fn leading_zeros_are_counted_in_bits() {
        // The example of NIP-13.
        let id = EventId::from_hex("000006d8c378af1779d2feebc7603a125d99eca0ccf1085959b307f64e5dd358").expect("an id");
        assert_eq!(leading_zero_bits(&id), 21);
        assert_eq!(leading_zero_bits(&EventId::from_bytes([0; 32])), 256);
        assert_eq!(leading_zero_bits(&EventId::from_bytes([0xff; 32])), 0);
    }

    #[test]
    fn an_id_proves_no_more_than_its_author_aimed_at() {
        let mined = |target: Option<&str>| {
            let tag = |nonce: &str| match target {
                Some(target) => EventBuilder::new(1).tag(&["nonce", nonce, target]),
                None => EventBuilder::new(1).tag(&["nonce", nonce]),
            };
            let mut events = (0..).map(|nonce| tag(&format!("{nonce}")).event(&keypair("alice")));
            events.find(|event| leading_zero_bits(&event.id()) >= 6).expect("there is one")
        };
        assert_eq!(proven_bits(&mined(Some("4"))), 4);
        assert!(proven_bits(&mined(Some("200"))) >= 6);
        for target in [None, Some(""), Some("-1"), Some("x")] {
            assert_eq!(proven_bits(&mined(target)), 0, "{target:?}");
        }
        assert_eq!(proven_bits(&EventBuilder::new(1).event(&keypair("alice"))), 0);
    }
}
