//! `rnostr export` and `rnostr import`.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Stdio,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use nostr_protocol::testing::{EventBuilder, keypair};
use nostr_store::{
    embedded::{Embedded, Options},
    suite::{
        moving::{LARGE, dump, fill},
        world::{Subject, World, event},
    },
};
use rnostr_test_services as services;
use tempfile::TempDir;

#[cfg(feature = "mls_gateway_firestore")]
use super::run::run;
use super::run::{command, rnostr, rnostr_reading, spawn, starting, with_store};

/// Number of further events, which fill several pages of an export.
const NOTES: usize = 2_300;

/// Fills a store in a new directory with every sort of record and `notes` events, and returns its dump.
pub(crate) fn filled(notes: usize) -> (TempDir, Vec<String>) {
    let directory = tempfile::tempdir().expect("a directory");
    let dumped = with_store(|| wait(fill_in(directory.path(), notes)));
    (directory, dumped)
}

async fn fill_in(directory: &Path, notes: usize) -> Vec<String> {
    let store = Arc::new(Embedded::open(directory.join("data"), Options::default()).expect("a store"));
    {
        let mut world = World::new(Subject { store: Arc::clone(&store) as _, keep: Box::new(()) });
        fill(&mut world).await;
        let mut batch = Vec::new();
        for n in 0..notes {
            batch.push(world.admitted(&event(1, &format!("one of many, {n}")), "writer").await);
        }
        world.save(batch).await;
    }
    dump(&*store, LARGE, now()).await
}

fn wait<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(work)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

/// Dumps the store in a directory.
pub(crate) fn held(directory: &Path) -> Vec<String> {
    with_store(|| {
        let store = Embedded::open(directory.join("data"), Options::default()).expect("a store");
        wait(dump(&store, LARGE, now()))
    })
}

fn counts(dumped: &[String], sort: &str) -> usize {
    dumped.iter().filter(|line| line.starts_with(&format!("{{\"{sort}\":"))).count()
}

#[test]
fn a_store_goes_through_a_file_into_another() {
    let (from, whole) = filled(NOTES);
    let (from, to) = (from.path(), tempfile::tempdir().expect("a directory"));
    let file = from.join("all.jsonl");
    let name = file.to_str().expect("text");

    let said = rnostr(from, &["export", "--to", name]).succeeds();
    assert!(said.starts_with(&format!("exported to {name}: {} records\n", whole.len())), "{said}");
    for sort in ["event", "group", "tombstone", "claimed", "unlisted", "vanished", "address_tombstone"] {
        assert!(said.contains(&format!("  {sort} {}\n", counts(&whole, sort))), "{sort}: {said}");
    }
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&file).expect("text");
    assert!(
        text.starts_with(&format!("{{\"rnostr_export\":{{\"format\":1,\"version\":\"{}\"", env!("CARGO_PKG_VERSION")))
    );

    let said = rnostr(to.path(), &["import", "--from", name, "--trust"]).succeeds();
    assert!(said.starts_with(&format!("imported from {name}: {} records\n", whole.len())), "{said}");
    assert!(said.contains(&format!("  event: {} new\n", counts(&whole, "event"))), "{said}");
    assert_eq!(held(to.path()), whole);
    assert!(!from.join("all.jsonl.imported").exists(), "there is nothing to resume");

    let said = rnostr(to.path(), &["import", "--from", name, "--trust"]).succeeds();
    assert!(said.contains(&format!("  event: {} unchanged\n", counts(&whole, "event"))), "{said}");
    assert_eq!(held(to.path()), whole);

    assert!(rnostr(from, &["export", "--to", name]).fails().contains("exists already"));
    assert_eq!(fs::read_to_string(&file).expect("text"), text);
    let said = rnostr(from, &["export", "--to", name, "--resume"]).succeeds();
    assert!(said.contains("is complete already"), "{said}");
}

#[test]
fn a_store_goes_through_a_pipe_into_another() {
    let (from, whole) = filled(0);
    let to = tempfile::tempdir().expect("a directory");
    let exported = rnostr(from.path(), &["export"]);
    assert!(exported.err.contains(&format!("exported: {} records", whole.len())), "{}", exported.err);
    let file = from.path().join("piped");
    fs::write(&file, exported.succeeds()).expect("it is written");
    let said = rnostr_reading(to.path(), &["import", "--from", "-", "--trust"], &file).succeeds();
    assert!(said.starts_with("imported from standard input: "), "{said}");
    assert_eq!(held(to.path()), whole);
    assert!(rnostr(from.path(), &["export", "--resume"]).fails().contains("name it with --to"));
    assert!(rnostr(from.path(), &["import", "--resume"]).fails().contains("name it with --from"));
}

