//! A store that is unavailable for a while, is slow, or fails at times; notifications that are lost.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{Pair, metric};
use crate::support::{
    Client, Event, Keys, Response, TestRelay,
    gateway::{message, roster},
    http,
};

const UNAVAILABLE: &str = "error: storage unavailable, try again";

async fn ready(relay: &TestRelay) -> Response {
    http(relay.address, "GET /ready", &[]).await
}

/// Waits until `/ready` answers with `status`.
async fn until_ready_is(relay: &TestRelay, status: u16) -> Response {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let answer = ready(relay).await;
        if answer.status == status {
            return answer;
        }
        assert!(Instant::now() < until, "it is not {status}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn notes(by: &Keys, numbers: std::ops::Range<u32>) -> Vec<Event> {
    numbers.map(|n| by.event(1).content(n.to_string()).sign()).collect()
}

async fn publish(client: &mut Client, events: &[Event]) {
    for answer in client.publish_all(events).await {
        answer.ok();
    }
}

fn ids(events: &[Event]) -> Vec<&str> {
    events.iter().map(Event::id).collect()
}

/// While one instance cannot reach the store, it refuses writes and requests with the right words, says that it is not
/// ready, and keeps its readers connected. Afterwards the readers get each missed event once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_loses_its_store_goes_on_where_it_was() {
    let pair = Pair::start().await;
    let [alice, bob] = Keys::some();
    pair.found("grp_a", &[&alice, &bob]).await;
    let mut on_a = Client::of(&pair.a, &[&alice]).await;
    let mut bobs = Client::of(&pair.b, &[&bob]).await;
    bobs.req("live", &[json!({"kinds": [1, 445, 20_001]})]).await.expect("served");
    let ready_body = until_ready_is(&pair.b, 200).await;
    assert_eq!(ready_body.body, r#"{"status":"ready"}"#);
    let first = notes(&alice, 0..10);
    publish(&mut on_a, &first).await;
    assert_eq!(ids(&bobs.live("live", 10).await), ids(&first));

    pair.link_b.is_down.store(true, Ordering::Relaxed);
    let mut between = notes(&alice, 10..300);
    between.extend((0..20).map(|_| message("grp_a").sign()));
    between.extend((0..20).map(|n| alice.event(20_001).content(n.to_string()).sign()));
    publish(&mut on_a, &between).await;
    let mut writer = Client::connect(&pair.b).await;
    assert_eq!(writer.publish(&bob.event(1).content("refused").sign()).await.refused("error"), UNAVAILABLE);
    let asked = Instant::now();
    assert_eq!(writer.req_now("any", &[json!({"kinds": [1]})]).await.err().as_deref(), Some(UNAVAILABLE));
    assert!(asked.elapsed() < Duration::from_secs(4), "{:?}", asked.elapsed());
    assert_eq!(writer.count_now("any", &[json!({"kinds": [1]})]).await.err().as_deref(), Some(UNAVAILABLE));
    assert_eq!(writer.neg_ids_now(json!({"kinds": [1]})).await.err().as_deref(), Some(UNAVAILABLE));
    let not_ready = until_ready_is(&pair.b, 503).await;
    assert_eq!(not_ready.body, r#"{"status":"not ready","reason":"the store's log cannot be followed"}"#);
    assert_eq!(http(pair.b.address, "GET /health", &[]).await.status, 200, "the process lives");
    metric(&pair.b, "mls_gateway_ready 0").await;
    assert_eq!(ready(&pair.a).await.status, 200, "the other instance is not affected");

    pair.link_b.is_down.store(false, Ordering::Relaxed);
    until_ready_is(&pair.b, 200).await;
    assert_eq!(ids(&bobs.live("live", between.len()).await), ids(&between), "no gap, in order");
    let last = notes(&alice, 300..310);
    publish(&mut on_a, &last).await;
    assert_eq!(ids(&bobs.live("live", 10).await), ids(&last));
    bobs.expect_nothing().await;
    writer.publish(&bob.event(1).content("taken").sign()).await.ok();
    pair.stop().await;
}

/// A pass reaches the head of the log even if the store returns few entries at a time.
#[tokio::test]
async fn a_pass_ends_at_the_head_of_the_log() {
    let pair = Pair::start().await;
    pair.link_b.loses_notifications.store(true, Ordering::Relaxed);
    pair.link_b.log_entries_max.store(3, Ordering::Relaxed);
    let alice = Keys::random();
    let mut on_a = Client::connect(&pair.a).await;
    let mut on_b = Client::connect(&pair.b).await;
    for n in 0..5 {
        publish(&mut on_a, &notes(&alice, n * 50..n * 50 + 50)).await;
        let found = on_b.count_now("all", &[json!({"authors": [alice.hex()]})]).await;
        assert_eq!(found, Ok(u64::from(n + 1) * 50));
    }
    pair.stop().await;
}

/// An instance that was cut off so long that events may be gone closes its subscriptions; before that it keeps them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_cut_off_too_long_closes_its_subscriptions() {
    for (archive, secs, ends) in [(false, 119, false), (false, 120, true), (true, 120, false), (true, 3_000, true)] {
        let pair = Pair::start_with(|config| config.mls_gateway.enable_message_archive = archive).await;
        let alice = Keys::random();
        let mut on_a = Client::connect(&pair.a).await;
        let mut on_b = Client::connect(&pair.b).await;
        on_b.req("one", &[json!({"kinds": [1]})]).await.expect("served");
        pair.link_b.is_down.store(true, Ordering::Relaxed);
        until_ready_is(&pair.b, 503).await;
        publish(&mut on_a, &notes(&alice, 0..1)).await;
        pair.b.advance(secs);
        pair.link_b.is_down.store(false, Ordering::Relaxed);
        until_ready_is(&pair.b, 200).await;
        if ends {
            let closed = on_b.find(|frame| frame[0] == "CLOSED").await;
            assert_eq!(closed[1], "one");
            let reason = closed[2].as_str().expect("a reason");
            assert!(reason.starts_with("error: ") && reason.ends_with("subscribe again"), "{reason}");
            on_b.expect_nothing().await;
            assert_eq!(on_b.req_now("one", &[json!({"kinds": [1]})]).await.expect("served").len(), 1);
        } else {
            on_b.next_event("one").await;
        }
        publish(&mut on_a, &notes(&alice, 1..2)).await;
        on_b.next_event("one").await;
        pair.stop().await;
    }
}

/// A request waits for a slow store up to a bound, and then fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_store_is_waited_for_up_to_a_bound() {
    let pair = Pair::start().await;
    let mut client = Client::connect(&pair.b).await;
    pair.link_b.delay_ms.store(300, Ordering::Relaxed);
    client.req_now("slow", &[json!({"kinds": [1]})]).await.expect("served");
    pair.link_b.delay_ms.store(3_000, Ordering::Relaxed);
    assert_eq!(client.req_now("late", &[json!({"kinds": [1]})]).await.err().as_deref(), Some(UNAVAILABLE));
    pair.link_b.delay_ms.store(0, Ordering::Relaxed);
    until_ready_is(&pair.b, 200).await;
    client.req_now("again", &[json!({"kinds": [1]})]).await.expect("served");
    pair.stop().await;
}

