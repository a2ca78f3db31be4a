//! Questions to the service are asked as their reader, who pays: none takes up the share of members.

use std::time::Duration;

use nostr_extensions::GroupStatus;
use nostr_relay::config::Config;
use serde_json::json;

use super::{
    OLD, World,
    faults::members,
    service::{Fault, Faulty, ask},
};
use crate::support::{
    Client, Event, Keys, TestRelay,
    gateway::{capability, message, welcome},
    rest::Rest,
};

/// Questions that an address may have asked at once, and some more for which time has paid meanwhile. The groups that a
/// test's publisher had looked up count as well.
const QUESTIONS: std::ops::RangeInclusive<u64> = 50..=330;

fn with_rates(config: &mut Config) {
    config.mls_gateway.rate_limits.max_events_per_minute = 100;
}

#[tokio::test]
async fn made_up_ids_cost_their_sender_and_not_the_service() {
    let world = World::with(with_rates).await;
    let alice = Keys::random();
    world.service.set("team", &[&alice]);
    let mut eve = world.client(&Keys::random()).await;
    let ids: Vec<String> = (0..900).map(|n| format!("made-up-{n}")).collect();
    let closed = eve.req("many", &[json!({"kinds": [445], "#h": ids})]).await.expect_err("too many questions");
    assert!(closed.starts_with("rate-limited: too many questions"), "{closed}");
    let asked = world.service.directory.questions();
    assert!(QUESTIONS.contains(&asked), "{asked} questions");
    // A member asks for free, from the same address.
    let mut of_alice = world.client(&alice).await;
    assert_eq!(of_alice.publish(&message("team").sign()).await.reason.split(':').next(), Some("rate-limited"));
    comes_to_be_known(&world).await;
    of_alice.publish(&message("team").sign()).await.ok();
    world.relay.stop().await;
}

/// Waits until the stored group `team` has its member, by a question that an admin key makes free.
async fn comes_to_be_known(world: &World) {
    let mut admins = world.client(&world.admin).await;
    admins.publish(&message("team").sign()).await.refused("restricted");
    assert!(matches!(world.status("team").await, GroupStatus::Managed(_)));
}

/// A member stays one while the group's state is not in memory: it pays nothing for a question.
#[tokio::test]
async fn a_member_is_none_of_the_others_while_its_group_is_not_in_memory() {
    let world = World::with(with_rates).await;
    let alice = Keys::random();
    world.service.set("team", &[&alice]);
    let mut of_alice = world.client(&alice).await;
    let first = message("team").sign();
    of_alice.publish(&first).await.ok();
    let mut eve = world.client(&Keys::random()).await;
    for round in 0..2 {
        tokio::time::sleep(OLD).await;
        let ids: Vec<String> = (0..900).map(|n| format!("made-up-{round}-{n}")).collect();
        let closed = eve.req("many", &[json!({"kinds": [445], "#h": ids})]).await.expect_err("too many questions");
        assert!(closed.starts_with("rate-limited: too many questions"), "{closed}");
    }
    assert_eq!(of_alice.ids(json!({"kinds": [445], "#h": ["team"]})).await, Ok(vec![first.id().to_owned()]));
    world.relay.stop().await;
}

/// A reader by ids has the groups of the events asked about, as many as it pays for.
#[tokio::test]
async fn invented_unlisted_groups_cost_the_reader_that_opens_them() {
    let world = World::with(with_rates).await;
    let messages: Vec<Event> = (0..390).map(|_| message(&capability()).sign()).collect();
    // The operator's key pays for no question, so that the groups are there.
    let mut admins = world.client(&world.admin).await;
    for answer in admins.publish_all(&messages).await {
        answer.ok();
    }
    tokio::time::sleep(OLD).await;
    let ids: Vec<&str> = messages.iter().map(Event::id).collect();
    let mut eve = world.client(&Keys::random()).await;
    let asked = world.service.directory.questions();
    let closed = eve.req("ids", &[json!({"ids": ids})]).await.expect_err("too many questions");
    assert!(closed.starts_with("rate-limited: too many questions"), "{closed}");
    let asked = world.service.directory.questions() - asked;
    assert!(QUESTIONS.contains(&asked), "{asked} questions");
    world.relay.stop().await;
}

