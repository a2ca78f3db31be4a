//! `rnostr backup`, `restore`, `compact`, `verify-store` and `stats`.

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::{SinkExt as _, StreamExt as _};
use nostr_protocol::testing::{EventBuilder, random_keypair};
use serde_json::Value;
use tokio_tungstenite::tungstenite::Message;

use super::{
    moving::{filled, held},
    run::{number, rnostr},
    server::Relay,
};

/// Connections that publish.
const WRITERS: usize = 4;
/// Events of a connection that wait for their answers.
const IN_FLIGHT: usize = 128;
/// Time from the first event to the backup.
const BEFORE: Duration = Duration::from_millis(1_500);
/// The same in the long form, so that the copy takes a while.
const LONG_BEFORE: Duration = Duration::from_secs(3);
/// Events of all connections for each 1,000 a second that are wanted, and the fewest.
const EVENTS_MAX: usize = 30_000;
/// Places of a file at which a byte is flipped.
const FLIPS: u64 = 8;

/// Events that were acknowledged, by id.
type Acknowledged = Arc<Mutex<HashSet<String>>>;

/// Publishes notes until it is told to stop, many at a time.
async fn publish(url: String, notes: Vec<(String, String)>, acknowledged: Acknowledged, stop: Arc<AtomicBool>) {
    let (socket, _) = tokio_tungstenite::connect_async(url).await.expect("a connection");
    let (mut send, mut receive) = socket.split();
    let mut waiting = 0;
    let mut notes = notes.into_iter();
    loop {
        while waiting < IN_FLIGHT && !stop.load(Ordering::SeqCst) {
            let Some((_, json)) = notes.next() else { break };
            send.feed(Message::text(format!("[\"EVENT\",{json}]"))).await.expect("it is sent");
            waiting += 1;
        }
        send.flush().await.expect("it is sent");
        if waiting == 0 {
            return;
        }
        let message = receive.next().await.expect("an answer").expect("an answer");
        let Ok(answer) = serde_json::from_str::<Value>(message.to_text().unwrap_or_default()) else { continue };
        if answer[0] == "OK" {
            assert_eq!(answer[2], true, "{answer}");
            waiting -= 1;
            acknowledged.lock().expect("a lock").insert(answer[1].as_str().expect("an id").to_owned());
        }
    }
}

/// One writer's part of so many notes, signed beforehand by one author, each with its id.
fn notes(count: usize) -> Vec<(String, String)> {
    let author = random_keypair();
    let at = now();
    let note = |n: usize| {
        let event = EventBuilder::new(1).content(format!("note {n}")).at(at).event(&author);
        (event.id().to_hex(), String::from_utf8(event.json().to_vec()).expect("text"))
    };
    (0..count / WRITERS).map(note).collect()
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs()
}