/// A pass that fails at any point is repeated: no event is lost, none comes twice, and the order stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_that_fail_in_their_middle_lose_nothing_and_repeat_nothing() {
    let pair = Pair::start().await;
    let [alice, bob] = Keys::some();
    pair.found("grp_a", &[&alice, &bob]).await;
    let mut on_a = Client::of(&pair.a, &[&alice]).await;
    let mut bobs = Client::of(&pair.b, &[&bob]).await;
    bobs.req("live", &[json!({"kinds": [1, 445]})]).await.expect("served");
    let mut sent = Vec::new();
    for round in 0..12 {
        pair.link_b.hiccups.store(4, Ordering::Relaxed);
        let mut events = notes(&alice, round * 100..round * 100 + 90);
        events.extend((0..10).map(|_| message("grp_a").sign()));
        publish(&mut on_a, &events).await;
        sent.extend(events);
    }
    assert_eq!(ids(&bobs.live("live", sent.len()).await), ids(&sent));
    pair.link_b.hiccups.store(0, Ordering::Relaxed);
    bobs.expect_nothing().await;
    pair.stop().await;
}

/// A message whose group's state cannot be read is delivered later, and not skipped.
#[tokio::test]
async fn a_message_waits_for_the_state_of_its_group() {
    let pair = Pair::start().await;
    let [alice, bob] = Keys::some();
    pair.found("grp_a", &[&alice, &bob]).await;
    let mut on_a = Client::of(&pair.a, &[&pair.admin, &alice]).await;
    let mut bobs = Client::of(&pair.b, &[&bob]).await;
    bobs.req("live", &[json!({"kinds": [1, 445]})]).await.expect("served");
    pair.link_b.group_failures.store(5, Ordering::Relaxed);
    let events = [
        alice.event(1).content("before").sign(),
        roster(&pair.admin, "grp_a", 2, "add", &[&Keys::random()]).sign(),
        message("grp_a").sign(),
        alice.event(1).content("after").sign(),
    ];
    publish(&mut on_a, &events).await;
    let expected = [events[0].id(), events[2].id(), events[3].id()];
    assert_eq!(ids(&bobs.live("live", 3).await), expected);
    assert_eq!(pair.link_b.group_failures.load(Ordering::Relaxed), 0);
    pair.stop().await;
}

