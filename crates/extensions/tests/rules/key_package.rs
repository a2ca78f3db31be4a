//! Admission of kinds 443 and 30443 (docs/rules.md, "KeyPackages").

use base64::{Engine as _, engine::general_purpose::STANDARD};
use nostr_extensions::{
    Admitted, Effect, Policy,
    mls_gateway::{key_package::DirectoryEntry, mls::KeyPackage},
    policy::VerifyKeyPackages,
};
use nostr_protocol::{
    Rejection,
    hex::to_hex,
    testing::{EventBuilder, key},
};
use sha2::{Digest as _, Sha256};

use crate::{
    common::{NOW, policy, reader, send},
    mls::{Recipe, bytes},
};

const DAY: u64 = 86_400;

fn with_mode(verify_keypackages: VerifyKeyPackages) -> Policy {
    Policy { verify_keypackages, ..policy() }
}

/// A KeyPackage of alice's that holds in every check, good for 30 days.
fn good() -> Vec<u8> {
    bytes(&Recipe { identity: key("alice").as_bytes(), not_after: NOW + 30 * DAY, ..Recipe::default() })
}

fn event(content: &[u8]) -> EventBuilder {
    EventBuilder::new(443).content(STANDARD.encode(content))
}

fn publish(event: EventBuilder, policy: &Policy) -> Result<Admitted, Rejection> {
    send(&[], "alice", event, policy, &[])
}

fn entry(admitted: &Admitted) -> DirectoryEntry {
    match admitted.effect() {
        Effect::KeyPackage { entry, .. } => entry.clone(),
        other => panic!("{other:?}"),
    }
}

/// The same fault in the three modes: passed over, told to the log, refused with the same words.
fn assert_fault(event: EventBuilder, says: &str) {
    let quiet = publish(event.clone(), &with_mode(VerifyKeyPackages::Off)).unwrap();
    assert_eq!(entry(&quiet).warning, None);
    let logged = publish(event.clone(), &with_mode(VerifyKeyPackages::Log)).unwrap();
    let warning = logged.warning().unwrap().to_owned();
    assert!(warning.contains(says), "{warning}");
    assert!(!warning.contains(&key("alice").to_hex()), "a warning names no key");
    let refused = publish(event, &with_mode(VerifyKeyPackages::Enforce)).unwrap_err();
    assert_eq!(refused, Rejection::invalid(warning));
}

fn assert_holds(event: EventBuilder) -> Admitted {
    let admitted = publish(event, &with_mode(VerifyKeyPackages::Enforce)).unwrap();
    assert_eq!(entry(&admitted).warning, None);
    admitted
}

#[test]
fn a_p_tag_equals_the_author() {
    let alice = key("alice").to_hex();
    assert_holds(event(&good()).tag(&["p", &alice]));
    assert_holds(event(&good()).tag(&["p", &alice]).tag(&["p", &alice, "wss://relay.example"]));
    for wrong in [&["p", &key("bob").to_hex()][..], &["p", &alice.to_uppercase()], &["p"], &["p", ""]] {
        for mode in [VerifyKeyPackages::Off, VerifyKeyPackages::Enforce] {
            let refused = publish(event(&good()).tag(wrong), &with_mode(mode)).unwrap_err();
            assert!(refused.to_string().starts_with("invalid: the p tag"), "{refused}");
            assert!(publish(event(&good()).tag(&["p", &alice]).tag(wrong), &with_mode(mode)).is_err());
        }
    }
}

#[test]
fn with_auth_on_the_author_is_on_the_connection() {
    let policy = Policy { auth_required: true, ..policy() };
    for kind in [443, 30443] {
        let mut event = event(&good());
        event.kind = kind;
        assert!(send(&["bob", "alice"], "alice", event.clone(), &policy, &[]).is_ok());
        let refused = send(&["bob"], "alice", event.clone(), &policy, &[]).unwrap_err();
        assert!(refused.to_string().starts_with("restricted:"));
        assert!(send(&["bob"], "alice", event, &with_mode(VerifyKeyPackages::Log), &[]).is_ok());
    }
}

