//! The operator's tools of the embedded store: a damaged byte is found, and a repair brings back what the events imply.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test")]

#[path = "tools/loss.rs"]
mod loss;

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use nostr_store::{
    embedded::{
        Embedded, Options,
        tools::{self, Beside, DATA_FILE, Depth, check, check_store, compact, repair, restore},
    },
    suite::{
        moving::{LARGE, dump, fill},
        world::{START, Subject, World, event},
    },
};
use tempfile::TempDir;

type Open = fn(&Path) -> Embedded;

fn opened(directory: &Path) -> Embedded {
    Embedded::open(directory, Options::default()).expect("a store")
}

const WAYS: [Open; 3] = [
    opened,
    |directory| Embedded::open_with_recent_ids(directory, Options::default(), 0).expect("a store"),
    |directory| Embedded::open_that_leaves_rows(directory, Options::default()).expect("a store"),
];

/// A store that holds something of every sort, and its dump.
async fn filled(open: Open) -> (TempDir, Vec<String>) {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Arc::new(open(directory.path()));
    {
        let mut world = World::new(Subject { store: Arc::clone(&store) as _, keep: Box::new(()) });
        fill(&mut world).await;
        let mut batch = Vec::new();
        for n in 0..200 {
            let long = "long ".repeat(if n % 50 == 0 { 2_000 } else { 10 });
            batch.push(world.admitted(&event(1, &format!("{n} {long}")).tag(&["t", "many"]), "writer").await);
        }
        world.save(batch).await;
        world.sweep(START + 100).await;
    }
    let dumped = dump(&*store, LARGE, START).await;
    (directory, dumped)
}

async fn held(directory: &Path) -> Vec<String> {
    dump(&opened(directory), LARGE, START).await
}

fn faults(path: &Path, depth: Depth) -> Vec<String> {
    check(path, depth, &mut |_, _| {}).expect("a check").faults.told().to_vec()
}

/// Flips bits of one byte, and returns the byte as it was.
fn flip(path: &Path, offset: u64, bits: u8) -> u8 {
    let file = File::options().read(true).write(true).open(path).expect("a file");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("a byte");
    file.write_all_at(&[byte[0] ^ bits], offset).expect("it is written");
    byte[0]
}

fn copied(directory: &Path) -> (TempDir, PathBuf) {
    let copy = tempfile::tempdir().expect("a directory");
    let path = copy.path().join(DATA_FILE);
    fs::copy(directory.join(DATA_FILE), &path).expect("a copy");
    (copy, path)
}

#[tokio::test]
async fn a_store_that_is_whole_has_no_faults() {
    for open in WAYS {
        let (directory, _) = filled(open).await;
        let path = directory.path().join(DATA_FILE);
        assert_eq!(faults(&path, Depth::Signatures), [""; 0]);
        let checked = check_store(directory.path(), Depth::Relations, &mut |_, _| {}).expect("a check");
        assert!(checked.events > 200 && checked.rows > 6_000, "{checked:?}");
        let store = opened(directory.path());
        let refused = check_store(directory.path(), Depth::Rows, &mut |_, _| {}).expect_err("it is in use");
        assert!(refused.to_string().contains("in use"), "{refused}");
        drop(store);
    }
}

/// All rows but those of `expiry` that lead to events which are gone, as such rows mean nothing.
fn meant(path: &Path) -> Vec<(String, Vec<u8>, Vec<u8>)> {
    let mut rows = tools::rows(path).expect("rows");
    let events = rows.iter().filter(|(table, ..)| table == "events").map(|(_, key, _)| key.clone());
    let events: std::collections::HashSet<Vec<u8>> = events.collect();
    rows.retain(|(table, _, value)| table != "expiry" || value.chunks(6).any(|cursor| events.contains(cursor)));
    rows
}

