//! How much one client may send.
//!
//! Source: MLS Gateway specification, `[extensions.mls_gateway.rate_limits]`; decisions.md, 6. Which number limits what:
//!
//! | number | pays | when |
//! |---|---|---|
//! | `max_events_per_minute` | every EVENT, from its address and from its sender | [`RateLimits::address`] before the signature is checked, [`RateLimits::sender`] after admission |
//! | `max_keypackages_per_hour` | 443 and 30443, from the same two, beside the above | as above |
//! | `max_group_messages_per_minute` | 445, from its sender and group | [`RateLimits::group_message`], after admission |
//! | `max_events_per_minute`, once more | 1059, from its sender and recipient | [`RateLimits::gift_wrap`], after admission |
//!
//! The numbers are sustained rates; a burst of [`BURST`] goes through at once. 0 means no limit. The sender is the author
//! when authenticated, else the connection's primary key, else nobody but the address: the throw-away keys that sign 445s
//! and 1059s are no senders. Residents pay from their key alone.
//!
//! Time is given, in milliseconds of any clock that does not go back; nothing here reads one.

mod bucket;
mod client_address;

use std::{
    collections::hash_map::RandomState,
    fmt,
    hash::{BuildHasher as _, Hash},
    net::{IpAddr, Ipv6Addr},
};

use nostr_protocol::{PublicKey, Rejection};

pub use self::client_address::client_address;
use self::bucket::{Buckets, Eviction, Rate};
use crate::config::RateLimitRates;

/// What may be sent at once, before the sustained rate holds.
pub const BURST: u32 = 150;
/// How much more than one sender all senders together may send to a group or an inbox.
pub const CEILING_FACTOR: u32 = 20;
/// What an event with an invalid signature costs its address.
pub const INVALID_COST: u32 = 10;
/// A sender of whom a group or inbox had its first event less than this ago is new to it.
pub const NEW_SENDER_MS: u64 = 3_600_000;
/// KeyPackages of one owner that one reader, and one address, uses up in an hour (decisions, "KeyPackages" 4).
pub const CLAIMS_PER_HOUR: u32 = 10;
/// How long a sender who is silent stays known to a group or inbox.
const PAIR_MEMORY_MS: u64 = 24 * 3_600_000;
/// Buckets in each of the four maps; about 50 bytes each.
const BUCKETS_MAX: usize = 1 << 18;

/// What kind of event pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Any but a KeyPackage.
    Event,
    /// 443 or 30443.
    KeyPackage,
}

/// Who sends to a group or an inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// An authenticated key.
    Key(PublicKey),
    /// A connection without one.
    Address(IpAddr),
}

/// Refused for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryAfter {
    /// What there was too much of.
    pub what: &'static str,
    /// Seconds until one more event is taken, at least 1.
    pub secs: u64,
}

impl fmt::Display for RetryAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; retry in {} s", self.what, self.secs)
    }
}

impl From<RetryAfter> for Rejection {
    fn from(retry: RetryAfter) -> Self {
        Self::rate_limited(retry.to_string())
    }
}

/// All buckets of this process.
pub struct RateLimits {
    events: Rate,
    key_packages: Rate,
    group_messages: Rate,
    claims: Rate,
    addresses: Buckets,
    senders: Buckets,
    pairs: Buckets,
    targets: Buckets,
    /// Drawn at random, so that nobody can find keys that share a bucket with another's.
    hasher: RandomState,
}

/// Keeps the keys of one map apart.
#[derive(Clone, Copy, Hash)]
enum Domain {
    Event,
    KeyPackage,
    Group,
    Inbox,
    Claim,
}

impl RateLimits {
    /// With the rates of the configuration, and every bucket full.
    #[must_use]
    pub fn new(rates: &RateLimitRates) -> Self {
        Self::bounded(rates, BUCKETS_MAX)
    }

    fn bounded(rates: &RateLimitRates, buckets_max: usize) -> Self {
        let when_full = || Buckets::new(buckets_max, Eviction::WhenFull);
        let remembered = Eviction::WhenForgotten { memory_ms: PAIR_MEMORY_MS, known_after_ms: NEW_SENDER_MS };
        Self {
            events: Rate::new(rates.max_events_per_minute, 60_000, BURST),
            key_packages: Rate::new(rates.max_keypackages_per_hour, 3_600_000, BURST),
            group_messages: Rate::new(rates.max_group_messages_per_minute, 60_000, BURST),
            claims: Rate::new(CLAIMS_PER_HOUR, 3_600_000, CLAIMS_PER_HOUR),
            addresses: when_full(),
            senders: when_full(),
            pairs: Buckets::new(buckets_max, remembered),
            targets: when_full(),
            hasher: RandomState::new(),
        }
    }

    /// An event came from `address`; asked before anything is computed for it. Not asked for a connection that a resident
    /// has authenticated.
    ///
    /// # Errors
    /// When the address has sent too much.
    pub fn address(&self, address: IpAddr, class: Class, now_ms: u64) -> Result<(), RetryAfter> {
        let address = bucket_address(address);
        self.take(&self.addresses, &address, class, now_ms, ["too many events", "too many KeyPackages"])
    }

    /// The event that `address` has paid for had an invalid id or signature: it pays the rest of [`INVALID_COST`], if need
    /// be into debt.
    pub fn invalid(&self, address: IpAddr, now_ms: u64) {
        let hash = self.hasher.hash_one((Domain::Event, bucket_address(address)));
        self.addresses.fine(hash, self.events, INVALID_COST - 1, now_ms);
    }

