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
//!
//! Instances that share a store may tell each other what accepted events cost ([`Spent`]): then the rates hold over all of
//! them, but for what is accepted within the delay of a message. Else each instance has buckets of its own. What was
//! refused counts where it was tried.

mod bucket;
mod client_address;
mod shared;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
};

use nostr_extensions::RouteHasher;
use nostr_protocol::{PublicKey, Rejection};

use self::bucket::{Buckets, Eviction, Rate};
use self::shared::Key;
pub use self::{
    client_address::client_address,
    shared::{Debit, Paid, Purse, Receipt, Spent},
};
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
/// Buckets in each of the five maps; about 50 bytes each.
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
    claimers: Buckets,
    pairs: Buckets,
    targets: Buckets,
    /// Secret, so that nobody can find keys that share a bucket with another's.
    key: Key,
}

impl RateLimits {
    /// With the rates of the configuration, and every bucket full.
    #[must_use]
    pub fn new(rates: &RateLimitRates) -> Self {
        Self::bounded(rates, Key::random(), BUCKETS_MAX)
    }

    /// The same, of instances that share the store of `router` and tell each other what was spent.
    #[must_use]
    pub fn shared(rates: &RateLimitRates, router: &RouteHasher) -> Self {
        Self::bounded(rates, Key::of(router), BUCKETS_MAX)
    }

    fn bounded(rates: &RateLimitRates, key: Key, buckets_max: usize) -> Self {
        let when_full = || Buckets::new(buckets_max, Eviction::WhenFull);
        let remembered = Eviction::WhenForgotten { memory_ms: PAIR_MEMORY_MS, known_after_ms: NEW_SENDER_MS };
        Self {
            events: Rate::new(rates.max_events_per_minute, 60_000, BURST),
            key_packages: Rate::new(rates.max_keypackages_per_hour, 3_600_000, BURST),
            group_messages: Rate::new(rates.max_group_messages_per_minute, 60_000, BURST),
            claims: Rate::new(CLAIMS_PER_HOUR, 3_600_000, CLAIMS_PER_HOUR),
            addresses: when_full(),
            senders: when_full(),
            claimers: when_full(),
            pairs: Buckets::new(buckets_max, remembered),
            targets: when_full(),
            key,
        }
    }

    /// An event came from `address`; asked before anything is computed for it. Not asked for a connection that a resident
    /// has authenticated.
    ///
    /// # Errors
    /// When the address has sent too much.
    pub fn address(&self, address: IpAddr, class: Class, now_ms: u64) -> Result<Paid, RetryAfter> {
        let purses = [Purse::AddressEvents, Purse::AddressKeyPackages];
        self.take(purses, &bucket_address(address), class, now_ms, ["too many events", "too many KeyPackages"])
    }

    /// The event that `address` has paid for had an invalid id or signature: it pays the rest of [`INVALID_COST`], if need
    /// be into debt.
    pub fn invalid(&self, address: IpAddr, now_ms: u64) {
        let Debit { purse, hash } = self.debit(Purse::AddressEvents, bucket_address(address));
        self.buckets(purse).fine(hash, self.rate(purse), INVALID_COST - 1, now_ms);
    }

    /// An event was sent by the authenticated key `sender`.
    ///
    /// # Errors
    /// When the key has sent too much, from whatever address.
    pub fn sender(&self, sender: &PublicKey, class: Class, now_ms: u64) -> Result<Paid, RetryAfter> {
        let what = ["too many events from this key", "too many KeyPackages from this key"];
        self.take([Purse::SenderEvents, Purse::SenderKeyPackages], sender, class, now_ms, what)
    }

    /// A 445 to `group` was admitted.
    ///
    /// # Errors
    /// When this sender has sent too much to this group, or everybody together has and this sender is new to it.
    pub fn group_message(&self, sender: Sender, group: &str, now_ms: u64) -> Result<Paid, RetryAfter> {
        self.target([Purse::GroupOfSender, Purse::Group], sender, &group, now_ms)
            .map_err(|secs| RetryAfter { what: "too many messages to this group", secs })
    }

    /// A 1059 to `recipient` was admitted.
    ///
    /// # Errors
    /// When this sender has sent too much to this inbox, or everybody together has and this sender is new to it.
    pub fn gift_wrap(&self, sender: Sender, recipient: &PublicKey, now_ms: u64) -> Result<Paid, RetryAfter> {
        self.target([Purse::InboxOfSender, Purse::Inbox], sender, recipient, now_ms)
            .map_err(|secs| RetryAfter { what: "too many gift wraps to this recipient", secs })
    }

