//! docs/rules.md, "Rate limits": the bucket that each event pays from, and that no client mutes another. The clock
//! stands still unless a test moves it.

use nostr_relay::config::Config;

use super::World;
use crate::support::{
    Answer, Client, Event, Keys, TestRelay,
    gateway::{capability, message, noise, request, wrap},
};

pub(super) fn events_per_minute(rate: u32) -> impl FnOnce(&mut Config) {
    move |config| config.mls_gateway.rate_limits.max_events_per_minute = rate
}

pub(super) fn taken(answers: &[Answer]) -> usize {
    for answer in answers.iter().filter(|answer| !answer.accepted) {
        let reason = answer.refused("rate-limited");
        assert!(reason.contains("; retry in ") && reason.ends_with(" s"), "{reason}");
    }
    answers.iter().filter(|answer| answer.accepted).count()
}

pub(super) fn notes(by: &Keys, count: usize) -> Vec<Event> {
    (0..count).map(|n| by.event(1).content(n.to_string()).sign()).collect()
}

/// A burst of 200 events is accepted, then the sustained rate applies.
#[tokio::test]
async fn a_burst_of_200_and_then_the_rate() {
    let world = World::alone(events_per_minute(60)).await;
    let alice = Keys::random();
    let mut client = world.client(&[]).await;
    let events = notes(&alice, 221);
    assert_eq!(taken(&client.publish_all(&events[..210]).await), 200);
    world.relay.advance(5);
    assert_eq!(taken(&client.publish_all(&events[210..221]).await), 5);
}

/// An event of many tags costs as much as the work that it gives the store, and so does a deletion of many targets.
#[tokio::test]
async fn an_event_is_charged_by_what_it_costs() {
    let world = World::alone(events_per_minute(60)).await;
    let alice = Keys::random();
    let mut client = world.client(&[]).await;
    let heavy = |n: usize| alice.event(1).tags("t", (0..2_400).map(|tag| format!("{n} {tag}"))).sign();
    // Each costs 1, 96 for its tags, and 1 for its bytes: two of them are in a burst of 200.
    assert_eq!(taken(&client.publish_all(&(0..9).map(heavy).collect::<Vec<_>>()).await), 2);
    assert_eq!(taken(&client.publish_all(&notes(&alice, 20)).await), 200 - 2 * 98);
    world.relay.advance(100);
    let deletion = |n: usize| alice.event(5).tags("e", (0..200).map(|target| format!("{n:032x}{target:032x}"))).sign();
    // Each costs 1, 8 for its tags, and 40 for its targets: two of them are paid by 100.
    assert_eq!(taken(&client.publish_all(&(0..9).map(deletion).collect::<Vec<_>>()).await), 2);
}

/// All connections of an address pay from one bucket.
#[tokio::test]
async fn one_address_has_one_bucket() {
    let world = World::alone(events_per_minute(60)).await;
    let [alice, bob] = Keys::some();
    assert_eq!(taken(&world.client(&[]).await.publish_all(&notes(&alice, 150)).await), 150);
    assert_eq!(taken(&world.client(&[]).await.publish_all(&notes(&bob, 100)).await), 50);
}

/// A key also pays from its own bucket, from every address.
#[tokio::test]
async fn a_key_pays_from_every_address() {
    let world = behind_proxy(60).await;
    let alice = Keys::random();
    let mut accepted = 0;
    for n in 0..4 {
        let mut client = from(&world, &format!("203.0.113.{n}")).await;
        client.auth(&alice).await.ok();
        let events: Vec<Event> = (0..60).map(|m| alice.event(1).content(format!("{n} {m}")).sign()).collect();
        accepted += taken(&client.publish_all(&events).await);
    }
    assert_eq!(accepted, 200);
}

/// A relay with a `public_url` behind a trusted proxy on this machine.
pub(super) async fn behind_proxy(rate: u32) -> World {
    World::alone(|config| {
        config.server.trusted_proxies =
            ["127.0.0.0/8", "10.0.0.0/8"].map(|range| range.parse().expect("a range")).to_vec();
        config.mls_gateway.rate_limits.max_events_per_minute = rate;
        config.server.public_url = nostr_relay::config::RelayUrl::parse("ws://127.0.0.1").ok();
    })
    .await
}

