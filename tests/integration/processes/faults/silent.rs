//! Connections that fall silent behind a proxy, while new ones work: those to the database, and those to Redis.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize},
    },
    time::{Duration, Instant},
};

use rnostr_test_services::{self as services, Proxy, Redis, Side};

use super::{Cluster, Database, LOOK, READY_SECS_MAX, StoreConfig, is_firestore, ready, until_ready_is};
use crate::{
    processes::load::{Published, Subscriber, check, publish},
    support::rounds::Rounds,
};

/// Longest time until an instance has noticed silent connections to Firestore, or to Redis, and made new ones.
const NOTICED_SECS_MAX: u64 = 10;
/// Time for which an instance stays ready before it counts as ready again.
const STAYS: Duration = Duration::from_secs(5);
/// Time after which silent connections have been noticed in any case.
const WATCHED_MIN: Duration = Duration::from_secs(12);
const TOPIC: &str = "silent";

/// The instances that clients write to while connections are silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writers {
    Nobody,
    /// Through the instance whose connections are not silent.
    OnTheOther,
    OnBoth,
}

const SIDES: [Side; 3] = [Side::Both, Side::Client, Side::Server];
const CASES: [(Side, Writers); 9] = [
    (Side::Client, Writers::OnTheOther),
    (Side::Both, Writers::OnBoth),
    (Side::Server, Writers::Nobody),
    (Side::Client, Writers::OnBoth),
    (Side::Both, Writers::Nobody),
    (Side::Server, Writers::OnTheOther),
    (Side::Client, Writers::Nobody),
    (Side::Both, Writers::OnTheOther),
    (Side::Server, Writers::OnBoth),
];

/// Publishers through these relays that run until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    publishers: Vec<tokio::task::JoinHandle<Published>>,
}

impl Load {
    fn start(urls: &[String], topic: &str) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let start = |url: &String| {
            publish(vec![url.clone()], topic.to_owned(), Arc::clone(&stop), Arc::<AtomicUsize>::default())
        };
        let publishers = urls.iter().map(start).collect();
        Self { stop, publishers }
    }

    async fn stop(self) -> Vec<Published> {
        self.stop.store(true, std::sync::atomic::Ordering::Release);
        let mut published = Vec::new();
        for publisher in self.publishers {
            published.push(publisher.await.expect("a publisher does not panic"));
        }
        published
    }
}

/// Watches an instance until it stays ready. Returns the time from `began` to the last moment in which it was not.
async fn until_it_stays_ready(address: SocketAddr, began: Instant) -> Duration {
    let mut last = began;
    loop {
        let asked = Instant::now();
        let answer = ready(address).await;
        if answer.status != 200 {
            last = asked;
            let took = last - began;
            assert!(took < Duration::from_secs(READY_SECS_MAX), "not ready after {took:?}: {}", answer.body);
        }
        if asked - began >= WATCHED_MIN && asked - last >= STAYS {
            return last - began;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until the proxy has accepted a new connection, and returns the time since `began`.
async fn until_connected(proxy: &Proxy, before: u64, more: u64, began: Instant) -> Duration {
    while proxy.accepted() < before + more {
        let took = began.elapsed();
        assert!(took < Duration::from_secs(NOTICED_SECS_MAX), "no new connection in {took:?}");
        tokio::time::sleep(LOOK).await;
    }
    began.elapsed()
}

/// All connections of one instance to the database fall silent, on either side or on both. It is ready again soon and
/// stays so, writes, and its subscribers miss nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_on_silent_connections_is_ready_again() {
    let mut rounds = Rounds::of("silent connections to the database");
    while let Some(mut round) = rounds.next() {
        let Some(database) = Database::new() else { return };
        let proxy = Proxy::start(&database.address());
        let (behind, beside) = (Cluster::start(1, database.through(&proxy)), Cluster::start(1, database.direct()));
        let urls = [behind.url(0), beside.url(0)];
        let (side, writers) = round.turn(&CASES);
        until_ready_is(behind.address(0), 200).await;
        let mut subscribers = [Subscriber::new(&urls[0], TOPIC).await, Subscriber::new(&urls[0], TOPIC).await];
        let to = match writers {
            Writers::Nobody => &urls[..0],
            Writers::OnTheOther => &urls[1..],
            Writers::OnBoth => &urls[..],
        };
        let load = Load::start(to, TOPIC);
        tokio::time::sleep(round.ms(0..=6_000)).await;
        let before = proxy.accepted();
        proxy.silence_side(side);
        let began = Instant::now();
        let noticed = if is_firestore() { Some(until_connected(&proxy, before, 1, began).await) } else { None };
        let took = until_it_stays_ready(behind.address(0), began).await;
        let mut published = load.stop().await;
        // Both write again.
        let afterwards = Load::start(&urls, TOPIC);
        tokio::time::sleep(Duration::from_millis(300)).await;
        published.extend(afterwards.stop().await);
        check(published, &mut subscribers, &urls[0], TOPIC).await;
        rounds.ended(&round, &format!("{side:?}, writers {writers:?}, noticed in {noticed:?}"), took);
    }
}

/// The connections of an instance to Redis fall silent. It stays ready, no publisher is refused, its subscribers miss
/// nothing, and it connects again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_to_redis_cost_nobody_anything() {
    let Some(()) = services::require(Redis::shared_available()) else { return };
    let redis = Redis::shared();
    let mut rounds = Rounds::of("silent connections to Redis");
    while let Some(mut round) = rounds.next() {
        let Some(database) = Database::new() else { return };
        let proxy = Proxy::start(&redis.address());
        let over = |store: StoreConfig, url: &str| Cluster::start(1, store.with_redis(url));
        let behind = over(database.direct(), &redis.url_at(&proxy.address()));
        let beside = over(database.direct(), &redis.url());
        let urls = [behind.url(0), beside.url(0)];
        let side = round.turn(&SIDES);
        for cluster in [&behind, &beside] {
            until_ready_is(cluster.address(0), 200).await;
        }
        let mut subscribers = [Subscriber::new(&urls[0], TOPIC).await, Subscriber::new(&urls[1], TOPIC).await];
        let load = Load::start(&urls, TOPIC);
        tokio::time::sleep(round.ms(1_500..=4_000)).await;
        let before = proxy.accepted();
        proxy.silence_side(side);
        let began = Instant::now();
        // An instance that loses its own bytes alone hears the other, and notices that it cannot send.
        let more = if side == Side::Server { 2 } else { 1 };
        let took = until_connected(&proxy, before, more, began).await;
        tokio::time::sleep(round.ms(500..=3_000)).await;
        for cluster in [&behind, &beside] {
            assert_eq!(ready(cluster.address(0)).await.status, 200);
        }
        let published = load.stop().await;
        let troubles: Vec<(usize, usize)> = published.iter().map(|it| (it.put_off, it.broken)).collect();
        assert_eq!(troubles, [(0, 0); 2], "publishers notice nothing");
        check(published, &mut subscribers, &urls[0], TOPIC).await;
        rounds.ended(&round, &format!("{side:?}, connected again"), took);
    }
}
