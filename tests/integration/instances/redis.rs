//! Notifications and rate-limit costs over Redis.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use nostr_relay::config::{Config, Secret, WakeBy};
use rnostr_test_services::{Redis, require};
use serde_json::json;
use tokio::net::TcpListener;

use super::Pair;
use crate::support::{
    Client, Keys, TestRelay,
    gateway::{message, roster},
    process::Process,
};

fn over(url: &str) -> impl Fn(&mut Config) + '_ {
    move |config| {
        config.mls_gateway.wake = WakeBy::Redis;
        config.mls_gateway.redis_url = Some(Secret::new(url.to_owned()));
    }
}

/// A pair whose store sends no notifications.
async fn pair(configure: impl Fn(&mut Config)) -> Pair {
    let pair = Pair::start_with(configure).await;
    pair.link_a.loses_notifications.store(true, Ordering::Relaxed);
    pair.link_b.loses_notifications.store(true, Ordering::Relaxed);
    pair
}

/// Time from the `OK` on one client to the delivery to the other, which is subscribed to kind 1: the 75th percentile of
/// `n` notes.
async fn delay(from: &mut Client, to: &mut Client, n: usize) -> Duration {
    let keys = Keys::random();
    let mut delays = Vec::new();
    for n in 0..n {
        let note = keys.event(1).content(n.to_string()).sign();
        from.publish(&note).await.ok();
        let sent = Instant::now();
        assert_eq!(to.next_event("live").await.id(), note.id());
        delays.push(sent.elapsed());
    }
    delays.sort_unstable();
    delays[n * 3 / 4]
}

async fn reader(pair: &Pair) -> Client {
    let mut client = Client::connect(&pair.b).await;
    client.req("live", &[json!({"kinds": [1]})]).await.expect("served");
    client
}

/// Waits until events arrive faster than the relay's polling of the log would bring them.
async fn until_woken(from: &mut Client, to: &mut Client) {
    let until = Instant::now() + Duration::from_secs(20);
    while delay(from, to, 8).await > Duration::from_millis(30) {
        assert!(Instant::now() < until, "no notification arrives");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_wakes_the_others() {
    let Some(()) = require(Redis::shared_available()) else { return };
    let url = Redis::shared().url();
    let pair = pair(over(&url)).await;
    let mut from = Client::connect(&pair.a).await;
    let mut to = reader(&pair).await;
    until_woken(&mut from, &mut to).await;
    let delay = delay(&mut from, &mut to, 40).await;
    assert!(delay < Duration::from_millis(30), "{delay:?}");
    pair.stop().await;
}

/// While Redis is away events arrive a little later and no `OK` waits; when Redis is back its notifications arrive
/// again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_away_costs_a_moment() {
    let Some(()) = require(Redis::available()) else { return };
    let mut redis = Redis::start();
    let pair = pair(over(&redis.url())).await;
    let mut from = Client::connect(&pair.a).await;
    let mut to = reader(&pair).await;
    until_woken(&mut from, &mut to).await;
    redis.kill();
    let keys = Keys::random();
    let started = Instant::now();
    for n in 0..200 {
        from.publish(&keys.event(1).content(n.to_string()).sign()).await.ok();
    }
    assert!(started.elapsed() < Duration::from_secs(4), "200 OKs took {:?}", started.elapsed());
    assert_eq!(to.live("live", 200).await.len(), 200);
    let away = delay(&mut from, &mut to, 12).await;
    assert!(away < Duration::from_millis(250), "{away:?}");
    redis.restart();
    until_woken(&mut from, &mut to).await;
    to.expect_nothing().await;
    pair.stop().await;
}

/// A Redis that accepts connections and never answers delays no `OK`, no delivery and no stop.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_does_not_answer_holds_nobody_up() {
    let deaf = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("redis://{}", deaf.local_addr().expect("it is bound"));
    let pair = pair(over(&url)).await;
    let mut from = Client::connect(&pair.a).await;
    let mut to = reader(&pair).await;
    let keys = Keys::random();
    let started = Instant::now();
    for n in 0..200 {
        from.publish(&keys.event(1).content(n.to_string()).sign()).await.ok();
    }
    assert!(started.elapsed() < Duration::from_secs(4), "200 OKs took {:?}", started.elapsed());
    assert_eq!(to.live("live", 200).await.len(), 200);
    let stopping = Instant::now();
    pair.stop().await;
    assert!(stopping.elapsed() < Duration::from_secs(7), "{:?}", stopping.elapsed());
}

