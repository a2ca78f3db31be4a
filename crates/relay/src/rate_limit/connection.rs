//! The buckets of one connection: for malformed messages, for AUTH, and for groups that are looked up before an event
//! is paid for.
//!
//! Source: docs/rules.md, "Rate limits" 7 and 8. They are the connection's own, so that no other connection of its
//! address suffers.

use super::{
    AddressBlock, Payer, RateLimits, RetryAfter,
    bucket::{Amount, Bucket, Rate},
    charge::BlockKinds,
};

/// Price of a malformed message, in events; its bytes come on top.
const FAULT_COST: u32 = 10;
/// Price of a malformed request that is refused under its own id, in events; its bytes come on top.
const REQUEST_FAULT_COST: u32 = 1;
/// Bytes of a malformed message that cost one event more.
const FAULT_BYTES: usize = 4 << 10;
/// Events that a connection may owe to malformed messages at once, before it is closed.
const FAULTS_BURST: u32 = 400;
/// Number of connections' rates that the malformed messages of an address have.
const FAULTS_FACTOR: u32 = 4;
/// Events that a connection may still owe to malformed messages when its address has used up its own bucket: a client
/// that connects anew starts with no more than these.
const FAULTS_FORGIVEN: u32 = 30;

/// AUTHs of a connection in a minute.
const AUTHS_PER_MINUTE: u32 = 10;
/// AUTHs of a connection at once: more than it may authenticate keys.
const AUTHS_BURST: u32 = 40;
/// Price of an AUTH with a wrong id or signature, in AUTHs of the connection.
const FORGED_AUTH_COST: u32 = 10;
/// AUTHs of a connection that its address cannot refuse. It pays for them all the same.
const AUTHS_ALWAYS: u32 = 2;

/// Groups of a connection in a minute, and at once, that are looked up before an event is paid for, and that its
/// address cannot refuse.
const LOOKUPS_PER_MINUTE: u32 = 2;
/// Groups of an address in a minute, and at once, that are looked up before an event is paid for, beyond those of
/// [`LOOKUPS_PER_MINUTE`].
const ADDRESS_LOOKUPS_PER_MINUTE: u32 = 600;
/// Price of a question to the access service, in groups that are looked up.
const QUESTION_COST: u32 = 2;
/// Questions about groups that a request does not name use one of so many parts of an address's bucket.
const UNNAMED_PARTS: u32 = 4;
/// Those of them in which the reader's key has not acted use one of so many parts.
const INVITED_PARTS: u32 = 8;
/// HTTP requests of one address in a minute, all of which it may send at once: pages, probes and scrapes of a whole
/// network send fewer.
pub(crate) const ADDRESS_REQUESTS_PER_MINUTE: u32 = 1_200;

/// Rate of all AUTHs of an address: each costs the relay about 50 us.
pub(super) const ADDRESS_AUTHS: Rate = Rate::new(ADDRESS_AUTHS_PER_MINUTE, 60_000, ADDRESS_AUTHS_PER_MINUTE);
/// AUTHs of an address in a minute, and at once.
const ADDRESS_AUTHS_PER_MINUTE: u32 = 6_000;

/// Rate of the groups of an address that are looked up before an event is paid for.
pub(super) const ADDRESS_REQUESTS: Rate = Rate::new(ADDRESS_REQUESTS_PER_MINUTE, 60_000, ADDRESS_REQUESTS_PER_MINUTE);
pub(super) const ADDRESS_LOOKUPS: Rate = Rate::new(ADDRESS_LOOKUPS_PER_MINUTE, 60_000, ADDRESS_LOOKUPS_PER_MINUTE);

/// The rate of malformed messages of an address, where events have the rate `events`.
pub(super) const fn address_faults(events: Rate) -> Rate {
    connection_faults(events).times(FAULTS_FACTOR)
}

const fn connection_faults(events: Rate) -> Rate {
    events.with_burst(FAULTS_BURST)
}

/// A message that the relay cannot use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Text that is no message, an event that is none, or an id or a signature that is wrong.
    Malformed,
    /// A request whose filters are malformed, as those of a client that asks for what this relay does not have.
    Request,
}

