//! A service that dies, and a connection that is cut.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use nostr_store::{
    OpenError, Saved, Store, StoreError,
    firestore::{Firestore, Options, PREFIX},
    suite::world::{START, event, new, roster},
};
use rnostr_test_services::{FirestoreEmulator, Proxy, Side};

use super::{Database, documents::call, world};

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

/// Connections of which one side falls silent are replaced too, although another process writes: its commits still come
/// as notifications where only the bytes to the service are lost, and put keep-alive off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_silent_on_one_side_are_replaced_within_twenty_seconds() {
    let Some(database) = Database::new() else { return };
    let proxy = Proxy::start(&FirestoreEmulator::shared().host());
    let options = Options { emulator_host: Some(proxy.address()), ..database.0.clone() };
    let store = Arc::new(Firestore::open(options).await.expect("the database opens"));
    let other = database.open().await;
    let by_other = world(&other);
    let others = async {
        for n in 0.. {
            let note = by_other.admitted_at(START, &event(1, &n.to_string()), "alice").await;
            other.save(vec![note]).await.remove(0).expect("it works");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    let silences = async {
        for side in [Side::Client, Side::Server] {
            store.after(store.head(), 1).await.expect("it works");
            proxy.silence_side(side);
            let silent = Instant::now();
            works_again(&store).await;
            assert!(silent.elapsed() < Duration::from_secs(20), "{side:?}: {:?}", silent.elapsed());
        }
    };
    tokio::select! {
        () = others => unreachable!("the others go on"),
        () = silences => {}
    }
}

/// An instance that stopped in a transaction holds up the group whose head it has read, on the emulator for a minute.
/// Whatever else is in a batch with that group's roster is saved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_is_left_open_holds_up_its_group_alone() {
    let Some(database) = Database::new() else { return };
    let store = database.open().await;
    let world = world(&store);
    new(world.publish(&roster("grp", 1, "bootstrap", &["alice", "bob"]), "admin").await);
    let head = call(&database, "GET", &format!("{PREFIX}_groups"), "")["documents"][0]["name"].clone();
    let begins = serde_json::json!({"documents": [head], "newTransaction": {"readWrite": {}}});
    let begun = call(&database, "POST", ":batchGet", &begins.to_string())[0]["transaction"].clone();
    assert!(begun.is_string(), "{begun}");
    let mut batch = Vec::new();
    for n in 0..4 {
        batch.push(world.admitted(&event(1, &n.to_string()), "alice").await);
    }
    let change = roster("grp", 2, "add", &["carol"]);
    batch.insert(2, world.admitted(&change, "admin").await);
    let saved = store.save(batch).await;
    let expected = [true, true, false, true, true];
    assert_eq!(saved.iter().map(Result::is_ok).collect::<Vec<_>>(), expected, "{saved:?}");
    assert!(matches!(&saved[2], Err(StoreError::Unavailable(_))), "{saved:?}");
    let ends = serde_json::json!({"transaction": begun});
    call(&database, "POST", ":rollback", &ends.to_string());
    new(world.publish(&change, "admin").await);
}