/// Everything that was acknowledged before a backup is in it, while clients publish as fast as they can, in the long
/// form at least 5,000 events a second. A byte that is flipped in the backup or in the store is found.
#[test]
fn a_backup_of_a_busy_relay_holds_everything_acknowledged() {
    let rates = "[extensions.mls_gateway.rate_limits]\nmax_events_per_minute = 0\n";
    let relay = Relay::start("", rates);
    let rate_min = number("RNOSTR_TEST_RATE_MIN", 0);
    let signed_max = EVENTS_MAX * (rate_min / 1_000).max(1);
    let at = relay.directory.path();
    let (acknowledged, stop) = (Acknowledged::default(), Arc::new(AtomicBool::new(false)));
    let signed: Vec<_> = std::thread::scope(|scope| {
        let signing: Vec<_> = (0..WRITERS).map(|_| scope.spawn(|| notes(signed_max))).collect();
        signing.into_iter().map(|notes| notes.join().expect("notes")).collect()
    });
    let writing = {
        let (url, acknowledged, stop) = (relay.url.clone(), Arc::clone(&acknowledged), Arc::clone(&stop));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            let set = tokio::task::LocalSet::new();
            set.block_on(&runtime, async {
                let all = signed.into_iter().map(|notes| {
                    tokio::task::spawn_local(publish(url.clone(), notes, Arc::clone(&acknowledged), Arc::clone(&stop)))
                });
                for writer in all.collect::<Vec<_>>() {
                    writer.await.expect("it publishes");
                }
            });
        })
    };
    let count = || acknowledged.lock().expect("a lock").len();
    let begun = Instant::now();
    std::thread::sleep(if rate_min > 0 { LONG_BEFORE } else { BEFORE });
    let rate = count() as f64 / begun.elapsed().as_secs_f64();
    let before = acknowledged.lock().expect("a lock").clone();
    let began = Instant::now();
    let said = rnostr(at, &["backup", "-c", "relay.toml", "--to", "backup.mdb"]).succeeds();
    let (took, after) = (began.elapsed(), count());
    let meanwhile = (after - before.len()) as f64 / took.as_secs_f64();
    let stats = rnostr(at, &["stats", "-c", "relay.toml", "--kinds", "--json"]).succeeds();
    stop.store(true, Ordering::SeqCst);
    writing.join().expect("they publish");
    assert!(after > before.len() + 10, "the relay took events during the backup: {} and {after}", before.len());
    assert!(said.starts_with("backed up to backup.mdb: "), "{said}");
    let stats: Value = serde_json::from_str(&stats).expect("JSON");
    assert!(stats["kinds"]["1"].as_u64() >= Some(after as u64), "{stats}");

    let elsewhere = tempfile::tempdir().expect("a directory");
    let backup = at.join("backup.mdb");
    assert_eq!(fs::metadata(&backup).expect("a file").permissions().mode() & 0o777, 0o600);
    let backup = backup.to_str().expect("text");
    rnostr(elsewhere.path(), &["restore", "--from", backup]).succeeds();
    let said = rnostr(elsewhere.path(), &["verify-store", "--signatures"]).succeeds();
    assert!(said.ends_with("nothing is wrong\n"), "{said}");
    let exported = rnostr(elsewhere.path(), &["export", "--events"]).succeeds();
    let held: HashSet<String> = exported
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["id"].as_str().expect("an id").to_owned())
        .collect();
    let lost = before.difference(&held).count();
    assert_eq!(lost, 0, "of {} acknowledged before the backup", before.len());
    println!(
        "{rate:.0} events a second before the backup and {meanwhile:.0} during it; \
         {} acknowledged before it, {after} when it ended {took:?} later; it has {}",
        before.len(),
        held.len()
    );
    let slowest = rate.min(meanwhile);
    assert!(slowest >= rate_min as f64, "{slowest:.0} events a second are fewer than {rate_min}");
    flips_are_found(elsewhere.path(), backup, &exported);
}

/// Flips a byte at places of the backup and of the store that was made of it. The checksum finds each one in the
/// backup. In the store the check finds each one that lies in something that is used.
fn flips_are_found(at: &Path, backup: &str, whole: &str) {
    let store = at.join("data/data.mdb");
    let (mut found, mut harmless) = (0, 0);
    for n in 0..FLIPS {
        let flipped = |path: &Path, check: &mut dyn FnMut()| {
            let bytes = fs::metadata(path).expect("a file").len();
            let (offset, mut byte) = (bytes * n / FLIPS + 977 * n + 50, [0]);
            let file = fs::File::options().read(true).write(true).open(path).expect("a file");
            file.read_exact_at(&mut byte, offset).expect("a byte");
            file.write_all_at(&[byte[0] ^ 4], offset).expect("it is written");
            check();
            file.write_all_at(&byte, offset).expect("it is written");
        };
        flipped(Path::new(backup), &mut || {
            let other = tempfile::tempdir().expect("a directory");
            let error = rnostr(other.path(), &["restore", "--from", backup]).fails();
            assert!(error.contains("use another backup"), "{error}");
        });
        flipped(&store, &mut || {
            if rnostr(at, &["verify-store"]).code == 1 {
                found += 1;
            } else {
                harmless += 1;
                assert!(rnostr(at, &["export", "--events"]).succeeds() == whole, "a flipped byte changed an event");
            }
        });
    }
    println!("a flipped byte: {FLIPS} of {FLIPS} found in the backup, {found} in the store; {harmless} change nothing");
    assert!(found * 2 >= FLIPS, "{found} found, {harmless} harmless");
}

