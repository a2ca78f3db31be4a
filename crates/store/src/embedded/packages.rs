//! The directory of KeyPackages: each owner's KeyPackages, the bytes that a reference names, and claims.
//!
//! Source: docs/rules.md, "KeyPackages", "Claims" and "Stock".

use std::{collections::HashMap, sync::Arc};

use heed::{RoTxn, RwTxn};
use nostr_extensions::mls_gateway::key_package::{DirectoryEntry, suite_of};
use nostr_protocol::{Kind, PublicKey, UnixSecs};

use super::{
    fail::Fail,
    keys::{Key, Stored, cursor_bytes, hash16, number_from, pair, time_bytes},
    log::unpack_event,
    tables::{Table, Tables},
    vanished::{Vanished, Vanishing},
    write::Tx,
};
use crate::{
    Claim, Claimed, Cost, Cursor, ExpiredPackage, ReceiptName, StockRequest,
    decide::{
        claim::{Candidate, Contents, OTHERS_MAX, Owned, Pick, Search, Stock, is_twin, pick},
        keys::{self as keys_of, tombstone_key},
        ledger::Ledger,
        lookup::{Apply as _, OWNED_MAX, OwnedPackage},
        receipt::Receipt,
    },
    weight::SWEPT_ROWS_MAX,
};

