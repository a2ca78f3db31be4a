//! Promises of the embedded store alone: durability, one process a directory, bounded size.
#![allow(clippy::expect_used, reason = "a test")]

use std::{path::Path, sync::Arc};

use nostr_extensions::{GroupStatus, Role};
use nostr_protocol::EventId;
use nostr_store::{
    Saved, Store as _, StoreError,
    embedded::{Durability, Embedded, Options},
    moving::{Moving as _, Record, delete},
    suite::world::{
        START, Subject, World, capability, claim_of, deletion, event, everyone, filter, group, id_of, key, key_package,
        message, new, roster, vanish, wrap,
    },
    weight::{BATCH_ROWS_MAX, SWEPT_ROWS_MAX},
};

fn open(directory: &Path, options: Options) -> World {
    let store = Embedded::open(directory, options).expect("a store");
    World::new(Subject { store: Arc::new(store), keep: Box::new(()) })
}

fn at(directory: &Path) -> World {
    open(directory, Options::default())
}

#[test]
fn a_directory_belongs_to_one_store_at_a_time() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("made/on/the/way");
    let store = Embedded::open(&path, Options::default()).expect("a store");
    let second = Embedded::open(&path, Options::default()).expect_err("it is in use").to_string();
    assert!(second.contains("is in use by another rnostr") && second.contains("made/on/the/way"), "{second}");
    drop(store);
    Embedded::open(&path, Options::default()).expect("it is free again");
}

#[test]
fn what_is_no_directory_is_refused_by_name() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let refused = Embedded::open(file.path(), Options::default()).expect_err("a file").to_string();
    assert!(refused.contains("cannot be created"), "{refused}");
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let directory = tempfile::tempdir().expect("a directory");
    let w = at(directory.path());
    let h = capability("room");
    let note = event(1, "note");
    let deleted = id_of(&new(w.publish(&note, "alice").await));
    new(w.publish(&deletion(&[deleted]), "alice").await);
    let kept = id_of(&new(w.publish(&event(1, "kept"), "alice").await));
    new(w.publish(&roster("grp", 7, "bootstrap", &["alice", "bob"]), "admin").await);
    w.send(&message("grp", "hi").tag(&["k", "12"]), "throw-away", "alice").await;
    w.send(&message(&h, "hi"), "throw-away", "alice").await;
    for text in ["one", "two"] {
        new(w.publish(&key_package(text, text), "alice").await);
    }
    w.store.claim_key_packages(&claim_of("alice", 1), START).await.expect("a claim");
    new(w.publish(&vanish(START), "bob").await);
    let last = new(w.publish(&event(20_001, "passing"), "alice").await).cursor();
    drop(w);

    let w = at(directory.path());
    assert!(w.holds(kept).await);
    assert!(matches!(w.publish(&note, "alice").await, Saved::Deleted));
    assert!(matches!(w.publish(&key_package("one", "one"), "alice").await, Saved::Deleted));
    assert!(matches!(w.publish(&event(1, "bob's").at(START - 1), "bob").await, Saved::Deleted));
    assert_eq!(w.members("grp").await, Some(vec![(key("alice"), Role::Member)]));
    let GroupStatus::Managed(view) = w.group("grp").await.status else { panic!("not managed") };
    assert_eq!((view.record.seq, view.record.last_epoch), (7, Some(12)));
    assert_eq!(w.group(&h).await.status, GroupStatus::Unlisted);
    assert!(w.store.head() >= last);
    assert!(new(w.publish(&event(1, "next"), "alice").await).cursor() > last);
}

