//! The specification's table of kinds, line by line, and the table of docs/rules.md, "Who may publish, who may read".

use serde_json::json;

use super::{World, ids, sees, shown};
use crate::support::{
    Keys,
    gateway::{key_package, message, noise, request, roster, welcome, wrap},
};

/// 443: the owner tag must name the author.
#[tokio::test]
async fn key_package_with_another_owner_is_refused() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    let mut client = world.client(&[&alice]).await;
    client.publish(&key_package(&alice).sign()).await.ok();
    let of_another = alice.event(443).tag(["p", &bob.hex()]).content("x").sign();
    client.publish(&of_another).await.refused("invalid");
    client.publish(&alice.event(443).content("no p at all").sign()).await.ok();
}

/// 443: an `exp` in the past is refused; one in the future is accepted, and the event ends then.
#[tokio::test]
async fn key_package_expires() {
    let world = World::new().await;
    let alice = Keys::random();
    let mut client = world.client(&[&alice]).await;
    let now = world.relay.now();
    let stale = key_package(&alice).tag(["exp", &(now - 1).to_string()]).sign();
    assert!(client.publish(&stale).await.refused("invalid").contains("expired"));
    let fresh = key_package(&alice).tag(["exp", &(now + 60).to_string()]).sign();
    client.publish(&fresh).await.ok();
    assert!(sees(&mut client, &fresh).await);
    world.relay.advance(60);
    assert!(!sees(&mut client, &fresh).await);
}

/// 443: public to authenticated users, and with `auth.enabled = false` to everyone.
#[tokio::test]
async fn key_package_is_public() {
    let [alice, bob] = Keys::some();
    let open = World::new().await;
    let event = key_package(&alice).sign();
    open.client(&[]).await.publish(&event).await.ok();
    assert!(sees(&mut open.client(&[]).await, &event).await);
    assert!(sees(&mut open.client(&[&bob]).await, &event).await);

    let closed = World::closed().await;
    closed.client(&[&alice]).await.publish(&event).await.ok();
    assert!(sees(&mut closed.client(&[&bob]).await, &event).await);
    let refusal = shown(&mut closed.client(&[]).await, json!({"kinds": [443]})).await.expect_err("no keys");
    assert!(refusal.starts_with("auth-required: "), "{refusal}");
}

/// 444 and the other inner kinds are never accepted as events of their own.
#[tokio::test]
async fn inner_kinds_are_never_top_level() {
    let world = World::new().await;
    let alice = Keys::random();
    let mut client = world.admin().await;
    client.auth(&alice).await.ok();
    for kind in [13, 444, 448, 449, 451] {
        for by in [&alice, &world.admin] {
            client.publish(&by.event(kind).content("x").sign()).await.refused("blocked");
        }
        assert_eq!(shown(&mut client, json!({"kinds": [kind]})).await, Ok(vec![]));
    }
}

/// 445: published by members, read by members.
#[tokio::test]
async fn group_message_is_for_members() {
    let world = World::new().await;
    let [alice, bob, eve] = Keys::some();
    world.group("grp_a", &[&alice, &bob]).await;
    let event = message("grp_a").tag(["k", "1"]).tag(["p", &eve.hex()]).sign();
    world.client(&[&eve]).await.publish(&event).await.refused("restricted");
    world.client(&[]).await.publish(&event).await.refused("auth-required");
    world.admin().await.publish(&event).await.refused("restricted");
    world.client(&[&alice]).await.publish(&event).await.ok();
    assert!(sees(&mut world.client(&[&alice]).await, &event).await);
    assert!(sees(&mut world.client(&[&bob]).await, &event).await);
    assert!(!sees(&mut world.client(&[&eve]).await, &event).await);
    assert!(!sees(&mut world.client(&[]).await, &event).await);
    assert!(!sees(&mut world.admin().await, &event).await, "an admin key is no member");
}

/// 446: for its recipient alone, and marked as `noise.1`.
#[tokio::test]
async fn noise_message_is_for_its_recipient() {
    let world = World::new().await;
    let [alice, bob, eve] = Keys::some();
    let event = noise(&alice, &bob).sign();
    world.client(&[]).await.publish(&event).await.ok();
    assert!(sees(&mut world.client(&[&bob]).await, &event).await);
    assert!(!sees(&mut world.client(&[&alice]).await, &event).await, "its author is no recipient");
    assert!(!sees(&mut world.client(&[&eve]).await, &event).await);
    assert!(!sees(&mut world.client(&[]).await, &event).await);
    for version in [None, Some("noise.2")] {
        let draft = alice.event(446).tag(["p", &bob.hex()]);
        let draft = version.into_iter().fold(draft, |draft, version| draft.tag(["v", version]));
        world.client(&[&alice]).await.publish(&draft.sign()).await.refused("invalid");
    }
}