/// Without a single notification all events arrive, a little later.
#[tokio::test]
async fn lost_notifications_cost_a_moment() {
    let pair = Pair::start().await;
    pair.link_b.loses_notifications.store(true, Ordering::Relaxed);
    let alice = Keys::random();
    let mut on_a = Client::connect(&pair.a).await;
    let mut on_b = Client::connect(&pair.b).await;
    on_b.req("live", &[json!({"kinds": [1]})]).await.expect("served");
    for n in 0..5 {
        let events = notes(&alice, n * 10..n * 10 + 10);
        publish(&mut on_a, &events).await;
        let sent = Instant::now();
        assert_eq!(ids(&on_b.live("live", 10).await), ids(&events));
        assert!(sent.elapsed() < Duration::from_secs(2), "{:?}", sent.elapsed());
    }
    pair.stop().await;
}

/// A stranger who reaches the database can send notifications of nothing; they cost a bounded number of looks at the
/// log, and an event arrives meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passes_have_a_rate() {
    const PER_SEC_MAX: f64 = 100.0;
    const AT_ONCE_MAX: u64 = 20;
    let pair = Pair::start().await;
    let alice = Keys::random();
    let mut on_a = Client::connect(&pair.a).await;
    let mut on_b = Client::connect(&pair.b).await;
    on_b.req("live", &[json!({"kinds": [1]})]).await.expect("served");
    let before = pair.link_b.after_calls.load(Ordering::Relaxed);
    let started = Instant::now();
    let mut sent = 0;
    while started.elapsed() < Duration::from_secs(2) {
        for _ in 0..100 {
            pair.link_b.notify();
            tokio::task::yield_now().await;
        }
        sent += 100;
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let passes = pair.link_b.after_calls.load(Ordering::Relaxed) - before;
    let secs = started.elapsed().as_secs_f64();
    // Two looks a second come without a notification.
    let allowed = (secs * (PER_SEC_MAX + 2.0)).ceil() as u64 + AT_ONCE_MAX + 1;
    assert!(passes <= allowed, "{passes} passes in {secs} s by {sent} notifications");
    let events = notes(&alice, 0..3);
    publish(&mut on_a, &events).await;
    assert_eq!(ids(&on_b.live("live", 3).await), ids(&events));
    pair.stop().await;
}