/// A client that comes from this address, as the proxy says.
pub(super) async fn from(world: &World, forwarded: &str) -> Client {
    let mut client = Client::connect_with(&world.relay, &[("x-forwarded-for", forwarded)]).await;
    client.name_relay("ws://127.0.0.1");
    client
}

/// Behind a trusted peer the address is the right-most untrusted one of X-Forwarded-For. Addresses that a client wrote
/// itself stand to the left and count for nothing.
#[tokio::test]
async fn the_address_is_the_rightmost_untrusted_one() {
    let world = behind_proxy(60).await;
    let alice = Keys::random();
    let events = notes(&alice, 400);
    assert_eq!(
        taken(&from(&world, "198.51.100.1, 203.0.113.7, 10.1.2.3").await.publish_all(&events[..150]).await),
        150
    );
    assert_eq!(taken(&from(&world, "198.51.100.2, 203.0.113.7").await.publish_all(&events[150..300]).await), 50);
    assert_eq!(taken(&from(&world, "203.0.113.8").await.publish_all(&events[300..400]).await), 100);
}

/// A peer that is not trusted cannot name another address.
#[tokio::test]
async fn an_untrusted_peer_names_no_address() {
    let world = World::alone(events_per_minute(60)).await;
    let alice = Keys::random();
    let events = notes(&alice, 300);
    let mut one = Client::connect_with(&world.relay, &[("x-forwarded-for", "203.0.113.1")]).await;
    let mut two = Client::connect_with(&world.relay, &[("x-forwarded-for", "203.0.113.2")]).await;
    assert_eq!(taken(&one.publish_all(&events[..150]).await) + taken(&two.publish_all(&events[150..]).await), 200);
}

/// Residents pay from their key alone: an empty bucket of their address does not stop them, nor their AUTH.
#[tokio::test]
async fn residents_pay_from_their_key_alone() {
    let [alice, bob] = Keys::some();
    let world = World::alone(|config| {
        events_per_minute(60)(config);
        config.auth.pubkey_whitelist = vec![alice.public(), bob.public()];
    })
    .await;
    let mut eves = world.client(&[]).await;
    let wraps: Vec<Event> = (0..100).flat_map(|_| [wrap(&alice).sign(), wrap(&bob).sign()]).collect();
    assert_eq!(taken(&eves.publish_all(&wraps).await), 200);
    assert_eq!(taken(&eves.publish_all(&[wrap(&bob).sign()]).await), 0);
    let mut alices = Client::of(&world.relay, &[&alice]).await;
    assert_eq!(taken(&alices.publish_all(&notes(&alice, 410)).await), 400);
    let mut bobs = Client::of(&world.relay, &[&bob]).await;
    assert_eq!(taken(&bobs.publish_all(&notes(&bob, 410)).await), 400, "two residents of an address send 800");
}

/// A 445 pays per sender and group: a sender that is over its rate in one group may send to another, and mutes nobody.
#[tokio::test]
async fn no_one_mutes_a_group() {
    let world = World::alone(|config| config.mls_gateway.rate_limits.max_group_messages_per_minute = 60).await;
    let [alice, bob] = Keys::some();
    world.group("grp_a", &[&alice, &bob]).await;
    world.group("grp_b", &[&alice]).await;
    let to = |group: &str, count: usize| (0..count).map(|_| message(group).sign()).collect::<Vec<_>>();
    let mut alices = world.client(&[&alice]).await;
    assert_eq!(taken(&alices.publish_all(&to("grp_a", 160)).await), 150);
    assert_eq!(taken(&alices.publish_all(&to("grp_b", 10)).await), 10);
    assert_eq!(taken(&world.client(&[&bob]).await.publish_all(&to("grp_a", 10)).await), 10);
}

