//! SIGKILL of a relay, of PostgreSQL and of Redis, and a cut connection to Firestore, while clients publish notes: ten
//! rounds each.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rnostr_test_services as services;

use super::{
    Cluster, StoreConfig, is_firestore,
    load::{Published, Subscriber, check, publish},
};

const ROUNDS: usize = 10;
const PUBLISHERS: usize = 4;
/// Events that are acknowledged in each round before the disturbance, and again after it.
const EVENTS_MIN: usize = 40;
const TOPIC: &str = "kept";

async fn reaches(count: &AtomicUsize, wanted: usize) {
    let until = Instant::now() + Duration::from_secs(40);
    while count.load(Ordering::Acquire) < wanted {
        assert!(Instant::now() < until, "publishing stands still");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Publishes and reads while `disturb` runs once in each round. Returns for each publisher the number of answers that
/// asked to try again and the number of connections that broke.
async fn survive(cluster: &mut Cluster, stays: usize, mut disturb: impl FnMut(&mut Cluster)) -> Vec<(usize, usize)> {
    let urls: Vec<String> = (0..cluster.processes.len()).map(|n| cluster.url(n)).collect();
    let mut subscribers = [Subscriber::new(&urls[stays], TOPIC).await, Subscriber::new(&urls[stays], TOPIC).await];
    let (stop, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let publishers: Vec<_> = (0..PUBLISHERS)
        .map(|n| {
            let mut urls = urls.clone();
            urls.rotate_left(n % cluster.processes.len());
            publish(urls, TOPIC.to_owned(), Arc::clone(&stop), Arc::clone(&count))
        })
        .collect();
    for _ in 0..ROUNDS {
        reaches(&count, count.load(Ordering::Acquire) + EVENTS_MIN).await;
        disturb(cluster);
        reaches(&count, count.load(Ordering::Acquire) + EVENTS_MIN).await;
    }
    stop.store(true, Ordering::Release);
    let mut published: Vec<Published> = Vec::new();
    for publisher in publishers {
        published.push(publisher.await.expect("a publisher does not panic"));
    }
    let troubles = published.iter().map(|it| (it.put_off, it.broken)).collect();
    check(published, &mut subscribers, &urls[stays], TOPIC).await;
    troubles
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_relay_dies_and_nothing_that_was_acknowledged_is_lost() {
    let Some(store) = StoreConfig::new() else { return };
    let mut cluster = Cluster::start(3, store);
    let mut victim = 0;
    let troubles = survive(&mut cluster, 2, |cluster| {
        let port = cluster.kill(victim);
        cluster.revive(victim, port);
        victim = 1 - victim;
    })
    .await;
    assert!(troubles.iter().map(|(_, broken)| broken).sum::<usize>() >= ROUNDS / 2, "{troubles:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_is_gone_for_a_while_and_those_who_are_connected_stay_and_miss_nothing() {
    let troubles = if is_firestore() { firestore_is_cut_off().await } else { postgres_dies().await };
    let Some(troubles) = troubles else { return };
    assert!(troubles.iter().map(|(put_off, _)| put_off).sum::<usize>() >= ROUNDS, "{troubles:?}");
}

async fn postgres_dies() -> Option<Vec<(usize, usize)>> {
    services::require(services::Postgres::available())?;
    let mut server = services::Postgres::start(services::Options::durable());
    let mut cluster = Cluster::start(2, StoreConfig::postgres(&server.create_database()));
    let troubles = survive(&mut cluster, 1, |_| {
        server.stop_immediate();
        std::thread::sleep(Duration::from_millis(300));
        server.restart();
    });
    Some(troubles.await)
}

async fn firestore_is_cut_off() -> Option<Vec<(usize, usize)>> {
    services::require(services::FirestoreEmulator::shared_available())?;
    let emulator = services::FirestoreEmulator::shared();
    let proxy = services::Proxy::start(&emulator.host());
    let mut cluster = Cluster::start(2, StoreConfig::firestore(&proxy.address(), &emulator.project()));
    let troubles = survive(&mut cluster, 1, |_| {
        proxy.cut();
        std::thread::sleep(Duration::from_millis(500));
        proxy.restore();
    });
    Some(troubles.await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_dies_and_nobody_misses_anything() {
    let Some(store) = StoreConfig::new() else { return };
    let Some(()) = services::require(services::Redis::available()) else { return };
    let mut redis = services::Redis::start();
    let mut cluster = Cluster::start(2, store.with_redis(&redis.url()));
    let troubles = survive(&mut cluster, 1, |_| {
        redis.kill();
        std::thread::sleep(Duration::from_millis(200));
        redis.restart();
    })
    .await;
    assert_eq!(troubles, [(0, 0); PUBLISHERS], "publishers notice nothing");
}
