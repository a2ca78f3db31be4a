//! Moves from one store to another, compared record by record.

use std::collections::BTreeMap;

use nostr_extensions::{Policy, Restored, mls_gateway::mls::ContentType};
use nostr_protocol::UnixSecs;

use super::{
    order::private_message,
    world::{
        START, World, capability, claim_of, deletion, event, group, key, key_package, message, new, roster, vanish,
        wrap,
    },
};
use crate::moving::{ExportBounds, ExportPosition, Exported, Imported, Moving, Record, line};

/// Bounds so small that every part of an export takes several pages.
pub const SMALL: ExportBounds = ExportBounds { records_max: 2, bytes_max: 4_096 };
/// Bounds so large that most parts of an export fit into one page.
pub const LARGE: ExportBounds = ExportBounds { records_max: 1_000, bytes_max: 4 << 20 };

/// The content of an event that [`fill`] stores and later deletes.
pub const DELETED: &str = "deleted";

/// All pages of a store.
pub async fn pages(store: &dyn Moving, bounds: ExportBounds, now: UnixSecs) -> Vec<Vec<Record<Exported>>> {
    let mut pages = Vec::new();
    let mut place = Some(ExportPosition::start(store.head()));
    while let Some(from) = place {
        // The place as it is written down and read back.
        let from = ExportPosition::parse(&from.to_string()).expect("a place");
        let page = store.export(&from, bounds, now).await.expect("a page");
        assert!(page.records.len() <= bounds.records_max);
        assert!(page.next.as_ref() != Some(&from), "a page that goes on from where it began");
        pages.push(page.records);
        place = page.next;
    }
    pages
}

/// Everything that a store holds, one line for each record.
pub async fn dump(store: &dyn Moving, bounds: ExportBounds, now: UnixSecs) -> Vec<String> {
    pages(store, bounds, now).await.concat().iter().map(line::text_of).collect()
}

/// The record as it comes out of its line, verified.
#[must_use]
pub fn restored(record: &Record<Exported>) -> Record<Restored> {
    match line::read(line::text_of(record).trim_end().as_bytes()) {
        Ok(line::Line::Record(record)) => record,
        Ok(_) => panic!("no record"),
        Err(error) => panic!("{error}"),
    }
}

/// Moves everything, page by page, and counts the outcomes.
pub async fn transfer(
    from: &dyn Moving,
    to: &dyn Moving,
    bounds: ExportBounds,
    now: UnixSecs,
) -> BTreeMap<Imported, usize> {
    let mut outcomes = BTreeMap::new();
    for page in pages(from, bounds, now).await {
        let count = page.len();
        let imported = to.import(page.iter().map(restored).collect(), now).await.expect("an import");
        assert_eq!(imported.len(), count);
        for outcome in imported {
            *outcomes.entry(outcome).or_default() += 1;
        }
    }
    outcomes
}

