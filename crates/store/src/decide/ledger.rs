//! The ledger of an owner's KeyPackages: who used them up in the last hour, and when the owner was asked for new ones.
//!
//! Source: docs/rules.md, "Claims" 5 and "Stock". Each store keeps it as one value of the owner, and reads and writes
//! it in the transaction of a claim, so that the rates hold over all instances.

use nostr_protocol::{EventId, UnixSecs};

use crate::{ClaimRates, PartyHash};

/// Time over which claims are counted, and in which an owner is asked once.
pub(crate) const HOUR_SECS: u64 = 3_600;
/// Most entries of a ledger. The oldest go first: so many KeyPackages of one owner were used up after them.
const TAKES_MAX: usize = 512;
/// Most KeyPackages that a ledger remembers of the time at which the owner was asked.
const KNOWN_MAX: usize = 64;

/// Parts of the strangers' share of a stock of which one stranger, and one address, uses up one at most: more of them
/// must come to empty the share.
pub(crate) const STRANGER_PARTS_MAX: usize = 4;

/// KeyPackages that one claim used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Take {
    at: UnixSecs,
    claimant: PartyHash,
    addresses: [PartyHash; 2],
    count: u32,
    by_stranger: bool,
}

/// The last request for new KeyPackages.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Request {
    at: UnixSecs,
    id: EventId,
    /// Set once the owner had a KeyPackage that is none of `known`.
    is_answered: bool,
    /// The KeyPackages that the owner had then.
    known: Vec<PartyHash>,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    takes: Vec<Take>,
    request: Option<Request>,
}

/// The KeyPackages that a claim may use up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allowance {
    pub(crate) most: usize,
    /// Seconds after which there is more, where the rates bound it.
    pub(crate) wait_secs: Option<u64>,
}

fn mark(content_hash: &[u8; 32]) -> PartyHash {
    let [a, b, c, d, e, f, g, h, ..] = *content_hash;
    [a, b, c, d, e, f, g, h]
}

impl Ledger {
    /// The KeyPackages that a claim of these rates may use up, while `fresh` ones were never given.
    pub(crate) fn allowance(&self, rates: Option<&ClaimRates>, fresh: usize, now: UnixSecs) -> Allowance {
        let mut allowance = Allowance { most: usize::MAX, wait_secs: None };
        let Some(rates) = rates else { return allowance };
        let mut bound = |most: usize, counts: &dyn Fn(&Take) -> bool| {
            let counted = || self.takes_since(now).filter(|take| counts(take));
            let used: usize = counted().map(|take| take.count as usize).sum();
            let left = most.saturating_sub(used);
            if left >= allowance.most {
                return;
            }
            // The oldest entries lapse first, until one more fits.
            let mut over = used.saturating_sub(most.saturating_sub(1));
            let mut wait = HOUR_SECS;
            for take in counted() {
                wait = (take.at + HOUR_SECS).saturating_sub(now).max(1);
                over = over.saturating_sub(take.count as usize);
                if over == 0 {
                    break;
                }
            }
            allowance = Allowance { most: left, wait_secs: Some(wait) };
        };
        if rates.claimant_max > 0 {
            bound(rates.claimant_max as usize, &|take| take.claimant == rates.claimant);
        }
        for (n, most) in rates.addresses_max.into_iter().enumerate() {
            if most > 0 {
                bound(most as usize, &|take| take.addresses[n] == rates.addresses[n]);
            }
        }
        if rates.is_stranger && rates.strangers_percent < 100 {
            let taken: usize = self.takes_since(now).map(|take| take.count as usize).sum();
            let most = ((fresh + taken) * rates.strangers_percent as usize).div_ceil(100);
            bound(most, &|take| take.by_stranger);
            let part = (most / STRANGER_PARTS_MAX).max(1);
            bound(part, &|take| take.by_stranger && take.claimant == rates.claimant);
            for n in 0..rates.addresses.len() {
                bound(part, &|take| take.by_stranger && take.addresses[n] == rates.addresses[n]);
            }
        }
        allowance
    }

    fn takes_since(&self, now: UnixSecs) -> impl Iterator<Item = &Take> {
        self.takes.iter().filter(move |take| take.at + HOUR_SECS > now)
    }