/// Bytes of a kept answer that count as one row of a transaction.
const ROW_BYTES_AIM: usize = 1_024;

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

    /// Marks the KeyPackage event at `cursor` as one of last resort.
    fn mark_last_resort(&self, txn: &mut RwTxn<'_>, owner: &PublicKey, cursor: Cursor) -> Result<(), Fail> {
        let key = owned(owner, cursor);
        let Some(mut value) = self.packages.get(txn, &key)?.map(<[u8]>::to_vec) else { return Ok(()) };
        if let Some(last_resort) = value.get_mut(48) {
            *last_resort = 1;
        }
        Ok(self.packages.put(txn, &key, &value)?)
    }

    /// The owner's KeyPackage events, from the oldest to the newest.
    pub(super) fn packages_of(
        &self,
        txn: &RoTxn<'_>,
        owner: &PublicKey,
        vanishing: &Vanishing,
        now: UnixSecs,
    ) -> Result<Vec<OwnedPackage<Cursor>>, Fail> {
        let mut packages = Vec::new();
        self.visit_packages(
            txn,
            &PackagesAt { owner, vanishing, now },
            |_, _| false,
            |Owned { cursor: at, id, content_hash, last_resort }, _| {
                packages.push(OwnedPackage { at, id, content_hash, last_resort });
                Ok(packages.len() < OWNED_MAX)
            },
        )?;
        Ok(packages)
    }

    /// The KeyPackage at `cursor`, if it expires without having been given.
    pub(super) fn expiring_package(&self, txn: &RoTxn<'_>, cursor: Cursor) -> Result<Option<ExpiredPackage>, Fail> {
        let Some(stored) = self.event(txn, cursor)? else { return Ok(None) };
        if stored.event.kind() != Kind::KEY_PACKAGE {
            return Ok(None);
        }
        let owner = stored.event.pubkey();
        let Some(value) = self.packages.get(txn, &owned(&owner, cursor))? else { return Ok(None) };
        let content_hash = value.get(16..48).and_then(|hash| hash.first_chunk()).copied();
        let fresh = content_hash.filter(|_| value.get(48) == Some(&0));
        Ok(fresh.map(|content_hash| ExpiredPackage { owner, content_hash, suite: suite_of(stored.event) }))
    }

    /// Cursors of all events with the bytes of one KeyPackage.
    pub(super) fn twins(&self, txn: &RoTxn<'_>, (owner, content): &keys_of::Claimed) -> Result<Vec<Cursor>, Fail> {
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

    /// The owner's stock, for a choice among the candidates. Of other KeyPackages it reads few: an owner may have any
    /// number of last resort.
    fn stock(&self, txn: &RoTxn<'_>, candidates: &[Candidate], of: &PackagesAt<'_>) -> Result<Stock, Fail> {
        let mut stock = Stock::default();
        let other = |content_hash: &[u8; 32], _| !is_twin(candidates, content_hash);
        self.visit_packages(txn, of, other, |owned, _| {
            stock.twins.push(owned);
            Ok(true)
        })?;
        let mut others = Vec::new();
        let twin = |content_hash: &[u8; 32], _| is_twin(candidates, content_hash);
        self.visit_packages(txn, of, twin, |owned, _| {
            others.push(owned);
            Ok(others.len() < OTHERS_MAX)
        })?;
        Ok(Stock { twins: stock.twins, ..Stock::of(candidates, others.iter()) })
    }

    /// The owner's KeyPackages, and whether one of them is a 30443.
    fn contents(&self, txn: &RoTxn<'_>, of: &PackagesAt<'_>) -> Result<(Contents, bool), Fail> {
        let (mut contents, mut is_addressable, mut count) = (Contents::default(), false, 0);
        self.visit_packages(
            txn,
            of,
            |_, _| false,
            |owned, stored| {
                contents.add(owned.content_hash, owned.last_resort);
                is_addressable |= stored.event.kind() == Kind::ADDRESSABLE_KEY_PACKAGE;
                count += 1;
                Ok(count < OWNED_MAX)
            },
        )?;
        Ok((contents, is_addressable))
    }

    /// The numbers of an owner's KeyPackages.
    pub(super) fn count_packages(
        &self,
        txn: &RoTxn<'_>,
        owner: &PublicKey,
        vanishing: &Vanishing,
        now: UnixSecs,
    ) -> Result<crate::Stock, Fail> {
        Ok(self.contents(txn, &PackagesAt { owner, vanishing, now })?.0.stock())
    }

    fn answer(
        &self,
        txn: &RoTxn<'_>,
        claim: &Claim,
        candidates: &[Candidate],
        pick: &Pick,
        (cost, now): (Cost, UnixSecs),
    ) -> Result<(Claimed, Option<Receipt>), Fail> {
        let mut events = HashMap::new();
        for chosen in &pick.given {
            let cursor = candidates[chosen.candidate].owned.cursor;
            events.insert(chosen.candidate, unpack_event(self.package_event(txn, cursor)?, cursor)?);
        }
        Ok(pick.answer(claim, now, cost, |candidate| events.get(&candidate).cloned()))
    }

    fn ledger(&self, txn: &RoTxn<'_>, owner: &PublicKey) -> Result<Ledger, Fail> {
        let packed = self.ledgers.get(txn, owner.as_bytes())?.and_then(|value| value.get(5..)).unwrap_or_default();
        Ledger::unpack(packed).ok_or(Fail::Corrupt("an owner's ledger is cut short"))
    }

    /// The kept answer to a claim, if there is one that has not lapsed.
    fn repetition(&self, txn: &RoTxn<'_>, claim: &Claim, now: UnixSecs) -> Result<Option<Claimed>, Fail> {
        let Some(name) = &claim.receipt else { return Ok(None) };
        let Some(value) = self.receipts.get(txn, &receipt_key(name))? else { return Ok(None) };
        let receipt = value.get(5..).and_then(Receipt::unpack).ok_or(Fail::Corrupt("a receipt is cut short"))?;
        if receipt.until() <= now {
            return Ok(None);
        }
        let vanished = self.vanished.get(txn, claim.owner.as_bytes())?.map(Vanished::read).transpose()?;
        Ok(Some(receipt.answer(name, vanished.map(|vanished| vanished.at))))
    }

    /// Puts a value that lapses at `until`, in place of the one before.
    fn put_lapsing(
        &self,
        txn: &mut RwTxn<'_>,
        table: Table,
        key: &[u8],
        value: Option<(UnixSecs, Vec<u8>)>,
    ) -> Result<(), Fail> {
        let before = table.get(txn, key)?.and_then(|value| value.get(..5)).map(|end| Key::new().with(end).with(key));
        if let Some(lapse) = before {
            self.lapses.delete(txn, &lapse)?;
        }
        let Some((until, packed)) = value else {
            table.delete(txn, key)?;
            return Ok(());
        };
        let end = time_bytes(until);
        table.put(txn, key, &[&end[..], &packed].concat())?;
        self.lapses.put(txn, &Key::new().with(&end).with(key), &[])?;
        Ok(())
    }

    fn put_ledger(&self, txn: &mut RwTxn<'_>, owner: &PublicKey, ledger: &Ledger, now: UnixSecs) -> Result<(), Fail> {
        let value = ledger.until(now).map(|until| (until, ledger.pack()));
        self.put_lapsing(txn, self.ledgers, owner.as_bytes(), value)
    }
}

