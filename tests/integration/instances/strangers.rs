//! Strangers who reach the way on which instances send each other messages: a PostgreSQL role that may NOTIFY, or a
//! client of Redis. They repeat messages and invent them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use nostr_relay::config::{Config, Secret, WakeBy};
use nostr_store::{
    Store as _,
    postgres::{Options, Postgres},
};
use rnostr_test_services::{Postgres as Engine, Redis, require};
use tokio::time::timeout;

use crate::support::{
    Client, Keys, TestRelay, http,
    stranger::{RawRedis, invented, is_charging},
};

/// Events of one key that go through `a` first, and through `b` afterwards; together they are fewer than a burst.
const FIRST: usize = 50;
const AFTERWARDS: usize = 90;
const REPEATS: usize = 20;
/// Time in which the messages of an instance surely come.
const QUIET: Duration = Duration::from_millis(800);

fn rates(config: &mut Config) {
    config.mls_gateway.rate_limits.max_events_per_minute = 60;
}

async fn publish(relay: &TestRelay, alice: &Keys, count: usize) {
    let mut client = Client::of(relay, &[alice]).await;
    for n in 0..count {
        client.publish(&alice.event(1).content(format!("{n} on {}", relay.address)).sign()).await.ok();
    }
}

async fn dropped(relay: &TestRelay, reason: &str) -> usize {
    let page = http(relay.address, "GET /metrics", &[]).await.body;
    let name = format!("mls_gateway_peer_messages_dropped_total{{reason=\"{reason}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
}

/// Publishes through `a`, lets a stranger repeat and change each message by `send`, and publishes through `b`.
async fn spends_nobodys_rates(
    [a, b]: [&TestRelay; 2],
    capture: impl AsyncFnOnce() -> Vec<Vec<u8>>,
    mut send: impl AsyncFnMut(&[u8]),
) {
    let alice = Keys::random();
    publish(a, &alice, FIRST).await;
    let captured = capture().await;
    let charging = captured.iter().filter(|it| is_charging(it)).count();
    assert!(charging > 0, "the instances tell each other of the costs");
    for message in &captured {
        for _ in 0..REPEATS {
            send(message).await;
        }
        for message in invented(message) {
            send(&message).await;
        }
    }
    tokio::time::sleep(QUIET).await;
    publish(b, &alice, AFTERWARDS).await;
    for (reason, least) in [("repeated", REPEATS - 1), ("forged", 1)] {
        let dropped = dropped(b, reason).await;
        assert!(dropped >= least, "{dropped} {reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_notify_spends_nobodys_rates() {
    let Some(()) = require(Engine::shared_available()) else { return };
    let url = Engine::shared().create_database();
    let open = async || Arc::new(Postgres::open(&url, Options::default()).await.expect("the database opens"));
    let (a, b) = (TestRelay::start_over(open().await, rates).await, TestRelay::start_over(open().await, rates).await);
    // A stranger needs no rights in the schema for this; another store's connection does the same.
    let stranger = open().await;
    let mut heard = stranger.messages().expect("it carries messages");
    tokio::time::sleep(QUIET).await;
    let capture = async || {
        let mut messages = Vec::new();
        while let Ok(Ok(message)) = timeout(QUIET, heard.recv()).await {
            messages.push(message.to_vec());
        }
        messages
    };
    let send = async |message: &[u8]| stranger.broadcast(message.to_vec()).await.expect("it is sent");
    spends_nobodys_rates([&a, &b], capture, send).await;
    a.stop().await;
    b.stop().await;
    drop(stranger);
    Engine::shared().drop_database(&url);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_redis_spends_nobodys_rates() {
    let Some(()) = require(Redis::available()) else { return };
    let redis = Redis::start();
    let pair = super::Pair::start_with(|config| {
        config.mls_gateway.wake = WakeBy::Redis;
        config.mls_gateway.redis_url = Some(Secret::new(redis.url()));
        rates(config);
    })
    .await;
    let mut listening = RawRedis::connect(&redis.url()).await;
    listening.send(&[b"PSUBSCRIBE", b"*"]).await;
    let mut sending = RawRedis::connect(&redis.url()).await;
    // Beats of both instances show that they listen, and tell the channel.
    let mut channel = Vec::new();
    for _ in 0..4 {
        (channel, _) = listening.message().await.expect("a beat comes");
    }
    let capture = async || {
        let mut messages = Vec::new();
        let until = Instant::now() + 2 * QUIET;
        while Instant::now() < until
            && let Some((_, message)) = listening.message().await
        {
            messages.push(message);
        }
        messages
    };
    let send = async |message: &[u8]| sending.send(&[b"PUBLISH", &channel, message]).await;
    spends_nobodys_rates([&pair.a, &pair.b], capture, send).await;
    pair.stop().await;
}
