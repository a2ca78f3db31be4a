//! docs/rules.md, "Identity": the key that acts, the owner of an event, several keys, AUTH, and the relay's names.

use nostr_extensions::mls_gateway::group::Role;
use nostr_relay::config::RelayUrl;
use serde_json::json;

use super::{World, ids, shown};
use crate::support::{
    Client, Draft, Keys,
    gateway::{deletion, key_package, message, noise, request, roster, welcome, wrap},
};

/// The reader acts, and not the author: a member may send a 445 by a throw-away key, and a stranger may not send a 445
/// that a member signed.
#[tokio::test]
async fn who_acts_is_the_reader_and_never_the_author() {
    let world = World::new().await;
    let [alice, bob, eve] = Keys::some();
    world.group("grp_a", &[&alice, &bob]).await;
    let by_member = alice.event(445).tag(["h", "grp_a"]).sign();
    world.client(&[&eve]).await.publish(&by_member).await.refused("restricted");
    world.client(&[]).await.publish(&by_member).await.refused("auth-required");
    world.client(&[&bob]).await.publish(&by_member).await.ok();
    world.client(&[&bob]).await.publish(&message("grp_a").sign()).await.ok();
    // Eve, who tried to publish it, cannot read it either.
    assert_eq!(shown(&mut world.client(&[&eve]).await, json!({"authors": [alice.hex()]})).await, Ok(vec![]));
}

/// With `auth.enabled` the owner of a 443, 30443, 5 or 62 must be one of the reader's keys.
#[tokio::test]
async fn with_auth_the_owner_is_on_the_connection() {
    let world = World::closed().await;
    let [alice, bob] = Keys::some();
    let note = alice.event(1).sign();
    world.client(&[&bob]).await.publish(&note).await.ok();
    let vanish = alice.event(62).tag(["relay", "ALL_RELAYS"]).sign();
    let owned = [key_package(&alice).sign(), addressable(&alice).sign(), deletion(&alice, &[&note]).sign(), vanish];
    for event in &owned {
        world.client(&[&bob]).await.publish(event).await.refused("restricted");
    }
    let mut both = world.client(&[&bob, &alice]).await;
    for event in &owned {
        both.publish(event).await.ok();
    }
}

fn addressable(owner: &Keys) -> Draft {
    owner.event(30443).tag(["d", "slot"]).content("x")
}

/// Without `auth.enabled` a signature is enough for 443, 30443, 5 and 62.
#[tokio::test]
async fn without_auth_a_signature_is_enough_for_what_is_ones_own() {
    let world = World::new().await;
    let alice = Keys::random();
    let mut anonymous = world.client(&[]).await;
    let package = key_package(&alice).sign();
    anonymous.publish(&package).await.ok();
    anonymous.publish(&addressable(&alice).sign()).await.ok();
    anonymous.publish(&deletion(&alice, &[&package]).sign()).await.ok();
    anonymous.publish(&alice.event(62).tag(["relay", "ALL_RELAYS"]).sign()).await.ok();
}

/// 447, 450 and protected events (NIP-70) always need their author's key on the connection.
#[tokio::test]
async fn protected_events_need_their_author_on_the_connection() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    let protected = alice.event(1).tag(["-"]).sign();
    let others = [
        (request(&world.admin, &bob).sign(), &world.admin),
        (roster(&world.admin, "grp_a", 1, "bootstrap", &[&bob]).sign(), &world.admin),
        (protected, &alice),
    ];
    for (event, author) in others {
        world.client(&[]).await.publish(&event).await.refused("auth-required");
        world.client(&[&bob]).await.publish(&event).await.refused("restricted");
        world.client(&[&bob, author]).await.publish(&event).await.ok();
    }
}

/// Several AUTH on one connection add keys: the reader has all of them at once.
#[tokio::test]
async fn several_auth_add_keys() {
    let world = World::new().await;
    let [alice, bob, carol] = Keys::some();
    world.group("grp_a", &[&alice]).await;
    let to_bob = wrap(&bob).sign();
    let from_carol = noise(&alice, &carol).sign();
    let mut client = world.client(&[&alice]).await;
    let said = message("grp_a").sign();
    for event in [&to_bob, &from_carol, &said] {
        client.publish(event).await.ok();
    }
    let filter = json!({"kinds": [445, 446, 1059]});
    assert_eq!(shown(&mut client, filter.clone()).await, Ok(ids(&[&said])));
    client.auth(&bob).await.ok();
    client.auth(&carol).await.ok();
    client.auth(&carol).await.ok();
    assert_eq!(shown(&mut client, filter).await, Ok(ids(&[&to_bob, &from_carol, &said])));
}

