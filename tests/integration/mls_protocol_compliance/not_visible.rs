//! docs/rules.md, "Who may publish, who may read" 5: hidden events are never returned, counted or hinted at.

use serde_json::json;

use super::{World, ids, shown};
use crate::support::{
    Event, Keys,
    gateway::{key_package, message, noise, request, roster, welcome, wrap},
};

/// `limit` counts the events that the reader may see; messages of other groups use up none of it.
#[tokio::test]
async fn limit_counts_what_the_reader_may_see() {
    let world = World::new().await;
    let [alice, bob, carol] = Keys::some();
    world.group("grp_a", &[&alice]).await;
    world.group("grp_b", &[&bob]).await;
    let now = world.relay.now();
    let mine: Vec<Event> = (0..5).map(|n| message("grp_a").created_at(now - 1_000 - n).sign()).collect();
    let theirs: Vec<Event> = (0..300).map(|n| message("grp_b").created_at(now - n).sign()).collect();
    let wraps: Vec<Event> = (0..100).map(|n| wrap(&carol).created_at(now - n).sign()).collect();
    let mut writer = world.client(&[&alice, &bob]).await;
    for answer in writer.publish_all(&[mine.clone(), theirs, wraps].concat()).await {
        answer.ok();
    }
    let mut alices = world.client(&[&alice]).await;
    for filter in [
        json!({"kinds": [445], "limit": 5}),
        json!({"kinds": [445, 1059], "limit": 5}),
        json!({"kinds": [445, 446, 1059], "limit": 5}),
    ] {
        let events = alices.req("limit", &[filter]).await.expect("served");
        assert_eq!(events, mine, "newest first");
    }
    let two = alices.req("limit", &[json!({"kinds": [445], "limit": 2})]).await.expect("served");
    assert_eq!(two, mine[..2]);
    assert_eq!(alices.count(&[json!({"kinds": [445, 1059]})]).await, Ok(5));
}

/// A hidden id gets the same answer as an id that was never published.
#[tokio::test]
async fn a_hidden_id_is_an_unknown_id() {
    let world = World::new().await;
    let [alice, bob, eve] = Keys::some();
    world.group("grp_a", &[&alice]).await;
    let bootstrap = roster(&world.admin, "grp_a", 2, "add", &[&bob]).sign();
    let hidden = [
        message("grp_a").sign(),
        wrap(&bob).sign(),
        noise(&alice, &bob).sign(),
        request(&world.admin, &bob).sign(),
        bootstrap,
    ];
    let mut writer = world.client(&[&alice, &world.admin]).await;
    for event in &hidden {
        writer.publish(event).await.ok();
    }
    for mut client in [world.client(&[]).await, world.client(&[&eve]).await] {
        let all: Vec<&str> = hidden.iter().map(Event::id).collect();
        assert_eq!(shown(&mut client, json!({"ids": all})).await, Ok(vec![]));
        for id in all.into_iter().chain(["ab".repeat(32).as_str()]) {
            client.send(&json!(["REQ", "same", {"ids": [id]}])).await;
            assert_eq!(client.recv().await, json!(["EOSE", "same", ["finish"]]));
        }
    }
}

/// `duplicate:` is said only to a reader that may publish that event.
#[tokio::test]
async fn duplicate_is_said_to_who_may_publish() {
    let world = World::new().await;
    let [alice, bob, eve] = Keys::some();
    let founding = roster(&world.admin, "grp_a", 1, "bootstrap", &[&alice]).sign();
    let said = message("grp_a").sign();
    let asked = request(&world.admin, &bob).sign();
    let mut writer = world.client(&[&alice, &world.admin]).await;
    let events = [&founding, &said, &asked];
    for event in events {
        writer.publish(event).await.ok();
        let again = writer.publish(event).await;
        assert!(again.accepted && again.reason.starts_with("duplicate: "), "{again:?}");
    }
    let mut eves = world.client(&[&eve]).await;
    let unknown = [
        roster(&world.admin, "grp_z", 1, "bootstrap", &[&alice]).sign(),
        message("grp_z").sign(),
        request(&world.admin, &bob).sign(),
    ];
    for (known, unknown) in events.into_iter().zip(&unknown) {
        let (known, unknown) = (eves.publish(known).await, eves.publish(unknown).await);
        assert_eq!(known.refused("restricted"), unknown.reason);
    }
    // A former member learns no more than a stranger.
    world.change("grp_a", 2, "remove", &[&alice]).await;
    world.client(&[&alice]).await.publish(&said).await.refused("restricted");
}

