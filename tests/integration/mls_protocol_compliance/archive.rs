//! docs/rules.md, "Archive", and expiry: how long each kind is kept.

use nostr_relay::config::Config;
use serde_json::json;

use super::{World, ids, sees, shown};
use crate::support::{
    Keys,
    gateway::{capability, deletion, message, noise, roster, wrap},
};

const DAY: u64 = 86_400;

/// 445, 446 and 1059 are kept for `message_archive_ttl_days` from receipt, even if they are back-dated.
#[tokio::test]
async fn archive_counts_from_receipt() {
    let world = World::with(|config| config.mls_gateway.message_archive_ttl_days = 1).await;
    let [alice, bob] = Keys::some();
    world.group("grp_a", &[&bob]).await;
    let past = world.relay.now() - 2 * DAY;
    let events = [
        wrap(&bob).created_at(past).sign(),
        noise(&alice, &bob).created_at(past).sign(),
        message("grp_a").created_at(past).sign(),
    ];
    let mut bobs = world.client(&[&bob]).await;
    for event in &events {
        bobs.publish(event).await.ok();
    }
    let filter = json!({"kinds": [445, 446, 1059]});
    world.relay.advance(DAY - 1);
    assert_eq!(shown(&mut bobs, filter.clone()).await, Ok(ids(&[&events[0], &events[1], &events[2]])));
    world.relay.advance(1);
    assert_eq!(shown(&mut bobs, filter).await, Ok(vec![]));
}

fn off(config: &mut Config) {
    config.mls_gateway.enable_message_archive = false;
}

/// Without the archive 445 and 446 are delivered to connected readers, and not kept.
#[tokio::test]
async fn without_archive_messages_are_delivered_and_not_kept() {
    let world = World::with(off).await;
    let [alice, bob, eve] = Keys::some();
    world.group("grp_a", &[&alice, &bob]).await;
    let filter = json!({"kinds": [445, 446]});
    let mut bobs = world.client(&[&bob]).await;
    let mut eves = world.client(&[&eve]).await;
    for client in [&mut bobs, &mut eves] {
        client.req("live", std::slice::from_ref(&filter)).await.expect("served");
    }
    let said = [message("grp_a").sign(), noise(&alice, &bob).sign()];
    let mut alices = world.client(&[&alice]).await;
    for event in &said {
        alices.publish(event).await.ok();
    }
    assert_eq!(bobs.received("live").await, said);
    eves.expect_nothing().await;
    assert_eq!(shown(&mut bobs, filter).await, Ok(vec![]));
    for event in &said {
        assert_eq!(shown(&mut bobs, json!({"ids": [event.id()]})).await, Ok(vec![]));
        let again = alices.publish(event).await;
        assert!(again.accepted, "{again:?}");
    }
}

/// Without the archive a 1059 is kept for `welcome_ttl` from receipt.
#[tokio::test]
async fn without_archive_wraps_are_kept_for_welcome_ttl() {
    let world = World::with(|config| {
        off(config);
        config.mls_gateway.welcome_ttl_secs = 100;
    })
    .await;
    let bob = Keys::random();
    let event = wrap(&bob).created_at(world.relay.now() - 2 * DAY).sign();
    let mut bobs = world.client(&[&bob]).await;
    bobs.publish(&event).await.ok();
    world.relay.advance(99);
    assert!(sees(&mut bobs, &event).await);
    world.relay.advance(1);
    assert!(!sees(&mut bobs, &event).await);
}

/// `expiration` shortens each of these times, and lengthens none.
#[tokio::test]
async fn expiration_shortens_and_never_lengthens() {
    let world = World::with(|config| config.mls_gateway.message_archive_ttl_days = 1).await;
    let [alice, bob] = Keys::some();
    let now = world.relay.now();
    let mut bobs = world.client(&[&bob]).await;
    let until = |secs: u64| (now + secs).to_string();
    let short = [
        wrap(&bob).tag(["expiration", &until(50)]).sign(),
        noise(&alice, &bob).tag(["expiration", &until(50)]).sign(),
        alice.event(1).tag(["expiration", &until(50)]).sign(),
        alice.event(4).tag(["p", &bob.hex()]).tag(["expiration", &until(50)]).sign(),
        alice.event(30023).tag(["d", "x"]).tag(["expiration", &until(50)]).sign(),
    ];
    let long = wrap(&bob).tag(["expiration", &until(10 * DAY)]).sign();
    for event in short.iter().chain([&long]) {
        bobs.publish(event).await.ok();
    }
    world.relay.advance(49);
    for event in &short {
        assert!(sees(&mut bobs, event).await);
    }
    world.relay.advance(1);
    for event in &short {
        assert!(!sees(&mut bobs, event).await, "kind {}", event.kind());
    }
    world.relay.advance(DAY - 51);
    assert!(sees(&mut bobs, &long).await);
    world.relay.advance(1);
    assert!(!sees(&mut bobs, &long).await);
}

