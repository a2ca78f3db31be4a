//! The KeyPackages that a REQ takes, where the operator chose that reading consumes them.
//!
//! Source: docs/rules.md, "Consumption on read". A KeyPackage is used up only if a filter of the request matches it,
//! and then it is sent. The steps are in such an order that a request that is refused has used nothing up:
//!
//! 1. The filters are looked at together, so that each owner is asked once.
//! 2. The payments for all owners are set aside.
//! 3. Owners for whom the rate leaves nothing are asked first, for a KeyPackage that stays. If one of them has none
//!    such and some that would be used up, the request is refused.
//! 4. The other owners are asked. A failure ends the claim and the request, after that which was claimed is sent.
//!
//! A KeyPackage that was used up is lost if the relay stops, or the connection breaks, before the client has read it:
//! the transaction commits before the frame is sent, so that no KeyPackage is ever given to two readers.

use std::sync::Arc;

use nostr_extensions::{Asker, Moderation, Released, Sealed, policy::KeyPackageConsumption};
use nostr_protocol::{Filter, Kind, PublicKey, Rejection, UnixSecs};
use nostr_store::{Claim, ClaimFilters, Claimed};

use super::super::{
    Caller,
    archive::{Limits, Meter},
};
use crate::{directory::request::LowStock, error::read_failed, rate_limit::ClaimAllowance};

/// Most KeyPackages of one owner that an answer gives (docs/rules.md, "Consumption on read" 4).
const GIVEN_PER_OWNER_MAX: usize = 2;
/// The kinds of KeyPackages.
const KEY_PACKAGE_KINDS: [Kind; 2] = [Kind::KEY_PACKAGE, Kind::ADDRESSABLE_KEY_PACKAGE];
/// Most owners whose KeyPackages one request takes.
const OWNERS_MAX: usize = 50;

/// The outcome of a request's claims.
pub(super) struct Claims {
    /// The KeyPackages to send.
    pub(super) given: Vec<Released>,
    /// The filters for the rest of the answer: the limit of each is lower by the KeyPackages that it was given.
    pub(super) filters: Arc<[Filter]>,
    /// The reason why the request ends after them.
    pub(super) failed: Option<Rejection>,
    /// Set where the relay may hold KeyPackages of others that the request asks for and is not given.
    pub(super) withholds: bool,
}

/// A claim under way.
struct Claiming<'a> {
    caller: &'a Caller,
    reader: PublicKey,
    filters: ClaimFilters,
    claims: Claims,
    limits: Limits,
    /// The operator's orders when the request came.
    orders: Arc<Moderation>,
    meter: Meter<'a>,
}

/// Takes KeyPackages of the authors that the filters name.
///
/// # Errors
/// `rate-limited:` where the reader has used up too many KeyPackages of an owner, or its budget of reads; nothing was
/// used up then.
pub(super) async fn claim(caller: &Caller, filters: &Arc<[Filter]>, limits: Limits) -> Result<Claims, Rejection> {
    let consumes = caller.app.policy().keypackage_consumption != KeyPackageConsumption::Never;
    let asks = |filter: &Filter| KEY_PACKAGE_KINDS.iter().any(|kind| filter.asks_kind(*kind));
    let withholds = consumes && filters.iter().any(asks);
    let claims = Claims { given: Vec::new(), filters: Arc::clone(filters), failed: None, withholds };
    let Some(reader) = caller.reader.primary() else { return Ok(claims) };
    if !consumes {
        return Ok(claims);
    }
    let filters = ClaimFilters::new(Arc::clone(filters), |filter| limits.of_filter(filter));
    let policy = caller.app.policy();
    let is_served = |owner: &PublicKey| !caller.reader.has(owner) && !policy.is_banned(owner);
    let owners: Vec<PublicKey> = filters.owners().filter(is_served).take(OWNERS_MAX + 1).collect();
    let orders = Arc::clone(&policy.moderation);
    drop(policy);
    if owners.len() > OWNERS_MAX {
        return Err(Rejection::invalid(format!("a request takes KeyPackages of at most {OWNERS_MAX} owners")));
    }
    Claiming { caller, reader, filters, claims, limits, orders, meter: Meter::new(caller) }.run(owners).await
}

