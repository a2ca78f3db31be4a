//! The access service decides about members: a real service, one that answers wrong, and one that dies.

mod closed;
mod dropped;
mod faults;
mod payers;
mod refresh;
mod service;

use std::time::{Duration, Instant};

use nostr_extensions::{GroupStatus, NostrGroupId, Source};
use nostr_relay::config::Config;
use serde_json::json;

use self::service::{Reference, ask};
use crate::{
    metrics::{metrics, value},
    support::{
        Client, Keys, TestRelay,
        gateway::{capability, message, roster, welcome},
        shared::Shared,
    },
};

/// Time after which every answer is old, and has been asked for again.
const OLD: Duration = Duration::from_millis(1_500);
/// Longest wait for something that comes by itself.
const WAIT: Duration = Duration::from_secs(10);

/// A relay and its service, with the admin key of the relay.
struct World {
    service: Reference,
    relay: TestRelay,
    admin: Keys,
}

impl World {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(configure: impl FnOnce(&mut Config)) -> Self {
        let (service, admin) = (Reference::start().await, Keys::random());
        let relay = TestRelay::start(|config| {
            ask(config, service.address);
            config.mls_gateway.admin_pubkeys = vec![admin.public()];
            configure(config);
        });
        Self { relay: relay.await, service, admin }
    }

    async fn client(&self, keys: &Keys) -> Client {
        Client::of(&self.relay, &[keys]).await
    }

    async fn status(&self, group: &str) -> GroupStatus {
        status(&self.relay, group).await
    }
}

async fn status(relay: &TestRelay, group: &str) -> GroupStatus {
    let id = NostrGroupId::parse(group).expect("a group id");
    relay.app().store.group(&id).await.expect("the store answers").0.status
}

fn has_member(status: &GroupStatus, keys: &Keys) -> bool {
    matches!(status, GroupStatus::Managed(view) if view.members.contains_key(&keys.public()))
}

