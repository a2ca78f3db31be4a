//! Counts that follow what clients do.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use nostr_relay::{Relay, config::Config, observe::metrics::Recorder, system::clock::SystemClock};
use nostr_store::memory::Memory;
use serde_json::json;

use super::{metrics, value};
use crate::support::{
    Client, Keys, TestRelay, WAIT,
    gateway::{capability, key_package, message, roster, welcome, wrap},
    observed::Observed,
};

const STORE_EVENTS: &str = "mls_gateway_store_events";
const UPDATES: &str = "mls_gateway_membership_updates_total";

/// A roster and a gift wrap that take a member in are changes of members. A gift wrap that changes no group is none.
#[tokio::test]
async fn changes_of_members_by_rosters_and_by_gift_wraps_count() {
    let [admin, alice, bob, carol] = Keys::some();
    let relay = TestRelay::start_alone(|config| config.mls_gateway.admin_pubkeys = vec![admin.public()]).await;
    let updates = async || value(&metrics(relay.address).await, UPDATES);
    Client::of(&relay, &[&admin]).await.publish(&roster(&admin, "grp_a", 1, "bootstrap", &[&alice]).sign()).await.ok();
    assert_eq!(updates().await, 1.0, "a roster");
    let mut founder = Client::of(&relay, &[&alice]).await;
    founder.publish(&welcome(&bob, "grp_w").sign()).await.ok();
    assert_eq!(updates().await, 2.0, "a gift wrap that founds a group");
    founder.publish(&welcome(&carol, "grp_w").sign()).await.ok();
    assert_eq!(updates().await, 3.0, "a gift wrap to a new member");
    founder.publish(&welcome(&carol, "grp_w").sign()).await.ok();
    founder.publish(&wrap(&carol).sign()).await.ok();
    founder.publish(&message("grp_w").sign()).await.ok();
    assert_eq!(updates().await, 3.0, "no gift wrap to a member, and no message");
}

/// Frames, bytes, times, batches and KeyPackages are counted where they arise.
#[tokio::test]
async fn traffic_and_times_count() {
    let alice = Keys::random();
    let relay = TestRelay::start_alone(|_| {}).await;
    let group = capability();
    let mut subscriber = Client::connect(&relay).await;
    subscriber.req("s", &[json!({"kinds": [445], "#h": [group]})]).await.expect("a subscription");
    let mut publisher = Client::connect(&relay).await;
    let event = message(&group).sign();
    publisher.publish(&event).await.ok();
    publisher.publish(&key_package(&alice).sign()).await.ok();
    publisher.publish(&alice.event(444).sign()).await.refused("blocked");
    relay.caught_up().await;
    assert_eq!(subscriber.next_event("s").await.id(), event.id());
    // The write that carried the event has ended once the client has an answer that was written after it.
    subscriber.count_now("c", &[json!({"kinds": [1]})]).await.expect("a count");
    let text = metrics(relay.address).await;
    let of = |series: &str| value(&text, series);
    assert!(of("mls_gateway_frames_received_total") >= 5.0 && of("mls_gateway_frames_sent_total") >= 6.0, "{text}");
    assert!(of("mls_gateway_received_bytes_total") > 1_000.0 && of("mls_gateway_sent_bytes_total") > 500.0, "{text}");
    assert_eq!(of("mls_gateway_connections"), 2.0);
    assert_eq!(of("mls_gateway_subscriptions"), 1.0);
    assert_eq!(of("mls_gateway_event_ok_seconds_count"), 2.0, "those that the store was asked about");
    assert_eq!(of("mls_gateway_delivery_seconds_count"), 1.0);
    assert_eq!(of("mls_gateway_batch_events_sum"), 2.0);
    assert_eq!(of("mls_gateway_request_duration_seconds_count{door=\"req\"}"), 1.0);
    assert_eq!(of("mls_gateway_request_duration_seconds_count{door=\"count\"}"), 1.0);
    assert!(of("mls_gateway_tasks") > 2.0 && of("process_resident_memory_bytes") > 1e6 && of("process_open_fds") > 5.0);
    assert!(of("mls_gateway_client_memory_bytes") > 0.0);
    let sum: f64 = ["groups", "key_packages"]
        .map(|cache| of(&format!("mls_gateway_cache_misses_total{{cache=\"{cache}\"}}")))
        .iter()
        .sum();
    assert!(sum > 0.0, "the group's state was read");
}

