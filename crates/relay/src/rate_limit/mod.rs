//! Limits on how much one client may send.
//!
//! Source: MLS Gateway specification, `[extensions.mls_gateway.rate_limits]`; docs/rules.md, "Rate limits". Each number
//! of the configuration limits these events:
//!
//! - `max_events_per_minute`: every EVENT. A key that nobody can make for free pays alone ([`RateLimits::key`],
//!   [`RateLimits::member`]). For anybody else the address pays ([`RateLimits::address`], before the signature is
//!   checked), and the sender ([`RateLimits::sender`], after admission).
//! - `max_keypackages_per_hour`: 443 and 30443, paid from buckets of the same owners, beside the above.
//! - `max_group_messages_per_minute`: 445, paid from the bucket of its sender and group ([`RateLimits::group_message`],
//!   after admission).
//! - `max_events_per_minute`, once more: 1059, paid from the bucket of its sender and recipient
//!   ([`RateLimits::gift_wrap`], after admission).
//!
//! The numbers are sustained rates; a burst goes through at once. 0 means no limit. The sender is the key that is a
//! member, else the author when authenticated, else the connection's primary key, else the address alone: the
//! throw-away keys that sign 445s and 1059s are no senders.
//!
//! AUTH and malformed messages have buckets of the connection ([`ConnectionLimits`]) and of the address. An address of
//! IPv6 pays as a /64, a /56 and a /48 at once ([`AddressBlock`]).
//!
//! Callers give the time, in milliseconds of any clock that does not go back.
//!
//! Instances that share a store may tell each other the costs of accepted events ([`Charge`]). The rates then hold over
//! all of them, apart from events that are accepted within the delay of a message. Without such messages each instance
//! has buckets of its own. A refused event counts only at the instance that refused it.

mod accounts;
mod bucket;
mod charge;
mod claims;
mod client_address;
mod connection;
mod payer;
mod reads;
#[cfg(test)]
mod tests;

use std::{fmt, net::IpAddr};

use nostr_extensions::RouteHasher;
use nostr_protocol::{PublicKey, Rejection, mutation};

#[cfg(test)]
pub(crate) use self::connection::ADDRESS_REQUESTS_PER_MINUTE;
use self::{
    accounts::pair_of,
    bucket::{Amount, Buckets, Eviction, Rate},
    charge::{BlockKinds, BucketHasher},
};
pub(crate) use self::{
    charge::{BucketId, BucketKind, Charge, Charges, Paid},
    claims::ClaimAllowance,
    client_address::client_address,
    connection::{Cause, ConnectionLimits, Fault},
    payer::{AddressBlock, Payer, Width},
    reads::{PARTIES_AT_THE_CEILING, ReadAccount, ReadBudgets},
};
use crate::config::RateLimitRates;

/// Events at once of a key that nobody can make for free, before the sustained rate holds.
pub(crate) const KEY_BURST: u32 = 400;
/// Events at once of any other key, and of an address.
pub(crate) const BURST: u32 = 200;
/// KeyPackages, messages to a group, and gift wraps to a recipient at once.
pub(crate) const TARGET_BURST: u32 = 150;
/// Number of senders' rates that all senders together may send to a group or an inbox.
const CEILING_FACTOR: u32 = 20;
/// Part of an inbox's ceiling that only senders use whom its owner knows: one of so many parts.
const RESERVE_PARTS: u32 = 4;
/// Part of the ceiling for members of an address that only members use who have sent from there for an hour.
const KNOWN_MEMBERS_PARTS: u32 = 2;
/// Time for which a sender is new to a group or an inbox, counted from its first event there.
const NEW_SENDER_MS: u64 = 3_600_000;
/// Most KeyPackages of one owner that one reader, and one address, uses up in an hour (docs/rules.md, "Consumption on
/// read" 6).
const CLAIMS_PER_HOUR: u32 = 10;
/// Time for which a group or an inbox remembers a sender that sends nothing.
const PAIR_MEMORY_MS: u64 = 24 * 3_600_000;
/// Most buckets in each of the seven maps, at about 60 bytes.
const BUCKETS_MAX: usize = 1 << 18;

