//! Moves under the bounds of documents and commits: large groups and events, many commits, and the view of other
//! processes.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use nostr_extensions::{EventMeta, GroupRecord, ManagedGroup, Restored, Role, Source, admit::NEVER, gate::Touches};
use nostr_protocol::testing::keypair;
use nostr_store::{
    Saved, Store as _,
    firestore::{Firestore, Options, PREFIX},
    memory::Memory,
    moving::{Imported, Moving, Record},
    suite::{
        moving::{LARGE, SMALL, dump, fill, pages, restored, transfer},
        world::{START, Subject, World, event, everyone, for_groups, group, key, message, new, roster},
    },
};

use super::{Database, documents::call, world};

/// Members of a group, by their numbers.
fn members(numbers: std::ops::Range<usize>) -> HashMap<nostr_protocol::PublicKey, Role> {
    numbers.map(|n| (key(&format!("member {n}")), if n % 2 == 0 { Role::Member } else { Role::Admin })).collect()
}

fn record(id: &str, seq: u64, members: HashMap<nostr_protocol::PublicKey, Role>) -> Record<Restored> {
    let record = GroupRecord { last_epoch: Some(seq), ..GroupRecord::new(Source::Roster, seq, START, None) };
    Record::Group { id: group(id), view: ManagedGroup { record, members }, invited: std::collections::BTreeMap::new() }
}

fn kept(received_at: u64) -> EventMeta {
    EventMeta { received_at, expires_at: NEVER, author_only: false, log_only: false, touches: None }
}

fn note(content: &str, received_at: u64) -> Record<Restored> {
    let event = event(1, content).sign(&keypair("alice"));
    Record::Event(Restored::new(event, kept(received_at)).expect("a note"))
}

/// Names of the shards, which hold the members beyond a head's bound.
fn shards(database: &Database) -> BTreeSet<String> {
    let listed = call(database, "GET", &format!("{PREFIX}_members?pageSize=300&mask.fieldPaths=group"), "");
    let documents = listed["documents"].as_array().into_iter().flatten();
    documents.map(|document| document["name"].as_str().expect("a name").to_owned()).collect()
}

