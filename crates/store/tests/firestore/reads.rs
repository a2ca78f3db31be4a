//! The documents that the service charges for, and the ceiling of those that clients cause.

use nostr_extensions::Query;
use nostr_store::{
    Cursor, Saved, Store as _, StoreError,
    firestore::{Firestore, Options},
    suite::world::{START, Subject, WIDE, World, event, everyone, filter, group, key},
};

use super::Database;

/// Reads of clients end at the ceiling, and tell when to come back; saves, admission and followers go on.
#[tokio::test]
async fn firestore_reads_have_a_ceiling() {
    let Some(database) = Database::new() else { return };
    let options = Options { reads_per_minute_max: 600, ..database.0.clone() };
    let store = std::sync::Arc::new(Firestore::open(options).await.expect("the database opens"));
    let world = World::new(Subject { store: std::sync::Arc::<Firestore>::clone(&store), keep: Box::new(()) });
    let mut batch = Vec::new();
    for n in 0..50 {
        batch.push(world.admitted(&event(1, &n.to_string()), "alice").await);
    }
    world.save(batch).await;
    let query = Query { filter: filter("{}"), scope: everyone() };
    let mut scans = 0;
    let refused = loop {
        let before = store.documents_read().expect("a store that counts");
        match store.scan(&query, None, Cursor::MAX, WIDE, START).await {
            Ok(page) => {
                assert_eq!(page.events.len(), 50);
                assert!(page.cost.documents >= 50, "{:?}", page.cost);
                let counted = store.documents_read().expect("a store that counts") - before;
                assert!(counted >= page.cost.documents, "{counted}, {:?}", page.cost);
            }
            Err(error) => break error,
        }
        scans += 1;
        assert!(scans < 100, "nothing is refused");
    };
    let StoreError::UsedUp(secs) = refused else { panic!("{refused:?}") };
    assert!((1..=120).contains(&secs), "{secs}");
    let known = store.known_groups(&[group("some")]).await;
    assert!(matches!(known, Err(StoreError::UsedUp(_))), "{known:?}");
    let groups = store.groups_of(&[key("alice")]).await;
    assert!(matches!(groups, Err(StoreError::UsedUp(_))), "{groups:?}");
    assert!(matches!(world.publish(&event(1, "later"), "bob").await, Saved::New(_)), "saves go on");
    store.group(&group("some")).await.expect("admission goes on");
    let log = store.after(0, 1_000).await.expect("the follower goes on");
    let cursors: Vec<Cursor> = log.entries.iter().map(|entry| entry.cursor).collect();
    assert_eq!(store.events_at(&cursors).await.expect("live delivery goes on").len(), 51);
}

/// The sizes are counted up to a bound, so that a large store is not counted whole.
#[tokio::test]
async fn the_sizes_are_counted_up_to_a_bound() {
    let Some(database) = Database::new() else { return };
    let options = Options { stats_entries_max: 3, stats_secs: 3_600, ..database.0.clone() };
    let store = std::sync::Arc::new(Firestore::open(options).await.expect("the database opens"));
    let world = World::new(Subject { store: std::sync::Arc::<Firestore>::clone(&store), keep: Box::new(()) });
    for n in 0..5 {
        assert!(matches!(world.publish(&event(1, &n.to_string()), "alice").await, Saved::New(_)));
    }
    let before = store.documents_read().expect("a store that counts");
    assert_eq!(store.stats().await.expect("sizes").events, 3, "at least so many");
    assert_eq!(store.documents_read().expect("a store that counts") - before, 2, "one for each count");
    store.stats().await.expect("sizes");
    assert_eq!(store.documents_read().expect("a store that counts") - before, 2, "the last sizes are told again");
}

/// A group that nobody knows costs a thirtieth of a document, not two.
#[tokio::test]
async fn unknown_groups_share_a_document() {
    let Some(database) = Database::new() else { return };
    let store = database.open().await;
    let ids: Vec<_> = (0..300).map(|n| group(&format!("unknown-{n}"))).collect();
    let before = store.documents_read().expect("a store that counts");
    assert_eq!(store.known_groups(&ids).await.expect("an answer"), []);
    // The stream of notifications may have counted a document meanwhile.
    let read = store.documents_read().expect("a store that counts") - before;
    assert!((10..=15).contains(&read), "{read}");
}