/// The class of an event, which decides the buckets that pay for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Any event but a KeyPackage.
    Event,
    /// Kind 443 or 30443.
    KeyPackage,
}

/// Price of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Price {
    /// The buckets that pay.
    pub(crate) class: Class,
    /// Number of ordinary events that the event costs as much as, at least 1.
    pub(crate) times: u32,
}

/// The sender of a message to a group or an inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// An authenticated key.
    Key(PublicKey),
    /// A connection without one.
    Address(AddressBlock),
}

/// A refusal that ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RetryAfter {
    /// The limit that was reached, in the client's words.
    reason: &'static str,
    /// Seconds until one more event is taken, at least 1.
    secs: u64,
}

impl RetryAfter {
    /// Seconds until one more event is taken.
    pub(crate) const fn secs(self) -> u64 {
        self.secs
    }
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
    handshakes: Rate,
    addresses: Buckets,
    connections: Buckets,
    senders: Buckets,
    keys: Buckets,
    claimers: Buckets,
    pairs: Buckets,
    targets: Buckets,
    hasher: BucketHasher,
}

impl RateLimits {
    /// Full buckets with the rates of the configuration, and with `handshakes_per_minute` new connections of an
    /// address. Instances that share the store of `hasher` give a bucket the same name, so that they can tell each
    /// other about it.
    pub(crate) fn new(rates: &RateLimitRates, handshakes_per_minute: u32, hasher: &RouteHasher) -> Self {
        Self::bounded(rates, handshakes_per_minute, BucketHasher::new(hasher), BUCKETS_MAX)
    }

    fn bounded(rates: &RateLimitRates, handshakes_per_minute: u32, hasher: BucketHasher, buckets_max: usize) -> Self {
        let when_full = || Buckets::new(buckets_max, Eviction::WhenFull);
        let remembered = Eviction::WhenForgotten { memory_ms: PAIR_MEMORY_MS, known_after_ms: NEW_SENDER_MS };
        Self {
            events: Rate::new(rates.max_events_per_minute, 60_000, BURST),
            key_packages: Rate::new(rates.max_keypackages_per_hour, 3_600_000, TARGET_BURST),
            group_messages: Rate::new(rates.max_group_messages_per_minute, 60_000, TARGET_BURST),
            claims: Rate::new(CLAIMS_PER_HOUR, 3_600_000, CLAIMS_PER_HOUR),
            handshakes: Rate::new(handshakes_per_minute, 60_000, handshakes_per_minute),
            addresses: when_full(),
            connections: when_full(),
            senders: when_full(),
            keys: when_full(),
            claimers: when_full(),
            pairs: Buckets::new(buckets_max, remembered),
            targets: when_full(),
            hasher,
        }
    }

    /// Takes the price of an event that no key pays for alone from the address that sent it, before anything is
    /// computed for the event.
    ///
    /// # Errors
    /// When the address has sent too much.
    pub(crate) fn address(&self, block: AddressBlock, price: Price, now_ms: u64) -> Result<Paid, RetryAfter> {
        let block = if mutation!("rate-one-address") { AddressBlock::of(IpAddr::from([0; 4])) } else { block };
        let events = self.block_accounts(BlockKinds::EVENTS, (), block).map(|account| (account, "too many events"));
        let key_packages = self
            .block_accounts(BlockKinds::KEY_PACKAGES, (), block)
            .filter(|_| price.class == Class::KeyPackage)
            .map(|account| (account, "too many KeyPackages"));
        self.take_all(events.chain(key_packages), price.times, now_ms)
    }

    /// Takes the price of an event from a key that nobody can make for free, and that therefore pays alone, before
    /// anything is computed for the event. `block` is the address that sent it.
    ///
    /// # Errors
    /// When the key has sent too much, from any address.
    pub(crate) fn key(
        &self,
        key: &PublicKey,
        block: AddressBlock,
        price: Price,
        now_ms: u64,
    ) -> Result<Paid, RetryAfter> {
        let events = (self.account(BucketKind::KeyEvents, key, block), "too many events from this key");
        self.take_all([events].into_iter().chain(self.key_package_of(key, block, price)), price.times, now_ms)
    }

