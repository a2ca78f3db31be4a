//! Live delivery of events that another instance accepted.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use serde_json::{Value, json};

use super::{Pair, contents, fetches, metric};
use crate::support::{
    Client, Event, Keys, TestRelay,
    gateway::{message, roster},
};

/// Publishes notes until `stop` is set. Returns their number.
fn load(relay: &TestRelay, stop: &Arc<AtomicBool>) -> tokio::task::JoinHandle<usize> {
    let (url, stop) = (relay.url.clone(), Arc::clone(stop));
    tokio::spawn(async move {
        let mut client = Client::open(&url, &[]).await.expect("it connects");
        let keys = Keys::random();
        let mut published = 0;
        while !stop.load(Ordering::Relaxed) {
            let events: Vec<Event> = (0..8).map(|n| keys.event(1).content(format!("{published} {n}")).sign()).collect();
            for answer in client.publish_all(&events).await {
                answer.ok();
                published += 1;
            }
        }
        published
    })
}

#[tokio::test]
async fn a_group_message_reaches_a_member_on_another_instance() {
    let pair = Pair::start().await;
    let [alice, bob, carol] = Keys::some();
    pair.found("grp_a", &[&alice, &bob]).await;
    let mut bobs = Client::of(&pair.b, &[&bob]).await;
    let mut carols = Client::of(&pair.b, &[&carol]).await;
    assert!(bobs.req("live", &[json!({"kinds": [445]})]).await.expect("served").is_empty());
    assert!(carols.req("live", &[json!({"kinds": [445]})]).await.expect("served").is_empty());
    let mut alices = Client::of(&pair.a, &[&alice]).await;
    let sent = message("grp_a").sign();
    alices.publish(&sent).await.ok();
    assert_eq!(bobs.next_event("live").await.id(), sent.id());
    bobs.expect_nothing().await;
    carols.expect_nothing().await;
    pair.stop().await;
}

/// A request of a reader in many groups reads the groups' states together, and not one after the other.
#[tokio::test]
async fn the_groups_of_a_request_are_read_together() {
    const GROUPS: usize = 40;
    let pair = Pair::start().await;
    let [alice, bob] = Keys::some();
    let mut alices = Client::of(&pair.a, &[&alice]).await;
    let mut admins = pair.admin_on_a().await;
    for n in 0..GROUPS {
        let group = format!("grp_{n}");
        admins.publish(&roster(&pair.admin, &group, 1, "bootstrap", &[&alice, &bob]).sign()).await.ok();
        alices.publish(&message(&group).sign()).await.ok();
        // A group of others: one that does not exist would not be read.
        let others = format!("other_{n}");
        admins.publish(&roster(&pair.admin, &others, 1, "bootstrap", &[&alice]).sign()).await.ok();
    }
    let mut bobs = Client::of(&pair.b, &[&bob]).await;
    let named: Vec<String> = (0..GROUPS).map(|n| format!("other_{n}")).collect();
    for (filter, found) in [(json!({"kinds": [445]}), GROUPS), (json!({"kinds": [445], "#h": named}), 0)] {
        pair.link_b.group_loads_most.store(0, Ordering::Relaxed);
        pair.link_b.delay_ms.store(20, Ordering::Relaxed);
        assert_eq!(bobs.ids(filter.clone()).await.expect("served").len(), found);
        pair.link_b.delay_ms.store(0, Ordering::Relaxed);
        assert_eq!(pair.link_b.group_loads_most.load(Ordering::Relaxed), 16, "{filter}");
    }
    pair.stop().await;
}

/// Ephemeral events, which are in no archive, reach another instance through the same log.
#[tokio::test]
async fn ephemeral_events_reach_another_instance_once() {
    let pair = Pair::start().await;
    let [alice, bob] = Keys::some();
    let mut bobs = Client::of(&pair.b, &[&bob]).await;
    bobs.req("public", &[json!({"kinds": [20_001]})]).await.expect("served");
    bobs.req("mine", &[json!({"kinds": [21_059]})]).await.expect("served");
    let mut alices = Client::connect(&pair.a).await;
    let notes: Vec<Event> = (0..20).map(|n| alice.event(20_001).content(n.to_string()).sign()).collect();
    for answer in alices.publish_all(&notes).await {
        answer.ok();
    }
    let sealed = Keys::random().event(21_059).tag(["p", &bob.hex()]).content("sealed").sign();
    alices.publish(&sealed).await.ok();
    let got = bobs.live("public", notes.len()).await;
    assert_eq!(contents(&got), contents(&notes), "all of them, in the order of the log");
    assert_eq!(bobs.next_event("mine").await.id(), sealed.id());
    bobs.expect_nothing().await;
    pair.stop().await;
}

