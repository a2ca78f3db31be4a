//! Claims with rates and receipts, and requests for more.

use std::sync::Arc;

use nostr_extensions::Moderation;
use nostr_protocol::{EventId, PublicKey, UnixSecs};

use super::world::{
    START, World, claim_of, deletion, event, given, id_of, key, key_package, message, new, roster, vanish,
};
use crate::{Claim, ClaimFilters, ClaimRates, Claimed, ReceiptName, Repetition, Stock, StockRequest};

const HOUR_SECS: u64 = 3_600;

/// A claim of an ordinary claimant, whom no rate limits.
fn claim(owner: &str, most: usize) -> Claim {
    claim_of(owner, most)
}

fn rates(claimant: u8, address: u8) -> ClaimRates {
    ClaimRates {
        claimant: [claimant; 8],
        addresses: [[address; 8]; 2],
        is_stranger: false,
        claimant_max: 0,
        addresses_max: [0, 0],
        strangers_percent: 100,
    }
}

fn receipt(reader: &str, name: u8, request: u8) -> ReceiptName {
    ReceiptName { reader: key(reader), name: [name; 16], request: [request; 16] }
}

pub(super) async fn claimed(w: &World, claim: &Claim, now: UnixSecs) -> Claimed {
    w.store.claim_key_packages(claim, now).await.expect("a claim")
}

pub(super) async fn stock(w: &World, owner: &str, now: UnixSecs) -> (usize, usize) {
    let Stock { unclaimed, last_resort } = w.store.stock(&key(owner), now).await.expect("a stock");
    (unclaimed, last_resort)
}

pub(super) async fn publish(w: &World, owner: &str, numbers: std::ops::Range<u64>) -> Vec<EventId> {
    let mut ids = Vec::new();
    for n in numbers {
        let package = key_package(&format!("package {n}"), &format!("ref {n}")).at(START + n);
        ids.push(id_of(&new(w.publish(&package, owner).await)));
    }
    ids
}

pub async fn the_last_package_is_of_last_resort_once_it_was_given(w: &mut World) {
    let ids = publish(w, "alice", 0..2).await;
    let first = claimed(w, &claim("alice", 1), START).await;
    assert_eq!((given(&first), first.given[0].is_used_up, first.remaining), (vec![ids[0]], true, 1));
    for _ in 0..2 {
        let last = claimed(w, &claim("alice", 1), START).await;
        assert_eq!((given(&last), last.given[0].is_used_up, last.remaining), (vec![ids[1]], false, 0));
    }
    assert_eq!(stock(w, "alice", START).await, (0, 1));
    // A new one is used up while that one stays, and so is every other one.
    let newer = publish(w, "alice", 2..4).await;
    for (n, id) in newer.iter().enumerate() {
        let next = claimed(w, &claim("alice", 1), START).await;
        assert_eq!((given(&next), next.used, next.remaining), (vec![*id], 1, 1 - n));
    }
    assert_eq!(given(&claimed(w, &claim("alice", 1), START).await), [ids[1]]);
    // A twin of it is of last resort as well, and counts for nothing new.
    new(w.publish(&event(30_443, "package 1").tag(&["d", "slot"]), "alice").await);
    assert_eq!(stock(w, "alice", START).await, (0, 1));
}

/// A banned KeyPackage is not given and not used up, and does not count as the owner's stock. A twin of it may be
/// given, and takes it along.
pub async fn a_banned_package_is_as_if_it_were_not_there(w: &mut World) {
    let ids = publish(w, "alice", 0..3).await;
    let without = |banned: &[EventId], most| {
        let orders = Moderation { banned_events: banned.iter().copied().collect(), ..Moderation::default() };
        Claim { orders: Arc::new(orders), ..claim("alice", most) }
    };
    assert_eq!(given(&claimed(w, &without(&ids, 5), START).await), []);
    let second = claimed(w, &without(&ids[..1], 1), START).await;
    assert_eq!((given(&second), second.used, second.remaining), (vec![ids[1]], 1, 1));
    // The first one is banned, so the third one is the owner's last and stays.
    let third = claimed(w, &without(&ids[..1], 5), START).await;
    assert_eq!((given(&third), third.used, third.remaining), (vec![ids[2]], 0, 0));
    let twin = id_of(&new(w.publish(&event(30_443, "package 0").tag(&["d", "slot"]), "alice").await));
    assert_eq!(given(&claimed(w, &without(&ids[..1], 1), START).await), [twin]);
    assert_eq!(given(&claimed(w, &claim("alice", 5), START).await), [ids[2]]);
}

