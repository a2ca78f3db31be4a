//! Budgets of reads: the work that the requests of one party may cost in a minute.
//!
//! Source: docs/rules.md, "Cost of reads". A request is paid as it goes: before a page the budgets are asked whether
//! anything is left, after it the page's cost is taken, if need be into debt. The debt of a party is at most what the
//! pages under way cost, and stays under a minute's budget. Instances do not tell each other what reads cost.

use nostr_extensions::RouteHasher;
use nostr_protocol::PublicKey;
use nostr_store::Cost;

use super::{
    BUCKETS_MAX, RetryAfter,
    bucket::{Account, Buckets, Eviction, Rate},
    charge::{BlockKinds, BucketHasher, BucketId, BucketKind},
    payer::{AddressBlock, Payer},
};

/// The period of a budget, in milliseconds.
const PERIOD_MS: u32 = 60_000;
/// Parts of a minute's budget of which one must be left for a request to begin, so that a request that begins gets
/// somewhere.
const PARTS_TO_BEGIN: u32 = 60;
/// Parties that may read at their limit beside each other before the ceiling of documents refuses others too.
pub(crate) const PARTIES_AT_THE_CEILING: u32 = 8;

/// The budgets of all parties.
pub(crate) struct ReadBudgets {
    units: Rate,
    documents: Rate,
    unit_buckets: Buckets,
    document_buckets: Buckets,
    hasher: BucketHasher,
}

/// The buckets that pay for one request, each with the number of parties that it stands for.
#[derive(Clone, Debug)]
pub(crate) struct ReadAccount(Vec<Owner>);

/// One owner of a bucket of units and of a bucket of documents. The maps of this module have no other buckets, so that
/// the kinds of events tell the owners apart.
#[derive(Clone, Copy, Debug)]
struct Owner {
    bucket: BucketId,
    shared: u64,
    factor: u32,
}

impl Owner {
    fn account(&self, rate: Rate) -> Account {
        Account { bucket: self.bucket, rate: rate.times(self.factor), shared: self.shared }
    }
}

impl ReadBudgets {
    /// Full budgets of so many units a minute for each party, and of its share of so many documents a minute; 0 for no
    /// limit.
    pub(crate) fn new(units_per_minute: u32, documents_per_minute: u32, hasher: &RouteHasher) -> Self {
        let documents = match documents_per_minute {
            0 => 0,
            all => (all / PARTIES_AT_THE_CEILING).max(1),
        };
        Self {
            units: Rate::new(units_per_minute, PERIOD_MS, units_per_minute),
            documents: Rate::new(documents, PERIOD_MS, documents),
            unit_buckets: Buckets::new(BUCKETS_MAX, Eviction::WhenFull),
            document_buckets: Buckets::new(BUCKETS_MAX, Eviction::WhenFull),
            hasher: BucketHasher::new(hasher),
        }
    }

    /// The account of a request: a payer that is a key pays alone; an address pays with its wider blocks, and with the
    /// key of the reader, which reads from other addresses too. `block` is the address that asks.
    pub(crate) fn account(&self, payer: Payer, reader: Option<PublicKey>, block: AddressBlock) -> ReadAccount {
        let owner = |kind: BucketKind, bucket: u64, factor: u32| {
            let shared = self.hasher.hash(kind, block.coarse());
            Owner { bucket: BucketId { kind, hash: bucket }, shared, factor }
        };
        let of_key = |key: PublicKey| {
            let kind = BucketKind::SenderEvents;
            owner(kind, self.hasher.hash(kind, key), 1)
        };
        ReadAccount(match payer {
            Payer::Key(key) => vec![of_key(key)],
            Payer::Address(block) => {
                let of_block = |(width, wider): (_, AddressBlock)| {
                    let kind = BlockKinds::EVENTS.of(width);
                    owner(kind, self.hasher.hash(kind, wider), width.factor())
                };
                block.all().map(of_block).chain(reader.map(of_key)).collect()
            }
        })
    }

    /// Returns whether a request may begin.
    ///
    /// # Errors
    /// The time after which it may.
    pub(crate) fn may_begin(&self, account: &ReadAccount, now_ms: u64) -> Result<(), RetryAfter> {
        let units = u64::from(self.units.burst() / PARTS_TO_BEGIN).max(1);
        self.hold(account, Cost { units, documents: 1 }, now_ms)
    }

    /// Returns whether a request that has cost `spent` may go on.
    ///
    /// # Errors
    /// The time after which the same request gets as far again.
    pub(crate) fn may_go_on(&self, account: &ReadAccount, spent: Cost, now_ms: u64) -> Result<(), RetryAfter> {
        match self.hold(account, Cost { units: 1, documents: 1 }, now_ms) {
            Ok(()) => Ok(()),
            Err(used_up) => Err(self.hold(account, spent, now_ms).err().unwrap_or(used_up)),
        }
    }

