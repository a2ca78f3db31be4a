//! Hex and `npub`: machines use one spelling of a key, people may use two.
#![allow(clippy::unwrap_used, missing_docs)]

use bech32::{Bech32m, Hrp};
use nostr_protocol::{
    EventId, PublicKey,
    hex::{parse_any, parse_lower, to_hex},
    key::{KeyError, to_bech32},
};
use proptest::prelude::*;

/// The example of NIP-19.
const NPUB: &str = "npub10elfcs4fr0l0r8af98jlmgdh9c8tcxjvz9qkw038js35mp4dma8qzvjptg";
const HEX: &str = "7e7e9c42a91bfef19fa929e5fda1b72e0ebc1a4c1141673e2794234d86addf4e";

#[test]
fn the_example_of_nip_19_reads_both_ways() {
    let key = PublicKey::from_hex_or_npub(NPUB).unwrap();
    assert_eq!(key.to_hex(), HEX);
    assert_eq!(PublicKey::from_hex_or_npub(HEX), Ok(key));
    assert_eq!(key.to_npub(), NPUB);
}

#[test]
fn a_malformed_key_is_refused_with_its_reason() {
    let secret = to_bech32("nsec", &[7; 32]);
    let short = bech32::encode::<bech32::Bech32>(Hrp::parse("npub").unwrap(), &[7; 31]).unwrap();
    let other_checksum = bech32::encode::<Bech32m>(Hrp::parse("npub").unwrap(), &[7; 32]).unwrap();
    for (text, error) in [
        (HEX.to_uppercase().as_str(), KeyError::UpperCase),
        (&secret, KeyError::Secret),
        (&HEX[2..], KeyError::Malformed),
        (&to_bech32("note", &[7; 32]), KeyError::Malformed),
        (&short, KeyError::Malformed),
        (&other_checksum, KeyError::Malformed),
        (&NPUB.replace("ptg", "ptq"), KeyError::Malformed),
        (&format!("{HEX} "), KeyError::Malformed),
        ("your-allowed-pubkey-1", KeyError::Malformed),
        ("", KeyError::Malformed),
    ] {
        assert_eq!(PublicKey::from_hex_or_npub(text), Err(error), "{text}");
    }
    assert!(!KeyError::Secret.to_string().contains(&secret));
}

#[test]
fn debug_output_shows_a_prefix_alone() {
    let key = PublicKey::from_hex(HEX).unwrap();
    assert_eq!(format!("{key:?}"), "PublicKey(7e7e9c42)");
    assert_eq!(format!("{:?}", EventId::from_bytes(*key.as_bytes())), "EventId(7e7e9c42)");
}

proptest! {
    #[test]
    fn hex_reads_back_and_knows_one_spelling(bytes in any::<[u8; 32]>()) {
        let text = to_hex(&bytes);
        prop_assert_eq!(parse_lower::<32>(text.as_bytes()), Some(bytes));
        prop_assert_eq!(parse_any(text.to_uppercase().as_bytes()), Some(bytes.to_vec()));
        if text.bytes().any(|c| c.is_ascii_lowercase()) {
            prop_assert_eq!(parse_lower::<32>(text.to_uppercase().as_bytes()), None);
        }
    }

    #[test]
    fn hex_of_another_length_or_alphabet_is_none(text in "[0-9a-fg-z/:@`]{0,70}") {
        let is_hex = text.len() == 64 && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
        prop_assert_eq!(parse_lower::<32>(text.as_bytes()).is_some(), is_hex);
        let is_any = text.len() % 2 == 0 && text.bytes().all(|c| c.is_ascii_hexdigit());
        prop_assert_eq!(parse_any(text.as_bytes()).is_some(), is_any);
    }
}
