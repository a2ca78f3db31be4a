//! Selective delivery: the specification's routing list for live events, and the effect of membership changes on it.

use serde_json::json;

use super::{World, ids, shown, sorted};
use crate::support::{
    Client, Event, Keys,
    backend::instances,
    gateway::{capability, key_package, message, noise, request, roster, wrap},
};

/// Splits events into those to send first and the rest. A single instance has every change of a group in its cache and
/// gets all events at once. One of several instances may read a group's state for the first event and find a later
/// change already made, so there the first event goes ahead.
fn in_step(events: &[Event]) -> [&[Event]; 2] {
    let (first, rest) = events.split_at(if instances() == 1 { 0 } else { 1 });
    [first, rest]
}

async fn listen(world: &World, keys: &[&Keys], kind: u16) -> Client {
    let mut client = world.client(keys).await;
    client.req("live", &[json!({"kinds": [kind]})]).await.expect("served");
    client
}

async fn live_ids(client: &mut Client) -> Vec<String> {
    client.received("live").await.iter().map(|event| event.id().to_owned()).collect()
}

/// 443: live to every authenticated reader.
#[tokio::test]
async fn key_packages_reach_every_subscriber() {
    let world = World::closed().await;
    let [alice, bob] = Keys::some();
    let mut bobs = listen(&world, &[&bob], 443).await;
    let event = key_package(&alice).sign();
    world.client(&[&alice]).await.publish(&event).await.ok();
    assert_eq!(bobs.received("live").await, [event]);
}

/// 446, 447, 1059: live to the recipient alone, and neither to the author nor to an admin key.
#[tokio::test]
async fn recipient_kinds_reach_the_recipient_alone() {
    let world = World::new().await;
    let [alice, bob, eve] = Keys::some();
    for (kind, event) in
        [(446, noise(&alice, &bob).sign()), (447, request(&world.admin, &bob).sign()), (1059, wrap(&bob).sign())]
    {
        let mut bobs = listen(&world, &[&bob], kind).await;
        let mut others = [
            listen(&world, &[&alice], kind).await,
            listen(&world, &[&eve], kind).await,
            listen(&world, &[&world.admin], kind).await,
        ];
        world.client(&[&alice, &world.admin]).await.publish(&event).await.ok();
        assert_eq!(bobs.received("live").await, [event]);
        for client in &mut others {
            client.expect_nothing().await;
        }
    }
}

/// 445: live to the members of the named group, and to no members of other groups.
#[tokio::test]
async fn group_messages_reach_members_alone() {
    let world = World::new().await;
    let [alice, bob, carol, eve] = Keys::some();
    world.group("grp_a", &[&alice, &bob]).await;
    world.group("grp_b", &[&carol]).await;
    let mut bobs = listen(&world, &[&bob], 445).await;
    let mut carols = listen(&world, &[&carol], 445).await;
    let mut eves = listen(&world, &[&eve], 445).await;
    let mut admins = listen(&world, &[&world.admin], 445).await;
    let event = message("grp_a").tag(["p", &eve.hex()]).sign();
    world.client(&[&alice]).await.publish(&event).await.ok();
    assert_eq!(bobs.received("live").await, [event]);
    for client in [&mut carols, &mut eves, &mut admins] {
        client.expect_nothing().await;
    }
}

/// 450: live to members and admin keys. A roster does not reach a member that it removes, and reaches one that it adds.
#[tokio::test]
async fn rosters_reach_the_members_that_they_leave() {
    let world = World::new().await;
    let [alice, bob, carol] = Keys::some();
    world.group("grp_a", &[&alice, &bob]).await;
    let mut alices = listen(&world, &[&alice], 450).await;
    let mut bobs = listen(&world, &[&bob], 450).await;
    let mut carols = listen(&world, &[&carol], 450).await;
    let mut admins = listen(&world, &[&world.admin], 450).await;
    let out = roster(&world.admin, "grp_a", 2, "remove", &[&bob]).sign();
    let back = roster(&world.admin, "grp_a", 3, "add", &[&carol]).sign();
    for event in [&out, &back] {
        world.admin().await.publish(event).await.ok();
        // An instance that is behind may read the group's state only when carol is already in it.
        world.relay.caught_up().await;
    }
    let both = [out.id().to_owned(), back.id().to_owned()];
    assert_eq!(live_ids(&mut alices).await, both);
    assert_eq!(live_ids(&mut admins).await, both);
    assert_eq!(live_ids(&mut carols).await, both[1..]);
    bobs.expect_nothing().await;
}

/// A removal applies before the next message, on a subscription opened long before.
#[tokio::test]
async fn removed_member_gets_no_later_message() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    world.group("grp_a", &[&alice, &bob]).await;
    let mut bobs = listen(&world, &[&bob], 445).await;
    let mut alices = world.client(&[&alice, &world.admin]).await;
    // Sent without a pause, the events may form one batch, and the order of the log decides.
    let events = [
        message("grp_a").content("one").sign(),
        roster(&world.admin, "grp_a", 2, "remove", &[&bob]).sign(),
        message("grp_a").content("two").sign(),
    ];
    for part in in_step(&events) {
        for answer in alices.publish_all(part).await {
            answer.ok();
        }
        world.relay.caught_up().await;
    }
    assert_eq!(bobs.received("live").await, events[..1]);
    bobs.expect_nothing().await;
    bobs.publish(&message("grp_a").sign()).await.refused("restricted");
}

