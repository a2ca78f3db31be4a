//! The promises of docs/rules.md, "Rate limits", in exact numbers; each test gives the time.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::*;

const HOUR_MS: u64 = 3_600_000;
const EVENT: Price = Price { class: Class::Event, times: 1 };
const KEY_PACKAGE: Price = Price { class: Class::KeyPackage, times: 1 };

fn hasher(n: u8) -> RouteHasher {
    RouteHasher::new(&[n; 16])
}

fn limits() -> RateLimits {
    RateLimits::new(&RateLimitRates::default(), 1_200, &hasher(1))
}

/// The address of [`local`].
const LOCAL_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn local() -> AddressBlock {
    AddressBlock::of(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

fn v4(n: u32) -> AddressBlock {
    AddressBlock::of(IpAddr::V4(Ipv4Addr::from(n)))
}

fn v6(site: u16, network: u16, host: u16) -> AddressBlock {
    AddressBlock::of(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, site, network, host, 0, 0, host)))
}

/// Takes events until one is refused; gives their number.
fn until_refused<E>(mut take: impl FnMut() -> Result<Paid, E>) -> usize {
    let mut taken = 0;
    while take().is_ok() {
        taken += 1;
    }
    taken
}

fn key(n: u32) -> PublicKey {
    let mut bytes = [9; 32];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    PublicKey::from_bytes(bytes)
}

#[test]
fn a_burst_passes_and_then_the_sustained_rate_holds() {
    let limits = limits();
    for _ in 0..200 {
        limits.address(local(), EVENT, 0).expect("the burst");
    }
    let refused = limits.address(local(), EVENT, 0).expect_err("over the burst");
    assert_eq!(refused.to_string(), "too many events; retry in 1 s");
    assert_eq!(limits.address(local(), EVENT, 599).expect_err("too early").secs, 1);
    limits.address(local(), EVENT, 600).expect("100 a minute are one each 600 ms");
    assert!(limits.address(local(), EVENT, 600).is_err());
    let taken = (0..10_000).filter(|n| limits.address(local(), EVENT, 600 + n * 60).is_ok()).count();
    assert_eq!(taken, 999, "10 minutes give 1000, less one that is not due yet");
}

#[test]
fn a_clock_that_steps_back_gives_nothing() {
    let limits = limits();
    assert_eq!((0..300).filter(|n| limits.address(local(), EVENT, 1_000_000 - n).is_ok()).count(), 200);
}

#[test]
fn key_packages_pay_twice_and_wait_long() {
    let limits = limits();
    let alice = key(1);
    for _ in 0..150 {
        limits.sender(&alice, local(), KEY_PACKAGE, 0).expect("the burst");
    }
    // The event's own bucket has filled up again by then.
    let refused = limits.sender(&alice, local(), KEY_PACKAGE, 90_000).expect_err("10 an hour");
    assert_eq!(refused.to_string(), "too many KeyPackages from this key; retry in 270 s");
    limits.sender(&alice, local(), EVENT, 90_000).expect("other events go on");
    limits.sender(&alice, local(), KEY_PACKAGE, 360_000).expect("one each 6 minutes");
    limits.sender(&key(2), local(), KEY_PACKAGE, 0).expect("another key");
}

/// A connection pays for malformed messages alone: ten each, and for their bytes. It is closed at its bound, and its
/// address has all its events left.
#[test]
fn a_malformed_message_costs_its_connection() {
    let limits = limits();
    let faults_until_closed = |bytes: usize| {
        let mut connection = limits.connection(0);
        let mut faults = 0;
        while !connection.has_too_many_faults() && faults < 1_000 {
            limits.fault(&mut connection, Payer::Address(v4(9)), (Fault::Malformed, bytes), 0);
            faults += 1;
        }
        faults
    };
    assert_eq!(faults_until_closed(20), 41);
    assert_eq!(faults_until_closed(512 << 10), 3, "512 KiB cost 138");
    assert_eq!(until_refused(|| limits.address(v4(9), EVENT, 0)), 200);
    let mut connection = limits.connection(0);
    for second in 0..1_000 {
        limits.fault(&mut connection, Payer::Address(v4(8)), (Fault::Malformed, 20), second * 6_000);
        assert!(!connection.has_too_many_faults(), "ten a minute go on without end");
    }
}