#[tokio::test]
async fn what_a_vanished_key_left_stays_hidden_and_goes_after_reopening() {
    let directory = tempfile::tempdir().expect("a directory");
    let w = at(directory.path());
    let note = id_of(&new(w.publish(&event(1, "note"), "alice").await));
    let wrapped = w.send(&wrap("alice", "to her"), "throw-away", "bob").await;
    new(w.publish(&vanish(START), "alice").await);
    drop(w);
    let w = at(directory.path());
    assert!(!w.holds(note).await && !w.holds(wrapped).await);
    assert_eq!(w.store.stats().await.expect("stats").events, 3, "they are on disk until the sweep");
    assert_eq!(w.sweep(START).await, 2);
    drop(w);
    let w = at(directory.path());
    assert_eq!(w.store.stats().await.expect("stats").events, 1);
    assert_eq!(w.find("{}", everyone()).await.len(), 1);
}

#[tokio::test]
async fn a_cursor_is_never_used_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let w = at(directory.path());
    let expiration = (START + 10).to_string();
    let last = new(w.publish(&event(1, "brief").tag(&["expiration", &expiration]), "alice").await).cursor();
    assert_eq!(w.sweep(START + 10).await, 1);
    drop(w);
    let w = at(directory.path());
    assert!(w.store.head() >= last);
    assert!(new(w.publish(&event(1, "next"), "alice").await).cursor() > last);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_that_write_together_each_get_their_own_answers() {
    let directory = tempfile::tempdir().expect("a directory");
    let w = Arc::new(at(directory.path()));
    let mut tasks = Vec::new();
    for n in 0..64 {
        let w = Arc::clone(&w);
        tasks.push(tokio::spawn(async move {
            let mut ids = Vec::new();
            for m in 0..8 {
                let note = w.admitted(&event(1, &format!("{n} {m}")), "alice").await;
                let id = note.event().id();
                let saved = w.save(vec![note.clone(), note]).await;
                assert!(matches!(&saved[..], [Saved::New(sealed), Saved::Duplicate] if id_of(sealed) == id));
                ids.push(id);
            }
            ids
        }));
    }
    let mut all = Vec::new();
    for task in tasks {
        all.extend(task.await.expect("a task"));
    }
    for id in &all {
        assert!(w.holds(*id).await);
    }
    assert_eq!(w.store.stats().await.expect("stats").events, 512);
}

#[tokio::test]
async fn with_an_interval_it_is_on_disk_when_closed() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = Options { durability: Durability::Interval { ms: 60_000 }, ..Options::default() };
    let w = open(directory.path(), options);
    let id = id_of(&new(w.publish(&event(1, "note"), "alice").await));
    drop(w);
    assert!(at(directory.path()).holds(id).await);
}

fn padded(n: u64, bytes: usize) -> nostr_protocol::testing::EventBuilder {
    event(1, &format!("{n} {}", "x".repeat(bytes))).tag(&["expiration", &(START + 10 + n).to_string()])
}

#[tokio::test]
async fn a_full_store_reads_deletes_and_sweeps_and_then_takes_events_again() {
    let directory = tempfile::tempdir().expect("a directory");
    let w = open(directory.path(), Options { map_bytes_max: 4 << 20, ..Options::default() });
    let mut stored: Vec<EventId> = Vec::new();
    let full = loop {
        let mut batch = Vec::new();
        for n in 0..16 {
            batch.push(w.admitted(&padded(stored.len() as u64 + n, 8_000), "alice").await);
        }
        let ids: Vec<EventId> = batch.iter().map(|admitted| admitted.event().id()).collect();
        let answers = w.store.save(batch).await;
        for (id, answer) in ids.iter().zip(&answers) {
            assert_eq!(w.holds(*id).await, answer.is_ok(), "what is acknowledged is there, and nothing else");
        }
        stored.extend(ids.iter().zip(&answers).filter(|(_, answer)| answer.is_ok()).map(|(id, _)| *id));
        if let Some(error) = answers.into_iter().find_map(Result::err) {
            break error;
        }
        assert!(stored.len() < 1_000, "it never fills");
    };
    assert!(matches!(full, StoreError::Full(_)), "{full:?}");
    assert!(stored.len() > 200, "{} events of 8 KB in 4 MiB", stored.len());
    assert_eq!(w.find("{}", everyone()).await.len(), stored.len());

    for targets in stored[..10].chunks(5) {
        new(w.publish(&deletion(targets), "alice").await);
    }
    assert_eq!(w.sweep(START + 100).await, 81);
    new(w.publish_at(START + 100, &padded(5_000, 8_000), "alice").await);
    assert_eq!(w.sweep(START + 10_000).await, stored.len() - 90);
    for n in 0..200 {
        new(w.publish_at(START, &padded(6_000 + n, 8_000), "alice").await);
    }
}