/// A member removed on one instance gets no later message on the other, and has the messages sent before.
#[tokio::test]
async fn a_removed_member_gets_no_later_message() {
    let pair = Pair::start().await;
    let [alice, bob] = Keys::some();
    let mut bobs = Client::of(&pair.b, &[&bob]).await;
    bobs.req("live", &[json!({"kinds": [445]})]).await.expect("served");
    pair.found("grp_a", &[&alice, &bob]).await;
    let mut admins = pair.admin_on_a().await;
    let mut alices = Client::of(&pair.a, &[&alice]).await;
    alices.publish(&message("grp_a").content("one").sign()).await.ok();
    admins.publish(&roster(&pair.admin, "grp_a", 2, "remove", &[&bob]).sign()).await.ok();
    alices.publish(&message("grp_a").content("two").sign()).await.ok();
    assert_eq!(contents(&bobs.received("live").await), ["one"]);
    pair.stop().await;
}

/// Removes bob 200 times through one instance while both carry other traffic. On neither instance does bob get a
/// message that was sent after his removal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_on_one_instance_holds_on_the_other_in_the_order_of_the_log() {
    const ROUNDS: u64 = 200;
    let pair = Pair::start().await;
    let [alice, bob] = Keys::some();
    let stop = Arc::new(AtomicBool::new(false));
    let traffic = [load(&pair.a, &stop), load(&pair.b, &stop)];
    let mut readers = [Client::of(&pair.a, &[&bob]).await, Client::of(&pair.b, &[&bob]).await];
    let groups: Vec<String> = (0..ROUNDS).map(|round| format!("grp_{round}")).collect();
    for reader in &mut readers {
        reader.req("all", &[json!({"kinds": [445]})]).await.expect("served");
        reader.req("named", &[json!({"kinds": [445], "#h": groups})]).await.expect("served");
    }
    let mut both = Client::of(&pair.a, &[&pair.admin, &alice]).await;
    for (round, group) in groups.iter().enumerate() {
        let events = [
            roster(&pair.admin, group, 1, "bootstrap", &[&alice, &bob]).sign(),
            message(group).content(format!("in {round}")).sign(),
            roster(&pair.admin, group, 2, "remove", &[&bob]).sign(),
            message(group).content(format!("out {round}")).sign(),
        ];
        // Every second round sends its events without waiting in between.
        if round % 2 == 0 {
            for answer in both.publish_all(&events).await {
                answer.ok();
            }
        } else {
            for event in &events {
                both.publish(event).await.ok();
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    for task in traffic {
        assert!(task.await.expect("the load does not panic") > 0);
    }
    for reader in &mut readers {
        for sub in ["all", "named"] {
            let got = reader.received(sub).await;
            let got = contents(&got);
            let out = got.iter().filter(|content| content.starts_with("out")).count();
            assert_eq!(out, 0, "of {ROUNDS} messages after a removal");
            let rounds: Vec<u64> = got.iter().filter_map(|content| content.strip_prefix("in ")?.parse().ok()).collect();
            assert!(rounds.is_sorted_by(|a, b| a < b), "in order, each once: {rounds:?}");
            assert!(rounds.len() as u64 > ROUNDS / 4, "earlier messages are delivered: {} of {ROUNDS}", rounds.len());
        }
    }
    pair.stop().await;
}

/// While an instance cannot read the log, its own commits already decide about later events. When it can read again, it
/// delivers each of its messages to the members at the message's place in the log.
#[tokio::test]
async fn an_instance_knows_its_own_changes_before_it_meets_them_in_the_log() {
    let pair = Pair::start().await;
    let [alice, bob] = Keys::some();
    pair.found("grp_a", &[&alice, &bob]).await;
    let mut bobs = Client::of(&pair.a, &[&bob]).await;
    bobs.req("live", &[json!({"kinds": [445]})]).await.expect("served");
    let mut both = Client::of(&pair.a, &[&pair.admin, &alice]).await;
    both.publish(&message("grp_a").content("zero").sign()).await.ok();
    assert_eq!(contents(&bobs.live("live", 1).await), ["zero"]);
    pair.link_a.log_is_down.store(true, Ordering::Relaxed);
    let carol = Keys::random();
    both.publish(&message("grp_a").content("one").sign()).await.ok();
    both.publish(&roster(&pair.admin, "grp_a", 2, "add", &[&carol]).sign()).await.ok();
    let mut carols = Client::of(&pair.a, &[&carol]).await;
    carols.publish(&message("grp_a").content("two").sign()).await.ok();
    both.publish(&roster(&pair.admin, "grp_a", 3, "remove", &[&bob]).sign()).await.ok();
    both.publish(&message("grp_a").content("three").sign()).await.ok();
    pair.link_a.log_is_down.store(false, Ordering::Relaxed);
    let got = bobs.received("live").await;
    assert_eq!(
        contents(&got).first(),
        Some(&"one"),
        "the state before the first change was known: {:?}",
        contents(&got)
    );
    assert!(!contents(&got).contains(&"three"), "{:?}", contents(&got));
    pair.stop().await;
}

/// An event is fetched only if a subscription waits for it and another instance accepted it.
#[tokio::test]
async fn only_what_somebody_waits_for_is_fetched() {
    let pair = Pair::start().await;
    let [alice, bob, carol] = Keys::some();
    pair.found("grp_a", &[&alice, &bob]).await;
    let mut on_a = Client::of(&pair.a, &[&alice]).await;
    on_a.req("own", &[json!({"kinds": [1, 445]})]).await.expect("served");
    let mut on_b = Client::of(&pair.b, &[&carol]).await;
    on_b.req("carol", &[json!({"authors": [carol.hex()]}), json!({"kinds": [445, 1059]})]).await.expect("served");
    let mut events: Vec<Event> = (0..50).map(|n| alice.event(1).content(n.to_string()).sign()).collect();
    events.extend((0..50).map(|_| message("grp_a").sign()));
    for answer in on_a.publish_all(&events).await {
        answer.ok();
    }
    assert_eq!(on_a.live("own", 100).await.len(), 100);
    on_b.expect_nothing().await;
    assert_eq!(fetches(&pair.link_b), 0, "nobody on b waits for any of them");
    assert_eq!(fetches(&pair.link_a), 0, "a still holds the events that it accepted");
    let notes: Vec<Event> = (0..50).map(|n| carol.event(1).content(n.to_string()).sign()).collect();
    for answer in on_a.publish_all(&notes).await {
        answer.ok();
    }
    assert_eq!(contents(&on_b.live("carol", 50).await), contents(&notes));
    assert!((1..=50).contains(&fetches(&pair.link_b)));
    assert_eq!(pair.link_b.fetched.load(Ordering::Relaxed), 50);
    metric(&pair.b, "mls_gateway_follow_fetched_events_total 50").await;
    metric(&pair.b, "mls_gateway_follow_skipped_events_total 101").await;
    metric(&pair.b, "mls_gateway_ready 1").await;
    pair.stop().await;
}

/// Many events that wait in the log are fetched in few calls.
#[tokio::test]
async fn a_page_is_fetched_at_once() {
    let pair = Pair::start().await;
    let alice = Keys::random();
    let mut on_b = Client::connect(&pair.b).await;
    on_b.req("notes", &[json!({"kinds": [1]})]).await.expect("served");
    let mut on_a = Client::connect(&pair.a).await;
    pair.link_b.is_down.store(true, Ordering::Relaxed);
    let notes: Vec<Event> = (0..600).map(|n| alice.event(1).content(n.to_string()).sign()).collect();
    for answer in on_a.publish_all(&notes).await {
        answer.ok();
    }
    pair.link_b.is_down.store(false, Ordering::Relaxed);
    assert_eq!(contents(&on_b.live("notes", notes.len()).await), contents(&notes));
    let fetches = fetches(&pair.link_b);
    assert!(fetches <= 600 / 64 + 5, "{fetches} calls for 600 events");
    pair.stop().await;
}

/// A subscription whose client does not read is closed, and no other client waits for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_reader_on_another_instance_is_cut_off_alone() {
    const EVENTS: usize = 100;
    let pair = Pair::start_with(|config| config.server.outbox_bytes_max = 1 << 20).await;
    let mut slow = Client::connect(&pair.b).await;
    let mut quick = Client::connect(&pair.b).await;
    for reader in [&mut slow, &mut quick] {
        reader.req("flood", &[json!({"kinds": [7]})]).await.expect("served");
    }
    let reading = tokio::spawn(async move {
        let got = quick.live("flood", EVENTS).await;
        got.iter().map(|event| event.0["tags"][0][1].as_str().map(str::to_owned)).collect::<Vec<_>>()
    });
    let keys = Keys::random();
    let mut writer = Client::connect(&pair.a).await;
    for n in 0..EVENTS {
        let event = keys.event(7).tag(["n", &n.to_string()]).content("x".repeat(200_000)).sign();
        writer.publish(&event).await.ok();
    }
    let expected: Vec<_> = (0..EVENTS).map(|n| Some(n.to_string())).collect();
    assert_eq!(reading.await.expect("the quick one gets all"), expected);
    let closed: Value = slow.find(|frame| frame[0] == "CLOSED").await;
    assert!(closed[2].as_str().is_some_and(|reason| reason.starts_with("error: too slow")), "{closed}");
    pair.stop().await;
}
