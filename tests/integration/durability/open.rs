//! Stores that must not be opened.

use std::{path::Path, time::Duration};

use crate::support::{Keys, process::Process, wire::Wire};

/// A second process on the same directory ends with an error that says so; the first process keeps working.
#[tokio::test]
async fn a_store_in_use_is_not_opened_twice() {
    let directory = tempfile::tempdir().expect("a directory");
    let first = Process::start(directory.path(), &[]);
    let mut wire = Wire::connect(first.address).await;
    let before = Keys::random().event(1).sign();
    assert_eq!(wire.publish(&before).await[2], true);

    let said = Process::refusal(directory.path(), &[]);
    assert!(said.contains("is in use by another rnostr"), "{said}");

    assert_eq!(wire.publish(&Keys::random().event(1).sign()).await[2], true);
    let found = super::load::found(&mut Wire::connect(first.address).await, [&before.id().to_owned()]).await;
    assert_eq!(found.len(), 1);
}

/// A lock that a killed process left behind does not prevent the next start.
#[tokio::test]
async fn a_killed_process_leaves_no_lock() {
    let directory = tempfile::tempdir().expect("a directory");
    Process::start(directory.path(), &[]).kill();
    Process::start(directory.path(), &[]);
}

/// The log names the address that the relay listens on, and no other.
#[tokio::test]
async fn the_start_logs_its_address_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let process = Process::start(directory.path(), &[]);
    // The rules are logged behind the address.
    while !process.log().contains("rate limits: ") {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let log = process.log();
    assert_eq!(log.matches("127.0.0.1:").count(), 1, "{log}");
    assert!(log.contains(&format!("listening on ws://{}", process.address)), "{log}");
}

/// The warning about open files says which numbers to set.
#[tokio::test]
async fn too_few_open_files_are_named_with_the_numbers_to_set() {
    let directory = tempfile::tempdir().expect("a directory");
    let bounded = ["sh", "-c", "ulimit -n 1000; exec \"$0\" \"$@\""];
    let process = Process::start_by(&bounded, directory.path(), &[("server", "connections_max = 5000")]);
    let log = process.log();
    assert!(log.contains("ulimit -n 5256") && log.contains("LimitNOFILE=5256"), "{log}");
    assert!(log.contains("write connections_max = 744"), "{log}");
}

/// A store of a newer schema is refused with an error that names the schema, and its tables stay unchanged.
#[tokio::test]
async fn a_newer_schema_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let process = Process::start(directory.path(), &[]);
    let event = Keys::random().event(1).sign();
    assert_eq!(Wire::connect(process.address).await.publish(&event).await[2], true);
    process.kill();

    let file = directory.path().join("data/data.mdb");
    set_schema(&file, 5, 9);
    let newer = std::fs::read(&file).expect("the store is a file");
    let said = Process::refusal(directory.path(), &[]);
    assert!(said.contains("newer rnostr") && said.contains("schema 9"), "{said}");
    assert_eq!(tables_only(&std::fs::read(&file).expect("the store is a file")), tables_only(&newer));

    set_schema(&file, 9, 5);
    let process = Process::start(directory.path(), &[]);
    let found = super::load::found(&mut Wire::connect(process.address).await, [&event.id().to_owned()]).await;
    assert_eq!(found.len(), 1);
}

/// Overwrites the store's schema number, which stands after its key in each copy of the page.
fn set_schema(file: &Path, from: u8, to: u8) {
    let mut bytes = std::fs::read(file).expect("the store is a file");
    let key = [b"schema\0\0\0", &[from][..]].concat();
    let places: Vec<usize> = (0..bytes.len() - key.len()).filter(|&at| bytes[at..].starts_with(&key)).collect();
    assert!(!places.is_empty(), "the schema is there");
    for at in places {
        bytes[at + key.len() - 1] = to;
    }
    std::fs::write(file, bytes).expect("the store is written");
}

/// The file without LMDB's two meta pages, which record when it was last opened.
fn tables_only(bytes: &[u8]) -> &[u8] {
    &bytes[2 * 4096..]
}