    /// An event was sent by the authenticated key `sender`.
    ///
    /// # Errors
    /// When the key has sent too much, from whatever address.
    pub fn sender(&self, sender: &PublicKey, class: Class, now_ms: u64) -> Result<(), RetryAfter> {
        let what = ["too many events from this key", "too many KeyPackages from this key"];
        self.take(&self.senders, sender, class, now_ms, what)
    }

    /// A 445 to `group` was admitted.
    ///
    /// # Errors
    /// When this sender has sent too much to this group, or everybody together has and this sender is new to it.
    pub fn group_message(&self, sender: Sender, group: &str, now_ms: u64) -> Result<(), RetryAfter> {
        self.target(Domain::Group, sender, &group, self.group_messages, now_ms)
            .map_err(|secs| RetryAfter { what: "too many messages to this group", secs })
    }

    /// A 1059 to `recipient` was admitted.
    ///
    /// # Errors
    /// When this sender has sent too much to this inbox, or everybody together has and this sender is new to it.
    pub fn gift_wrap(&self, sender: Sender, recipient: &PublicKey, now_ms: u64) -> Result<(), RetryAfter> {
        self.target(Domain::Inbox, sender, recipient, self.events, now_ms)
            .map_err(|secs| RetryAfter { what: "too many gift wraps to this recipient", secs })
    }

    /// A reader wants to use up one KeyPackage of `owner`.
    ///
    /// # Errors
    /// When this key, or this address, has used up [`CLAIMS_PER_HOUR`] of them.
    pub fn claim(&self, reader: &PublicKey, address: IpAddr, owner: &PublicKey, now_ms: u64) -> Result<(), RetryAfter> {
        let what = "too many KeyPackages of this owner taken";
        let by_key = self.hasher.hash_one((Domain::Claim, reader, owner));
        let by_address = self.hasher.hash_one((Domain::Claim, bucket_address(address), owner));
        let take = |buckets: &Buckets, hash| {
            buckets.take(hash, self.claims, now_ms).map(|_| ()).map_err(|secs| RetryAfter { what, secs })
        };
        take(&self.senders, by_key)?;
        take(&self.addresses, by_address)
    }

    /// Forgets what makes no difference any more; to be called every minute or so.
    pub fn sweep(&self, now_ms: u64) {
        for buckets in [&self.addresses, &self.senders, &self.pairs, &self.targets] {
            buckets.sweep(now_ms);
        }
    }

    /// Buckets held now, for the metrics.
    #[must_use]
    pub fn tracked(&self) -> usize {
        [&self.addresses, &self.senders, &self.pairs, &self.targets].into_iter().map(Buckets::len).sum()
    }

    /// One event of `who`, and one KeyPackage if it is one; `what` names the two in a refusal.
    fn take(
        &self,
        buckets: &Buckets,
        who: &impl Hash,
        class: Class,
        now_ms: u64,
        what: [&'static str; 2],
    ) -> Result<(), RetryAfter> {
        let hash = self.hasher.hash_one((Domain::Event, who));
        buckets.take(hash, self.events, now_ms).map_err(|secs| RetryAfter { what: what[0], secs })?;
        if class == Class::KeyPackage {
            let hash = self.hasher.hash_one((Domain::KeyPackage, who));
            buckets.take(hash, self.key_packages, now_ms).map_err(|secs| RetryAfter { what: what[1], secs })?;
        }
        Ok(())
    }

    fn target(
        &self,
        domain: Domain,
        sender: Sender,
        target: &impl Hash,
        rate: Rate,
        now_ms: u64,
    ) -> Result<(), u64> {
        let pair = match sender {
            Sender::Key(key) => self.hasher.hash_one((domain, target, 0_u8, key)),
            Sender::Address(address) => self.hasher.hash_one((domain, target, 1_u8, bucket_address(address))),
        };
        let seen = self.pairs.take(pair, rate, now_ms)?;
        let whole = self.hasher.hash_one((domain, target));
        let Err(secs) = self.targets.take(whole, rate.times(CEILING_FACTOR), now_ms) else { return Ok(()) };
        if now_ms.saturating_sub(seen.first_ms) >= NEW_SENDER_MS {
            return Ok(());
        }
        if seen.is_first {
            // Being refused is no way to become known.
            self.pairs.forget(pair);
        }
        Err(secs)
    }
}

impl fmt::Debug for RateLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimits").field("tracked", &self.tracked()).finish_non_exhaustive()
    }
}

/// An IPv6 network has 2^64 addresses in one household: a /64 counts as one.
fn bucket_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const HOUR_MS: u64 = 3_600_000;
    const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn limits() -> RateLimits {
        RateLimits::new(&RateLimitRates::default())
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
        let limits = RateLimits::new(&none);
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

    /// 40 new senders use a group's ceiling up: those who were there before go on, those who come now wait.
    #[test]
    fn the_ceiling_slows_new_senders_only() {
        let limits = limits();
        let (old, group) = (Sender::Key(key(1)), "grp_a");
        limits.group_message(old, group, 0).expect("the first");
        let crowd = (100..140).map(|n| Sender::Key(key(n)));
        let taken: usize = crowd
            .map(|sender| (0..150).filter(|_| limits.group_message(sender, group, HOUR_MS).is_ok()).count())
            .sum();
        assert_eq!(taken, 20 * 150);
        assert_eq!(limits.group_message(Sender::Key(key(99)), group, HOUR_MS).expect_err("new").secs, 1);
        for _ in 0..100 {
            limits.group_message(old, group, HOUR_MS).expect("known for an hour");
        }
        // Whoever was taken once is known an hour later; whoever was only ever refused is not.
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

    /// Someone with very many addresses cannot get a full bucket back for one of them.
    #[test]
    fn a_flood_of_addresses_gives_no_one_a_new_bucket() {
        let limits = RateLimits::bounded(&RateLimitRates::default(), 1_024);
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
}