/// An added member gets the next message on a subscription that was open before.
#[tokio::test]
async fn added_member_gets_the_next_message() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    world.group("grp_a", &[&alice]).await;
    let mut bobs = listen(&world, &[&bob], 445).await;
    let mut alices = world.client(&[&alice, &world.admin]).await;
    let events = [
        message("grp_a").content("one").sign(),
        roster(&world.admin, "grp_a", 2, "add", &[&bob]).sign(),
        message("grp_a").content("two").sign(),
    ];
    for part in in_step(&events) {
        for answer in alices.publish_all(part).await {
            answer.ok();
        }
        world.relay.caught_up().await;
    }
    assert_eq!(bobs.received("live").await, events[2..]);
}

/// Present members read the whole archive of their group, former members nothing, and members that return all of it
/// again.
#[tokio::test]
async fn members_read_the_whole_archive_and_former_members_nothing() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    world.group("grp_a", &[&alice]).await;
    let first = message("grp_a").content("before bob").sign();
    world.client(&[&alice]).await.publish(&first).await.ok();
    world.change("grp_a", 2, "add", &[&bob]).await;
    let mut bobs = world.client(&[&bob]).await;
    let filter = json!({"kinds": [445]});
    assert_eq!(shown(&mut bobs, filter.clone()).await, Ok(ids(&[&first])));
    world.change("grp_a", 3, "remove", &[&bob]).await;
    assert_eq!(shown(&mut bobs, filter.clone()).await, Ok(vec![]));
    assert_eq!(shown(&mut bobs, json!({"#h": ["grp_a"]})).await, Ok(vec![]));
    world.change("grp_a", 4, "add", &[&bob]).await;
    assert_eq!(shown(&mut bobs, filter).await, Ok(ids(&[&first])));
}

/// An unlisted group that becomes managed shows its old messages to members only, on open subscriptions too.
#[tokio::test]
async fn unlisted_group_that_becomes_managed_shuts() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    let group = capability();
    let filter = json!({"kinds": [445], "#h": [group]});
    let old = message(&group).sign();
    let mut stranger = world.client(&[]).await;
    stranger.publish(&old).await.ok();
    assert_eq!(stranger.req("live", std::slice::from_ref(&filter)).await, Ok(vec![old.clone()]));
    let mut reconciling = world.client(&[&bob]).await;
    assert_eq!(reconciling.neg_ids(filter.clone()).await, Ok(ids(&[&old])));

    let forced = roster(&world.admin, &group, 1, "bootstrap", &[&alice]).tag(["force", "true"]).sign();
    world.admin().await.publish(&forced).await.ok();
    let new = message(&group).sign();
    world.client(&[&alice]).await.publish(&new).await.ok();
    stranger.expect_nothing().await;
    assert_eq!(shown(&mut stranger, filter.clone()).await, Ok(vec![]));
    assert_eq!(shown(&mut reconciling, filter.clone()).await, Ok(vec![]));
    assert_eq!(shown(&mut world.client(&[&alice]).await, filter).await, Ok(ids(&[&old, &new])));
}

/// A key that is authenticated after the REQ counts for the open subscription.
#[tokio::test]
async fn a_later_key_counts_on_an_open_subscription() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    let mut client = listen(&world, &[&alice], 1059).await;
    client.auth(&bob).await.ok();
    let event = wrap(&bob).sign();
    world.client(&[]).await.publish(&event).await.ok();
    assert_eq!(client.received("live").await, [event]);
}

/// A subscription gives the stored events and then the live ones, each once, even while others publish.
#[tokio::test]
async fn nothing_falls_between_stored_and_live() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    world.group("grp_a", &[&alice, &bob]).await;
    let events: Vec<Event> = (0..60).map(|n| message("grp_a").content(n.to_string()).sign()).collect();
    let mut alices = world.client(&[&alice]).await;
    let mut bobs = world.client(&[&bob]).await;
    let filters = [json!({"kinds": [445]})];
    let (answers, stored) = tokio::join!(alices.publish_all(&events), bobs.req("live", &filters));
    answers.iter().for_each(crate::support::Answer::ok);
    let mut got: Vec<String> = stored.expect("served").iter().map(|event| event.id().to_owned()).collect();
    got.extend(live_ids(&mut bobs).await);
    assert_eq!(sorted(got), ids(&events.iter().collect::<Vec<_>>()));
}

/// Live delivery follows the order of the commits.
#[tokio::test]
async fn live_delivery_is_in_commit_order() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    world.group("grp_a", &[&alice, &bob]).await;
    let mut bobs = listen(&world, &[&bob], 445).await;
    let now = world.relay.now();
    let events: Vec<Event> = (0..20).map(|n| message("grp_a").created_at(now - n * 60).sign()).collect();
    for answer in world.client(&[&alice]).await.publish_all(&events).await {
        answer.ok();
    }
    assert_eq!(bobs.live("live", 20).await, events);
}