/// The first key is the primary one: it founds a group when the author is a throw-away key.
#[tokio::test]
async fn first_key_is_the_primary_one() {
    let world = World::new().await;
    let [alice, bob, carol] = Keys::some();
    world.client(&[&alice, &bob]).await.publish(&welcome(&carol, "grp_a").sign()).await.ok();
    let roles = world.roles("grp_a").await;
    assert_eq!(roles.get(&alice.hex()), Some(&Role::Admin));
    assert_eq!(roles.get(&carol.hex()), Some(&Role::Member));
    assert_eq!(roles.len(), 2, "the second key of the connection is no member");
}

/// A connection has at most 16 keys.
#[tokio::test]
async fn a_connection_has_at_most_sixteen_keys() {
    let world = World::new().await;
    let mut client = world.client(&[]).await;
    let keys: [Keys; 17] = Keys::some();
    for keys in &keys[..16] {
        client.auth(keys).await.ok();
    }
    client.auth(&keys[16]).await.refused("restricted");
    client.auth(&keys[3]).await.ok();
    assert_eq!(shown(&mut client, json!({"kinds": [1059]})).await, Ok(vec![]));
}

/// Every connection begins with a challenge of its own, with `auth.enabled` and without.
#[tokio::test]
async fn every_connection_gets_a_challenge_of_its_own() {
    for world in [World::new().await, World::closed().await] {
        let (one, two) = (world.client(&[]).await, world.client(&[]).await);
        assert!(one.challenge.len() >= 16);
        assert_ne!(one.challenge, two.challenge);
    }
}

/// AUTH checks kind, signature, challenge, time and relay; an AUTH that fails adds no key.
#[tokio::test]
async fn auth_is_checked() {
    let world = World::closed().await;
    let alice = Keys::random();
    let other = world.client(&[]).await.challenge;
    let mut client = world.client(&[]).await;
    let (url, challenge) = (world.relay.url.clone(), client.challenge.clone());
    let now = world.relay.now();
    let proof = |kind: u16, at: u64, relay: &str, challenge: &str| {
        alice.event(kind).created_at(at).tag(["relay", relay]).tag(["challenge", challenge])
    };
    let wrong = [
        proof(1, now, &url, &challenge),
        proof(22242, now - 601, &url, &challenge),
        proof(22242, now + 601, &url, &challenge),
        proof(22242, now, &url, &other),
        proof(22242, now, &url, ""),
        proof(22242, now, "wss://relay.example.com", &challenge),
        proof(22242, now, "not a url", &challenge),
        alice.event(22242).created_at(now).tag(["challenge", &challenge]),
        alice.event(22242).created_at(now).tag(["relay", &url]),
    ];
    for draft in wrong {
        client.send_auth(&draft.sign()).await.refused("invalid");
    }
    let mut forged = proof(22242, now, &url, &challenge).sign();
    forged.0["sig"] = json!("00".repeat(64));
    client.send_auth(&forged).await.refused("invalid");
    client.publish(&alice.event(1).sign()).await.refused("auth-required");
    for at in [now - 600, now + 600] {
        let mut client = world.client(&[]).await;
        let event = proof(22242, at, &url, &client.challenge).sign();
        client.send_auth(&event).await.ok();
        client.publish(&alice.event(1).sign()).await.ok();
    }
}

/// The `relay` tag must name `public_url` or an alias; then the Host header and the peer's address do not count.
#[tokio::test]
async fn auth_names_the_public_url_or_an_alias() {
    let world = World::with(|config| {
        config.server.public_url = Some(RelayUrl::parse("wss://relay.example.com").expect("a URL"));
        config.server.public_url_aliases = vec![RelayUrl::parse("ws://other.example:7000/nostr").expect("a URL")];
    })
    .await;
    let alice = Keys::random();
    for name in [
        "wss://relay.example.com",
        "wss://RELAY.example.com/",
        "wss://relay.example.com:443",
        "ws://other.example:7000/nostr/",
        "ws://other.example:7000",
    ] {
        auth_as(&mut world.client(&[]).await, &alice, name).await.ok();
    }
    for name in [
        world.relay.url.as_str(),
        "ws://other.example:7000/other",
        "ws://other.example/nostr",
        "wss://relay.example.com.evil",
        "wss://x@relay.example.com",
    ] {
        auth_as(&mut world.client(&[]).await, &alice, name).await.refused("invalid");
    }
}

