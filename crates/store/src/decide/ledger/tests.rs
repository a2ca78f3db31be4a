//! The promises of docs/rules.md, "Claims" 5 and "Stock", in exact numbers.

use super::*;

const NOW: UnixSecs = 1_795_370_771;

fn rates(claimant: u8, address: u8) -> ClaimRates {
    ClaimRates {
        claimant: [claimant; 8],
        addresses: [[address; 8]; 2],
        is_stranger: true,
        claimant_max: 3,
        addresses_max: [5, 0],
        strangers_percent: 100,
    }
}

fn most(ledger: &Ledger, rates: &ClaimRates, now: UnixSecs) -> (usize, Option<u64>) {
    let allowance = ledger.allowance(Some(rates), 10, now);
    (allowance.most, allowance.wait_secs)
}

#[test]
fn a_claimant_and_an_address_have_rates_of_their_own() {
    let mut ledger = Ledger::default();
    assert_eq!(most(&ledger, &rates(1, 1), NOW).0, 3);
    ledger.note(Some(&rates(1, 1)), &[[1; 32], [2; 32]], NOW);
    assert_eq!(most(&ledger, &rates(1, 1), NOW).0, 1);
    ledger.note(Some(&rates(1, 1)), &[[3; 32]], NOW + 10);
    assert_eq!(most(&ledger, &rates(1, 2), NOW + 10), (0, Some(3_590)), "at another address too");
    assert_eq!(most(&ledger, &rates(2, 1), NOW + 10), (2, Some(3_590)), "what is left of the address");
    assert_eq!(most(&ledger, &rates(2, 2), NOW + 10).0, 3);
    assert_eq!(most(&ledger, &rates(1, 1), NOW + HOUR_SECS).0, 2, "an hour later the first two are forgotten");
    assert_eq!(Ledger::unpack(&ledger.pack()), Some(ledger));
}

#[test]
fn strangers_share_a_part_of_the_stock() {
    let mut ledger = Ledger::default();
    let stranger = |n| ClaimRates { claimant_max: 0, addresses_max: [0; 2], strangers_percent: 50, ..rates(n, n) };
    let of = |ledger: &Ledger, rates: &ClaimRates, fresh| ledger.allowance(Some(rates), fresh, NOW).most;
    assert_eq!(of(&ledger, &stranger(1), 9), 1, "a quarter of five");
    for n in 1..6 {
        ledger.note(Some(&stranger(n)), &[[n; 32]], NOW);
    }
    assert_eq!(of(&ledger, &stranger(9), 4), 0);
    assert_eq!(of(&ledger, &ClaimRates { is_stranger: false, ..stranger(3) }, 4), usize::MAX);
    ledger.note(Some(&ClaimRates { is_stranger: false, ..stranger(3) }), &[[2; 32]; 4], NOW);
    assert_eq!(of(&ledger, &stranger(9), 0), 0, "others that claim give strangers no more");
    assert_eq!(of(&ledger, &stranger(9), 8), 2, "new ones do");
}

#[test]
fn one_stranger_takes_a_quarter_of_the_strangers_share() {
    let mut ledger = Ledger::default();
    let site = [9; 8];
    let stranger = |key: u8, address: u8, site| ClaimRates {
        claimant_max: 0,
        addresses_max: [0; 2],
        addresses: [[address; 8], site],
        strangers_percent: 50,
        ..rates(key, address)
    };
    let most = |ledger: &Ledger, rates: &ClaimRates| most(ledger, rates, NOW).0;
    let mut fresh = 32;
    let mut take = |ledger: &mut Ledger, rates: &ClaimRates, count: usize| {
        let allowance = ledger.allowance(Some(rates), fresh, NOW);
        assert_eq!((allowance.most, allowance.most < 4 || allowance.wait_secs.is_some()), (count, true));
        ledger.note(Some(rates), &vec![[1; 32]; count], NOW);
        fresh -= count;
    };
    take(&mut ledger, &stranger(1, 1, [1; 8]), 4);
    take(&mut ledger, &stranger(1, 2, [2; 8]), 0);
    take(&mut ledger, &stranger(2, 1, [1; 8]), 0);
    take(&mut ledger, &stranger(3, 3, site), 4);
    take(&mut ledger, &stranger(4, 4, site), 0);
    take(&mut ledger, &stranger(5, 5, [5; 8]), 4);
    take(&mut ledger, &stranger(6, 6, [6; 8]), 4);
    take(&mut ledger, &stranger(7, 7, [7; 8]), 0);
    assert_eq!(most(&ledger, &ClaimRates { is_stranger: false, ..stranger(8, 1, site) }), usize::MAX);
}

#[test]
fn an_owner_is_asked_once_an_hour_and_not_before_it_answered() {
    let mut ledger = Ledger::default();
    let id = EventId::from_bytes([7; 32]);
    assert!(ledger.request(id, &[[1; 32]], None, false, NOW));
    assert!(!ledger.request(id, &[[1; 32]], None, false, NOW + HOUR_SECS - 1));
    assert!(!ledger.request(id, &[[1; 32]], None, true, NOW + HOUR_SECS), "it is kept and not answered");
    assert!(ledger.clone().request(id, &[[1; 32]], None, false, NOW + HOUR_SECS), "it is not kept");
    assert!(ledger.clone().request(id, &[[2; 32]], None, true, NOW + HOUR_SECS), "it is answered");
    assert!(ledger.clone().request(id, &[], Some([2; 32]), true, NOW + HOUR_SECS), "by one that expired");
    assert!(ledger.note(None, &[[2; 32]], NOW), "by one that was claimed");
    assert_eq!(Ledger::unpack(&ledger.pack()).as_ref(), Some(&ledger));
    assert!(ledger.request(id, &[[1; 32]], None, true, NOW + HOUR_SECS));
}

#[test]
fn a_ledger_is_bounded() {
    let mut ledger = Ledger::default();
    for n in 0..2 * TAKES_MAX as u64 {
        ledger.note(Some(&rates(1, 1)), &[[1; 32]], NOW + n);
    }
    assert_eq!(ledger.takes.len(), TAKES_MAX);
    assert_eq!(Ledger::unpack(&[1, 9]), None);
    assert_eq!(Ledger::unpack(&ledger.pack()[..20]), None);
}
