//! docs/rules.md, "Quotas": bounds on the events of one key that the relay keeps without end.

use nostr_extensions::{KindRange, Retention};
use nostr_relay::config::Config;
use serde_json::json;

use super::World;
use crate::support::{
    Client, Event, Keys, TestRelay,
    gateway::{deletion, message, noise, wrap},
    rest::Rest,
};

fn events(max: u64) -> impl FnOnce(&mut Config) {
    move |config| config.retention.events_per_key_max = max
}

fn note(by: &Keys, n: usize) -> Event {
    by.event(1).content(n.to_string()).sign()
}

/// Publishes notes until one is refused, and gives those that are stored and the reason.
async fn fill(client: &mut Client, by: &Keys) -> (Vec<Event>, String) {
    let mut stored = Vec::new();
    for n in 0..100 {
        let note = note(by, n);
        let answer = client.publish(&note).await;
        if !answer.accepted {
            return (stored, answer.reason);
        }
        stored.push(note);
    }
    panic!("no quota ended it");
}

#[tokio::test]
async fn a_key_that_has_no_room_is_told_to_delete_and_then_has_some() {
    let world = World::alone(events(6)).await;
    let [alice, bob] = Keys::some();
    let mut client = world.client(&[&alice]).await;
    let (stored, reason) = fill(&mut client, &alice).await;
    assert_eq!(stored.len(), 6);
    assert_eq!(reason, "blocked: this relay keeps at most 6 events of a key; delete some of them (kind 5)");
    // A stored event is one still, and others have a quota of their own.
    client.publish(&stored[0]).await.ok();
    world.client(&[&bob]).await.publish(&note(&bob, 0)).await.ok();
    // Deletions count by themselves, and give room at once.
    client.publish(&deletion(&alice, &[&stored[0], &stored[1]]).sign()).await.ok();
    client.publish(&note(&alice, 200)).await.ok();
    client.publish(&note(&alice, 201)).await.ok();
    client.publish(&note(&alice, 202)).await.refused("blocked");
    // So does a request to vanish.
    let at = world.relay.now();
    let vanish = alice.event(62).created_at(at).tag(["relay", "ALL_RELAYS"]).sign();
    client.publish(&vanish).await.ok();
    client.publish(&alice.event(1).created_at(at + 1).sign()).await.ok();
}

/// Events that come from connections of any number at one time pass the bound by none.
#[tokio::test]
async fn many_connections_at_one_time_pass_no_bound() {
    let world = World::alone(events(20)).await;
    let alice = Keys::random();
    let publishing = (0..8).map(|connection| {
        let (world, alice) = (&world, &alice);
        async move {
            let mut client = world.client(&[alice]).await;
            let notes: Vec<Event> = (0..10).map(|n| note(alice, 100 * connection + n)).collect();
            client.publish_all(&notes).await.into_iter().filter(|answer| answer.accepted).count()
        }
    });
    let accepted: usize = futures_util::future::join_all(publishing).await.into_iter().sum();
    assert_eq!(accepted, 20);
    let mut reader = world.client(&[]).await;
    assert_eq!(reader.count(&[json!({ "authors": [alice.hex()] })]).await, Ok(20));
}

/// A stranger that publishes an author's old events again takes half of its quota; the author keeps the rest.
#[tokio::test]
async fn others_fill_no_more_than_half_of_a_keys_quota() {
    let world = World::alone(events(6)).await;
    let [alice, eve] = Keys::some();
    let (stored, reason) = fill(&mut world.client(&[]).await, &alice).await;
    assert_eq!(stored.len(), 3);
    assert!(reason.starts_with("auth-required: ") && reason.ends_with("AUTH with the author's key"), "{reason}");
    world.client(&[&eve]).await.publish(&note(&alice, 50)).await.refused("restricted");
    let mut alices = world.client(&[&alice]).await;
    for n in 60..63 {
        alices.publish(&note(&alice, n)).await.ok();
    }
    alices.publish(&note(&alice, 63)).await.refused("blocked");
}

/// A publisher that may not see an author's direct messages does not learn by a refusal how many are stored, nor
/// whether one is.
#[tokio::test]
async fn direct_messages_of_others_are_refused_alike_whatever_is_stored() {
    let world = World::alone(events(4)).await;
    let [alice, bob, eve, carol] = Keys::some();
    let message = |n: usize| alice.event(4).tag(["p", &carol.hex()]).content(n.to_string()).sign();
    let mut alices = world.client(&[&alice]).await;
    let mut others = [world.client(&[]).await, world.client(&[&eve]).await];
    for stored in 0..5 {
        for (other, word) in others.iter_mut().zip(["auth-required", "restricted"]) {
            let text = "direct messages (kind 4) are taken from their author alone here; AUTH with the author's key";
            for n in [0, 10] {
                assert_eq!(
                    other.publish(&message(n)).await.refused(word),
                    format!("{word}: {text}"),
                    "{stored} stored"
                );
            }
        }
        assert_eq!(alices.publish(&message(stored)).await.accepted, stored < 4);
    }
    // A key that the operator named has no quota, so nothing is to be told.
    let of_admin = world.admin.event(4).tag(["p", &bob.hex()]).sign();
    others[0].publish(&of_admin).await.ok();
    let unbounded = World::new().await;
    unbounded.client(&[]).await.publish(&message(0)).await.ok();
}