#[test]
fn content_is_base64_or_hex_of_either_form() {
    let bare = good();
    let message = [&[0, 1, 0, 5][..], &bare].concat();
    let expected: [u8; 32] = Sha256::digest(&bare).into();
    for bytes in [&bare, &message] {
        let base64 = STANDARD.encode(bytes);
        let unpadded = base64.trim_end_matches('=').to_owned();
        let hex = to_hex(bytes);
        for content in [base64, unpadded, hex.to_uppercase(), hex] {
            let admitted = assert_holds(EventBuilder::new(443).content(content));
            assert_eq!(entry(&admitted).content_hash, expected);
        }
    }
}

#[test]
fn hex_is_not_tried_where_a_tag_says_base64() {
    let hex = || EventBuilder::new(443).content(to_hex(&good()));
    assert_holds(hex().tag(&["encoding", "hex"]));
    assert_fault(hex().tag(&["encoding", "base64"]), "content is no KeyPackage");
    assert_holds(event(&good()).tag(&["encoding", "base64"]));
}

#[test]
fn content_that_is_no_key_package_is_hashed_as_it_stands() {
    for content in ["", "base64-encoded-keypackage", "AAEAAQ==", "\0", "ä", &"a".repeat(200_000)] {
        let builder = EventBuilder::new(443).content(content);
        assert_fault(builder.clone(), "content is no KeyPackage");
        let admitted = publish(builder, &policy()).unwrap();
        let expected: [u8; 32] = Sha256::digest(content).into();
        assert_eq!((entry(&admitted).content_hash, entry(&admitted).last_resort), (expected, false));
    }
}

#[test]
fn the_credential_names_the_author_in_32_bytes_or_64_hex_digits() {
    let alice = key("alice");
    let of = |identity: &[u8]| event(&bytes(&Recipe { identity, ..Recipe::default() }));
    assert_holds(of(alice.as_bytes()));
    assert_holds(of(alice.to_hex().as_bytes()));
    for wrong in [key("bob").as_bytes(), &alice.as_bytes()[..31], &b"alice"[..], b"", alice.to_npub().as_bytes()] {
        assert_fault(of(wrong), "the credential's identity");
    }
}

#[test]
fn a_ciphersuite_tag_names_that_of_the_bytes_in_any_spelling() {
    for tag in ["cs", "ciphersuite", "mls_ciphersuite"] {
        for right in ["MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519", "0x0001", "0x1", "1"] {
            assert_holds(event(&good()).tag(&[tag, right]));
        }
        for wrong in [
            "MLS_128_DHKEMP256_AES128GCM_SHA256_P256",
            "MLS_128_DHKEMX25519",
            "0x0002",
            "2",
            "0x",
            "0x+1",
            "+1",
            "0x10001",
            "65537",
            "",
        ] {
            assert_fault(
                event(&good()).tag(&[tag, wrong]),
                &format!("the {tag} tag is not the KeyPackage's ciphersuite"),
            );
        }
    }
}

#[test]
fn each_name_of_rfc_9420_is_its_number() {
    for (number, name) in [
        (2, "MLS_128_DHKEMP256_AES128GCM_SHA256_P256"),
        (3, "MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519"),
        (4, "MLS_256_DHKEMX448_AES256GCM_SHA512_Ed448"),
        (5, "MLS_256_DHKEMP521_AES256GCM_SHA512_P521"),
        (6, "MLS_256_DHKEMX448_CHACHA20POLY1305_SHA512_Ed448"),
        (7, "MLS_256_DHKEMP384_AES256GCM_SHA384_P384"),
    ] {
        let mut bytes = good();
        bytes[3] = number;
        let admitted = publish(event(&bytes).tag(&["cs", name]), &with_mode(VerifyKeyPackages::Log)).unwrap();
        let warning = entry(&admitted).warning.unwrap();
        let past_the_tag = if number < 4 { "does not verify" } else { "none that this relay can check" };
        assert!(warning.contains(past_the_tag), "{name}: {warning}");
    }
}

