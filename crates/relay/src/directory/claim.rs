//! A claim of KeyPackages of one owner by a reader that has proven a key.
//!
//! Source: docs/rules.md, "Claims". A claim costs the budget of reads as a query does. One whose answer is kept for
//! repetitions is paid for like events, since it takes room in the store.

use nostr_extensions::{Asker, Released, Sealed};
use nostr_protocol::{PublicKey, Rejection, UnixSecs};
use nostr_store::{Claim, ClaimFilters, ClaimRates, Claimed, Given, ReceiptName, Repetition};

use super::request::LowStock;
use crate::{
    error::read_failed,
    rate_limit::{Class, Payer, Price},
    session::{Caller, archive::Meter},
};

/// Most KeyPackages that one claim gives.
pub(crate) const CLAIM_MAX: usize = 10;
/// Most bytes of the events in an answer, beyond the first one.
const ANSWER_BYTES_MAX: usize = 512 << 10;
/// Bytes of the events in an answer that is kept, for each KeyPackage that is asked for and paid.
const KEPT_BYTES_MAX: usize = 32 << 10;
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

/// A KeyPackage for the reader.
pub(crate) struct Handed {
    pub(crate) released: Released,
    pub(crate) expires_at: UnixSecs,
    pub(crate) is_last_resort: bool,
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
    if question.kept.is_some() {
        pay(caller, reader, question.count.saturating_add(1))?;
    }
    let mut meter = Meter::new(caller);
    meter.may_go_on().map_err(Rejection::from)?;
    let claim = Claim {
        bytes_max: question.kept.map_or(ANSWER_BYTES_MAX, |_| question.count * KEPT_BYTES_MAX),
        rates: rates(caller, reader, question.owner).await?,
        receipt: question.kept.map(|(name, request)| ReceiptName { reader, name, request }),
        ..Claim::new(
            question.owner,
            ClaimFilters::of_owner(question.owner, question.suite, question.count as u64),
            question.count,
            question.count,
        )
    };
    let (now, turn) = (app.clock.now(), meter.turn_at_store().await);
    let claimed = app.store.claim_key_packages(&claim, now).await.map_err(read_failed)?;
    drop(turn);
    meter.charge(claimed.cost);
    let as_of = match claimed.repetition {
        Repetition::OfAnother => return Err(NothingGiven::NameTaken),
        // The answer of that moment, also if a KeyPackage in it has expired since.
        Repetition::Of(at) => at,
        Repetition::First => now,
    };
    if claimed.given.is_empty() {
        return Err(nothing(&claimed));
    }
    if question.kept.is_some() && claimed.repetition == Repetition::First {
        // The first KeyPackage is given and kept whatever its size, so the rest of its price is taken afterwards.
        let bytes: usize = claimed.given.iter().map(|given| given.sealed.byte_len()).sum();
        let unpaid = (bytes / KEPT_BYTES_MAX).saturating_sub(question.count);
        if unpaid > 0 {
            let _ = pay(caller, reader, unpaid);
        }
    }
    let handed: Vec<Handed> = claimed.given.iter().filter_map(|given| hand(caller, &claim, given, as_of)).collect();
    app.metrics.claimed(handed.len());
    if claimed.used > 0 && claimed.remaining < app.config.mls_gateway.keypackage_low_watermark {
        let gone = handed.iter().find(|handed| !handed.is_last_resort);
        let suite = gone.and_then(|handed| app.described.of(handed.released.event()).ciphersuite);
        app.low_stock.note(LowStock { owner: question.owner, suite, expired: None });
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

fn hand(caller: &Caller, claim: &Claim, given: &Given, as_of: UnixSecs) -> Option<Handed> {
    let sealed: &Sealed = &given.sealed;
    let ids = [sealed.position().id];
    let filter = claim.filters.filters().get(given.filter)?;
    let asker = Asker { reader: &caller.reader, filter, claimed: &ids };
    let released = caller.app.gate.release(sealed, asker, None, as_of)?;
    Some(Handed { released, expires_at: sealed.expires_at(), is_last_resort: !given.is_used_up })
}

/// Takes the price of so many events for an answer that is kept.
fn pay(caller: &Caller, reader: PublicKey, times: usize) -> Result<(), Rejection> {
    let (app, block, now_ms) = (&caller.app, caller.client.block(), caller.app.clock.now_ms());
    let price = Price { class: Class::Event, times: u32::try_from(times).unwrap_or(u32::MAX) };
    let mut charges = app.delivery.charges();
    match caller.payer() {
        Payer::Key(key) => charges.add(app.limits.key(&key, block, price, now_ms)?),
        Payer::Address(_) => {
            charges.add(app.limits.address(block, price, now_ms)?);
            charges.add(app.limits.sender(&reader, block, price, now_ms)?);
        }
    }
    app.delivery.claimed(charges);
    Ok(())
}

/// The rates of a claim; `None` if the operator sets none.
async fn rates(caller: &Caller, reader: PublicKey, owner: PublicKey) -> Result<Option<ClaimRates>, Rejection> {
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
    let may_be_stranger = rates.strangers_percent < 100 && reader != owner && !app.policy.is_named(&reader);
    let is_stranger = may_be_stranger && !app.store.shares_group(&owner, &reader).await.map_err(read_failed)?;
    let rates = ClaimRates { is_stranger, ..rates };
    Ok(rates.limits().then_some(rates))
}
