//! docs/rules.md, "KeyPackages": the directory, references, lifetimes, and verification.

use nostr_extensions::policy::VerifyKeyPackages;
use serde_json::json;

use super::{World, ids, sees, shown};
use crate::support::{
    Draft, Event, Keys,
    gateway::{deletion, key_package},
};

mod consumption;
mod real;

use real::Package;

const DAY: u64 = 86_400;

/// Twins, a 443 and a 30443 of the same bytes, are both stored and served as signed; deleting one leaves the other.
#[tokio::test]
async fn twins_are_served_as_signed_and_deleted_one_by_one() {
    let world = World::new().await;
    let alice = Keys::random();
    let package = Package::new(&alice);
    let (old, new) = (package.draft(443).sign(), package.draft(30443).tag(["d", "slot"]).sign());
    let mut client = world.client(&[]).await;
    for event in [&old, &new] {
        client.publish(event).await.ok();
    }
    let filter = json!({"kinds": [443, 30443], "authors": [alice.hex()]});
    assert_eq!(shown(&mut client, filter.clone()).await, Ok(ids(&[&old, &new])));
    let served = client.req("as-signed", &[json!({"kinds": [443]})]).await;
    assert_eq!(served, Ok(vec![old.clone()]));
    client.publish(&deletion(&alice, &[&old]).sign()).await.ok();
    assert_eq!(shown(&mut client, filter).await, Ok(ids(&[&new])));
}

/// A 30443 replaces the one with the same `d`; 443s do not replace each other.
#[tokio::test]
async fn addressable_packages_replace_by_identifier() {
    let world = World::new().await;
    let alice = Keys::random();
    let now = world.relay.now();
    let in_slot = |d: &str, at: u64| Package::new(&alice).draft(30443).tag(["d", d]).created_at(at).sign();
    let (a1, b1, a2) = (in_slot("a", now - 5), in_slot("b", now - 5), in_slot("a", now));
    let (x, y) = (Package::new(&alice).draft(443).sign(), Package::new(&alice).draft(443).sign());
    let mut client = world.client(&[]).await;
    for event in [&a1, &b1, &a2, &x, &y] {
        client.publish(event).await.ok();
    }
    assert_eq!(shown(&mut client, json!({"authors": [alice.hex()]})).await, Ok(ids(&[&b1, &a2, &x, &y])));
}

/// A reference names one KeyPackage of its owner: it is refused if the bytes differ, and only then.
#[tokio::test]
async fn a_reference_names_one_package_of_its_owner() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    let named = |by: &Keys, tag: &str, content: &str| by.event(443).tag([tag, "ref"]).content(content).sign();
    let mut client = world.client(&[]).await;
    client.publish(&named(&alice, "kpr", "first")).await.ok();
    client.publish(&named(&alice, "i", "second")).await.refused("invalid");
    client.publish(&named(&alice, "kpr", "second")).await.refused("invalid");
    client.publish(&named(&alice, "i", "first")).await.ok();
    client.publish(&alice.event(30443).tag(["d", "x"]).tag(["i", "ref"]).content("first").sign()).await.ok();
    client.publish(&named(&bob, "kpr", "second")).await.ok();
}

/// Events race with one reference and different bytes, and one of them wins.
#[tokio::test]
async fn one_racer_wins_a_reference() {
    let world = World::new().await;
    let alice = Keys::random();
    let racers = (0..8).map(|n| {
        let event = alice.event(443).tag(["kpr", "ref"]).content(n.to_string()).sign();
        let world = &world;
        async move { world.client(&[]).await.publish(&event).await }
    });
    let answers = futures_util::future::join_all(racers).await;
    assert_eq!(answers.iter().filter(|answer| answer.accepted).count(), 1);
}

