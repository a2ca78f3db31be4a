//! Rows that are damaged for good: a repair with loss ends for each of them, a sweep and a query go past a mark, and no
//! damaged event is given out.

use std::{collections::BTreeMap, fs, os::unix::fs::MetadataExt as _, path::Path, sync::Arc};

use nostr_extensions::Query;
use nostr_protocol::EventId;
use nostr_store::{
    Cursor, PageBounds, Part,
    embedded::{
        Options,
        tools::{DATA_FILE, Depth, compact, repair},
    },
    suite::world::{START, Subject, World, event, everyone, filter, id_of, new},
};

use super::{WAYS, copied, faults, filled, flip, held, meant};

/// Tables whose rows nothing else implies, as far as the store of the test has rows there.
const BASE: [&str; 11] = [
    "claimed",
    "events",
    "groups",
    "invited",
    "key-packages",
    "members",
    "meta",
    "removed",
    "tombstones",
    "unlisted",
    "vanished",
];
/// Rows of a table that are damaged, one by one.
const EACH: usize = 4;
/// Content of an event that newer ones of its address supersede.
const SUPERSEDED: &str = "an older profile";

fn world(directory: &Path) -> World {
    World::new(Subject { store: Arc::new(WAYS[2](directory)), keep: Box::new(()) })
}

/// Stores events that are removed and whose rows wait for a sweep. Returns the ids of the first two.
async fn leave_marks(directory: &Path) -> [EventId; 2] {
    let w = world(directory);
    let mut ids = Vec::new();
    for (at, content) in [SUPERSEDED, SUPERSEDED, "the newest profile"].iter().enumerate() {
        let profile = event(0, content).at(START + at as u64);
        ids.push(id_of(&new(w.publish_at(START + 9, &profile, "dave").await)));
    }
    [ids[0], ids[1]]
}

/// The place of the last byte of a row in a file without free pages, if the row lies in one piece.
fn place(content: &[u8], key: &[u8], value: &[u8]) -> Option<u64> {
    let row = [key, value].concat();
    content.windows(row.len()).position(|it| it == row).map(|at| (at + row.len() - 1) as u64)
}

/// Damages the row of `table` that comes first.
fn damage_first(directory: &Path, table: &str) {
    let path = directory.join(DATA_FILE);
    let rows = meant(&path);
    let (_, key, value) = rows.iter().find(|(name, ..)| name == table).expect("a row");
    flip(&path, place(&fs::read(&path).expect("bytes"), key, value).expect("a place"), 1);
}

#[tokio::test]
async fn a_repair_with_loss_ends_for_each_lost_row() {
    let (directory, _) = filled(WAYS[1]).await;
    leave_marks(directory.path()).await;
    compact(directory.path(), Options::default()).expect("it is compacted");
    let content = fs::read(directory.path().join(DATA_FILE)).expect("bytes");
    let mut tried = BTreeMap::<String, usize>::new();
    for (table, key, value) in meant(&directory.path().join(DATA_FILE)) {
        if !BASE.contains(&&table[..]) || tried.get(&table).is_some_and(|count| *count >= EACH) {
            continue;
        }
        let Some(place) = place(&content, &key, &value) else { continue };
        let (copy, path) = copied(directory.path());
        flip(&path, place, 1);
        let (rebuilt, kept) =
            repair(copy.path(), true).unwrap_or_else(|error| panic!("table {table}, row {key:?}: {error}"));
        assert!(kept.is_some(), "table {table}: {:?}", rebuilt.lost);
        assert_eq!(faults(&path, Depth::Signatures), [""; 0], "table {table}: {:?}", rebuilt.lost);
        let shown = held(copy.path()).await;
        assert!(!shown.iter().any(|line| line.contains(SUPERSEDED)), "table {table}: a superseded event is back");
        *tried.entry(table).or_default() += 1;
    }
    assert_eq!(tried.keys().collect::<Vec<_>>(), BASE.iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_damaged_mark_hides_its_event_and_stops_no_sweep() {
    let directory = tempfile::tempdir().expect("a directory");
    let ids = leave_marks(directory.path()).await;
    compact(directory.path(), Options::default()).expect("it is compacted");
    damage_first(directory.path(), "removed");
    let w = world(directory.path());
    let brief = event(1, "brief").tag(&["expiration", &(START + 10).to_string()]);
    new(w.publish(&brief, "erin").await);
    let shown = w.find_at(START + 9, "{}", everyone()).await;
    assert!(shown.len() == 2 && !shown.contains(&ids[0]) && !shown.contains(&ids[1]), "{shown:?}");
    // The whole mark's event and the one that expired go.
    w.sweep(START + 20).await;
    drop(w);
    let rows = meant(&directory.path().join(DATA_FILE));
    let count = |table: &str| rows.iter().filter(|(name, ..)| name == table).count();
    assert_eq!((count("removed"), count("events")), (1, 2), "the damaged mark, its event and the newest profile");
}

/// An event whose bytes changed on the disk is an error and no answer, by its id, by a range and from the log.
#[tokio::test]
async fn a_damaged_event_is_not_given_out() {
    let directory = tempfile::tempdir().expect("a directory");
    let id = {
        let w = world(directory.path());
        id_of(&new(w.publish(&event(1, "a note"), "alice").await))
    };
    compact(directory.path(), Options::default()).expect("it is compacted");
    damage_first(directory.path(), "events");
    let w = world(directory.path());
    let bounds = PageBounds { part: Part::WHOLE, events_max: 10, bytes_max: 1 << 20, entries_max: 100 };
    for by in [format!(r#"{{"ids":["{}"]}}"#, id.to_hex()), "{}".to_owned()] {
        let query = Query { filter: filter(&by), scope: everyone() };
        let answer = w.store.scan(&query, None, Cursor::MAX, bounds, START).await;
        assert!(answer.is_err(), "{by}: {answer:?}");
    }
    let answer = w.store.after(0, 10).await;
    assert!(answer.is_err(), "{answer:?}");
    assert!(w.store.events_at(&[1]).await.is_err());
}

/// Tools that root runs leave the files to the user of the relay.
#[tokio::test]
async fn new_files_belong_to_the_owner_of_the_store() {
    const OWNER: u32 = 61_234;
    let (directory, _) = filled(WAYS[0]).await;
    let give = |path: &Path| std::os::unix::fs::chown(path, Some(OWNER), Some(OWNER));
    let path = directory.path().join(DATA_FILE);
    if give(&path).is_err() {
        println!("only root can give files away; nothing is checked");
        return;
    }
    let owners = |directory: &Path| {
        let owner = |name: &str| fs::metadata(directory.join(name)).expect("a file").uid();
        (owner(DATA_FILE), owner("rnostr.lock"))
    };
    compact(directory.path(), Options::default()).expect("it is compacted");
    assert_eq!(owners(directory.path()), (OWNER, OWNER));
    repair(directory.path(), true).expect("it is repaired");
    assert_eq!(owners(directory.path()), (OWNER, OWNER));
    let to = tempfile::tempdir().expect("a directory");
    give(to.path()).expect("root runs this");
    super::restore(&path, None, to.path(), Options::default(), &mut |_| {}).expect("it is restored");
    assert_eq!(owners(to.path()), (OWNER, OWNER));
}