#[test]
fn an_export_and_an_import_are_resumed() {
    let (from, whole) = filled(NOTES);
    let (from, to) = (from.path(), tempfile::tempdir().expect("a directory"));
    rnostr(from, &["export", "--to", "whole"]).succeeds();
    let text = fs::read(from.join("whole")).expect("a file");
    let part = &text[..text.len() * 98 / 100];

    let name = from.join("part");
    let path = name.to_str().expect("text");
    fs::write(&name, part).expect("it is written");
    let error = rnostr(to.path(), &["import", "--from", path, "--trust"]).fails();
    assert!(error.contains("is cut off behind line") && error.contains("with the whole file, --resume"), "{error}");
    let kept = held(to.path()).len();
    assert!(kept > 2_000 && kept < whole.len(), "{kept}");
    assert_eq!(fs::metadata(from.join("part.imported")).expect("a note").permissions().mode() & 0o777, 0o600);

    let said = rnostr(from, &["export", "--to", path, "--resume"]).succeeds();
    assert!(said.starts_with(&format!("exported to {path}: {} records\n", whole.len())), "{said}");
    let said = rnostr(to.path(), &["import", "--from", path, "--resume", "--trust"]).succeeds();
    assert!(said.contains("lines that were imported before: "), "{said}");
    assert!(said.contains(&format!("  event: {} new\n", whole.len() - kept)), "{said}");
    assert_eq!(held(to.path()), whole);
    assert!(!from.join("part.imported").exists());
}

#[test]
fn a_bad_line_stops_an_import_or_is_skipped() {
    let (from, whole) = filled(0);
    let (from, to) = (from.path(), tempfile::tempdir().expect("a directory"));
    rnostr(from, &["export", "--to", "all"]).succeeds();
    let file = from.join("all");
    let path = file.to_str().expect("text");
    let text = fs::read_to_string(&file).expect("text");
    let number = 1 + text.lines().position(|line| line.contains("note 3")).expect("a note");
    fs::write(&file, text.replace("note 3", "note 9")).expect("it is written");

    let error = rnostr(to.path(), &["import", "--from", path, "--trust"]).fails();
    let wanted = format!("error: {path}: line {number}: id does not match the event");
    assert!(error.contains(&wanted) && error.contains("is imported; --skip-bad"), "{error}");
    assert_eq!(counts(&held(to.path()), "event"), 0, "no event of its page is stored");
    assert_eq!(counts(&held(to.path()), "group"), counts(&whole, "group"), "the pages before are stored");

    let said = rnostr(to.path(), &["import", "--from", path, "--skip-bad", "--trust"]).succeeds();
    assert!(said.contains("  bad lines: 1\n") && said.contains(&format!("    line {number}: id does not")), "{said}");
    assert!(said.contains("changed after the export"), "{said}");
    assert_eq!(held(to.path()).len(), whole.len() - 1);
}

#[test]
fn an_export_under_a_key_needs_its_key() {
    let (from, whole) = filled(0);
    let (from, to) = (from.path(), tempfile::tempdir().expect("a directory"));
    fs::write(from.join("move.key"), format!("{}\n", "5e".repeat(32))).expect("it is written");
    fs::write(from.join("other.key"), "5f".repeat(32)).expect("it is written");
    fs::write(from.join("word.key"), "correct horse").expect("it is written");
    let file = |name: &str| from.join(name).to_str().expect("text").to_owned();
    let (all, plain) = (file("all"), file("plain"));
    assert!(rnostr(from, &["export", "--to", &all, "--key-file", "word.key"]).fails().contains("64 hex digits"));
    rnostr(from, &["export", "--to", &all, "--key-file", "move.key"]).succeeds();
    rnostr(from, &["export", "--to", &plain]).succeeds();
    assert!(rnostr(from, &["export", "--to", &all, "--resume"]).fails().contains("--key-file"));

    let refused = rnostr(to.path(), &["import", "--from", &all]).fails();
    assert!(refused.contains("name the key's file with --key-file; nothing is imported"), "{refused}");
    let refused = rnostr(to.path(), &["import", "--from", &all, "--key-file", &file("other.key")]).fails();
    assert!(refused.contains("under another key"), "{refused}");
    let refused = rnostr(to.path(), &["import", "--from", &plain, "--key-file", &file("move.key")]).fails();
    assert!(refused.contains("without a key"), "{refused}");
    assert!(held(to.path()).is_empty());
    rnostr(to.path(), &["import", "--from", &all, "--key-file", &file("move.key")]).succeeds();
    assert_eq!(held(to.path()), whole);
}