async fn auth_as(client: &mut Client, keys: &Keys, relay: &str) -> crate::support::Answer {
    let event = keys.event(22242).tag(["relay", relay]).tag(["challenge", &client.challenge]).sign();
    client.send_auth(&event).await
}

/// Without `public_url` a peer on this machine may name any loopback host.
#[tokio::test]
async fn auth_without_public_url_takes_loopback_names() {
    let world = World::new().await;
    let alice = Keys::random();
    for name in ["ws://localhost:1234", "ws://127.0.0.1", "ws://[::1]:8080/"] {
        auth_as(&mut world.client(&[]).await, &alice, name).await.ok();
    }
    for name in ["ws://localhost.example", "ws://10.0.0.1", "wss://relay.example.com"] {
        auth_as(&mut world.client(&[]).await, &alice, name).await.refused("invalid");
    }
}

/// Without `public_url` a peer from elsewhere cannot authenticate, and the answer names the missing setting.
#[tokio::test]
async fn auth_without_public_url_is_refused_elsewhere() {
    let world = World::new().await;
    let alice = Keys::random();
    // With this header the peer is one from elsewhere, behind a proxy on this machine.
    let mut client = Client::connect_with(&world.relay, &[("x-forwarded-for", "203.0.113.9")]).await;
    let answer = client.auth(&alice).await;
    assert_eq!(answer.reason, "error: this relay needs [server] public_url to be set");
    assert!(!answer.accepted);
}

/// On Cloud Run without `public_url` the Host header counts.
#[tokio::test]
async fn auth_on_cloud_run_takes_the_host() {
    let world = World::with(|config| config.on_cloud_run = true).await;
    let alice = Keys::random();
    let host = world.relay.address.to_string();
    auth_as(&mut world.client(&[]).await, &alice, &format!("ws://{host}")).await.ok();
    auth_as(&mut world.client(&[]).await, &alice, "ws://localhost:1").await.refused("invalid");
    auth_as(&mut world.client(&[]).await, &alice, "wss://relay.example.com").await.refused("invalid");
}

/// A NIP-62 event must name the relay by the same rule.
#[tokio::test]
async fn vanish_names_this_relay() {
    let world = World::new().await;
    let alice = Keys::random();
    let mut client = world.client(&[]).await;
    let to = |relay: &str| alice.event(62).tag(["relay", relay]).sign();
    client.publish(&to("wss://relay.example.com")).await.refused("invalid");
    client.publish(&alice.event(62).sign()).await.refused("invalid");
    client.publish(&to(&world.relay.url)).await.ok();
    client.publish(&to("ALL_RELAYS")).await.ok();
}

/// A 22242 is never stored and never broadcast.
#[tokio::test]
async fn auth_events_are_neither_stored_nor_broadcast() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    let mut watcher = world.client(&[&alice]).await;
    watcher.req("live", &[json!({"kinds": [22242]}), json!({})]).await.expect("served");
    let mut client = world.client(&[&bob]).await;
    let event = client.auth_event(&bob);
    client.send_auth(&event).await.ok();
    client.publish(&event).await.refused("invalid");
    watcher.expect_nothing().await;
    assert_eq!(shown(&mut watcher, json!({"ids": [event.id()]})).await, Ok(vec![]));
}

/// With `auth.enabled` the relay answers nothing but AUTH before AUTH.
#[tokio::test]
async fn nothing_is_answered_before_auth() {
    let world = World::closed().await;
    let alice = Keys::random();
    let mut client = world.client(&[]).await;
    for event in [alice.event(1).sign(), key_package(&alice).sign(), wrap(&alice).sign(), alice.event(444).sign()] {
        client.publish(&event).await.refused("auth-required");
    }
    for filter in [json!({}), json!({"kinds": [1]}), json!({"kinds": [443]}), json!({"ids": ["00".repeat(32)]})] {
        let reason = shown(&mut client, filter).await.expect_err("no keys");
        assert!(reason.starts_with("auth-required: "), "{reason}");
    }
    client.auth(&alice).await.ok();
    client.publish(&alice.event(1).sign()).await.ok();
}
