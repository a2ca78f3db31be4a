//! docs/rules.md, "Consumption on read": `keypackage_consumption`.

use nostr_extensions::policy::KeyPackageConsumption;
use serde_json::{Value, json};

use super::{
    super::{World, ids, shown},
    real::Package,
};
use crate::support::{Client, Event, Keys};

async fn consuming() -> World {
    World::with(|config| config.mls_gateway.keypackage_consumption = KeyPackageConsumption::OnRead).await
}

async fn stock(world: &World, owner: &Keys, count: usize) -> Vec<Event> {
    let now = world.relay.now();
    let mut client = world.client(&[owner]).await;
    let mut events = Vec::new();
    for n in 0..count {
        let event = Package::new(owner).draft(443).created_at(now - 100 + n as u64).sign();
        client.publish(&event).await.ok();
        events.push(event);
    }
    events
}

fn of(owner: &Keys) -> Value {
    json!({"kinds": [443, 30443], "authors": [owner.hex()]})
}

async fn take(client: &mut Client, owner: &Keys) -> Vec<String> {
    client.ids(of(owner)).await.expect("served")
}

/// By default reading consumes nothing.
#[tokio::test]
async fn a_plain_request_never_consumes() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    let events = stock(&world, &alice, 4).await;
    let mut client = world.client(&[&bob]).await;
    for _ in 0..3 {
        assert_eq!(take(&mut client, &alice).await.len(), events.len());
    }
}

/// With `on_read` 443 and 30443 need AUTH.
#[tokio::test]
async fn consuming_needs_auth() {
    let world = consuming().await;
    let alice = Keys::random();
    stock(&world, &alice, 2).await;
    let mut client = world.client(&[]).await;
    for filter in [of(&alice), json!({"kinds": [443]}), json!({"kinds": [1, 30443]})] {
        let reason = shown(&mut client, filter).await.expect_err("no keys");
        assert!(reason.starts_with("auth-required: "), "{reason}");
    }
    assert_eq!(shown(&mut client, json!({"authors": [alice.hex()]})).await, Ok(vec![]));
}

/// A REQ with `authors` takes at most 2 packages of an owner. A package that was taken is never given nor accepted
/// again.
#[tokio::test]
async fn a_request_takes_two_packages_of_an_owner() {
    let world = consuming().await;
    let [alice, bob, carol] = Keys::some();
    let events = stock(&world, &alice, 5).await;
    let first = take(&mut world.client(&[&bob]).await, &alice).await;
    let second = take(&mut world.client(&[&carol]).await, &alice).await;
    assert_eq!((first.len(), second.len()), (2, 2));
    assert!(first.iter().all(|id| !second.contains(id)), "each package is given once");
    let mut alices = world.client(&[&alice]).await;
    let left = shown(&mut alices, of(&alice)).await.expect("served");
    assert_eq!(left.len(), 1);
    for event in events.iter().filter(|event| !left.contains(&event.id().to_owned())) {
        alices.publish(event).await.refused("blocked");
    }
}

/// The last package of an owner is always served, and stays.
#[tokio::test]
async fn the_last_package_is_always_served() {
    let world = consuming().await;
    let [alice, bob, carol] = Keys::some();
    let events = stock(&world, &alice, 1).await;
    for keys in [&bob, &carol, &bob] {
        assert_eq!(take(&mut world.client(&[keys]).await, &alice).await, ids(&[&events[0]]));
    }
}

/// A package of last resort is never consumed, and is given only after all others.
#[tokio::test]
async fn a_package_of_last_resort_is_never_consumed() {
    let world = consuming().await;
    let [alice, bob, carol] = Keys::some();
    let last = Package::of_last_resort(&alice).draft(443).sign();
    world.client(&[&alice]).await.publish(&last).await.ok();
    stock(&world, &alice, 2).await;
    assert!(!take(&mut world.client(&[&bob]).await, &alice).await.contains(&last.id().to_owned()));
    for keys in [&bob, &carol] {
        assert_eq!(take(&mut world.client(&[keys]).await, &alice).await, ids(&[&last]));
    }
}

/// Twins count once, and are consumed together.
#[tokio::test]
async fn twins_are_consumed_together() {
    let world = consuming().await;
    let [alice, bob] = Keys::some();
    let package = Package::new(&alice);
    let twins = [package.draft(443).sign(), package.draft(30443).tag(["d", "x"]).sign()];
    let mut alices = world.client(&[&alice]).await;
    for event in &twins {
        alices.publish(event).await.ok();
    }
    let later = stock(&world, &alice, 2).await;
    assert_eq!(take(&mut world.client(&[&bob]).await, &alice).await.len(), 2);
    assert_eq!(shown(&mut alices, of(&alice)).await, Ok(ids(&[&later[1]])));
    for event in &twins {
        alices.publish(event).await.refused("blocked");
    }
}

/// Live delivery, COUNT, NIP-77 and wider filters give a reader its own packages only.
#[tokio::test]
async fn other_doors_show_ones_own_packages_alone() {
    let world = consuming().await;
    let [alice, bob] = Keys::some();
    let mut bobs = world.client(&[&bob]).await;
    let mut alices = world.client(&[&alice]).await;
    for client in [&mut bobs, &mut alices] {
        client.req("live", &[json!({"kinds": [443]})]).await.expect("served");
    }
    let events = stock(&world, &alice, 3).await;
    bobs.expect_nothing().await;
    assert_eq!(alices.received("live").await, events);
    for filter in [json!({"kinds": [443]}), json!({"ids": [events[0].id()]}), json!({})] {
        assert_eq!(shown(&mut bobs, filter).await, Ok(vec![]));
    }
    assert_eq!(bobs.count(&[of(&alice)]).await, Ok(0));
    assert_eq!(bobs.neg_ids(of(&alice)).await, Ok(vec![]));
    assert_eq!(alices.count(&[of(&alice)]).await, Ok(3));
    assert_eq!(
        shown(&mut alices, json!({"kinds": [443]})).await.map(|ids| ids.len()),
        Ok(3),
        "an owner's reading takes nothing"
    );
}

/// A reader may claim at most 10 packages of an owner an hour, and so may all readers of one address together.
#[tokio::test]
async fn claims_are_limited_by_the_hour() {
    let world = World::alone(|config| config.mls_gateway.keypackage_consumption = KeyPackageConsumption::OnRead).await;
    let [alice, bob, carol, dave] = Keys::some();
    stock(&world, &alice, 30).await;
    stock(&world, &dave, 3).await;
    let mut bobs = world.client(&[&bob]).await;
    let mut taken = 0;
    for _ in 0..10 {
        taken += take(&mut bobs, &alice).await.len();
    }
    assert_eq!(taken, 10);
    assert!(take(&mut bobs, &alice).await.is_empty());
    assert!(take(&mut world.client(&[&carol]).await, &alice).await.is_empty(), "the same address");
    assert_eq!(take(&mut bobs, &dave).await.len(), 2, "another owner");
    world.relay.advance(3_600);
    assert_eq!(take(&mut bobs, &alice).await.len(), 2);
}