pub async fn a_claim_takes_packages_of_its_ciphersuite(w: &mut World) {
    let of = |n: &str, tag: &[&str]| key_package(n, n).tag(tag);
    let one = id_of(&new(w.publish(&of("one", &["cs", "0x0001"]), "alice").await));
    let name = "MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519";
    let two = id_of(&new(w.publish(&of("two", &["ciphersuite", name]), "alice").await));
    let three = id_of(&new(w.publish(&of("three", &["mls_ciphersuite", "3"]), "alice").await));
    let of_suite = |suite| Claim::new(key("alice"), ClaimFilters::of_owner(key("alice"), Some(suite), 5), 5, 5);
    assert_eq!(given(&claimed(w, &of_suite(2), START).await), []);
    let claimed_now = claimed(w, &of_suite(3), START).await;
    assert_eq!((given(&claimed_now), claimed_now.used, claimed_now.remaining), (vec![two, three], 2, 1));
    assert_eq!(given(&claimed(w, &of_suite(1), START).await), [one]);
}

pub async fn the_rates_of_claims_hold_for_an_hour(w: &mut World) {
    let ids = publish(w, "alice", 0..12).await;
    let by = |claimant, address, most| {
        let rates = ClaimRates { claimant_max: 2, addresses_max: [3, 0], ..rates(claimant, address) };
        Claim { rates: Some(rates), ..claim("alice", most) }
    };
    let first = claimed(w, &by(1, 1, 5), START).await;
    assert_eq!((given(&first), first.used, first.withheld), (ids[..2].to_vec(), 2, true));
    assert_eq!(first.wait_secs, Some(HOUR_SECS));
    let again = claimed(w, &by(1, 2, 1), START + 10).await;
    assert_eq!((given(&again), again.withheld, again.wait_secs), (vec![], true, Some(HOUR_SECS - 10)));
    let other = claimed(w, &by(2, 1, 5), START + 10).await;
    assert_eq!((given(&other), other.withheld), (vec![ids[2]], true), "what is left of the address");
    assert_eq!(claimed(w, &by(2, 2, 5), START + 10).await.used, 1);
    assert_eq!(claimed(w, &by(1, 1, 5), START + HOUR_SECS).await.used, 2, "an hour later");
    // Another owner's are counted by themselves.
    publish(w, "bob", 0..3).await;
    let of_bob = Claim { rates: by(1, 1, 1).rates, ..claim("bob", 1) };
    assert_eq!(claimed(w, &of_bob, START + HOUR_SECS).await.used, 1);
}

pub async fn strangers_take_a_part_of_the_stock(w: &mut World) {
    let ids = publish(w, "alice", 0..8).await;
    let by = |claimant, is_stranger| {
        let rates = ClaimRates { strangers_percent: 50, is_stranger, ..rates(claimant, claimant) };
        Claim { rates: Some(rates), ..claim("alice", 1) }
    };
    for (n, id) in ids[..4].iter().enumerate() {
        assert_eq!(given(&claimed(w, &by(n as u8, true), START).await), [*id]);
    }
    let refused = claimed(w, &by(9, true), START).await;
    assert_eq!((given(&refused), refused.withheld, refused.wait_secs), (vec![], true, Some(HOUR_SECS)));
    assert_eq!(given(&claimed(w, &by(9, false), START).await), [ids[4]]);
    assert_eq!(claimed(w, &by(9, true), START + HOUR_SECS).await.used, 1);
}

pub async fn one_stranger_takes_a_quarter_of_the_strangers_part(w: &mut World) {
    w.policy.keypackages_per_owner_max = 16;
    let ids = publish(w, "alice", 0..16).await;
    let by = |claimant: u8, address: u8, most| {
        let rates = ClaimRates { strangers_percent: 50, is_stranger: true, ..rates(claimant, address) };
        Claim { rates: Some(rates), ..claim("alice", most) }
    };
    let first = claimed(w, &by(1, 1, 10), START).await;
    assert_eq!((given(&first), first.withheld, first.wait_secs), (ids[..2].to_vec(), true, Some(HOUR_SECS)));
    for (claimant, address) in [(1, 2), (2, 1)] {
        let refused = claimed(w, &by(claimant, address, 10), START + 5).await;
        assert_eq!((given(&refused), refused.wait_secs), (vec![], Some(HOUR_SECS - 5)), "the same key, or address");
    }
    assert_eq!(claimed(w, &by(2, 2, 10), START).await.used, 2);
    assert_eq!(claimed(w, &by(1, 1, 10), START + HOUR_SECS).await.used, 1, "an hour later, of six");
}