#[test]
fn a_reference_tag_is_the_key_package_ref_of_the_bytes() {
    let bytes = good();
    let reference = to_hex(&KeyPackage::read(&bytes).unwrap().reference().unwrap());
    for tag in ["kpr", "i"] {
        assert_holds(event(&bytes).tag(&[tag, &reference]));
        assert_holds(event(&bytes).tag(&[tag, &reference.to_uppercase()]));
        for wrong in ["keypackage-reference", &reference[2..], &"00".repeat(32)] {
            let says = format!("the {tag} tag is not the KeyPackage's reference");
            assert_fault(event(&bytes).tag(&[tag, wrong]), &says);
        }
    }
    assert_fault(event(&bytes).tag(&["kpr", &reference]).tag(&["i", "other"]), "the i tag");
}

#[test]
fn the_entry_carries_the_reference_as_written_kpr_before_i() {
    let of = |event| entry(&publish(event, &policy()).unwrap()).reference;
    assert_eq!(of(event(&good())), None);
    assert_eq!(of(event(&good()).tag(&["kpr", "kpr_abc123"])).as_deref(), Some("kpr_abc123"));
    assert_eq!(of(event(&good()).tag(&["i", "a"]).tag(&["kpr", "b"])).as_deref(), Some("b"));
    assert_eq!(of(event(&good()).tag(&["i", "a"]).tag(&["kpr", ""])).as_deref(), Some("a"));
}

#[test]
fn a_signature_that_does_not_hold_is_a_fault() {
    let mut damaged = good();
    *damaged.last_mut().unwrap() ^= 1;
    assert_fault(event(&damaged), "does not verify");
}

#[test]
fn a_leaf_that_has_not_begun_is_a_fault_and_a_clock_ahead_is_not() {
    let from = |not_before| {
        let identity = *key("alice").as_bytes();
        let recipe = Recipe { identity: &identity, not_before, not_after: NOW + DAY, ..Recipe::default() };
        event(&bytes(&recipe))
    };
    assert_holds(from(NOW + 900));
    assert_fault(from(NOW + 901), "has not begun");
}

#[test]
fn a_ciphersuite_that_cannot_be_checked_is_not_refused() {
    let mut bytes = good();
    bytes[2..4].copy_from_slice(&0xf000_u16.to_be_bytes());
    let admitted = publish(event(&bytes).tag(&["cs", "0xf000"]), &with_mode(VerifyKeyPackages::Enforce)).unwrap();
    assert!(admitted.warning().unwrap().contains("none that this relay can check"));
}

#[test]
fn it_is_kept_until_the_first_of_exp_expiration_and_not_after() {
    let kept = |tags: &[(&str, u64)], policy: &Policy| {
        let builder = tags.iter().fold(event(&good()), |event, (tag, end)| event.tag(&[tag, &end.to_string()]));
        publish(builder, policy).unwrap().expires_at() - NOW
    };
    for mode in [VerifyKeyPackages::Off, VerifyKeyPackages::Log, VerifyKeyPackages::Enforce] {
        let policy = with_mode(mode);
        assert_eq!(kept(&[], &policy), 30 * DAY);
        assert_eq!(kept(&[("exp", NOW + 60)], &policy), 60);
        assert_eq!(kept(&[("expiration", NOW + 60)], &policy), 60);
        assert_eq!(kept(&[("exp", NOW + 50), ("expiration", NOW + 60)], &policy), 50);
        assert_eq!(kept(&[("exp", NOW + 60), ("expiration", NOW + 50)], &policy), 50);
        assert_eq!(kept(&[("exp", NOW + 40 * DAY), ("expiration", NOW + 50 * DAY)], &policy), 30 * DAY);
    }
}

