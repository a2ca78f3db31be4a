//! The accounts of owners: the map that holds the buckets of a kind, their rate, and payments from several accounts at
//! once, of which all are taken or none.

use std::hash::Hash;

use nostr_protocol::PublicKey;

use super::{
    AddressBlock, CEILING_FACTOR, Class, KEY_BURST, NEW_SENDER_MS, Paid, Price, RateLimits, RetryAfter, Sender,
    TARGET_BURST, Width,
    bucket::{Account, Amount, Buckets, Rate},
    charge::{BlockKinds, BucketId, BucketKind},
    connection,
};

impl RateLimits {
    pub(super) const fn maps(&self) -> [&Buckets; 7] {
        let Self { addresses, connections, senders, keys, claimers, pairs, targets, .. } = self;
        [addresses, connections, senders, keys, claimers, pairs, targets]
    }

    /// Takes `times` events from each account, or from none of them; beside each stands the reason for a refusal.
    pub(super) fn take_all(
        &self,
        accounts: impl Iterator<Item = (Account, &'static str)> + Clone,
        times: u32,
        now_ms: u64,
    ) -> Result<Paid, RetryAfter> {
        self.take_all_leaving(|_| 0, accounts, times, now_ms)
    }

    /// Takes events as [`Self::take_all`] does, and leaves as many in each bucket as `reserve` says for its rate.
    pub(super) fn take_all_leaving(
        &self,
        reserve: impl Fn(Rate) -> u32,
        accounts: impl Iterator<Item = (Account, &'static str)> + Clone,
        times: u32,
        now_ms: u64,
    ) -> Result<Paid, RetryAfter> {
        for (n, (account, reason)) in accounts.clone().enumerate() {
            let amount = Amount { times, reserve: reserve(account.rate) };
            let taken = self.buckets(account.bucket.kind).take(&account, amount, now_ms);
            if let Err(secs) = taken {
                self.put_back(Paid::new(accounts.take(n).map(|(account, _)| account.bucket), times));
                return Err(RetryAfter { reason, secs });
            }
        }
        Ok(Paid::new(accounts.map(|(account, _)| account.bucket), times))
    }

    /// Takes the amount from each block of an address, or from none of them; gives the seconds until it is there.
    pub(super) fn take_blocks(
        &self,
        kinds: BlockKinds,
        owner: impl Hash + Copy,
        block: AddressBlock,
        amount: Amount,
        now_ms: u64,
    ) -> Result<Paid, u64> {
        let accounts = self.block_accounts(kinds, owner, block).map(|account| (account, ""));
        self.take_all(accounts, amount.times, now_ms).map_err(|retry| retry.secs)
    }

    /// Takes `times` events from each block of an address, whether they are there or not.
    pub(super) fn charge_blocks(
        &self,
        kinds: BlockKinds,
        owner: impl Hash + Copy,
        block: AddressBlock,
        times: u32,
        now_ms: u64,
    ) {
        for account in self.block_accounts(kinds, owner, block) {
            self.buckets(account.bucket.kind).charge(&account, times, now_ms);
        }
    }

    /// Takes from the bucket of a sender and its target, and from the target's own, of which `reserve` events stay.
    pub(super) fn target(&self, [pair, whole]: [Account; 2], reserve: u32, now_ms: u64) -> Result<Paid, u64> {
        let age = self.pairs.take(&pair, Amount::of(1), now_ms)?;
        let Err(secs) = self.targets.take(&whole, Amount { times: 1, reserve }, now_ms) else {
            return Ok(Paid::new([pair.bucket, whole.bucket], 1));
        };
        if now_ms.saturating_sub(age.first_ms) >= NEW_SENDER_MS {
            return Ok(Paid::new([pair.bucket], 1));
        }
        self.pairs.put_back(pair.bucket.hash, 1);
        if age.is_first {
            // A refused message does not make its sender known.
            self.pairs.forget(pair.bucket.hash);
        }
        Err(secs)
    }

    /// Puts back a payment for an event that was refused.
    pub(super) fn put_back(&self, Paid { buckets, times }: Paid) {
        for BucketId { kind, hash } in buckets.into_iter().flatten() {
            self.buckets(kind).put_back(hash, times);
        }
    }

    /// The map that holds the buckets of a kind.
    pub(super) const fn buckets(&self, kind: BucketKind) -> &Buckets {
        use BucketKind as Kind;
        match kind {
            Kind::AddressEvents | Kind::WideEvents | Kind::WidestEvents => &self.addresses,
            Kind::AddressKeyPackages | Kind::WideKeyPackages | Kind::WidestKeyPackages => &self.addresses,
            Kind::AddressAuths | Kind::WideAuths | Kind::WidestAuths => &self.connections,
            Kind::AddressFaults | Kind::WideFaults | Kind::WidestFaults => &self.connections,
            Kind::AddressHandshakes | Kind::WideHandshakes | Kind::WidestHandshakes => &self.connections,
            Kind::AddressLookups
            | Kind::WideLookups
            | Kind::WidestLookups
            | Kind::AddressRequests
            | Kind::WideRequests
            | Kind::WidestRequests => &self.connections,
            Kind::SenderEvents | Kind::SenderKeyPackages => &self.senders,
            Kind::KeyEvents => &self.keys,
            Kind::GroupOfSender | Kind::InboxOfSender | Kind::MemberOfAddress => &self.pairs,
            Kind::Group | Kind::Inbox | Kind::AddressMembers => &self.targets,
            Kind::Claims | Kind::WideClaims | Kind::WidestClaims => &self.claimers,
        }
    }

    pub(super) const fn rate(&self, kind: BucketKind) -> Rate {
        use BucketKind as Kind;
        let by_key = self.events.with_burst(KEY_BURST);
        let to_target = self.events.with_burst(TARGET_BURST);
        let auths = if self.events.is_unlimited() { self.events } else { connection::ADDRESS_AUTHS };
        let lookups = if self.events.is_unlimited() { self.events } else { connection::ADDRESS_LOOKUPS };
        let faults = connection::address_faults(self.events);
        let (wide, widest) = (Width::Wide.factor(), Width::Widest.factor());
        match kind {
            Kind::AddressEvents | Kind::SenderEvents => self.events,
            Kind::WideEvents => self.events.times(wide),
            Kind::WidestEvents => self.events.times(widest),
            Kind::KeyEvents | Kind::MemberOfAddress => by_key,
            Kind::AddressMembers => by_key.times(CEILING_FACTOR),
            Kind::AddressKeyPackages | Kind::SenderKeyPackages => self.key_packages,
            Kind::WideKeyPackages => self.key_packages.times(wide),
            Kind::WidestKeyPackages => self.key_packages.times(widest),
            Kind::GroupOfSender => self.group_messages,
            Kind::Group => self.group_messages.times(CEILING_FACTOR),
            Kind::InboxOfSender => to_target,
            Kind::Inbox => to_target.times(CEILING_FACTOR),
            Kind::Claims => self.claims,
            Kind::WideClaims => self.claims.times(wide),
            Kind::WidestClaims => self.claims.times(widest),
            Kind::AddressAuths => auths,
            Kind::WideAuths => auths.times(wide),
            Kind::WidestAuths => auths.times(widest),
            Kind::AddressRequests => connection::ADDRESS_REQUESTS,
            Kind::WideRequests => connection::ADDRESS_REQUESTS.times(wide),
            Kind::WidestRequests => connection::ADDRESS_REQUESTS.times(widest),
            Kind::AddressLookups => lookups,
            Kind::WideLookups => lookups.times(wide),
            Kind::WidestLookups => lookups.times(widest),
            Kind::AddressFaults => faults,
            Kind::WideFaults => faults.times(wide),
            Kind::WidestFaults => faults.times(widest),
            Kind::AddressHandshakes => self.handshakes,
            Kind::WideHandshakes => self.handshakes.times(wide),
            Kind::WidestHandshakes => self.handshakes.times(widest),
        }
    }

    /// The account of an owner. Newcomers for whom there is no room share by `block`.
    pub(super) fn account(&self, kind: BucketKind, owner: impl Hash, block: AddressBlock) -> Account {
        let bucket = BucketId { kind, hash: self.hasher.hash(kind, owner) };
        Account { bucket, rate: self.rate(kind), shared: self.hasher.hash(kind, block.coarse()) }
    }

    /// The accounts of all blocks of an address.
    pub(super) fn block_accounts(
        &self,
        kinds: BlockKinds,
        owner: impl Hash + Copy,
        block: AddressBlock,
    ) -> impl Iterator<Item = Account> + Clone {
        block.all().map(move |(width, wider)| self.account(kinds.of(width), (wider, owner), block))
    }

    /// The account of a sender at a group or an inbox.
    pub(super) fn pair(&self, kind: BucketKind, sender: Sender, target: &impl Hash, block: AddressBlock) -> Account {
        self.account(kind, pair_of(sender, target), block)
    }

    /// The account of an owner's KeyPackages, if the price has it pay.
    pub(super) fn key_package_of(
        &self,
        key: &PublicKey,
        block: AddressBlock,
        price: Price,
    ) -> impl Iterator<Item = (Account, &'static str)> + Clone {
        let pays = price.class == Class::KeyPackage;
        let account = pays.then(|| self.account(BucketKind::SenderKeyPackages, key, block));
        account.map(|account| (account, "too many KeyPackages from this key")).into_iter()
    }
}

/// The owner of a pair's bucket.
pub(super) fn pair_of(sender: Sender, target: &impl Hash) -> impl Hash {
    match sender {
        Sender::Key(key) => (target, Some(key), None),
        Sender::Address(block) => (target, None, Some(block)),
    }
}
