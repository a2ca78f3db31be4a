//! Claims of KeyPackages: the search in a snapshot, the choice in the writer's transaction, an owner's ledger, and
//! answers that are kept for repetitions.
//!
//! Source: docs/rules.md, "Claims" and "Stock".

use std::{cell::Cell, collections::HashMap, sync::Arc};

use heed::{RoTxn, RwTxn};
use nostr_protocol::{PublicKey, UnixSecs};

use super::{
    fail::Fail,
    keys::{Key, address_of, pair, time_bytes},
    log::unpack_event,
    packages::PackagesAt,
    summed::Summed,
    tables::Tables,
    vanished::{Vanished, Vanishing},
    write::Tx,
};
use crate::{
    Claim, Claimed, Cost, ReceiptName, StockRequest,
    decide::{
        claim::{Candidate, OTHERS_MAX, Pick, Search, Stock, is_twin, pick},
        keys::{self as keys_of, tombstone_key},
        ledger::Ledger,
        lookup::{Apply as _, Lookup as _},
        receipt::Receipt,
    },
    weight::SWEPT_ROWS_MAX,
};

/// Bytes of a kept answer that count as one row of a transaction.
const ROW_BYTES_AIM: usize = 1_024;

impl Tables {
    /// The KeyPackages that a claim may give.
    fn candidates(&self, txn: &RoTxn<'_>, claim: &Claim, of: &PackagesAt<'_>) -> Result<(Vec<Candidate>, Cost), Fail> {
        let mut search = Search::new(claim);
        let lines = Cell::new(0);
        for last_resort in [false, true] {
            let other_sort = |_: &[u8; 32], of_last_resort| {
                lines.set(lines.get() + 1);
                of_last_resort != last_resort
            };
            self.visit_packages(txn, of, other_sort, |owned, stored| {
                search.look(&owned, stored.event);
                Ok(search.looks_for(last_resort))
            })?;
        }
        search.note_lines(lines.get());
        Ok((search.candidates(), search.cost()))
    }

    /// The owner's stock, for a choice among the candidates. Of other KeyPackages it reads few: an owner may have any
    /// number of last resort.
    fn stock(
        &self,
        txn: &RoTxn<'_>,
        claim: &Claim,
        candidates: &[Candidate],
        of: &PackagesAt<'_>,
    ) -> Result<Stock, Fail> {
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
        Ok(Stock { twins: stock.twins, ..Stock::of(claim, candidates, others.iter()) })
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
        table: Summed,
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
        let (stock, ledger) = (self.stock(txn, claim, &candidates, &of)?, self.ledger(txn, &claim.owner)?);
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
        let stock = self.tables.stock(&self.txn, claim, candidates, &of)?;
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
            let event = self.tables.package_event(&self.txn, *cursor)?.event;
            let held = address_of(event).map(|address| (address, event.created_at()));
            self.remove(*cursor, id)?;
            if let Some((address, created_at)) = held {
                // An older version that this one replaced is not to take the address.
                let until = self.address_tombstone(&address)?.unwrap_or_default().max(created_at);
                self.bury_address(&address, until)?;
            }
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
