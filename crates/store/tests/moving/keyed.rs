//! Exports under a key, and hands that change a file without it.

use std::{io::Cursor, sync::Arc};

use nostr_protocol::hex;
use nostr_store::{
    Store as _,
    memory::Memory,
    moving::{ExportError, FileContent, FileKey, ImportError, ImportOptions, export, import, resume},
    suite::{
        moving::{LARGE, dump, fill},
        world::{START, Subject, World},
    },
};
use sha2::{Digest as _, Sha256};

use super::foreign::foreign_rules;

const NOW: u64 = START + 60;

fn key(byte: u8) -> FileKey {
    FileKey::parse(&[byte; 32]).expect("a key")
}

/// A store with records of every sort, and its export under `key`.
async fn exported(key: Option<&FileKey>) -> (Arc<Memory>, Vec<u8>) {
    let store = Arc::new(Memory::new());
    let mut world = World::new(Subject { store: Arc::clone(&store) as _, keep: Box::new(()) });
    fill(&mut world).await;
    let mut text = Vec::new();
    export(&*store, &mut text, None, key, "9.9.9", NOW, |_| ()).await.expect("an export");
    (store, text)
}

async fn imported(to: &Memory, text: &[u8], key: Option<FileKey>, skip_bad: bool) -> Result<(), ImportError> {
    let options = ImportOptions {
        threads: 2,
        skip_bad,
        done: None,
        key,
        foreign: foreign_rules(),
        events: false,
        trust: true,
        check_orders: |_| Ok(()),
    };
    import(to, Box::new(Cursor::new(text.to_vec())), options, || NOW, |_| ()).await.1
}

async fn is_empty(store: &Memory) -> bool {
    let stats = store.stats().await.expect("stats");
    (stats.groups, stats.events) == (0, 0)
}

/// The file as anyone can make it who lacks the key: group lines changed, and all checksums made anew.
fn changed(text: &[u8]) -> Vec<u8> {
    let mut out = String::new();
    for line in std::str::from_utf8(text).expect("text").lines() {
        let mut line = line.to_owned();
        if line.starts_with(r#"{"group""#) {
            line = line.replace("\"seq\":9", "\"seq\":8");
        }
        if let Some(at) = line.find("\"sha256\":\"") {
            let at = at + "\"sha256\":\"".len();
            line.replace_range(at..at + 64, &hex::to_hex(&Sha256::digest(&out)));
        }
        out.push_str(&line);
        out.push('\n');
    }
    assert!(out.as_bytes() != text);
    out.into_bytes()
}

#[tokio::test]
async fn a_keyed_export_reads_back_under_its_key() {
    let ours = key(7);
    let (store, text) = exported(Some(&ours)).await;
    assert!(text.starts_with(br#"{"rnostr_export":{"format":2,"#), "an older release says that it cannot read it");
    let to = Memory::new();
    imported(&to, &text, Some(ours.clone()), false).await.expect("an import");
    assert_eq!(dump(&to, LARGE, NOW).await, dump(&*store, LARGE, NOW).await);
    // A part of it is finished under the same key, and under no other.
    let part = &text[..text.len() * 9 / 10];
    for other in [None, Some(&key(8))] {
        assert!(matches!(resume(part, other), Err(ExportError::File(_))));
    }
    let Ok(FileContent::Part(begun)) = resume(part, Some(&ours)) else { panic!("not begun") };
    let mut file = part[..begun.bytes() as usize].to_vec();
    export(&*store, &mut file, Some(begun), Some(&ours), "9.9.9", NOW, |_| ()).await.expect("the rest");
    assert!(file == text, "the same file");
}

#[tokio::test]
async fn a_keyed_export_is_refused_without_its_key() {
    let (_, keyed) = exported(Some(&key(7))).await;
    let (_, plain) = exported(None).await;
    for (text, with, word) in [
        (&keyed, None, "name the key's file with --key-file"),
        (&keyed, Some(key(8)), "under another key"),
        (&plain, Some(key(7)), "without a key"),
    ] {
        for skip_bad in [false, true] {
            let to = Memory::new();
            let refused = imported(&to, text, with.clone(), skip_bad).await.expect_err("it is refused");
            assert!(refused.to_string().contains(word), "{refused}");
            assert!(is_empty(&to).await, "nothing is written");
        }
    }
}

#[tokio::test]
async fn a_changed_group_line_is_refused_under_a_key() {
    let (_, keyed) = exported(Some(&key(7))).await;
    let forged = changed(&keyed);
    for skip_bad in [false, true] {
        let to = Memory::new();
        let refused = imported(&to, &forged, Some(key(7)), skip_bad).await;
        assert!(matches!(refused, Err(ImportError::Forged { .. })), "{refused:?}");
        assert!(is_empty(&to).await, "no page behind a changed line is written");
    }
    // Without a key the same hand goes unseen, as docs/moving.md says.
    let (store, plain) = exported(None).await;
    let to = Memory::new();
    imported(&to, &changed(&plain), None, false).await.expect("the hashes are right");
    assert_ne!(dump(&to, LARGE, NOW).await, dump(&*store, LARGE, NOW).await);
}

/// Times and flags beside an event have no signature, so a page of events is not believed either.
#[tokio::test]
async fn a_changed_time_of_an_event_is_refused_under_a_key() {
    let (_, keyed) = exported(Some(&key(7))).await;
    let text = String::from_utf8(keyed).expect("text");
    let forged = text.replacen("\"received_at\":1", "\"received_at\":2", 1);
    assert_ne!(forged, text);
    let to = Memory::new();
    let refused = imported(&to, forged.as_bytes(), Some(key(7)), true).await;
    assert!(matches!(refused, Err(ImportError::Forged { .. })), "{refused:?}");
    assert_eq!(to.stats().await.expect("stats").events, 0);
}