/// A client that connects anew after each close starts with little; a key that the operator named does not.
#[test]
fn the_faults_of_an_address_are_carried_to_its_next_connection() {
    let limits = limits();
    let closed_after = |payer: Payer| {
        let mut connection = limits.connection(0);
        (1..=1_000).find(|_| {
            limits.fault(&mut connection, payer, (Fault::Malformed, 20), 0);
            connection.has_too_many_faults()
        })
    };
    let flood: Vec<_> = (0..6).map(|_| closed_after(Payer::Address(local()))).collect();
    assert_eq!(flood, [41, 41, 41, 38, 4, 4].map(Some));
    assert_eq!(closed_after(Payer::Key(key(1))), Some(41));
    assert_eq!(closed_after(Payer::Address(v4(7))), Some(41), "another address");
}

/// AUTH has a bucket of each connection and a large one of the address, which cannot refuse a connection's first two.
#[test]
fn auths_are_counted_apart_from_events() {
    let limits = limits();
    let payer = Payer::Address(local());
    assert_eq!(until_refused(|| limits.address(local(), EVENT, 0)), 200);
    let mut connection = limits.connection(0);
    let taken = (0..100).filter(|_| limits.auth(&mut connection, payer, 0).is_ok()).count();
    assert_eq!(taken, 40);
    let mut forger = limits.connection(0);
    let taken =
        (0..100).filter(|_| limits.auth(&mut forger, payer, 0).map(|()| limits.forged_auth(&mut forger, 0)).is_ok());
    assert_eq!(taken.count(), 4);
    // However many connections send all that they may, the next one authenticates.
    for _ in 0..1_000 {
        let mut connection = limits.connection(0);
        while limits.auth(&mut connection, payer, 0).is_ok() {}
    }
    let mut next = limits.connection(0);
    assert_eq!((0..10).filter(|_| limits.auth(&mut next, payer, 0).is_ok()).count(), 2);
    let mut named = limits.connection(0);
    assert_eq!((0..10).filter(|_| limits.auth(&mut named, Payer::Key(key(1)), 0).is_ok()).count(), 10);
}

#[test]
fn zero_is_no_limit() {
    let none = RateLimitRates {
        max_events_per_minute: 0,
        max_keypackages_per_hour: 0,
        max_group_messages_per_minute: 0,
        ..RateLimitRates::default()
    };
    let limits = RateLimits::new(&none, 0, &hasher(1));
    let mut connection = limits.connection(0);
    let payer = Payer::Address(local());
    for _ in 0..10_000 {
        limits.address(local(), KEY_PACKAGE, 0).expect("no limit");
        limits.key(&key(1), local(), EVENT, 0).expect("no limit");
        limits.member(&key(1), local(), EVENT, 0).expect("no limit");
        limits.fault(&mut connection, payer, (Fault::Request, 9), 0);
        limits.auth(&mut connection, payer, 0).expect("no limit");
        limits.handshake(local(), 0).expect("no limit");
        limits.sender(&key(1), local(), KEY_PACKAGE, 0).expect("no limit");
        limits.group_message(Sender::Address(local()), local(), "grp_a", 0).expect("no limit");
        limits.gift_wrap(Sender::Key(key(1)), local(), &key(2), false, 0).expect("no limit");
    }
    assert!(!connection.has_too_many_faults() && limits.may_look_up(&mut connection, local(), 0));
    assert_eq!(limits.tracked(), 0);
}