impl Fault {
    /// The price of the message, in events.
    fn cost(self, bytes: usize) -> u32 {
        let cost = match self {
            Self::Malformed => FAULT_COST,
            Self::Request => REQUEST_FAULT_COST,
        };
        cost.saturating_add(u32::try_from(bytes / FAULT_BYTES).unwrap_or(u32::MAX))
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct ConnectionLimits {
    faults: Bucket,
    /// Set when the connection has sent more malformed messages than it may.
    has_too_many_faults: bool,
    auths: Bucket,
    /// Number of AUTHs so far, at most [`AUTHS_ALWAYS`].
    auths_taken: u32,
    lookups: Bucket,
}

impl ConnectionLimits {
    /// Returns whether the connection is to be closed for its malformed messages.
    pub(crate) const fn has_too_many_faults(&self) -> bool {
        self.has_too_many_faults
    }
}

/// The cause of a question to the access service about a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The request names the group, or an event of it.
    Named,
    /// The reader is a member, and the request names no group.
    Acted,
    /// The same of a membership in which the reader's key has not acted, and which anybody may have made.
    Invited,
}

impl RateLimits {
    /// The full buckets of a new connection.
    pub(crate) fn connection(&self, now_ms: u64) -> ConnectionLimits {
        let own = |per_minute, burst| {
            let rate = if self.events.is_unlimited() { self.events } else { Rate::new(per_minute, 60_000, burst) };
            Bucket::full(rate, now_ms)
        };
        ConnectionLimits {
            faults: Bucket::full(connection_faults(self.events), now_ms),
            has_too_many_faults: false,
            auths: own(AUTHS_PER_MINUTE, AUTHS_BURST),
            auths_taken: 0,
            lookups: own(LOOKUPS_PER_MINUTE, LOOKUPS_PER_MINUTE),
        }
    }

    /// The buckets of one HTTP request: those of a new connection, without lookups, which its address pays for alone.
    pub(crate) fn one_request(&self, now_ms: u64) -> ConnectionLimits {
        let mut limits = self.connection(now_ms);
        limits.lookups.charge(LOOKUPS_PER_MINUTE, now_ms);
        limits
    }

    /// Takes one look at a group that is not in memory, before the event that names it is paid for: first from the
    /// connection, then from its address.
    pub(crate) fn may_look_up(&self, connection: &mut ConnectionLimits, block: AddressBlock, now_ms: u64) -> bool {
        let one = Amount::of(1);
        connection.lookups.take(one, now_ms).is_ok()
            || self.take_blocks(BlockKinds::LOOKUPS, (), block, one, now_ms).is_ok()
    }

    /// Takes the price of a question to the access service about a group that anybody may have the reader in. One that
    /// the request does not name leaves most of the bucket: others add the reader's key to groups.
    ///
    /// # Errors
    /// When the address has asked too much.
    pub(crate) fn question(&self, block: AddressBlock, cause: Cause, now_ms: u64) -> Result<(), RetryAfter> {
        let reason = "too many questions about groups of which you are no member";
        let reserve = |rate: Rate| match cause {
            Cause::Named => 0,
            Cause::Acted => rate.burst() - rate.burst() / UNNAMED_PARTS,
            Cause::Invited => rate.burst() - rate.burst() / INVITED_PARTS,
        };
        let accounts = self.block_accounts(BlockKinds::LOOKUPS, (), block).map(|account| (account, reason));
        self.take_all_leaving(reserve, accounts, QUESTION_COST, now_ms).map(drop)
    }

    /// Charges a connection for a message that the relay cannot use, of so many bytes. Its address pays too, and once
    /// that has nothing left a connection that no key pays for is forgiven little.
    pub(crate) fn fault(
        &self,
        connection: &mut ConnectionLimits,
        payer: Payer,
        (fault, bytes): (Fault, usize),
        now_ms: u64,
    ) {
        let cost = fault.cost(bytes);
        let mut is_over = connection.faults.take(Amount::of(cost), now_ms).is_err();
        if let Payer::Address(block) = payer
            && self.take_blocks(BlockKinds::FAULTS, (), block, Amount::of(cost), now_ms).is_err()
        {
            is_over |= connection.faults.events(now_ms) + FAULTS_FORGIVEN < FAULTS_BURST;
        }
        connection.has_too_many_faults |= is_over;
    }

    /// Takes the price of an AUTH. The connection's bucket comes first. Its address cannot refuse its first AUTHs, so
    /// that no client keeps another one of its address from authenticating.
    ///
    /// # Errors
    /// When the connection, or its address, has sent too many.
    pub(crate) fn auth(&self, connection: &mut ConnectionLimits, payer: Payer, now_ms: u64) -> Result<(), RetryAfter> {
        let reason = "too many AUTHs";
        connection.auths.take(Amount::of(1), now_ms).map_err(|secs| RetryAfter { reason, secs })?;
        let Payer::Address(block) = payer else { return Ok(()) };
        if connection.auths_taken < AUTHS_ALWAYS {
            connection.auths_taken += 1;
            self.charge_blocks(BlockKinds::AUTHS, (), block, 1, now_ms);
            return Ok(());
        }
        self.take_blocks(BlockKinds::AUTHS, (), block, Amount::of(1), now_ms)
            .map(drop)
            .map_err(|secs| RetryAfter { reason, secs })
    }

    /// Fines a connection for an AUTH with a wrong id or signature: it has paid for one, and pays the rest of
    /// [`FORGED_AUTH_COST`] now, if need be into debt.
    pub(crate) fn forged_auth(&self, connection: &mut ConnectionLimits, now_ms: u64) {
        connection.auths.charge(FORGED_AUTH_COST - 1, now_ms);
    }
}
