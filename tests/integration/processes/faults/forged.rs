//! Strangers who repeat and invent the messages between instances, over PostgreSQL and over Redis.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use nostr_store::{
    Store as _,
    postgres::{Options, Postgres as Store},
};
use rnostr_test_services::{self as services, Postgres, Redis};
use serde_json::json;
use tokio::time::timeout;

use super::{Cluster, StoreConfig, is_firestore, metric, until_ready_is};
use crate::support::{
    Client, Event, Keys,
    rounds::{Round, Rounds},
    stranger::{RawRedis, invented, is_charging},
};

/// Events of one key and address in a round; together they are fewer than a burst.
const EVENTS: u64 = 140;
const PER_MINUTE: u64 = 60;
/// Time in which the messages of an instance surely come.
const QUIET: Duration = Duration::from_millis(800);
/// Passes over the log that notifications of others cause, a second and at once, and those that come anyway.
const PASSES_PER_SEC_MAX: f64 = 100.0 + 12.0;
const PASSES_AT_ONCE_MAX: f64 = 25.0;

/// The things that a stranger sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forgery {
    Repeated,
    Invented,
    /// Some bit of each message is changed.
    Flipped,
    /// Messages are cut off, or made longer.
    Cut,
    /// Bytes of chance.
    Noise,
    /// Notifications of commits that never were, or the same message in endless repetition.
    Flood,
}

const FORGERIES: [Forgery; 6] =
    [Forgery::Repeated, Forgery::Invented, Forgery::Flipped, Forgery::Cut, Forgery::Noise, Forgery::Flood];

impl Forgery {
    fn of(self, round: &mut Round, captured: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut made = Vec::new();
        for message in captured {
            match self {
                Self::Repeated => made.extend(vec![message.clone(); round.within(2..=60) as usize]),
                Self::Invented => made.extend(invented(message)),
                Self::Flipped => made.extend((0..20).map(|_| {
                    let mut flipped = message.clone();
                    let at = round.within(0..=message.len() as u64 - 1) as usize;
                    flipped[at] ^= 1 << round.within(0..=7);
                    flipped
                })),
                Self::Cut => made.extend((0..20).map(|_| {
                    let mut cut = message.clone();
                    cut.resize(round.within(0..=2 * message.len() as u64) as usize, 0xab);
                    cut
                })),
                Self::Noise => made.extend((0..20).map(|_| {
                    let len = round.within(0..=3_000);
                    (0..len).map(|n| if n == 0 { 2 } else { round.within(0..=255) as u8 }).collect()
                })),
                Self::Flood => made.extend(vec![message.clone(); 500]),
            }
        }
        made
    }
}

/// Publishes through `n` until `count` notes are accepted; none may be refused.
async fn publish(cluster: &Cluster, n: usize, alice: &Keys, count: u64) -> Vec<Event> {
    let mut client = Client::open(&cluster.url(n), &[]).await.expect("it connects");
    client.auth(alice).await.ok();
    let notes: Vec<Event> =
        (0..count).map(|it| alice.event(1).content(format!("{it} on {n} by {}", alice.hex())).sign()).collect();
    for note in &notes {
        client.publish(note).await.ok();
    }
    notes
}

fn limited(store: StoreConfig) -> StoreConfig {
    let rates = "extensions.mls_gateway.rate_limits";
    store.with([(rates, format!("max_events_per_minute = {PER_MINUTE}"))])
}

/// A way to the messages between instances.
trait Way {
    /// Hears what comes from now on, and nothing of before.
    async fn listen(&mut self);

    /// The messages of the next moment.
    async fn capture(&mut self) -> Vec<Vec<u8>>;

    async fn send(&mut self, message: &[u8]);

    /// Sends notifications of nothing for a while.
    async fn flood(&mut self, lasts: Duration);
}

/// Lets an honest key publish almost all that it may, part through one relay and the rest through the other, around the
/// forgeries of a stranger. Returns the choices of the round, and the time that it took.
async fn no_honest_client_is_refused(cluster: &Cluster, way: &mut impl Way, round: &mut Round) -> (String, Duration) {
    for n in 0..2 {
        until_ready_is(cluster.address(n), 200).await;
    }
    let alice = Keys::random();
    let forgery = round.turn(&FORGERIES);
    let first = round.within(20..=EVENTS / 2);
    let mut reader = Client::open(&cluster.url(1), &[]).await.expect("it connects");
    reader.req_now("live", &[json!({"kinds": [1], "authors": [alice.hex()]})]).await.expect("it is served");
    way.listen().await;
    let mut sent = publish(cluster, 0, &alice, first).await;
    let captured: Vec<Vec<u8>> = way.capture().await.into_iter().filter(|it| is_charging(it)).collect();
    assert!(!captured.is_empty(), "the instances tell each other of the costs");
    let forged = forgery.of(round, &captured);
    let began = Instant::now();
    let passes = metric(cluster.address(1), COMPLETED).await;
    for message in &forged {
        way.send(message).await;
    }
    if forgery == Forgery::Flood {
        way.flood(round.ms(500..=2_000)).await;
        let passes = metric(cluster.address(1), COMPLETED).await - passes;
        let allowed = began.elapsed().as_secs_f64() * PASSES_PER_SEC_MAX + PASSES_AT_ONCE_MAX;
        assert!(passes <= allowed, "{passes} passes in {:?}", began.elapsed());
    }
    tokio::time::sleep(QUIET / 2).await;
    sent.extend(publish(cluster, 1, &alice, EVENTS - first).await);
    let got: Vec<String> = reader.live("live", sent.len()).await.iter().map(|it| it.id().to_owned()).collect();
    assert_eq!(got.len(), sent.len());
    let missing = sent.iter().filter(|it| !got.iter().any(|id| id == it.id())).count();
    assert_eq!(missing, 0, "{forgery:?}");
    (format!("{forgery:?}, {} messages after {first} notes", forged.len()), began.elapsed())
}

