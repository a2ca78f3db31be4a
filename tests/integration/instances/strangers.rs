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
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{Client, Keys, TestRelay, http};

/// Events of one key that go through `a` first, and through `b` afterwards; together they are fewer than a burst.
const FIRST: usize = 50;
const AFTERWARDS: usize = 90;
const REPEATS: usize = 20;
/// Time in which the messages of an instance surely come.
const QUIET: Duration = Duration::from_millis(800);
/// Time in which a beat over Redis surely comes.
const BEAT: Duration = Duration::from_secs(3);

/// Places of a message's parts; see `peers::message`.
const HEAD_BYTES: usize = 34;
const CODE_BYTES: usize = 16;

fn rates(config: &mut Config) {
    config.mls_gateway.rate_limits.max_events_per_minute = 60;
}

async fn publish(relay: &TestRelay, alice: &Keys, count: usize) {
    let mut client = Client::of(relay, &[alice]).await;
    for n in 0..count {
        client.publish(&alice.event(1).content(format!("{n} on {}", relay.address)).sign()).await.ok();
    }
}

/// Messages as a stranger makes them of one that was captured.
fn invented(message: &[u8]) -> Vec<Vec<u8>> {
    let charges = &message[HEAD_BYTES..message.len() - CODE_BYTES];
    let mut dearer = message.to_vec();
    if let Some(times) = dearer.get_mut(HEAD_BYTES + 9..HEAD_BYTES + 13) {
        times.copy_from_slice(&150_u32.to_be_bytes());
    }
    let mut later = message.to_vec();
    later[17..25].copy_from_slice(&u64::MAX.to_be_bytes());
    let mut by_another = message.to_vec();
    by_another[1..17].copy_from_slice(&[0xee; 16]);
    // The layout of the first release, which anyone could make.
    let first = [&[1][..], &[0xee; 16], &[1], charges].concat();
    vec![dearer, later, by_another, first]
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
    let charging = captured.iter().filter(|it| it.len() > HEAD_BYTES + CODE_BYTES).count();
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

/// A connection to Redis that speaks its protocol (RESP2) as far as this test needs it.
struct RawRedis {
    socket: TcpStream,
    unread: Vec<u8>,
}

impl RawRedis {
    async fn connect(url: &str) -> Self {
        let address = url.trim_start_matches("redis://").split('/').next().expect("an address");
        Self { socket: TcpStream::connect(address).await.expect("Redis listens"), unread: Vec::new() }
    }

    async fn send(&mut self, words: &[&[u8]]) {
        let mut text = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            text.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
            text.extend_from_slice(word);
            text.extend_from_slice(b"\r\n");
        }
        self.socket.write_all(&text).await.expect("Redis reads");
    }

    async fn fill(&mut self) -> bool {
        matches!(timeout(BEAT, self.socket.read_buf(&mut self.unread)).await, Ok(Ok(read)) if read > 0)
    }

    /// The next line, without its end; `None` if none comes.
    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.unread.windows(2).position(|it| it == b"\r\n") {
                let line = String::from_utf8_lossy(&self.unread[..end]).into_owned();
                self.unread.drain(..end + 2);
                return Some(line);
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// The next message of any channel, with the channel.
    async fn message(&mut self) -> Option<(Vec<u8>, Vec<u8>)> {
        loop {
            let count: usize = self.line().await?.strip_prefix('*')?.parse().ok()?;
            let mut words = Vec::new();
            for _ in 0..count {
                let line = self.line().await?;
                // The number of subscriptions in the answer to PSUBSCRIBE is no string.
                let Some(length) = line.strip_prefix('$') else { continue };
                let length: usize = length.parse().ok()?;
                while self.unread.len() < length + 2 {
                    if !self.fill().await {
                        return None;
                    }
                }
                words.push(self.unread[..length].to_vec());
                self.unread.drain(..length + 2);
            }
            if words.first().is_some_and(|it| it == b"pmessage") {
                let payload = words.pop()?;
                return Some((words.pop()?, payload));
            }
        }
    }
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
