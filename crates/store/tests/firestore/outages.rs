//! A service that dies, and a connection that is cut.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use nostr_store::{
    OpenError, Saved, Store, StoreError,
    firestore::{Firestore, Options},
    suite::world::{START, event},
};
use rnostr_test_services::{FirestoreEmulator, Proxy};

use super::{Database, world};

/// Longest wait for a store to work again.
const WAIT: Duration = Duration::from_secs(30);

async fn works_again(store: &Arc<Firestore>) {
    let until = Instant::now() + WAIT;
    while store.after(0, 1).await.is_err() {
        assert!(Instant::now() < until, "it does not work again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_cut_or_stalls_fails_in_time_and_works_again() {
    let Some(database) = Database::new() else { return };
    let proxy = Proxy::start(&FirestoreEmulator::shared().host());
    let options = Options { emulator_host: Some(proxy.address()), ..database.0.clone() };
    let store = Arc::new(Firestore::open(options).await.expect("the database opens"));
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
    let mut many = Vec::new();
    for n in 0..1_200 {
        many.push(note(&format!("while it stalls {n}")).await);
    }
    let saved = store.save(many).await;
    assert!(saved.len() == 1_200 && saved.iter().all(|it| matches!(it, Err(StoreError::Unavailable(_)))));
    assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
    proxy.restore();
    works_again(&store).await;
    assert!(matches!(save("after the stall").await, Ok(Saved::New(_))));

    // Single notifications may be lost, so the test sends several until the listener is back.
    let mut notifications = store.notifications().expect("it is shared");
    let other = database.open().await;
    let until = Instant::now() + WAIT;
    let mut n = 0;
    notifications.mark_unchanged();
    while !notifications.has_changed().expect("open") {
        assert!(Instant::now() < until, "nobody listens any more");
        n += 1;
        other.save(vec![note(&format!("notification {n}")).await]).await.remove(0).expect("it works");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn what_does_not_answer_is_unreachable_and_what_is_wrong_is_refused() {
    let nobody = Options { emulator_host: Some("127.0.0.1:1".to_owned()), ..Options::new("project") };
    let started = Instant::now();
    let failed = Firestore::open(nobody.clone()).await.expect_err("nobody is there");
    assert!(matches!(&failed, OpenError::Unreachable(why) if why.contains("project")), "{failed}");
    assert!(started.elapsed() < Duration::from_secs(15));
    for wrong in [
        Options { batch_size: 0, ..nobody.clone() },
        Options { batch_size: 501, ..nobody.clone() },
        Options { prefix: "a/b".to_owned(), ..nobody.clone() },
        Options { project_id: String::new(), ..nobody },
    ] {
        let failed = Firestore::open(wrong).await.expect_err("it is wrong");
        assert!(matches!(failed, OpenError::Refused(_)), "{failed}");
    }
}

/// Connections that fall silent while new ones work are replaced.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_are_replaced_within_twenty_seconds() {
    let Some(database) = Database::new() else { return };
    let proxy = Proxy::start(&FirestoreEmulator::shared().host());
    let options = Options { emulator_host: Some(proxy.address()), ..database.0.clone() };
    let store = Arc::new(Firestore::open(options).await.expect("the database opens"));
    for _ in 0..2 {
        store.after(0, 1).await.expect("it works");
        proxy.silence();
        let silent = Instant::now();
        works_again(&store).await;
        assert!(silent.elapsed() < Duration::from_secs(20), "{:?}", silent.elapsed());
    }
}
