//! MLS bytes: RFC 9420's framing and KeyPackage, read from hand-made bytes and from openmls's own.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use nostr_extensions::mls_gateway::mls::{
    HEADER_BYTES_MAX, Header, KEY_PACKAGE_BYTES_MAX, KeyPackage, Signatures, header_of_content,
};
use openmls::prelude::{
    BasicCredential, Capabilities, Ciphersuite, CredentialWithKey, ExtensionType, KeyPackage as OpenMlsKeyPackage,
    Lifetime, MlsMessageOut, tls_codec::Serialize as _,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;
use proptest::prelude::*;

use crate::common::NOW;

/// Ingredients of a KeyPackage for a test.
pub struct Recipe<'a> {
    pub suite: Ciphersuite,
    pub identity: &'a [u8],
    pub not_before: u64,
    pub not_after: u64,
    pub last_resort: bool,
}

impl Default for Recipe<'_> {
    fn default() -> Self {
        let suite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
        Self { suite, identity: b"alice", not_before: NOW - 3_600, not_after: NOW + 3_600, last_resort: false }
    }
}

/// A KeyPackage by openmls.
pub fn build(recipe: &Recipe<'_>) -> OpenMlsKeyPackage {
    let provider = OpenMlsRustCrypto::default();
    let signer = SignatureKeyPair::new(recipe.suite.signature_algorithm()).unwrap();
    let credential = CredentialWithKey {
        credential: BasicCredential::new(recipe.identity.to_vec()).into(),
        signature_key: signer.public().into(),
    };
    // Marmot's extension, and a value of GREASE (RFC 9420, section 13.5).
    let extensions = [ExtensionType::LastResort, ExtensionType::Unknown(0xf2ee), ExtensionType::Unknown(0x3a3a)];
    let capabilities = Capabilities::builder().extensions(extensions.to_vec()).build();
    let mut builder = OpenMlsKeyPackage::builder()
        .key_package_lifetime(Lifetime::init(recipe.not_before, recipe.not_after))
        .leaf_node_capabilities(capabilities);
    if recipe.last_resort {
        builder = builder.mark_as_last_resort();
    }
    builder.build(recipe.suite, &provider, &signer, credential).unwrap().key_package().clone()
}

pub fn bytes(recipe: &Recipe<'_>) -> Vec<u8> {
    build(recipe).tls_serialize_detached().unwrap()
}

fn message(wire_format: u16, group_id: &[u8], epoch: u64) -> Vec<u8> {
    let mut bytes = vec![0, 1];
    bytes.extend(wire_format.to_be_bytes());
    match group_id.len() {
        length @ 0..64 => bytes.push(length as u8),
        length => bytes.extend((length as u16 | 0x4000).to_be_bytes()),
    }
    bytes.extend(group_id);
    bytes.extend(epoch.to_be_bytes());
    bytes
}

fn header(bytes: &[u8]) -> Option<Header> {
    header_of_content(&STANDARD.encode(bytes))
}

#[test]
fn public_and_private_messages_show_group_and_epoch() {
    for wire_format in [1, 2] {
        for group_id in [&b""[..], b"group", &[7; 63], &[7; 64], &[7; 255]] {
            let mut bytes = message(wire_format, group_id, 0x0102_0304_0506_0708);
            let (mls_group_id, epoch) = (group_id.to_vec(), 0x0102_0304_0506_0708);
            let expected = Header { mls_group_id, epoch, content: None };
            assert_eq!(header(&bytes), Some(expected.clone()));
            bytes.extend([0xff; 10_000]);
            assert_eq!(header(&bytes), Some(expected), "whatever follows");
        }
    }
}

#[test]
fn base64_is_read_with_or_without_padding() {
    for extra in 0..3 {
        let mut bytes = message(2, b"group", 9);
        bytes.extend(vec![1; extra]);
        let padded = STANDARD.encode(&bytes);
        assert_eq!(header_of_content(&padded).unwrap().epoch, 9);
        assert_eq!(header_of_content(padded.trim_end_matches('=')).unwrap().epoch, 9);
    }
}