const COMPLETED: &str = "mls_gateway_follow_passes_total{result=\"completed\"} ";

/// A role of PostgreSQL that may connect and NOTIFY. It needs no rights in the schema for this.
struct OverPostgres {
    store: Arc<Store>,
    heard: tokio::sync::broadcast::Receiver<Arc<[u8]>>,
    url: String,
}

impl Way for OverPostgres {
    async fn listen(&mut self) {
        self.heard = self.store.messages().expect("it carries messages");
    }

    async fn capture(&mut self) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        while let Ok(Ok(message)) = timeout(QUIET, self.heard.recv()).await {
            messages.push(message.to_vec());
        }
        messages
    }

    async fn send(&mut self, message: &[u8]) {
        // A payload of PostgreSQL has an end; a longer message cannot be sent at all.
        if message.len() < 3_900 {
            self.store.broadcast(message.to_vec()).await.expect("it is sent");
        }
    }

    async fn flood(&mut self, lasts: Duration) {
        let url = self.url.clone();
        let floods = move || {
            let until = Instant::now() + lasts;
            while Instant::now() < until {
                // Each number makes a notification of its own; equal ones of a transaction are sent once.
                let sql = "select count(pg_notify('rnostr_log', n::text)) from generate_series(1, 20000) n";
                Postgres::shared().psql(&url, sql).expect("psql");
            }
        };
        tokio::task::spawn_blocking(floods).await.expect("no panic");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_notify_stops_no_honest_client() {
    if is_firestore() {
        return;
    }
    let mut rounds = Rounds::of("forged over PostgreSQL");
    while let Some(mut round) = rounds.next() {
        let Some(store) = StoreConfig::new_postgres() else { return };
        let url = store.database().to_owned();
        let cluster = Cluster::start(2, limited(store));
        let store = Arc::new(Store::open(&url, Options::default()).await.expect("the database opens"));
        let heard = store.messages().expect("it carries messages");
        tokio::time::sleep(QUIET).await;
        let mut way = OverPostgres { store, heard, url };
        let (choices, took) = no_honest_client_is_refused(&cluster, &mut way, &mut round).await;
        rounds.ended(&round, &choices, took);
    }
}

struct OverRedis {
    url: String,
    listening: RawRedis,
    sending: RawRedis,
    channel: Vec<u8>,
}

impl OverRedis {
    async fn new(url: String) -> Self {
        let (listening, sending) = (RawRedis::connect(&url).await, RawRedis::connect(&url).await);
        let mut way = Self { url, listening, sending, channel: Vec::new() };
        way.listen().await;
        way
    }
}

impl Way for OverRedis {
    async fn listen(&mut self) {
        self.listening = RawRedis::connect(&self.url).await;
        self.listening.send(&[b"PSUBSCRIBE", b"*"]).await;
        // Beats of both instances show that they listen, and tell the channel.
        for _ in 0..4 {
            (self.channel, _) = self.listening.message().await.expect("a beat comes");
        }
    }

    async fn capture(&mut self) -> Vec<Vec<u8>> {
        let mut messages = Vec::new();
        let until = Instant::now() + 2 * QUIET;
        while Instant::now() < until
            && let Some((_, message)) = self.listening.message().await
        {
            messages.push(message);
        }
        messages
    }

    async fn send(&mut self, message: &[u8]) {
        self.sending.send(&[b"PUBLISH", &self.channel, message]).await;
    }

    async fn flood(&mut self, lasts: Duration) {
        let until = Instant::now() + lasts;
        let mut n: u64 = 0;
        while Instant::now() < until {
            for _ in 0..200 {
                n += 1;
                let message = [&[2][..], &n.to_be_bytes(), &[0xcd; 60]].concat();
                self.send(&message).await;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_redis_stops_no_honest_client() {
    let Some(()) = services::require(Redis::available()) else { return };
    // A server of its own: other tests would speak on a shared one.
    let redis = Redis::start();
    let mut rounds = Rounds::of("forged over Redis");
    while let Some(mut round) = rounds.next() {
        let Some(store) = StoreConfig::new() else { return };
        let cluster = Cluster::start(2, limited(store.with_redis(&redis.url())));
        let mut way = OverRedis::new(redis.url()).await;
        let (choices, took) = no_honest_client_is_refused(&cluster, &mut way, &mut round).await;
        rounds.ended(&round, &choices, took);
    }
}