/// Bytes of pages, index entries, events and marks are flipped, spread over the whole file. A flip that no check finds
/// must leave every row of every table as it was: it fell on room that holds nothing.
#[tokio::test]
async fn a_flipped_byte_is_found() {
    let (directory, _) = filled(WAYS[1]).await;
    // Without free pages more of the bytes mean something.
    compact(directory.path(), Options::default()).expect("it is compacted");
    let (_copy, path) = copied(directory.path());
    let rows = meant(&path);
    let bytes = fs::metadata(&path).expect("a file").len();
    let (mut found, mut tried, mut offset, mut bits) = (0, 0, 11, 1_u8);
    while offset < bytes {
        tried += 1;
        let before = flip(&path, offset, bits);
        if faults(&path, Depth::Relations).is_empty() {
            assert!(meant(&path) == rows, "byte {offset} ^ {bits}: another row, and no fault");
        } else {
            found += 1;
        }
        flip(&path, offset, bits);
        let file = File::open(&path).expect("a file");
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).expect("a byte");
        assert_eq!(byte[0], before);
        // A prime, so that all parts of pages come up.
        offset += match offset % 4_096 {
            0..200 if offset < 8_192 => 7,
            _ if offset < 8_192 => 997,
            _ => (bytes / 600) | 1,
        };
        bits = bits.rotate_left(1);
    }
    println!("{tried} bytes flipped, {found} found, the others hold nothing");
    assert!(found * 2 > tried, "{found} of {tried}");
}

/// Each row's value is changed, one of each table: each such change is found, and said of its table.
#[tokio::test]
async fn a_changed_value_is_found_in_each_table() {
    let (directory, _) = filled(WAYS[1]).await;
    let (_copy, path) = copied(directory.path());
    let content = fs::read(&path).expect("bytes");
    let mut seen = std::collections::BTreeMap::<String, usize>::new();
    for (table, key, value) in meant(&path) {
        let count = seen.entry(table.clone()).or_default();
        if *count >= 3 {
            continue;
        }
        *count += 1;
        // A row's key stands before its value. Free pages may hold the same bytes from before.
        let row = [&key[..], &value[..value.len().min(40)]].concat();
        let places = content.windows(row.len()).enumerate().filter(|(_, it)| *it == row).map(|(at, _)| at as u64);
        let is_found = places.into_iter().any(|at| {
            let last = at + row.len() as u64 - 1;
            flip(&path, last, 1);
            let told = faults(&path, Depth::Relations);
            flip(&path, last, 1);
            !told.is_empty()
        });
        assert!(is_found, "table {table}, a row of {} and {} bytes", key.len(), value.len());
    }
    for table in ["events", "index", "received", "ids", "members", "tombstones", "key-packages", "meta", "expiry"] {
        assert!(seen.contains_key(table), "{table} was not tried: {seen:?}");
    }
}

#[tokio::test]
async fn a_repair_makes_indexes_anew_and_loses_nothing_unasked() {
    let (directory, whole) = filled(WAYS[1]).await;
    let bytes = fs::metadata(directory.path().join(DATA_FILE)).expect("a file").len();
    let (mut repaired, mut refused, mut lossy) = (0, 0, 0);
    for n in 0..60 {
        let (copy, path) = copied(directory.path());
        flip(&path, 8_192 + (bytes - 8_192) / 61 * n + 7 * n, 1 << (n % 8));
        if faults(&path, Depth::Relations).is_empty() {
            continue;
        }
        let damaged = fs::read(&path).expect("bytes");
        let Ok((rebuilt, kept)) = repair(copy.path(), false) else {
            // Nothing could be read, and nothing is changed.
            assert_eq!(fs::read(&path).expect("bytes"), damaged);
            continue;
        };
        match kept {
            Some(kept) => {
                repaired += 1;
                assert_eq!(fs::read(kept).expect("bytes"), damaged);
                assert_eq!(faults(&path, Depth::Signatures), [""; 0]);
                assert!(held(copy.path()).await == whole, "{n}: {:?}", rebuilt.faults.told());
            }
            None => {
                refused += 1;
                assert_eq!(fs::read(&path).expect("bytes"), damaged);
                let (rebuilt, kept) = repair(copy.path(), true).expect("a repair that may lose rows ends");
                assert!(kept.is_some());
                lossy += 1;
                assert_eq!(faults(&path, Depth::Signatures), [""; 0], "{:?}", rebuilt.lost);
                assert!(held(copy.path()).await.iter().all(|line| whole.contains(line) || line.contains("group")));
            }
        }
    }
    println!("{repaired} repaired without loss, {refused} refused, {lossy} of these repaired with loss");
    assert!(repaired > 3 && refused > 3 && lossy > 3, "{repaired} {refused} {lossy}");
}