/// An IPv6 address pays as a /64, a /56 and a /48 at once, with the rates of 1, 4 and 16.
#[test]
fn ipv6_blocks_pay_together() {
    let limits = limits();
    let all = |mut take: Box<dyn FnMut(u16) -> bool + '_>| (0..=u16::MAX).filter(|network| take(*network)).count();
    assert_eq!(until_refused(|| limits.address(v6(1, 0, 1), EVENT, 0)), 200, "a /64");
    assert_eq!(until_refused(|| limits.address(v6(1, 0, 2), EVENT, 0)), 0, "another address of it");
    let of_56 = (1..256).map(|network| until_refused(|| limits.address(v6(1, network, 1), EVENT, 0))).sum::<usize>();
    assert_eq!(200 + of_56, 4 * 200, "a /56");
    let of_48 = all(Box::new(|network| limits.address(v6(1, network, 1), EVENT, 0).is_ok()));
    assert_eq!(200 + of_56 + of_48, 16 * 200, "a /48");
    assert_eq!(until_refused(|| limits.address(v6(2, 0, 1), EVENT, 0)), 200, "another /48");
    let refused = limits.address(v6(1, 0x300, 1), EVENT, 0).expect_err("the /48 has nothing left");
    assert_eq!(refused.to_string(), "too many events; retry in 1 s");
    limits.address(v6(1, 0x300, 1), EVENT, 600).expect("one of 1,600 a minute; the refused events took nothing");
    let handshakes = all(Box::new(|network| limits.handshake(v6(3, network, 1), 0).is_ok()));
    assert_eq!(handshakes, 16 * 1_200);
}

/// A key that nobody can make for free sends 400 events at once, any other key and an address 200.
#[test]
fn bursts_are_by_the_kind_of_payer() {
    let limits = limits();
    assert_eq!(until_refused(|| limits.address(local(), EVENT, 0)), 200);
    assert_eq!(until_refused(|| limits.sender(&key(1), local(), EVENT, 0)), 200);
    assert_eq!(until_refused(|| limits.key(&key(1), local(), EVENT, 0)), 400, "another bucket of the same key");
    assert_eq!(until_refused(|| limits.member(&key(2), local(), EVENT, 0)), 400);
    assert_eq!(until_refused(|| limits.member(&key(3), local(), EVENT, 0)), 400);
    assert_eq!(until_refused(|| limits.key(&key(4), local(), KEY_PACKAGE, 0)), 150);
    assert_eq!(until_refused(|| limits.key(&key(4), local(), EVENT, 0)), 250, "refused KeyPackages took nothing");
}

/// Members that a client made for nothing have a ceiling together at an address; those that sent from there for an hour
/// keep their part, and another address has a ceiling of its own.
#[test]
fn members_that_cost_nothing_have_a_ceiling_together() {
    let limits = limits();
    limits.member(&key(1), local(), EVENT, 0).expect("the first");
    let later = HOUR_MS;
    let taken: usize = (100..400).map(|n| until_refused(|| limits.member(&key(n), local(), EVENT, later))).sum();
    assert_eq!(taken, 10 * 400, "half of twenty keys' bursts");
    assert_eq!(limits.member(&key(99), local(), EVENT, later).err(), Some(NotByKey::Ceiling));
    assert_eq!(until_refused(|| limits.member(&key(1), local(), EVENT, later)), 400);
    limits.member(&key(99), v4(1), EVENT, later).expect("another address");
    assert_eq!(until_refused(|| limits.member(&key(98), v6(1, 1, 1), EVENT, later)), 400);
}

/// Groups are looked up unpaid for few events of an address, of which each connection has two that nobody takes from
/// it.
#[test]
fn unpaid_lookups_are_bounded_by_connection_and_address() {
    let limits = limits();
    let look_up =
        |connection: &mut ConnectionLimits| (0..1_000).filter(|_| limits.may_look_up(connection, local(), 0)).count();
    assert_eq!(look_up(&mut limits.connection(0)), 2 + 600);
    assert_eq!(look_up(&mut limits.connection(0)), 2);
}

