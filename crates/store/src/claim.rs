//! Claims: one request's question for KeyPackages of others, and a store's answer.
//!
//! Source: docs/rules.md, "Claims" and "Consumption on read". A KeyPackage is used up only if the request's filters
//! match it, so the filters go into the store's call. So do the rates of claims and the receipt, since both hold over
//! all instances and are decided by the transaction that uses KeyPackages up.

use std::{collections::HashSet, sync::Arc};

use nostr_extensions::{Moderation, Sealed, mls_gateway::key_package};
use nostr_protocol::{EventId, EventRef, Filter, Kind, PublicKey, UnixSecs};

use crate::Cost;

/// The filters of one request, with the number of KeyPackages that each may still be given.
#[derive(Clone, Debug)]
pub struct ClaimFilters {
    filters: Arc<[Filter]>,
    /// By the index of the filter; 0 for a filter that asks for no KeyPackage of a named owner.
    left: Vec<u64>,
    /// The ciphersuite of each KeyPackage that is given.
    suite: Option<u16>,
}

/// The kinds of KeyPackages.
const KEY_PACKAGE_KINDS: [Kind; 2] = [Kind::KEY_PACKAGE, Kind::ADDRESSABLE_KEY_PACKAGE];

impl ClaimFilters {
    /// The filters of a request; `limit_of` gives the most events that the answer to a filter holds.
    #[must_use]
    pub fn new(filters: Arc<[Filter]>, limit_of: impl Fn(&Filter) -> u64) -> Self {
        let asks = |filter: &Filter| {
            let names_kind = filter.kinds.iter().flatten().any(|kind| kind.is_key_package());
            names_kind && filter.authors.is_some() && !filter.is_impossible()
        };
        let left = filters.iter().map(|filter| if asks(filter) { limit_of(filter) } else { 0 }).collect();
        Self { filters, left, suite: None }
    }

    /// Asks for `most` KeyPackages of one owner, of one ciphersuite where one is given.
    #[must_use]
    pub fn of_owner(owner: PublicKey, suite: Option<u16>, most: u64) -> Self {
        let kinds = Some(KEY_PACKAGE_KINDS.to_vec());
        let filter = Filter { kinds, authors: Some(vec![owner]), ..Filter::default() };
        Self { suite, ..Self::new([filter].into(), |_| most) }
    }

    /// The filters.
    #[must_use]
    pub fn filters(&self) -> &[Filter] {
        &self.filters
    }

    /// The owners whose KeyPackages are asked for, each once.
    pub fn owners(&self) -> impl Iterator<Item = PublicKey> {
        let mut known = HashSet::new();
        let authors = self.asking().flat_map(|(_, filter)| filter.authors.iter().flatten().copied());
        authors.filter(move |owner| known.insert(*owner))
    }

    /// Most KeyPackages of `owner` that the filters may still be given.
    #[must_use]
    pub fn left_of(&self, owner: &PublicKey) -> u64 {
        self.asking_for(owner).fold(0, |sum, (index, _)| sum.saturating_add(self.left[index]))
    }

    /// The filters that match a KeyPackage, by their index.
    #[must_use]
    pub(crate) fn matching(&self, event: EventRef<'_>) -> Vec<usize> {
        let is_of_suite = self.suite.is_none_or(|suite| key_package::suite_of(event) == Some(suite));
        let asking = self.asking().filter(|_| is_of_suite);
        asking.filter(|(_, filter)| filter.matches(event)).map(|(index, _)| index).collect()
    }

    /// Notes that a KeyPackage was given to the filter of this index, and returns the filter.
    ///
    /// # Panics
    /// If there is no such filter: the index comes from a [`Claimed`] of these filters.
    #[must_use]
    pub fn note_given(&mut self, index: usize) -> &Filter {
        self.left[index] = self.left[index].saturating_sub(1);
        &self.filters[index]
    }

    /// The number of KeyPackages that each filter may still be given.
    pub(crate) fn room(&self) -> Room {
        Room(self.left.clone())
    }

    /// Number of filters that ask for KeyPackages of `owner`.
    pub(crate) fn count_for(&self, owner: &PublicKey) -> usize {
        self.asking_for(owner).count()
    }

    fn asking(&self) -> impl Iterator<Item = (usize, &Filter)> {
        self.filters.iter().enumerate().filter(|(index, _)| self.left[*index] > 0)
    }

    fn asking_for(&self, owner: &PublicKey) -> impl Iterator<Item = (usize, &Filter)> {
        self.asking().filter(|(_, filter)| filter.authors.as_ref().is_some_and(|it| it.binary_search(owner).is_ok()))
    }
}

/// The number of KeyPackages that each filter may still be given, by its index, while a store chooses.
pub(crate) struct Room(Vec<u64>);

impl Room {
    /// The filter that a KeyPackage is given to: of those that match it, the one that may be given the most.
    pub(crate) fn find(&self, matching: &[usize]) -> Option<usize> {
        let open = matching.iter().copied().filter(|index| self.0[*index] > 0);
        open.max_by_key(|index| (self.0[*index], std::cmp::Reverse(*index)))
    }

    pub(crate) fn take(&mut self, index: usize) {
        self.0[index] -= 1;
    }
}

