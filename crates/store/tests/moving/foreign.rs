//! Files of one event a line, as strfry and other relays export them.

use std::{collections::BTreeMap, io::Cursor, sync::Arc};

use nostr_extensions::{ForeignRules, GroupStatus, Policy};
use nostr_protocol::{
    EventId,
    auth::{RelayAddress, RelayNames},
    testing::{EventBuilder, keypair},
};
use nostr_store::{
    Store,
    memory::Memory,
    moving::{ImportError, ImportOptions, Imported, Moving, Report, export_events, import},
    suite::world::{START, Subject, World, capability, key},
};

use super::stores::{SORTS, Sort, TestStore};

const NOW: u64 = START + 60;

/// The rules of a relay with the defaults and the name `wss://relay.example`.
pub(crate) fn foreign_rules() -> Arc<ForeignRules> {
    let name = RelayAddress::parse("wss://relay.example").expect("a URL");
    Arc::new(ForeignRules::new(Policy::default(), RelayNames::Configured(vec![name])))
}

fn options() -> ImportOptions {
    ImportOptions {
        threads: 2,
        skip_bad: false,
        done: None,
        key: None,
        foreign: foreign_rules(),
        events: false,
        trust: true,
        check_orders: |_| Ok(()),
    }
}

async fn imported(store: &dyn Moving, text: &str, options: ImportOptions) -> (Report, Result<(), ImportError>) {
    import(store, Box::new(Cursor::new(text.as_bytes().to_vec())), options, || NOW, |_| ()).await
}

fn event(kind: u16, content: &str) -> EventBuilder {
    EventBuilder::new(kind).content(content).at(START)
}

fn id(event: &EventBuilder, by: &str) -> EventId {
    event.sign(&keypair(by)).event().id()
}

fn hex(event: &EventBuilder, by: &str) -> String {
    id(event, by).to_hex()
}

fn roster(group: &str) -> EventBuilder {
    event(450, "").tag(&["h", group]).tag(&["seq", "1"]).tag(&["op", "bootstrap"]).tag(&["p", &key("alice").to_hex()])
}

/// A line as strfry writes it: members in the order of the alphabet, without spaces.
fn line((event, by): &(EventBuilder, &str)) -> String {
    let line = event.json(&keypair(by));
    assert!(line.starts_with("{\"content\":") && line.contains("\",\"tags\":["), "{line}");
    line
}

