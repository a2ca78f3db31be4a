//! docs/rules.md, "Groups" 1 and "Unlisted groups": a managed group stays managed, and an unlisted group's id is its
//! own capability.

use serde_json::json;

use super::{World, ids, shown};
use crate::support::{
    Client, Event, Keys, TestRelay,
    gateway::{capability, message, roster, welcome},
};

/// Anyone who may write can publish to an unlisted group, and a filter that names the `h` reads it without AUTH.
#[tokio::test]
async fn whoever_names_the_id_reads_and_writes() {
    let world = World::new().await;
    let group = capability();
    let event = message(&group).sign();
    world.client(&[]).await.publish(&event).await.ok();
    for keys in [&[][..], &[&Keys::random()]] {
        let mut client = world.client(keys).await;
        assert_eq!(shown(&mut client, json!({"#h": [group]})).await, Ok(ids(&[&event])));
        assert_eq!(shown(&mut client, json!({"kinds": [445], "#h": [group, capability()]})).await, Ok(ids(&[&event])));
    }
}

/// Only the whole `h`, or the event's own id, opens an unlisted group; no other condition does, at any door.
#[tokio::test]
async fn nothing_but_the_id_opens_an_unlisted_group() {
    let world = World::new().await;
    let group = capability();
    let event = message(&group).tag(["p", &group]).tag(["t", "topic"]).sign();
    world.client(&[]).await.publish(&event).await.ok();
    let author = event.0["pubkey"].clone();
    let filters = [
        json!({}),
        json!({"kinds": [445]}),
        json!({"authors": [author]}),
        json!({"#p": [group]}),
        json!({"#t": ["topic"]}),
        json!({"kinds": [445], "#h": [capability()]}),
        json!({"#h": [group[..63]]}),
        json!({"#h": [group.to_uppercase()]}),
        json!({"since": 1, "kinds": [445], "authors": [author]}),
    ];
    let mut client = world.client(&[&Keys::random()]).await;
    for filter in filters {
        assert_eq!(shown(&mut client, filter.clone()).await, Ok(vec![]), "{filter}");
    }
    assert_eq!(shown(&mut client, json!({"ids": [event.id()]})).await, Ok(ids(&[&event])));
    assert_eq!(shown(&mut world.client(&[]).await, json!({"ids": [event.id()]})).await, Ok(ids(&[&event])));
}

/// Live delivery opens an unlisted group to the same filters.
#[tokio::test]
async fn live_shows_unlisted_messages_to_who_names_the_id() {
    let world = World::new().await;
    let group = capability();
    let event = message(&group).sign();
    let open = [json!({"kinds": [445], "#h": [group]}), json!({"#h": [group]}), json!({"ids": [event.id()]})];
    let shut =
        [json!({}), json!({"kinds": [445]}), json!({"authors": [event.0["pubkey"]]}), json!({"#h": [capability()]})];
    let mut client = world.client(&[&Keys::random()]).await;
    for (n, filter) in open.iter().chain(&shut).enumerate() {
        client.req(&n.to_string(), std::slice::from_ref(filter)).await.expect("served");
    }
    world.client(&[]).await.publish(&event).await.ok();
    for (n, filter) in open.iter().enumerate() {
        assert_eq!(client.received(&n.to_string()).await, std::slice::from_ref(&event), "{filter}");
    }
    client.expect_nothing().await;
}

/// Unlisted groups are off in a closed relay; switched on, they open to any reader with keys that names the id.
#[tokio::test]
async fn unlisted_groups_can_be_off() {
    let group = capability();
    let alice = Keys::random();
    let off = World::closed().await;
    off.client(&[&alice]).await.publish(&message(&group).sign()).await.refused("restricted");
    let on = World::with(|config| config.auth.enabled = true).await;
    on.client(&[&alice]).await.publish(&message(&group).sign()).await.ok();
    assert_eq!(
        shown(&mut on.client(&[&Keys::random()]).await, json!({"#h": [group]})).await.map(|ids| ids.len()),
        Ok(1)
    );
}

