//! The promises of docs/rules.md, "Rate limits", in exact numbers; each test gives the time.

use std::net::Ipv4Addr;

use super::*;

const HOUR_MS: u64 = 3_600_000;
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn hasher(n: u8) -> RouteHasher {
    RouteHasher::new(&[n; 16])
}

fn limits() -> RateLimits {
    RateLimits::new(&RateLimitRates::default(), &hasher(1))
}

fn key(n: u32) -> PublicKey {
    let mut bytes = [9; 32];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    PublicKey::from_bytes(bytes)
}

#[test]
fn a_burst_passes_and_then_the_sustained_rate_holds() {
    let limits = limits();
    for _ in 0..150 {
        limits.address(LOCAL, Class::Event, 0).expect("the burst");
    }
    let refused = limits.address(LOCAL, Class::Event, 0).expect_err("over the burst");
    assert_eq!(refused.to_string(), "too many events; retry in 1 s");
    assert_eq!(limits.address(LOCAL, Class::Event, 599).expect_err("too early").secs, 1);
    limits.address(LOCAL, Class::Event, 600).expect("100 a minute are one each 600 ms");
    assert!(limits.address(LOCAL, Class::Event, 600).is_err());
    let taken = (0..10_000).filter(|n| limits.address(LOCAL, Class::Event, 600 + n * 60).is_ok()).count();
    assert_eq!(taken, 999, "10 minutes give 1000, less one that is not due yet");
}

#[test]
fn a_clock_that_steps_back_gives_nothing() {
    let limits = limits();
    assert_eq!((0..200).filter(|n| limits.address(LOCAL, Class::Event, 1_000_000 - n).is_ok()).count(), 150);
}

#[test]
fn key_packages_pay_twice_and_wait_long() {
    let limits = limits();
    let alice = key(1);
    for _ in 0..150 {
        limits.sender(&alice, Class::KeyPackage, 0).expect("the burst");
    }
    // The event's own bucket has filled up again by then.
    let refused = limits.sender(&alice, Class::KeyPackage, 90_000).expect_err("10 an hour");
    assert_eq!(refused.to_string(), "too many KeyPackages from this key; retry in 270 s");
    limits.sender(&alice, Class::Event, 90_000).expect("other events go on");
    limits.sender(&alice, Class::KeyPackage, 360_000).expect("one each 6 minutes");
    limits.sender(&key(2), Class::KeyPackage, 0).expect("another key");
}

#[test]
fn an_invalid_signature_costs_ten_and_may_lead_into_debt() {
    let limits = limits();
    let mut taken = 0;
    while limits.address(LOCAL, Class::Event, 0).is_ok() {
        taken += 1;
        limits.invalid(LOCAL, 0);
    }
    assert_eq!(taken, 15);
    limits.invalid(LOCAL, 0);
    assert_eq!(limits.address(LOCAL, Class::Event, 0).expect_err("in debt").secs, 6, "9 owed and one, 600 ms each");
    for _ in 0..1_000 {
        limits.invalid(LOCAL, 0);
    }
    assert_eq!(limits.address(LOCAL, Class::Event, 0).expect_err("in debt").secs, 91, "no debt is over a burst");
}

#[test]
fn zero_is_no_limit() {
    let none =
        RateLimitRates { max_events_per_minute: 0, max_keypackages_per_hour: 0, max_group_messages_per_minute: 0 };
    let limits = RateLimits::new(&none, &hasher(1));
    for _ in 0..10_000 {
        limits.address(LOCAL, Class::KeyPackage, 0).expect("no limit");
        limits.invalid(LOCAL, 0);
        limits.sender(&key(1), Class::KeyPackage, 0).expect("no limit");
        limits.group_message(Sender::Address(LOCAL), "grp_a", 0).expect("no limit");
        limits.gift_wrap(Sender::Key(key(1)), &key(2), 0).expect("no limit");
    }
    assert_eq!(limits.tracked(), 0);
}

#[test]
fn an_ipv6_network_is_one_address() {
    let limits = limits();
    let address = |n: u16| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 2, n, 0, 0, n));
    assert_eq!((0..200).filter(|n| limits.address(address(*n), Class::Event, 0).is_ok()).count(), 150);
    limits.address(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 3, 0, 0, 0, 1)), Class::Event, 0).expect("another /64");
    let mapped = IpAddr::V6(Ipv4Addr::LOCALHOST.to_ipv6_mapped());
    assert_eq!(bucket_address(mapped), LOCAL);
}

#[test]
fn a_sender_who_is_muted_in_one_group_speaks_in_another_and_mutes_nobody() {
    let limits = limits();
    let (alice, bob) = (Sender::Key(key(1)), Sender::Key(key(2)));
    while limits.group_message(alice, "grp_a", 0).is_ok() {}
    let refused = limits.group_message(alice, "grp_a", 0).expect_err("over the burst");
    assert_eq!(refused.to_string(), "too many messages to this group; retry in 2 s");
    limits.group_message(bob, "grp_a", 0).expect("another sender");
    limits.group_message(alice, "grp_b", 0).expect("another group");
    limits.gift_wrap(alice, &key(2), 0).expect("an inbox");
}

