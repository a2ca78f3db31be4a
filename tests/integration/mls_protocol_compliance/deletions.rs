//! docs/rules.md, "Deletion": kind 5 (NIP-09) and kind 62 (NIP-62).

use nostr_extensions::mls_gateway::group::Role;
use serde_json::json;

use super::{World, ids, sees, shown};
use crate::support::{
    Draft, Event, Keys,
    gateway::{deletion, key_package, message, noise, request, roster, welcome, wrap},
};

/// A kind 5 removes its author's own events, and no other author's.
#[tokio::test]
async fn a_deletion_removes_the_authors_own_events() {
    let world = World::new().await;
    let [alice, eve] = Keys::some();
    let mut client = world.client(&[&alice, &eve]).await;
    let own = [alice.event(1).sign(), key_package(&alice).sign(), alice.event(4).tag(["p", &eve.hex()]).sign()];
    for event in &own {
        client.publish(event).await.ok();
    }
    let targets: Vec<&Event> = own.iter().collect();
    client.publish(&deletion(&eve, &targets).sign()).await.refused("restricted");
    for event in &own {
        assert!(sees(&mut client, event).await, "kind {}", event.kind());
    }
    client.publish(&deletion(&alice, &targets).sign()).await.ok();
    for event in &own {
        assert!(!sees(&mut client, event).await, "kind {}", event.kind());
        client.publish(event).await.refused("blocked");
    }
}

/// A recipient's kind 5 removes the 446, 447 and 1059 addressed to it, but no 4.
#[tokio::test]
async fn a_recipient_removes_what_was_sent_to_it() {
    let world = World::new().await;
    let [alice, bob, carol] = Keys::some();
    let mut client = world.client(&[&alice, &bob, &world.admin]).await;
    let sent = [noise(&alice, &bob).sign(), request(&world.admin, &bob).sign(), wrap(&bob).sign()];
    let dm = alice.event(4).tag(["p", &bob.hex()]).sign();
    for event in sent.iter().chain([&dm]) {
        client.publish(event).await.ok();
    }
    let targets: Vec<&Event> = sent.iter().chain([&dm]).collect();
    client.publish(&deletion(&carol, &targets).sign()).await.ok();
    for event in &sent {
        assert!(sees(&mut client, event).await);
    }
    client.publish(&deletion(&bob, &targets).sign()).await.ok();
    for event in &sent {
        assert!(!sees(&mut client, event).await, "kind {}", event.kind());
        // The sender does not learn of it.
        let again = client.publish(event).await;
        assert!(again.accepted && again.reason.starts_with("duplicate: "), "{again:?}");
        assert!(!sees(&mut client, event).await, "kind {}", event.kind());
    }
    assert!(sees(&mut client, &dm).await);
}

/// A kind 5 that names a 445 or a 450 is `blocked:`, and removes none of its other targets.
#[tokio::test]
async fn messages_and_rosters_are_never_deleted() {
    let world = World::new().await;
    let alice = Keys::random();
    world.group("grp_a", &[&alice]).await;
    let said = alice.event(445).tag(["h", "grp_a"]).sign();
    let listed = roster(&world.admin, "grp_a", 2, "promote", &[&alice]).sign();
    let note = alice.event(1).sign();
    let mut client = world.client(&[&alice, &world.admin]).await;
    for event in [&said, &listed, &note] {
        client.publish(event).await.ok();
    }
    client.publish(&deletion(&alice, &[&note, &said]).sign()).await.refused("blocked");
    client.publish(&deletion(&world.admin, &[&listed]).sign()).await.refused("blocked");
    client.publish(&deletion(&alice, &[&note]).tag(["k", "445"]).sign()).await.refused("blocked");
    let by_address = alice.event(5).tag(["a", &format!("450:{}:", alice.hex())]).sign();
    client.publish(&by_address).await.refused("blocked");
    for event in [&said, &listed, &note] {
        assert!(sees(&mut client, event).await, "kind {}", event.kind());
    }
}

