//! docs/rules.md, "Consumption on read": `keypackage_consumption`.

use std::sync::atomic::Ordering;

use nostr_extensions::policy::KeyPackageConsumption;
use serde_json::{Value, json};

use super::{
    super::{World, ids, shown},
    real::Package,
};
use crate::support::{Client, Event, Keys, TestRelay, shared::Shared};

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

/// A filter that sends no package uses none up: `since`, `until`, a foreign tag, `ids` and kinds select before.
#[tokio::test]
async fn a_package_that_is_not_sent_is_not_used_up() {
    let world = consuming().await;
    let [alice, bob] = Keys::some();
    let events = stock(&world, &alice, 4).await;
    let mut bobs = world.client(&[&bob]).await;
    let now = world.relay.now();
    for more in [
        json!({"since": now}),
        json!({"until": now - 1_000}),
        json!({"#t": ["another"]}),
        json!({"ids": ["00".repeat(32)]}),
        json!({"kinds": [30443]}),
        json!({"kinds": [1, 30443]}),
        json!({"limit": 0}),
    ] {
        let mut filter = of(&alice);
        filter.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        assert_eq!(bobs.ids(filter.clone()).await, Ok(vec![]), "{filter}");
    }
    assert_eq!(world.client(&[&alice]).await.count(&[of(&alice)]).await, Ok(4));
    let wanted = json!({"kinds": [443], "authors": [alice.hex()], "ids": [events[2].id()]});
    assert_eq!(bobs.ids(wanted).await, Ok(ids(&[&events[2]])));
    assert_eq!(world.client(&[&alice]).await.count(&[of(&alice)]).await, Ok(3));
}

/// The filters of a request are looked at together: equal ones take two packages of an owner and no more.
#[tokio::test]
async fn equal_filters_take_packages_once() {
    let world = consuming().await;
    let [alice, bob] = Keys::some();
    stock(&world, &alice, 12).await;
    let found = world.client(&[&bob]).await.req("five", &vec![of(&alice); 5]).await.expect("served");
    assert_eq!(found.len(), 2);
    assert_eq!(world.client(&[&alice]).await.count(&[of(&alice)]).await, Ok(10));
}

/// An answer uses up no more than the limit of its filter, over all owners and with what else it sends.
#[tokio::test]
async fn a_limit_bounds_what_is_used_up() {
    let world = consuming().await;
    let [alice, bob, carol] = Keys::some();
    for owner in [&alice, &bob, &carol] {
        stock(&world, owner, 6).await;
    }
    let mut carols = world.client(&[&carol]).await;
    let mut left = 12;
    for (limit, used) in [(0, 0), (1, 1), (3, 3), (100, 4)] {
        let filter = json!({"kinds": [443], "authors": [alice.hex(), bob.hex()], "limit": limit});
        assert_eq!(carols.ids(filter).await.map(|ids| ids.len()), Ok(used), "limit {limit}");
        left -= used as u64;
        let counts = [
            world.client(&[&alice]).await.count(&[of(&alice)]).await.expect("counted"),
            world.client(&[&bob]).await.count(&[of(&bob)]).await.expect("counted"),
        ];
        assert_eq!(counts.iter().sum::<u64>(), left, "limit {limit}");
    }
    // Packages of others and her own count together.
    let filter = json!({"kinds": [443], "authors": [alice.hex(), carol.hex()], "limit": 3});
    assert_eq!(carols.ids(filter).await.map(|ids| ids.len()), Ok(3));
}