/// Groups, orders and removals carry no signatures, so an export without a key is imported as a whole only by the
/// operator's word. Its events alone are taken from it like those of a stranger.
#[test]
fn an_export_without_a_key_needs_a_word_of_the_operator() {
    let (from, whole) = filled(0);
    let (from, to) = (from.path(), tempfile::tempdir().expect("a directory"));
    let file = |name: &str| from.join(name).to_str().expect("text").to_owned();
    let imports = |name: &str, words: &[&str]| rnostr(to.path(), &[&["import", "--from", &file(name)], words].concat());
    rnostr(from, &["export", "--to", &file("all")]).succeeds();
    for words in [&[][..], &["--skip-bad"], &["--resume"]] {
        let error = imports("all", words).fails();
        assert!(error.contains("under no key") && error.contains("--trust"), "{error}");
        assert!(error.contains("--events") && error.contains("nothing is imported"), "{error}");
    }
    assert!(held(to.path()).is_empty() && !from.join("all.imported").exists());

    let text = fs::read_to_string(from.join("all")).expect("text");
    let header = text.lines().next().expect("a line");
    fs::write(from.join("orders"), text.replacen(header, &format!("{header}\n{{\"orders\":{{\"lists\":5}}}}"), 1))
        .expect("it is written");
    let error = imports("orders", &["--trust"]).fails();
    assert!(error.contains("line 2: the record of management cannot be read"), "{error}");
    assert!(held(to.path()).is_empty());

    let said = imports("all", &["--events"]).succeeds();
    let others = ["group", "tombstone", "claimed", "unlisted", "vanished", "address_tombstone", "founded"];
    let others: usize = others.iter().map(|sort| counts(&whole, sort)).sum();
    assert!(said.contains(&format!("  passed over: {others}, groups, orders and removals of an export")), "{said}");
    let kept = held(to.path());
    assert!(counts(&kept, "event") > 0 && counts(&kept, "group") == 0, "{said}");
    imports("all", &["--trust"]).succeeds();
    assert_eq!(counts(&held(to.path()), "group"), counts(&whole, "group"));
}

/// Other relays export one event a line: the commands take such a file, and write one.
#[test]
fn events_of_another_relay_are_imported_and_exported_for_one() {
    let (from, to) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let (from, to) = (from.path(), to.path());
    let alice = keypair("alice");
    let at = now() - 10;
    let note = |text: &str| EventBuilder::new(1).content(text).at(at).json(&alice);
    let roster = EventBuilder::new(450).at(at).json(&alice);
    let text = [note("one"), note("two"), roster].join("\n");
    fs::write(from.join("strfry.jsonl"), &text).expect("it is written");
    let said = rnostr(from, &["import", "--from", "strfry.jsonl"]).succeeds();
    assert!(said.contains("  event: 2 new\n") && said.contains("  passed over: 1, rosters change groups"), "{said}");

    let said = rnostr(from, &["export", "--events", "--to", "events.jsonl"]).succeeds();
    assert_eq!(said, "exported to events.jsonl: 2 events\n");
    let file = from.join("events.jsonl");
    assert_eq!(fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
    let written = fs::read_to_string(&file).expect("text");
    assert_eq!(written.lines().count(), 2);
    assert!(written.lines().all(|line| line.starts_with('{') && line.contains("\"sig\":\"")), "{written}");
    assert!(rnostr(from, &["export", "--events", "--to", "events.jsonl"]).fails().contains("exists already"));
    let said = rnostr(to, &["import", "--from", file.to_str().expect("text")]).succeeds();
    assert!(said.contains("  event: 2 new\n"), "{said}");

    fs::write(from.join("bad.jsonl"), text.replacen("\"two\"", "\"2\"", 1)).expect("it is written");
    let error = rnostr(to, &["import", "--from", from.join("bad.jsonl").to_str().expect("text")]).fails();
    assert!(error.contains("line 2: ") && error.contains("--skip-bad skips such lines"), "{error}");
}

#[test]
fn an_impossible_command_fails_with_its_reason() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    assert!(rnostr(at, &["export"]).fails().contains("there is no store in ./data"));
    assert!(!at.join("data").exists(), "the command makes no store");
    let damaged = tempfile::tempdir().expect("a directory");
    fs::create_dir(damaged.path().join("data")).expect("a directory");
    fs::write(damaged.path().join("data/data.mdb"), "no store").expect("it is written");
    rnostr(damaged.path(), &["export", "--to", "all"]).fails();
    assert!(!damaged.path().join("all").exists(), "an empty export is removed");
    assert!(rnostr(at, &["import", "--from", "nothing"]).fails().contains("nothing: No such file"));
    assert!(rnostr(at, &["export", "-c", "nothing.toml"]).fails().contains("nothing.toml"));
    fs::write(at.join("other"), "hello\n").expect("it is written");
    assert!(rnostr(at, &["import", "--from", "other"]).fails().contains("no export of rnostr"));
    let error = rnostr(at, &["export", "--to", "other", "--resume"]).fails();
    assert!(error.contains("no export of rnostr"), "{error}");
    assert_eq!(fs::read_to_string(at.join("other")).expect("text"), "hello\n", "it is left as it was");
    let _relay = Embedded::open(at.join("data"), Options::default()).expect("a store");
    for words in [&["export"][..], &["import", "--from", "other"]] {
        assert!(rnostr(at, words).fails().contains("is in use by another rnostr"));
    }
}

