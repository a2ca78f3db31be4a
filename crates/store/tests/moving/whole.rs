//! Moves from each store into each other.

use std::{collections::BTreeMap, sync::Arc};

use nostr_store::{
    moving::{Imported, Moving, line},
    suite::{
        moving::{LARGE, SMALL, dump, fill, gone_for_good, pages, transfer},
        world::{START, Subject, World},
    },
};

use super::stores::{SORTS, Sort, TestStore};

/// A time at which some events have expired.
const NOW: u64 = START + 60;

fn world(store: &Arc<dyn Moving>) -> World {
    World::new(Subject { store: Arc::clone(store) as _, keep: Box::new(()) })
}

/// A filled store, and its place.
async fn filled(sort: Sort) -> Option<(TestStore, Arc<dyn Moving>)> {
    let place = TestStore::new(sort)?;
    let store = place.open().await;
    fill(&mut world(&store)).await;
    Some((place, store))
}

async fn moved(from: Sort, to: Sort) {
    let (Some((_from, from)), Some(to)) = (filled(from).await, TestStore::new(to)) else { return };
    let before = dump(&*from, LARGE, NOW).await;
    let small = pages(&*from, SMALL, NOW).await;
    assert_eq!(small.concat().iter().map(line::text_of).collect::<Vec<_>>(), before, "pages of any size");
    for sort in ["vanished", "tombstone", "address_tombstone", "claimed", "founded", "unlisted", "group", "event"] {
        let pages = small.iter().filter(|page| page.iter().any(|record| record.sort() == sort)).count();
        assert!(pages > 1, "{sort}: {pages}");
    }
    let store = to.open().await;
    let outcomes = transfer(&*from, &*store, SMALL, NOW).await;
    assert_eq!(outcomes, BTreeMap::from([(Imported::New, before.len())]));
    assert_eq!(dump(&*store, LARGE, NOW).await, before);
    // The content is the same after reopening.
    drop(store);
    let store = to.open().await;
    assert_eq!(dump(&*store, SMALL, NOW).await, before);
    // A second import changes nothing.
    let outcomes = transfer(&*from, &*store, LARGE, NOW).await;
    assert_eq!(outcomes, BTreeMap::from([(Imported::Unchanged, before.len())]));
    assert_eq!(dump(&*store, LARGE, NOW).await, before);
    gone_for_good(&world(&store)).await;
}

macro_rules! pairs {
    ($($name:ident: $from:ident => $to:ident;)*) => {$(
        #[tokio::test]
        async fn $name() {
            moved(Sort::$from, Sort::$to).await;
        }
    )*};
}

pairs! {
    from_memory_to_memory: Memory => Memory;
    from_memory_to_embedded: Memory => Embedded;
    from_memory_to_postgres: Memory => Postgres;
    from_embedded_to_memory: Embedded => Memory;
    from_embedded_to_embedded: Embedded => Embedded;
    from_embedded_to_postgres: Embedded => Postgres;
    from_postgres_to_memory: Postgres => Memory;
    from_postgres_to_embedded: Postgres => Embedded;
    from_postgres_to_postgres: Postgres => Postgres;
}

#[cfg(feature = "firestore-tests")]
pairs! {
    from_memory_to_firestore: Memory => Firestore;
    from_embedded_to_firestore: Embedded => Firestore;
    from_postgres_to_firestore: Postgres => Firestore;
    from_firestore_to_memory: Firestore => Memory;
    from_firestore_to_embedded: Firestore => Embedded;
    from_firestore_to_postgres: Firestore => Postgres;
    from_firestore_to_firestore: Firestore => Firestore;
}

/// Every store exports the same content in the same way.
#[tokio::test]
async fn all_stores_export_alike() {
    let mut dumps = Vec::new();
    for &sort in SORTS {
        let Some((_place, store)) = filled(sort).await else { continue };
        dumps.push((sort, dump(&*store, LARGE, NOW).await));
    }
    for (sort, dump) in &dumps {
        assert_eq!(*dump, dumps[0].1, "{sort:?}");
    }
}