/// 40 new senders use a group's ceiling up: earlier senders go on, later ones wait.
#[test]
fn the_ceiling_slows_new_senders_only() {
    let limits = limits();
    let (old, group) = (Sender::Key(key(1)), "grp_a");
    limits.group_message(old, group, 0).expect("the first");
    let crowd = (100..140).map(|n| Sender::Key(key(n)));
    let taken: usize =
        crowd.map(|sender| (0..150).filter(|_| limits.group_message(sender, group, HOUR_MS).is_ok()).count()).sum();
    assert_eq!(taken, 20 * 150);
    assert_eq!(limits.group_message(Sender::Key(key(99)), group, HOUR_MS).expect_err("new").secs, 1);
    for _ in 0..100 {
        limits.group_message(old, group, HOUR_MS).expect("known for an hour");
    }
    // A sender whose event was taken is known an hour later; a sender that was only ever refused is not.
    let later = 2 * HOUR_MS;
    for n in 200..220 {
        for _ in 0..150 {
            let _ = limits.group_message(Sender::Key(key(n)), group, later);
        }
    }
    limits.group_message(Sender::Key(key(100)), group, later).expect("taken an hour ago");
    assert!(limits.group_message(Sender::Key(key(99)), group, later).is_err(), "only refused an hour ago");
}

#[test]
fn what_makes_no_difference_is_forgotten() {
    let limits = limits();
    limits.address(LOCAL, Class::KeyPackage, 0).expect("the first");
    limits.group_message(Sender::Address(LOCAL), "grp_a", 0).expect("the first");
    assert_eq!(limits.tracked(), 4);
    limits.sweep(600);
    assert_eq!(limits.tracked(), 2, "full again: the address's events and the group; not yet: its KeyPackages");
    limits.sweep(360_000);
    assert_eq!(limits.tracked(), 1, "that a sender is known is not forgotten yet");
    limits.sweep(PAIR_MEMORY_MS);
    assert_eq!(limits.tracked(), 0);
}

/// A client with very many addresses cannot get a full bucket back for one of them.
#[test]
fn a_flood_of_addresses_gives_no_one_a_new_bucket() {
    let limits = RateLimits::bounded(&RateLimitRates::default(), BucketHasher::new(&hasher(1)), 1_024);
    while limits.address(LOCAL, Class::Event, 0).is_ok() {}
    let flood = (0..100_000_u32).map(|n| IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + n)));
    let taken = flood.filter(|address| limits.address(*address, Class::Event, 0).is_ok()).count();
    assert!(limits.tracked() <= 1_024);
    assert!(taken < 1_024 + 64 * 20 * 150 + 1, "{taken}");
    assert!(limits.address(LOCAL, Class::Event, 500).is_err(), "still empty");
    limits.address(LOCAL, Class::Event, 600).expect("its own next event, flood or not");
    let newcomer = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    limits.address(newcomer, Class::Event, 10_000).expect("room is made by what has filled up");
}

/// Events that one instance took count on the other, so that two take no more than one, apart from a message's delay.
#[test]
fn charges_of_another_instance_are_taken_here() {
    let [here, there] = [0, 1].map(|_| limits());
    let tell = |paid: Paid, to: &RateLimits| {
        let mut charges = Charges::new(true);
        charges.add(paid);
        charges.into_buckets().for_each(|bucket| to.charge(Charge { bucket, times: 1 }, 0));
    };
    let mut taken = 0;
    for (n, (one, other)) in [(&here, &there), (&there, &here)].into_iter().cycle().take(400).enumerate() {
        let group = ["grp_a", "grp_b"][n / 200];
        let Ok(paid) = one.sender(&key(1), Class::Event, 0) else { continue };
        tell(paid, other);
        tell(one.group_message(Sender::Key(key(1)), group, 0).expect("the sender's bucket is the smaller one"), other);
        taken += 1;
    }
    assert_eq!(taken, 150, "one burst over both");
    let apart = RateLimits::new(&RateLimitRates::default(), &hasher(2));
    assert!(apart.sender(&key(1), Class::Event, 0).is_ok(), "another store has other buckets");
    let bucket = here.bucket(BucketKind::SenderEvents, key(7));
    here.charge(Charge { bucket, times: u32::MAX }, 0);
    assert_eq!(here.sender(&key(7), Class::Event, 0).expect_err("in debt").secs, 91, "no deeper than a burst");
}

#[test]
fn kinds_of_buckets_are_told_apart_by_their_numbers() {
    for byte in 0..=u8::MAX {
        assert!(BucketKind::from_byte(byte).is_none_or(|kind| kind as u8 == byte));
    }
    assert_eq!(BucketKind::from_byte(9), None);
}
