//! Several processes over one database, all at once.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use nostr_extensions::Admitted;
use nostr_protocol::{EventId, Kind, testing::keypair};
use nostr_store::{
    Cursor, LogEntry, Saved, Store,
    firestore::Firestore,
    suite::world::{START, event, id_of, key, key_package, message, new, roster},
};

use super::{Database, world};

/// The log from the start, in pages so small that they end everywhere.
async fn whole_log(store: &Arc<Firestore>, page: usize) -> Vec<LogEntry> {
    let (mut log, mut through) = (Vec::new(), 0);
    loop {
        let part = store.after(through, page).await.expect("the log");
        if part.entries.is_empty() {
            return log;
        }
        through = part.through;
        log.extend(part.entries);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_forty_writers_of_one_seq_one_wins() {
    let Some(database) = Database::new() else { return };
    let stores: [_; 4] = database.open_all().await;
    let worlds = stores.each_ref().map(world);
    worlds[0].publish(&roster("grp", 1, "bootstrap", &["alice"]), "admin").await;
    for seq in 2..12 {
        let mut racers = Vec::new();
        for n in 0..40 {
            let change = roster("grp", seq, "add", &[&format!("racer {seq} {n}")]);
            let admitted = worlds[n % 4].admitted(&change, "admin").await;
            racers.push((Arc::clone(&stores[n % 4]), admitted));
        }
        let racing = racers.into_iter().map(|(store, admitted)| {
            tokio::spawn(async move { store.save(vec![admitted]).await.remove(0).expect("a store that works") })
        });
        let saved: Vec<Saved> = join_all(racing).await.into_iter().map(|it| it.expect("no panic")).collect();
        let winners = saved.iter().filter(|it| matches!(it, Saved::New(_))).count();
        assert_eq!(winners, 1, "{saved:?}");
        let members = worlds[1].members("grp").await.expect("a group").len();
        assert_eq!(members as u64, seq, "alice and one of each race");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_forty_claimants_each_package_goes_to_one() {
    let Some(database) = Database::new() else { return };
    let stores: [_; 4] = database.open_all().await;
    let owner = world(&stores[0]);
    let mut ids = Vec::new();
    for n in 0..5 {
        let package = key_package(&format!("package {n}"), &format!("ref {n}"));
        ids.push(id_of(&new(owner.publish(&package, "alice").await)));
    }
    let claiming = (0..40).map(|n| {
        let store = Arc::clone(&stores[n % 4]);
        tokio::spawn(async move { store.claim_key_packages(&key("alice"), 1, START).await.expect("a claim") })
    });
    let given: Vec<EventId> =
        join_all(claiming).await.iter().flat_map(|it| it.as_ref().expect("no panic").iter().map(id_of)).collect();
    assert_eq!(given.len(), 40, "the last one left is always given");
    for id in &ids[..4] {
        assert_eq!(given.iter().filter(|it| *it == id).count(), 1, "used up by one claim");
        assert!(!stores[3].holds(id).await.expect("an answer"));
    }
    assert_eq!(given.iter().filter(|it| **it == ids[4]).count(), 36);
    assert!(stores[2].holds(&ids[4]).await.expect("an answer"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_follows_the_log_misses_nothing_and_sees_nothing_twice() {
    const WRITERS: usize = 4;
    const BATCHES: usize = 40;
    const EVENTS: usize = 5;
    let Some(database) = Database::new() else { return };
    let stores: [_; WRITERS] = database.open_all().await;
    let follower = database.open().await;
    let mut knocks = follower.notifications().expect("it is shared");
    let mut writing = Vec::new();
    for (writer, store) in stores.iter().enumerate() {
        let world = world(store);
        let mut batches: Vec<Vec<Admitted>> = Vec::new();
        for batch in 0..BATCHES {
            let mut events = Vec::new();
            for n in 0..EVENTS {
                events.push(world.admitted(&event(1, &format!("{writer} {batch} {n}")), "alice").await);
            }
            batches.push(events);
        }
        let store = Arc::clone(store);
        writing.push(tokio::spawn(async move {
            let mut written: Vec<(Cursor, EventId)> = Vec::new();
            for batch in batches {
                let saved = store.save(batch).await.into_iter().map(|it| it.expect("a store that works"));
                written.extend(saved.map(new).map(|it| (it.cursor(), id_of(&it))));
            }
            written
        }));
    }
    let (mut seen, mut through): (Vec<Cursor>, Cursor) = (Vec::new(), 0);
    let began = Instant::now();
    while seen.len() < WRITERS * BATCHES * EVENTS {
        let page = follower.after(through, 23).await.expect("the log");
        assert!(page.entries.iter().all(|entry| entry.cursor > through), "nothing comes twice, or late");
        seen.extend(page.entries.iter().map(|entry| entry.cursor));
        through = page.through;
        if page.entries.is_empty() {
            // A knock comes with what was not there yet; where it is lost, the next look finds it.
            let _ = tokio::time::timeout(Duration::from_millis(500), knocks.changed()).await;
            assert!(began.elapsed() < Duration::from_secs(60), "{} of all are seen", seen.len());
        }
    }
    assert!(seen.is_sorted_by(|a, b| a < b));
    let mut written: Vec<(Cursor, EventId)> =
        join_all(writing).await.into_iter().flat_map(|it| it.expect("no panic")).collect();
    written.sort_unstable();
    assert_eq!(written.iter().map(|(cursor, _)| *cursor).collect::<Vec<_>>(), seen);
    let fetched = follower.events_at(&seen).await.expect("the events");
    assert_eq!(fetched.iter().map(|it| (it.cursor(), id_of(it))).collect::<Vec<_>>(), written);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_of_a_member_lies_behind_its_removal() {
    let Some(database) = Database::new() else { return };
    let stores: [_; 3] = database.open_all().await;
    let worlds = stores.each_ref().map(world);
    worlds[0].publish(&roster("grp", 1, "bootstrap", &["alice", "bob"]), "admin").await;
    let mut admitted = Vec::new();
    for n in 0..150 {
        let said = message("grp", &format!("message {n}")).sign(&keypair(&format!("throw-away {n}")));
        admitted.push(worlds[1].try_admit(said, &["bob"], START).await.expect("bob is a member"));
    }
    let removal = worlds[0].admitted(&roster("grp", 2, "remove", &["bob"]), "admin").await;
    let store = Arc::clone(&stores[1]);
    let (started, start) = tokio::sync::oneshot::channel();
    let talking = tokio::spawn(async move {
        let (mut sent, mut refused) = (0, 0);
        let mut started = Some(started);
        for message in admitted {
            match store.save(vec![message]).await.remove(0).expect("a store that works") {
                Saved::New(_) => {}
                Saved::Refused(_) => refused += 1,
                other => panic!("{other:?}"),
            }
            sent += 1;
            if let Some(started) = started.take_if(|_| sent == 10) {
                started.send(()).expect("somebody waits");
            }
            if refused == 5 {
                break;
            }
        }
        (sent, refused)
    });
    start.await.expect("it began");
    let removed = new(stores[2].save(vec![removal]).await.remove(0).expect("it works"));
    let (sent, refused) = talking.await.expect("no panic");
    let log = whole_log(&stores[0], 9).await;
    let messages: Vec<Cursor> =
        log.iter().filter(|entry| entry.kind == Kind::GROUP_MESSAGE).map(|entry| entry.cursor).collect();
    assert!(messages.iter().all(|cursor| *cursor < removed.cursor()), "{messages:?} and {}", removed.cursor());
    assert_eq!(messages.len() + refused, sent);
    assert_eq!(refused, 5, "some came after the removal");
}