/// A KeyPackage is kept until `exp`, `expiration` or the leaf's `not_after`, whichever is first.
#[tokio::test]
async fn the_first_end_holds() {
    let world = World::new().await;
    let alice = Keys::random();
    let now = world.relay.now();
    let at = |secs: u64| (now + secs).to_string();
    let ends = [
        (Package::new(&alice).draft(443).tag(["exp", &at(100)]).tag(["expiration", &at(200)]), 100),
        (Package::new(&alice).draft(443).tag(["exp", &at(300)]).tag(["expiration", &at(150)]), 150),
        (Package::until(&alice, now + 250).draft(443).tag(["exp", &at(400)]), 250),
        (Package::until(&alice, now + 350).draft(443), 350),
    ];
    let mut client = world.client(&[]).await;
    let ends: Vec<(Event, u64)> = ends.into_iter().map(|(draft, end)| (draft.sign(), end)).collect();
    for (event, _) in &ends {
        client.publish(event).await.ok();
    }
    for (event, end) in &ends {
        world.relay.clock.set(now + end - 1);
        assert!(sees(&mut client, event).await, "ends at {end}");
        world.relay.clock.set(now + end);
        assert!(!sees(&mut client, event).await, "ends at {end}");
    }
}

/// A KeyPackage whose leaf has ended is refused in every mode.
#[tokio::test]
async fn an_ended_leaf_is_refused() {
    for mode in [VerifyKeyPackages::Off, VerifyKeyPackages::Log, VerifyKeyPackages::Enforce] {
        let world = World::with(|config| config.mls_gateway.verify_keypackages = mode).await;
        let alice = Keys::random();
        let event = Package::until(&alice, world.relay.now() - 1).draft(443).sign();
        let reason = world.client(&[]).await.publish(&event).await.refused("invalid").to_owned();
        assert!(reason.contains("expired"), "{reason}");
    }
}

/// A KeyPackage that names no end is kept for `keypackage_ttl` from receipt, and none longer than
/// `keypackage_max_lifetime`.
#[tokio::test]
async fn packages_without_an_end_live_for_the_ttl() {
    let world = World::with(|config| {
        config.mls_gateway.keypackage_ttl_secs = 1_000;
        config.mls_gateway.keypackage_max_lifetime_secs = 5_000;
    })
    .await;
    let alice = Keys::random();
    let now = world.relay.now();
    let endless = key_package(&alice).created_at(now - 50_000).sign();
    let far = key_package(&alice).tag(["exp", "99999999999"]).sign();
    let mut client = world.client(&[]).await;
    for event in [&endless, &far] {
        client.publish(event).await.ok();
    }
    for (event, end) in [(&endless, 1_000), (&far, 5_000)] {
        world.relay.clock.set(now + end - 1);
        assert!(sees(&mut client, event).await);
        world.relay.clock.set(now + end);
        assert!(!sees(&mut client, event).await);
    }
}

/// The default of `keypackage_max_lifetime` is 90 days.
#[tokio::test]
async fn no_package_lives_past_ninety_days() {
    let world = World::new().await;
    let alice = Keys::random();
    let event = key_package(&alice).tag(["exp", &(world.relay.now() + 400 * DAY).to_string()]).sign();
    let mut client = world.client(&[]).await;
    client.publish(&event).await.ok();
    world.relay.advance(90 * DAY - 1);
    assert!(sees(&mut client, &event).await);
    world.relay.advance(1);
    assert!(!sees(&mut client, &event).await);
}

/// Faults that a KeyPackage's event can have, each with a word of its refusal.
fn faults(alice: &Keys) -> Vec<(Draft, &'static str)> {
    let other = Keys::random();
    let good = Package::new(alice);
    let mut forged = good.bytes.clone();
    let last = forged.len() - 1;
    forged[last] ^= 1;
    vec![
        (alice.event(443).content("bm90IGEgS2V5UGFja2FnZQ=="), "content"),
        (alice.event(443).content(""), "content"),
        (Package::new(&other).signed_by(alice, 443), "identity"),
        (good.draft(443).tag(["cs", "0x0003"]), "cs"),
        (good.draft(443).tag(["ciphersuite", "MLS_256_DHKEMX448_AES256GCM_SHA512_Ed448"]), "ciphersuite"),
        (good.draft(443).tag(["mls_ciphersuite", "nonsense"]), "mls_ciphersuite"),
        (alice.event(443).tag(["kpr", &"ab".repeat(32)]).content(good.base64()), "kpr"),
        (alice.event(443).tag(["i", "nonsense"]).content(good.base64()), "i tag"),
        (alice.event(443).content(real::base64(&forged)), "verify"),
    ]
}

