//! `rnostr import` of nostr-rs-relay's SQLite file.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use nostr_protocol::testing::{EventBuilder, keypair};
use rusqlite::{Connection, params};

use super::{
    delete::ids,
    run::{command, number, rnostr, spawn},
};

/// Events of the file, beside the hidden ones.
const EVENTS: usize = 5_000;
const HIDDEN: usize = 40;
/// The table of nostr-rs-relay in its newest layout.
const TABLE: &str = "create table event (id integer primary key, event_hash blob not null, \
    first_seen integer not null, created_at integer not null, expires_at integer, author blob not null, \
    delegated_by blob, kind integer not null, hidden integer, content text not null)";

/// The number of events that a test moves: more in the long form.
pub(crate) fn events(short: usize) -> usize {
    number("RNOSTR_TEST_EVENTS", short)
}

/// Notes of some keys as JSON, signed on two threads.
pub(crate) fn notes(count: usize) -> Vec<String> {
    let part = |from: usize| {
        let authors: Vec<_> = (0..7).map(|n| keypair(&format!("author {n}"))).collect();
        let note = |n: usize| {
            let at = 1_795_000_000 + (n as u64 * 37) % 300_000;
            EventBuilder::new(1).content(format!("note {n}")).at(at).json(&authors[n % 7])
        };
        (from..count).step_by(2).map(note).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..2).map(|from| scope.spawn(move || part(from))).collect();
        parts.into_iter().flat_map(|part| part.join().expect("notes")).collect()
    })
}

fn database(path: &Path, rows: &[(String, Option<bool>)]) {
    let mut database = Connection::open(path).expect("a database");
    database.pragma_update(None, "journal_mode", "wal").expect("a pragma");
    database.execute_batch(TABLE).expect("a table");
    let transaction = database.transaction().expect("a transaction");
    for (n, (content, hidden)) in rows.iter().enumerate() {
        // Gaps, as deleted rows leave them.
        let id = n as i64 * 3 + 1;
        let words = "insert into event values (?1, x'00', 0, 0, null, x'00', null, 1, ?2, ?3)";
        transaction.execute(words, params![id, hidden, content]).expect("a row");
    }
    transaction.commit().expect("a commit");
}

