//! Limits on how much one client may send.
//!
//! Source: MLS Gateway specification, `[extensions.mls_gateway.rate_limits]`; docs/rules.md, "Rate limits". Each number
//! of the configuration limits these events:
//!
//! - `max_events_per_minute`: every EVENT, paid from its address's bucket ([`RateLimits::address`], before the
//!   signature is checked) and from its sender's ([`RateLimits::sender`], after admission).
//! - `max_keypackages_per_hour`: 443 and 30443, paid from buckets of the same two, beside the above.
//! - `max_group_messages_per_minute`: 445, paid from the bucket of its sender and group ([`RateLimits::group_message`],
//!   after admission).
//! - `max_events_per_minute`, once more: 1059, paid from the bucket of its sender and recipient
//!   ([`RateLimits::gift_wrap`], after admission).
//!
//! The numbers are sustained rates; a burst of [`BURST`] goes through at once. 0 means no limit. The sender is the
//! author when authenticated, else the connection's primary key, else the address alone: the throw-away keys that sign
//! 445s and 1059s are no senders. Residents pay from their key alone.
//!
//! Callers give the time, in milliseconds of any clock that does not go back.
//!
//! Instances that share a store may tell each other the costs of accepted events ([`Charge`]). The rates then hold over
//! all of them, apart from events that are accepted within the delay of a message. Without such messages each instance
//! has buckets of its own. A refused event counts only at the instance that refused it.

mod bucket;
mod charge;
mod client_address;
mod payer;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
};

use nostr_extensions::RouteHasher;
use nostr_protocol::{PublicKey, Rejection};

use self::{
    bucket::{Buckets, Eviction, Rate},
    charge::BucketHasher,
};
pub(crate) use self::{
    charge::{BucketId, BucketKind, Charge, Charges, Paid},
    client_address::client_address,
    payer::{AddressBlock, Payer},
};
use crate::config::RateLimitRates;

/// Events that may be sent at once, before the sustained rate holds.
const BURST: u32 = 150;
/// Number of senders' rates that all senders together may send to a group or an inbox.
const CEILING_FACTOR: u32 = 20;
/// Events that the address of an event with an invalid signature pays for.
const INVALID_COST: u32 = 10;
/// Time for which a sender is new to a group or an inbox, counted from its first event there.
const NEW_SENDER_MS: u64 = 3_600_000;
/// Most KeyPackages of one owner that one reader, and one address, uses up in an hour (docs/rules.md, "Consumption on
/// read" 4).
const CLAIMS_PER_HOUR: u32 = 10;
/// Time for which a group or an inbox remembers a sender that sends nothing.
const PAIR_MEMORY_MS: u64 = 24 * 3_600_000;
/// Most buckets in each of the five maps, at about 50 bytes.
const BUCKETS_MAX: usize = 1 << 18;

/// The class of an event, which decides the buckets that pay for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Any event but a KeyPackage.
    Event,
    /// Kind 443 or 30443.
    KeyPackage,
}

/// The sender of a message to a group or an inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// An authenticated key.
    Key(PublicKey),
    /// A connection without one.
    Address(IpAddr),
}

/// A refusal that ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RetryAfter {
    /// The limit that was reached, in the client's words.
    reason: &'static str,
    /// Seconds until one more event is taken, at least 1.
    secs: u64,
}

impl fmt::Display for RetryAfter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; retry in {} s", self.reason, self.secs)
    }
}

impl From<RetryAfter> for Rejection {
    fn from(retry: RetryAfter) -> Self {
        Self::rate_limited(retry.to_string())
    }
}

/// All buckets of this process.
pub(crate) struct RateLimits {
    events: Rate,
    key_packages: Rate,
    group_messages: Rate,
    claims: Rate,
    addresses: Buckets,
    senders: Buckets,
    claimers: Buckets,
    pairs: Buckets,
    targets: Buckets,
    hasher: BucketHasher,
}

impl RateLimits {
    /// Full buckets with the rates of the configuration. Instances that share the store of `hasher` give a bucket the
    /// same name, so that they can tell each other about it.
    pub(crate) fn new(rates: &RateLimitRates, hasher: &RouteHasher) -> Self {
        Self::bounded(rates, BucketHasher::new(hasher), BUCKETS_MAX)
    }

