//! The directory of KeyPackages: each owner's KeyPackages, the bytes that a reference names, and claims.
//!
//! Source: docs/rules.md, "KeyPackages".

use std::sync::Arc;

use heed::{RoTxn, RwTxn};
use nostr_extensions::mls_gateway::key_package::DirectoryEntry;
use nostr_protocol::{PublicKey, UnixSecs};

use super::{
    fail::Fail,
    keys::{Key, Stored, cursor_bytes, hash16, number_from, pair},
    log::seal,
    tables::Tables,
    vanished::Vanishing,
    write::Tx,
};
use crate::{
    Claim, Claimed, Cost, Cursor,
    decide::{
        claim::{Candidate, Owned, Pick, Search, Stock, is_twin, pick},
        keys::{self as decided, claimed, tombstone_key},
        lookup::Apply as _,
    },
};

fn owned(owner: &PublicKey, cursor: Cursor) -> Key {
    Key::new().with(owner.as_bytes()).with(&cursor_bytes(cursor))
}

fn named(owner: &PublicKey, reference: &[u8]) -> Key {
    Key::new().with(owner.as_bytes()).with(reference)
}

impl Tables {
    /// Whether the entry's reference names other bytes of its owner at `now`.
    pub(super) fn is_reference_taken(
        &self,
        txn: &RoTxn<'_>,
        entry: &DirectoryEntry,
        vanishing: &Vanishing,
        now: UnixSecs,
    ) -> Result<bool, Fail> {
        let Some(reference) = &entry.reference else { return Ok(false) };
        let prefix = named(&entry.owner, &hash16(reference.as_bytes()));
        for found in self.references.prefix_iter(txn, &prefix)? {
            let (key, content) = found?;
            if content == entry.content_hash {
                continue;
            }
            let stored = self.event(txn, number_from(&key[prefix.len()..]))?;
            if stored.is_some_and(|stored| stored.expires_at > now && !vanishing.hides(stored.event)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn put_package(&self, txn: &mut RwTxn<'_>, entry: &DirectoryEntry, cursor: Cursor) -> Result<(), Fail> {
        // An owner's KeyPackages without references share one hash here; nothing is checked by it.
        let reference = hash16(entry.reference.as_deref().unwrap_or_default().as_bytes());
        let value = Key::new().with(&reference).with(&entry.content_hash).with(&[u8::from(entry.last_resort)]);
        self.packages.put(txn, &owned(&entry.owner, cursor), &value)?;
        if entry.reference.is_some() {
            let key = named(&entry.owner, &reference).with(&cursor_bytes(cursor));
            self.references.put(txn, &key, &entry.content_hash)?;
        }
        Ok(())
    }

    pub(super) fn remove_package(&self, txn: &mut RwTxn<'_>, owner: &PublicKey, cursor: Cursor) -> Result<(), Fail> {
        let key = owned(owner, cursor);
        let Some(reference) = self.packages.get(txn, &key)?.and_then(|value| value.first_chunk::<16>()).copied() else {
            return Ok(());
        };
        self.packages.delete(txn, &key)?;
        self.references.delete(txn, &named(owner, &reference).with(&cursor_bytes(cursor)))?;
        Ok(())
    }

    /// Cursors of all events with the bytes of one KeyPackage.
    pub(super) fn twins(&self, txn: &RoTxn<'_>, (owner, content): &decided::Claimed) -> Result<Vec<Cursor>, Fail> {
        let mut cursors = Vec::new();
        for found in self.packages.prefix_iter(txn, owner)? {
            let (key, value) = found?;
            if value.get(16..32) == Some(&content[..]) {
                cursors.push(number_from(key.get(32..).unwrap_or_default()));
            }
        }
        Ok(cursors)
    }

    /// Calls `visit` with each KeyPackage of an owner and its event, read in place, from the oldest to the newest and
    /// as long as `visit` returns true. It passes over those that have expired at `now` and those that `skips` names.
    fn visit_packages(
        &self,
        txn: &RoTxn<'_>,
        of: &PackagesAt<'_>,
        skips: impl Fn(&[u8; 32], bool) -> bool,
        mut visit: impl FnMut(Owned, Stored<'_>) -> Result<bool, Fail>,
    ) -> Result<(), Fail> {
        for found in self.packages.prefix_iter(txn, of.owner.as_bytes())? {
            let (key, value) = found?;
            let cursor = number_from(&key[32..]);
            let (Some(content_hash), Some(last_resort)) =
                (value.get(16..48).and_then(|hash| hash.first_chunk()), value.get(48))
            else {
                return Err(Fail::Corrupt("a KeyPackage's entry is cut short"));
            };
            let (content_hash, last_resort) = (*content_hash, *last_resort == 1);
            if skips(&content_hash, last_resort) {
                continue;
            }
            let stored = self.package_event(txn, cursor)?;
            if stored.expires_at > of.now && !of.vanishing.hides(stored.event) {
                let owned = Owned { cursor, id: stored.event.id(), content_hash, last_resort };
                if !visit(owned, stored)? {
                    break;
                }
            }
        }
        Ok(())
    }

    fn package_event<'t>(&self, txn: &'t RoTxn<'_>, cursor: Cursor) -> Result<Stored<'t>, Fail> {
        self.event(txn, cursor)?.ok_or(Fail::Corrupt("a KeyPackage has no event"))
    }

    /// The KeyPackages that a claim may give.
    fn candidates(&self, txn: &RoTxn<'_>, claim: &Claim, of: &PackagesAt<'_>) -> Result<(Vec<Candidate>, Cost), Fail> {
        let mut search = Search::new(claim);
        for last_resort in [false, true] {
            let other_sort = |_: &[u8; 32], of_last_resort| of_last_resort != last_resort;
            self.visit_packages(txn, of, other_sort, |owned, stored| {
                search.look(&owned, stored.event);
                Ok(search.looks_for(last_resort))
            })?;
        }
        Ok((search.candidates(), search.cost()))
    }

    /// The owner's stock, for a choice among the candidates.
    fn stock(&self, txn: &RoTxn<'_>, candidates: &[Candidate], of: &PackagesAt<'_>) -> Result<Stock, Fail> {
        let mut stock = Stock::default();
        let other = |content_hash: &[u8; 32], _| !is_twin(candidates, content_hash);
        self.visit_packages(txn, of, other, |owned, _| {
            stock.twins.push(owned);
            Ok(true)
        })?;
        let twin = |content_hash: &[u8; 32], _| is_twin(candidates, content_hash);
        self.visit_packages(txn, of, twin, |_, _| {
            stock.has_others = true;
            Ok(false)
        })?;
        Ok(stock)
    }

    fn give(&self, txn: &RoTxn<'_>, candidates: &[Candidate], pick: &Pick) -> Result<Claimed, Fail> {
        let mut given = Vec::with_capacity(pick.given.len());
        for (index, filter) in &pick.given {
            let cursor = candidates[*index].owned.cursor;
            given.push((seal(self.package_event(txn, cursor)?, cursor)?, *filter));
        }
        Ok(Claimed { given, used: pick.used.len(), withheld: pick.withheld, cost: Cost::default() })
    }
}

/// The KeyPackages of an owner at a time.
struct PackagesAt<'a> {
    owner: &'a PublicKey,
    vanishing: &'a Vanishing,
    now: UnixSecs,
}

/// The first step of a claim, in a snapshot.
pub(super) enum Searched {
    /// Nothing is used up, so this is the answer.
    Answered(Claimed),
    /// The writer is to choose among these.
    Found(Vec<Candidate>, Cost),
}

impl Tables {
    /// Searches for KeyPackages that a claim may give. See [`crate::Store::claim_key_packages`].
    pub(super) fn search_packages(
        &self,
        txn: &RoTxn<'_>,
        claim: &Claim,
        vanishing: &Vanishing,
        now: UnixSecs,
    ) -> Result<Searched, Fail> {
        let of = PackagesAt { owner: &claim.owner, vanishing, now };
        let (candidates, cost) = self.candidates(txn, claim, &of)?;
        let pick = pick(claim, &candidates, &self.stock(txn, &candidates, &of)?);
        Ok(if pick.used.is_empty() {
            Searched::Answered(Claimed { cost, ..self.give(txn, &candidates, &pick)? })
        } else {
            Searched::Found(candidates, cost)
        })
    }
}

impl Tx<'_> {
    /// Chooses among the candidates and uses up; `None` if other claims have taken all of them.
    pub(super) fn take_packages(
        &mut self,
        claim: &Claim,
        candidates: &[Candidate],
        now: UnixSecs,
    ) -> Result<Option<Claimed>, Fail> {
        let vanishing = Arc::clone(&self.vanishing);
        let of = PackagesAt { owner: &claim.owner, vanishing: &vanishing, now };
        let pick = pick(claim, candidates, &self.tables.stock(&self.txn, candidates, &of)?);
        if pick.is_overtaken {
            return Ok(None);
        }
        let given = self.tables.give(&self.txn, candidates, &pick)?;
        for content_hash in &pick.used {
            self.tables.claimed.put(&mut self.txn, &pair(&claimed(&claim.owner, content_hash)), &[])?;
        }
        for (cursor, id) in &pick.gone {
            self.bury(&tombstone_key(id, &claim.owner), true)?;
            self.remove(*cursor, id)?;
        }
        Ok(Some(given))
    }
}