/// With `auth.enabled` an event of another owner is refused in the same words, stored or not.
#[tokio::test]
async fn duplicate_is_not_said_about_another_owners_event() {
    let world = World::closed().await;
    let [alice, eve] = Keys::some();
    let event = key_package(&alice).sign();
    world.client(&[&alice]).await.publish(&event).await.ok();
    let known = world.client(&[&eve]).await.publish(&event).await;
    let unknown = world.client(&[&eve]).await.publish(&key_package(&alice).sign()).await;
    assert_eq!(known.refused("restricted"), unknown.reason);
}

/// An id is recomputed before it is looked up, so an event that borrows a stored id learns nothing.
#[tokio::test]
async fn a_borrowed_id_is_an_invalid_event() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    let event = wrap(&bob).sign();
    let mut client = world.client(&[]).await;
    client.publish(&event).await.ok();
    for id in [event.id().to_owned(), "ab".repeat(32)] {
        let mut forged = alice.event(1).sign();
        forged.0["id"] = json!(id);
        let reason = client.publish(&forged).await.refused("invalid").to_owned();
        assert!(reason.contains("id does not match"), "{reason}");
    }
}

/// A stored event stays as it is when its id comes again with another signature.
#[tokio::test]
async fn a_stored_event_keeps_its_signature() {
    let world = World::new().await;
    let alice = Keys::random();
    let event = alice.event(1).sign();
    let mut client = world.client(&[]).await;
    client.publish(&event).await.ok();
    let mut other = event.clone();
    other.0["sig"] = json!("ab".repeat(64));
    client.publish(&other).await;
    assert_eq!(client.req("x", &[json!({"ids": [event.id()]})]).await, Ok(vec![event]));
}

/// A reader of one small group finds its messages by every kind of filter.
#[tokio::test]
async fn a_members_filters_all_find_its_messages() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    world.group("grp_a", &[&alice]).await;
    world.group("grp_b", &[&bob]).await;
    let now = world.relay.now();
    let mine = message("grp_a").tag(["t", "x"]).sign();
    let theirs = message("grp_b").tag(["t", "x"]).sign();
    let mut writer = world.client(&[&alice, &bob]).await;
    for event in [&mine, &theirs] {
        writer.publish(event).await.ok();
    }
    let mut alices = world.client(&[&alice]).await;
    for filter in [
        json!({"kinds": [445]}),
        json!({"kinds": [445], "#h": ["grp_a", "grp_b"]}),
        json!({"#t": ["x"]}),
        json!({"authors": [mine.0["pubkey"], theirs.0["pubkey"]]}),
        json!({"ids": [mine.id(), theirs.id()]}),
        json!({"kinds": [445], "since": now - 5, "until": now + 60}),
        json!({"kinds": [1, 445, 1059]}),
    ] {
        assert_eq!(shown(&mut alices, filter.clone()).await, Ok(ids(&[&mine])), "{filter}");
    }
}

/// A refused wrap, message or roster changes no group and leaves no trace.
#[tokio::test]
async fn what_is_refused_leaves_no_trace() {
    let world = World::closed().await;
    let [alice, bob, eve] = Keys::some();
    world.group("grp_a", &[&alice]).await;
    let refused =
        [message("grp_a").sign(), welcome(&bob, "no group id").sign(), roster(&eve, "grp_a", 2, "add", &[&eve]).sign()];
    let mut eves = world.client(&[&eve]).await;
    for event in &refused {
        assert!(!eves.publish(event).await.accepted);
    }
    let all: Vec<&str> = refused.iter().map(Event::id).collect();
    let mut everyone = world.client(&[&alice, &bob, &eve, &world.admin]).await;
    assert_eq!(shown(&mut everyone, json!({"ids": all})).await, Ok(vec![]));
    assert_eq!(world.roles("grp_a").await.len(), 1);
}