/// Stores something of every sort.
pub async fn fill(w: &mut World) {
    let h = capability("unlisted");
    let deleted = new(w.publish(&event(1, DELETED), "alice").await).position().id;
    for n in 0..5 {
        new(w.publish(&event(1, &format!("note {n}\t\u{7}\u{1F980}")).at(START - n).tag(&["t", "all"]), "alice").await);
    }
    new(w.publish(&event(0, "{}"), "alice").await);
    for d in ["a", "b"] {
        new(w.publish(&event(30_023, d).tag(&["d", d]), "alice").await);
    }
    let brief = |secs: u64| event(1, "brief").tag(&["expiration", &(START + secs).to_string()]);
    new(w.publish(&brief(1), "alice").await);
    new(w.publish(&brief(1_000), "alice").await);
    w.send(&event(4, "psst").tag(&["p", &key("bob").to_hex()]), "alice", "alice").await;
    w.send(&event(446, "noise").tag(&["v", "noise.1"]).tag(&["p", &key("bob").to_hex()]), "alice", "alice").await;
    new(w.publish(&event(20_001, "passing"), "alice").await);

    new(w.publish(&roster("grp", 7, "bootstrap", &["alice", "bob"]).tag(&["name", "a \"name\""]), "admin").await);
    new(w.publish(&roster("grp", 9, "promote", &["alice"]), "admin").await);
    w.send(&message("grp", "hi").tag(&["k", "12"]), "throw-away", "alice").await;
    w.send(&message(&h, "hi"), "throw-away", "alice").await;
    let ordered = roster("ordered", 1, "bootstrap", &["alice"]).tag(&["commit_ordering", "strict"]);
    new(w.publish(&ordered, "admin").await);
    for epoch in [7, 8] {
        w.send(&private_message("ordered", epoch, ContentType::Commit, "commit"), "throw-away", "alice").await;
    }
    for more in ["second", "third"] {
        w.send(&message(&capability(more), "hi"), "throw-away", more).await;
        w.send(&wrap("bob", "welcome").tag(&["h", more]), "throw-away", more).await;
        new(w.publish(&vanish(START - 10), more).await);
    }
    w.send(&wrap("bob", "welcome").tag(&["h", "wrapped"]), "throw-away", "alice").await;
    w.send(&wrap("carol", "welcome").tag(&["h", "wrapped"]), "throw-away", "bob").await;
    w.send(&wrap("carol", "to carol"), "throw-away", "bob").await;
    new(w.publish(&roster("left", 1, "bootstrap", &["eve", "bob"]), "admin").await);

    for (content, reference) in [("one", "1"), ("two", "2"), ("three", "3")] {
        new(w.publish(&key_package(content, reference), "alice").await);
    }
    new(w.publish(&event(30_443, "two").tag(&["d", "slot"]), "alice").await);
    assert_eq!(w.store.claim_key_packages(&claim_of("alice", 2), START).await.expect("a claim").given.len(), 2);
    for content in ["four", "five"] {
        new(w.publish(&key_package(content, content), "bob").await);
    }
    assert_eq!(w.store.claim_key_packages(&claim_of("bob", 1), START).await.expect("a claim").given.len(), 1);

    new(w.publish(&deletion(&[deleted]), "alice").await);
    let later = event(1, "comes later");
    let later_id = w.admitted(&later, "bob").await.event().id();
    new(w.publish(&deletion(&[later_id]), "bob").await);
    for d in ["a", "never here", "nor this"] {
        let address = format!("30023:{}:{d}", key("alice").to_hex());
        new(w.publish(&event(5, "").tag(&["a", &address]), "alice").await);
    }

    let off = Policy { archive_secs: None, ..w.policy.clone() };
    let archive = std::mem::replace(&mut w.policy, off);
    w.send(&message("grp", "in the log alone"), "throw-away", "alice").await;
    w.policy = archive;

    new(w.publish(&event(1, "by eve"), "eve").await);
    w.send(&wrap("eve", "to eve"), "throw-away", "bob").await;
    new(w.publish(&vanish(START), "eve").await);
    new(w.publish(&event(1, "by eve, later").at(START + 1), "eve").await);

    let most = nostr_extensions::mls_gateway::group::ROSTER_KEYS_MAX;
    let names: Vec<String> = (0..most + 100).map(|n| format!("member {n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    new(w.publish(&roster("large", 1, "bootstrap", &names[..most]), "admin").await);
    new(w.publish(&roster("large", 2, "add", &names[most..]).tag(&["role", "admin"]), "admin").await);
}

/// Checks a store into which [`fill`] was moved: deleted events stay deleted, and former members stay out.
pub async fn gone_for_good(w: &World) {
    use crate::Saved::{Deleted, Refused};
    let h = capability("unlisted");
    assert!(matches!(w.publish(&event(1, DELETED), "alice").await, Deleted));
    assert!(matches!(w.publish(&event(1, "comes later"), "bob").await, Deleted));
    assert!(matches!(w.publish(&event(30_023, "a").tag(&["d", "a"]), "alice").await, Deleted));
    assert!(matches!(w.publish(&key_package("one", "4"), "alice").await, Deleted), "claimed");
    assert!(matches!(w.publish(&event(1, "by eve"), "eve").await, Deleted), "vanished");
    assert!(matches!(w.publish(&roster("grp", 9, "add", &["eve"]), "admin").await, Refused(_)), "a seq again");
    assert!(matches!(w.publish(&roster(&h, 1, "bootstrap", &["eve"]), "admin").await, Refused(_)), "unlisted");
    let late = private_message("ordered", 8, ContentType::Commit, "late");
    assert!(matches!(w.publish(&late, "alice").await, Refused(_)), "an epoch with a commit");
    assert!(matches!(w.publish(&key_package("other", "3"), "alice").await, Refused(_)), "a reference");
    let state = w.store.group(&group("wrapped")).await.expect("a state").0;
    assert!(state.has_member(&[key("carol")]) && !state.has_member(&[key("eve")]));
}