/// An event may cost as much as several, and one that costs more than a burst takes all that there is.
#[test]
fn an_event_costs_as_many_as_it_is_worth() {
    let limits = limits();
    let heavy = Price { class: Class::Event, times: 60 };
    assert_eq!(until_refused(|| limits.address(local(), heavy, 0)), 3);
    assert_eq!(limits.address(local(), heavy, 0).expect_err("20 are left").secs, 24, "40 more, 600 ms each");
    assert_eq!(until_refused(|| limits.address(local(), EVENT, 0)), 20);
    let heaviest = Price { class: Class::Event, times: 1_000_000 };
    assert_eq!(until_refused(|| limits.address(v4(1), heaviest, 0)), 1);
    limits.address(v4(1), heaviest, 120_000).expect("a full burst again");
}

#[test]
fn a_sender_who_is_muted_in_one_group_speaks_in_another_and_mutes_nobody() {
    let limits = limits();
    let (alice, bob) = (Sender::Key(key(1)), Sender::Key(key(2)));
    assert_eq!(until_refused(|| limits.group_message(alice, local(), "grp_a", 0)), 150);
    let refused = limits.group_message(alice, local(), "grp_a", 0).expect_err("over the burst");
    assert_eq!(refused.to_string(), "too many messages to this group; retry in 2 s");
    limits.group_message(bob, local(), "grp_a", 0).expect("another sender");
    limits.group_message(alice, local(), "grp_b", 0).expect("another group");
    limits.gift_wrap(alice, local(), &key(2), false, 0).expect("an inbox");
}

/// 40 new senders use a group's ceiling up: earlier senders go on, later ones wait.
#[test]
fn the_ceiling_slows_new_senders_only() {
    let limits = limits();
    let (old, group) = (Sender::Key(key(1)), "grp_a");
    limits.group_message(old, local(), group, 0).expect("the first");
    let crowd = (100..140).map(|n| Sender::Key(key(n)));
    let taken: usize = crowd
        .map(|sender| (0..150).filter(|_| limits.group_message(sender, local(), group, HOUR_MS).is_ok()).count())
        .sum();
    assert_eq!(taken, 20 * 150);
    assert_eq!(limits.group_message(Sender::Key(key(99)), local(), group, HOUR_MS).expect_err("new").secs, 1);
    for _ in 0..100 {
        limits.group_message(old, local(), group, HOUR_MS).expect("known for an hour");
    }
    // A sender whose event was taken is known an hour later; a sender that was only ever refused is not.
    let later = 2 * HOUR_MS;
    for n in 200..220 {
        for _ in 0..150 {
            let _ = limits.group_message(Sender::Key(key(n)), local(), group, later);
        }
    }
    limits.group_message(Sender::Key(key(100)), local(), group, later).expect("taken an hour ago");
    assert!(limits.group_message(Sender::Key(key(99)), local(), group, later).is_err(), "only refused an hour ago");
}

#[test]
fn what_makes_no_difference_is_forgotten() {
    let limits = limits();
    limits.address(local(), KEY_PACKAGE, 0).expect("the first");
    limits.group_message(Sender::Address(local()), local(), "grp_a", 0).expect("the first");
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
    let limits = small();
    while limits.address(local(), EVENT, 0).is_ok() {}
    let flood = (0..100_000_u32).map(|n| v4(0x0a00_0000 + n));
    let taken = flood.filter(|address| limits.address(*address, EVENT, 0).is_ok()).count();
    assert!(limits.tracked() <= 1_024);
    assert!(taken < 1_024 + 2 * 20 * 200 + 1, "the flood lies in two blocks of newcomers: {taken}");
    assert!(limits.address(local(), EVENT, 500).is_err(), "still empty");
    limits.address(local(), EVENT, 600).expect("its own next event, flood or not");
    limits.address(v4(0xc000_0201), EVENT, 10_000).expect("room is made by what has filled up");
}

