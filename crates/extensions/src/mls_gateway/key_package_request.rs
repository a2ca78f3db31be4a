//! Kind 447, KeyPackage Request: a relay or an admin asks a key for fresh KeyPackages.
//!
//! Source: MLS Gateway specification, "KeyPackage Request (Kind 447)".

use nostr_protocol::{DAY_SECS, Event, Rejection, tag::name};

use crate::{
    admit::PUBLISHED_BY,
    context::{Context, Verdict},
    effect::Effect,
    kinds::{Budget, Deletable, GroupChange, Kept, KindRules, NonResidents, Owners, Publication, Readers, any},
    tags::{decimal, one_recipient, optional_group},
};

/// Longest life of a request under any configuration.
pub const TTL_SECS_MAX: u64 = 7 * DAY_SECS;

pub(crate) const RULES: KindRules = KindRules {
    publication: Publication::Checked(admit),
    restore: any::changes_nothing,
    needs_group: false,
    non_residents: NonResidents::Refused,
    budget: Budget::Events,
    readers: Readers::Recipients,
    changes: GroupChange::Nothing,
    kept: Kept::Stored,
    quota: None,
    may_expire: true,
    owners: Owners::AuthorAndRecipients,
    deletable: Deletable::ByOwners,
    vanishes: true,
    counters: &[],
    in_nip11: true,
};

/// The system key or an admin key publishes, on a connection that has authenticated it.
fn admit(event: &Event, cx: &Context<'_>) -> Result<Verdict, Rejection> {
    cx.require_author_here(event)?;
    let author = event.pubkey();
    if !cx.policy.is_admin(&author) && cx.policy.system_key != Some(author) {
        let refusal =
            Rejection::restricted("kind 447 is published by this relay's system key and its admin keys alone");
        return Err(refusal.under(PUBLISHED_BY));
    }
    one_recipient(event)?;
    optional_group(event)?;
    let longest = cx.policy.keypackage_request_ttl_secs.min(TTL_SECS_MAX);
    let ttl = match event.tags().named(name::TTL).next() {
        None => longest,
        Some(tag) => tag
            .value()
            .and_then(decimal)
            .filter(|ttl| *ttl > 0)
            .ok_or_else(|| Rejection::invalid("the ttl tag is a whole number of seconds above 0").under(PUBLISHED_BY))?
            .min(longest),
    };
    Ok(Verdict { expires_at: cx.now.saturating_add(ttl), effect: Effect::None })
}