/// `enforce` refuses an event that fails a check and names the check; it accepts events that pass.
#[tokio::test]
async fn enforce_says_which_check_failed() {
    let world = World::with(|config| config.mls_gateway.verify_keypackages = VerifyKeyPackages::Enforce).await;
    let alice = Keys::random();
    let mut client = world.client(&[]).await;
    for (draft, word) in faults(&alice) {
        let reason = client.publish(&draft.sign()).await.refused("invalid").to_owned();
        assert!(reason.contains(word), "{word}: {reason}");
    }
    let good = Package::new(&alice).draft(443);
    client.publish(&good.clone().tag(["cs", "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519"]).sign()).await.ok();
    client.publish(&good.tag(["mls_ciphersuite", "0x0001"]).sign()).await.ok();
}

/// `log` and `off` accept all of them, and serve them as signed.
#[tokio::test]
async fn log_and_off_take_what_fails_a_check() {
    for mode in [VerifyKeyPackages::Log, VerifyKeyPackages::Off] {
        let world = World::with(|config| config.mls_gateway.verify_keypackages = mode).await;
        let alice = Keys::random();
        let mut client = world.client(&[]).await;
        for (draft, _) in faults(&alice) {
            let event = draft.sign();
            client.publish(&event).await.ok();
            assert_eq!(client.req("x", &[json!({"ids": [event.id()]})]).await, Ok(vec![event]));
        }
    }
}

/// Content is base64 or hex, of a KeyPackage or of an MLSMessage that holds one; the identity is 32 bytes or 64 hex
/// digits.
#[tokio::test]
async fn contents_are_read_in_every_form() {
    let world = World::with(|config| config.mls_gateway.verify_keypackages = VerifyKeyPackages::Enforce).await;
    let alice = Keys::random();
    let mut client = world.client(&[]).await;
    let package = Package::new(&alice);
    let framed = [&[0, 1, 0, 5][..], &package.bytes].concat();
    let hex = nostr_protocol::hex::to_hex;
    for content in [package.base64(), real::base64(&framed), hex(&package.bytes), hex(&framed)] {
        client.publish(&alice.event(443).content(content.clone()).sign()).await.ok();
        let marked = alice.event(443).tag(["encoding", "base64"]).content(content.clone()).sign();
        let answer = client.publish(&marked).await;
        assert_eq!(answer.accepted, !content.bytes().all(|c| c.is_ascii_hexdigit()), "{}", answer.reason);
    }
    let by_hex = Package::with_identity(&alice, alice.hex().as_bytes());
    client.publish(&by_hex.draft(443).sign()).await.ok();
}

/// The KeyPackages of real clients pass every check.
#[tokio::test]
async fn packages_of_real_clients_pass() {
    let world = World::with(|config| config.mls_gateway.verify_keypackages = VerifyKeyPackages::Enforce).await;
    world.relay.clock.set(1_795_370_900);
    let mut client = world.client(&[]).await;
    let lines = [include_str!("../../vectors/gateway-events.jsonl"), include_str!("../../vectors/marmot-events.jsonl")];
    let mut taken = 0;
    for line in lines.iter().flat_map(|text| text.lines()) {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        let event = Event(line["event"].clone());
        let protected = event.0["tags"].as_array().expect("tags").contains(&json!(["-"]));
        if matches!(event.kind(), 443 | 30443) {
            let answer = client.publish(&event).await;
            if protected {
                answer.refused("auth-required");
            } else {
                answer.ok()
            }
            taken += 1;
        }
    }
    assert!(taken >= 7, "{taken}");
}