/// A reader may claim at most 10 packages of an owner an hour, and so may all readers of one address together. Then the
/// request is closed with the time after which to ask again, and has used nothing up, of another owner either.
#[tokio::test]
async fn claims_beyond_the_rate_are_told_when_to_retry() {
    let world = World::alone(|config| {
        config.mls_gateway.keypackage_consumption = KeyPackageConsumption::OnRead;
        config.mls_gateway.keypackages_per_owner_max = 30;
    })
    .await;
    let [alice, bob, carol, dave] = Keys::some();
    stock(&world, &alice, 30).await;
    stock(&world, &dave, 5).await;
    let mut bobs = world.client(&[&bob]).await;
    for _ in 0..5 {
        assert_eq!(take(&mut bobs, &alice).await.len(), 2);
    }
    let both = json!({"kinds": [443], "authors": [alice.hex(), dave.hex()]});
    for (reader, filter) in [(&bob, of(&alice)), (&bob, both.clone()), (&carol, of(&alice)), (&carol, both)] {
        let reason = world.client(&[reader]).await.ids(filter).await.expect_err("beyond the rate");
        let wait = reason.strip_prefix("rate-limited: ").and_then(|it| it.strip_suffix(" s"));
        let secs: Option<u64> = wait.and_then(|it| it.rsplit_once("; retry in ")?.1.parse().ok());
        assert!(secs.is_some_and(|secs| (1..=360).contains(&secs)), "{reason}");
    }
    assert_eq!(world.client(&[&alice]).await.count(&[of(&alice)]).await, Ok(20));
    assert_eq!(world.client(&[&dave]).await.count(&[of(&dave)]).await, Ok(5), "nothing was used up");
    for _ in 0..2 {
        assert_eq!(take(&mut bobs, &dave).await.len(), 2, "another owner, whose rate was not spent");
    }
    world.relay.advance(3_600);
    assert_eq!(take(&mut bobs, &alice).await.len(), 2);
}

/// A package that stays costs nothing and is served beyond the rate: the last one of an owner, and one of last resort.
#[tokio::test]
async fn the_last_package_is_served_beyond_the_rate() {
    let world = World::alone(|config| config.mls_gateway.keypackage_consumption = KeyPackageConsumption::OnRead).await;
    let [alice, bob, carol] = Keys::some();
    let events = stock(&world, &alice, 11).await;
    let mut carols = world.client(&[&carol]).await;
    for _ in 0..5 {
        take(&mut carols, &alice).await;
    }
    for _ in 0..20 {
        assert_eq!(take(&mut carols, &alice).await, ids(&[&events[10]]), "the last one");
    }
    let last = Package::of_last_resort(&bob).draft(443).sign();
    world.client(&[&bob]).await.publish(&last).await.ok();
    stock(&world, &bob, 12).await;
    for _ in 0..5 {
        assert_eq!(take(&mut carols, &bob).await.len(), 2);
    }
    assert_eq!(take(&mut carols, &bob).await, ids(&[&last]), "one of last resort");
    assert_eq!(world.client(&[&bob]).await.count(&[of(&bob)]).await, Ok(3));
}

/// A store that fails at a later owner loses no package of an earlier one: those are sent, then the request ends.
#[tokio::test]
async fn a_failure_at_a_later_owner_loses_no_package() {
    let (store, link) = Shared::new().instance();
    let relay = TestRelay::start_over(store, |config| {
        config.mls_gateway.keypackage_consumption = KeyPackageConsumption::OnRead;
    })
    .await;
    let [alice, bob, carol] = Keys::some();
    for owner in [&alice, &bob] {
        let mut client = Client::of(&relay, &[owner]).await;
        for _ in 0..4 {
            client.publish(&Package::new(owner).draft(443).sign()).await.ok();
        }
    }
    let mut carols = Client::of(&relay, &[&carol]).await;
    link.claims_left.store(1, Ordering::Relaxed);
    let filter = json!({"kinds": [443], "authors": [alice.hex(), bob.hex()]});
    carols.send(&json!(["REQ", "both", filter])).await;
    let mut sent = 0;
    let end = loop {
        let frame = carols.find(|frame| frame[1] == "both").await;
        if frame[0] != "EVENT" {
            break frame;
        }
        sent += 1;
    };
    assert!(end[0] == "CLOSED" && end[2].as_str().is_some_and(|it| it.starts_with("error: ")), "{end}");
    assert_eq!(sent, 2, "the packages of the first owner");
    assert_eq!(link.claims.load(Ordering::Relaxed), 1);
    link.claims_left.store(u64::MAX, Ordering::Relaxed);
    assert_eq!(carols.req("both", &[filter]).await.expect("served").len(), 4);
    relay.stop().await;
}