#[test]
fn other_messages_show_no_header() {
    for wire_format in [0, 3, 4, 5, 6, 0xffff] {
        assert_eq!(header(&message(wire_format, b"group", 1)), None, "{wire_format}");
    }
    let mut other_version = message(2, b"group", 1);
    other_version[1] = 2;
    assert_eq!(header(&other_version), None);
}

#[test]
fn a_length_that_is_not_minimal_is_none() {
    let mut longer = message(2, &[], 1);
    longer.splice(4..5, [0x40, 5, 1, 2, 3, 4, 5]);
    assert_eq!(header(&longer), None, "5 in two bytes");
    let mut longer = message(2, &[], 1);
    longer.splice(4..5, [0x80, 0, 0, 70].into_iter().chain([1; 70]));
    assert_eq!(header(&longer), None, "70 in four bytes");
    let mut reserved = message(2, &[], 1);
    reserved[4] = 0xc0;
    assert_eq!(header(&reserved), None, "the fourth form is not in use");
}

#[test]
fn a_truncated_header_is_none() {
    let bytes = message(2, b"group", 1);
    for end in 0..bytes.len() {
        assert_eq!(header(&bytes[..end]), None, "{end}");
    }
}

#[test]
fn no_more_is_decoded_than_the_bound() {
    let fits = HEADER_BYTES_MAX - 4 - 2 - 8;
    assert!(header(&message(2, &vec![7; fits], 1)).is_some());
    assert_eq!(header(&message(2, &vec![7; fits + 1], 1)), None);
    let beyond = format!("{}{}", STANDARD.encode(message(2, &vec![7; fits], 1)), "!".repeat(100_000));
    assert!(header_of_content(&beyond).is_some(), "what lies beyond the bound is not looked at");
}

#[test]
fn what_is_no_base64_is_none() {
    for content in ["", "=", "====", "AAEAAg!", "AAEAAg==\n", "ä", "{}", "AAE AAg"] {
        assert_eq!(header_of_content(content), None, "{content}");
    }
}

#[test]
fn a_key_package_of_openmls_reads_as_openmls_says() {
    for suite in [
        Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519,
        Ciphersuite::MLS_128_DHKEMP256_AES128GCM_SHA256_P256,
        Ciphersuite::MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519,
    ] {
        for last_resort in [false, true] {
            let recipe = Recipe { suite, last_resort, ..Recipe::default() };
            let package = build(&recipe);
            let bytes = package.tls_serialize_detached().unwrap();
            let read = KeyPackage::read(&bytes).unwrap();
            assert_eq!((read.ciphersuite, read.identity), (suite as u16, Some(&b"alice"[..])));
            assert_eq!((read.not_before, read.not_after), (recipe.not_before, recipe.not_after));
            assert_eq!(read.last_resort, last_resort);
            assert_eq!(read.check_signatures(), Signatures::Hold);
            let reference = package.hash_ref(openmls::prelude::OpenMlsProvider::crypto(&OpenMlsRustCrypto::default()));
            assert_eq!(read.reference().as_deref(), Some(reference.unwrap().as_slice()));

            let message = MlsMessageOut::from(package).tls_serialize_detached().unwrap();
            let inside = KeyPackage::read(&message).unwrap();
            assert_eq!(message.len(), bytes.len() + 4);
            assert_eq!(inside.bytes, bytes, "the same without an MLSMessage around it");
        }
    }
}

#[test]
fn a_signature_holds_at_any_time_and_over_every_byte() {
    let past = bytes(&Recipe { not_before: 1, not_after: 2, ..Recipe::default() });
    assert_eq!(KeyPackage::read(&past).unwrap().check_signatures(), Signatures::Hold);
    let good = bytes(&Recipe::default());
    for at in 0..good.len() {
        let mut damaged = good.clone();
        damaged[at] ^= 1;
        if let Some(package) = KeyPackage::read(&damaged) {
            assert_ne!(package.check_signatures(), Signatures::Hold, "byte {at}");
        }
    }
}