fn receipt_key(name: &ReceiptName) -> Key {
    Key::new().with(name.reader.as_bytes()).with(&name.name)
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
        if let Some(claimed) = self.repetition(txn, claim, now)? {
            return Ok(Searched::Answered(claimed));
        }
        let of = PackagesAt { owner: &claim.owner, vanishing, now };
        let (candidates, cost) = self.candidates(txn, claim, &of)?;
        let (stock, ledger) = (self.stock(txn, &candidates, &of)?, self.ledger(txn, &claim.owner)?);
        let pick = pick(claim, &candidates, &stock, &ledger, now);
        Ok(if pick.writes(claim) {
            Searched::Found(candidates, cost)
        } else {
            Searched::Answered(self.answer(txn, claim, &candidates, &pick, (cost, now))?.0)
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
        if let Some(claimed) = self.tables.repetition(&self.txn, claim, now)? {
            return Ok(Some(claimed));
        }
        let vanishing = Arc::clone(&self.vanishing);
        let of = PackagesAt { owner: &claim.owner, vanishing: &vanishing, now };
        let mut ledger = self.tables.ledger(&self.txn, &claim.owner)?;
        let stock = self.tables.stock(&self.txn, candidates, &of)?;
        let pick = pick(claim, candidates, &stock, &ledger, now);
        if pick.is_overtaken {
            return Ok(None);
        }
        let (claimed, receipt) = self.tables.answer(&self.txn, claim, candidates, &pick, (Cost::default(), now))?;
        for content_hash in &pick.used {
            self.tables.claimed.put(&mut self.txn, &pair(&keys_of::claimed(&claim.owner, content_hash)), &[])?;
        }
        for (cursor, id) in &pick.gone {
            self.bury(&tombstone_key(id, &claim.owner), true)?;
            self.remove(*cursor, id)?;
        }
        if let Some(content_hash) = &pick.last {
            for twin in stock.twins.iter().filter(|twin| twin.content_hash == *content_hash) {
                self.tables.mark_last_resort(&mut self.txn, &claim.owner, twin.cursor)?;
            }
        }
        if ledger.note(claim.rates.as_ref(), &pick.used, now) {
            self.tables.put_ledger(&mut self.txn, &claim.owner, &ledger, now)?;
            self.rows += 1;
        }
        if let (Some(name), Some(receipt)) = (&claim.receipt, receipt) {
            let packed = receipt.pack();
            self.rows += 1 + packed.len() / ROW_BYTES_AIM;
            let value = Some((receipt.until(), packed));
            self.tables.put_lapsing(&mut self.txn, self.tables.receipts, &receipt_key(name), value)?;
        }
        Ok(Some(claimed))
    }

    /// See [`crate::Store::may_request`].
    pub(super) fn may_request(&mut self, request: &StockRequest, now: UnixSecs) -> Result<bool, Fail> {
        let vanishing = Arc::clone(&self.vanishing);
        let of = PackagesAt { owner: &request.owner, vanishing: &vanishing, now };
        let (contents, is_addressable) = self.tables.contents(&self.txn, &of)?;
        if is_addressable || contents.stock().unclaimed >= request.low_watermark {
            return Ok(false);
        }
        let mut ledger = self.tables.ledger(&self.txn, &request.owner)?;
        let is_kept = match ledger.last_request() {
            Some(id) => self.find(&id)?.is_some_and(|(_, it)| it.expires_at > now && !vanishing.hides(it.event)),
            None => false,
        };
        let may = ledger.request(request.id, &contents.into_hashes(), request.expired, is_kept, now);
        if may {
            self.tables.put_ledger(&mut self.txn, &request.owner, &ledger, now)?;
        }
        Ok(may)
    }

    /// Removes ledgers and receipts that have lapsed. Returns whether there are more.
    pub(super) fn sweep_lapses(&mut self, now: UnixSecs) -> Result<bool, Fail> {
        let until = time_bytes(now.saturating_add(1));
        loop {
            let Some((lapse, _)) = self.tables.lapses.first(&self.txn)? else { return Ok(false) };
            if lapse.get(..5).is_none_or(|end| end >= &until[..]) {
                return Ok(false);
            }
            if self.rows >= SWEPT_ROWS_MAX {
                return Ok(true);
            }
            let lapse = lapse.to_vec();
            let table = if lapse.len() == 5 + 32 { self.tables.ledgers } else { self.tables.receipts };
            let bytes = table.get(&self.txn, &lapse[5..])?.map_or(0, <[u8]>::len);
            table.delete(&mut self.txn, &lapse[5..])?;
            self.tables.lapses.delete(&mut self.txn, &lapse)?;
            self.rows += 1 + bytes / ROW_BYTES_AIM;
        }
    }
}
