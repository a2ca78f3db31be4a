//! The operator's deletions by a filter, over every store.

use std::sync::Arc;

use nostr_extensions::{GroupStatus, gate::Touches};
use nostr_protocol::testing::EventBuilder;
use nostr_store::{
    Saved, Store,
    moving::{Exported, Matching, Moving, delete, matching},
    suite::world::{
        START, Subject, World, capability, claim_of, event, filter, group, key, key_package, message, roster, wrap,
    },
};

use super::stores::{SORTS, TestStore};

async fn published(world: &World, event: &EventBuilder, by: &str) -> String {
    let admitted = world.admitted(event, by).await;
    let id = admitted.event().id().to_hex();
    assert!(matches!(world.save(vec![admitted]).await[..], [Saved::New(_)]), "{event:?}");
    id
}

/// The ids of all events of a store.
async fn ids(store: &dyn Moving) -> Vec<String> {
    let mut ids = Vec::new();
    let each = |found: &Exported| ids.push(found.event.id().to_hex());
    matching(store, &filter("{}"), store.head(), START, each, |_| ()).await.expect("a walk");
    ids.sort();
    ids
}

async fn deleted(store: &dyn Moving, json: &str) -> Matching {
    delete(store, &filter(json), store.head(), START, |_| ()).await.expect("it deletes")
}

/// Events of every sort go by the operator's word, private ones too. The others stay, and groups keep their members.
#[tokio::test]
async fn what_fits_goes_and_all_else_stays() {
    for sort in SORTS {
        let Some(place) = TestStore::new(*sort) else { continue };
        let store = place.open().await;
        let world = World::new(Subject { store: Arc::clone(&store) as Arc<dyn Store>, keep: Box::new(()) });
        let h = capability("unlisted");
        let notes: Vec<EventBuilder> = (0..700).map(|n| event(1, &format!("note {n}")).tag(&["t", "bulk"])).collect();
        let mut gone = Vec::new();
        for some in notes.chunks(100) {
            let mut batch = Vec::new();
            for note in some {
                batch.push(world.admitted(note, "alice").await);
            }
            gone.extend(batch.iter().map(|admitted| admitted.event().id().to_hex()));
            world.save(batch).await;
        }
        let kept = [
            published(&world, &event(1, "by bob").tag(&["t", "bulk"]), "bob").await,
            published(&world, &roster("grp", 1, "bootstrap", &["alice", "bob"]), "admin").await,
            published(&world, &key_package("one", "1"), "bob").await,
        ];
        let others = [
            published(&world, &message(&h, "unlisted").at(START - 1), "throw-away").await,
            published(&world, &wrap("bob", "to bob").at(START - 1), "throw-away").await,
            published(&world, &key_package("two", "2").at(START - 1), "alice").await,
            published(&world, &event(30_023, "long").tag(&["d", "a"]).at(START - 1), "alice").await,
            published(&world, &event(5, "").tag(&["e", &"ab".repeat(32)]).at(START - 1), "alice").await,
        ];

        let bulk = format!(r##"{{"authors":["{}"],"#t":["bulk"]}}"##, key("alice").to_hex());
        let matching = deleted(&*store, &bulk).await;
        assert_eq!((matching.fit, matching.removed), (700, 700), "{sort:?}");
        let mut left: Vec<String> = kept.iter().chain(&others).cloned().collect();
        left.sort();
        assert_eq!(ids(&*store).await, left, "{sort:?}");
        assert!(!gone.is_empty());
        assert_eq!(world.members("grp").await.map(|members| members.len()), Some(2), "{sort:?}");

        let matching = deleted(&*store, &format!(r#"{{"until":{}}}"#, START - 1)).await;
        assert_eq!((matching.fit, matching.removed), (5, 5), "{sort:?}");
        let mut left = kept.to_vec();
        left.sort();
        assert_eq!(ids(&*store).await, left, "{sort:?}");
        // The directory names the deleted KeyPackage no more, and the other one still.
        for (owner, given) in [("alice", 0), ("bob", 1)] {
            let claimed = store.claim_key_packages(&claim_of(owner, 5), START).await.expect("a claim");
            assert_eq!(claimed.given.len(), given, "{sort:?}: {owner}");
        }
        assert!(matches!(world.group(&h).await.status, GroupStatus::Unlisted), "{sort:?}");
        assert_eq!(deleted(&*store, &bulk).await.fit, 0, "{sort:?}: it is done");
    }
}

/// A deleted event does not come back if its author could have deleted it.
#[tokio::test]
async fn what_was_deleted_does_not_come_back() {
    for sort in SORTS {
        let Some(place) = TestStore::new(*sort) else { continue };
        let store = place.open().await;
        let world = World::new(Subject { store: Arc::clone(&store) as Arc<dyn Store>, keep: Box::new(()) });
        let (note, wrapped) = (event(1, "a note"), wrap("bob", "to bob"));
        let id = published(&world, &note, "alice").await;
        published(&world, &wrapped, "throw-away").await;
        assert_eq!(deleted(&*store, &format!(r#"{{"ids":["{id}"]}}"#)).await.removed, 1, "{sort:?}");
        assert_eq!(deleted(&*store, r#"{"kinds":[1059]}"#).await.removed, 1, "{sort:?}");
        for (event, by) in [(&note, "alice"), (&wrapped, "throw-away")] {
            let admitted = world.admitted(event, by).await;
            assert!(matches!(world.save(vec![admitted]).await[..], [Saved::Deleted]), "{sort:?}: {event:?}");
        }
        assert_eq!(ids(&*store).await, Vec::<String>::new(), "{sort:?}");
    }
}

/// A follower of a shared store's log learns of the groups that a removed roster had changed.
#[tokio::test]
async fn a_follower_learns_of_the_groups_that_a_removed_event_touched() {
    for sort in SORTS {
        let Some(place) = TestStore::new(*sort) else { continue };
        let store = place.open().await;
        if store.notifications().is_none() {
            // Nobody follows the log of a store of one process.
            continue;
        }
        let world = World::new(Subject { store: Arc::clone(&store) as Arc<dyn Store>, keep: Box::new(()) });
        published(&world, &roster("grp", 1, "bootstrap", &["alice"]), "admin").await;
        let before = store.head();
        assert_eq!(deleted(&*store, r#"{"kinds":[450]}"#).await.removed, 1, "{sort:?}");
        let entries = store.after(before, 100).await.expect("the log").entries;
        let names = |touches: &Touches| match touches {
            Touches::Nothing => false,
            Touches::Groups(groups) => groups.contains(&group("grp")),
            Touches::EveryGroup => true,
        };
        assert!(entries.iter().any(|entry| names(&entry.touches)), "{sort:?}: {entries:?}");
        assert_eq!(world.members("grp").await.map(|members| members.len()), Some(1), "{sort:?}");
    }
}