#[test]
fn without_any_end_it_is_kept_for_keypackage_ttl_from_receipt() {
    let unreadable = || EventBuilder::new(443).content("?");
    assert_eq!(publish(unreadable(), &policy()).unwrap().expires_at(), NOW + DAY);
    let longer = unreadable().tag(&["exp", &(NOW + 5 * DAY).to_string()]);
    assert_eq!(publish(longer, &policy()).unwrap().expires_at(), NOW + 5 * DAY);
}

#[test]
fn a_far_end_is_clamped_to_keypackage_max_lifetime() {
    let years = bytes(&Recipe { identity: key("alice").as_bytes(), not_after: u64::MAX, ..Recipe::default() });
    assert_eq!(assert_holds(event(&years)).expires_at(), NOW + 90 * DAY);
    let far = EventBuilder::new(443).content("?").tag(&["exp", "100000000000"]);
    assert_eq!(publish(far.clone(), &policy()).unwrap().expires_at(), NOW + 90 * DAY);
    let shorter = Policy { keypackage_max_lifetime_secs: 60, ..policy() };
    assert_eq!(publish(far, &shorter).unwrap().expires_at(), NOW + 60);
    assert_eq!(publish(EventBuilder::new(443), &shorter).unwrap().expires_at(), NOW + 60, "nor does the ttl pass it");
}

#[test]
fn an_end_in_the_past_in_milliseconds_or_no_number_is_refused() {
    let ended = bytes(&Recipe { identity: key("alice").as_bytes(), not_after: NOW, ..Recipe::default() });
    let refused = |builder| publish(builder, &with_mode(VerifyKeyPackages::Off)).unwrap_err().to_string();
    assert_eq!(
        refused(event(&ended)),
        "invalid: the KeyPackage has expired (not_after of the leaf); publish a fresh one"
    );
    for tag in ["exp", "expiration"] {
        let with = |value: &str| refused(event(&good()).tag(&[tag, value]));
        for past in ["0", "1735689600", &NOW.to_string()] {
            assert!(with(past).starts_with("invalid: the KeyPackage has expired"), "{}", with(past));
        }
        for milliseconds in ["1795370771000", "100000000001", &"9".repeat(30)] {
            assert!(with(milliseconds).contains("milliseconds"), "{}", with(milliseconds));
        }
        for wrong in ["", "-1", "1.5", "soon", "0x10", " 1"] {
            assert!(with(wrong).contains("no whole number"), "{}", with(wrong));
        }
    }
}

#[test]
fn last_resort_is_read_in_every_mode() {
    let marked = bytes(&Recipe { identity: key("alice").as_bytes(), last_resort: true, ..Recipe::default() });
    for mode in [VerifyKeyPackages::Off, VerifyKeyPackages::Log, VerifyKeyPackages::Enforce] {
        assert!(entry(&publish(event(&marked), &with_mode(mode)).unwrap()).last_resort);
        assert!(!entry(&publish(event(&good()), &with_mode(mode)).unwrap()).last_resort);
    }
}

#[test]
fn a_30443_replaces_by_its_d_and_a_443_replaces_nothing() {
    for (kind, d, expected) in
        [(30443, Some("slot"), Some("slot")), (30443, None, Some("")), (443, Some("slot"), None), (443, None, None)]
    {
        let mut builder = event(&good());
        builder.kind = kind;
        let builder = d.map_or_else(|| builder.clone(), |d| builder.clone().tag(&["d", d]));
        let admitted = assert_holds(builder);
        let Effect::KeyPackage { entry, identifier, .. } = admitted.effect() else { panic!() };
        assert_eq!((identifier.as_deref(), entry.owner), (expected, key("alice")));
    }
}

#[test]
fn the_event_is_stored_as_it_was_signed() {
    let builder = event(&good()).tag(&["exp", &(NOW + DAY).to_string()]);
    let signed = builder.clone().at(NOW).event(&nostr_protocol::testing::keypair("alice"));
    assert_eq!(publish(builder, &policy()).unwrap().event().json(), signed.json());
    assert!(reader(&[]).is_anonymous());
}

/// One extension: its type and its data, each shorter than 64 bytes.
fn extension(of: u16, data: &[u8]) -> Vec<u8> {
    [&of.to_be_bytes()[..], &[data.len() as u8], data].concat()
}