async fn import(store: &Arc<Firestore>, records: Vec<Record<Restored>>) -> Vec<Imported> {
    store.import(records, START).await.expect("an import")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_group_takes_the_place_of_an_older_one_members_and_all() {
    let Some(database) = Database::new() else { return };
    let [store, other] = database.open_all().await;
    let here = world(&store);
    let names: Vec<String> = (0..1_500).map(|n| format!("member {n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    new(here.publish(&roster("grp", 3, "bootstrap", &names), "admin").await);
    let old = shards(&database);
    assert_eq!(old.len(), 2);
    let head = store.head();

    let (all, few) = (members(1_000..11_000), members(1_000..1_003));
    assert_eq!(import(&store, vec![record("grp", 3, few.clone())]).await, [Imported::Kept]);
    assert_eq!(import(&store, vec![record("grp", 4, all.clone())]).await, [Imported::Replaced]);
    let large = shards(&database);
    assert!(large.len() >= 10 && large.is_disjoint(&old), "the old ones are gone");
    let exported = pages(&*other, LARGE, START).await.concat();
    let view =
        exported.iter().find_map(|it| if let Record::Group { view, .. } = it { Some(view.clone()) } else { None });
    assert_eq!(view.expect("a group").members, all);
    assert!(other.groups_of(&[key("member 999")]).await.expect("groups").is_empty());
    for n in [1_000, 10_999] {
        assert_eq!(other.groups_of(&[key(&format!("member {n}"))]).await.expect("groups"), [group("grp")]);
    }
    let log = other.after(head, 10).await.expect("the log");
    assert_eq!(log.entries.iter().map(|entry| entry.touches.clone()).collect::<Vec<_>>(), [Touches::EveryGroup]);

    // The mark of unlisted messages changes no members.
    assert_eq!(import(&store, vec![Record::Unlisted(group("grp"))]).await, [Imported::New]);
    assert_eq!(world(&other).members("grp").await.map(|it| it.len()), Some(10_000));
    assert_eq!(import(&store, vec![record("grp", 5, few.clone())]).await, [Imported::Replaced]);
    assert_eq!(world(&other).members("grp").await.map(|it| it.len()), Some(3));
    assert!(shards(&database).is_empty());
    assert_eq!(import(&store, vec![record("grp", 5, few)]).await, [Imported::Unchanged]);
}

/// Two groups are more than one commit takes, and so are events of the largest size.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_large_goes_out_and_in() {
    let Some([from, to]) = Database::new().zip(Database::new()).map(|(from, to)| [from, to]) else { return };
    let [from, to] = [from.open().await, to.open().await];
    let mut records: Vec<_> = ["one", "two", "three"].iter().map(|id| record(id, 1, members(0..10_000))).collect();
    let long = "x".repeat(900_000);
    records.extend((0..12).map(|n| note(&format!("{n} {long}"), START)));
    let count = records.len();
    assert_eq!(import(&from, records).await, vec![Imported::New; count]);
    let all = pages(&*from, LARGE, START).await;
    let bytes = |page: &[Record<_>]| page.iter().map(|it| nostr_store::moving::line::text_of(it).len()).sum::<usize>();
    assert!(all.iter().all(|page| bytes(page) < LARGE.bytes_max + (2 << 20)), "no page is far larger than it may be");
    assert_eq!(transfer(&*from, &*to, LARGE, START).await.into_iter().collect::<Vec<_>>(), [(Imported::New, count)]);
    assert_eq!(dump(&*to, LARGE, START).await, dump(&*from, LARGE, START).await);
    assert_eq!(to.stats().await.expect("stats").groups, 3);
}

/// An event that no document can hold stops an import with its id. Events before it are stored.
#[tokio::test]
async fn what_the_service_does_not_take_is_named() {
    let Some(database) = Database::new() else { return };
    let store = database.open().await;
    let large = note(&"x".repeat(1_100_000), START);
    let Record::Event(restored) = &large else { unreachable!("it is an event") };
    let id = restored.event().id();
    let error = store.import(vec![note("before", START), large], START).await.expect_err("it is too large");
    assert!(error.to_string().contains(&id.to_hex()), "{error}");
    assert_eq!(world(&store).find("{}", everyone()).await.len(), 1);
}

/// More events of one second than one query gives keep the order of the log, on pages of any size.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_one_second_keep_their_order() {
    let Some(database) = Database::new() else { return };
    let store = database.open().await;
    let before = note("before", START - 1);
    let many = (0..2_600).map(|n| note(&n.to_string(), START));
    let records: Vec<_> = std::iter::once(note("after", START + 1)).chain(many).chain([before]).collect();
    import(&store, records).await;
    // Later events are no part of an export that has begun.
    let up_to = nostr_store::moving::ExportPosition::start(store.head());
    import(&store, vec![note("later", START)]).await;
    for records_max in [500, 999, 2_602] {
        let bounds = nostr_store::moving::ExportBounds { records_max, ..LARGE };
        let (mut contents, mut place) = (Vec::new(), Some(up_to.clone()));
        while let Some(from) = place {
            let page = store.export(&from, bounds, START).await.expect("a page");
            assert!(page.records.len() <= records_max);
            contents.extend(page.records.iter().map(|record| match record {
                Record::Event(archived) => archived.event.view().content().to_owned(),
                _ => panic!("no event"),
            }));
            place = page.next;
        }
        let many = (0..2_600).map(|n| n.to_string());
        let wanted: Vec<_> = std::iter::once("before".to_owned()).chain(many).chain(["after".to_owned()]).collect();
        assert_eq!(contents, wanted, "{records_max}");
    }
}

/// An import succeeds with few writes a commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_comes_in_by_small_commits() {
    let Some(Database(options)) = Database::new() else { return };
    let to = Database(Options { batch_size: 4, ..options });
    let from = Arc::new(Memory::new());
    fill(&mut World::new(Subject { store: Arc::clone(&from) as _, keep: Box::new(()) })).await;
    let store = to.open().await;
    transfer(&*from, &*store, LARGE, START).await;
    assert_eq!(dump(&*store, SMALL, START).await, dump(&*from, LARGE, START).await);
    let log = store.after(0, 1_000).await.expect("the log").entries;
    let mut commits: HashMap<u64, usize> = HashMap::new();
    // The places of one commit are within one microsecond, which has 13 bits of a cursor.
    log.iter().for_each(|entry| *commits.entry(entry.cursor >> 13).or_default() += 1);
    assert!(log.len() > 40 && commits.values().all(|events| *events < 4), "with the log's own document");
    assert!(commits.values().any(|events| *events == 3) && commits.values().any(|events| *events < 3));
}