    /// Takes the price of an event from the member of a group that anyone may found. A client can make such members for
    /// the price of a founding, so they have a ceiling together at each address.
    ///
    /// # Errors
    /// [`NotByKey::Ceiling`] when the members at this address have sent too much together and this one is new there;
    /// [`NotByKey::Key`] when the key has sent too much, from any address.
    pub(crate) fn member(
        &self,
        key: &PublicKey,
        block: AddressBlock,
        price: Price,
        now_ms: u64,
    ) -> Result<Paid, NotByKey> {
        let paid = self.key(key, block, price, now_ms).map_err(NotByKey::Key)?;
        let widest = block.widest();
        let pair = self.account(BucketKind::MemberOfAddress, (widest, key), block);
        let ceiling = self.account(BucketKind::AddressMembers, widest, block);
        // The pair only remembers the key: nothing is taken from its bucket.
        let age = self.pairs.take(&pair, Amount::of(0), now_ms).map_err(|_| NotByKey::Ceiling)?;
        let is_known = now_ms.saturating_sub(age.first_ms) >= NEW_SENDER_MS;
        let reserve = if is_known { 0 } else { ceiling.rate.burst() / KNOWN_MEMBERS_PARTS };
        if self.targets.take(&ceiling, Amount { times: price.times, reserve }, now_ms).is_ok() {
            return Ok(paid);
        }
        self.put_back(paid);
        if age.is_first {
            self.pairs.forget(pair.bucket.hash);
        }
        Err(NotByKey::Ceiling)
    }

    /// Takes the price of an event that the authenticated key `sender` sent, beside its address.
    ///
    /// # Errors
    /// When the key has sent too much, from any address.
    pub(crate) fn sender(
        &self,
        sender: &PublicKey,
        block: AddressBlock,
        price: Price,
        now_ms: u64,
    ) -> Result<Paid, RetryAfter> {
        let events = (self.account(BucketKind::SenderEvents, sender, block), "too many events from this key");
        self.take_all([events].into_iter().chain(self.key_package_of(sender, block, price)), price.times, now_ms)
    }

    /// Takes the price of a 445 to `group` that was admitted.
    ///
    /// # Errors
    /// When this sender has sent too much to this group, or everybody together has and this sender is new to it.
    pub(crate) fn group_message(
        &self,
        sender: Sender,
        block: AddressBlock,
        group: &str,
        now_ms: u64,
    ) -> Result<Paid, RetryAfter> {
        let pair = self.pair(BucketKind::GroupOfSender, sender, &group, block);
        let whole = self.account(BucketKind::Group, group, block);
        self.target([pair, whole], 0, now_ms)
            .map_err(|secs| RetryAfter { reason: "too many messages to this group", secs })
    }

    /// Takes the price of a 1059 to `recipient` that was admitted. A part of the inbox's ceiling is left to senders
    /// that `recipient` knows, and so to this one if it `is_known` to the recipient.
    ///
    /// # Errors
    /// When this sender has sent too much to this inbox, or everybody together has and this sender is new to it.
    pub(crate) fn gift_wrap(
        &self,
        sender: Sender,
        block: AddressBlock,
        recipient: &PublicKey,
        is_known: bool,
        now_ms: u64,
    ) -> Result<Paid, RetryAfter> {
        let pair = self.pair(BucketKind::InboxOfSender, sender, recipient, block);
        let whole = self.account(BucketKind::Inbox, recipient, block);
        let reserve = if is_known { 0 } else { self.inbox_reserve() };
        self.target([pair, whole], reserve, now_ms)
            .map_err(|secs| RetryAfter { reason: "too many gift wraps to this recipient", secs })
    }

    /// Returns whether strangers have used up their part of an inbox's ceiling, so that it matters whether its owner
    /// knows a sender.
    pub(crate) fn is_crowded(&self, recipient: &PublicKey, now_ms: u64) -> bool {
        let kind = BucketKind::Inbox;
        let left = self.buckets(kind).events(self.hasher.hash(kind, recipient), self.rate(kind), now_ms);
        !self.rate(kind).is_unlimited() && left <= self.inbox_reserve()
    }