/// After a long outage an instance drops its cached states of groups, in case the log has lost changes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_cached_before_a_long_outage_is_dropped() {
    let pair = Pair::start().await;
    let [alice, bob] = Keys::some();
    pair.found("grp_a", &[&alice, &bob]).await;
    let mut both = Client::of(&pair.a, &[&pair.admin, &alice]).await;
    let mut bobs = Client::of(&pair.b, &[&bob]).await;
    let filter = [json!({"kinds": [445], "#h": ["grp_a"]})];
    bobs.req("live", &filter).await.expect("served");
    both.publish(&message("grp_a").sign()).await.ok();
    bobs.next_event("live").await;
    pair.link_b.lost_rosters.store(true, Ordering::Relaxed);
    pair.link_b.is_down.store(true, Ordering::Relaxed);
    both.publish(&roster(&pair.admin, "grp_a", 2, "remove", &[&bob]).sign()).await.ok();
    both.publish(&message("grp_a").sign()).await.ok();
    until_ready_is(&pair.b, 503).await;
    pair.link_b.is_down.store(false, Ordering::Relaxed);
    until_ready_is(&pair.b, 200).await;
    assert!(bobs.req_now("stored", &filter).await.expect("served").is_empty());
    bobs.expect_nothing().await;
    pair.stop().await;
}

/// A cached state is no older than `group_cache_ttl`, even if the log has lost a change.
#[tokio::test]
async fn a_cached_state_has_an_end() {
    let pair = Pair::start_with(|config| config.mls_gateway.group_cache_ttl_secs = 1).await;
    let [alice, bob] = Keys::some();
    pair.found("grp_a", &[&alice, &bob]).await;
    let mut both = Client::of(&pair.a, &[&pair.admin, &alice]).await;
    both.publish(&message("grp_a").sign()).await.ok();
    let mut bobs = Client::of(&pair.b, &[&bob]).await;
    let filter = [json!({"kinds": [445], "#h": ["grp_a"]})];
    assert_eq!(bobs.req_now("before", &filter).await.expect("served").len(), 1);
    pair.link_b.lost_rosters.store(true, Ordering::Relaxed);
    both.publish(&roster(&pair.admin, "grp_a", 2, "remove", &[&bob]).sign()).await.ok();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert!(bobs.req_now("after", &filter).await.expect("served").is_empty());
    pair.stop().await;
}

/// A relay is not ready before its first pass over the log, nor when it stops.
#[tokio::test]
async fn a_relay_is_ready_between_its_first_pass_and_its_stop() {
    use crate::support::shared::Shared;
    let (store, link) = Shared::new().instance();
    link.is_down.store(true, Ordering::Relaxed);
    let relay = TestRelay::start_over(store, |_| {}).await;
    assert_eq!(ready(&relay).await.status, 503);
    link.is_down.store(false, Ordering::Relaxed);
    until_ready_is(&relay, 200).await;
    relay.app().stopping.cancel();
    assert_eq!(relay.app().not_ready(), Some("this relay is stopping"));
    relay.stop().await;

    let alone = TestRelay::start(|_| {}).await;
    let answer = ready(&alone).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"status":"ready"}"#));
    alone.stop().await;
}

/// A relay that stops ends in time, and every event that it answered is stored.
#[tokio::test]
async fn a_stop_answers_what_was_taken() {
    let pair = Pair::start().await;
    let alice = Keys::random();
    pair.link_a.delay_ms.store(20, Ordering::Relaxed);
    let mut on_a = Client::connect(&pair.a).await;
    let events = notes(&alice, 0..20);
    for event in &events {
        on_a.send(&json!(["EVENT", event.0])).await;
    }
    on_a.answer(events[0].id()).await.ok();
    let Pair { a, b, .. } = pair;
    let stopped = Instant::now();
    a.stop().await;
    assert!(stopped.elapsed() < Duration::from_secs(6), "{:?}", stopped.elapsed());
    let mut on_b = Client::connect(&b).await;
    let found = on_b.req("all", &[json!({"authors": [alice.hex()]})]).await.expect("served");
    let mut answered = 1;
    while let Some(message) = on_a.recv_raw().await {
        answered += usize::from(message.to_text().is_ok_and(|text| text.contains("true")));
    }
    assert!(answered <= found.len(), "{answered} answered, {} stored", found.len());
    b.stop().await;
}