/// A deletion that comes before a 445 does not keep the 445 out.
#[tokio::test]
async fn an_early_deletion_keeps_no_message_out() {
    let world = World::new().await;
    let alice = Keys::random();
    world.group("grp_a", &[&alice]).await;
    let said = alice.event(445).tag(["h", "grp_a"]).sign();
    let mut client = world.client(&[&alice]).await;
    client.publish(&deletion(&alice, &[&said]).sign()).await.ok();
    client.publish(&said).await.ok();
    assert!(sees(&mut client, &said).await);
}

/// A kind 5 has at most 500 targets, and at least one.
#[tokio::test]
async fn a_deletion_has_at_most_five_hundred_targets() {
    let world = World::new().await;
    let alice = Keys::random();
    let mut client = world.client(&[]).await;
    let of = |count: usize| alice.event(5).tags("e", (0..count).map(|n| format!("{n:064x}"))).sign();
    client.publish(&of(0)).await.refused("invalid");
    client.publish(&of(501)).await.refused("invalid");
    client.publish(&of(500)).await.ok();
}

/// A tombstone is (target, deleter); it is checked against author or recipient when the target arrives.
#[tokio::test]
async fn tombstones_hold_for_their_owner_alone() {
    let world = World::new().await;
    let [alice, bob, eve] = Keys::some();
    let note = alice.event(1).sign();
    let to_bob = wrap(&bob).sign();
    let other = wrap(&bob).sign();
    let mut client = world.client(&[]).await;
    client.publish(&deletion(&eve, &[&note, &to_bob, &other]).sign()).await.ok();
    client.publish(&deletion(&bob, &[&to_bob, &note]).sign()).await.ok();
    client.publish(&note).await.ok();
    client.publish(&other).await.ok();
    let deleted = client.publish(&to_bob).await;
    assert!(deleted.accepted && deleted.reason.starts_with("duplicate: "), "{deleted:?}");
    assert!(!sees(&mut world.client(&[&bob]).await, &to_bob).await);
    client.publish(&deletion(&alice, &[&note]).sign()).await.ok();
    client.publish(&note).await.refused("blocked");
}

/// A deletion by address removes its author's own events at the address, up to the deletion's time.
#[tokio::test]
async fn an_address_deletes_what_is_older() {
    let world = World::new().await;
    let [alice, eve] = Keys::some();
    let now = world.relay.now();
    let article = |at: u64| alice.event(30023).tag(["d", "x"]).created_at(at).sign();
    let by_address =
        |by: &Keys, at: u64| by.event(5).tag(["a", &format!("30023:{}:x", alice.hex())]).created_at(at).sign();
    let mut client = world.client(&[]).await;
    let old = article(now - 100);
    client.publish(&old).await.ok();
    client.publish(&by_address(&eve, now)).await.refused("restricted");
    assert!(sees(&mut client, &old).await);
    client.publish(&by_address(&alice, now - 50)).await.ok();
    assert!(!sees(&mut client, &old).await);
    client.publish(&article(now - 60)).await.refused("blocked");
    client.publish(&article(now - 40)).await.ok();
}

/// A deletion is public, unless it names an event that is private to its author, or a kind of private events.
#[tokio::test]
async fn deletions_of_what_is_private_are_for_their_author() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    let (note, other, hidden) = (alice.event(1).sign(), alice.event(1).content("2").sign(), wrap(&alice).sign());
    let unknown = alice.event(1).content("never published").sign();
    let mut client = world.client(&[&alice]).await;
    for event in [&note, &other, &hidden] {
        client.publish(event).await.ok();
    }
    let public = deletion(&alice, &[&note]).sign();
    let again = deletion(&alice, &[&note]).content("once more").sign();
    let of_hidden = deletion(&alice, &[&hidden]).sign();
    let mixed = deletion(&alice, &[&other, &unknown]).sign();
    let by_kind = deletion(&alice, &[&unknown]).tag(["k", "1059"]).sign();
    // A wrap to another key is as unknown to alice as an event that does not exist.
    let to_bob = wrap(&bob).sign();
    let of_others = deletion(&alice, &[&to_bob]).sign();
    for event in [&public, &again, &of_hidden, &mixed, &by_kind, &to_bob, &of_others] {
        client.publish(event).await.ok();
    }
    let filter = json!({"kinds": [5]});
    let all = [&public, &again, &of_hidden, &mixed, &by_kind, &of_others];
    assert_eq!(shown(&mut client, filter.clone()).await, Ok(ids(&all)));
    for mut reader in [world.client(&[]).await, world.client(&[&bob]).await] {
        assert_eq!(shown(&mut reader, filter.clone()).await, Ok(ids(&[&public, &again, &mixed, &of_others])));
    }
    assert!(sees(&mut world.client(&[&bob]).await, &to_bob).await);
}

