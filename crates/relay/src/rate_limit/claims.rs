//! The rate at which readers use up the KeyPackages of one owner.
//!
//! Source: docs/rules.md, "Consumption on read" 6. A claim sets payments aside before it asks the store, so that
//! requests at one time cannot use up more together, and puts back those that it did not spend: a KeyPackage that stays
//! costs nothing.

use std::net::IpAddr;

use nostr_protocol::PublicKey;

use super::{
    AddressBlock, Paid, Payer, Price, RateLimits, RetryAfter,
    bucket::Account,
    charge::{BlockKinds, BucketKind},
};

/// The KeyPackages of one owner that a claim may use up, each with its payment.
#[derive(Debug)]
#[must_use = "payments that are set aside are lost unless they are settled"]
pub(crate) struct ClaimAllowance {
    paid: Vec<Paid>,
    /// The wait for one more, where fewer are set aside than were asked for.
    pub(crate) wait: Option<RetryAfter>,
}

impl ClaimAllowance {
    /// Most KeyPackages that the claim may use up.
    pub(crate) const fn used_max(&self) -> usize {
        self.paid.len()
    }
}

impl RateLimits {
    /// The numbers under which a store counts the claims of a key, of its address and of the site around it, the same
    /// on all instances.
    pub(crate) fn claim_parties(&self, reader: &PublicKey, block: AddressBlock) -> (u64, [u64; 2]) {
        let address = |block: AddressBlock| self.hasher.hash_for_turns(("claims from", block));
        (self.hasher.hash_for_turns(("claims of", reader)), [address(block), address(block.widest())])
    }

    /// Takes the price of events for an answer that is kept, whether it is there or not: from a key that pays alone,
    /// else from the address and from the reader. The debt stays under a burst.
    pub(crate) fn owe(
        &self,
        payer: Payer,
        reader: &PublicKey,
        block: AddressBlock,
        price: Price,
        now_ms: u64,
    ) -> Vec<Paid> {
        let times = price.times;
        let charge = |accounts: Vec<Account>| {
            accounts.iter().for_each(|it| self.buckets(it.bucket.kind).charge(it, times, now_ms));
            Paid::new(accounts.iter().map(|account| account.bucket), times)
        };
        match payer {
            Payer::Key(key) => vec![charge(vec![self.account(BucketKind::KeyEvents, key, block)])],
            Payer::Address(_) => vec![
                charge(self.block_accounts(BlockKinds::EVENTS, (), block).collect()),
                charge(vec![self.account(BucketKind::SenderEvents, reader, block)]),
            ],
        }
    }

    /// Sets up to `most` KeyPackages of `owner` aside for a reader.
    pub(crate) fn set_claims_aside(
        &self,
        reader: &PublicKey,
        address: IpAddr,
        owner: &PublicKey,
        most: usize,
        now_ms: u64,
    ) -> ClaimAllowance {
        let mut allowance = ClaimAllowance { paid: Vec::with_capacity(most), wait: None };
        while allowance.paid.len() < most && allowance.wait.is_none() {
            match self.claim(reader, address, owner, now_ms) {
                Ok(paid) => allowance.paid.push(paid),
                Err(wait) => allowance.wait = Some(wait),
            }
        }
        allowance
    }

    /// Puts back the payments that no KeyPackage was used up for, and gives the others.
    pub(crate) fn settle_claims(&self, allowance: ClaimAllowance, used: usize) -> Vec<Paid> {
        let mut paid = allowance.paid;
        paid.drain(used.min(paid.len())..).for_each(|unspent| self.put_back(unspent));
        paid
    }
}
