//! The rule by which a claim takes KeyPackages, in every store but the oracle.
//!
//! Source: docs/rules.md, "KeyPackages" 1, "Claims" and "Consumption on read". A claim has two steps, so that no filter
//! is matched and no event is read while others wait for the writer or for the lock of the log:
//!
//! 1. The [`Search`] goes through the owner's KeyPackages in the order in which a claim takes them, and keeps a few
//!    that the filters match.
//! 2. [`pick`] chooses among them by the owner's [`Stock`] as of the transaction that uses them up. If another claim
//!    has taken all of them meanwhile, the store searches again.

use std::collections::{HashMap, HashSet};

use nostr_extensions::{Sealed, Stamp};
use nostr_protocol::{Event, EventId, EventRef, UnixSecs};

use super::{ledger::Ledger, receipt::Receipt};
use crate::{Claimed, Cost, Cursor, Given, Repetition, claim::Claim};

/// KeyPackages beyond those that a claim gives, of one use and as many again of last resort, that a search keeps at
/// most: with them claims at one time seldom search again.
const SPARE_MAX: usize = 6;
/// Most filters that one search holds against KeyPackages of one use, and as many again against those of last resort.
/// Later KeyPackages are then not found.
const MATCHES_MAX: usize = 250;
/// Most KeyPackage events besides the candidates and their twins that a claim counts while others wait for it.
pub(crate) const OTHERS_MAX: usize = 500;
/// Most times that a claim searches because other claims have taken all that it found.
pub(crate) const SEARCHES_MAX: usize = 16;

/// One KeyPackage event of an owner.
#[derive(Clone, Debug)]
pub(crate) struct Owned {
    pub(crate) cursor: Cursor,
    pub(crate) id: EventId,
    pub(crate) content_hash: [u8; 32],
    pub(crate) last_resort: bool,
}

/// A KeyPackage event that a claim may give.
#[derive(Clone, Debug)]
pub(crate) struct Candidate {
    pub(crate) owned: Owned,
    /// The filters that match it, by their index.
    pub(crate) matching: Vec<usize>,
    /// Bytes of its record.
    pub(crate) bytes: usize,
}

/// See the module.
pub(crate) struct Search<'a> {
    claim: &'a Claim,
    filters: usize,
    matches: [usize; 2],
    contents: HashSet<[u8; 32]>,
    found: [Vec<Candidate>; 2],
    cost: Cost,
}

impl<'a> Search<'a> {
    pub(crate) fn new(claim: &'a Claim) -> Self {
        let filters = claim.filters.count_for(&claim.owner);
        let (contents, found) = (HashSet::new(), [Vec::new(), Vec::new()]);
        Self { claim, filters, matches: [0; 2], contents, found, cost: Cost::of_units(1) }
    }

    /// Returns whether the search still looks at KeyPackages of this sort.
    pub(crate) fn looks_for(&self, last_resort: bool) -> bool {
        let sort = usize::from(last_resort);
        self.filters > 0
            && self.found[sort].len() < self.claim.given_max.saturating_add(SPARE_MAX)
            && self.matches[sort] < MATCHES_MAX
    }

    /// Returns whether the event of a KeyPackage should be looked at: events with the same bytes count once, and a
    /// banned one is never given.
    pub(crate) fn wants(&self, owned: &Owned) -> bool {
        self.looks_for(owned.last_resort)
            && !self.contents.contains(&owned.content_hash)
            && !self.claim.passes_over(&owned.id)
    }

    /// Looks at a KeyPackage event, and returns whether it is a candidate. The caller goes from the oldest event to the
    /// newest.
    pub(crate) fn look(&mut self, owned: &Owned, event: EventRef<'_>) -> bool {
        if !self.wants(owned) {
            return false;
        }
        let sort = usize::from(owned.last_resort);
        self.matches[sort] += self.filters;
        self.cost += Cost::of_units(Cost::of_event(event) * self.filters as u64);
        let matching = self.claim.filters.matching(event);
        if matching.is_empty() {
            return false;
        }
        self.contents.insert(owned.content_hash);
        let bytes = event.record().len();
        self.found[sort].push(Candidate { owned: owned.clone(), matching, bytes });
        true
    }