    /// Returns whether `from` sent a gift wrap to `to` within the last 24 hours, or earlier and went on since then, as
    /// far as this process remembers.
    pub(crate) fn has_written(&self, from: &PublicKey, to: &PublicKey) -> bool {
        let kind = BucketKind::InboxOfSender;
        self.buckets(kind).remembers(self.hasher.hash(kind, pair_of(Sender::Key(*from), to)))
    }

    /// Takes the price of one KeyPackage of `owner` that a reader is about to use up.
    ///
    /// # Errors
    /// When this key, or this address, has used up [`CLAIMS_PER_HOUR`] of them.
    fn claim(&self, reader: &PublicKey, address: IpAddr, owner: &PublicKey, now_ms: u64) -> Result<Paid, RetryAfter> {
        let block = AddressBlock::of(address);
        let by_key = self.account(BucketKind::Claims, (reader, owner), block);
        let by_address = self.block_accounts(BlockKinds::CLAIMS, owner, block);
        let all = [by_key].into_iter().chain(by_address);
        self.take_all(all.map(|account| (account, "too many KeyPackages of this owner taken")), 1, now_ms)
    }

    /// Takes the price of a new connection.
    ///
    /// # Errors
    /// When the address has opened too many.
    pub(crate) fn handshake(&self, block: AddressBlock, now_ms: u64) -> Result<(), RetryAfter> {
        self.take_blocks(BlockKinds::HANDSHAKES, (), block, Amount::of(1), now_ms)
            .map(drop)
            .map_err(|secs| RetryAfter { reason: "too many new connections", secs })
    }

    /// Takes the price of an HTTP request that opens no WebSocket.
    ///
    /// # Errors
    /// When the address has sent too many.
    pub(crate) fn request(&self, block: AddressBlock, now_ms: u64) -> Result<(), RetryAfter> {
        self.take_blocks(BlockKinds::REQUESTS, (), block, Amount::of(1), now_ms)
            .map(drop)
            .map_err(|secs| RetryAfter { reason: "too many HTTP requests", secs })
    }

    /// The number of a payer in fair turns: a hash under a secret key, so that nobody can choose to share another's
    /// turn.
    pub(crate) fn payer_hash(&self, payer: Payer) -> u64 {
        match payer {
            Payer::Key(key) => self.hasher.hash_for_turns((0_u8, key)),
            Payer::Address(block) => self.hasher.hash_for_turns((1_u8, block.widest())),
        }
    }

    /// Takes a charge of another instance from its bucket, whether the events are there or not; the debt stays under a
    /// burst. Returns whether the charge counted: it makes no bucket beyond a share of the map.
    pub(crate) fn charge(&self, Charge { bucket: BucketId { kind, hash }, times }: Charge, now_ms: u64) -> bool {
        self.buckets(kind).charge_by_peer(hash, self.rate(kind), times, now_ms)
    }

    /// Number of whole events that a bucket holds.
    #[cfg(test)]
    pub(crate) fn left(&self, BucketId { kind, hash }: BucketId, now_ms: u64) -> u32 {
        self.buckets(kind).events(hash, self.rate(kind), now_ms)
    }

    /// Forgets buckets that make no difference any more; to be called every minute or so.
    pub(crate) fn sweep(&self, now_ms: u64) {
        self.maps().into_iter().for_each(|buckets| buckets.sweep(now_ms));
    }

    /// Number of buckets that are held now.
    pub(crate) fn tracked(&self) -> usize {
        self.maps().into_iter().map(Buckets::len).sum()
    }

    const fn inbox_reserve(&self) -> u32 {
        TARGET_BURST * CEILING_FACTOR / RESERVE_PARTS
    }
}

/// The reason why a member's key does not pay alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotByKey {
    /// Members at this address have reached their ceiling: the address pays, as for any other key.
    Ceiling,
    /// The key has sent too much.
    Key(RetryAfter),
}

impl fmt::Debug for RateLimits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimits").field("tracked", &self.tracked()).finish_non_exhaustive()
    }
}
