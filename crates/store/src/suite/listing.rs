//! Lists of all groups and of all owners of KeyPackages, page by page.

use nostr_extensions::NostrGroupId;
use nostr_protocol::PublicKey;

use super::{
    claims::publish,
    world::{START, World, capability, group, key, message, new, roster, wrap},
};

/// The groups behind a place in pages of this size, to the end.
async fn groups(w: &World, prefix: &str, after: Option<&str>, most: usize) -> Vec<String> {
    let mut behind: Option<NostrGroupId> = after.map(group);
    let mut all = Vec::new();
    loop {
        let page = w.store.groups_after(prefix, behind.as_ref(), most).await.expect("a page");
        assert!(page.entries.len() <= most && page.cost.units > 0, "{page:?}");
        all.extend(page.entries.iter().map(|id| id.as_str().to_owned()));
        behind = page.next;
        if behind.is_none() {
            return all;
        }
    }
}

pub async fn managed_groups_are_listed_in_the_order_of_their_ids(w: &World) {
    assert_eq!(groups(w, "", None, 2).await, [""; 0]);
    for (n, id) in ["grp.b", "Grp", "grp", "grp-a", "z", "grp:10", "grp:9"].into_iter().enumerate() {
        new(w.publish_at(START + n as u64, &roster(id, 1, "bootstrap", &["alice"]), "admin").await);
    }
    new(w.publish(&wrap("bob", "1").tag(&["h", "by-wrap"]), "alice").await);
    // An unlisted group is in no list.
    w.send(&message(&capability("room"), "hi"), "throw-away", "alice").await;
    let all = ["Grp", "by-wrap", "grp", "grp-a", "grp.b", "grp:10", "grp:9", "z"];
    for most in [1, 2, 3, 8, 50] {
        assert_eq!(groups(w, "", None, most).await, all, "{most}");
        assert_eq!(groups(w, "grp", None, most).await, all[2..7], "{most}");
        assert_eq!(groups(w, "grp:", None, most).await, all[5..7], "{most}");
        assert_eq!(groups(w, "", Some("grp-a"), most).await, all[4..], "{most}");
        // A place need not be a group, and may lie before the prefix.
        assert_eq!(groups(w, "grp", Some("a"), most).await, all[2..7], "{most}");
        assert_eq!(groups(w, "grp", Some("grp:5"), most).await, all[6..7], "{most}");
        assert_eq!(groups(w, "grp", Some("y"), most).await, [""; 0], "{most}");
        assert_eq!(groups(w, "nothing", None, most).await, [""; 0], "{most}");
    }
}

pub async fn owners_of_key_packages_are_listed_in_the_order_of_their_keys(w: &mut World) {
    assert_eq!(w.store.owners_after(None, 5).await.expect("a page").entries, []);
    let mut all: Vec<PublicKey> = Vec::new();
    for (n, name) in ["alice", "bob", "carol", "dave", "eve"].into_iter().enumerate() {
        publish(w, name, 0..n as u64 + 1).await;
        all.push(key(name));
    }
    all.sort_unstable();
    for most in [1, 2, 5, 50] {
        for from in 0..=all.len() {
            let mut behind = from.checked_sub(1).map(|at| all[at]);
            let mut found = Vec::new();
            loop {
                let page = w.store.owners_after(behind.as_ref(), most).await.expect("a page");
                assert!(page.entries.len() <= most && page.cost.units > 0, "{page:?}");
                found.extend(page.entries);
                behind = page.next;
                if behind.is_none() {
                    break;
                }
            }
            assert_eq!(found, all[from..], "{most} {from}");
        }
    }
    let last = PublicKey::from_bytes([0xff; 32]);
    assert_eq!(w.store.owners_after(Some(&last), 5).await.expect("a page").entries, []);
}