/// A KeyPackage of a ciphersuite that this relay cannot check, by hand: `leaf` and `own` are lists of extensions.
fn by_hand(keys: [u8; 2], lifetime: [u64; 2], supported: &[u16], leaf: &[u8], own: &[u8]) -> Vec<u8> {
    let opaque = |bytes: &[u8]| [&[bytes.len() as u8][..], bytes].concat();
    let types: Vec<u8> = supported.iter().flat_map(|of| of.to_be_bytes()).collect();
    let identity = key("alice");
    let mut bytes = vec![0, 1, 0x0a, 0x0a];
    bytes.extend([opaque(&[keys[0]; 32]), opaque(&[keys[1]; 32]), opaque(&[7; 32]), vec![0, 1]].concat());
    bytes.extend(opaque(identity.as_bytes()));
    bytes.extend(
        [opaque(&[0, 1]), opaque(&[0x0a, 0x0a]), opaque(&types), opaque(&[0x3a, 0x3a]), opaque(&[0, 1])].concat(),
    );
    bytes.push(1);
    lifetime.iter().for_each(|at| bytes.extend(at.to_be_bytes()));
    bytes.extend([opaque(leaf), opaque(&[1; 8]), opaque(own), opaque(&[1; 8])].concat());
    bytes
}

#[test]
fn each_check_of_rfc_9420_has_its_words() {
    let good = [NOW - DAY, NOW + DAY];
    let says = |bytes: Vec<u8>, words: &str| assert_fault(event(&bytes), words);
    says(by_hand([1, 1], good, &[], &[], &[]), "its init_key is the leaf's encryption_key");
    says(by_hand([1, 2], [NOW + DAY, NOW + DAY], &[], &[], &[]), "lifetime");
    says(by_hand([1, 2], [NOW + DAY, NOW + 9], &[], &[], &[]), "lifetime");
    says(by_hand([1, 2], good, &[], &extension(0xf2ee, b"x"), &[]), "not in the leaf's capabilities");
    let twice = [extension(0x0a, b""), extension(0x0a, b"")].concat();
    says(by_hand([1, 2], good, &[0x0a], &[], &twice), "twice");
    says(by_hand([1, 2], good, &[0x0a], &twice, &[]), "twice");
}

/// Values of GREASE stand in every list, and an extension that the capabilities list, or that every client has.
#[test]
fn grease_is_no_fault() {
    let good = [NOW - DAY, NOW + DAY];
    let leaf = [extension(0x1a1a, b"grease"), extension(0xf2ee, b""), extension(1, b"id")].concat();
    let own = extension(0x2a2a, b"");
    let bytes = by_hand([1, 2], good, &[0xf2ee, 0x3a3a], &leaf, &own);
    assert_eq!(KeyPackage::read(&bytes).unwrap().fault(), None);
    let admitted = publish(event(&bytes), &with_mode(VerifyKeyPackages::Enforce)).unwrap();
    assert!(admitted.warning().unwrap().contains("none that this relay can check"));
}

#[test]
fn both_marks_of_last_resort_are_read() {
    let of = |own: &[u8]| KeyPackage::read(&by_hand([1, 2], [1, 2], &[0x0a], &[], own)).unwrap().last_resort;
    let dictionary = |entries: &[u8]| extension(6, &[&[entries.len() as u8][..], entries].concat());
    assert!(of(&extension(0x0a, b"")));
    assert!(of(&dictionary(&[0, 1, 1, 9, 0, 4, 0])), "the component among others");
    assert!(!of(&dictionary(&[0, 1, 1, 9])) && !of(&[]) && !of(&extension(7, b"")));
    for broken in [&[0, 4][..], &[0, 4, 9], &[9]] {
        assert!(!of(&dictionary(broken)), "{broken:?} is no dictionary");
    }
    assert!(!of(&extension(6, b"")) && !of(&extension(6, &[3, 0, 4])));
}
