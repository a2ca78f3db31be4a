//! The stock that an owner keeps: the newest by the times that the owner signed, whoever sends them and when.

use nostr_extensions::mls_gateway::group::Refusal;
use nostr_protocol::{EventId, UnixSecs, hex, testing::EventBuilder};

use super::{
    claims::{claimed, publish, stock},
    world::{START, World, claim_of, deletion, event, given, id_of, key_package, new},
};
use crate::{
    Saved,
    decide::stock::{LAST_RESORT_MAX, TWINS_MAX},
};

/// A 443 whose bytes mark it as one of last resort.
fn of_last_resort(n: u8, at: UnixSecs) -> EventBuilder {
    let mut bytes = vec![0, 1, 0, 1, 1, n, 1, 99, 1, 7, 0, 1, 1, 8, 0, 0, 0, 0, 0, 1];
    bytes.extend_from_slice(&START.to_be_bytes());
    bytes.extend_from_slice(&(START + 80_000).to_be_bytes());
    bytes.extend_from_slice(&[0, 1, 9, 3, 0, 0x0a, 0, 1, 9]);
    event(443, &hex::to_hex(&bytes)).at(at)
}

fn package(n: u64) -> EventBuilder {
    key_package(&format!("package {n}"), &format!("ref {n}")).at(START + n)
}

async fn is_too_old(w: &World, event: &EventBuilder) -> bool {
    let saved = w.publish(event, "alice").await;
    let is_too_old = matches!(saved, Saved::Refused(Refusal::StockIsNewer));
    assert!(is_too_old || saved.new_event().is_some(), "{saved:?}");
    is_too_old
}

pub async fn of_an_owner_the_newest_packages_are_kept(w: &mut World) {
    w.policy.keypackages_per_owner_max = 3;
    let ids = publish(w, "alice", 0..2).await;
    let twin = event(30_443, "package 0").tag(&["d", "slot"]);
    let twin = id_of(&new(w.publish(&twin, "alice").await));
    let more = publish(w, "alice", 2..3).await;
    assert_eq!(stock(w, "alice", START).await, (3, 0), "twins count once");
    let counted = w.store.stats().await.expect("stats").key_packages;
    assert!(counted.is_none_or(|count| count >= 3), "{counted:?} KeyPackages in the directory");
    assert!(w.holds(ids[0]).await && w.holds(twin).await);
    let last = publish(w, "alice", 3..4).await;
    assert!(!w.holds(ids[0]).await && !w.holds(twin).await, "the oldest goes with its twins");
    for id in [ids[1], more[0], last[0]] {
        assert!(w.holds(id).await);
    }
    assert_eq!(stock(w, "alice", START).await, (3, 0));
    // In one batch too, and another twin of one that stays takes no place.
    let twin = w.admitted(&event(30_443, "package 3").tag(&["d", "other"]), "alice").await;
    let next = w.admitted(&package(4), "alice").await;
    let after = w.admitted(&package(5), "alice").await;
    w.save(vec![twin, next, after]).await;
    assert_eq!(stock(w, "alice", START).await, (3, 0));
    assert!(!w.holds(ids[1]).await && !w.holds(more[0]).await && w.holds(last[0]).await);
    // Other owners have their own.
    publish(w, "bob", 0..3).await;
    assert_eq!(stock(w, "bob", START).await, (3, 0));
}

/// Anyone who kept an owner's signed events may publish them again.
pub async fn what_is_sent_again_pushes_nothing_newer_out(w: &mut World) {
    w.policy.keypackages_per_owner_max = 3;
    let ids = publish(w, "alice", 0..6).await;
    let kept = async |w: &World| {
        for (n, id) in ids.iter().enumerate() {
            assert_eq!(w.holds(*id).await, n >= 3, "{n}");
        }
    };
    kept(w).await;
    for n in 0..3 {
        assert!(is_too_old(w, &package(n)).await, "{n}");
    }
    kept(w).await;
    // In one batch too.
    let batch = [package(0), package(7), package(1)];
    let mut admitted = Vec::new();
    for event in &batch {
        admitted.push(w.admitted(event, "alice").await);
    }
    let saved = w.save(admitted).await;
    let old = |saved: &Saved| matches!(saved, Saved::Refused(Refusal::StockIsNewer));
    assert!(old(&saved[0]) && saved[1].new_event().is_some() && old(&saved[2]), "{saved:?}");
    assert!(!w.holds(ids[3]).await && w.holds(ids[4]).await && w.holds(ids[5]).await);
    // The event with the lowest id counts as the newest of one second, as in NIP-01.
    let mut same: Vec<EventId> = Vec::new();
    for n in 0..5_u64 {
        let event = key_package(&format!("same {n}"), &format!("same {n}")).at(START + 200);
        let admitted = w.admitted(&event, "alice").await;
        same.push(admitted.event().id());
        w.save(vec![admitted]).await;
    }
    same.sort_unstable();
    for (n, id) in same.iter().enumerate() {
        assert_eq!(w.holds(*id).await, n < 3, "{n}");
    }
}