#[tokio::test]
async fn events_that_end_or_find_a_person_and_named_keys_have_no_quota() {
    let listed = Keys::random();
    let world = World::alone(|config| {
        events(1)(config);
        config.retention.rules = vec![Retention { kinds: KindRange { first: 7, last: 7 }, secs: 600 }];
        config.mls_gateway.system_pubkey = Some(listed.public());
    })
    .await;
    let [alice, bob] = Keys::some();
    let mut client = world.client(&[&alice]).await;
    for n in 0..3_u64 {
        client.publish(&alice.event(7).content(n.to_string()).sign()).await.ok();
        client.publish(&alice.event(0).content(n.to_string()).created_at(world.relay.now() + n).sign()).await.ok();
        client.publish(&noise(&alice, &bob).content(format!("bm9pc2{n}")).sign()).await.ok();
        client.publish(&wrap(&alice).sign()).await.ok();
    }
    client.publish(&message(&crate::support::gateway::capability()).sign()).await.ok();
    client.publish(&note(&alice, 0)).await.ok();
    // An expiration that its author chose ends nothing as far as the quota goes.
    let later = (world.relay.now() + 1_000_000).to_string();
    client.publish(&alice.event(1).tag(["expiration", &later]).sign()).await.refused("blocked");
    // Direct messages count by themselves.
    let message = |text: &str| alice.event(4).tag(["p", &bob.hex()]).content(text).sign();
    client.publish(&message("one")).await.ok();
    client.publish(&message("two")).await.refused("blocked");
    for keys in [&world.admin, &listed] {
        let mut client = world.client(&[keys]).await;
        client.publish(&note(keys, 0)).await.ok();
        client.publish(&note(keys, 1)).await.ok();
    }
}

#[tokio::test]
async fn bytes_are_bounded_and_rest_is_bound_by_the_same_quota() {
    let world = World::alone(|config| config.retention.bytes_per_key_max = 20_000).await;
    let alice = Keys::random();
    let large = |n: usize| alice.event(1).content(format!("{n}{}", "x".repeat(8_000))).sign();
    let rest = Rest::of(&world.relay, &alice);
    rest.post("/events", large(0).0.to_string()).ok().await;
    rest.post("/events", large(1).0.to_string()).ok().await;
    let refused = rest.post("/events", large(2).0.to_string()).refused(403).await;
    assert!(refused.contains("at most 20000 bytes of events"), "{refused}");
    rest.post("/events", note(&alice, 3).0.to_string()).ok().await;
}

/// A replaceable event counts once, however often it is replaced.
#[tokio::test]
async fn an_event_that_is_replaced_counts_once() {
    let world = World::alone(events(2)).await;
    let alice = Keys::random();
    let mut client = world.client(&[&alice]).await;
    for n in 0..5 {
        client.publish(&alice.event(10_000).created_at(world.relay.now() + n).sign()).await.ok();
    }
    client.publish(&note(&alice, 0)).await.ok();
    client.publish(&note(&alice, 1)).await.refused("blocked");
}

/// Over a shared store each instance counts at least once a minute, so the bound holds for all of them.
async fn holds_over_instances(backend: &str) {
    let relay = TestRelay::start_on(backend, 2, events(4)).await;
    let alice = Keys::random();
    let mut clients = [Client::of(&relay, &[&alice]).await, Client::of(&relay, &[&alice]).await];
    let mut notes = Vec::new();
    for n in 0..4 {
        let note = note(&alice, n);
        clients[n % 2].publish(&note).await.ok();
        notes.push(note);
    }
    relay.advance(60);
    for (n, client) in clients.iter_mut().enumerate() {
        client.publish(&note(&alice, 10 + n)).await.refused("blocked");
        client.publish(&notes[n]).await.ok();
    }
    // The instance that took the deletion knows of the room at once, and the other one within a minute.
    clients[0].publish(&deletion(&alice, &[&notes[0], &notes[1]]).sign()).await.ok();
    clients[0].publish(&note(&alice, 20)).await.ok();
    relay.advance(60);
    clients[1].publish(&note(&alice, 21)).await.ok();
    clients[1].publish(&note(&alice, 22)).await.refused("blocked");
    relay.stop().await;
}

#[tokio::test]
async fn a_quota_holds_over_instances() {
    holds_over_instances("memory").await;
}

#[tokio::test]
async fn a_quota_holds_over_instances_of_postgres() {
    holds_over_instances("postgres").await;
}
