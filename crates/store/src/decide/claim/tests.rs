use nostr_protocol::PublicKey;

use super::*;
use crate::{ClaimFilters, ClaimRates};

const OWNER: PublicKey = PublicKey::from_bytes([1; 32]);
const NOW: UnixSecs = 1_795_370_771;

fn claim(given_max: usize, used_max: usize) -> Claim {
    Claim::new(OWNER, ClaimFilters::of_owner(OWNER, None, 500), given_max, used_max)
}

fn owned(n: u8, last_resort: bool) -> Owned {
    Owned { cursor: n.into(), id: EventId::from_bytes([n; 32]), content_hash: [n; 32], last_resort }
}

/// Chooses among all of an owner's KeyPackages, while only those of `left` are there.
fn pick_of(claim: &Claim, all: &[Owned], left: &[Owned]) -> Pick {
    let candidate = |it: &Owned| Candidate { owned: it.clone(), matching: vec![0], bytes: 100 };
    let candidates: Vec<Candidate> = all.iter().map(candidate).collect();
    pick(claim, &candidates, &Stock::of(claim, &candidates, left.iter()), &Ledger::default(), NOW)
}

/// The cursors of those that are given and of those that go.
fn picked(claim: &Claim, all: &[Owned], left: &[Owned]) -> (Vec<Cursor>, Vec<Cursor>, bool, bool) {
    let pick = pick_of(claim, all, left);
    let given = pick.given.iter().map(|chosen| all[chosen.candidate].cursor).collect();
    let gone = pick.gone.iter().map(|(cursor, _)| *cursor).collect();
    (given, gone, pick.withheld, pick.is_overtaken)
}

#[test]
fn last_resort_comes_last_and_stays() {
    let all = [owned(1, false), owned(2, false), owned(9, true)];
    assert_eq!(picked(&claim(3, 3), &all, &all), (vec![1, 2, 9], vec![1, 2], false, false));
    assert_eq!(picked(&claim(1, 1), &all, &all), (vec![1], vec![1], false, false));
    // Without a right to use any up, the one that stays is given.
    assert_eq!(picked(&claim(2, 0), &all, &all), (vec![9], vec![], true, false));
}

#[test]
fn the_last_one_of_that_moment_stays() {
    let all = [owned(1, false), owned(2, false)];
    assert_eq!(picked(&claim(2, 2), &all, &all), (vec![1, 2], vec![1], false, false));
    assert_eq!(picked(&claim(2, 2), &all, &all[1..]), (vec![2], vec![], false, false));
    assert_eq!(picked(&claim(2, 2), &all[..1], &all), (vec![1], vec![1], false, false), "the owner has others");
}

#[test]
fn the_last_one_is_of_last_resort_once_it_is_given() {
    let all = [owned(1, false), owned(2, false)];
    let last = pick_of(&claim(1, 1), &all[..1], &all[..1]);
    assert_eq!((last.last, last.remaining), (Some([1; 32]), 0));
    // A new one is then used up before it.
    let newer = [owned(2, false), owned(1, true)];
    let next = pick_of(&claim(1, 1), &newer, &newer);
    assert_eq!((next.used, next.last, next.remaining), (vec![[2; 32]], None, 0));
}

#[test]
fn remaining_ones_were_never_given() {
    let all = [owned(1, false), owned(2, false), owned(3, false), owned(9, true)];
    assert_eq!(pick_of(&claim(1, 1), &all, &all).remaining, 2);
    assert_eq!(pick_of(&claim(1, 1), &all[..1], &all).remaining, 2, "others are counted too");
    assert_eq!(pick_of(&claim(4, 4), &all, &all).remaining, 0);
}

#[test]
fn a_claim_is_overtaken_when_all_candidates_are_gone() {
    let all = [owned(1, false), owned(2, false), owned(3, false)];
    assert_eq!(picked(&claim(1, 1), &all[..2], &all[2..]), (vec![], vec![], false, true));
    assert_eq!(picked(&claim(1, 1), &all[..2], &all[1..]), (vec![2], vec![2], false, false));
    assert_eq!(picked(&claim(1, 1), &[], &all), (vec![], vec![], false, false), "nothing matched");
}

#[test]
fn an_answer_is_bounded_in_bytes() {
    let all = [owned(1, false), owned(2, false), owned(3, false)];
    let of_bytes = |bytes_max| picked(&Claim { bytes_max, ..claim(3, 3) }, &all, &all).0;
    assert_eq!(of_bytes(250), [1, 2]);
    assert_eq!(of_bytes(1), [1], "the first one is given");
}

#[test]
fn the_rates_withhold_and_tell_the_wait() {
    let all = [owned(1, false), owned(2, false), owned(3, false)];
    let rates = ClaimRates {
        claimant: [1; 8],
        addresses: [[1; 8]; 2],
        is_stranger: false,
        claimant_max: 1,
        addresses_max: [0; 2],
        strangers_percent: 100,
    };
    let pick = pick_of(&Claim { rates: Some(rates), ..claim(3, 3) }, &all, &all);
    assert_eq!((pick.used.len(), pick.withheld, pick.wait_secs.is_some()), (1, true, true));
}
