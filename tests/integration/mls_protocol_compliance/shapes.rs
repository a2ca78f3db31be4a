//! docs/rules.md, "Who may publish, who may read" 3 and 4: the tags that each kind carries, and the form of group ids
//! and public keys.

use serde_json::json;

use super::{World, ids, shown};
use crate::support::{
    Keys,
    gateway::{capability, message, noise, roster, wrap},
};

/// 445 and 450 carry exactly one `h`.
#[tokio::test]
async fn messages_and_rosters_carry_one_group() {
    let world = World::new().await;
    let alice = Keys::random();
    let mut admin = world.admin().await;
    admin.publish(&Keys::random().event(445).sign()).await.refused("invalid");
    admin.publish(&message(&capability()).tag(["h", &capability()]).sign()).await.refused("invalid");
    admin.publish(&Keys::random().event(445).tag(["h"]).sign()).await.refused("invalid");
    let roster = roster(&world.admin, "grp_a", 1, "bootstrap", &[&alice]);
    admin.publish(&roster.clone().tag(["h", "grp_a"]).sign()).await.refused("invalid");
    admin.publish(&roster.sign()).await.ok();
}

/// 1059 carries at most one `h`.
#[tokio::test]
async fn wraps_carry_at_most_one_group() {
    let world = World::new().await;
    let bob = Keys::random();
    let mut client = world.client(&[]).await;
    client.publish(&wrap(&bob).sign()).await.ok();
    client.publish(&wrap(&bob).tag(["h", &capability()]).sign()).await.ok();
    client.publish(&wrap(&bob).tag(["h", "grp_a"]).sign()).await.refused("auth-required");
    client.publish(&wrap(&bob).tag(["h", "grp_a"]).tag(["h", "grp_b"]).sign()).await.refused("invalid");
}

/// 446, 447, 1059 and 21059 carry exactly one `p`.
#[tokio::test]
async fn messages_to_a_key_carry_one_recipient() {
    let world = World::new().await;
    let [alice, bob, carol] = Keys::some();
    let mut admin = world.admin().await;
    for kind in [446, 447, 1059, 21059] {
        let bare = || world.admin.event(kind).tag(["v", "noise.1"]);
        admin.publish(&bare().sign()).await.refused("invalid");
        admin.publish(&bare().tag(["p", &bob.hex()]).tag(["p", &carol.hex()]).sign()).await.refused("invalid");
        admin.publish(&bare().tag(["p", &bob.hex()]).tag(["p", &bob.hex()]).sign()).await.refused("invalid");
        admin.publish(&bare().tag(["p", &bob.hex()]).sign()).await.ok();
    }
    world.client(&[]).await.publish(&noise(&alice, &bob).sign()).await.ok();
}

/// A public key is 64 lower-case hex digits.
#[tokio::test]
async fn public_keys_are_lower_case_hex() {
    let world = World::new().await;
    let bob = Keys::random();
    let mut client = world.client(&[]).await;
    for key in [
        bob.hex().to_uppercase(),
        bob.hex()[..63].to_owned(),
        format!("{}0", bob.hex()),
        bob.public().to_npub(),
        String::new(),
    ] {
        client.publish(&Keys::random().event(1059).tag(["p", &key]).sign()).await.refused("invalid");
    }
    let reason = client.req("x", &[json!({"authors": [bob.hex().to_uppercase()]})]).await.expect_err("upper case");
    assert!(reason.starts_with("invalid: "), "{reason}");
}

/// A `p` on a 445 grants nothing and narrows nothing.
#[tokio::test]
async fn a_hint_on_a_message_grants_and_narrows_nothing() {
    let world = World::new().await;
    let [alice, bob, eve] = Keys::some();
    world.group("grp_a", &[&alice, &bob]).await;
    let event = message("grp_a").tag(["p", &alice.hex()]).tag(["p", &eve.hex()]).tag(["p", "nonsense"]).sign();
    world.client(&[&alice]).await.publish(&event).await.ok();
    let by_hint = json!({"kinds": [445], "#p": [eve.hex()]});
    assert_eq!(shown(&mut world.client(&[&bob]).await, by_hint.clone()).await, Ok(ids(&[&event])));
    assert_eq!(shown(&mut world.client(&[&eve]).await, by_hint).await, Ok(vec![]));
}

/// A group id is 1 to 128 characters of `A-Z a-z 0-9 _ . : -`, the first a letter or digit.
#[tokio::test]
async fn group_ids_are_of_one_alphabet() {
    let world = World::new().await;
    let alice = Keys::random();
    let mut admin = world.admin().await;
    for group in ["a", "9", "Az09_.:-", &"x".repeat(128)] {
        admin.publish(&roster(&world.admin, group, 1, "bootstrap", &[&alice]).sign()).await.ok();
        world.client(&[&alice]).await.publish(&message(group).sign()).await.ok();
    }
    for group in ["", "_a", ".a", ":a", "-a", "a b", "a/b", "a%2Fb", "a\0", "grüppe", "a\n", "a,b", &"x".repeat(129)] {
        admin.publish(&roster(&world.admin, group, 1, "bootstrap", &[&alice]).sign()).await.refused("invalid");
        admin.publish(&message(group).sign()).await.refused("invalid");
    }
}

/// Group ids are compared byte for byte.
#[tokio::test]
async fn group_ids_are_compared_byte_for_byte() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    world.group("grp_a", &[&alice]).await;
    world.group("Grp_a", &[&bob]).await;
    let event = message("grp_a").sign();
    world.client(&[&bob]).await.publish(&event).await.refused("restricted");
    world.client(&[&alice]).await.publish(&event).await.ok();
    assert_eq!(shown(&mut world.client(&[&alice]).await, json!({"#h": ["GRP_A", "Grp_a"]})).await, Ok(vec![]));
    assert_eq!(shown(&mut world.client(&[&bob]).await, json!({"#h": ["grp_a"]})).await, Ok(vec![]));
}

/// Times in tags are Unix seconds: milliseconds are refused with a reason that says so, and other texts are refused
/// too.
#[tokio::test]
async fn milliseconds_are_refused_as_such() {
    let world = World::new().await;
    let alice = Keys::random();
    let mut client = world.client(&[&alice]).await;
    let ms = (world.relay.now() * 1_000 + 60_000).to_string();
    for (kind, tag) in [(1, "expiration"), (443, "exp"), (443, "expiration"), (1059, "expiration")] {
        let draft = || alice.event(kind).tag(["p", &alice.hex()]);
        for value in [ms.as_str(), "100000000001", "99999999999999999999999999"] {
            let reason = client.publish(&draft().tag([tag, value]).sign()).await.refused("invalid").to_owned();
            assert!(reason.contains("milliseconds"), "{reason}");
        }
        for value in ["", "soon", "-5", "1.5", "1e9"] {
            client.publish(&draft().tag([tag, value]).sign()).await.refused("invalid");
        }
    }
}
