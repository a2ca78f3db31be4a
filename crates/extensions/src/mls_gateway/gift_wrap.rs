//! Kinds 1059 and 21059, Gift Wrap: an envelope for one recipient, which may carry a Welcome (444).
//!
//! Source: NIP-59; MLS Gateway specification, "Supported Nostr Event Kinds" (1059); docs/rules.md, "Gift wraps". The
//! change that a wrap with an `h` makes of the group is in [`super::group::apply_wrap`].

use nostr_protocol::{Event, PublicKey, Rejection, Rule};

use super::group::{GroupStatus, Refusal, Source, WrapChange};
use crate::{
    context::{Context, Verdict},
    effect::{Effect, NEVER},
    kinds::{Budget, Deletable, GroupChange, Kept, KindRules, NonResidents, Owners, Publication, Readers, any},
    tags::{one_recipient, optional_group},
};

/// Rules of a 1059.
pub(crate) const RULES: KindRules = KindRules {
    publication: Publication::Checked(admit),
    restore: any::changes_nothing,
    needs_group: true,
    non_residents: NonResidents::ToResidents,
    budget: Budget::GiftWraps,
    readers: Readers::Recipients,
    changes: GroupChange::NamedGroup,
    kept: Kept::Stored,
    quota: None,
    may_expire: true,
    owners: Owners::AuthorAndRecipients,
    deletable: Deletable::ByOwners,
    vanishes: true,
    counters: &[],
    in_nip11: true,
};

/// Rules of a 21059.
pub(crate) const EPHEMERAL_RULES: KindRules = KindRules {
    publication: Publication::Checked(admit_ephemeral),
    restore: any::refuse_to_restore,
    needs_group: false,
    non_residents: NonResidents::ToResidents,
    budget: Budget::GiftWraps,
    readers: Readers::Recipients,
    changes: GroupChange::Nothing,
    kept: Kept::Ephemeral,
    quota: None,
    may_expire: true,
    owners: Owners::Author,
    deletable: Deletable::ByOwners,
    vanishes: true,
    counters: &[],
    in_nip11: false,
};

/// Open to every publisher without an `h`; the shape is one `p` and at most one `h`.
fn admit(event: &Event, cx: &Context<'_>) -> Result<Verdict, Rejection> {
    let recipient = one_recipient(event)?;
    let effect = match optional_group(event)? {
        Some(group) if cx.policy.sources.contains(&Source::GiftWrap) => {
            let unlisted = cx.policy.unlisted_groups && group.is_capability();
            let change = WrapChange {
                by_admin_key: cx.policy.has_admin_key(cx.keys()),
                unlisted,
                founder: if unlisted { None } else { founder(event, cx) },
                publishers: cx.keys().to_vec(),
                group,
                recipient,
                bounds: cx.policy.membership_bounds,
            };
            check(event, &change, cx)?;
            Effect::Wrap(change)
        }
        _ => Effect::None,
    };
    Ok(Verdict { expires_at: cx.archived(cx.policy.welcome_ttl_secs), effect })
}

/// Refuses a wrap that may change its group neither as a member's nor by founding it. The transaction checks it again.
///
/// Anybody but a member brings a stranger's proof before the state of the group counts: whether a proof is missing does
/// not tell whether the group exists.
fn check(event: &Event, change: &WrapChange, cx: &Context<'_>) -> Result<(), Rejection> {
    let may_try = match cx.status(&change.group) {
        Some(GroupStatus::Managed(view)) => {
            let Ok(is_from_inside) = change.is_from_inside(view.record.source, |key| {
                Ok::<_, std::convert::Infallible>(view.members.contains_key(key))
            });
            if !is_from_inside {
                require_proof(event, change, cx)?;
            }
            is_from_inside
        }
        Some(status) => {
            require_proof(event, change, cx)?;
            let founds = *status == GroupStatus::Unknown && change.founder.is_some_and(|key| key != change.recipient);
            change.unlisted || founds
        }
        None => return Err(Rejection::error("the group's state is not known, try again").under(Rule("Groups", 5))),
    };
    if may_try { Ok(()) } else { Err(Refusal::stranger(&change.publishers).into()) }
}

/// Refuses a wrap that would found its group, if the group had no record, without a stranger's proof.
fn require_proof(event: &Event, change: &WrapChange, cx: &Context<'_>) -> Result<(), Rejection> {
    change.founder.map_or(Ok(()), |founder| cx.require_founding_proof(event, &founder))
}

/// Open to every publisher; the shape is that of a 1059, without an effect on groups.
fn admit_ephemeral(event: &Event, _: &Context<'_>) -> Result<Verdict, Rejection> {
    one_recipient(event)?;
    optional_group(event)?;
    Ok(Verdict { expires_at: NEVER, effect: Effect::None })
}

/// The key that becomes admin if this wrap founds a group: the author where it is authenticated, else the primary key.
fn founder(event: &Event, cx: &Context<'_>) -> Option<PublicKey> {
    let author = event.pubkey();
    let reader = cx.publisher.reader;
    let founder = if reader.has(&author) { author } else { reader.primary()? };
    cx.may_found(event, &founder).then_some(founder)
}
