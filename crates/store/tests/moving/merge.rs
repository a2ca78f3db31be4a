//! Imports into a store with content: its records stay, its removals hold, and events change no group.

use std::sync::Arc;

use nostr_extensions::{EventMeta, GroupStatus, Restored, Role, admit::NEVER, gate::Touches};
use nostr_protocol::{Kind, testing::keypair};
use nostr_store::{
    Saved,
    memory::Memory,
    moving::{Imported, Moving, Record, line::text_of},
    suite::{
        moving::{LARGE, dump, pages, restored},
        world::{
            START, Subject, World, claim_of, deletion, event, everyone, for_groups, group, id_of, key, key_package,
            message, new, roster, vanish, wrap,
        },
    },
};

use super::stores::{SORTS, TestStore};

/// A store with a world around it.
struct Side {
    store: Arc<dyn Moving>,
    world: World,
    _place: Option<TestStore>,
}

impl Side {
    fn of(store: Arc<dyn Moving>, place: Option<TestStore>) -> Self {
        let world = World::new(Subject { store: Arc::clone(&store) as _, keep: Box::new(()) });
        Self { store, world, _place: place }
    }

    /// Imports everything of `from`, and gives the outcomes of the records of this sort.
    async fn take(&self, from: &Self, sort: &str) -> Vec<Imported> {
        let mut outcomes = Vec::new();
        for page in pages(&*from.store, LARGE, START).await {
            let of_sort: Vec<bool> = page.iter().map(|record| record.sort() == sort).collect();
            let imported = self.store.import(page.iter().map(restored).collect(), START).await.expect("an import");
            outcomes.extend(imported.into_iter().zip(of_sort).filter(|(_, is)| *is).map(|(outcome, _)| outcome));
        }
        outcomes
    }
}

/// Runs the test with a store of each sort, and a second store that it imports from.
async fn sides(test: impl AsyncFn(&Side, &Side)) {
    for &sort in SORTS {
        let Some(place) = TestStore::new(sort) else { continue };
        let to = Side::of(place.open().await, Some(place));
        test(&to, &Side::of(Arc::new(Memory::new()), None)).await;
    }
}

#[tokio::test]
async fn of_two_records_of_a_group_the_one_with_the_higher_seq_stays() {
    sides(async |to, from| {
        for (id, here, there) in [("lower", 3, 5), ("same", 5, 5), ("higher", 7, 5)] {
            new(to.world.publish(&roster(id, here, "bootstrap", &["alice", "bob"]), "admin").await);
            new(from.world.publish(&roster(id, there, "bootstrap", &["carol", "bob"]), "admin").await);
            new(from.world.publish(&roster(id, there + 1, "promote", &["bob"]), "admin").await);
            new(to.world.publish(&roster(id, here + 1, "add", &["dave"]), "admin").await);
        }
        let head = to.store.head();
        let outcomes = to.take(from, "group").await;
        // By the order of ids: higher, lower, same.
        assert_eq!(outcomes, [Imported::Kept, Imported::Replaced, Imported::Kept]);
        let mut members = vec![(key("bob"), Role::Admin), (key("carol"), Role::Member)];
        members.sort_unstable_by_key(|(key, _)| *key);
        assert_eq!(to.world.members("lower").await, Some(members));
        assert_eq!(to.world.members("same").await.map(|it| it.len()), Some(3));
        assert_eq!(to.store.groups_of(&[key("dave")]).await.expect("groups").len(), 2);
        assert_eq!(to.store.groups_of(&[key("carol")]).await.expect("groups"), [group("lower")]);
        assert_eq!(to.take(from, "group").await, [Imported::Kept, Imported::Unchanged, Imported::Kept]);
        if to.store.notifications().is_some() {
            let log = to.store.after(head, 1_000).await.expect("the log");
            let touched = log.entries.iter().filter(|entry| entry.touches == Touches::EveryGroup);
            let places: Vec<u64> = touched.map(|entry| entry.cursor).collect();
            assert_eq!(places.len(), 1, "who follows forgets what it knew of groups, once");
            let rosters = log.entries.iter().filter(|entry| entry.kind == Kind::ROSTER);
            assert!(rosters.map(|entry| entry.cursor).min() > places.first().copied(), "before the events come");
            assert!(to.store.events_at(&places).await.expect("events").is_empty(), "there is no event to it");
            assert!(log.through >= to.store.head());
        }
    })
    .await;
}