/// A byte of the backup is flipped, at many places: a restoration refuses each one.
#[test]
fn a_flipped_byte_of_a_backup_is_found() {
    let (from, whole) = filled(50);
    let (from, to) = (from.path(), tempfile::tempdir().expect("a directory"));
    fs::create_dir(from.join("backups")).expect("a directory");
    rnostr(from, &["backup", "--to", "backups"]).succeeds();
    let names = fs::read_dir(from.join("backups")).expect("a directory").map(|entry| entry.expect("a file").path());
    let mut names: Vec<_> = names.collect();
    names.sort();
    let [backup, sum] = &names[..] else { panic!("{names:?}") };
    assert!(sum.to_str().expect("text").ends_with("Z.mdb.sha256"), "{names:?}");
    let bytes = fs::metadata(backup).expect("a file").len();
    let file = fs::File::options().read(true).write(true).open(backup).expect("a file");
    let name = backup.to_str().expect("text");
    for n in 0..12 {
        let offset = bytes * n / 12 + n * 31;
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).expect("a byte");
        file.write_all_at(&[byte[0] ^ 16], offset).expect("it is written");
        let error = rnostr(to.path(), &["restore", "--from", name]).fails();
        assert!(error.contains("use another backup"), "{offset}: {error}");
        file.write_all_at(&byte, offset).expect("it is written");
    }
    fs::remove_file(sum).expect("it is removed");
    let error = rnostr(to.path(), &["restore", "--from", name]).fails();
    assert!(error.contains("--without-checksum"), "{error}");
    let restored = rnostr(to.path(), &["restore", "--from", name, "--without-checksum"]);
    let place = format!("restored to {}/data: ", to.path().display());
    assert!(restored.out.starts_with(&place) && restored.out.contains("claims of KeyPackages"), "{}", restored.out);
    assert!(restored.err.contains("warning: [data] path is ./data, relative"), "{}", restored.err);
    assert_eq!(held(to.path()), whole);
    let absolute = to.path().join("absolute");
    fs::write(to.path().join("absolute.toml"), format!("[data]\npath = {absolute:?}\n")).expect("it is written");
    let words = ["restore", "-c", "absolute.toml", "--from", name, "--without-checksum"];
    let restored = rnostr(to.path(), &words);
    assert!(restored.code == 0 && !restored.err.contains("warning: [data]"), "{}", restored.err);
    assert!(absolute.join("data.mdb").exists());
    let error = rnostr(to.path(), &["restore", "--from", name, "--without-checksum"]).fails();
    assert!(error.contains("there is a store already"), "{error}");
}

/// A damaged index is told and made anew; a damaged mark or event is told and left to the operator.
#[test]
fn a_damaged_store_is_told_and_repaired() {
    let (from, whole) = filled(50);
    let from = from.path();
    let path = from.join("data/data.mdb");
    let bytes = fs::metadata(&path).expect("a file").len();
    let (mut repaired, mut refused) = (0, 0);
    for n in 0..40 {
        if repaired > 1 && refused > 1 {
            break;
        }
        let content = fs::read(&path).expect("bytes");
        let at = (8_192 + (bytes - 8_192) / 41 * n + 5 * n) as usize;
        let mut damaged = content.clone();
        damaged[at] ^= 4;
        fs::write(&path, &damaged).expect("it is written");
        let checked = rnostr(from, &["verify-store"]);
        if checked.code == 1 {
            assert!(checked.out.lines().count() > 1, "it says what is wrong: {}", checked.out);
            let ran = rnostr(from, &["verify-store", "--repair"]);
            if ran.code == 0 {
                repaired += 1;
                assert!(ran.out.contains("repaired ./data: "), "{}", ran.out);
                assert_eq!(held(from), whole);
            } else {
                refused += 1;
                assert!(ran.err.contains("nothing is changed") || ran.err.contains("restore a backup"), "{}", ran.err);
                assert_eq!(fs::read(&path).expect("bytes"), damaged);
            }
        }
        fs::write(&path, &content).expect("it is written");
    }
    assert!(repaired > 1 && refused > 1, "{repaired} repaired, {refused} refused");
}

#[test]
fn a_store_is_compacted_and_measured() {
    let (from, whole) = filled(50);
    let from = from.path();
    let said = rnostr(from, &["compact"]).succeeds();
    assert!(said.starts_with("compacted ./data: "), "{said}");
    assert_eq!(held(from), whole);
    let said = rnostr(from, &["stats"]).succeeds();
    assert!(said.contains("groups 4\n") || said.contains("\ngroups "), "{said}");
    let empty = tempfile::tempdir().expect("a directory");
    for words in [&["stats"][..], &["compact"], &["verify-store"], &["backup", "--to", "x"]] {
        assert!(rnostr(empty.path(), words).fails().contains("there is no store in ./data"), "{words:?}");
        assert!(!empty.path().join("data").exists(), "the command makes no store");
    }
    backends_have_tools_of_their_own(empty.path());
}

fn backends_have_tools_of_their_own(at: &Path) {
    let config =
        "[extensions.mls_gateway]\nstorage_backend = \"postgres\"\ndatabase_url = \"postgres://127.0.0.1:1/x\"\n";
    fs::write(at.join("postgres.toml"), config).expect("it is written");
    for words in [&["compact"][..], &["verify-store"], &["backup", "--to", "x"], &["restore", "--from", "x"]] {
        let words = [words, &["-c", "postgres.toml"]].concat();
        assert!(rnostr(at, &words).fails().contains("pg_dump"), "{words:?}");
    }
}
