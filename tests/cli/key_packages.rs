//! `rnostr keypackages` against relays with and without AUTH, and such that use KeyPackages up on a read.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use nostr_protocol::testing::EventBuilder;
use openmls::prelude::{
    BasicCredential, Ciphersuite, CredentialWithKey, KeyPackage, Lifetime, tls_codec::Serialize as _,
};
use openmls_basic_credential::SignatureKeyPair;
use openmls_rust_crypto::OpenMlsRustCrypto;

use super::{
    person::{Person, admin_of, anonymous, events},
    server::Relay,
};

const SUITE: Ciphersuite = Ciphersuite::MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519;
/// Seconds for which the KeyPackages are good: ten hours and a half.
const LIFETIME_SECS: u64 = 37_800;

/// The JSON of a KeyPackage event.
fn package(owner: &Person, kind: u16, is_last_resort: bool) -> String {
    let provider = OpenMlsRustCrypto::default();
    let signer = SignatureKeyPair::new(SUITE.signature_algorithm()).expect("keys");
    let identity = nostr_protocol::testing::public_key(&owner.keys).as_bytes().to_vec();
    let credential = CredentialWithKey {
        credential: BasicCredential::new(identity).into(),
        signature_key: signer.to_public_vec().into(),
    };
    let builder = KeyPackage::builder().key_package_lifetime(Lifetime::new(LIFETIME_SECS));
    let builder = if is_last_resort { builder.mark_as_last_resort() } else { builder };
    let bundle = builder.build(SUITE, &provider, &signer, credential).expect("a KeyPackage");
    let bytes = bundle.key_package().tls_serialize_detached().expect("bytes");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let event = EventBuilder::new(kind).at(now).tag(&["encoding", "base64"]).content(BASE64_STANDARD.encode(bytes));
    let event = if kind == 443 { event } else { event.tag(&["d", "one"]) };
    event.json(&owner.keys)
}

/// Publishes two KeyPackages of alice that are given once, and one of last resort.
fn stocked(relay: &Relay, alice: &Person) {
    let packages = [package(alice, 443, false), package(alice, 443, true), package(alice, 30443, false)];
    fs::write(relay.directory.path().join("packages.jsonl"), packages.join("\n")).expect("it is written");
    let out = alice.runs(relay, &["publish", "packages.jsonl"]).succeeds();
    assert_eq!(out.matches("ok ").count(), 3, "{out}");
}

/// Asserts that a list has alice's three KeyPackages.
#[track_caller]
fn lists_all(out: &str) {
    let lines: Vec<&str> = out.lines().collect();
    let having = |part: &str| lines.iter().filter(|line| line.contains(part)).count();
    assert_eq!((having("  kind 443  "), having("  kind 30443  ")), (2, 1), "{out}");
    assert_eq!((having("  last resort  "), having("  given once  ")), (1, 2), "{out}");
    assert_eq!(having("  MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519"), 3, "{out}");
    assert_eq!((having(" s ago  "), having("  ends in 10 h  ")), (3, 3), "{out}");
    assert_eq!(having("stock: 2 to be given once, 1 of last resort"), 1, "{out}");
}

#[test]
fn an_owner_s_key_packages_are_listed() {
    for needs_auth in [false, true] {
        let relay = Relay::start("", &admin_of(needs_auth));
        let [_, alice, bob, _] = Person::some();
        stocked(&relay, &alice);
        for owner in [alice.hex(), alice.npub()] {
            lists_all(&bob.runs(&relay, &["keypackages", &owner]).succeeds());
        }
        let own = alice.runs(&relay, &["keypackages", &alice.hex()]).succeeds();
        lists_all(&own);
        assert!(own.contains("by the relay's count: 2 unclaimed, 1 of last resort"), "{own}");
        let without = anonymous(&relay, &["keypackages", &alice.hex()]);
        if needs_auth {
            let refused = without.fails();
            assert!(refused.contains("401") && refused.contains("--key-file"), "{refused}");
        } else {
            lists_all(&without.succeeds());
        }
        let none = bob.runs(&relay, &["keypackages", &bob.hex()]).succeeds();
        assert!(none.starts_with("stock: 0 to be given once, 0 of last resort"), "{none}");
    }
}

#[test]
fn a_list_uses_nothing_up() {
    let gateway = format!("{}keypackage_consumption = \"on_read\"", admin_of(false));
    let relay = Relay::start("", &gateway);
    let [_, alice, bob, _] = Person::some();
    stocked(&relay, &alice);
    let hidden = bob.runs(&relay, &["keypackages", &alice.hex()]).succeeds();
    assert!(hidden.contains("one that this key may not see are listed alike"), "{hidden}");
    lists_all(&alice.runs(&relay, &["keypackages", &alice.hex()]).succeeds());
}

#[test]
fn an_admin_key_asks_an_owner_for_more() {
    for needs_auth in [false, true] {
        let relay = Relay::start("", &admin_of(needs_auth));
        let [admin, alice, _, eve] = Person::some();
        let ask = ["keypackages", &alice.npub(), "--ask"];
        let asked = admin.runs(&relay, &ask).succeeds();
        assert!(asked.contains("the owner is asked for KeyPackages"), "{asked}");
        let requests = alice.runs(&relay, &["req", "{\"kinds\":[447]}"]).succeeds();
        let request = events(&requests).remove(0);
        assert_eq!((request.pubkey().to_hex(), request.tags().value("p")), (admin.hex(), Some(alice.hex().as_str())));
        let refused = eve.runs(&relay, &ask).fails();
        assert!(refused.contains("refuses the request to the owner: restricted:"), "{refused}");
        assert!(anonymous(&relay, &ask).fails().contains("this needs your key"));
    }
}

#[test]
fn without_the_api_nothing_is_asked() {
    let relay = Relay::start("", &format!("{}enable_api = false", admin_of(false)));
    let [_, alice, ..] = Person::some();
    let told = alice.runs(&relay, &["keypackages", &alice.hex()]).fails();
    assert!(told.contains("has no REST API"), "{told}");
    let secret = alice.keeps_secret(anonymous(&relay, &["keypackages", &alice.nsec()]));
    assert!(secret.fails().contains("OWNER: this is a secret key"));
}