/// The operator can make room in a full store by deleting events, though an import brings nothing in.
#[tokio::test]
async fn a_full_store_takes_the_operators_deletions() {
    let directory = tempfile::tempdir().expect("a directory");
    let options = Options { map_bytes_max: 4 << 20, ..Options::default() };
    let store = Arc::new(Embedded::open(directory.path(), options).expect("a store"));
    let w = World::new(Subject { store: Arc::<Embedded>::clone(&store), keep: Box::new(directory) });
    let mut n = 0;
    while w.store.save(vec![w.admitted(&padded(n, 8_000), "alice").await]).await[0].is_ok() {
        n += 1;
        assert!(n < 1_000, "it never fills");
    }
    let record = Record::Unlisted(group(&capability("new")));
    let imported = store.import(vec![record], START).await;
    assert!(matches!(imported, Err(StoreError::Full(_))), "{imported:?}");
    let json = format!(r#"{{"authors":["{}"]}}"#, key("alice").to_hex());
    let deleted = delete(&*store, &filter(&json), store.head(), START, |_| ()).await.expect("it deletes");
    assert_eq!(deleted.removed, n);
    new(w.publish(&padded(5_000, 8_000), "alice").await);
}

#[tokio::test]
async fn an_event_that_does_not_fit_harms_no_other_of_its_batch() {
    let directory = tempfile::tempdir().expect("a directory");
    let w = open(directory.path(), Options { map_bytes_max: 2 << 20, ..Options::default() });
    let mut w = w;
    w.policy.event_bytes_max = 8 << 20;
    let mut batch = Vec::new();
    for n in 0..21 {
        batch.push(w.admitted(&padded(n, if n == 13 { 4 << 20 } else { 100 }), "alice").await);
    }
    for (n, answer) in w.store.save(batch).await.into_iter().enumerate() {
        match answer {
            Ok(Saved::New(_)) => assert_ne!(n, 13),
            Err(StoreError::Full(_)) => assert_eq!(n, 13),
            other => panic!("{n}: {other:?}"),
        }
    }
    assert_eq!(w.find("{}", everyone()).await.len(), 20);
}

/// Whatever the events of one call are, a transaction changes a bounded number of rows, and so a bounded number of
/// pages.
#[tokio::test]
async fn a_transaction_is_bounded_by_its_rows() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Arc::new(Embedded::open(directory.path(), Options::default()).expect("a store"));
    let w = World::new(Subject { store: Arc::<Embedded>::clone(&store), keep: Box::new(directory) });
    let heavy = |n: usize| {
        let event = event(1, &n.to_string()).tag(&["expiration", &(START + 100 + n as u64 % 2).to_string()]);
        (0..2_400).fold(event, |event, tag| event.tag(&["t", &format!("{n} {tag}")]))
    };
    let mut batch = Vec::new();
    for n in 0..40 {
        batch.push(w.admitted(&heavy(n), "alice").await);
    }
    let ids: Vec<EventId> = w.save(batch).await.into_iter().map(|saved| id_of(&new(saved))).collect();
    // Deletions of few targets remove many rows, and so does a sweep.
    let mut deletions = Vec::new();
    for some in ids[..20].chunks(2) {
        deletions.push(w.admitted(&deletion(some), "alice").await);
    }
    w.save(deletions).await.into_iter().for_each(|saved| drop(new(saved)));
    // One of the deleted events went at once, and the rows of the others are left to the sweep.
    assert_eq!(w.store.stats().await.expect("stats").events, 30);
    assert_eq!(w.sweep(START + 101).await, 19 + 20);
    assert_eq!(w.store.stats().await.expect("stats").events, 10);
    // One work more than a batch takes: a deletion of two events.
    let most = BATCH_ROWS_MAX + 2 * 2_410;
    assert!((BATCH_ROWS_MAX / 2..=most).contains(&store.most_rows()), "{}", store.most_rows());
}