    /// Takes a cost, whether it is there or not.
    pub(crate) fn charge(&self, account: &ReadAccount, cost: Cost, now_ms: u64) {
        for owner in &account.0 {
            self.unit_buckets.charge(&owner.account(self.units), times(cost.units), now_ms);
            if cost.documents > 0 {
                self.document_buckets.charge(&owner.account(self.documents), times(cost.documents), now_ms);
            }
        }
    }

    /// Forgets buckets that are full again; to be called every minute or so.
    pub(crate) fn sweep(&self, now_ms: u64) {
        self.unit_buckets.sweep(now_ms);
        self.document_buckets.sweep(now_ms);
    }

    /// Returns whether all buckets hold this much.
    fn hold(&self, account: &ReadAccount, wanted: Cost, now_ms: u64) -> Result<(), RetryAfter> {
        for owner in &account.0 {
            let held = self.unit_buckets.holds(&owner.account(self.units), times(wanted.units), now_ms);
            held.map_err(|secs| RetryAfter { reason: "too much reading", secs })?;
            let documents = owner.account(self.documents);
            let held = self.document_buckets.holds(&documents, times(wanted.documents), now_ms);
            held.map_err(|secs| RetryAfter { reason: "too many documents read", secs })?;
        }
        Ok(())
    }
}

fn times(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use nostr_protocol::testing::{public_key, random_keypair};

    use super::*;

    const COST: Cost = Cost { units: 600, documents: 0 };

    fn budgets(units: u32, documents: u32) -> ReadBudgets {
        ReadBudgets::new(units, documents, &RouteHasher::new(&[7; 16]))
    }

    fn at(address: &str) -> AddressBlock {
        AddressBlock::of(address.parse().expect("an address"))
    }

    fn of(budgets: &ReadBudgets, address: &str, reader: Option<PublicKey>) -> ReadAccount {
        budgets.account(Payer::Address(at(address)), reader, at(address))
    }

    fn secs(refused: Result<(), RetryAfter>) -> u64 {
        refused.expect_err("nothing is left").secs
    }

    #[test]
    fn an_address_pays_and_a_key_that_is_named_pays_alone() {
        let budgets = budgets(600, 0);
        let [alice, bob] = [public_key(&random_keypair()), public_key(&random_keypair())];
        let account = of(&budgets, "192.0.2.1", Some(alice));
        assert!(budgets.may_begin(&account, 0).is_ok());
        budgets.charge(&account, COST, 0);
        assert_eq!(secs(budgets.may_begin(&account, 0)), 1, "a sixtieth of the budget comes in a second");
        assert_eq!(secs(budgets.may_go_on(&account, COST, 0)), 60, "the same request gets as far again");
        assert!(budgets.may_begin(&of(&budgets, "192.0.2.1", None), 0).is_err(), "the address has paid");
        assert!(budgets.may_begin(&of(&budgets, "192.0.2.2", Some(alice)), 0).is_err(), "and the key");
        assert!(budgets.may_begin(&of(&budgets, "192.0.2.2", Some(bob)), 0).is_ok());
        assert!(budgets.may_begin(&budgets.account(Payer::Key(bob), Some(bob), at("192.0.2.1")), 0).is_ok());
        assert!(budgets.may_begin(&account, 1_000).is_ok());
    }

    #[test]
    fn a_debt_stays_below_a_minutes_budget() {
        let budgets = budgets(600, 0);
        let account = of(&budgets, "192.0.2.1", None);
        for _ in 0..10 {
            budgets.charge(&account, COST, 0);
        }
        assert_eq!(secs(budgets.may_begin(&account, 0)), 61);
    }

    #[test]
    fn networks_of_one_site_share_sixteen_budgets() {
        let budgets = budgets(600, 0);
        let network = |n: u32| of(&budgets, &format!("2001:db8:1:{n:x}::1"), None);
        for n in 0..16 {
            assert!(budgets.may_begin(&network(n << 8), 0).is_ok());
            budgets.charge(&network(n << 8), COST, 0);
        }
        assert!(budgets.may_begin(&network(17 << 8), 0).is_err());
        assert!(budgets.may_begin(&of(&budgets, "2001:db8:2::1", None), 0).is_ok());
    }

    #[test]
    fn a_party_has_a_share_of_the_documents() {
        let budgets = budgets(0, 800);
        let account = of(&budgets, "192.0.2.1", None);
        budgets.charge(&account, Cost { units: 1, documents: 100 }, 0);
        let refused = budgets.may_begin(&account, 0).expect_err("nothing is left");
        assert_eq!(refused.to_string(), "too many documents read; retry in 1 s");
        assert!(budgets.may_begin(&of(&budgets, "192.0.2.2", None), 0).is_ok());
    }

    #[test]
    fn zero_is_no_limit() {
        let budgets = budgets(0, 0);
        let account = of(&budgets, "192.0.2.1", None);
        budgets.charge(&account, Cost { units: u64::MAX, documents: u64::MAX }, 0);
        assert!(budgets.may_begin(&account, 0).is_ok() && budgets.may_go_on(&account, COST, 0).is_ok());
    }
}