/// A message that is refused at admission costs its group nothing.
#[tokio::test]
async fn strangers_spend_nothing_of_a_group() {
    let world = World::alone(|config| config.mls_gateway.rate_limits.max_group_messages_per_minute = 1).await;
    let [alice, eve] = Keys::some();
    world.group("grp_a", &[&alice]).await;
    let mut eves = world.client(&[&eve]).await;
    for _ in 0..200 {
        eves.publish(&message("grp_a").sign()).await.refused("restricted");
    }
    world.client(&[&alice]).await.publish(&message("grp_a").sign()).await.ok();
}

/// A 1059 pays per sender and recipient: another sender still reaches the inbox.
#[tokio::test]
async fn no_one_mutes_an_inbox() {
    let world = behind_proxy(60).await;
    let [alice, bob, carol] = Keys::some();
    let to = |recipient: &Keys, count: usize| (0..count).map(|_| wrap(recipient).sign()).collect::<Vec<_>>();
    let mut alices = from(&world, "203.0.113.1").await;
    alices.auth(&alice).await.ok();
    assert_eq!(taken(&alices.publish_all(&to(&carol, 155)).await), 150);
    let mut bobs = from(&world, "203.0.113.2").await;
    bobs.auth(&bob).await.ok();
    assert_eq!(taken(&bobs.publish_all(&to(&carol, 10)).await), 10);
}

/// KeyPackages have an hourly rate of their own.
#[tokio::test]
async fn key_packages_have_a_rate_of_their_own() {
    let world = World::alone(|config| config.mls_gateway.rate_limits.max_keypackages_per_hour = 10).await;
    let alice = Keys::random();
    let mut client = world.client(&[]).await;
    // Each is newer than the one before, so that none is refused for the stock.
    let first = world.relay.now() - 200;
    let package = |n: u64| alice.event(443).created_at(first + n).content(n.to_string()).sign();
    let events: Vec<Event> = (0..155).map(package).collect();
    assert_eq!(taken(&client.publish_all(&events).await), 150);
    client.publish(&alice.event(1).sign()).await.ok();
    world.relay.advance(360);
    assert_eq!(taken(&client.publish_all(&events[150..152]).await), 1);
}

/// A 447 pays per publisher.
#[tokio::test]
async fn requests_pay_per_publisher() {
    let system = Keys::random();
    let bob = Keys::random();
    let world = World::alone(|config| {
        events_per_minute(60)(config);
        config.mls_gateway.system_pubkey = Some(system.public());
        config.auth.pubkey_whitelist = vec![system.public()];
    })
    .await;
    let asks = |by: &Keys, count: usize| {
        (0..count).map(|n| request(by, &bob).tag(["min", &n.to_string()]).sign()).collect::<Vec<_>>()
    };
    let mut admin = world.admin().await;
    assert_eq!(taken(&admin.publish_all(&asks(&world.admin, 405)).await), 400);
    assert_eq!(taken(&world.client(&[&system]).await.publish_all(&asks(&system, 10)).await), 10);
}

/// A rate of 0 means no limit.
#[tokio::test]
async fn zero_is_no_limit() {
    let world = World::alone(|_| {}).await;
    let [alice, bob] = Keys::some();
    let group = capability();
    let mut client = world.client(&[&alice]).await;
    let mut events = notes(&alice, 160);
    events.extend((0..160).map(|_| message(&group).sign()));
    events.extend((0..160).map(|n| noise(&alice, &bob).content(n.to_string()).sign()));
    assert_eq!(taken(&client.publish_all(&events).await), 480);
}

/// The built-in rates are the specification's.
#[tokio::test]
async fn the_built_in_rates_are_the_specifications() {
    let relay =
        TestRelay::start_alone(|config| config.mls_gateway.rate_limits = Config::default().mls_gateway.rate_limits)
            .await;
    let rates = &relay.app().config.mls_gateway.rate_limits;
    let numbers = (rates.max_events_per_minute, rates.max_keypackages_per_hour, rates.max_group_messages_per_minute);
    assert_eq!(numbers, (100, 10, 50));
    let events = notes(&Keys::random(), 202);
    let mut client = Client::connect(&relay).await;
    assert_eq!(taken(&client.publish_all(&events[..201]).await), 200);
    relay.advance(1);
    client.publish(&events[201]).await.ok();
}