/// While a map is full, newcomers share by their block of addresses, at the rate of their own kind of bucket: a flood
/// leaves newcomers elsewhere their events, and does not decide about the rate of another kind.
#[test]
fn newcomers_share_by_address_and_not_first_come() {
    let limits = small();
    // The first newcomer pays from a bucket of KeyPackages.
    let flood = (0..100_000_u32).map(|n| v4(0x0a00_0000 + n));
    flood.for_each(|address| {
        let _ = limits.address(address, KEY_PACKAGE, 0);
    });
    let elsewhere = v4(0xc000_0201);
    assert_eq!(until_refused(|| limits.address(elsewhere, EVENT, 0)), 20 * 200);
    assert_eq!(until_refused(|| limits.address(v4(0xcb00_7101), KEY_PACKAGE, 0)), 20 * 150);
    assert!(limits.address(v4(0x0a00_ffff), EVENT, 0).is_err(), "the flood's own block");
}

fn small() -> RateLimits {
    RateLimits::bounded(&RateLimitRates::default(), 1_200, BucketHasher::new(&hasher(1)), 1_024)
}

/// Forty addresses use an inbox's ceiling up. A friend's first wrap passes all the same, and so do those of a sender
/// that is known for an hour.
#[test]
fn strangers_leave_a_part_of_an_inbox() {
    let limits = limits();
    let (carol, dave) = (key(1), key(2));
    let old = Sender::Key(key(3));
    limits.gift_wrap(old, local(), &carol, false, 0).expect("the first");
    assert!(!limits.is_crowded(&carol, 0));
    let strangers = (0..40).map(v4);
    let sent = strangers
        .map(|block| until_refused(|| limits.gift_wrap(Sender::Address(block), block, &carol, false, HOUR_MS)));
    assert_eq!(sent.sum::<usize>(), 3 * 20 * 150 / 4);
    assert!(limits.is_crowded(&carol, HOUR_MS));
    let friend = Sender::Key(dave);
    assert!(limits.gift_wrap(friend, local(), &carol, false, HOUR_MS).is_err());
    assert_eq!(until_refused(|| limits.gift_wrap(friend, local(), &carol, true, HOUR_MS)), 150);
    limits.gift_wrap(old, local(), &carol, false, HOUR_MS).expect("known for an hour");
    assert!(!limits.has_written(&carol, &dave));
    limits.gift_wrap(Sender::Key(carol), local(), &dave, false, HOUR_MS).expect("another inbox");
    assert!(limits.has_written(&carol, &dave) && !limits.has_written(&dave, &key(9)));
}

/// Events that one instance took count on the other, so that two take no more than one, apart from a message's delay.
#[test]
fn charges_of_another_instance_are_taken_here() {
    let [here, there] = [0, 1].map(|_| limits());
    let tell = |paid: Paid, to: &RateLimits| {
        let mut charges = Charges::new(true);
        charges.add(paid);
        charges.into_buckets().for_each(|bucket| assert!(to.charge(Charge { bucket, times: 1 }, 0)));
    };
    let mut taken = 0;
    for (n, (one, other)) in [(&here, &there), (&there, &here)].into_iter().cycle().take(600).enumerate() {
        let group = ["grp_a", "grp_b", "grp_c", "grp_d", "grp_e", "grp_f"][n / 100];
        let Ok(paid) = one.sender(&key(1), local(), EVENT, 0) else { continue };
        tell(paid, other);
        tell(
            one.group_message(Sender::Key(key(1)), local(), group, 0).expect("the sender's bucket is the smaller one"),
            other,
        );
        taken += 1;
    }
    assert_eq!(taken, 200, "one burst over both");
    let apart = RateLimits::new(&RateLimitRates::default(), 0, &hasher(2));
    assert!(apart.sender(&key(1), local(), EVENT, 0).is_ok(), "another store has other buckets");
    let bucket = here.account(BucketKind::SenderEvents, key(7), local()).bucket;
    here.charge(Charge { bucket, times: u32::MAX }, 0);
    assert_eq!(here.sender(&key(7), local(), EVENT, 0).expect_err("in debt").secs, 121, "no deeper than a burst");
}

