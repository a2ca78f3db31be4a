//! Claims, stocks and requests in the oracle: each rule of docs/rules.md, "Claims" and "Stock", in its plainest form.

use std::collections::{BTreeSet, HashSet};

use nostr_extensions::mls_gateway::key_package::DirectoryEntry;
use nostr_protocol::{EventId, Kind, PublicKey, UnixSecs, mutation};

use super::state::{Item, State};
use crate::{
    Claim, ClaimRates, Claimed, Cursor, Given, RECEIPT_SECS, Repetition, Stock, StockRequest,
    decide::keys::{claimed, tombstone_key},
};

/// Whether a claim counts against a bound.
type Counts<'a> = &'a dyn Fn(&ClaimRates) -> bool;

impl State {
    pub(super) fn claim(&mut self, claim: &Claim, now: UnixSecs) -> Claimed {
        if let Some(name) = &claim.receipt
            && let Some((request, at, claimed)) = self.receipts.get(&(name.reader, name.name))
            && at + RECEIPT_SECS > now
        {
            if *request != name.request {
                return Claimed { repetition: Repetition::OfAnother, ..Claimed::default() };
            }
            let mut claimed = claimed.clone();
            let until = self.vanished.get(&claim.owner);
            claimed.given.retain(|it| until.is_none_or(|until| it.sealed.position().created_at > *until));
            return Claimed { repetition: Repetition::Of(*at), used: 0, ..claimed };
        }
        let claimed = self.take(claim, now);
        if let Some(name) = claim.receipt.filter(|_| !claimed.given.is_empty()) {
            self.receipts.insert((name.reader, name.name), (name.request, now, claimed.clone()));
        }
        claimed
    }

    fn take(&mut self, claim: &Claim, now: UnixSecs) -> Claimed {
        let owner = &claim.owner;
        let is_there = |cursor: &Cursor| self.log.get(cursor).is_some_and(|it| !claim.passes_over(&it.event.id()));
        let packages: Vec<_> =
            self.packages_of(owner, now).into_iter().filter(|(cursor, _)| is_there(cursor)).collect();
        let distinct_of = |fresh: bool| {
            let of_sort = packages.iter().filter(|(_, it)| it.last_resort != fresh);
            of_sort.map(|(_, it)| it.content_hash).collect::<BTreeSet<_>>().len()
        };
        let mut fresh = distinct_of(true);
        let mut stocked = fresh + distinct_of(false);
        let (allowed, wait) = self.allowance(claim, fresh, now);
        let used_max = claim.used_max.min(allowed);
        // One event for each KeyPackage, the first that a filter matches.
        let mut distinct: Vec<(Cursor, DirectoryEntry, Vec<usize>)> = Vec::new();
        for (cursor, entry) in packages {
            let Some(item) = self.log.get(&cursor) else { continue };
            let matching = claim.filters.matching(item.event.view());
            if !matching.is_empty() && distinct.iter().all(|(_, known, _)| known.content_hash != entry.content_hash) {
                distinct.push((cursor, entry, matching));
            }
        }
        distinct.sort_by_key(|(_, entry, _)| entry.last_resort);
        let mut room = claim.filters.room();
        let mut claimed = Claimed::default();
        let mut bytes = 0;
        for (cursor, entry, matching) in distinct {
            let Some(filter) = room.find(&matching).filter(|_| claimed.given.len() < claim.given_max) else { continue };
            let Some(item) = self.log.get(&cursor) else { continue };
            bytes += item.event.record().len();
            if bytes > claim.bytes_max && !claimed.given.is_empty() {
                break;
            }
            let is_used_up = !entry.last_resort && stocked > 1;
            if is_used_up && claimed.used >= used_max {
                claimed.withheld = true;
                claimed.wait_secs = wait.filter(|_| allowed <= claimed.used);
                bytes -= item.event.record().len();
                continue;
            }
            room.take(filter);
            claimed.given.push(Given { sealed: item.seal(), filter, is_used_up });
            fresh -= usize::from(!entry.last_resort);
            if is_used_up {
                stocked -= 1;
                claimed.used += 1;
                self.use_up(&entry, now);
            } else {
                let twins = self.log.values_mut().filter_map(|item| item.package.as_mut());
                let twins = twins.filter(|it| it.owner == entry.owner && it.content_hash == entry.content_hash);
                twins.for_each(|twin| twin.last_resort = true);
            }
        }
        claimed.remaining = fresh;
        if let Some(rates) = claim.rates.filter(|_| claimed.used > 0) {
            self.takes.push((claim.owner, rates, claimed.used, now));
        }
        claimed
    }