/// An event that has expired is refused.
#[tokio::test]
async fn expired_events_are_refused() {
    let world = World::new().await;
    let alice = Keys::random();
    let now = world.relay.now();
    let mut client = world.client(&[]).await;
    for at in [1, now - 1, now] {
        let event = alice.event(1).tag(["expiration", &at.to_string()]).sign();
        client.publish(&event).await.refused("invalid");
    }
}

/// On 5, 62 and 450 an `expiration` is refused.
#[tokio::test]
async fn what_must_last_carries_no_expiration() {
    let world = World::new().await;
    let alice = Keys::random();
    let until = (world.relay.now() + DAY).to_string();
    let mut admin = world.admin().await;
    let note = alice.event(1).sign();
    admin.publish(&note).await.ok();
    for draft in [
        deletion(&alice, &[&note]),
        alice.event(62).tag(["relay", "ALL_RELAYS"]),
        roster(&world.admin, "grp_a", 1, "bootstrap", &[&alice]),
    ] {
        admin.publish(&draft.clone().tag(["expiration", &until]).sign()).await.refused("invalid");
        admin.publish(&draft.sign()).await.ok();
    }
}

/// An expired event is never served, swept or not; a sweep removes the expired events and no others.
#[tokio::test]
async fn sweeping_removes_what_has_expired_and_nothing_else() {
    let world = World::new().await;
    let alice = Keys::random();
    let now = world.relay.now();
    let mut client = world.client(&[&alice]).await;
    let kept = alice.event(1).content("kept").sign();
    let brief = |n: u64| alice.event(1).content(n.to_string()).tag(["expiration", &(now + 10 + n).to_string()]).sign();
    client.publish(&kept).await.ok();
    for n in 0..5 {
        client.publish(&brief(n)).await.ok();
    }
    let stored = async || world.relay.app().store.stats().await.expect("the store answers").events;
    assert_eq!(stored().await, 6);
    assert_eq!(world.sweep().await, 0);
    world.relay.advance(12);
    let filter = json!({"kinds": [1]});
    assert_eq!(shown(&mut client, filter.clone()).await.map(|ids| ids.len()), Ok(3));
    assert_eq!(world.sweep().await, 3);
    assert_eq!(stored().await, 3);
    world.relay.advance(10);
    assert_eq!(world.sweep().await, 2);
    assert_eq!(shown(&mut client, filter).await, Ok(ids(&[&kept])));
}

/// Kinds 4, 5 and 1 are kept without end.
#[tokio::test]
async fn other_kinds_are_kept_without_end() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    let gone = alice.event(1).content("gone").sign();
    let events =
        [alice.event(1).sign(), alice.event(4).tag(["p", &bob.hex()]).sign(), deletion(&alice, &[&gone]).sign()];
    let mut client = world.client(&[&alice]).await;
    for event in [&gone].into_iter().chain(&events) {
        client.publish(event).await.ok();
    }
    world.relay.advance(3_000 * DAY);
    world.sweep().await;
    for event in &events {
        assert!(sees(&mut client, event).await, "kind {}", event.kind());
    }
    client.publish(&gone).await.refused("blocked");
}

/// A message of an unlisted group is kept like any other.
#[tokio::test]
async fn unlisted_messages_are_archived() {
    let world = World::with(|config| config.mls_gateway.message_archive_ttl_days = 1).await;
    let group = capability();
    let event = message(&group).sign();
    let mut client = world.client(&[]).await;
    client.publish(&event).await.ok();
    let filter = json!({"kinds": [445], "#h": [group]});
    world.relay.advance(DAY - 1);
    assert_eq!(shown(&mut client, filter.clone()).await, Ok(ids(&[&event])));
    world.relay.advance(1);
    assert_eq!(shown(&mut client, filter).await, Ok(vec![]));
}

/// Among replaceable or addressable events the newest is kept (NIP-01).
#[tokio::test]
async fn replaceable_events_keep_the_newest() {
    let world = World::new().await;
    let alice = Keys::random();
    let now = world.relay.now();
    let mut client = world.client(&[]).await;
    let profile = |at: u64, text: &str| alice.event(0).created_at(at).content(text).sign();
    let (old, new) = (profile(now - 10, "old"), profile(now, "new"));
    client.publish(&new).await.ok();
    let reason = client.publish(&old).await.refused("duplicate").to_owned();
    assert_eq!(reason, "duplicate: a newer version is stored");
    assert_eq!(shown(&mut client, json!({"kinds": [0]})).await, Ok(ids(&[&new])));
    let article = |d: &str, text: &str| alice.event(30023).tag(["d", d]).created_at(now - 5).content(text).sign();
    let (a, b) = (article("a", "1"), article("b", "1"));
    for event in [&a, &b] {
        client.publish(event).await.ok();
    }
    let newer = alice.event(30023).tag(["d", "a"]).created_at(now).content("2").sign();
    client.publish(&newer).await.ok();
    assert_eq!(shown(&mut client, json!({"kinds": [30023]})).await, Ok(ids(&[&b, &newer])));
}