/// However many buckets other instances name, the map keeps half of its room, its buckets and its newcomers' rate.
#[test]
fn hearsay_makes_no_new_buckets() {
    let limits = small();
    let charge = |hash| Charge { bucket: BucketId { kind: BucketKind::AddressEvents, hash }, times: 1_000 };
    let heard = (0..100_000).filter(|hash| limits.charge(charge(*hash), 0)).count();
    assert_eq!((heard, limits.tracked()), (512, 512), "half of the map");
    for newcomer in (0..200).map(|n| v4(0x0a00_0000 + n)) {
        limits.address(newcomer, EVENT, 0).expect("a newcomer has a bucket of its own");
    }
    assert!(limits.tracked() >= 512 + 200);
    // A bucket that is there is charged, also when the map holds too many for a new one.
    let mut charges = Charges::new(true);
    charges.add(limits.address(local(), EVENT, 0).expect("it has paid nothing yet"));
    let bucket = charges.into_buckets().next().expect("a bucket");
    let left = limits.left(bucket, 0);
    assert!(limits.charge(Charge { bucket, times: 9 }, 0));
    assert_eq!(limits.left(bucket, 0), left - 9);
}

#[test]
fn kinds_of_buckets_are_told_apart_by_their_numbers() {
    for byte in 0..=u8::MAX {
        assert!(BucketKind::from_byte(byte).is_none_or(|kind| kind as u8 == byte));
    }
    assert_eq!(BucketKind::from_byte(BucketKind::WidestRequests as u8 + 1), None);
}

#[test]
fn a_claim_pays_for_what_it_used_up_alone() {
    let limits = limits();
    let (reader, owner) = (key(1), key(2));
    let other_address = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    for _ in 0..100 {
        let allowance = limits.set_claims_aside(&reader, LOCAL_ADDRESS, &owner, 2, 0);
        assert_eq!(allowance.used_max(), 2);
        assert_eq!(limits.settle_claims(allowance, 0).len(), 0, "nothing was used up");
    }
    for _ in 0..10 {
        let allowance = limits.set_claims_aside(&reader, LOCAL_ADDRESS, &owner, 2, 0);
        assert_eq!(limits.settle_claims(allowance, 1).len(), 1);
    }
    let allowance = limits.set_claims_aside(&reader, LOCAL_ADDRESS, &owner, 2, 0);
    assert_eq!(allowance.used_max(), 0);
    let wait = allowance.wait.expect("the rate is spent");
    assert_eq!(wait.to_string(), "too many KeyPackages of this owner taken; retry in 360 s");
    // Neither the address with another key nor the key from another address has more, and trying costs neither.
    for n in 0..20 {
        assert_eq!(limits.set_claims_aside(&key(10 + n), LOCAL_ADDRESS, &owner, 2, 0).used_max(), 0);
        assert_eq!(limits.set_claims_aside(&reader, other_address, &owner, 2, 0).used_max(), 0);
    }
    assert_eq!(limits.set_claims_aside(&key(10), other_address, &owner, 2, 0).used_max(), 2);
}

/// A price that is known after the work is owed.
#[test]
fn the_rest_of_a_price_is_owed() {
    let limits = limits();
    let price = Price { times: 7, ..EVENT };
    let (alice, bob) = (key(1), key(2));
    let paid = limits.owe(Payer::Address(local()), &alice, local(), price, 0);
    assert_eq!(paid.len(), 2, "the address and the reader");
    assert_eq!(until_refused(|| limits.address(local(), EVENT, 0)), 193);
    assert_eq!(until_refused(|| limits.sender(&alice, v4(9), EVENT, 0)), 193);
    limits.owe(Payer::Address(local()), &alice, local(), price, 0);
    assert_eq!(limits.address(local(), EVENT, 0).expect_err("a debt").secs, 5, "eight events at 100 a minute");
    limits.owe(Payer::Key(bob), &bob, local(), price, 0);
    assert_eq!(until_refused(|| limits.key(&bob, local(), EVENT, 0)), 393);
}