/// The configuration names PostgreSQL, as for `rnostr relay`.
#[test]
fn a_store_goes_to_postgresql_and_back() {
    let Some(()) = services::require(services::Postgres::shared_available()) else { return };
    let url = starting(|| services::Postgres::shared().create_database());
    let (from, whole) = filled(0);
    let (from, back) = (from.path(), tempfile::tempdir().expect("a directory"));
    let config = format!("[extensions.mls_gateway]\nstorage_backend = \"postgres\"\ndatabase_url = \"{url}\"\n");
    fs::write(from.join("postgres.toml"), config).expect("it is written");

    let exported = rnostr(from, &["export", "--to", "first"]);
    exported.succeeds();
    let imported = rnostr(from, &["import", "-c", "postgres.toml", "--from", "first", "--trust"]).succeeds();
    assert!(imported.contains(&format!("  event: {} new\n", counts(&whole, "event"))), "{imported}");
    rnostr(from, &["export", "-c", "postgres.toml", "--to", "second"]).succeeds();
    let second = from.join("second");
    rnostr(back.path(), &["import", "--from", second.to_str().expect("text"), "--trust"]).succeeds();
    starting(|| services::Postgres::shared().drop_database(&url));
    assert_eq!(held(back.path()), whole);
}

/// The configuration names Firestore, and an export of Firestore holds the same records as the one it was filled from.
#[cfg(feature = "mls_gateway_firestore")]
#[test]
fn a_store_goes_to_firestore_and_back() {
    let Some(()) = services::require(services::FirestoreEmulator::shared_available()) else { return };
    let emulator = starting(services::FirestoreEmulator::shared);
    let (host, project) = (emulator.host(), emulator.project());
    // So many events fill two pages.
    let (from, whole) = filled(1_100);
    let (from, back) = (from.path(), tempfile::tempdir().expect("a directory"));
    let config = format!("[extensions.mls_gateway]\nstorage_backend = \"firestore\"\nproject_id = \"{project}\"\n");
    fs::write(from.join("firestore.toml"), config).expect("it is written");
    let with_firestore = |words: &[&str]| {
        let words = [words, &["-c", "firestore.toml"]].concat();
        run(command(from, &words).env("FIRESTORE_EMULATOR_HOST", &host)).succeeds()
    };

    rnostr(from, &["export", "--to", "first"]).succeeds();
    let imported = with_firestore(&["import", "--from", "first", "--trust"]);
    assert!(imported.contains(&format!("  event: {} new\n", counts(&whole, "event"))), "{imported}");
    let exported = with_firestore(&["export", "--to", "second"]);
    assert!(exported.starts_with(&format!("exported to second: {} records\n", whole.len())), "{exported}");
    let records = |file: &str| {
        let text = fs::read_to_string(from.join(file)).expect("text");
        let is_record =
            |line: &&str| !["{\"rnostr_export\"", "{\"mark\"", "{\"end\""].iter().any(|it| line.starts_with(it));
        text.lines().filter(is_record).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(records("second"), records("first"));
    assert_eq!(records("second").len(), whole.len());
    let imported = with_firestore(&["import", "--from", "second", "--trust"]);
    assert!(imported.contains(&format!("  event: {} unchanged\n", counts(&whole, "event"))), "{imported}");
    let second = from.join("second");
    rnostr(back.path(), &["import", "--from", second.to_str().expect("text"), "--trust"]).succeeds();
    assert_eq!(held(back.path()), whole);
}

/// Imports that are killed and resumed store the same as one that runs through.
#[test]
fn an_import_that_is_killed_is_resumed() {
    let (from, whole) = filled(NOTES);
    let (from, to) = (from.path(), tempfile::tempdir().expect("a directory"));
    rnostr(from, &["export", "--to", "all"]).succeeds();
    let path = from.join("all");
    let words = ["import", "--resume", "--from", path.to_str().expect("text"), "--trust"];
    let mut killed = 0;
    loop {
        let mut running = spawn(command(to.path(), &words).stdout(Stdio::null()));
        std::thread::sleep(Duration::from_millis(40 + killed * 60));
        let _ = running.kill();
        if running.wait().expect("it ends").success() {
            break;
        }
        killed += 1;
    }
    assert!(killed > 0, "the import ended before it was killed");
    assert_eq!(held(to.path()), whole);
}