/// Waits until the store of `at` has grown by some events, or until the child ends.
pub(crate) fn until_some_are_stored(at: &Path, child: &mut std::process::Child, bytes: u64) {
    let until = Instant::now() + Duration::from_secs(300);
    while fs::metadata(at.join("data/data.mdb")).map_or(0, |there| there.len()) < bytes {
        assert!(Instant::now() < until, "nothing is stored");
        assert!(child.try_wait().expect("a state").is_none(), "it ended before it was broken off");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An import that is killed goes on, and the store holds each event that is not hidden, once.
#[test]
fn a_file_of_nostr_rs_relay_is_imported_and_resumed() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    let count = events(EVENTS);
    let mut rows: Vec<_> = notes(count + HIDDEN).into_iter().map(|note| (note, Some(false))).collect();
    rows.iter_mut().step_by(count / HIDDEN).take(HIDDEN).for_each(|row| row.1 = Some(true));
    rows[1].1 = None;
    database(&at.join("nostr.db"), &rows);

    let begun = Instant::now();
    let mut child = spawn(command(at, &["import", "--from", "nostr.db"]).stderr(std::process::Stdio::null()));
    until_some_are_stored(at, &mut child, (count * 200) as u64);
    child.kill().and_then(|()| child.wait()).expect("it ends");
    let some = ids(at, &[]).len();
    assert!(some > 0 && some < count, "it was broken off in the middle: {some}");
    let said = rnostr(at, &["import", "--from", "nostr.db", "--resume"]).succeeds();
    let took = begun.elapsed();
    assert!(said.contains(&format!("  passed over: {HIDDEN}, hidden by nostr-rs-relay, as deleted ones\n")), "{said}");
    let wanted = rows.iter().filter(|(_, hidden)| *hidden != Some(true));
    let id = |json: &String| serde_json::from_str::<serde_json::Value>(json).expect("JSON")["id"].clone();
    let wanted = wanted.map(|(json, _)| id(json).as_str().expect("an id").to_owned()).collect();
    assert_eq!(ids(at, &[]), wanted);
    assert!(!at.join("nostr.db.imported").exists(), "there is nothing to resume");
    let said = rnostr(at, &["import", "--from", "nostr.db"]).succeeds();
    assert!(said.contains(&format!("  event: {count} unchanged\n")), "{said}");
    println!("{count} rows of SQLite, broken off after {some}: {took:?} in all");
}

/// A bad row stops the import or is skipped and counted; a file of another program is refused.
#[test]
fn a_bad_row_is_told_and_another_sqlite_file_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    let mut rows: Vec<_> = notes(20).into_iter().map(|note| (note, Some(false))).collect();
    // The very first row is no event, so nothing but the file's header says what it is.
    rows[0].0 = "no event".to_owned();
    rows[7].0 = rows[7].0.replace("note 1", "note 9");
    rows[9].0 = " ".repeat(17_000_000);
    rows[11].0 = rows[11].0.replace("\",\"", "\",\n\"");
    database(&at.join("nostr.db"), &rows);
    let error = rnostr(at, &["import", "--from", "nostr.db"]).fails();
    assert!(error.contains("line 1: not an event") && error.contains("--skip-bad"), "{error}");
    let said = rnostr(at, &["import", "--from", "nostr.db", "--skip-bad"]).succeeds();
    assert!(said.contains("  event: 17 new\n") && said.contains("  bad lines: 3\n"), "{said}");
    assert!(said.contains("    line 10: not an event") && said.contains("the row 28 of 17000000 bytes"), "{said}");

    let other = Connection::open(at.join("other.db")).expect("a database");
    other.execute_batch("create table notes (id); create view event as select id, 1 as hidden from notes").expect("it");
    drop(other);
    let error = rnostr(at, &["import", "--from", "other.db"]).fails();
    assert!(error.contains("has no table `event`"), "{error}");
    hostile_files_are_refused(at);
    fs::write(at.join("cut.db"), &fs::read(at.join("nostr.db")).expect("bytes")[..5_000]).expect("it is written");
    assert!(rnostr(at, &["import", "--from", "cut.db"]).fails().contains("cut.db: "));
}

/// Files that compute their rows, whose `id` is no key, and whose rows lie in a wrong order.
fn hostile_files_are_refused(at: &Path) {
    for (n, table) in [
        "create virtual table event using fts5(id, hidden, content)",
        "create table event (id integer primary key, hidden, note text, content text as (note))",
        "create table event (id integer primary key, hidden, note text, content text as (note) stored)",
        "create table event (id integer, hidden, content text)",
        "create table event (id integer primary key, hidden, content text) without rowid",
    ]
    .iter()
    .enumerate()
    {
        let name = format!("hostile{n}.db");
        Connection::open(at.join(&name)).expect("a database").execute_batch(table).expect("a table");
        let error = rnostr(at, &["import", "--from", &name]).fails();
        assert!(error.contains("has no table `event` as nostr-rs-relay makes it"), "{table}: {error}");
    }

    let rows: Vec<_> = notes(3).into_iter().map(|note| (note, Some(false))).collect();
    let path = at.join("order.db");
    database(&path, &rows);
    let root = Connection::open(&path).expect("a database");
    let root: u32 = root.query_row("select rootpage from sqlite_schema", [], |row| row.get(0)).expect("a page");
    let mut bytes = fs::read(&path).expect("bytes");
    // The page of a table begins with 8 bytes, and 2 bytes for each row say where it lies.
    let rows = (root as usize - 1) * 4_096 + 8;
    assert_eq!(bytes[rows - 8], 0x0d, "a leaf of a table");
    bytes.swap(rows, rows + 2);
    bytes.swap(rows + 1, rows + 3);
    fs::write(&path, bytes).expect("it is written");
    let error = rnostr(at, &["import", "--from", "order.db"]).fails();
    assert!(error.contains("the row 1 lies behind the row 4"), "{error}");
}