#[test]
fn a_ciphersuite_that_is_not_known_is_read_and_not_called_wrong() {
    for suite in [4_u16, 5, 6, 7, 0x0a0a, 0x4d, 0xf000, 0xffff] {
        let mut bytes = bytes(&Recipe::default());
        bytes[2..4].copy_from_slice(&suite.to_be_bytes());
        let package = KeyPackage::read(&bytes).unwrap();
        assert_eq!(package.ciphersuite, suite);
        assert_eq!(package.check_signatures(), Signatures::NotCheckable, "{suite}");
        let hash_bytes = match suite {
            4..=6 => Some(64),
            7 => Some(48),
            _ => None,
        };
        assert_eq!(package.reference().map(|reference| reference.len()), hash_bytes, "{suite}");
    }
}

/// `0001 0005` is how an MLSMessage begins, and how a bare KeyPackage of ciphersuite 5 does.
#[test]
fn a_bare_key_package_of_ciphersuite_5_is_not_taken_for_a_message() {
    let mut bytes = bytes(&Recipe::default());
    bytes[2..4].copy_from_slice(&5_u16.to_be_bytes());
    assert_eq!(KeyPackage::read(&bytes).unwrap().bytes.len(), bytes.len());
}

#[test]
fn what_is_no_key_package_or_more_than_one_is_none() {
    let good = bytes(&Recipe::default());
    for end in 0..good.len() {
        assert!(KeyPackage::read(&good[..end]).is_none(), "{end}");
    }
    assert!(KeyPackage::read(&[&good[..], &[0]].concat()).is_none());
    assert!(KeyPackage::read(&[&[0, 1, 0, 5][..], &[0, 1, 0, 5], &good].concat()).is_none());
    let mut other_version = good;
    other_version[1] = 2;
    assert!(KeyPackage::read(&other_version).is_none());
}

#[test]
fn a_leaf_that_was_not_made_for_a_key_package_is_none() {
    let recipe = Recipe::default();
    let mut bytes = bytes(&recipe);
    let lifetime = [recipe.not_before.to_be_bytes(), recipe.not_after.to_be_bytes()].concat();
    let at = bytes.windows(16).position(|window| window == lifetime).unwrap();
    for (source, read) in [(0, false), (1, true), (2, false), (3, false)] {
        bytes[at - 1] = source;
        assert_eq!(KeyPackage::read(&bytes).is_some(), read, "source {source}");
    }
}

#[test]
fn a_key_package_over_the_bound_is_not_read() {
    let of_length = |identity: usize| bytes(&Recipe { identity: &vec![b'x'; identity], ..Recipe::default() });
    let around = of_length(20_000).len() - 20_000;
    let longest = of_length(KEY_PACKAGE_BYTES_MAX - around);
    assert_eq!(longest.len(), KEY_PACKAGE_BYTES_MAX);
    assert!(KeyPackage::read(&longest).is_some());
    assert!(KeyPackage::read(&of_length(KEY_PACKAGE_BYTES_MAX - around + 1)).is_none());
}

proptest! {
    #[test]
    fn no_content_makes_the_header_reader_panic(
        content in any::<String>(),
        bytes in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let _ = header_of_content(&content);
        let _ = header(&bytes);
        let _ = header(&[&[0, 1, 0, 2][..], &bytes].concat());
    }

    #[test]
    fn no_bytes_make_the_key_package_reader_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        damage in prop::collection::vec((0_usize..400, any::<u8>()), 0..4),
        cut in 0_usize..400,
    ) {
        let _ = KeyPackage::read(&bytes);
        let mut near = self::bytes(&Recipe::default());
        for (at, byte) in damage {
            let at = at % near.len();
            near[at] = byte;
        }
        near.truncate(cut.max(near.len() - 3));
        if let Some(package) = KeyPackage::read(&near) {
            let _ = (package.reference(), package.check_signatures());
        }
    }
}