/// Two deployments on one Redis do not notify each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_deployments_are_not_woken() {
    let Some(()) = require(Redis::shared_available()) else { return };
    let url = Redis::shared().url();
    let ours = pair(over(&url)).await;
    let theirs = pair(over(&url)).await;
    let mut from = Client::connect(&ours.a).await;
    let mut to = reader(&ours).await;
    until_woken(&mut from, &mut to).await;
    let passes = |pair: &Pair| pair.link_b.after_calls.load(Ordering::Relaxed);
    let before = (passes(&ours), passes(&theirs), Instant::now());
    delay(&mut from, &mut to, 100).await;
    let looks = before.2.elapsed().as_millis() as u64 / 100 + 2;
    assert!(passes(&ours) >= before.0 + 50, "our instances are notified");
    assert!(passes(&theirs) <= before.1 + looks, "theirs are not notified: {} passes", passes(&theirs) - before.1);
    ours.stop().await;
    theirs.stop().await;
}

async fn taken(pair: &Pair, pause: Duration) -> usize {
    taken_by([&pair.a, &pair.b], &pair.admin, pause).await
}

/// Number of messages that a member gets accepted by a group, of 400; every second one goes to the other instance.
pub(super) async fn taken_by([a, b]: [&TestRelay; 2], admin: &Keys, pause: Duration) -> usize {
    let alice = Keys::random();
    let group = format!("grp_{}", &alice.hex()[..8]);
    let founding = roster(admin, &group, 1, "bootstrap", &[&alice]).sign();
    Client::of(a, &[admin]).await.publish(&founding).await.ok();
    let mut clients = [Client::of(a, &[&alice]).await, Client::of(b, &[&alice]).await];
    let mut taken = 0;
    for n in 0..400 {
        let answer = clients[n % 2].publish(&message(&group).sign()).await;
        if answer.accepted {
            taken += 1;
            tokio::time::sleep(pause).await;
        } else {
            answer.refused("rate-limited");
        }
    }
    taken
}

/// Instances that notify each other share one burst; without notifications each instance allows a burst of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_spent_on_one_instance_counts_on_the_other() {
    let Some(()) = require(Redis::shared_available()) else { return };
    let url = Redis::shared().url();
    let rates = |config: &mut Config| config.mls_gateway.rate_limits.max_group_messages_per_minute = 50;
    let apart = Pair::start_with(rates).await;
    assert_eq!(taken(&apart, Duration::ZERO).await, 300);
    apart.stop().await;
    let together = pair(|config| {
        over(&url)(config);
        rates(config);
    })
    .await;
    let mut from = Client::connect(&together.a).await;
    let mut to = reader(&together).await;
    until_woken(&mut from, &mut to).await;
    let taken = taken(&together, Duration::from_millis(3)).await;
    assert!((150..=165).contains(&taken), "{taken}");
    together.stop().await;
}

#[test]
fn redis_without_a_url_stops_the_start() {
    let directory = tempfile::tempdir().expect("a directory");
    let said = Process::refusal(directory.path(), &[("extensions.mls_gateway", r#"wake = "redis""#)]);
    assert!(said.contains("extensions.mls_gateway.wake: set redis_url as well"), "{said}");
    let url = r#"redis_url = "http://secret""#;
    let said = Process::refusal(directory.path(), &[("extensions.mls_gateway", url)]);
    assert!(
        said.contains("extensions.mls_gateway.redis_url: not a URL of Redis") && !said.contains("secret"),
        "{said}"
    );
}