pub async fn a_refused_version_leaves_the_one_before_it(w: &mut World) {
    w.policy.keypackages_per_owner_max = 2;
    let slot = |n: u64| event(30_443, &format!("slot {n}")).at(START + n).tag(&["d", "slot"]);
    let before = id_of(&new(w.publish(&slot(1), "alice").await));
    w.policy.keypackages_per_owner_max = 3;
    publish(w, "alice", 20..22).await;
    // The operator lowers the bound: the next version of the slot is older than as many as are kept.
    w.policy.keypackages_per_owner_max = 2;
    assert!(is_too_old(w, &slot(2)).await);
    assert!(w.holds(before).await);
    assert!(!is_too_old(w, &slot(30)).await && !w.holds(before).await);
}

pub async fn an_owner_keeps_a_bounded_number_of_last_resort(w: &mut World) {
    let most = LAST_RESORT_MAX as u64;
    let at = |n: u64| of_last_resort(n as u8, START - 100 + n);
    let mut ids = Vec::new();
    for n in 1..=most {
        ids.push(id_of(&new(w.publish(&at(n), "alice").await)));
    }
    assert_eq!(stock(w, "alice", START).await, (0, LAST_RESORT_MAX));
    assert!(is_too_old(w, &at(0)).await);
    let newest = id_of(&new(w.publish(&at(most + 1), "alice").await));
    assert_eq!(stock(w, "alice", START).await, (0, LAST_RESORT_MAX));
    assert!(!w.holds(ids[0]).await && w.holds(ids[1]).await && w.holds(newest).await);
    // It may have been given, so it does not come back, in no event and also where there is room.
    new(w.publish(&deletion(&ids[5..8]), "alice").await);
    for again in [at(1), at(1).at(START + 70)] {
        assert!(matches!(w.publish(&again, "alice").await, Saved::Deleted));
    }
    // Ordinary ones are counted by themselves.
    publish(w, "alice", 0..2).await;
    assert_eq!(stock(w, "alice", START).await, (2, LAST_RESORT_MAX - 3));
}

pub async fn a_bounded_number_of_events_holds_one_package(w: &mut World) {
    let twin = |n: u64| key_package("package", "ref").at(START + n);
    let mut ids = Vec::new();
    for n in 1..=TWINS_MAX as u64 {
        ids.push(id_of(&new(w.publish(&twin(n), "alice").await)));
    }
    assert!(is_too_old(w, &twin(0)).await);
    let newest = id_of(&new(w.publish(&twin(50), "alice").await));
    assert!(!w.holds(ids[0]).await && w.holds(ids[1]).await && w.holds(newest).await);
    assert_eq!(stock(w, "alice", START).await, (1, 0));
    assert_eq!(given(&claimed(w, &claim_of("alice", 5), START).await).len(), 1);
}

pub async fn what_was_given_never_becomes_new(w: &mut World) {
    let slot = |n: u64| event(30_443, "package").at(START + n).tag(&["d", "slot"]);
    new(w.publish(&slot(0), "alice").await);
    assert_eq!(claimed(w, &claim_of("alice", 1), START).await.used, 0);
    assert_eq!(stock(w, "alice", START).await, (0, 1));
    // The owner signs the same bytes anew.
    new(w.publish(&slot(1), "alice").await);
    assert_eq!(stock(w, "alice", START).await, (0, 1));
}

pub async fn a_used_up_package_never_comes_back(w: &mut World) {
    publish(w, "alice", 0..3).await;
    let taken = claimed(w, &claim_of("alice", 2), START).await;
    assert_eq!(taken.used, 2);
    for n in 0..2_u64 {
        assert!(matches!(w.publish(&package(n), "alice").await, Saved::Deleted), "the very event, sent again");
        let again = key_package(&format!("package {n}"), "other").at(START + 50);
        assert!(matches!(w.publish(&again, "alice").await, Saved::Deleted));
    }
}

/// The version that holds an address goes by a claim, or gives way. Anyone who kept the version before it may publish
/// that again.
pub async fn an_older_version_never_comes_back(w: &mut World) {
    w.policy.keypackages_per_owner_max = 3;
    let slot = |d: &str, n: u64| event(30_443, &format!("{d} {n}")).at(START + n).tag(&["d", d]);
    let too_late = async |w: &World, event: &EventBuilder| {
        let saved = w.publish(event, "alice").await;
        assert!(matches!(saved, Saved::Deleted), "{saved:?}");
    };
    new(w.publish(&slot("given", 1), "alice").await);
    let given_version = id_of(&new(w.publish(&slot("given", 2), "alice").await));
    // A twin of another address goes with it.
    new(w.publish(&slot("twin", 2), "alice").await);
    let twin = event(30_443, "given 2").at(START + 4).tag(&["d", "twin"]);
    new(w.publish(&twin, "alice").await);
    new(w.publish(&slot("leaves", 5), "alice").await);
    let leaving = id_of(&new(w.publish(&slot("leaves", 6), "alice").await));
    let taken = claimed(w, &claim_of("alice", 1), START).await;
    assert_eq!((taken.used, given(&taken)), (1, vec![given_version]));
    for older in [slot("given", 1), slot("twin", 2)] {
        too_late(w, &older).await;
    }
    publish(w, "alice", 20..23).await;
    assert!(!w.holds(leaving).await, "it gave way");
    claimed(w, &claim_of("alice", 1), START).await;
    too_late(w, &slot("leaves", 5)).await;
    // A newer version has its address.
    for newer in [slot("given", 3), slot("leaves", 30)] {
        let saved = w.publish(&newer, "alice").await;
        assert!(saved.new_event().is_some(), "{saved:?}");
    }
}
