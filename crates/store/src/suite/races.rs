//! Races: several handles of one store, like those of several processes or connections, all at once.

use std::{
    any::Any,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use nostr_extensions::{
    Admitted,
    mls_gateway::{group::Refusal, mls::ContentType},
};
use nostr_protocol::{EventId, Kind, testing::keypair};

use super::{
    order::private_message,
    world::{
        START, Subject, World, claim_of, event, everyone, given, id_of, key, key_package, message, new, roster, wrap,
    },
};
use crate::{
    Cursor, LogEntry, RecordName, Saved, Store,
    moving::{Moving, Record},
};

/// Handles that each race is given.
pub const HANDLES: usize = 5;
/// Longest wait for the follower to see everything, and for the first notification.
const FOLLOW_SECS_MAX: Duration = Duration::from_secs(60);
/// Longest wait for one notification, after which the follower reads the log anyway.
const NOTIFIED_MS_MAX: Duration = Duration::from_millis(500);

/// [`HANDLES`] handles of one empty store.
pub struct Handles {
    /// Stores that share their content. A store of one process stands here several times.
    pub stores: Vec<Arc<dyn Moving>>,
    /// The database, for instance, which lives as long as the handles.
    pub keep: Box<dyn Any + Send + Sync>,
}

impl Handles {
    fn store(&self, n: usize) -> Arc<dyn Moving> {
        Arc::clone(&self.stores[n])
    }

    fn world(&self, n: usize) -> World {
        World::new(Subject { store: self.store(n), keep: Box::new(()) })
    }
}

/// The log from its start, in pages so small that they end everywhere.
async fn whole_log(store: &dyn Store, page: usize) -> Vec<LogEntry> {
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

pub async fn of_forty_writers_of_one_seq_one_wins(handles: &Handles) {
    let worlds = [0, 1, 2, 3].map(|n| handles.world(n));
    worlds[0].publish(&roster("grp", 1, "bootstrap", &["alice"]), "admin").await;
    for seq in 2..12 {
        let mut racers = Vec::new();
        for n in 0..40 {
            let change = roster("grp", seq, "add", &[&format!("racer {seq} {n}")]);
            racers.push((handles.store(n % 4), worlds[n % 4].admitted(&change, "admin").await));
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

pub async fn of_forty_commits_of_one_epoch_one_counts(handles: &Handles) {
    let worlds = [0, 1, 2, 3].map(|n| handles.world(n));
    let founding = roster("grp", 1, "bootstrap", &["alice"]).tag(&["commit_ordering", "strict"]);
    worlds[0].publish(&founding, "admin").await;
    for epoch in 5..10 {
        let mut racers = Vec::new();
        for n in 0..40 {
            let commit = private_message("grp", epoch, ContentType::Commit, &format!("racer {n}"));
            racers.push((handles.store(n % 4), worlds[n % 4].admitted(&commit, "alice").await));
        }
        let racing = racers.into_iter().map(|(store, admitted)| {
            tokio::spawn(async move { store.save(vec![admitted]).await.remove(0).expect("a store that works") })
        });
        let saved: Vec<Saved> = join_all(racing).await.into_iter().map(|it| it.expect("no panic")).collect();
        let winners: Vec<EventId> = saved.iter().filter_map(|it| it.new_event().map(id_of)).collect();
        let [winner] = winners[..] else { panic!("{saved:?}") };
        let refusal = Refusal::EpochHasCommit { epoch, commit: winner };
        let losers = saved.iter().filter(|it| matches!(it, Saved::Refused(it) if *it == refusal)).count();
        assert_eq!(losers, 39, "{saved:?}");
    }
}

pub async fn of_forty_claimants_each_package_goes_to_one(handles: &Handles) {
    let owner = handles.world(0);
    let mut ids = Vec::new();
    for n in 0..5 {
        let package = key_package(&format!("package {n}"), &format!("ref {n}"));
        ids.push(id_of(&new(owner.publish(&package, "alice").await)));
    }
    let claiming = (0..40).map(|n| {
        let store = handles.store(n % 4);
        tokio::spawn(async move { store.claim_key_packages(&claim_of("alice", 1), START).await.expect("a claim") })
    });
    let given: Vec<EventId> =
        join_all(claiming).await.iter().flat_map(|it| given(it.as_ref().expect("no panic"))).collect();
    assert_eq!(given.len(), 40, "the last one left is always given");
    for id in &ids[..4] {
        assert_eq!(given.iter().filter(|it| *it == id).count(), 1, "used up by one claim");
        assert!(!handles.stores[3].holds(id, START).await.expect("an answer"));
    }
    assert_eq!(given.iter().filter(|it| **it == ids[4]).count(), 36);
    assert!(handles.stores[2].holds(&ids[4], START).await.expect("an answer"));
}

pub async fn of_forty_racers_one_uses_a_name(handles: &Handles) {
    for name in 0..5 {
        let racing = (0..40).map(|n| {
            let store = handles.store(n % 4);
            tokio::spawn(async move { store.use_once(&[name; 32], START + 60, START).await.expect("an answer") })
        });
        let won = join_all(racing).await.into_iter().filter(|won| *won.as_ref().expect("no panic")).count();
        assert_eq!(won, 1);
    }
}

pub async fn of_forty_writers_of_one_record_one_wins(handles: &Handles) {
    for known in 0..5 {
        let racing = (0..40).map(|n| {
            let store = handles.store(n % 4);
            let put = async move { store.put_record(RecordName::Management, known, vec![n as u8]).await };
            tokio::spawn(async move { put.await.expect("an answer") })
        });
        let won = join_all(racing).await.into_iter().filter(|won| *won.as_ref().expect("no panic")).count();
        assert_eq!(won, 1);
    }
}

pub async fn who_follows_the_log_misses_nothing_and_sees_nothing_twice(handles: &Handles) {
    const WRITERS: usize = 4;
    const BATCHES: usize = 40;
    const EVENTS: usize = 5;
    let follower = handles.store(WRITERS);
    let mut notifications = follower.notifications();
    let notified_before = notifications.as_ref().map(|it| *it.borrow());
    let mut writing = Vec::new();
    for writer in 0..WRITERS {
        let (world, store) = (handles.world(writer), handles.store(writer));
        let mut batches: Vec<Vec<Admitted>> = Vec::new();
        for batch in 0..BATCHES {
            let mut events = Vec::new();
            for n in 0..EVENTS {
                events.push(world.admitted(&event(1, &format!("{writer} {batch} {n}")), "alice").await);
            }
            batches.push(events);
        }
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
        let page = follower.after(through, 13).await.expect("the log");
        assert!(page.entries.iter().all(|entry| entry.cursor > through), "nothing comes twice, or late");
        seen.extend(page.entries.iter().map(|entry| entry.cursor));
        through = page.through;
        if page.entries.is_empty() {
            assert!(began.elapsed() < FOLLOW_SECS_MAX, "{} of all are seen", seen.len());
            match &mut notifications {
                // A notification may be lost; the next read finds the entries.
                Some(notifications) => drop(tokio::time::timeout(NOTIFIED_MS_MAX, notifications.changed()).await),
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }
    if let (Some(notifications), Some(before)) = (&mut notifications, notified_before) {
        let notified = tokio::time::timeout(FOLLOW_SECS_MAX, notifications.wait_for(|count| *count > before)).await;
        assert!(notified.is_ok_and(|open| open.is_ok()), "not all notifications are lost");
    }
    assert!(seen.is_sorted_by(|a, b| a < b));
    let mut written: Vec<(Cursor, EventId)> =
        join_all(writing).await.into_iter().flat_map(|it| it.expect("no panic")).collect();
    written.sort_unstable();
    assert_eq!(written.iter().map(|(cursor, _)| *cursor).collect::<Vec<_>>(), seen);
    let fetched = follower.events_at(&seen).await.expect("the events");
    assert_eq!(fetched.iter().map(|it| (it.cursor(), id_of(it))).collect::<Vec<_>>(), written);
}

pub async fn no_message_of_a_member_lies_behind_its_removal(handles: &Handles) {
    let [founder, bob] = [0, 1].map(|n| handles.world(n));
    founder.publish(&roster("grp", 1, "bootstrap", &["alice", "bob"]), "admin").await;
    let mut admitted = Vec::new();
    for n in 0..150 {
        let said = message("grp", &format!("message {n}")).sign(&keypair(&format!("throw-away {n}")));
        admitted.push(bob.try_admit(said, &["bob"], START).await.expect("bob is a member"));
    }
    let removal = founder.admitted(&roster("grp", 2, "remove", &["bob"]), "admin").await;
    let store = handles.store(1);
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
                started.send(()).expect("the receiver waits");
            }
            if refused == 5 {
                break;
            }
            // A store in memory would save every message before the removal begins.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        (sent, refused)
    });
    start.await.expect("it began");
    let removed = new(handles.stores[2].save(vec![removal]).await.remove(0).expect("it works"));
    let (sent, refused) = talking.await.expect("no panic");
    let log = whole_log(&*handles.stores[0], 9).await;
    let messages: Vec<Cursor> =
        log.iter().filter(|entry| entry.kind == Kind::GROUP_MESSAGE).map(|entry| entry.cursor).collect();
    assert!(messages.iter().all(|cursor| *cursor < removed.cursor()), "{messages:?} and {}", removed.cursor());
    assert_eq!(messages.len() + refused, sent);
    assert_eq!(refused, 5, "some came after the removal");
}

/// A member acts for the first time while strangers invite it elsewhere. If its message is accepted, it stays a member.
pub async fn a_membership_that_was_acted_in_never_gives_way(handles: &Handles) {
    const ROUNDS: usize = 12;
    let mut worlds = [0, 1, 2].map(|n| handles.world(n));
    for world in &mut worlds {
        world.policy.membership_bounds.memberships_max = 1;
    }
    let (mut stayed, mut left) = (0, 0);
    for round in 0..ROUNDS {
        let (bob, talk) = (format!("bob {round}"), format!("talk{round}"));
        new(worlds[0].publish(&wrap(&bob, "come").tag(&["h", &talk]), &format!("friend {round}")).await);
        let said = message(&talk, "hi").sign(&keypair("throw-away"));
        let said = worlds[0].try_admit(said, &[&bob], START).await.expect("bob is a member");
        let mut invitations = Vec::new();
        for n in [1, 2] {
            let invitation = wrap(&bob, "come").tag(&["h", &format!("other{round}-{n}")]);
            let stranger = format!("stranger {round} {n}");
            invitations.push((handles.store(n), worlds[n].admitted(&invitation, &stranger).await));
        }
        let save = |(store, admitted): (Arc<dyn Moving>, Admitted)| {
            tokio::spawn(async move { store.save(vec![admitted]).await.remove(0).expect("a store that works") })
        };
        let mut racing: Vec<_> = invitations.into_iter().map(save).collect();
        racing.insert(round % 3, save((handles.store(0), said)));
        let mut saved: Vec<Saved> = join_all(racing).await.into_iter().map(|it| it.expect("no panic")).collect();
        let is_member = worlds[1].members(&talk).await.expect("a group").iter().any(|(member, _)| *member == key(&bob));
        match saved.remove(round % 3) {
            Saved::New(_) => {
                assert!(is_member, "{saved:?}");
                stayed += 1;
            }
            Saved::Refused(_) => {
                assert!(!is_member, "{saved:?}");
                left += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(stayed + left, ROUNDS);
}

pub async fn a_key_that_vanished_elsewhere_is_hidden_in_every_process(handles: &Handles) {
    let (importing, other) = (handles.store(0), handles.store(1));
    let there = handles.world(1);
    let id = id_of(&new(there.publish(&event(1, "note"), "alice").await));
    let through = other.head();
    importing.import(vec![Record::Vanished { key: key("alice"), at: START }], START).await.expect("an import");
    other.after(through, 10).await.expect("the log");
    assert!(!there.holds(id).await);
    assert!(there.find("{}", everyone()).await.is_empty());
}