    fn bounded(rates: &RateLimitRates, hasher: BucketHasher, buckets_max: usize) -> Self {
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
            hasher,
        }
    }

    /// Takes the price of an event that came from `address`, before anything is computed for it. Connections that a
    /// resident has authenticated do not pay this.
    ///
    /// # Errors
    /// When the address has sent too much.
    pub(crate) fn address(&self, address: IpAddr, class: Class, now_ms: u64) -> Result<Paid, RetryAfter> {
        let kinds = [BucketKind::AddressEvents, BucketKind::AddressKeyPackages];
        self.take(kinds, &bucket_address(address), class, now_ms, ["too many events", "too many KeyPackages"])
    }

    /// Fines `address` for an event with an invalid id or signature: it has paid for the event, and pays the rest of
    /// [`INVALID_COST`] now, if need be into debt.
    pub(crate) fn invalid(&self, address: IpAddr, now_ms: u64) {
        let bucket = self.bucket(BucketKind::AddressEvents, bucket_address(address));
        self.charge(Charge { bucket, times: INVALID_COST - 1 }, now_ms);
    }

    /// Takes the price of an event that the authenticated key `sender` sent.
    ///
    /// # Errors
    /// When the key has sent too much, from any address.
    pub(crate) fn sender(&self, sender: &PublicKey, class: Class, now_ms: u64) -> Result<Paid, RetryAfter> {
        let reasons = ["too many events from this key", "too many KeyPackages from this key"];
        self.take([BucketKind::SenderEvents, BucketKind::SenderKeyPackages], sender, class, now_ms, reasons)
    }

    /// Takes the price of a 445 to `group` that was admitted.
    ///
    /// # Errors
    /// When this sender has sent too much to this group, or everybody together has and this sender is new to it.
    pub(crate) fn group_message(&self, sender: Sender, group: &str, now_ms: u64) -> Result<Paid, RetryAfter> {
        self.target([BucketKind::GroupOfSender, BucketKind::Group], sender, &group, now_ms)
            .map_err(|secs| RetryAfter { reason: "too many messages to this group", secs })
    }

    /// Takes the price of a 1059 to `recipient` that was admitted.
    ///
    /// # Errors
    /// When this sender has sent too much to this inbox, or everybody together has and this sender is new to it.
    pub(crate) fn gift_wrap(&self, sender: Sender, recipient: &PublicKey, now_ms: u64) -> Result<Paid, RetryAfter> {
        self.target([BucketKind::InboxOfSender, BucketKind::Inbox], sender, recipient, now_ms)
            .map_err(|secs| RetryAfter { reason: "too many gift wraps to this recipient", secs })
    }

    /// Takes the price of one KeyPackage of `owner` that a reader is about to use up.
    ///
    /// # Errors
    /// When this key, or this address, has used up [`CLAIMS_PER_HOUR`] of them.
    pub(crate) fn claim(
        &self,
        reader: &PublicKey,
        address: IpAddr,
        owner: &PublicKey,
        now_ms: u64,
    ) -> Result<Paid, RetryAfter> {
        let reason = "too many KeyPackages of this owner taken";
        let by_key = self.bucket(BucketKind::Claims, (reader, owner));
        let by_address = self.bucket(BucketKind::Claims, (bucket_address(address), owner));
        for BucketId { kind, hash } in [by_key, by_address] {
            let taken = self.buckets(kind).take(hash, self.rate(kind), now_ms);
            taken.map_err(|secs| RetryAfter { reason, secs })?;
        }
        Ok(Paid::two(by_key, by_address))
    }

    /// The number of a payer in fair turns: a hash under a secret key, so that nobody can choose to share another's turn.
    pub(crate) fn payer_hash(&self, payer: Payer) -> u64 {
        match payer {
            Payer::Key(key) => self.hasher.hash_for_turns((0_u8, key)),
            Payer::Address(block) => self.hasher.hash_for_turns((1_u8, block.widest())),
        }
    }

    /// Takes a charge from its bucket, whether the events are there or not; the debt stays under a burst.
    pub(crate) fn charge(&self, Charge { bucket: BucketId { kind, hash }, times }: Charge, now_ms: u64) {
        self.buckets(kind).charge(hash, self.rate(kind), times, now_ms);
    }

    /// Forgets buckets that make no difference any more; to be called every minute or so.
    pub(crate) fn sweep(&self, now_ms: u64) {
        for buckets in [&self.addresses, &self.senders, &self.claimers, &self.pairs, &self.targets] {
            buckets.sweep(now_ms);
        }
    }

    /// Number of buckets that are held now.
    fn tracked(&self) -> usize {
        [&self.addresses, &self.senders, &self.claimers, &self.pairs, &self.targets].into_iter().map(Buckets::len).sum()
    }

    /// Takes one event from the owner's bucket, and one KeyPackage if it is one; `reasons` name the two in a refusal.
    fn take(
        &self,
        [events, key_packages]: [BucketKind; 2],
        owner: &impl Hash,
        class: Class,
        now_ms: u64,
        reasons: [&'static str; 2],
    ) -> Result<Paid, RetryAfter> {
        let pay = |kind, reason| {
            let bucket = self.bucket(kind, owner);
            let taken = self.buckets(kind).take(bucket.hash, self.rate(kind), now_ms);
            taken.map(|_| bucket).map_err(|secs| RetryAfter { reason, secs })
        };
        let event = pay(events, reasons[0])?;
        match class {
            Class::Event => Ok(Paid::one(event)),
            Class::KeyPackage => Ok(Paid::two(event, pay(key_packages, reasons[1])?)),
        }
    }

    fn target(
        &self,
        [of_sender, of_all]: [BucketKind; 2],
        sender: Sender,
        target: &impl Hash,
        now_ms: u64,
    ) -> Result<Paid, u64> {
        let pair = match sender {
            Sender::Key(key) => self.bucket(of_sender, (target, 0_u8, key)),
            Sender::Address(address) => self.bucket(of_sender, (target, 1_u8, bucket_address(address))),
        };
        let age = self.pairs.take(pair.hash, self.rate(of_sender), now_ms)?;
        let whole = self.bucket(of_all, target);
        let Err(secs) = self.targets.take(whole.hash, self.rate(of_all), now_ms) else {
            return Ok(Paid::two(pair, whole));
        };
        if now_ms.saturating_sub(age.first_ms) >= NEW_SENDER_MS {
            return Ok(Paid::one(pair));
        }
        if age.is_first {
            // A refused event does not make its sender known.
            self.pairs.forget(pair.hash);
        }
        Err(secs)
    }

    /// The map that holds the buckets of a kind.
    const fn buckets(&self, kind: BucketKind) -> &Buckets {
        match kind {
            BucketKind::AddressEvents | BucketKind::AddressKeyPackages => &self.addresses,
            BucketKind::SenderEvents | BucketKind::SenderKeyPackages => &self.senders,
            BucketKind::GroupOfSender | BucketKind::InboxOfSender => &self.pairs,
            BucketKind::Group | BucketKind::Inbox => &self.targets,
            BucketKind::Claims => &self.claimers,
        }
    }

    const fn rate(&self, kind: BucketKind) -> Rate {
        match kind {
            BucketKind::AddressEvents | BucketKind::SenderEvents | BucketKind::InboxOfSender => self.events,
            BucketKind::AddressKeyPackages | BucketKind::SenderKeyPackages => self.key_packages,
            BucketKind::GroupOfSender => self.group_messages,
            BucketKind::Group => self.group_messages.times(CEILING_FACTOR),
            BucketKind::Inbox => self.events.times(CEILING_FACTOR),
            BucketKind::Claims => self.claims,
        }
    }

    fn bucket(&self, kind: BucketKind, owner: impl Hash) -> BucketId {
        BucketId { kind, hash: self.hasher.hash(kind, owner) }
    }
}

impl fmt::Debug for RateLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimits").field("tracked", &self.tracked()).finish_non_exhaustive()
    }
}

/// The address that a bucket belongs to: a household may have 2^64 addresses of IPv6, so a /64 counts as one.
fn bucket_address(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX))),
        v4 => v4,
    }
}