/// A 445 to any other `h` that is not managed is refused in the words for a non-member, and never makes a group.
#[tokio::test]
async fn named_ids_that_are_not_managed_are_refused_like_strangers() {
    let world = World::new().await;
    let [alice, eve] = Keys::some();
    world.group("grp_a", &[&alice]).await;
    let mut client = world.client(&[&eve]).await;
    let stranger = client.publish(&message("grp_a").sign()).await.refused("restricted").to_owned();
    for group in ["grp_none", &capability()[..63], &capability().to_uppercase(), &format!("{}0", capability())] {
        assert_eq!(client.publish(&message(group).sign()).await.reason, stranger);
        assert!(!world.state(group).await.is_managed());
    }
    let anonymous = world.client(&[]).await.publish(&message("grp_a").sign()).await.reason;
    assert_eq!(world.client(&[]).await.publish(&message("grp_none").sign()).await.reason, anonymous);
}

/// Nobody takes over an unlisted group by listing it: only an admin key's forced roster makes it managed.
#[tokio::test]
async fn only_a_forced_roster_takes_an_unlisted_group_over() {
    let world = World::with(|config| config.mls_gateway.open_bootstrap = true).await;
    let [alice, eve] = Keys::some();
    let group = capability();
    world.client(&[]).await.publish(&message(&group).sign()).await.ok();
    let bootstrap = |by: &Keys| roster(by, &group, 1, "bootstrap", &[&alice]);
    let mut eves = world.client(&[&eve]).await;
    eves.publish(&bootstrap(&eve).sign()).await.refused("restricted");
    eves.publish(&bootstrap(&eve).tag(["force", "true"]).sign()).await.refused("restricted");
    eves.publish(&welcome(&alice, &group).sign()).await.ok();
    world.admin().await.publish(&bootstrap(&world.admin).sign()).await.refused("invalid");
    assert!(!world.state(&group).await.is_managed());
    world.admin().await.publish(&bootstrap(&world.admin).tag(["force", "true"]).sign()).await.ok();
    assert!(world.state(&group).await.is_managed());
}

/// An `h` that carried messages is marked even if they were never stored.
#[tokio::test]
async fn unstored_messages_mark_the_group_too() {
    let world = World::with(|config| config.mls_gateway.enable_message_archive = false).await;
    let group = capability();
    world.client(&[]).await.publish(&message(&group).sign()).await.ok();
    let event = roster(&world.admin, &group, 1, "bootstrap", &[&Keys::random()]).sign();
    world.admin().await.publish(&event).await.refused("invalid");
}

/// A group stays managed when its last member is removed, when sources change, and when its events have expired.
#[tokio::test]
async fn managed_is_for_ever() {
    let directory = tempfile::tempdir().expect("a directory");
    let [admin, alice] = Keys::some();
    let group = capability();
    let configure = |config: &mut nostr_relay::config::Config| config.mls_gateway.admin_pubkeys = vec![admin.public()];
    let relay = TestRelay::start_in(directory.path(), configure).await;
    let mut client = Client::of(&relay, &[&admin, &alice]).await;
    let said = message(&group).sign();
    let events: [Event; 3] = [
        roster(&admin, &group, 1, "bootstrap", &[&alice]).sign(),
        said.clone(),
        roster(&admin, &group, 2, "remove", &[&alice]).sign(),
    ];
    for event in &events {
        client.publish(event).await.ok();
    }
    drop(client);
    relay.stop().await;
    let relay = TestRelay::start_in(directory.path(), |config| {
        config.mls_gateway.membership_sources = vec![nostr_extensions::Source::GiftWrap];
    })
    .await;
    relay.advance(400 * 86_400);
    relay.app().store.sweep(relay.now(), 1_000).await.expect("the store sweeps");
    let mut client = Client::connect(&relay).await;
    client.publish(&message(&group).sign()).await.refused("auth-required");
    assert_eq!(shown(&mut client, json!({"#h": [group]})).await, Ok(vec![]));
    assert_eq!(shown(&mut client, json!({"ids": [said.id()]})).await, Ok(vec![]));
}
