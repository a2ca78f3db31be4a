//! The rule by which a claim takes KeyPackages, in every store but the oracle.
//!
//! Source: docs/rules.md, "KeyPackages" 1 and "Consumption on read". A claim has two steps, so that no filter is
//! matched and no event is read while others wait for the writer or for the lock of the log:
//!
//! 1. The [`Search`] goes through the owner's KeyPackages in the order in which a claim takes them, and keeps a few
//!    that the filters match.
//! 2. [`pick`] chooses among them by the owner's [`Stock`] as of the transaction that uses them up. If another claim
//!    has taken all of them meanwhile, the store searches again.

use std::collections::HashSet;

use nostr_protocol::{EventId, EventRef};

use crate::{Cost, Cursor, claim::Claim};

/// Most KeyPackages, of one use and as many again of last resort, that a search keeps for one claim: more than a claim
/// gives, so that claims at one time seldom search again.
const CANDIDATES_MAX: usize = 8;
/// Most filters that one search holds against KeyPackages of one use, and as many again against those of last resort.
/// Later KeyPackages are then not found.
const MATCHES_MAX: usize = 250;
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
        Self {
            claim,
            filters,
            matches: [0; 2],
            contents: HashSet::new(),
            found: [Vec::new(), Vec::new()],
            cost: Cost::of_units(1),
        }
    }

    /// Returns whether the search still looks at KeyPackages of this sort.
    pub(crate) fn looks_for(&self, last_resort: bool) -> bool {
        let sort = usize::from(last_resort);
        self.filters > 0 && self.found[sort].len() < CANDIDATES_MAX && self.matches[sort] < MATCHES_MAX
    }

    /// Returns whether the event of a KeyPackage should be looked at: events with the same bytes count once.
    pub(crate) fn wants(&self, owned: &Owned) -> bool {
        self.looks_for(owned.last_resort) && !self.contents.contains(&owned.content_hash)
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
        self.found[sort].push(Candidate { owned: owned.clone(), matching });
        true
    }

    /// The work so far: each event costs as in a query, once for each filter that it is held against.
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
    /// The events with the bytes of a candidate that are there.
    pub(crate) twins: Vec<Owned>,
    /// Whether the owner has KeyPackages with other bytes too.
    pub(crate) has_others: bool,
}

impl Stock {
    /// The stock of an owner that has these KeyPackages.
    pub(crate) fn of<'o>(candidates: &[Candidate], owned: impl Iterator<Item = &'o Owned>) -> Self {
        let mut stock = Self::default();
        for owned in owned {
            if is_twin(candidates, &owned.content_hash) {
                stock.twins.push(owned.clone());
            } else {
                stock.has_others = true;
            }
        }
        stock
    }
}

/// Returns whether some candidate has these bytes.
pub(crate) fn is_twin(candidates: &[Candidate], content_hash: &[u8; 32]) -> bool {
    candidates.iter().any(|candidate| candidate.owned.content_hash == *content_hash)
}

/// The choice that a claim has made.
#[derive(Debug, Default)]
pub(crate) struct Pick {
    /// The candidates that are given, by their index, each with the index of the filter that it is given to.
    pub(crate) given: Vec<(usize, usize)>,
    /// The content hashes of the KeyPackages that are used up.
    pub(crate) used: Vec<[u8; 32]>,
    /// The events that are removed: all events with the bytes of a KeyPackage that is used up.
    pub(crate) gone: Vec<(Cursor, EventId)>,
    /// See [`crate::Claimed::withheld`].
    pub(crate) withheld: bool,
    /// Set if there were candidates and all of them are gone: the store searches again.
    pub(crate) is_overtaken: bool,
}

