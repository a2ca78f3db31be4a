//! Every kind without rules of its own: open to every publisher, and for everyone.
//!
//! Source: NIP-01, "Kinds".

use nostr_protocol::{Event, Lifetime, Rejection};

use super::{Budget, Deletable, GroupChange, Kept, KindRules, NonResidents, Owners, Publication, Quota, Readers};
use crate::{
    context::{Context, Verdict},
    effect::{Effect, NEVER},
    tags::identifier,
};

pub(super) const fn rules(lifetime: Lifetime) -> &'static KindRules {
    match lifetime {
        Lifetime::Regular => &REGULAR,
        Lifetime::Replaceable => &REPLACEABLE,
        Lifetime::Ephemeral => &EPHEMERAL,
        Lifetime::Addressable => &ADDRESSABLE,
    }
}

const REGULAR: KindRules = regular(admit);
const REPLACEABLE: KindRules = of_range(Kept::Stored, admit_replaceable, takes_its_kind);
const EPHEMERAL: KindRules = KindRules { quota: None, ..of_range(Kept::Ephemeral, admit, refuse_to_restore) };
const ADDRESSABLE: KindRules = of_range(Kept::Stored, admit_addressable, takes_its_address);

/// The rules of a kind that is stored as any other, and has a check of its own.
pub(super) const fn regular(admit: fn(&Event, &Context<'_>) -> Result<Verdict, Rejection>) -> KindRules {
    of_range(Kept::Stored, admit, changes_nothing)
}

const fn of_range(
    kept: Kept,
    admit: fn(&Event, &Context<'_>) -> Result<Verdict, Rejection>,
    restore: fn(&Event) -> Result<Effect, Rejection>,
) -> KindRules {
    KindRules {
        publication: Publication::Checked(admit),
        restore,
        needs_group: false,
        non_residents: NonResidents::Refused,
        budget: Budget::Events,
        readers: Readers::Everyone,
        changes: GroupChange::Nothing,
        kept,
        quota: Some(Quota::Events),
        may_expire: true,
        owners: Owners::Author,
        deletable: Deletable::ByOwners,
        vanishes: true,
        counters: &[],
        in_nip11: false,
    }
}

/// Open to every publisher; the event is kept without end.
pub(super) fn admit(_: &Event, _: &Context<'_>) -> Result<Verdict, Rejection> {
    Ok(Verdict { expires_at: NEVER, effect: Effect::None })
}

fn admit_replaceable(event: &Event, _: &Context<'_>) -> Result<Verdict, Rejection> {
    Ok(Verdict { expires_at: NEVER, effect: takes_its_kind(event)? })
}

fn admit_addressable(event: &Event, _: &Context<'_>) -> Result<Verdict, Rejection> {
    Ok(Verdict { expires_at: NEVER, effect: takes_its_address(event)? })
}

/// An event out of an export is stored, and changes nothing beside.
pub(crate) fn changes_nothing(_: &Event) -> Result<Effect, Rejection> {
    Ok(Effect::None)
}

fn takes_its_kind(_: &Event) -> Result<Effect, Rejection> {
    Ok(Effect::Replace { identifier: "".into() })
}

fn takes_its_address(event: &Event) -> Result<Effect, Rejection> {
    Ok(Effect::Replace { identifier: identifier(event) })
}

/// An export holds no ephemeral event.
pub(crate) fn refuse_to_restore(event: &Event) -> Result<Effect, Rejection> {
    Err(Rejection::invalid(format!("kind {} is ephemeral and never stored", event.kind())))
}
