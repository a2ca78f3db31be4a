//! Claims: one request's question for KeyPackages of others, and a store's answer.
//!
//! Source: docs/rules.md, "Consumption on read". A KeyPackage is used up only if the request's filters match it, so the
//! filters go into the store's call.

use std::{collections::HashSet, sync::Arc};

use nostr_extensions::Sealed;
use nostr_protocol::{EventRef, Filter, PublicKey};

use crate::Cost;

/// The filters of one request, with the number of KeyPackages that each may still be given.
#[derive(Clone, Debug)]
pub struct ClaimFilters {
    filters: Arc<[Filter]>,
    /// By the index of the filter; 0 for a filter that asks for no KeyPackage of a named owner.
    left: Vec<u64>,
}

impl ClaimFilters {
    /// The filters of a request; `limit_of` gives the most events that the answer to a filter holds.
    #[must_use]
    pub fn new(filters: Arc<[Filter]>, limit_of: impl Fn(&Filter) -> u64) -> Self {
        let asks = |filter: &Filter| {
            let names_kind = filter.kinds.iter().flatten().any(|kind| kind.is_key_package());
            names_kind && filter.authors.is_some() && !filter.is_impossible()
        };
        let left = filters.iter().map(|filter| if asks(filter) { limit_of(filter) } else { 0 }).collect();
        Self { filters, left }
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
        self.asking().filter(|(_, filter)| filter.matches(event)).map(|(index, _)| index).collect()
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
}

/// The answer to a [`Claim`].
#[derive(Clone, Debug, Default)]
pub struct Claimed {
    /// The KeyPackages that are given, each with the index of the filter that it is given to.
    pub given: Vec<(Sealed, usize)>,
    /// Number of those that are used up.
    pub used: usize,
    /// Set if a KeyPackage matches that was not given because it would have had to be used up.
    pub withheld: bool,
    /// The work of the search.
    pub cost: Cost,
}