/// Chooses among the candidates. A KeyPackage of last resort stays, and so does the last one that the owner has.
pub(crate) fn pick(claim: &Claim, candidates: &[Candidate], stock: &Stock) -> Pick {
    let contents: HashSet<&[u8; 32]> = stock.twins.iter().map(|twin| &twin.content_hash).collect();
    let present: HashSet<Cursor> = stock.twins.iter().map(|twin| twin.cursor).collect();
    let mut stocked = contents.len() + usize::from(stock.has_others);
    let mut room = claim.filters.room();
    let mut pick = Pick { is_overtaken: !candidates.is_empty(), ..Pick::default() };
    for (index, Candidate { owned, matching }) in candidates.iter().enumerate() {
        if pick.given.len() >= claim.given_max || !present.contains(&owned.cursor) {
            continue;
        }
        pick.is_overtaken = false;
        let Some(filter) = room.find(matching) else { continue };
        if !owned.last_resort && stocked > 1 {
            if pick.used.len() >= claim.used_max {
                pick.withheld = true;
                continue;
            }
            stocked -= 1;
            pick.used.push(owned.content_hash);
        }
        room.take(filter);
        pick.given.push((index, filter));
    }
    let is_gone = |twin: &&Owned| pick.used.contains(&twin.content_hash);
    pick.gone = stock.twins.iter().filter(is_gone).map(|twin| (twin.cursor, twin.id)).collect();
    pick
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nostr_protocol::{Filter, Kind, PublicKey};

    use super::*;
    use crate::ClaimFilters;

    const OWNER: PublicKey = PublicKey::from_bytes([1; 32]);

    fn claim(given_max: usize, used_max: usize) -> Claim {
        let filter = Filter { kinds: Some(vec![Kind::KEY_PACKAGE]), authors: Some(vec![OWNER]), ..Filter::default() };
        let filters: Arc<[Filter]> = [filter].into();
        Claim { owner: OWNER, filters: ClaimFilters::new(filters, |_| 500), given_max, used_max }
    }

    fn owned(n: u8, last_resort: bool) -> Owned {
        Owned { cursor: n.into(), id: EventId::from_bytes([n; 32]), content_hash: [n; 32], last_resort }
    }

    /// Chooses among all of an owner's KeyPackages, while only those of `left` are there. Gives the cursors of those
    /// that are given and of those that go.
    fn picked(claim: &Claim, all: &[Owned], left: &[Owned]) -> (Vec<Cursor>, Vec<Cursor>, bool, bool) {
        let candidates: Vec<Candidate> =
            all.iter().map(|it| Candidate { owned: it.clone(), matching: vec![0] }).collect();
        let pick = pick(claim, &candidates, &Stock::of(&candidates, left.iter()));
        let given = pick.given.iter().map(|(index, _)| candidates[*index].owned.cursor).collect();
        let gone = pick.gone.iter().map(|(cursor, _)| *cursor).collect();
        (given, gone, pick.withheld, pick.is_overtaken)
    }

    #[test]
    fn last_resort_comes_last_and_stays() {
        let all = [owned(1, false), owned(2, false), owned(9, true)];
        assert_eq!(picked(&claim(3, 3), &all, &all), (vec![1, 2, 9], vec![1, 2], false, false));
        assert_eq!(picked(&claim(1, 1), &all, &all), (vec![1], vec![1], false, false));
        // Without a right to use any up, the one that stays is given.
        assert_eq!(picked(&claim(2, 0), &all, &all), (vec![9], vec![], true, false));
    }

    #[test]
    fn the_last_one_of_that_moment_stays() {
        let all = [owned(1, false), owned(2, false)];
        assert_eq!(picked(&claim(2, 2), &all, &all), (vec![1, 2], vec![1], false, false));
        assert_eq!(picked(&claim(2, 2), &all, &all[1..]), (vec![2], vec![], false, false));
        assert_eq!(picked(&claim(2, 2), &all[..1], &all), (vec![1], vec![1], false, false), "the owner has others");
    }

    #[test]
    fn a_claim_is_overtaken_when_all_candidates_are_gone() {
        let all = [owned(1, false), owned(2, false), owned(3, false)];
        assert_eq!(picked(&claim(1, 1), &all[..2], &all[2..]), (vec![], vec![], false, true));
        assert_eq!(picked(&claim(1, 1), &all[..2], &all[1..]), (vec![2], vec![2], false, false));
        assert_eq!(picked(&claim(1, 1), &[], &all), (vec![], vec![], false, false), "nothing matched");
    }
}