    /// Counts lines of the owner's directory that were gone through, whatever the claim takes of them.
    pub(crate) fn note_lines(&mut self, count: usize) {
        self.cost += Cost::of_units(count as u64);
    }

    /// The work so far: each line costs a unit as an entry of the index does, and each event costs as in a query, once
    /// for each filter that it is held against.
    pub(crate) const fn cost(&self) -> Cost {
        self.cost
    }

    /// The KeyPackages that were found so far, those of last resort after all others.
    pub(crate) fn candidates(&self) -> Vec<Candidate> {
        self.found.iter().flatten().cloned().collect()
    }
}

/// An owner's KeyPackages, as far as the choice among some candidates depends on them.
#[derive(Debug, Default)]
pub(crate) struct Stock {
    /// The events with the bytes of a candidate that are there. A banned one is among them, since it goes with the
    /// others.
    pub(crate) twins: Vec<Owned>,
    /// Whether the owner has KeyPackages with other bytes too. Banned events are not counted here, and not below.
    pub(crate) has_others: bool,
    /// How many of those were never given and are not of last resort.
    pub(crate) fresh_others: usize,
}

impl Stock {
    /// The stock of an owner that has these KeyPackages, for a claim.
    pub(crate) fn of<'o>(claim: &Claim, candidates: &[Candidate], owned: impl Iterator<Item = &'o Owned>) -> Self {
        let mut stock = Self::default();
        let mut others = Contents::default();
        for owned in owned {
            if is_twin(candidates, &owned.content_hash) {
                stock.twins.push(owned.clone());
            } else if !claim.passes_over(&owned.id) {
                others.add(owned.content_hash, owned.last_resort);
            }
        }
        let counted = others.stock();
        stock.has_others = counted.unclaimed + counted.last_resort > 0;
        stock.fresh_others = counted.unclaimed;
        stock
    }
}

/// Distinct KeyPackages, each with whether it is of last resort in some of its events.
#[derive(Debug, Default)]
pub(crate) struct Contents(HashMap<[u8; 32], bool>);

impl Contents {
    pub(crate) fn add(&mut self, content_hash: [u8; 32], last_resort: bool) {
        *self.0.entry(content_hash).or_default() |= last_resort;
    }

    /// Their numbers.
    pub(crate) fn stock(&self) -> crate::Stock {
        let last_resort = self.0.values().filter(|last_resort| **last_resort).count();
        crate::Stock { unclaimed: self.0.len() - last_resort, last_resort }
    }

    /// Their hashes.
    #[must_use]
    pub(crate) fn into_hashes(self) -> Vec<[u8; 32]> {
        self.0.into_keys().collect()
    }
}

/// Returns whether some candidate has these bytes.
pub(crate) fn is_twin(candidates: &[Candidate], content_hash: &[u8; 32]) -> bool {
    candidates.iter().any(|candidate| candidate.owned.content_hash == *content_hash)
}

/// An event of a candidate, by value.
#[derive(Clone, Debug)]
pub(crate) struct Handed {
    pub(crate) event: Event,
    pub(crate) stamp: Stamp,
    pub(crate) filter: usize,
    pub(crate) is_used_up: bool,
}

impl Handed {
    pub(crate) fn seal(self) -> Given {
        let Self { event, stamp, filter, is_used_up } = self;
        Given { sealed: Sealed::new(event, stamp), filter, is_used_up }
    }
}

/// A candidate that is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Chosen {
    /// The candidate, by its index.
    pub(crate) candidate: usize,
    /// The filter that it is given to, by its index.
    pub(crate) filter: usize,
    pub(crate) is_used_up: bool,
}

/// The choice that a claim has made.
#[derive(Debug, Default)]
pub(crate) struct Pick {
    pub(crate) given: Vec<Chosen>,
    /// The content hashes of the KeyPackages that are used up.
    pub(crate) used: Vec<[u8; 32]>,
    /// The content hash of the owner's last KeyPackage, if it is given for the first time: it is of last resort now.
    pub(crate) last: Option<[u8; 32]>,
    /// The events that are removed: all events with the bytes of a KeyPackage that is used up.
    pub(crate) gone: Vec<(Cursor, EventId)>,
    /// See [`crate::Claimed::withheld`].
    pub(crate) withheld: bool,
    /// See [`crate::Claimed::wait_secs`].
    pub(crate) wait_secs: Option<u64>,
    /// See [`crate::Claimed::remaining`].
    pub(crate) remaining: usize,
    /// Set if there were candidates and all of them are gone: the store searches again.
    pub(crate) is_overtaken: bool,
}