    /// The KeyPackages that the rates let a claim use up, and the seconds until there is one more.
    fn allowance(&self, claim: &Claim, fresh: usize, now: UnixSecs) -> (usize, Option<u64>) {
        let Some(rates) = &claim.rates else { return (usize::MAX, None) };
        let taken: Vec<(&ClaimRates, usize, UnixSecs)> = self
            .takes
            .iter()
            .filter(|(owner, _, _, at)| *owner == claim.owner && at + 3_600 > now)
            .map(|(_, rates, count, at)| (rates, *count, *at))
            .collect();
        let all: usize = taken.iter().map(|(_, count, _)| count).sum();
        let of = |limit: u32| if limit == 0 { usize::MAX } else { limit as usize };
        let by_strangers = match rates.is_stranger && rates.strangers_percent < 100 {
            true => ((fresh + all) * rates.strangers_percent as usize).div_ceil(100),
            false => usize::MAX,
        };
        let by_one_stranger = if by_strangers == usize::MAX { usize::MAX } else { (by_strangers / 4).max(1) };
        let bounds: [(usize, Counts<'_>); 7] = [
            (of(rates.claimant_max), &|it| it.claimant == rates.claimant),
            (of(rates.addresses_max[0]), &|it| it.addresses[0] == rates.addresses[0]),
            (of(rates.addresses_max[1]), &|it| it.addresses[1] == rates.addresses[1]),
            (by_strangers, &|it| it.is_stranger),
            (by_one_stranger, &|it| it.is_stranger && it.claimant == rates.claimant),
            (by_one_stranger, &|it| it.is_stranger && it.addresses[0] == rates.addresses[0]),
            (by_one_stranger, &|it| it.is_stranger && it.addresses[1] == rates.addresses[1]),
        ];
        let mut least = (usize::MAX, None);
        for (most, counts) in bounds.into_iter().filter(|(most, _)| *most < usize::MAX) {
            let counted: Vec<_> = taken.iter().filter(|(rates, ..)| counts(rates)).collect();
            let used = |until: UnixSecs| -> usize {
                counted.iter().filter(|(_, _, at)| at + 3_600 > until).map(|(_, count, _)| count).sum()
            };
            let left = most.saturating_sub(used(now));
            if left < least.0 {
                let ends = counted.iter().map(|(_, _, at)| at + 3_600);
                let wait = ends.clone().find(|end| used(*end) < most).or(ends.max()).map_or(3_600, |end| end - now);
                least = (left, Some(wait));
            }
        }
        least
    }

    pub(super) fn stock(&self, owner: &PublicKey, now: UnixSecs) -> Stock {
        let of_sort = |last_resort: bool| {
            let packages = self.packages_of(owner, now).into_iter().filter(|(_, it)| it.last_resort == last_resort);
            packages.map(|(_, it)| it.content_hash).collect::<BTreeSet<_>>().len()
        };
        Stock { unclaimed: of_sort(false), last_resort: of_sort(true) }
    }

    pub(super) fn may_request(&mut self, request: &StockRequest, now: UnixSecs) -> bool {
        let packages = self.packages_of(&request.owner, now);
        let is_addressable = |(cursor, _): &(Cursor, DirectoryEntry)| {
            self.log.get(cursor).is_some_and(|item| item.event.kind() == Kind::ADDRESSABLE_KEY_PACKAGE)
        };
        if self.stock(&request.owner, now).unclaimed >= request.low_watermark || packages.iter().any(is_addressable) {
            return false;
        }
        let contents: HashSet<[u8; 32]> =
            packages.iter().map(|(_, it)| it.content_hash).chain(request.expired).collect();
        if let Some((id, at, known)) = self.requests.get(&request.owner) {
            let is_answered = known.as_ref().is_none_or(|known| contents.iter().any(|it| !known.contains(it)));
            if at + 3_600 > now || (self.holds(id, now) && !is_answered) {
                return false;
            }
        }
        self.requests.insert(request.owner, (request.id, now, Some(contents)));
        true
    }

    pub(super) fn shares_group(&self, owner: &PublicKey, key: &PublicKey) -> bool {
        self.groups.iter().any(|(id, view)| {
            let are_members = view.members.contains_key(owner) && view.members.contains_key(key);
            are_members && !self.invited.contains_key(&(id.clone(), *owner))
        })
    }

    /// Marks a KeyPackage as claimed and removes it with its twins.
    fn use_up(&mut self, entry: &DirectoryEntry, now: UnixSecs) {
        if mutation!("claim-twice") {
            return;
        }
        self.claimed.insert(claimed(&entry.owner, &entry.content_hash));
        if let Some((.., known)) = self.requests.get_mut(&entry.owner)
            && known.as_ref().is_some_and(|known| !known.contains(&entry.content_hash))
        {
            *known = None;
        }
        let twin = |item: &Item| {
            let has_bytes = |it: &DirectoryEntry| it.owner == entry.owner && it.content_hash == entry.content_hash;
            item.stamp.expires_at > now && item.package.as_ref().is_some_and(has_bytes)
        };
        let twins = self.log.iter().filter(|(_, item)| twin(item));
        let twins: Vec<(Cursor, EventId)> = twins.map(|(cursor, item)| (*cursor, item.event.id())).collect();
        for (cursor, id) in twins {
            self.bury_held(cursor);
            self.tombstones.insert(tombstone_key(&id, &entry.owner), true);
            self.remove(cursor);
        }
    }
}