/// A deletion cannot be deleted.
#[tokio::test]
async fn deletions_are_not_deleted() {
    let world = World::new().await;
    let alice = Keys::random();
    let note = alice.event(1).sign();
    let first = deletion(&alice, &[&note]).sign();
    let mut client = world.client(&[&alice]).await;
    for event in [&note, &first] {
        client.publish(event).await.ok();
    }
    client.publish(&deletion(&alice, &[&first]).sign()).await.refused("restricted");
    assert!(sees(&mut client, &first).await);
    client.publish(&note).await.refused("blocked");
}

fn vanish(keys: &Keys) -> Draft {
    keys.event(62).tag(["relay", "ALL_RELAYS"])
}

/// NIP-62 removes the key's events and the 446, 447 and 1059 to it. Removed events never come back; new ones are
/// accepted.
#[tokio::test]
async fn a_vanished_key_takes_its_events_along() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    let now = world.relay.now();
    let gone = [
        alice.event(1).created_at(now - 9).sign(),
        key_package(&alice).created_at(now - 9).sign(),
        alice.event(4).tag(["p", &bob.hex()]).created_at(now - 9).sign(),
        noise(&bob, &alice).created_at(now - 9).sign(),
        noise(&alice, &bob).created_at(now - 9).sign(),
        request(&world.admin, &alice).created_at(now - 9).sign(),
        wrap(&alice).created_at(now - 9).sign(),
    ];
    let stays =
        [wrap(&bob).created_at(now - 9).sign(), bob.event(4).tag(["p", &alice.hex()]).created_at(now - 9).sign()];
    let mut client = world.client(&[&alice, &bob, &world.admin]).await;
    for event in gone.iter().chain(&stays) {
        client.publish(event).await.ok();
    }
    client.publish(&vanish(&alice).created_at(now - 5).sign()).await.ok();
    for event in &gone {
        assert!(!sees(&mut client, event).await, "kind {}", event.kind());
        client.publish(event).await.refused("blocked");
    }
    for event in &stays {
        assert!(sees(&mut client, event).await, "kind {}", event.kind());
    }
    world.sweep().await;
    for event in &gone {
        client.publish(event).await.refused("blocked");
    }
    client.publish(&alice.event(1).content("new").created_at(now).sign()).await.ok();
    client.publish(&wrap(&alice).created_at(now).sign()).await.ok();
}

/// NIP-62 removes the key from its groups, the last admin excepted, and removes no roster and no group's state.
#[tokio::test]
async fn a_vanished_key_leaves_its_groups() {
    let world = World::new().await;
    let [alice, bob, carol] = Keys::some();
    world.group("grp_a", &[&alice, &bob]).await;
    let mut alices = world.client(&[&alice]).await;
    alices.publish(&welcome(&carol, "grp_led").sign()).await.ok();
    let listed = roster(&alice, "grp_led", 1, "add", &[&bob]).sign();
    alices.publish(&listed).await.ok();
    let said = message("grp_a").sign();
    alices.publish(&said).await.ok();
    alices.publish(&vanish(&alice).sign()).await.ok();
    assert!(!world.roles("grp_a").await.contains_key(&alice.hex()));
    assert_eq!(world.roles("grp_led").await.get(&alice.hex()), Some(&Role::Admin));
    assert!(sees(&mut world.client(&[&bob]).await, &listed).await);
    assert!(!sees(&mut alices, &said).await);
    assert!(sees(&mut world.client(&[&bob]).await, &said).await, "a message by a throw-away key stays");
    alices.publish(&message("grp_a").sign()).await.refused("restricted");
}