/// A backup is restored elsewhere with everything but the secret, under which cursors were given out.
#[tokio::test]
async fn a_backup_is_restored_elsewhere() {
    let (directory, whole) = filled(opened).await;
    let (backups, to) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let backup = backups.path().join("backup.mdb");
    let mut file = File::create(&backup).expect("a file");
    Beside::open(directory.path()).expect("a store").copy_to(&mut file).expect("a copy");
    let digest =
        tools::hash(&mut File::open(&backup).expect("a file"), &mut std::io::sink(), &mut |_| {}).expect("a hash");
    let wrong = [7; 32];
    let restored = |digest: &[u8; 32], to: &Path| restore(&backup, Some(digest), to, Options::default(), &mut |_| {});
    let refused = restored(&wrong, to.path()).expect_err("another checksum");
    assert!(refused.to_string().contains("use another backup"), "{refused}");
    assert!(!to.path().join(DATA_FILE).exists());
    restored(&digest, to.path()).expect("a store");
    assert_eq!(held(to.path()).await, whole);
    let refused = restored(&digest, to.path()).expect_err("there is a store");
    assert!(refused.to_string().contains("there is a store already"), "{refused}");
    let secret = |directory: &Path| nostr_store::Store::secret(&opened(directory));
    assert_ne!(secret(to.path()), secret(directory.path()));
}

#[tokio::test]
async fn a_store_is_compacted() {
    let (directory, whole) = filled(WAYS[2]).await;
    let done = compact(directory.path(), Options::default()).expect("it is compacted");
    assert!(done.after < done.before, "{done:?}");
    assert_eq!(faults(&directory.path().join(DATA_FILE), Depth::Signatures), [""; 0]);
    assert_eq!(held(directory.path()).await, whole);
}

/// A store of an older layout is told, its pages and events are checked, and a repair leaves it alone.
#[tokio::test]
async fn an_older_layout_is_no_damage_and_is_not_repaired() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join(DATA_FILE);
    drop(opened(directory.path()));
    let content = fs::read(&path).expect("bytes");
    // The version in front of its checksum, on every page that holds it; the checksum's name is made unknown.
    let replaced = |content: &[u8], from: &[u8], to: &[u8]| {
        let mut content = content.to_vec();
        for at in 0..content.len() - from.len() {
            if content[at..].starts_with(from) {
                content[at..at + to.len()].copy_from_slice(to);
            }
        }
        content
    };
    let older = replaced(&content, b"schema\0\0\0\x05", b"schema\0\0\0\x04");
    assert_ne!(older, content);
    fs::write(&path, &older).expect("it is written");
    assert!(!faults(&path, Depth::Relations).is_empty(), "its checksum is that of the newer layout");
    fs::write(&path, replaced(&older, b"schema#", b"schema!")).expect("it is written");
    let checked = check_store(directory.path(), Depth::Relations, &mut |_, _| {}).expect("a check");
    assert_eq!(checked.older_layout, Some(4));
    // An older layout may have a checksum of its version.
    let sum = |version: u8| crc32fast::hash(&[b"schema\0\0\0", &[version][..]].concat()).to_be_bytes();
    fs::write(&path, replaced(&older, &sum(5), &sum(4))).expect("it is written");
    let checked = check_store(directory.path(), Depth::Relations, &mut |_, _| {}).expect("a check");
    assert_eq!(checked.older_layout, Some(4));
    let refused = repair(directory.path(), true).expect_err("no checksums");
    assert!(refused.to_string().contains("older"), "{refused}");
}
