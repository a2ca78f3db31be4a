//! A claim of KeyPackages of one owner by a reader that has proven a key.
//!
//! Source: docs/rules.md, "Claims". A claim costs the budget of reads as a query does. One whose answer is kept for
//! repetitions is paid for like events, since it takes room in the store.

use std::sync::Arc;

use nostr_protocol::{PublicKey, Rejection};
use nostr_store::{Claim, ClaimFilters, ClaimRates, Claimed, ReceiptName, Repetition};

pub(crate) use super::transaction::Handed;
use super::transaction::{Claimant, KEPT_BYTES_MAX};
use crate::session::{Caller, archive::Meter};

/// Most KeyPackages that one claim gives.
pub(crate) const CLAIM_MAX: usize = 10;
/// Most bytes of the events in an answer, beyond the first one.
const ANSWER_BYTES_MAX: usize = 512 << 10;
/// Number of addresses whose rate a site of IPv6 has.
const SITE_FACTOR: u32 = 16;

/// A reader's question.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    pub(crate) owner: PublicKey,
    pub(crate) count: usize,
    pub(crate) suite: Option<u16>,
    /// The name under which the answer is kept, and a hash of the request.
    pub(crate) kept: Option<([u8; 16], [u8; 16])>,
}

/// The answer to a claim.
pub(crate) struct Answered {
    pub(crate) handed: Vec<Handed>,
    pub(crate) remaining: usize,
}

/// The reason why a claim gives nothing.
pub(crate) enum NothingGiven {
    /// The owner has none that fits, here.
    None,
    /// Another request got its answer under the name of this one.
    NameTaken,
    /// A limit, or the store.
    Refused(Rejection),
}

impl<R: Into<Rejection>> From<R> for NothingGiven {
    fn from(rejection: R) -> Self {
        Self::Refused(rejection.into())
    }
}

/// Claims KeyPackages for a caller that has proven `reader`.
///
/// # Errors
/// [`NothingGiven`]. Nothing was used up then.
pub(crate) async fn claim(caller: &Caller, reader: PublicKey, question: Question) -> Result<Answered, NothingGiven> {
    let app = &caller.app;
    let orders = {
        let policy = app.policy();
        policy.require_orders()?;
        if policy.is_banned(&question.owner) {
            // The gate would hide the KeyPackages, and they would be used up.
            return Err(NothingGiven::None);
        }
        Arc::clone(&policy.moderation)
    };
    let mut meter = Meter::new(caller);
    let claimant = Claimant::of(caller, reader, &meter);
    if question.kept.is_some() {
        claimant.pay(question.count.saturating_add(1))?;
    }
    let claim = Claim {
        bytes_max: question.kept.map_or(ANSWER_BYTES_MAX, |_| question.count * KEPT_BYTES_MAX),
        rates: rates(caller, &mut meter, reader, question.owner).await?,
        receipt: question.kept.map(|(name, request)| ReceiptName { reader, name, request }),
        orders,
        ..Claim::new(
            question.owner,
            ClaimFilters::of_owner(question.owner, question.suite, question.count as u64),
            question.count,
            question.count,
        )
    };
    meter.may_go_on().map_err(Rejection::from)?;
    let turn = meter.turn_at_store().await;
    let (claimed, handed) = claimant.claim(claim, turn, app.clock.now()).await?;
    if claimed.repetition == Repetition::OfAnother {
        return Err(NothingGiven::NameTaken);
    }
    // The gate hides a KeyPackage of a kept answer that was banned since, and one that is banned at this moment.
    if handed.is_empty() {
        return Err(nothing(&claimed));
    }
    Ok(Answered { handed, remaining: claimed.remaining })
}

/// The answer where the store gave nothing.
fn nothing(claimed: &Claimed) -> NothingGiven {
    match claimed.wait_secs.filter(|_| claimed.withheld) {
        Some(secs) => Rejection::rate_limited(format!(
            "as many KeyPackages of this owner were claimed as may be in an hour; retry in {secs} s"
        ))
        .into(),
        None => NothingGiven::None,
    }
}

/// The rates of a claim; `None` if the operator sets none.
async fn rates(
    caller: &Caller,
    meter: &mut Meter<'_>,
    reader: PublicKey,
    owner: PublicKey,
) -> Result<Option<ClaimRates>, Rejection> {
    let (app, gateway) = (&caller.app, &caller.app.config.mls_gateway);
    let (claimant, addresses) = app.limits.claim_parties(&reader, caller.client.block());
    let per_address = gateway.claims_per_address_hour;
    let rates = ClaimRates {
        claimant: claimant.to_be_bytes(),
        addresses: addresses.map(u64::to_be_bytes),
        is_stranger: false,
        claimant_max: gateway.claims_per_hour,
        addresses_max: [per_address, per_address.saturating_mul(SITE_FACTOR)],
        strangers_percent: gateway.claim_strangers_percent,
    };
    // A key that the operator named can be made by nobody else, and one that shares a group with the owner is known to
    // it: the owner has acted there itself.
    let may_be_stranger = rates.strangers_percent < 100 && reader != owner && !app.policy().is_named(&reader);
    let is_stranger = may_be_stranger && !meter.finds_common_group(&owner, &reader).await?;
    let rates = ClaimRates { is_stranger, ..rates };
    Ok(rates.limits().then_some(rates))
}