    /// Notes KeyPackages that a claim used up. Returns whether the ledger changed.
    pub(crate) fn note(&mut self, rates: Option<&ClaimRates>, used: &[[u8; 32]], now: UnixSecs) -> bool {
        let mut is_changed = self.note_answers(used.iter());
        if let Some(rates) = rates.filter(|rates| rates.limits() && !used.is_empty()) {
            self.takes.retain(|take| take.at + HOUR_SECS > now);
            if self.takes.len() >= TAKES_MAX {
                self.takes.remove(0);
            }
            self.takes.push(Take {
                at: now,
                claimant: rates.claimant,
                addresses: rates.addresses,
                count: u32::try_from(used.len()).unwrap_or(u32::MAX),
                by_stranger: rates.is_stranger,
            });
            is_changed = true;
        }
        is_changed
    }

    /// Notes KeyPackages that the owner has, or had: one that is new since the request answers it.
    fn note_answers<'h>(&mut self, mut contents: impl Iterator<Item = &'h [u8; 32]>) -> bool {
        let Some(request) = self.request.as_mut().filter(|request| !request.is_answered) else { return false };
        request.is_answered = contents.any(|content| !request.known.contains(&mark(content)));
        request.is_answered
    }

    /// The last request, if it may still stand in the way of another one: the store looks whether it is kept.
    pub(crate) fn last_request(&self) -> Option<EventId> {
        self.request.as_ref().map(|request| request.id)
    }

    /// Whether the owner may be asked again, and notes that it is asked by the event `id`. The owner has the
    /// KeyPackages of `contents`; `is_kept` tells whether the last request is stored.
    pub(crate) fn request(
        &mut self,
        id: EventId,
        contents: &[[u8; 32]],
        expired: Option<[u8; 32]>,
        is_kept: bool,
        now: UnixSecs,
    ) -> bool {
        self.note_answers(contents.iter().chain(&expired));
        if let Some(last) = &self.request
            && (last.at + HOUR_SECS > now || (is_kept && !last.is_answered))
        {
            return false;
        }
        let known = contents.iter().chain(&expired).take(KNOWN_MAX).map(mark).collect();
        self.request = Some(Request { at: now, id, is_answered: false, known });
        true
    }

    /// The time from which on the ledger says nothing: `None` for one that is empty at `now`. A request counts for as
    /// long as it may be kept.
    pub(crate) fn until(&self, now: UnixSecs) -> Option<UnixSecs> {
        let takes = self.takes.iter().map(|take| take.at + HOUR_SECS);
        let kept = nostr_extensions::mls_gateway::key_package_request::TTL_SECS_MAX;
        let request = self.request.iter().map(|request| request.at + kept);
        takes.chain(request).max().filter(|until| *until > now)
    }

    pub(crate) fn pack(&self) -> Vec<u8> {
        let mut packed = vec![u8::from(self.request.is_some())];
        if let Some(Request { at, id, is_answered, known }) = &self.request {
            packed.extend_from_slice(&at.to_be_bytes());
            packed.extend_from_slice(id.as_bytes());
            packed.push(u8::from(*is_answered));
            packed.push(u8::try_from(known.len()).unwrap_or(u8::MAX));
            known.iter().for_each(|mark| packed.extend_from_slice(mark));
        }
        for Take { at, claimant, addresses, count, by_stranger } in &self.takes {
            packed.extend_from_slice(&at.to_be_bytes());
            packed.extend_from_slice(claimant);
            addresses.iter().for_each(|address| packed.extend_from_slice(address));
            packed.extend_from_slice(&count.to_be_bytes());
            packed.push(u8::from(*by_stranger));
        }
        packed
    }

    /// `None` for bytes that [`Self::pack`] did not make. No bytes are an empty ledger.
    pub(crate) fn unpack(packed: &[u8]) -> Option<Self> {
        let mut left = Unpack(packed);
        let mut ledger = Self::default();
        if packed.is_empty() {
            return Some(ledger);
        }
        if left.byte()? == 1 {
            let (at, id, is_answered) = (left.u64()?, EventId::from_bytes(left.array()?), left.byte()? == 1);
            let count = left.byte()?;
            let known = (0..count).map(|_| left.array()).collect::<Option<_>>()?;
            ledger.request = Some(Request { at, id, is_answered, known });
        }
        while !left.is_empty() {
            ledger.takes.push(Take {
                at: left.u64()?,
                claimant: left.array()?,
                addresses: [left.array()?, left.array()?],
                count: u32::from_be_bytes(left.array()?),
                by_stranger: left.byte()? == 1,
            });
        }
        Some(ledger)
    }
}

/// Reads packed values from the front. Each read gives `None` if too few bytes are left.
pub(super) struct Unpack<'a>(pub(super) &'a [u8]);

impl<'a> Unpack<'a> {
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(super) fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }
}

#[cfg(test)]
mod tests;
