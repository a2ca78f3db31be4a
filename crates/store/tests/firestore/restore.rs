//! A database that loses its data under a running process.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
};

use nostr_store::{
    Saved, Store as _, StoreError,
    firestore::{Firestore, Options},
    suite::world::{START, event},
};
use rnostr_test_services::FirestoreEmulator;

use super::{Database, world};

/// Empties the emulator's database of a project.
fn empty(options: &Options) {
    let mut stream = TcpStream::connect(FirestoreEmulator::shared().host()).expect("the emulator listens");
    let path = format!("/emulator/v1/projects/{}/databases/(default)/documents", options.project_id);
    let request = format!("DELETE {path} HTTP/1.1\r\nHost: emulator\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).expect("it answers");
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_was_written_anew_is_noticed_and_not_written_to() {
    let Some(database) = Database::new() else { return };
    let options = Options { layout_secs: 0, ..database.0.clone() };
    let store = std::sync::Arc::new(Firestore::open(options.clone()).await.expect("the database opens"));
    let world = world(&store);
    let note = async |text: &str| vec![world.admitted_at(START, &event(1, text), "alice").await];
    assert!(matches!(store.save(note("before").await).await[0], Ok(Saved::New(_))));
    store.after(0, 10).await.expect("the log");
    let after = note("after").await;
    empty(&options);
    // Another process starts over the empty database, and makes a layout of its own.
    let other = Firestore::open(options).await.expect("the database opens");
    for _ in 0..2 {
        let error = store.after(store.head(), 10).await.expect_err("it is another database");
        assert!(matches!(error, StoreError::Replaced(_)), "{error}");
    }
    assert!(matches!(store.save(after).await[0], Err(StoreError::Replaced(_))));
    assert_eq!(other.stats().await.expect("stats").events, 0);
}