    /// A reader wants to use up one KeyPackage of `owner`.
    ///
    /// # Errors
    /// When this key, or this address, has used up [`CLAIMS_PER_HOUR`] of them.
    pub fn claim(
        &self,
        reader: &PublicKey,
        address: IpAddr,
        owner: &PublicKey,
        now_ms: u64,
    ) -> Result<Paid, RetryAfter> {
        let what = "too many KeyPackages of this owner taken";
        let by_key = self.debit(Purse::Claims, (reader, owner));
        let by_address = self.debit(Purse::Claims, (bucket_address(address), owner));
        for Debit { purse, hash } in [by_key, by_address] {
            let taken = self.buckets(purse).take(hash, self.rate(purse), now_ms);
            taken.map_err(|secs| RetryAfter { what, secs })?;
        }
        Ok(Paid::two(by_key, by_address))
    }

    /// Takes what was spent elsewhere, whether it is there or not; the debt stays under a burst.
    pub fn spent(&self, Spent { debit: Debit { purse, hash }, times }: Spent, now_ms: u64) {
        self.buckets(purse).fine(hash, self.rate(purse), times, now_ms);
    }

    /// Forgets what makes no difference any more; to be called every minute or so.
    pub fn sweep(&self, now_ms: u64) {
        for buckets in [&self.addresses, &self.senders, &self.claimers, &self.pairs, &self.targets] {
            buckets.sweep(now_ms);
        }
    }

    /// Buckets held now, for the metrics.
    #[must_use]
    pub fn tracked(&self) -> usize {
        [&self.addresses, &self.senders, &self.claimers, &self.pairs, &self.targets].into_iter().map(Buckets::len).sum()
    }

    /// One event of `who`, and one KeyPackage if it is one; `what` names the two in a refusal.
    fn take(
        &self,
        [events, key_packages]: [Purse; 2],
        who: &impl Hash,
        class: Class,
        now_ms: u64,
        what: [&'static str; 2],
    ) -> Result<Paid, RetryAfter> {
        let pay = |purse, what| {
            let debit = self.debit(purse, who);
            let taken = self.buckets(purse).take(debit.hash, self.rate(purse), now_ms);
            taken.map(|_| debit).map_err(|secs| RetryAfter { what, secs })
        };
        let event = pay(events, what[0])?;
        match class {
            Class::Event => Ok(Paid::one(event)),
            Class::KeyPackage => Ok(Paid::two(event, pay(key_packages, what[1])?)),
        }
    }

    fn target(
        &self,
        [of_sender, of_all]: [Purse; 2],
        sender: Sender,
        target: &impl Hash,
        now_ms: u64,
    ) -> Result<Paid, u64> {
        let pair = match sender {
            Sender::Key(key) => self.debit(of_sender, (target, 0_u8, key)),
            Sender::Address(address) => self.debit(of_sender, (target, 1_u8, bucket_address(address))),
        };
        let seen = self.pairs.take(pair.hash, self.rate(of_sender), now_ms)?;
        let whole = self.debit(of_all, target);
        let Err(secs) = self.targets.take(whole.hash, self.rate(of_all), now_ms) else {
            return Ok(Paid::two(pair, whole));
        };
        if now_ms.saturating_sub(seen.first_ms) >= NEW_SENDER_MS {
            return Ok(Paid::one(pair));
        }
        if seen.is_first {
            // Being refused is no way to become known.
            self.pairs.forget(pair.hash);
        }
        Err(secs)
    }

    /// The map in which the buckets of a purse are.
    const fn buckets(&self, purse: Purse) -> &Buckets {
        match purse {
            Purse::AddressEvents | Purse::AddressKeyPackages => &self.addresses,
            Purse::SenderEvents | Purse::SenderKeyPackages => &self.senders,
            Purse::GroupOfSender | Purse::InboxOfSender => &self.pairs,
            Purse::Group | Purse::Inbox => &self.targets,
            Purse::Claims => &self.claimers,
        }
    }

    const fn rate(&self, purse: Purse) -> Rate {
        match purse {
            Purse::AddressEvents | Purse::SenderEvents | Purse::InboxOfSender => self.events,
            Purse::AddressKeyPackages | Purse::SenderKeyPackages => self.key_packages,
            Purse::GroupOfSender => self.group_messages,
            Purse::Group => self.group_messages.times(CEILING_FACTOR),
            Purse::Inbox => self.events.times(CEILING_FACTOR),
            Purse::Claims => self.claims,
        }
    }

    fn debit(&self, purse: Purse, owner: impl Hash) -> Debit {
        Debit { purse, hash: self.key.hash(purse, owner) }
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
