//! Data beyond one commit or one document, and data that the service refuses.

use std::collections::HashMap;

use nostr_extensions::{GroupRecord, GroupStatus, ManagedGroup, Role, Source, mls_gateway::group::Invited};
use nostr_protocol::PublicKey;
use nostr_store::{PageBounds, suite::world::WIDE};
use nostr_store::{
    Saved, Store, StoreError,
    firestore::{Firestore, Options},
    moving::{Moving as _, Record},
    suite::world::{START, event, everyone, filter, group, id_of, key, message, new, roster, vanish, wrap},
};

use super::{Database, world};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_may_be_larger_than_a_commit() {
    let Some(database) = Database::new() else { return };
    let store = database.open().await;
    let world = world(&store);
    let mut batch = Vec::new();
    for n in 0..1_200 {
        batch.push(world.admitted(&event(1, &n.to_string()).at(START - n), "alice").await);
    }
    for n in 0..40 {
        let long = format!("{n} {}", "x".repeat(240_000));
        batch.push(world.admitted(&event(1, &long).at(START - 2_000 - n), "alice").await);
    }
    let saved = world.save(batch).await;
    let cursors: Vec<u64> = saved.into_iter().map(|it| new(it).cursor()).collect();
    assert!(cursors.len() == 1_240 && cursors.is_sorted_by(|a, b| a < b));
    let log = store.after(0, 10_000).await.expect("the log");
    assert_eq!(log.entries.iter().map(|entry| entry.cursor).collect::<Vec<_>>(), cursors);
    let query = nostr_extensions::Query { filter: filter("{}"), scope: everyone() };
    let bounds = PageBounds { events_max: 256, bytes_max: 256 << 10, ..WIDE };
    assert_eq!(world.pages(&query, bounds, START).await.len(), 1_240);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_service_does_not_take_harms_no_other() {
    let Some(database) = Database::new() else { return };
    let store = database.open().await;
    let mut world = world(&store);
    world.policy.event_bytes_max = 2 << 20;
    let mut batch = Vec::new();
    for n in 0..9 {
        let content = if n == 5 { "x".repeat(1_100_000) } else { n.to_string() };
        batch.push(world.admitted(&event(1, &content), "alice").await);
    }
    let saved = store.save(batch).await;
    for (n, saved) in saved.iter().enumerate() {
        match saved {
            Ok(Saved::New(_)) if n != 5 => {}
            Err(StoreError::Event(_)) if n == 5 => {}
            other => panic!("{n}: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_may_have_thousands_of_members() {
    let Some(database) = Database::new() else { return };
    let [a, b] = database.open_all().await;
    let (here, there) = (world(&a), world(&b));
    let names: Vec<String> = (0..5_000).map(|n| format!("member {n}")).collect();
    let part = |from: usize, to: usize| names[from..to].iter().map(String::as_str).collect::<Vec<_>>();
    new(here.publish(&roster("grp", 1, "bootstrap", &part(0, 2_000)), "admin").await);
    new(there.publish(&roster("grp", 2, "add", &part(2_000, 4_000)), "admin").await);
    new(here.publish(&roster("grp", 3, "add", &part(4_000, 5_000)), "admin").await);
    new(there.publish(&roster("grp", 4, "promote", &[&names[4_321]]), "admin").await);
    let members = there.members("grp").await.expect("a group");
    assert_eq!(members.len(), 5_000);
    assert!(members.iter().all(|(of, role)| (*role == Role::Admin) == (*of == key(&names[4_321]))));
    for n in [0, 1_999, 2_500, 4_999] {
        assert_eq!(b.groups_of(&[key(&names[n])]).await.expect("groups"), [group("grp")]);
    }
    here.send(&message("grp", "hello"), "throw-away", &names[3_333]).await;
    let left = here.admitted(&message("grp", "too late"), &names[4_999]).await;
    new(here.publish(&roster("grp", 5, "replace", &part(1_000, 3_000)), "admin").await);
    assert_eq!(there.members("grp").await.map(|members| members.len()), Some(2_000));
    assert!(matches!(there.save(vec![left]).await[..], [Saved::Refused(_)]));
    assert!(b.groups_of(&[key(&names[4_999]), key(&names[0])]).await.expect("groups").is_empty());
    assert_eq!(b.groups_of(&[key(&names[2_999])]).await.expect("groups"), [group("grp")]);
    // The group becomes small again.
    new(there.publish(&roster("grp", 6, "replace", &part(0, 3)), "admin").await);
    let (state, _) = a.group(&group("grp")).await.expect("a state");
    let GroupStatus::Managed(view) = state.status else { panic!("not managed") };
    assert_eq!((view.members.len(), view.record.seq), (3, 6));
    assert!(a.groups_of(&[key(&names[2_999])]).await.expect("groups").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_vanishes_takes_all_along_some_at_a_time() {
    let Some(database) = Database::new() else { return };
    let [a, b] = database.open_all().await;
    let (here, there) = (world(&a), world(&b));
    let mut batch = Vec::new();
    for n in 0..700 {
        batch.push(here.admitted(&event(1, &n.to_string()), "alice").await);
        if n % 7 == 0 {
            batch.push(here.admitted(&wrap("alice", &n.to_string()), "bob").await);
        }
    }
    here.save(batch).await;
    let id = id_of(&new(here.publish(&event(1, "one more"), "alice").await));
    new(there.publish(&vanish(START), "alice").await);
    // A follower learns it from the log and hides the rest. A store that is opened now does too.
    let through = a.head();
    a.after(through, 10).await.expect("the log");
    let late = world_of_a_new_process(&database).await;
    for world in [&here, &there, &late] {
        assert!(!world.holds(id).await);
        assert_eq!(world.find("{}", everyone()).await.len(), 1);
    }
    assert_eq!(a.sweep(START, 100).await.expect("a sweep").removed, 100);
    assert_eq!(here.find("{}", everyone()).await.len(), 1);
    here.sweep(START).await;
    assert_eq!(a.stats().await.expect("stats").events, 1, "the request itself");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_may_vanish_from_more_groups_than_a_commit_takes() {
    const GROUPS: u64 = 280;
    let Some(database) = Database::new() else { return };
    // The groups come in by small commits, which the emulator answers in time on a busy machine too.
    let by_little = Options { batch_size: 50, ..database.0.clone() };
    let by_little = Firestore::open(by_little).await.expect("the database opens");
    let store = database.open().await;
    let world = world(&store);
    let others = (0..199).map(|n| key(&format!("member {n}"))).chain([key("alice")]);
    let members: HashMap<PublicKey, Role> = others.map(|member| (member, Role::Member)).collect();
    let record = GroupRecord::new(Source::Roster, 1, START, None);
    let view = ManagedGroup { record, members };
    let group = |n: u64| Record::Group {
        id: group(&format!("group-{n}")),
        view: view.clone(),
        invited: [(key("alice"), Invited::of_rank(START, None))].into(),
    };
    for from in (0..GROUPS).step_by(20) {
        let some = || (from..GROUPS.min(from + 20)).map(group).collect();
        in_the_end(async || by_little.import(some(), START).await).await;
    }
    let groups = async || store.groups_of(&[key("alice")]).await;
    assert_eq!(in_the_end(groups).await.len() as u64, GROUPS);
    // Alice asks again where the emulator is late, as a client does. What an earlier try has done stays done.
    in_the_end(async || {
        let request = world.admitted(&vanish(START), "alice").await;
        match store.save(vec![request]).await.remove(0)? {
            Saved::New(_) | Saved::Duplicate => Ok(()),
            other => panic!("not stored: {other:?}"),
        }
    })
    .await;
    assert!(in_the_end(groups).await.is_empty());
    assert_eq!(world.members("group-7").await.map(|members| members.len()), Some(199));
}

/// The answer of a call that is made again while the emulator does not answer in time.
async fn in_the_end<T>(call: impl AsyncFn() -> Result<T, StoreError>) -> T {
    const TRIES_MAX: usize = 12;
    let mut tries = 0;
    loop {
        tries += 1;
        match call().await {
            Ok(answer) => return answer,
            Err(StoreError::Unavailable(why)) if tries < TRIES_MAX => println!("try {tries}: {why}"),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Many rosters of one batch, whose memberships are more than one commit takes, are divided.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rosters_are_divided_with_their_memberships() {
    let Some(database) = Database::new() else { return };
    let store = database.open().await;
    let world = world(&store);
    let names = ["alice", "bob", "carol", "dave", "erin"];
    let mut batch = Vec::new();
    for n in 0..120 {
        batch.push(world.admitted(&roster(&format!("group{n}"), 1, "bootstrap", &names), "admin").await);
    }
    let saved = world.save(batch).await;
    assert!(saved.iter().all(|it| matches!(it, Saved::New(_))), "{saved:?}");
    assert_eq!(store.groups_of(&[key("erin")]).await.expect("groups").len(), 120);
}

async fn world_of_a_new_process(database: &Database) -> nostr_store::suite::world::World {
    world(&database.open().await)
}