impl Claiming<'_> {
    async fn run(mut self, owners: Vec<PublicKey>) -> Result<Claims, Rejection> {
        let mut allowances: Vec<(PublicKey, ClaimAllowance)> =
            owners.into_iter().map(|owner| (owner, self.allowance(&owner))).collect();
        // Owners for whom nothing may be used up come first.
        allowances.sort_by_key(|(_, allowance)| allowance.used_max() > 0);
        let mut allowances = allowances.into_iter();
        let mut refused = None;
        for (owner, allowance) in allowances.by_ref() {
            let uses_up = allowance.used_max() > 0;
            match self.owner(owner, allowance).await {
                Ok(()) => {}
                Err(rejection) if uses_up => self.claims.failed = Some(rejection),
                Err(rejection) => refused = Some(rejection),
            }
            if self.claims.failed.is_some() || refused.is_some() {
                break;
            }
        }
        allowances.for_each(|(_, unspent)| self.settle(unspent, 0));
        refused.map_or(Ok(self.claims), Err)
    }

    fn allowance(&self, owner: &PublicKey) -> ClaimAllowance {
        let (app, address) = (&self.caller.app, self.caller.client.address);
        app.limits.set_claims_aside(&self.reader, address, owner, self.given_max(owner), app.clock.now_ms())
    }

    fn given_max(&self, owner: &PublicKey) -> usize {
        usize::try_from(self.filters.left_of(owner)).unwrap_or(usize::MAX).min(GIVEN_PER_OWNER_MAX)
    }

    /// Claims the KeyPackages of one owner.
    async fn owner(&mut self, owner: PublicKey, allowance: ClaimAllowance) -> Result<(), Rejection> {
        let now = self.caller.app.clock.now();
        let wait = allowance.wait;
        let claim = Claim {
            orders: Arc::clone(&self.orders),
            ..Claim::new(owner, self.filters.clone(), self.given_max(&owner), allowance.used_max())
        };
        // Earlier owners may have been given all that the filters of this one ask for.
        let claimed = if claim.given_max == 0 { Ok(Claimed::default()) } else { self.ask(&claim, now).await };
        self.settle(allowance, claimed.as_ref().map_or(0, |claimed| claimed.used));
        let claimed = claimed?;
        if claimed.given.is_empty()
            && claimed.withheld
            && let Some(wait) = wait
        {
            return Err(wait.into());
        }
        for given in &claimed.given {
            self.take_in(&given.sealed, given.filter, now);
        }
        let app = &self.caller.app;
        if claimed.used > 0 && claimed.remaining < app.config.mls_gateway.keypackage_low_watermark {
            let gone = self.claims.given.last().map(|released| app.described.of(released.event()));
            app.low_stock.note(LowStock { owner, suite: gone.and_then(|it| it.ciphersuite), expired: None });
        }
        Ok(())
    }

    /// Asks the store, in the payer's turn and at its cost.
    async fn ask(&mut self, claim: &Claim, now: UnixSecs) -> Result<Claimed, Rejection> {
        self.meter.may_go_on()?;
        let turn = self.meter.turn_at_store().await;
        let claimed = self.caller.app.store.claim_key_packages(claim, now).await.map_err(read_failed)?;
        drop(turn);
        self.meter.charge(claimed.cost);
        Ok(claimed)
    }

    /// Releases a KeyPackage that was given, and counts it against the limit of its filter.
    fn take_in(&mut self, sealed: &Sealed, index: usize, now: UnixSecs) {
        let ids = [sealed.position().id];
        let filter = self.filters.note_given(index);
        let asker = Asker { reader: &self.caller.reader, filter, claimed: &ids };
        self.claims.given.extend(self.caller.app.gate.release(sealed, asker, None, now));
        let filter = &mut Arc::make_mut(&mut self.claims.filters)[index];
        filter.limit = Some(self.limits.of_filter(filter).saturating_sub(1));
    }

    /// Puts back the payments that were not spent, and tells the other instances of those that were.
    fn settle(&self, allowance: ClaimAllowance, used: usize) {
        let app = &self.caller.app;
        let mut charges = app.delivery.charges();
        app.limits.settle_claims(allowance, used).into_iter().for_each(|paid| charges.add(paid));
        app.delivery.claimed(charges);
    }
}
