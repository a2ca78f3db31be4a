//! Events of vanished keys, over several processes: hidden from all at once, and removed some at a time.

use nostr_store::{
    Store as _,
    suite::{
        moving::{LARGE, pages},
        world::{START, event, everyone, id_of, new, vanish, wrap},
    },
};

use super::{Database, world};

#[tokio::test]
async fn a_key_that_vanishes_takes_thousands_along_some_at_a_time() {
    let Some(database) = Database::new() else { return };
    let [a, b] = database.open_all().await;
    let (here, there) = (world(&a), world(&b));
    let mut batch = Vec::new();
    for n in 0..2_100 {
        batch.push(here.admitted(&event(1, &n.to_string()), "alice").await);
        if n % 7 == 0 {
            batch.push(here.admitted(&wrap("alice", &n.to_string()), "bob").await);
        }
    }
    here.save(batch).await;
    let one = id_of(&new(here.publish(&event(1, "one more"), "alice").await));
    let cursors: Vec<u64> = (1..=2_401).collect();
    let through = a.head();
    new(here.publish(&vanish(START), "alice").await);
    assert_eq!(a.stats().await.expect("stats").events, 2_402, "nothing is gone that long");
    // A follower learns it from the log and hides the rest. A store that is opened now does too.
    b.after(through, 10).await.expect("the log");
    let late = database.open().await;
    for (world, store) in [(&here, &a), (&there, &b), (&world(&late), &late)] {
        assert!(!world.holds(one).await);
        assert_eq!(world.find("{}", everyone()).await.len(), 1);
        assert!(store.events_at(&cursors).await.expect("events").is_empty());
        let exported = pages(&**store, LARGE, START).await.concat();
        assert_eq!(exported.iter().filter(|record| record.sort() == "event").count(), 1);
    }
    // One process removes some at a time. The others go on hiding the rest.
    assert_eq!(a.sweep(START, 500).await.expect("a sweep").removed, 500);
    assert_eq!(a.stats().await.expect("stats").events, 1_902);
    while a.sweep(START, 500).await.expect("a sweep").removed > 0 {}
    assert_eq!(a.stats().await.expect("stats").events, 1, "the request itself");
    assert_eq!(database.pending(), "0");
    // It may vanish again.
    new(here.publish(&event(1, "again").at(START + 5), "alice").await);
    new(there.publish(&vanish(START + 6), "alice").await);
    assert_eq!(there.find("{}", everyone()).await.len(), 2);
    assert_eq!(database.pending(), "1");
    while b.sweep(START, 500).await.expect("a sweep").removed > 0 {}
    assert_eq!((database.pending().as_str(), b.stats().await.expect("stats").events), ("0", 2));
}

impl Database {
    /// Number of vanished keys that still have events.
    fn pending(&self) -> String {
        let count = "select count(*) from rnostr.vanished where pending";
        rnostr_test_services::Postgres::shared().psql(&self.0, count).expect("psql")
    }
}

#[tokio::test]
async fn a_late_follower_is_shown_no_event_that_is_gone() {
    let Some(database) = Database::new() else { return };
    let [a, b] = database.open_all().await;
    let here = world(&a);
    let note = new(here.publish(&event(1, "note"), "alice").await);
    new(here.publish(&event(1, "another"), "bob").await);
    new(here.publish(&vanish(START), "alice").await);
    let page = b.after(note.cursor() - 1, 1).await.expect("a page");
    assert_eq!(page.entries.len(), 1);
    assert!(b.events_at(&[note.cursor()]).await.expect("events").is_empty());
}

#[tokio::test]
async fn a_key_that_left_nothing_is_done_with_at_once() {
    let Some(database) = Database::new() else { return };
    let here = world(&database.open().await);
    new(here.publish(&vanish(START), "nobody").await);
    assert_eq!(database.pending(), "0");
    here.send(&wrap("alice", "to her"), "throw-away", "bob").await;
    new(here.publish(&event(1, "his"), "bob").await);
    for name in ["alice", "bob"] {
        new(here.publish(&vanish(START), name).await);
    }
    assert_eq!(database.pending(), "2");
    assert!(matches!(here.publish(&event(1, "again").at(START), "nobody").await, nostr_store::Saved::Deleted));
}