/// A claim of one owner's KeyPackages for one reader.
#[derive(Clone, Debug)]
pub struct Claim {
    /// The owner.
    pub owner: PublicKey,
    /// The filters of the request, one of which matches each KeyPackage that is given.
    pub filters: ClaimFilters,
    /// Most KeyPackages that are given.
    pub given_max: usize,
    /// Most KeyPackages that are used up.
    pub used_max: usize,
    /// Most bytes that the KeyPackages which are given have together as events; the first is given whatever it has.
    pub bytes_max: usize,
    /// The rates that the store counts; `None` where the caller counts.
    pub rates: Option<ClaimRates>,
    /// The name under which the answer is kept for a repetition of the request.
    pub receipt: Option<ReceiptName>,
    /// The operator's orders. The owner's stock is counted, and its KeyPackages are given, as if a banned event were
    /// not there.
    pub orders: Arc<Moderation>,
}

impl Claim {
    /// A claim without rates that the store counts, without a receipt, and without banned events.
    #[must_use]
    pub fn new(owner: PublicKey, filters: ClaimFilters, given_max: usize, used_max: usize) -> Self {
        let orders = Arc::default();
        Self { owner, filters, given_max, used_max, bytes_max: usize::MAX, rates: None, receipt: None, orders }
    }

    /// Whether the claim passes over the KeyPackage event of this id.
    pub(crate) fn passes_over(&self, id: &EventId) -> bool {
        let banned = &self.orders.banned_events;
        !banned.is_empty() && banned.contains(id)
    }
}

/// A party of a claim, as the store counts it: some bytes of a hash.
pub type PartyHash = [u8; 8];

/// The parties of a claim, and the KeyPackages of one owner that each may use up in an hour.
#[derive(Clone, Copy, Debug)]
pub struct ClaimRates {
    /// The key that claims.
    pub claimant: PartyHash,
    /// Its address, and the site around it.
    pub addresses: [PartyHash; 2],
    /// Whether the key is a stranger to the owner.
    pub is_stranger: bool,
    /// Most KeyPackages of one claimant in an hour; 0 for any number.
    pub claimant_max: u32,
    /// Most of one address in an hour, and of one site; 0 for any number.
    pub addresses_max: [u32; 2],
    /// Part of the owner's stock, in hundredths, that all strangers together use up in an hour; 100 for all of it.
    pub strangers_percent: u32,
}

impl ClaimRates {
    /// Whether any of them limits a claim.
    #[must_use]
    pub const fn limits(&self) -> bool {
        self.claimant_max > 0 || self.addresses_max[0] > 0 || self.addresses_max[1] > 0 || self.strangers_percent < 100
    }
}

/// Time for which an answer is kept for a repetition of its request.
pub const RECEIPT_SECS: u64 = 86_400;

/// The name of the answer to one request of one reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceiptName {
    /// The reader.
    pub reader: PublicKey,
    /// A hash of the name that the reader chose.
    pub name: [u8; 16],
    /// A hash of the request: another request under the same name gets no answer.
    pub request: [u8; 16],
}

/// The answer to a [`Claim`].
#[derive(Clone, Debug, Default)]
pub struct Claimed {
    /// The KeyPackages that are given.
    pub given: Vec<Given>,
    /// Number of those that are used up.
    pub used: usize,
    /// Set if a KeyPackage matches that was not given because it would have had to be used up.
    pub withheld: bool,
    /// Seconds after which the rates let one more be used up, where they withheld one.
    pub wait_secs: Option<u64>,
    /// KeyPackages of the owner that were never given.
    pub remaining: usize,
    /// The relation to an earlier answer of the same name.
    pub repetition: Repetition,
    /// The work of the search.
    pub cost: Cost,
}

/// One KeyPackage that a claim gives.
#[derive(Clone, Debug)]
pub struct Given {
    /// The event.
    pub sealed: Sealed,
    /// The filter that it is given to, by its index.
    pub filter: usize,
    /// Whether it is used up. Else it is given to other claims too.
    pub is_used_up: bool,
}

/// The relation of a claim to an earlier answer under the name of its receipt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repetition {
    /// There was none.
    #[default]
    First,
    /// This is the answer that the same request got at this time.
    Of(UnixSecs),
    /// Another request got an answer under this name, and this one gets none.
    OfAnother,
}

/// The KeyPackages of an owner that can be claimed, events with the same bytes counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stock {
    /// Those that were never given and are not marked as ones of last resort.
    pub unclaimed: usize,
    /// Those that are given again and again.
    pub last_resort: usize,
}

/// A question for new KeyPackages of one owner, see [`crate::Store::may_request`].
#[derive(Clone, Copy, Debug)]
pub struct StockRequest {
    /// The owner.
    pub owner: PublicKey,
    /// The request's id.
    pub id: EventId,
    /// The owner is asked if fewer KeyPackages than this were never given.
    pub low_watermark: usize,
    /// The KeyPackage that expired, where one did; claims say themselves what they took.
    pub expired: Option<[u8; 32]>,
}

/// The outcome of a sweep.
#[derive(Clone, Debug, Default)]
pub struct Swept {
    /// Number of events that were removed.
    pub removed: usize,
    /// KeyPackages of kind 443 among them that expired without having been given.
    pub expired: Vec<ExpiredPackage>,
}

/// A KeyPackage that expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpiredPackage {
    /// Its owner.
    pub owner: PublicKey,
    /// The hash of its bytes.
    pub content_hash: [u8; 32],
    /// Its ciphersuite.
    pub suite: Option<u16>,
}
