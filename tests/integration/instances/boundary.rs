//! The boundary between the archive's part of an answer and live delivery: each event is on one side of it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use nostr_protocol::{Filter, Kind};
use nostr_relay::delivery::Outbox;
use serde_json::json;

use super::{Pair, contents, fetches};
use crate::support::{Client, Event, Keys, TestRelay, gateway::message};

/// Subscriptions opened while both instances accept events get each event once, from the archive or live.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_falls_between_the_archive_and_live() {
    const ROUNDS: usize = 60;
    const PER_ROUND: usize = 5;
    let pair = Pair::start_with(|config| config.limitation.max_limit = 5_000).await;
    let [alice, bob] = Keys::some();
    pair.found("grp_a", &[&alice, &bob]).await;
    let writer = |relay: &TestRelay, name: &'static str| {
        let (url, alice) = (relay.url.clone(), alice.clone());
        async move {
            let mut client = Client::open(&url, &[]).await.expect("it connects");
            client.auth(&alice).await.ok();
            for round in 0..ROUNDS {
                let draft = |n| message("grp_a").content(format!("{name} {:04}", round * PER_ROUND + n)).sign();
                let events: Vec<Event> = (0..PER_ROUND).map(draft).collect();
                for answer in client.publish_all(&events).await {
                    answer.ok();
                }
            }
        }
    };
    let writers = [tokio::spawn(writer(&pair.a, "a")), tokio::spawn(writer(&pair.b, "b"))];
    let mut readers = [Client::of(&pair.a, &[&bob]).await, Client::of(&pair.b, &[&bob]).await];
    let mut stored: Vec<(usize, String, Vec<Event>)> = Vec::new();
    for n in 0..40 {
        for (at, reader) in readers.iter_mut().enumerate() {
            let sub = format!("sub {n}");
            let filter = if n % 2 == 0 {
                json!({"kinds": [445], "limit": 5000})
            } else {
                json!({"#h": ["grp_a"], "kinds": [445], "limit": 5000})
            };
            let found = reader.req_now(&sub, &[filter]).await.expect("served");
            stored.push((at, sub, found));
        }
    }
    for task in writers {
        task.await.expect("the writer does not panic");
    }
    let mut live = 0;
    for (at, sub, mut all) in stored {
        let came = readers[at].received(&sub).await;
        live += came.len();
        all.extend(came);
        let mut contents = contents(&all);
        contents.sort_unstable();
        let expected =
            ["a", "b"].iter().flat_map(|name| (0..ROUNDS * PER_ROUND).map(move |n| format!("{name} {n:04}")));
        assert_eq!(contents, expected.collect::<Vec<_>>(), "{sub} on {at}");
    }
    assert!(live > 0, "some events came live");
    pair.stop().await;
}

/// A subscription opens while a pass is under way, and no other one waits for its events. The pass has already skipped
/// some of these events, which are then in the archive's part of the answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_opened_during_a_pass_misses_nothing() {
    const ROUNDS: usize = 40;
    const EVENTS: usize = 30;
    let pair = Pair::start().await;
    let mut others = Client::connect(&pair.b).await;
    others.req("others", &[json!({"kinds": [2]})]).await.expect("served");
    let mut reader = Client::connect(&pair.b).await;
    pair.link_b.delay_ms.store(1, Ordering::Relaxed);
    for round in 0..ROUNDS {
        let keys = Keys::random();
        let authors = json!({"authors": [keys.hex()], "kinds": [1]});
        let url = pair.a.url.clone();
        let writing = tokio::spawn(async move {
            let mut client = Client::open(&url, &[]).await.expect("it connects");
            for n in 0..EVENTS {
                // The pass waits for a fetch of kind 2; at first no subscription waits for kind 1.
                let events = [2, 1].map(|kind| keys.event(kind).content(n.to_string()).sign());
                for answer in client.publish_all(&events).await {
                    answer.ok();
                }
            }
        });
        tokio::time::sleep(Duration::from_millis(round as u64 % 10)).await;
        let sub = format!("round {round}");
        let mut all = reader.req_now(&sub, &[authors]).await.expect("served");
        writing.await.expect("the writer does not panic");
        all.extend(reader.received(&sub).await);
        let mut numbers: Vec<usize> = contents(&all).iter().map(|n| n.parse().expect("a number")).collect();
        numbers.sort_unstable();
        assert_eq!(numbers, (0..EVENTS).collect::<Vec<_>>(), "{sub}");
        reader.send(&json!(["CLOSE", sub])).await;
    }
    pair.stop().await;
}

/// A subscription opens while a pass is blocked. The events that the pass has skipped are in the archive's part of the
/// answer.
#[tokio::test]
async fn a_subscription_opened_while_a_pass_is_held_up_misses_nothing() {
    let pair = Pair::start().await;
    let alice = Keys::random();
    let mut others = Client::connect(&pair.b).await;
    others.req("others", &[json!({"kinds": [2]})]).await.expect("served");
    let mut on_a = Client::connect(&pair.a).await;
    pair.link_b.log_is_down.store(true, Ordering::Relaxed);
    let held = pair.link_b.fetching.write().await;
    // The pass fetches the first event; no subscription waits for the second one yet.
    for kind in [2, 1] {
        on_a.publish(&alice.event(kind).sign()).await.ok();
    }
    pair.link_b.log_is_down.store(false, Ordering::Relaxed);
    while fetches(&pair.link_b) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let live = &pair.b.app().live;
    let outbox = Arc::new(Outbox::default());
    let connection = live.connect(Arc::clone(&outbox), 1);
    let filter = Filter { kinds: Some(vec![Kind(1)]), ..Filter::default() };
    let archive_ends = live.subscribe(connection, "one", [filter].into(), 1).await.expect("there is room");
    drop(held);
    pair.b.caught_up().await;
    let in_archive = archive_ends >= pair.b.app().store.head();
    let came = std::iter::from_fn(|| outbox.pop()).count();
    assert_eq!(
        usize::from(in_archive) + came,
        1,
        "from the archive or live, and not from both: archive to {archive_ends}, {} fetches",
        fetches(&pair.link_b)
    );
    pair.stop().await;
}