pub async fn an_answer_is_given_again_under_its_name(w: &mut World) {
    let ids = publish(w, "alice", 0..4).await;
    let named = |receipt, most| Claim { receipt: Some(receipt), ..claim("alice", most) };
    let first = claimed(w, &named(receipt("carol", 1, 1), 2), START).await;
    assert_eq!((given(&first), first.remaining, first.repetition), (ids[..2].to_vec(), 2, Repetition::First));
    for later in [0, 10, 86_399] {
        let again = claimed(w, &named(receipt("carol", 1, 1), 2), START + later).await;
        assert_eq!((given(&again), again.remaining), (ids[..2].to_vec(), 2));
        assert_eq!((again.repetition, again.used), (Repetition::Of(START), 0));
        assert!(again.given.iter().all(|it| it.is_used_up));
    }
    let other = claimed(w, &named(receipt("carol", 1, 2), 1), START).await;
    assert_eq!((given(&other), other.repetition), (vec![], Repetition::OfAnother));
    let others = claimed(w, &named(receipt("dave", 1, 1), 1), START).await;
    assert_eq!((given(&others), others.repetition), (vec![ids[2]], Repetition::First), "another reader's name");
    // The last one is given to all, and each receipt gives it again.
    let last = claimed(w, &named(receipt("dave", 2, 1), 1), START).await;
    assert_eq!((given(&last), last.used), (vec![ids[3]], 0));
    w.publish(&deletion(&[ids[3]]), "alice").await;
    let again = claimed(w, &named(receipt("dave", 2, 1), 1), START).await;
    assert_eq!((given(&again), again.given[0].is_used_up), (vec![ids[3]], false));
    // An answer without KeyPackages is not kept.
    let none = claimed(w, &named(receipt("dave", 3, 1), 1), START).await;
    assert_eq!(given(&none), []);
    let newer = publish(w, "alice", 9..10).await;
    assert_eq!(given(&claimed(w, &named(receipt("dave", 3, 1), 1), START).await), newer);
    w.sweep(START + 86_400).await;
    let late = claimed(w, &named(receipt("carol", 1, 2), 1), START + 86_400).await;
    assert_eq!(late.repetition, Repetition::First, "a day later the name is free");
    // A key that vanishes takes its KeyPackages out of kept answers.
    new(w.publish_at(START + 20, &vanish(START + 15), "alice").await);
    assert_eq!(given(&claimed(w, &named(receipt("carol", 1, 1), 2), START + 30).await), []);
}

fn request(owner: &str, id: u8, expired: Option<[u8; 32]>) -> StockRequest {
    StockRequest { owner: key(owner), id: EventId::from_bytes([id; 32]), low_watermark: 3, expired }
}

async fn may(w: &World, request: &StockRequest, now: UnixSecs) -> bool {
    w.store.may_request(request, now).await.expect("an answer")
}

pub async fn an_owner_is_asked_when_its_stock_is_low(w: &mut World) {
    publish(w, "alice", 0..4).await;
    assert!(!may(w, &request("alice", 1, None), START).await, "four are enough");
    claimed(w, &claim("alice", 2), START).await;
    assert!(may(w, &request("alice", 1, None), START).await);
    for later in [0, HOUR_SECS - 1] {
        assert!(!may(w, &request("alice", 2, None), START + later).await, "once an hour");
    }
    assert!(may(w, &request("alice", 2, None), START + HOUR_SECS).await, "no request is kept");
    assert!(may(w, &request("bob", 3, None), START).await, "one who has none");
}