/// Waits until the stored group has this member, or has it no more.
async fn comes_to_have(relay: &TestRelay, group: &str, keys: &Keys, has: bool) {
    let until = Instant::now() + WAIT;
    while has_member(&status(relay, group).await, keys) != has {
        assert!(Instant::now() < until, "the members of {group} stay as they were");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn members_are_those_that_the_service_names() {
    let world = World::new().await;
    let [alice, bob, carol] = [(); 3].map(|()| Keys::random());
    world.service.set("team", &[&alice, &bob]);
    let (mut of_alice, mut of_bob) = (world.client(&alice).await, world.client(&bob).await);
    let mut of_carol = world.client(&carol).await;
    for client in [&mut of_bob, &mut of_carol] {
        client.req("live", &[json!({"kinds": [445]})]).await.expect("a reader may ask");
    }
    let first = message("team").sign();
    of_alice.publish(&first).await.ok();
    assert_eq!(of_bob.next_event("live").await, first);
    assert_eq!(of_bob.ids(json!({"#h": ["team"]})).await, Ok(vec![first.id().to_owned()]));
    assert_eq!(of_carol.ids(json!({"#h": ["team"]})).await, Ok(vec![]));
    assert_eq!(of_carol.ids(json!({"ids": [first.id()]})).await, Ok(vec![]));
    let here = of_carol.publish(&message("team").sign()).await;
    let elsewhere = of_carol.publish(&message("none").sign()).await;
    assert_eq!(here.refused("restricted"), elsewhere.refused("restricted"));
    of_carol.expect_nothing().await;
    let GroupStatus::Managed(view) = world.status("team").await else { panic!("it is managed") };
    assert_eq!((view.record.source, view.members.len()), (Source::Acl, 2));
    let mut updates = 0.0;
    for address in world.relay.addresses() {
        updates += value(&metrics(address).await, "mls_gateway_membership_updates_total");
    }
    assert_eq!(updates, 1.0, "the answer that changed the group, on the instance that asked for it");
    world.relay.stop().await;
}

#[tokio::test]
async fn a_new_member_reads_at_once_and_a_former_one_is_out_within_the_ttl() {
    let world = World::new().await;
    let [alice, bob, carol] = [(); 3].map(|()| Keys::random());
    world.service.set("team", &[&alice, &bob]);
    let (mut of_alice, mut of_bob) = (world.client(&alice).await, world.client(&bob).await);
    let before = message("team").sign();
    of_alice.publish(&before).await.ok();
    of_bob.req("live", &[json!({"kinds": [445], "#h": ["team"], "limit": 0})]).await.expect("a member");

    world.service.set("team", &[&alice, &carol]);
    let mut of_carol = world.client(&carol).await;
    let archive = of_carol.req("live", &[json!({"kinds": [445], "#h": ["team"]})]).await.expect("a member");
    assert_eq!(archive, [before], "a key that is no member by the stored answer is asked for");
    tokio::time::sleep(OLD).await;
    let after = message("team").sign();
    of_alice.publish(&after).await.ok();
    assert_eq!(of_carol.next_event("live").await, after);
    assert_eq!(of_bob.received("live").await, []);
    assert_eq!(of_bob.ids(json!({"#h": ["team"]})).await, Ok(vec![]));
    of_bob.publish(&message("team").sign()).await.refused("restricted");
    world.relay.stop().await;
}

#[tokio::test]
async fn a_change_comes_without_anyone_asking_while_somebody_subscribes() {
    let world = World::new().await;
    let [alice, bob, carol] = [(); 3].map(|()| Keys::random());
    world.service.set("team", &[&alice, &bob]);
    let mut of_bob = world.client(&bob).await;
    of_bob.req("live", &[json!({"kinds": [445], "#h": ["team"]})]).await.expect("a member");
    world.service.set("team", &[&alice, &carol]);
    comes_to_have(&world.relay, "team", &bob, false).await;
    assert!(has_member(&world.status("team").await, &carol));
    world.relay.stop().await;
}

#[tokio::test]
async fn a_group_that_the_service_forgot_has_no_members_and_stays_managed() {
    let world = World::new().await;
    let (alice, h) = (Keys::random(), capability());
    world.service.set(&h, &[&alice]);
    let mut of_alice = world.client(&alice).await;
    of_alice.publish(&message(&h).sign()).await.ok();
    world.service.remove(&h);
    tokio::time::sleep(OLD).await;
    of_alice.publish(&message(&h).sign()).await.refused("restricted");
    assert_eq!(of_alice.ids(json!({"#h": [h]})).await, Ok(vec![]));
    let GroupStatus::Managed(view) = world.status(&h).await else { panic!("it stays managed") };
    assert!(view.members.is_empty());
    let mut admins = world.client(&world.admin).await;
    admins.publish(&roster(&world.admin, &h, 1, "bootstrap", &[&alice]).sign()).await.refused("invalid");
    admins.publish(&roster(&world.admin, &h, 1, "add", &[&alice]).sign()).await.refused("blocked");
    world.relay.stop().await;
}

#[tokio::test]
async fn the_service_decides_over_rosters_and_gift_wraps() {
    let world = World::with(|config| config.mls_gateway.membership_sources.push(Source::GiftWrap)).await;
    let [alice, bob, carol] = [(); 3].map(|()| Keys::random());
    world.service.set("team", &[&alice, &bob]);
    let mut of_alice = world.client(&alice).await;
    of_alice.publish(&roster(&alice, "team", 1, "add", &[&carol]).sign()).await.refused("blocked");
    of_alice.publish(&roster(&alice, "team", 1, "remove", &[&bob]).sign()).await.refused("blocked");
    of_alice.publish(&welcome(&carol, "team").sign()).await.ok();
    assert!(!has_member(&world.status("team").await, &carol), "the wrap is delivered, and changes nothing");
    let named = roster(&alice, "team", 1, "add", &[&bob]).tag(["name", "Team"]).tag(["commit_ordering", "strict"]);
    of_alice.publish(&named.sign()).await.ok();
    let mut of_bob = world.client(&bob).await;
    of_bob.publish(&roster(&bob, "team", 2, "remove", &[&bob]).sign()).await.refused("blocked");

    // A group that rosters run goes over to the service, once the service knows it.
    let mut admins = world.client(&world.admin).await;
    admins.publish(&roster(&world.admin, "other", 1, "bootstrap", &[&bob, &carol]).sign()).await.ok();
    of_bob.publish(&message("other").sign()).await.ok();
    world.service.set("other", &[&alice]);
    tokio::time::sleep(OLD).await;
    of_bob.publish(&message("other").sign()).await.refused("restricted");
    of_alice.publish(&message("other").sign()).await.ok();
    world.relay.stop().await;
}

#[tokio::test]
async fn a_service_that_dies_closes_its_groups_and_comes_back() {
    let mut world = World::new().await;
    let (alice, bob) = (Keys::random(), Keys::random());
    world.service.set("team", &[&alice, &bob]);
    let (mut of_alice, mut of_bob) = (world.client(&alice).await, world.client(&bob).await);
    let first = message("team").sign();
    of_alice.publish(&first).await.ok();
    assert_eq!(of_bob.ids(json!({"#h": ["team"]})).await, Ok(vec![first.id().to_owned()]));

    let address = world.service.die().await;
    tokio::time::sleep(OLD).await;
    of_alice.publish(&message("team").sign()).await.ok();
    of_alice.publish(&message("none").sign()).await.refused("error");
    tokio::time::sleep(Duration::from_secs(3)).await;
    of_alice.publish(&message("team").sign()).await.refused("error");
    for filter in [json!({"#h": ["team"]}), json!({"kinds": [445]}), json!({"ids": [first.id()]})] {
        assert_eq!(of_bob.ids(filter.clone()).await, Ok(vec![]), "{filter}");
        assert_eq!(of_bob.count(&[filter]).await, Ok(0));
    }
    // Events of no group go on.
    of_alice.publish(&alice.event(1).content("a note").sign()).await.ok();

    world.service = Reference::start_at(address).await;
    world.service.set("team", &[&alice]);
    tokio::time::sleep(OLD).await;
    of_alice.publish(&message("team").sign()).await.ok();
    assert_eq!(of_bob.ids(json!({"#h": ["team"]})).await, Ok(vec![]));
    assert_eq!(of_alice.ids(json!({"#h": ["team"]})).await.map(|ids| ids.len()), Ok(3));
    world.relay.stop().await;
}

#[tokio::test]
async fn two_instances_go_by_one_answer() {
    let (service, shared) = (Reference::start().await, Shared::new());
    let [a, b] = [shared.instance().0, shared.instance().0]
        .map(|store| TestRelay::start_over(store, |config| ask(config, service.address)));
    let (a, b) = (a.await, b.await);
    let [alice, bob, carol] = [(); 3].map(|()| Keys::random());
    service.set("team", &[&alice, &bob]);
    let (mut of_alice, mut of_bob) = (Client::of(&a, &[&alice]).await, Client::of(&b, &[&bob]).await);
    of_bob.req("live", &[json!({"kinds": [445]})]).await.expect("a reader may ask");
    let first = message("team").sign();
    of_alice.publish(&first).await.ok();
    assert_eq!(of_bob.next_event("live").await, first, "this instance has asked nothing yet");
    let mut of_carol = Client::of(&b, &[&carol]).await;
    of_carol.req("live", &[json!({"kinds": [445]})]).await.expect("a reader may ask");
    service.set("team", &[&alice, &carol]);
    tokio::time::sleep(OLD).await;
    let second = message("team").sign();
    of_alice.publish(&second).await.ok();
    assert_eq!(of_carol.next_event("live").await, second);
    assert_eq!(of_bob.received("live").await, []);
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn unlisted_groups_go_on_beside_the_service() {
    let world = World::new().await;
    let h = capability();
    let mut anonymous = Client::connect(&world.relay).await;
    for _ in 0..10 {
        anonymous.publish(&message(&h).sign()).await.ok();
    }
    assert_eq!(anonymous.ids(json!({"kinds": [445], "#h": [h]})).await.map(|ids| ids.len()), Ok(10));
    let asked = world.service.directory.questions();
    assert!(asked <= 3, "{asked} questions about one id that the service does not know");
    world.relay.stop().await;
}