/// 447: by the system key or an admin key, for its recipient alone.
#[tokio::test]
async fn key_package_request_is_for_its_recipient() {
    let system = Keys::random();
    let world = World::with(|config| config.mls_gateway.system_pubkey = Some(system.public())).await;
    let [bob, eve] = Keys::some();
    let by_admin = request(&world.admin, &bob).tag(["h", "grp_a"]).tag(["cs", "0x0001"]).tag(["min", "5"]).sign();
    let by_system = request(&system, &bob).sign();
    world.admin().await.publish(&by_admin).await.ok();
    world.client(&[&system]).await.publish(&by_system).await.ok();
    world.client(&[&eve]).await.publish(&request(&eve, &bob).sign()).await.refused("restricted");
    let mut bobs = world.client(&[&bob]).await;
    assert_eq!(shown(&mut bobs, json!({"kinds": [447]})).await, Ok(ids(&[&by_admin, &by_system])));
    assert!(!sees(&mut world.client(&[&eve]).await, &by_admin).await);
    assert!(!sees(&mut world.admin().await, &by_admin).await, "its author is no recipient");
}

/// 450: by admins, for members and admin keys.
#[tokio::test]
async fn roster_is_for_members_and_admin_keys() {
    let world = World::new().await;
    let [alice, eve] = Keys::some();
    let event = roster(&world.admin, "grp_a", 1, "bootstrap", &[&alice]).sign();
    world
        .client(&[&eve])
        .await
        .publish(&roster(&eve, "grp_a", 1, "bootstrap", &[&eve]).sign())
        .await
        .refused("restricted");
    world.admin().await.publish(&event).await.ok();
    assert!(sees(&mut world.client(&[&alice]).await, &event).await);
    assert!(sees(&mut world.admin().await, &event).await);
    assert!(!sees(&mut world.client(&[&eve]).await, &event).await);
    assert!(!sees(&mut world.client(&[]).await, &event).await);
}

/// 1059: by anyone, for its recipient alone.
#[tokio::test]
async fn gift_wrap_is_for_its_recipient() {
    let world = World::new().await;
    let [alice, bob, eve] = Keys::some();
    let anonymous = wrap(&bob).sign();
    let named = welcome(&bob, "grp_a").sign();
    world.client(&[]).await.publish(&anonymous).await.ok();
    world.client(&[&alice]).await.publish(&named).await.ok();
    let mut bobs = world.client(&[&bob]).await;
    assert_eq!(shown(&mut bobs, json!({"kinds": [1059]})).await, Ok(ids(&[&anonymous, &named])));
    for keys in [&alice, &eve, &world.admin] {
        assert!(!sees(&mut world.client(&[keys]).await, &named).await);
        assert!(!sees(&mut world.client(&[keys]).await, &anonymous).await);
    }
}

/// 21059: delivered to its recipient while that is connected, and never stored.
#[tokio::test]
async fn ephemeral_gift_wrap_is_live_only() {
    let world = World::new().await;
    let [bob, eve] = Keys::some();
    let mut bobs = world.client(&[&bob]).await;
    let mut eves = world.client(&[&eve]).await;
    for client in [&mut bobs, &mut eves] {
        client.req("live", &[json!({"kinds": [21059]})]).await.expect("served");
    }
    let event = Keys::random().event(21059).tag(["p", &bob.hex()]).tag(["h", "grp_a"]).sign();
    world.client(&[&eve]).await.publish(&event).await.ok();
    assert_eq!(bobs.received("live").await, std::slice::from_ref(&event));
    eves.expect_nothing().await;
    assert_eq!(shown(&mut bobs, json!({"kinds": [21059]})).await, Ok(vec![]));
    world.client(&[&eve]).await.publish(&message("grp_a").sign()).await.refused("restricted");
}

/// 4: for its author and its recipients.
#[tokio::test]
async fn encrypted_message_is_for_author_and_recipients() {
    let world = World::new().await;
    let [alice, bob, carol, eve] = Keys::some();
    let event = alice.event(4).tag(["p", &bob.hex()]).tag(["p", &carol.hex()]).sign();
    world.client(&[]).await.publish(&event).await.ok();
    for keys in [&alice, &bob, &carol] {
        assert!(sees(&mut world.client(&[keys]).await, &event).await);
    }
    assert!(!sees(&mut world.client(&[&eve]).await, &event).await);
    assert!(!sees(&mut world.client(&[]).await, &event).await);
}

/// Any other kind: everyone, or any authenticated reader when `auth.enabled`.
#[tokio::test]
async fn other_kinds_are_public() {
    let [alice, bob] = Keys::some();
    let event = alice.event(1).content("hello").sign();
    let open = World::new().await;
    open.client(&[]).await.publish(&event).await.ok();
    assert!(sees(&mut open.client(&[]).await, &event).await);

    let closed = World::closed().await;
    closed.client(&[&bob]).await.publish(&event).await.ok();
    assert!(sees(&mut closed.client(&[&bob]).await, &event).await, "a reader may publish a note of another author");
    assert!(shown(&mut closed.client(&[]).await, json!({"kinds": [1]})).await.is_err());
}