/// Two imports of the same records at one time have the effect of one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_imports_of_the_same_records_add_up_to_one() {
    let Some(database) = Database::new() else { return };
    let [one, two] = database.open_all().await;
    let from = Arc::new(Memory::new());
    fill(&mut World::new(Subject { store: Arc::clone(&from) as _, keep: Box::new(()) })).await;
    for page in pages(&*from, LARGE, START).await {
        let records: Vec<_> = page.iter().map(restored).collect();
        tokio::join!(import(&one, records.clone()), import(&two, records));
    }
    let sorted = |mut lines: Vec<String>| {
        lines.sort_unstable();
        lines
    };
    let there = dump(&*database.open().await, LARGE, START).await;
    assert_eq!(sorted(there), sorted(dump(&*from, LARGE, START).await));
}

/// An event that an address tombstone removes leaves its owner's directory too.
#[tokio::test]
async fn a_reference_is_free_again_where_its_address_was_deleted() {
    let Some(database) = Database::new() else { return };
    let [store, other] = database.open_all().await;
    let here = world(&store);
    let slot = |content: &str, d: &str| event(30_443, content).tag(&["kpr", "ref"]).tag(&["d", d]);
    new(here.publish(&slot("old", "slot"), "alice").await);
    assert!(matches!(here.publish(&slot("new", "other"), "alice").await, Saved::Refused(_)), "a reference");
    let from = Arc::new(Memory::new());
    let there = World::new(Subject { store: Arc::clone(&from) as _, keep: Box::new(()) });
    let address = format!("30443:{}:slot", key("alice").to_hex());
    new(there.publish(&event(5, "").tag(&["a", &address]), "alice").await);
    let marks = pages(&*from, LARGE, START).await.concat();
    let marks: Vec<_> = marks.iter().filter(|it| it.sort() == "address_tombstone").map(restored).collect();
    assert_eq!(import(&store, marks).await, [Imported::New]);
    new(world(&other).publish(&slot("new", "other"), "alice").await);
}

/// A follower in another process reads imported events in order, and knows their groups at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_processes_meet_what_comes_in() {
    let Some(database) = Database::new() else { return };
    let [store, other] = database.open_all().await;
    let from = Arc::new(Memory::new());
    let there = World::new(Subject { store: Arc::clone(&from) as _, keep: Box::new(()) });
    new(there.publish(&roster("grp", 3, "bootstrap", &["alice"]), "admin").await);
    there.send(&message("grp", "one").tag(&["k", "7"]), "throw-away", "alice").await;
    there.send(&message("grp", "two").tag(&["k", "8"]), "throw-away", "alice").await;
    let begin = other.head();
    let all = pages(&*from, LARGE, START).await.concat();
    import(&store, all.iter().map(restored).collect()).await;

    let log = other.after(begin, 100).await.expect("the log").entries;
    assert_eq!(log.len(), 4, "a mark and three events");
    assert!(log[0].touches == Touches::EveryGroup && log.is_sorted_by(|a, b| a.cursor < b.cursor));
    let cursors: Vec<u64> = log.iter().map(|entry| entry.cursor).collect();
    let events = other.events_at(&cursors).await.expect("events");
    assert_eq!(events.iter().map(|sealed| sealed.cursor()).collect::<Vec<_>>(), cursors[1..]);
    assert_eq!(world(&other).find("{\"kinds\":[445]}", for_groups(&["grp"])).await.len(), 2);
    assert_eq!(dump(&*other, LARGE, START).await, dump(&*from, LARGE, START).await, "the epoch too");
    let epochs = call(&database, "GET", &format!("{PREFIX}_epochs"), "");
    assert_eq!(epochs["documents"].as_array().map(Vec::len), Some(1), "nothing waits to be written");
}