/// Calls wait for those that are served before them. Whatever these remove, the rows beyond those of a batch are left
/// to sweeps, whose pieces are small.
#[tokio::test]
async fn removals_take_no_more_of_the_writer_than_a_batch() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Arc::new(Embedded::open(directory.path(), Options::default()).expect("a store"));
    let w = World::new(Subject { store: Arc::<Embedded>::clone(&store), keep: Box::new(()) });
    let mut ids = Vec::new();
    for n in 0..24 {
        let slot = event(30_001, "old").tag(&["d", &n.to_string()]);
        let slot = (0..2_400).fold(slot, |event, tag| event.tag(&["t", &format!("{n} {tag}")]));
        ids.push(id_of(&new(w.publish(&slot, "alice").await)));
    }
    assert!(store.most_rows_served() <= BATCH_ROWS_MAX);
    let mut batch = Vec::new();
    for some in ids[..12].chunks(4) {
        batch.push(w.admitted(&deletion(some), "alice").await);
    }
    for n in 12..24 {
        batch.push(w.admitted(&event(30_001, "new").at(START + 1).tag(&["d", &n.to_string()]), "alice").await);
    }
    let count = batch.len();
    w.save(batch).await.into_iter().for_each(|saved| drop(new(saved)));
    // The rows that the events add, those that go at once, and a mark for each other removed event.
    assert!(store.most_rows_served() <= 2 * BATCH_ROWS_MAX, "{}", store.most_rows_served());
    drop((w, store));

    let store = Arc::new(Embedded::open(directory.path(), Options::default()).expect("a store"));
    let w = World::new(Subject { store: Arc::<Embedded>::clone(&store), keep: Box::new(directory) });
    assert_eq!(w.find("{}", everyone()).await.len(), count, "what is removed stays so in the next process");
    for id in &ids {
        assert!(!w.holds(*id).await);
    }
    assert_eq!(w.sweep(START).await, ids.len() - 1);
    assert!(store.most_rows_served() <= SWEPT_ROWS_MAX + 2_410, "{}", store.most_rows_served());
    assert_eq!(w.find("{}", everyone()).await.len(), count);
}

#[tokio::test]
async fn a_store_that_is_put_back_has_another_history_from_there_on() {
    let directory = tempfile::tempdir().expect("a directory");
    let copy = tempfile::tempdir().expect("a directory");
    let transfer = |from: &Path, to: &Path| {
        std::fs::copy(from.join("data.mdb"), to.join("data.mdb")).expect("a copy");
    };
    let write = async |w: &World, text: &str| {
        for n in 0..3 {
            new(w.publish(&event(1, &format!("{text} {n}")), "alice").await);
        }
        w.store.head()
    };
    let mark = async |w: &World, cursor| w.store.history_at(cursor).await.expect("a mark");
    let w = at(directory.path());
    let early = write(&w, "early").await;
    let of_early = mark(&w, early).await;
    drop(w);
    transfer(directory.path(), copy.path());
    let w = at(directory.path());
    let late = write(&w, "late").await;
    let of_late = mark(&w, late).await;
    assert_eq!(mark(&w, early).await, of_early);
    drop(w);
    let w = at(directory.path());
    assert_eq!((mark(&w, early).await, mark(&w, late).await), (of_early, of_late), "after a restart");
    drop(w);
    transfer(copy.path(), directory.path());
    let w = at(directory.path());
    assert!(write(&w, "other").await >= late);
    assert_eq!(mark(&w, early).await, of_early);
    assert_ne!(mark(&w, late).await, of_late);
    assert_eq!(mark(&w, 0).await, 0, "nothing lies before the beginning");
}
