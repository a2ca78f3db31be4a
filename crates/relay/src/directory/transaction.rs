//! A claim's call to the store and all that must follow its commit, in a task of its own.
//!
//! Source: docs/rules.md, "Claims" 5 and 8 and "Stock" 2. A client that goes away drops the task of its request, and
//! the commit happens all the same. So the charges and the note about the owner's stock do not depend on the client.

use std::sync::Arc;

use nostr_extensions::{Asker, Reader, Released};
use nostr_protocol::{PublicKey, Rejection, UnixSecs};
use nostr_store::{Claim, Claimed, Given, Repetition};

use super::request::LowStock;
use crate::{
    app::App,
    error::{read_failed, storage_unavailable},
    rate_limit::{AddressBlock, Class, Payer, Price, ReadAccount},
    session::{Caller, archive::Meter},
    turns::Turn,
};

/// Bytes of the events in an answer that is kept, for each KeyPackage that is asked for and paid.
pub(super) const KEPT_BYTES_MAX: usize = 32 << 10;

/// A KeyPackage for the reader.
pub(crate) struct Handed {
    pub(crate) released: Released,
    pub(crate) expires_at: UnixSecs,
    pub(crate) is_last_resort: bool,
}

/// The reader of a claim, and the parties that pay for it.
pub(super) struct Claimant {
    app: Arc<App>,
    reader: Reader,
    key: PublicKey,
    payer: Payer,
    block: AddressBlock,
    reads: ReadAccount,
}

impl Claimant {
    /// The reader of `caller`, which has proven `key`.
    pub(super) fn of(caller: &Caller, key: PublicKey, meter: &Meter<'_>) -> Self {
        let (app, reader) = (Arc::clone(&caller.app), caller.reader.clone());
        let (payer, block) = (caller.payer(), caller.client.block());
        Self { app, reader, key, payer, block, reads: meter.account().clone() }
    }

    /// Takes the price of so many events for an answer that is kept.
    ///
    /// # Errors
    /// A rate limit, if a party has not so many left.
    pub(super) fn pay(&self, times: usize) -> Result<(), Rejection> {
        let (app, price, now_ms) = (&self.app, price_of(times), self.app.clock.now_ms());
        let mut charges = app.delivery.charges();
        match self.payer {
            Payer::Key(key) => charges.add(app.limits.key(&key, self.block, price, now_ms)?),
            Payer::Address(_) => {
                charges.add(app.limits.address(self.block, price, now_ms)?);
                charges.add(app.limits.sender(&self.key, self.block, price, now_ms)?);
            }
        }
        app.delivery.claimed(charges);
        Ok(())
    }

    /// Takes the price of so many events, if need be into debt.
    fn owe(&self, times: usize) {
        let app = &self.app;
        let mut charges = app.delivery.charges();
        let paid = app.limits.owe(self.payer, &self.key, self.block, price_of(times), app.clock.now_ms());
        paid.into_iter().for_each(|paid| charges.add(paid));
        app.delivery.claimed(charges);
    }

    /// Claims in a task of its own, on the payer's share of the processor. The `turn` at the store ends with the call.
    ///
    /// # Errors
    /// If the store fails.
    pub(super) async fn claim(
        self,
        claim: Claim,
        turn: Option<Turn>,
        now: UnixSecs,
    ) -> Result<(Claimed, Vec<Handed>), Rejection> {
        let share = self.app.shares.share(self.app.limits.payer_hash(self.payer));
        // A stop waits for the task as for a connection.
        let connections = self.app.connections.clone();
        let task = async move {
            let claimed = self.app.store.claim_key_packages(&claim, now).await;
            drop(turn);
            let claimed = claimed.map_err(read_failed)?;
            let handed = self.settle(&claim, &claimed, now);
            Ok((claimed, handed))
        };
        connections.spawn(share.run(task)).await.unwrap_or_else(|_| Err(storage_unavailable()))
    }

    /// Takes the charges of a claim, notes an owner whose stock is low, and gives the KeyPackages to the reader.
    fn settle(&self, claim: &Claim, claimed: &Claimed, now: UnixSecs) -> Vec<Handed> {
        let app = &self.app;
        app.read_budgets.charge(&self.reads, claimed.cost, app.clock.now_ms());
        app.metrics.read_cost(claimed.cost.units);
        // The answer of that moment, also if a KeyPackage in it has expired since.
        let as_of = if let Repetition::Of(at) = claimed.repetition { at } else { now };
        let handed: Vec<Handed> = claimed.given.iter().filter_map(|given| self.hand(claim, given, as_of)).collect();
        app.metrics.claimed(handed.len());
        if claim.receipt.is_some() && claimed.repetition == Repetition::First {
            // The first KeyPackage is given and kept whatever its size, so the rest of its price is taken afterwards.
            let bytes: usize = claimed.given.iter().map(|given| given.sealed.byte_len()).sum();
            let unpaid = (bytes / KEPT_BYTES_MAX).saturating_sub(claim.given_max);
            if unpaid > 0 {
                self.owe(unpaid);
            }
        }
        if claimed.used > 0 && claimed.remaining < app.config.mls_gateway.keypackage_low_watermark {
            let gone = handed.iter().find(|handed| !handed.is_last_resort);
            let suite = gone.and_then(|handed| app.described.of(handed.released.event()).ciphersuite);
            app.low_stock.note(LowStock { owner: claim.owner, suite, expired: None });
        }
        handed
    }

    fn hand(&self, claim: &Claim, given: &Given, as_of: UnixSecs) -> Option<Handed> {
        let sealed = &given.sealed;
        let ids = [sealed.position().id];
        let filter = claim.filters.filters().get(given.filter)?;
        let asker = Asker { reader: &self.reader, filter, claimed: &ids };
        let released = self.app.gate.release(sealed, asker, None, as_of)?;
        Some(Handed { released, expires_at: sealed.expires_at(), is_last_resort: !given.is_used_up })
    }
}

fn price_of(times: usize) -> Price {
    Price { class: Class::Event, times: u32::try_from(times).unwrap_or(u32::MAX) }
}