/// A key that founds groups for itself is a member of them, and pays for the questions about them.
#[tokio::test]
async fn groups_that_a_key_founds_for_itself_cost_it() {
    let world = World::with(|config| {
        with_rates(config);
        config.mls_gateway.membership_sources.push(nostr_extensions::Source::GiftWrap);
    })
    .await;
    let eve = Keys::random();
    let founders: Vec<Keys> = (0..18).map(|_| Keys::random()).collect();
    let groups: Vec<String> = (0..18 * 18).map(|n| format!("own-{n}")).collect();
    for (some, founder) in groups.chunks(18).zip(&founders) {
        // The operator's key is on the connection: it pays, and the founder is the wrap's author.
        let mut client = Client::of(&world.relay, &[&world.admin, founder]).await;
        for group in some {
            let wrap = founder.event(1059).tag(["p", &eve.hex()]).tag(["h", group]).content("wrapped");
            client.publish(&wrap.sign()).await.ok();
        }
    }
    tokio::time::sleep(OLD).await;
    // The groups that the publishers had looked up cost their address as well.
    world.relay.advance(30);
    let (rest, asked) = (Rest::of(&world.relay, &eve), world.service.directory.questions());
    let (mut shown, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = rest.get(&format!("/groups{cursor}")).ok().await;
        shown.extend(page["groups"].as_array().expect("groups").iter().map(|group| group["group_id"].clone()));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("?cursor={next}");
    }
    let asked = world.service.directory.questions() - asked;
    // An eighth of the bucket, and some for which time has paid meanwhile.
    assert!((30..=90).contains(&asked), "{} groups, {asked} questions", shown.len());
    assert!(shown.len() < groups.len(), "groups beyond her means are passed over");
    // Her address has the rest of the bucket for groups that requests name.
    let ids: Vec<String> = (0..100).map(|n| format!("named-{n}")).collect();
    let mut named = world.client(&Keys::random()).await;
    named.req("many", &[json!({"kinds": [445], "#h": ids})]).await.expect("100 questions");
    // A request that names no group passes over those beyond her means: she need not have asked for their foundings.
    let (alice, asked) = (Keys::random(), world.service.directory.questions());
    world.service.set("team", &[&eve, &alice]);
    let mut of_alice = world.client(&alice).await;
    let first = message("team").sign();
    let by_admin = Client::of(&world.relay, &[&world.admin, &alice]).await.publish(&first).await;
    by_admin.ok();
    let found = world.client(&eve).await.ids(json!({"kinds": [445]})).await.expect("an answer");
    assert!(found.contains(&first.id().to_owned()), "{found:?}");
    let asked = world.service.directory.questions() - asked;
    assert!(asked <= 60, "{asked} questions by one request of a payer that has asked too much");
    assert_eq!(of_alice.ids(json!({"kinds": [445]})).await, Ok(vec![first.id().to_owned()]));
    world.relay.stop().await;
}

/// The service fails at ids of a stranger's choice, and is asked about other groups all the same.
#[tokio::test]
async fn groups_at_which_the_service_fails_shut_no_member_out() {
    let (alice, eve, h) = (Keys::random(), Keys::random(), capability());
    let unknown = || Fault::answer("404 Not Found", "", "");
    let about = |others: Fault| Fault::About("team".to_owned(), Box::new((members(&[&alice]), others)));
    let service = Faulty::start(about(unknown())).await;
    let relay = TestRelay::start_alone(|config| {
        ask(config, service.address);
        config.mls_gateway.acl_stale_max_secs = 1;
        config.mls_gateway.membership_sources.push(nostr_extensions::Source::GiftWrap);
    })
    .await;
    let (mut of_alice, mut of_eve) = (Client::of(&relay, &[&alice]).await, Client::of(&relay, &[&eve]).await);
    of_alice.publish(&message("team").sign()).await.ok();
    let open = message(&h).sign();
    of_eve.publish(&open).await.ok();
    of_eve.publish(&welcome(&Keys::random(), "own").sign()).await.ok();
    let own = message("own").sign();
    of_eve.publish(&own).await.ok();
    service.now(about(Fault::answer("500 Internal Server Error", "", "")));
    for filter in [
        json!({"ids": [open.id()]}),
        json!({"ids": [own.id()]}),
        json!({"kinds": [445]}),
        json!({"kinds": [445], "#h": ["own"]}),
    ] {
        tokio::time::sleep(Duration::from_millis(1_200)).await;
        let asked = service.questions();
        assert_eq!(of_eve.ids(filter.clone()).await, Ok(vec![]), "{filter}");
        assert!(service.questions() > asked, "{filter}: the service fails at it");
        of_alice.publish(&message("team").sign()).await.ok();
    }
    Rest::of(&relay, &eve).get("/groups").ok().await;
    relay.stop().await;
}