pub async fn an_owner_is_not_asked_before_it_answered(w: &mut World) {
    publish(w, "alice", 0..2).await;
    let asks = |at: UnixSecs| event(447, "").at(at).tag(&["p", &key("alice").to_hex()]);
    let ask = async |w: &World, at: UnixSecs| {
        let admitted = w.admitted_at(at, &asks(at), "admin").await;
        let may = may(w, &StockRequest { id: admitted.event().id(), ..request("alice", 0, None) }, at).await;
        if may {
            w.save(vec![admitted]).await;
        }
        may
    };
    assert!(ask(w, START).await);
    assert!(!ask(w, START + HOUR_SECS).await, "the first request is kept, and nothing new came");
    // A twin is nothing new.
    new(w.publish(&event(30_443, "package 0").tag(&["d", "slot"]), "alice").await);
    assert!(!ask(w, START + HOUR_SECS).await, "and a 30443 is Marmot's");
    w.publish(&deletion(&[id_of_slot(w).await]), "alice").await;
    assert!(!ask(w, START + HOUR_SECS).await);
    // A new one answers, also once it is claimed.
    publish(w, "alice", 5..6).await;
    let taken = claimed(w, &claim("alice", 3), START + 10).await;
    assert_eq!(taken.used, 2);
    assert!(ask(w, START + HOUR_SECS + 1).await);
    assert!(!ask(w, START + 2 * HOUR_SECS + 2).await);
    // The recipient deletes the request: it is not kept any more.
    let kept = w.find_at(START + 2 * HOUR_SECS, r#"{"kinds":[447]}"#, super::world::for_keys(&["alice"])).await;
    w.publish_at(START + 2 * HOUR_SECS, &deletion(&kept), "alice").await;
    assert!(ask(w, START + 2 * HOUR_SECS + 2).await);
}

async fn id_of_slot(w: &World) -> EventId {
    let all = super::world::everyone();
    w.find(r#"{"kinds":[30443]}"#, all).await.first().copied().expect("a 30443")
}

pub async fn an_owner_of_an_addressable_package_is_never_asked(w: &mut World) {
    new(w.publish(&event(30_443, "marmot").tag(&["d", "slot"]), "alice").await);
    assert!(!may(w, &request("alice", 1, None), START).await);
}

pub async fn a_sweep_tells_of_packages_that_expire(w: &mut World) {
    let ends = |n: u64| key_package(&n.to_string(), &n.to_string()).tag(&["exp", &(START + 10).to_string()]);
    let first = ends(1).tag(&["cs", "0x0001"]);
    new(w.publish(&first, "alice").await);
    new(w.publish(&ends(2), "bob").await);
    let addressable = event(30_443, "3").tag(&["d", "slot"]).tag(&["exp", &(START + 10).to_string()]);
    new(w.publish(&addressable, "carol").await);
    // The last one of dave's is given, so it is none that was kept for a claim.
    new(w.publish(&ends(4), "dave").await);
    claimed(w, &claim("dave", 1), START).await;
    let swept = w.store.sweep(START + 10, 100).await.expect("a sweep");
    assert_eq!(swept.removed, 4);
    let mut expired: Vec<(PublicKey, Option<u16>)> = swept.expired.iter().map(|it| (it.owner, it.suite)).collect();
    expired.sort_unstable();
    let mut expected = vec![(key("alice"), Some(1)), (key("bob"), None)];
    expected.sort_unstable();
    assert_eq!(expired, expected);
    assert!(may(w, &request("alice", 1, Some(swept.expired[0].content_hash)), START + 10).await);
}

pub async fn a_group_is_shared_with_an_owner_that_acted_in_it(w: &mut World) {
    let shares_at_cost =
        async |w: &World, key_name: &str| w.store.shares_group(&key("alice"), &key(key_name)).await.expect("an answer");
    let shares = async |w: &World, key_name: &str| shares_at_cost(w, key_name).await.0;
    new(w.publish(&roster("one", 1, "bootstrap", &["bob"]), "admin").await);
    assert!(!shares(w, "bob").await);
    // Bob makes Alice a member: she shares nothing with him until she acts.
    w.policy.open_bootstrap = true;
    new(w.publish(&roster("two", 1, "bootstrap", &["bob", "alice"]), "bob").await);
    assert!(!shares(w, "bob").await);
    new(w.publish(&message("two", "hello"), "alice").await);
    assert!(shares(w, "bob").await && !shares(w, "carol").await);
    // The one that asks pays, by its own groups: the price tells nothing of the owner's.
    let (_, before) = shares_at_cost(w, "carol").await;
    assert!(before.units > 0);
    for n in 0..40 {
        new(w.publish(&roster(&format!("alices-{n}"), 1, "bootstrap", &["alice"]), "admin").await);
    }
    assert_eq!(shares_at_cost(w, "carol").await, (false, before));
    for n in 0..40 {
        new(w.publish(&roster(&format!("carols-{n}"), 1, "bootstrap", &["carol"]), "admin").await);
    }
    let (is_shared, after) = shares_at_cost(w, "carol").await;
    assert!(!is_shared && after.units >= before.units + 40, "{before:?} {after:?}");
}

/// A third key invites both into many groups, in which neither acts.
pub async fn many_common_groups_do_not_hide_the_one_that_counts(w: &mut World) {
    w.policy.open_bootstrap = true;
    let shares = async |w: &World| w.store.shares_group(&key("alice"), &key("bob")).await.expect("an answer").0;
    for n in 0..70 {
        let invites = roster(&format!("crowd-{n:02}"), 1, "bootstrap", &["carol", "alice", "bob"]);
        new(w.publish(&invites, "carol").await);
    }
    assert!(!shares(w).await);
    for group in ["crowd-69", "crowd-35"] {
        new(w.publish(&message(group, "hello"), "alice").await);
        assert!(shares(w).await, "{group}");
        new(w.publish(&roster(group, 2, "remove", &["alice"]), "carol").await);
        assert!(!shares(w).await, "{group}");
    }
}
