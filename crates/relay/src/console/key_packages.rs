//! `GET keypackages`: the stock of owners.
//!
//! An operator sees that of every owner. A group admin sees that of its group's members, once they have acted in a
//! group of its: anybody may make a key a member of a group, and would else learn of its stock.

use nostr_extensions::NostrGroupId;
use nostr_protocol::{PublicKey, Rejection};
use nostr_store::Cost;
use serde::{Deserialize, Serialize};

use super::{door::LoggedIn, groups::administered};
use crate::{
    error::read_failed,
    rest::{Answer, Problem, Question, Visit, list_fixed},
    session::archive::Meter,
};

/// Most owners of one page, each of which costs a look at its stock.
const OWNERS_MAX: usize = 50;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    /// One owner: hex or npub.
    owner: Option<String>,
    /// The members of one group.
    group: Option<String>,
    cursor: Option<String>,
}

#[derive(Serialize)]
struct StockList {
    /// In the order of their keys.
    owners: Vec<OwnerStock>,
    /// The cursor of the next page; null at the end.
    next_cursor: Option<String>,
}

/// The stock of an owner; its numbers are null where the caller may not know them.
#[derive(Serialize)]
struct OwnerStock {
    owner: String,
    npub: String,
    unclaimed: Option<usize>,
    last_resort: Option<usize>,
    low: Option<bool>,
    low_watermark: usize,
}

/// The stock of owners, page by page.
pub(super) async fn stock(caller: LoggedIn) -> Result<Answer, Problem> {
    let visit = &caller.visit;
    let Wanted { owner, group, cursor } = visit.parameters()?;
    let app = visit.app();
    let group = group.unwrap_or_default();
    let question = Question(&[b"console keypackages", caller.key.as_bytes(), group.as_bytes()]);
    let behind = match cursor {
        Some(cursor) => Some(PublicKey::from_bytes(list_fixed(&app.cursors.open(question, &cursor)?)?)),
        None => None,
    };
    let owner = owner.map(|owner| PublicKey::from_hex_or_npub(&owner)).transpose();
    let owner = owner.map_err(|error| Problem::bad_parameter(format!("owner: {error}")))?;
    if group.is_empty() && !caller.is_operator() {
        let text =
            "restricted: name a group that you administer: group=ID; all owners are for the keys in admin_pubkeys";
        return Err(Problem::new(axum::http::StatusCode::FORBIDDEN, text));
    }
    let mut meter = Meter::new(&visit.caller);
    let (owners, next) = match (group.as_str(), owner) {
        ("", Some(owner)) => (vec![owner], None),
        ("", None) => all(visit, &mut meter, behind).await?,
        (group, owner) => members(visit, group, owner, behind).await?,
    };
    let mut list = Vec::with_capacity(owners.len());
    for owner in owners {
        list.push(of_owner(&caller, &mut meter, owner).await?);
    }
    let next_cursor = next.map(|next| app.cursors.seal(question, next.as_bytes()));
    Answer::json(visit, &StockList { owners: list, next_cursor }).await
}

/// A page of owners, and the place to go on from.
type Page = (Vec<PublicKey>, Option<PublicKey>);

/// A page of all owners of KeyPackages.
async fn all(visit: &Visit, meter: &mut Meter<'_>, behind: Option<PublicKey>) -> Result<Page, Problem> {
    let app = visit.app();
    meter.may_go_on().map_err(Rejection::from)?;
    let turn = meter.turn_at_store().await;
    let listed = app.store.owners_after(behind.as_ref(), OWNERS_MAX).await.map_err(read_failed)?;
    drop(turn);
    meter.charge(listed.cost);
    Ok((listed.entries, listed.next))
}

/// A page of the members of a group that the caller administers, or one of them.
async fn members(
    visit: &Visit,
    group: &str,
    owner: Option<PublicKey>,
    behind: Option<PublicKey>,
) -> Result<Page, Problem> {
    let group = administered(visit, NostrGroupId::parse(group)).await?;
    let shown = visit.app().gate.show_to_admin(&group, &visit.caller.reader).ok_or_else(Problem::not_found)?;
    let keys = shown.members().into_iter().map(|(key, _)| key);
    let is_wanted = |key: &PublicKey| owner.is_none_or(|owner| owner == *key) && behind.is_none_or(|it| *key > it);
    let mut keys: Vec<PublicKey> = keys.filter(is_wanted).take(OWNERS_MAX + 1).collect();
    let has_more = keys.len() > OWNERS_MAX;
    keys.truncate(OWNERS_MAX);
    let next = keys.last().filter(|_| has_more).copied();
    Ok((keys, next))
}

async fn of_owner(caller: &LoggedIn, meter: &mut Meter<'_>, owner: PublicKey) -> Result<OwnerStock, Problem> {
    let app = caller.visit.app();
    let low_watermark = app.config.mls_gateway.keypackage_low_watermark;
    let may_know = owner == caller.key
        || caller.is_operator()
        || meter.finds_common_group(&owner, &caller.key).await.map_err(Problem::from)?;
    meter.may_go_on().map_err(Rejection::from)?;
    let stock = if may_know {
        let turn = meter.turn_at_store().await;
        let stock = app.store.stock(&owner, app.clock.now()).await.map_err(read_failed)?;
        drop(turn);
        meter.charge(Cost::of_documents(1));
        Some(stock)
    } else {
        None
    };
    Ok(OwnerStock {
        owner: owner.to_hex(),
        npub: owner.to_npub(),
        unclaimed: stock.as_ref().map(|stock| stock.unclaimed),
        last_resort: stock.as_ref().map(|stock| stock.last_resort),
        low: stock.as_ref().map(|stock| stock.unclaimed < low_watermark),
        low_watermark,
    })
}
