//! A server that dies, and a connection that is cut.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use nostr_protocol::EventId;
use nostr_store::{
    Saved, Store as _, StoreError,
    postgres::{Options, Postgres},
    suite::world::{START, event, id_of},
};
use rnostr_test_services as services;

use super::{open, world};

/// Longest wait for a store to work again.
const WAIT: Duration = Duration::from_secs(30);

async fn works_again(store: &Arc<Postgres>) {
    let until = Instant::now() + WAIT;
    while store.after(0, 1).await.is_err() {
        assert!(Instant::now() < until, "it does not work again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_there_after_the_server_dies() {
    const ROUNDS: usize = 10;
    const WRITERS: usize = 4;
    let Some(()) = services::require(services::Postgres::available()) else { return };
    let mut server = services::Postgres::start(services::Options::durable());
    let url = server.create_database();
    let mut stores = Vec::new();
    for _ in 0..WRITERS {
        stores.push(open(&url).await);
    }
    let mut acknowledged: Vec<EventId> = Vec::new();
    for round in 0..ROUNDS {
        let stop = Arc::new(AtomicBool::new(false));
        let mut writing = Vec::new();
        for (writer, store) in stores.iter().enumerate() {
            let (store, stop, world) = (Arc::clone(store), Arc::clone(&stop), world(store));
            writing.push(tokio::spawn(async move {
                let (mut done, mut failed) = (Vec::new(), 0);
                for n in 0.. {
                    if stop.load(Ordering::Acquire) {
                        break;
                    }
                    let mut batch = Vec::new();
                    for part in 0..3 {
                        let note = event(1, &format!("{round} {writer} {n} {part}"));
                        batch.push(world.admitted(&note, "alice").await);
                    }
                    for saved in store.save(batch).await {
                        match saved {
                            Ok(Saved::New(sealed)) => done.push(id_of(&sealed)),
                            Ok(other) => panic!("{other:?}"),
                            Err(StoreError::Unavailable(_)) => failed += 1,
                            Err(other) => panic!("{other:?}"),
                        }
                    }
                    if failed > 0 {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                (done, failed)
            }));
        }
        tokio::time::sleep(Duration::from_millis(150)).await;
        server.stop_immediate();
        tokio::time::sleep(Duration::from_millis(50)).await;
        server.restart();
        for store in &stores {
            works_again(store).await;
        }
        stop.store(true, Ordering::Release);
        let mut failed_all = 0;
        for writer in writing {
            let (done, failed) = writer.await.expect("no panic");
            acknowledged.extend(done);
            failed_all += failed;
        }
        assert!(failed_all > 0, "the server died while they wrote");
    }
    assert!(acknowledged.len() > ROUNDS);
    for (n, id) in acknowledged.iter().enumerate() {
        assert!(stores[n % WRITERS].holds(id, START).await.expect("an answer"), "it was acknowledged");
    }
    let log = stores[0].after(0, 1_000_000).await.expect("the log").entries;
    let cursors: Vec<u64> = log.iter().map(|entry| entry.cursor).collect();
    assert!(cursors.is_sorted_by(|a, b| a < b), "no place is given twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_or_stalls_fails_in_time_and_works_again() {
    let Some(()) = services::require(services::Postgres::shared_available()) else { return };
    let server = services::Postgres::shared();
    let database = server.create_database();
    let name = database.rsplit('/').next().expect("a name").to_owned();
    let proxy = services::Proxy::start(&server.address());
    let store = open(&server.url_at(&proxy.address(), &name)).await;
    let world = world(&store);
    let note = async |text: &str| world.admitted_at(START, &event(1, text), "alice").await;
    let save = async |text: &str| store.save(vec![note(text).await]).await.remove(0);
    assert!(matches!(save("before").await, Ok(Saved::New(_))));

    proxy.cut();
    let started = Instant::now();
    assert!(matches!(save("while it is cut").await, Err(StoreError::Unavailable(_))));
    assert!(store.after(0, 10).await.is_err());
    assert!(started.elapsed() < Duration::from_secs(15));
    proxy.restore();
    works_again(&store).await;
    assert!(matches!(save("after the cut").await, Ok(Saved::New(_))));

    proxy.stall();
    let started = Instant::now();
    assert!(matches!(save("while it stalls").await, Err(StoreError::Unavailable(_))));
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    proxy.restore();
    works_again(&store).await;
    assert!(matches!(save("after the stall").await, Ok(Saved::New(_))));
    // Single notifications may be lost, so the test sends several until the listener is back.
    let mut notifications = store.notifications().expect("it is shared");
    notifications.mark_unchanged();
    let until = Instant::now() + WAIT;
    let mut n = 0;
    while !notifications.has_changed().expect("open") {
        assert!(Instant::now() < until, "nobody listens any more");
        n += 1;
        save(&format!("notification {n}")).await.expect("it works");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(store);
    server.drop_database(&database);
}

/// A call that its caller drops while it waits for an answer gives no connection back: the next call has a new one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_call_gives_no_connection_back() {
    let Some(()) = services::require(services::Postgres::shared_available()) else { return };
    let server = services::Postgres::shared();
    let database = server.create_database();
    let name = database.rsplit('/').next().expect("a name").to_owned();
    let proxy = services::Proxy::start(&server.address());
    let options = Options { connections_max: 1, ..Options::default() };
    let url = server.url_at(&proxy.address(), &name);
    let store = Arc::new(Postgres::open(&url, options).await.expect("the database opens"));
    for _ in 0..3 {
        store.after(0, 1).await.expect("it works");
        proxy.silence();
        let asked = tokio::time::timeout(Duration::from_millis(200), store.after(0, 1)).await;
        assert!(asked.is_err(), "nobody answers");
        store.after(0, 1).await.expect("the silent connection is not used again");
    }
    drop(store);
    server.drop_database(&database);
}

/// All connections fall silent at once, while new ones work. The first call notices it; the others do not wait for
/// their connections one by one, and the listener hears again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_are_replaced_within_twenty_seconds() {
    const CONNECTIONS: usize = 8;
    let Some(()) = services::require(services::Postgres::shared_available()) else { return };
    let server = services::Postgres::shared();
    let database = server.create_database();
    let name = database.rsplit('/').next().expect("a name").to_owned();
    let proxy = services::Proxy::start(&server.address());
    let options = Options { connections_max: CONNECTIONS, ..Options::default() };
    let url = server.url_at(&proxy.address(), &name);
    let store = Arc::new(Postgres::open(&url, options).await.expect("the database opens"));
    let world = world(&store);
    // All connections of the pool are made and lie idle.
    let many = (0..CONNECTIONS).map(|_| store.stats());
    assert!(futures_util::future::join_all(many).await.iter().all(Result::is_ok));
    for round in 0..3 {
        proxy.silence();
        let mut failed = 0;
        for n in 0..CONNECTIONS {
            failed += usize::from(store.after(0, 1).await.is_err());
            let note = world.admitted_at(START, &event(1, &format!("{round} {n}")), "alice").await;
            assert!(matches!(store.save(vec![note]).await[..], [Ok(Saved::New(_))]), "a write is tried again");
        }
        assert!(failed <= 1, "{failed} calls failed");
        let mut notifications = store.notifications().expect("it is shared");
        notifications.mark_unchanged();
        let until = Instant::now() + Duration::from_secs(20);
        let other = open(&database).await;
        while !notifications.has_changed().expect("open") {
            assert!(Instant::now() < until, "nobody listens any more");
            let text = format!("{round} {:?}", until - Instant::now());
            let note = world.admitted_at(START, &event(1, &text), "bob").await;
            other.save(vec![note]).await.remove(0).expect("it works");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    drop(store);
    server.drop_database(&database);
}