impl Pick {
    /// Whether the claim changes the store.
    pub(crate) fn writes(&self, claim: &Claim) -> bool {
        !self.used.is_empty() || self.last.is_some() || (claim.receipt.is_some() && !self.given.is_empty())
    }

    /// The answer, and the receipt of a claim that has one. `event` gives a candidate's event, by its index.
    pub(crate) fn answer(
        &self,
        claim: &Claim,
        now: UnixSecs,
        cost: Cost,
        event: impl Fn(usize) -> Option<(Event, Stamp)>,
    ) -> (Claimed, Option<Receipt>) {
        let mut handed = Vec::with_capacity(self.given.len());
        for Chosen { candidate, filter, is_used_up } in self.given.iter().copied() {
            handed.extend(event(candidate).map(|(event, stamp)| Handed { event, stamp, filter, is_used_up }));
        }
        let receipt = claim.receipt.as_ref().filter(|_| !handed.is_empty());
        let receipt = receipt.map(|name| Receipt::new(name, handed.clone(), self.remaining, now));
        let claimed = Claimed {
            given: handed.into_iter().map(Handed::seal).collect(),
            used: self.used.len(),
            withheld: self.withheld,
            wait_secs: self.wait_secs,
            remaining: self.remaining,
            repetition: Repetition::First,
            cost,
        };
        (claimed, receipt)
    }
}

/// Chooses among the candidates, by the owner's stock and the ledger of the same moment. This alone decides which
/// KeyPackage is used up: one that is not of last resort, while the owner has another one. The last one that the owner
/// has is given and stays, and is of last resort from then on, so that no claim gets it as one of its own.
pub(crate) fn pick(claim: &Claim, candidates: &[Candidate], stock: &Stock, ledger: &Ledger, now: UnixSecs) -> Pick {
    let mut twins = Contents::default();
    stock.twins.iter().for_each(|twin| twins.add(twin.content_hash, twin.last_resort));
    let present: HashSet<Cursor> = stock.twins.iter().map(|twin| twin.cursor).collect();
    let mut stocked = twins.0.len() + usize::from(stock.has_others);
    let mut fresh = twins.stock().unclaimed + stock.fresh_others;
    let allowance = ledger.allowance(claim.rates.as_ref(), fresh, now);
    let used_max = claim.used_max.min(allowance.most);
    let mut room = claim.filters.room();
    let mut bytes = 0;
    let mut pick = Pick { is_overtaken: !candidates.is_empty(), ..Pick::default() };
    for (index, candidate) in candidates.iter().enumerate() {
        let owned = &candidate.owned;
        if pick.given.len() >= claim.given_max || !present.contains(&owned.cursor) {
            continue;
        }
        pick.is_overtaken = false;
        let Some(filter) = room.find(&candidate.matching) else { continue };
        if !pick.given.is_empty() && bytes + candidate.bytes > claim.bytes_max {
            break;
        }
        let is_fresh = twins.0.get(&owned.content_hash) == Some(&false);
        let is_used_up = is_fresh && stocked > 1;
        if is_used_up && pick.used.len() >= used_max {
            pick.withheld = true;
            pick.wait_secs = allowance.wait_secs.filter(|_| allowance.most <= pick.used.len());
            continue;
        }
        if is_used_up {
            stocked -= 1;
            pick.used.push(owned.content_hash);
        } else if is_fresh {
            pick.last = Some(owned.content_hash);
        }
        fresh -= usize::from(is_fresh);
        bytes += candidate.bytes;
        room.take(filter);
        pick.given.push(Chosen { candidate: index, filter, is_used_up });
    }
    pick.remaining = fresh;
    let is_gone = |twin: &&Owned| pick.used.contains(&twin.content_hash);
    pick.gone = stock.twins.iter().filter(is_gone).map(|twin| (twin.cursor, twin.id)).collect();
    pick
}

#[cfg(test)]
mod tests;