#[tokio::test]
async fn what_an_event_touched_moves_with_it() {
    sides(async |to, from| {
        new(from.world.publish(&wrap("bob", "come").tag(&["h", "club"]), "alice").await);
        new(from.world.publish(&wrap("bob", "again").tag(&["h", "club"]), "alice").await);
        to.take(from, "event").await;
        // One that an older export says may have touched any group, and one that made room in another group.
        let two = Touches::groups([group("club"), group("left")]);
        for (n, touches) in [Touches::EveryGroup, two.clone()].into_iter().enumerate() {
            let touches = Some(touches);
            let kept =
                EventMeta { received_at: START, expires_at: NEVER, author_only: false, log_only: false, touches };
            let event = wrap("bob", &format!("{n}")).tag(&["h", "club"]).sign(&keypair("alice"));
            let record = Record::Event(Restored::new(event, kept).expect("a wrap"));
            assert_eq!(to.store.import(vec![record], START).await.expect("an import"), [Imported::New]);
        }
        let told = [None, Some(Touches::Nothing), Some(Touches::EveryGroup), Some(two.clone())];
        let kept = pages(&*to.store, LARGE, START).await.concat().into_iter().filter_map(|record| match record {
            Record::Event(exported) => Some(exported.kept.touches),
            _ => None,
        });
        assert_eq!(kept.collect::<Vec<_>>(), told);
        let texts: Vec<_> = pages(&*to.store, LARGE, START).await.concat().iter().map(text_of).collect();
        assert_eq!(texts.iter().filter(|text| text.contains(r#""touched":["club","left"]"#)).count(), 1);
        let log = to.store.after(0, 100).await.expect("the log");
        let log = log.entries.into_iter().filter(|entry| entry.kind == Kind::GIFT_WRAP);
        let touches: Vec<Touches> = log.map(|entry| entry.touches).collect();
        assert_eq!(touches, [Touches::groups([group("club")]), Touches::Nothing, Touches::EveryGroup, two]);
    })
    .await;
}

#[tokio::test]
async fn events_alone_change_no_group() {
    sides(async |to, from| {
        new(from.world.publish(&roster("grp", 3, "bootstrap", &["alice"]), "admin").await);
        from.world.send(&wrap("bob", "come").tag(&["h", "wrapped"]), "throw-away", "alice").await;
        from.world.send(&message("grp", "hi"), "throw-away", "alice").await;
        let events: Vec<_> = pages(&*from.store, LARGE, START).await.concat();
        let events = events.iter().filter(|record| record.sort() == "event").map(restored);
        let outcomes = to.store.import(events.collect(), START).await.expect("an import");
        assert_eq!(outcomes, [Imported::New; 3]);
        for id in ["grp", "wrapped"] {
            assert_eq!(to.world.group(id).await.status, GroupStatus::Unknown);
        }
        // With the groups imported, the messages belong to them.
        to.take(from, "group").await;
        assert_eq!(to.world.find("{\"kinds\":[445]}", for_groups(&["grp"])).await.len(), 1);
        assert_eq!(dump(&*to.store, LARGE, START).await.len(), dump(&*from.store, LARGE, START).await.len());
    })
    .await;
}

#[tokio::test]
async fn what_was_taken_back_here_stays_away() {
    sides(async |to, from| {
        let note = id_of(&new(from.world.publish(&event(1, "note"), "alice").await));
        let slot = event(30_023, "slot").tag(&["d", "slot"]);
        new(from.world.publish(&slot, "alice").await);
        new(from.world.publish(&key_package("one", "1"), "alice").await);
        new(from.world.publish(&event(1, "by eve"), "eve").await);
        new(from.world.publish(&event(0, "old").at(START - 5), "bob").await);
        new(from.world.publish(&key_package("three", "3"), "bob").await);
        new(from.world.publish(&event(1, "kept"), "bob").await);

        new(to.world.publish(&deletion(&[note]), "alice").await);
        let address = format!("30023:{}:slot", key("alice").to_hex());
        new(to.world.publish(&event(5, "").tag(&["a", &address]), "alice").await);
        for content in ["one", "two"] {
            new(to.world.publish(&key_package(content, content), "alice").await);
        }
        to.store.claim_key_packages(&claim_of("alice", 1), START).await.expect("a claim");
        new(to.world.publish(&vanish(START), "eve").await);
        new(to.world.publish(&event(0, "new"), "bob").await);
        new(to.world.publish(&key_package("other", "3"), "bob").await);

        use Imported::{Conflicting, Deleted, New, Superseded};
        let outcomes = to.take(from, "event").await;
        assert_eq!(outcomes, [Deleted, Deleted, Deleted, Deleted, Superseded, Conflicting, New]);
    })
    .await;
}

#[tokio::test]
async fn what_was_taken_back_there_goes_here_too() {
    sides(async |to, from| {
        let mut gone = Vec::new();
        for side in [to, from] {
            gone.clear();
            gone.push(id_of(&new(side.world.publish(&event(1, "note"), "alice").await)));
            gone.push(id_of(&new(side.world.publish(&event(30_023, "").tag(&["d", "slot"]), "alice").await)));
            gone.push(id_of(&new(side.world.publish(&key_package("one", "1"), "alice").await)));
            new(side.world.publish(&key_package("two", "2"), "alice").await);
            gone.push(id_of(&new(side.world.publish(&event(1, "by eve"), "eve").await)));
            gone.push(id_of(&new(side.world.publish(&key_package("by eve", "5"), "eve").await)));
            gone.push(side.world.send(&wrap("eve", "to eve"), "throw-away", "bob").await);
            gone.push(id_of(&new(side.world.publish(&event(0, "old").at(START - 5), "bob").await)));
        }
        new(from.world.publish(&deletion(&gone[..1]), "alice").await);
        let address = format!("30023:{}:slot", key("alice").to_hex());
        new(from.world.publish(&event(5, "").tag(&["a", &address]), "alice").await);
        from.store.claim_key_packages(&claim_of("alice", 1), START).await.expect("a claim");
        new(from.world.publish(&vanish(START), "eve").await);
        new(from.world.publish(&event(0, "new"), "bob").await);
        to.take(from, "event").await;
        for (n, id) in gone.iter().enumerate() {
            assert!(!to.world.holds(*id).await, "{n}");
        }
        let claimed = to.store.claim_key_packages(&claim_of("alice", 2), START).await.expect("a claim");
        assert_eq!(claimed.given.len(), 1, "the last one left");
        assert!(to.store.claim_key_packages(&claim_of("eve", 2), START).await.expect("a claim").given.is_empty());
        assert_eq!(to.world.find("{\"kinds\":[0]}", everyone()).await.len(), 1);
        assert!(matches!(to.world.publish(&key_package("one", "4"), "alice").await, Saved::Deleted));
    })
    .await;
}

#[tokio::test]
async fn what_has_expired_on_the_way_stays_behind() {
    sides(async |to, _| {
        let kept = |expires_at| EventMeta {
            received_at: START - 100,
            expires_at,
            author_only: false,
            log_only: false,
            touches: None,
        };
        let note = |n: u64| event(1, &format!("{n}")).sign(&keypair("alice"));
        let restored = |n, expires_at| Record::Event(Restored::new(note(n), kept(expires_at)).expect("a note"));
        let records = vec![restored(1, START - 1), restored(2, START), restored(3, START + 1), restored(4, NEVER)];
        let outcomes = to.store.import(records, START).await.expect("an import");
        assert_eq!(outcomes, [Imported::Expired, Imported::Expired, Imported::New, Imported::New]);
        assert_eq!(to.world.find_at(START + 1, "{}", everyone()).await.len(), 1);
        assert_eq!(to.world.sweep(START + 1).await, 1);
    })
    .await;
}

#[test]
fn what_is_never_stored_is_never_restored() {
    let kept = EventMeta { received_at: 1, expires_at: NEVER, author_only: false, log_only: false, touches: None };
    for kind in [20_001, 22_242, 21_059, 13, 444, 448] {
        assert!(Restored::new(event(kind, "").sign(&keypair("alice")), kept.clone()).is_err(), "{kind}");
    }
}