/// The file, and the outcomes of its events.
fn file(gone: &EventBuilder) -> (Vec<(EventBuilder, &'static str)>, BTreeMap<Imported, u64>) {
    let (bob, loose) = (key("bob").to_hex(), capability("loose"));
    let (taken_back, never_seen) = (event(1, "taken back"), event(1, "deleted before it came"));
    let package = |content: &str| event(443, content).tag(&["i", "ref"]);
    let file = vec![
        (event(1, "first"), "alice"),
        (taken_back.clone(), "alice"),
        (event(0, "{}").at(START - 5), "alice"),
        (event(0, "{\"name\":\"alice\"}"), "alice"),
        (event(0, "{}").at(START - 9), "alice"),
        (package("Zmlyc3Q="), "alice"),
        (package("c2Vjb25k"), "alice"),
        (event(445, "loose").tag(&["h", &loose]), "anyone"),
        (event(445, "managed").tag(&["h", "managed"]), "anyone"),
        (event(445, "nowhere").tag(&["h", "nowhere"]), "anyone"),
        (event(1059, "wrap").tag(&["p", &bob]).tag(&["h", "managed"]), "anyone"),
        (event(1, "by a key that vanishes"), "vera"),
        (event(62, "").tag(&["relay", "wss://relay.example"]), "vera"),
        (event(62, "").tag(&["relay", "wss://other.example"]), "alice"),
        (event(5, "").tag(&["e", &hex(&taken_back, "alice")]), "alice"),
        (event(5, "").tag(&["e", &hex(&never_seen, "alice")]), "alice"),
        (event(5, "").tag(&["e", &hex(&event(1, "first"), "alice")]), "bob"),
        (never_seen, "alice"),
        (gone.clone(), "alice"),
        (roster("founded"), "admin"),
        (event(444, ""), "alice"),
        (event(20_001, ""), "alice"),
        (event(21_059, "").tag(&["p", &bob]), "alice"),
        (event(22_242, ""), "alice"),
        (event(1, "last"), "alice"),
    ];
    let outcomes = [
        (Imported::New, 11),
        (Imported::Superseded, 1),
        (Imported::Deleted, 2),
        (Imported::Conflicting, 1),
        (Imported::Refused, 2),
    ];
    (file, outcomes.into())
}

/// A store with the managed group "managed", and with a note of alice that she has deleted.
async fn prepared(sort: Sort) -> Option<(TestStore, Arc<dyn Moving>, World, EventBuilder)> {
    let place = TestStore::new(sort)?;
    let store = place.open().await;
    let world = World::new(Subject { store: Arc::clone(&store) as Arc<dyn Store>, keep: Box::new(()) });
    let gone = event(1, "deleted here");
    let batch = vec![
        world.admitted(&roster("managed"), "admin").await,
        world.admitted(&gone, "alice").await,
        world.admitted(&event(5, "of here").tag(&["e", &hex(&gone, "alice")]), "alice").await,
    ];
    for admitted in batch {
        world.save(vec![admitted]).await;
    }
    Some((place, store, world, gone))
}

/// Events are verified and KeyPackages entered in the directory; groups stay as they are, an unlisted message marks its
/// group, kinds that are never stored are passed over and counted, deletions and requests to vanish count, and nothing
/// that was deleted comes back.
#[tokio::test]
async fn plain_lines_of_events_are_imported_by_the_rules_of_this_relay() {
    for sort in SORTS {
        let Some((_place, store, world, gone)) = prepared(*sort).await else { continue };
        let members = world.members("managed").await;
        let (events, outcomes) = file(&gone);
        // The last line has no line feed, and an empty one stands between two.
        let text = events.iter().map(line).collect::<Vec<_>>().join("\n").replacen('\n', "\n\n", 1);
        let (report, result) = imported(&*store, &text, options()).await;
        result.expect("an import");
        assert_eq!(report.records["event"], outcomes, "{sort:?}");
        assert_eq!(report.not_taken.values().sum::<u64>(), 7, "{sort:?}: {:?}", report.not_taken);
        assert_eq!(report.not_taken["events of ephemeral kinds are never stored"], 3);

        assert_eq!(world.members("managed").await, members, "{sort:?}: the group is unchanged");
        assert!(matches!(world.group("founded").await.status, GroupStatus::Unknown), "{sort:?}");
        assert!(matches!(world.group("nowhere").await.status, GroupStatus::Unknown), "{sort:?}");
        assert!(matches!(world.group(&capability("loose")).await.status, GroupStatus::Unlisted), "{sort:?}");
        let holds = async |kind: u16, content: &str, by: &str| {
            store.holds(&id(&event(kind, content), by), NOW).await.expect("the store answers")
        };
        assert!(holds(1, "first", "alice").await && holds(1, "last", "alice").await, "{sort:?}");
        // An event that would be answered as a duplicate without its effect is not stored: its author may send it.
        let wrap = event(1059, "wrap").tag(&["p", &key("bob").to_hex()]).tag(&["h", "managed"]);
        let request = event(62, "").tag(&["relay", "wss://relay.example"]);
        assert!(!store.holds(&id(&wrap, "anyone"), NOW).await.expect("the store answers"), "{sort:?}");
        assert!(!store.holds(&id(&request, "vera"), NOW).await.expect("the store answers"), "{sort:?}");
        for (content, by) in [
            ("taken back", "alice"),
            ("deleted before it came", "alice"),
            ("deleted here", "alice"),
            ("by a key that vanishes", "vera"),
        ] {
            assert!(!holds(1, content, by).await, "{sort:?}: {content}");
        }

        let (report, result) = imported(&*store, &text, options()).await;
        result.expect("the same file again");
        assert_eq!(report.records["event"].get(&Imported::New), None, "{sort:?}: {:?}", report.records);
        assert_eq!(world.members("managed").await, members, "{sort:?}");
    }
}

/// A file of events that this program writes is one that it reads, but for rosters.
#[tokio::test]
async fn events_that_are_exported_are_imported() {
    let (_place, store, _world, gone) = prepared(Sort::Embedded).await.expect("a store");
    let (events, _) = file(&gone);
    let text: String = events.iter().map(|event| line(event) + "\n").collect();
    imported(&*store, &text, options()).await.1.expect("an import");
    let mut out = Vec::new();
    let written = export_events(&*store, &mut out, NOW, |_| ()).await.expect("an export");
    let out = String::from_utf8(out).expect("text");
    assert_eq!(out.lines().count() as u64, written);
    assert!(
        out.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok_and(|it| it["sig"].is_string()))
    );
    let other = Memory::new();
    let (report, result) = imported(&other, &out, options()).await;
    result.expect("an import");
    let taken: u64 = report.records["event"].values().sum();
    assert_eq!(taken + report.not_taken.values().sum::<u64>(), written);
    assert_eq!(report.not_taken.len(), 1, "rosters alone: {:?}", report.not_taken);
}

/// A line that is no event stops the import or is skipped, and a long file is resumed.
#[tokio::test]
async fn a_bad_line_of_a_file_of_events_is_named_and_a_long_file_is_resumed() {
    let mut lines: Vec<String> = (0..2_500).map(|n| line(&(event(1, &format!("note {n}")), "alice"))).collect();
    let whole = lines.join("\n");
    lines[2_200] = lines[2_200].replace("note 2200", "note 9");
    let damaged = lines.join("\n");
    let store = Memory::new();
    let (report, result) = imported(&store, &damaged, options()).await;
    assert!(matches!(result, Err(ImportError::Line { number: 2_201, .. })), "{result:?}");
    let done = report.done.expect("a part is done");
    assert!(done.lines >= 1_000 && done.lines < 2_201, "{}", done.lines);

    let (resumed, result) =
        imported(&store, &damaged, ImportOptions { skip_bad: true, done: Some(done.clone()), ..options() }).await;
    result.expect("an import");
    assert_eq!((resumed.bad_lines, resumed.passed_over), (1, done.lines));
    let (again, result) = imported(&store, &whole, options()).await;
    result.expect("an import");
    let outcomes = &again.records["event"];
    assert_eq!((outcomes[&Imported::New], outcomes[&Imported::Unchanged]), (1, 2_499));

    let key = nostr_store::moving::FileKey::parse(&[7; 32]);
    let (_, result) = imported(&store, &whole, ImportOptions { key, ..options() }).await;
    assert!(matches!(result, Err(ImportError::Key(_))), "events alone are under no key");
}