/// A scrape wakes the task that asks the store for its sizes, and waits for nothing. The store is not asked again for
/// a while, however many scrapes come, whether it answered or failed.
#[tokio::test]
async fn scrapes_do_not_count_the_store() {
    for fails in [false, true] {
        let observed = Observed::new(Arc::new(Memory::default()));
        observed.fail_stats(fails);
        let relay = TestRelay::start_over(Arc::<Observed>::clone(&observed) as _, |_| {}).await;
        Client::connect(&relay).await.publish(&Keys::random().event(1).content("a note").sign()).await.ok();
        assert_eq!(observed.stats_asked(), 0, "nobody scrapes");
        let until = Instant::now() + WAIT;
        while observed.stats_asked() == 0 || value(&metrics(relay.address).await, STORE_EVENTS) < 1.0 {
            metrics(relay.address).await;
            if fails && observed.stats_asked() > 0 {
                break;
            }
            assert!(Instant::now() < until, "the sizes are not shown");
        }
        for _ in 0..50 {
            metrics(relay.address).await;
        }
        assert_eq!(observed.stats_asked(), 1, "50 scrapes ask for nothing; fails: {fails}");
        relay.stop().await;
    }
}

/// A store that takes long to count holds up no scrape, and its call is not dropped.
#[tokio::test]
async fn a_slow_count_holds_up_no_scrape() {
    let observed = Observed::new(Arc::new(Memory::default()));
    observed.delay_stats(Duration::from_secs(3));
    let relay = TestRelay::start_over(Arc::<Observed>::clone(&observed) as _, |_| {}).await;
    Client::connect(&relay).await.publish(&Keys::random().event(1).content("a note").sign()).await.ok();
    let started = Instant::now();
    metrics(relay.address).await;
    assert!(started.elapsed() < Duration::from_millis(1_500), "{:?}", started.elapsed());
    let until = Instant::now() + WAIT;
    while value(&metrics(relay.address).await, STORE_EVENTS) < 1.0 {
        assert!(Instant::now() < until, "the sizes are not shown");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(observed.stats_asked(), 1);
    relay.stop().await;
}

/// A refusal by a rate counts under its reason, and by the way in.
#[tokio::test]
async fn refusals_by_a_rate_count_by_the_way_in() {
    let relay = TestRelay::start_alone(|config| {
        config.mls_gateway.rate_limits.max_events_per_minute = 1;
    })
    .await;
    let mut client = Client::connect(&relay).await;
    let mut refused = 0;
    while refused == 0 {
        let answer = client.publish(&Keys::random().event(1).content("x").sign()).await;
        refused += usize::from(answer.reason.starts_with("rate-limited:"));
    }
    let text = metrics(relay.address).await;
    assert_eq!(value(&text, "mls_gateway_rate_limited_total{door=\"event\"}"), 1.0);
    assert_eq!(value(&text, "mls_gateway_refusals_total{reason=\"rate-limited\"}"), 1.0);
    assert_eq!(value(&text, "mls_gateway_errors_total{kind=\"other\"}"), 1.0);
}

/// A request that is refused counts among the errors without a kind.
#[tokio::test]
async fn a_refused_request_counts_without_a_kind() {
    let relay = TestRelay::start_alone(|_| {}).await;
    let mut client = Client::connect(&relay).await;
    client.req("s", &[json!({"kinds": [1059]})]).await.expect_err("it needs a key");
    client.count(&[json!({"kinds": [446]})]).await.expect_err("it needs a key");
    let text = metrics(relay.address).await;
    assert_eq!(value(&text, "mls_gateway_errors_total{kind=\"none\"}"), 2.0);
    assert_eq!(value(&text, "mls_gateway_refusals_total{reason=\"auth-required\"}"), 2.0);
}

/// The specification's lines, in code that extends the relay.
#[tokio::test]
async fn the_macros_of_code_that_extends_the_relay_count_into_its_metrics() {
    let mut config = Config::default();
    config.server.port = 0;
    let recorder = Recorder::installed();
    let started = Relay::start_with(
        config.into(),
        std::sync::Arc::new(Memory::default()),
        std::sync::Arc::new(SystemClock),
        recorder,
    );
    let relay = started.await.expect("the relay starts");
    let duration = Duration::from_millis(30);
    ::metrics::counter!("mls_gateway_custom_events", "custom" => "value").increment(1);
    ::metrics::histogram!("mls_gateway_processing_time").record(duration);
    let text = metrics(relay.address).await;
    assert_eq!(value(&text, "mls_gateway_custom_events{custom=\"value\"}"), 1.0);
    assert_eq!(value(&text, "mls_gateway_processing_time_bucket{le=\"0.05\"}"), 1.0);
    assert_eq!(value(&text, "mls_gateway_processing_time_bucket{le=\"0.025\"}"), 0.0);
    tokio::time::timeout(WAIT, relay.stop()).await.expect("it stops");
}
