//! Kind 444, Welcome, and the other kinds that never stand alone: they live inside a gift wrap or inside MLS.
//!
//! Source: MLS Gateway specification, "Supported Nostr Event Kinds" (444).

use nostr_protocol::{Event, Kind, Rejection};

use crate::{
    effect::Effect,
    kinds::{Budget, Deletable, GroupChange, Kept, KindRules, NonResidents, Owners, Publication, Readers},
};

/// Rules of 13, 444, 448, 449 and 451.
pub(crate) const RULES: KindRules = KindRules {
    publication: Publication::Refused(refuse),
    restore,
    needs_group: false,
    non_residents: NonResidents::Refused,
    budget: Budget::Events,
    readers: Readers::Nobody,
    changes: GroupChange::Nothing,
    kept: Kept::Stored,
    quota: None,
    may_expire: true,
    owners: Owners::Author,
    deletable: Deletable::ByOwners,
    vanishes: true,
    counters: &[],
    in_nip11: false,
};

fn refuse(kind: Kind) -> Rejection {
    Rejection::blocked(format!("kind {kind} is never published by itself; send it inside a gift wrap (kind 1059)"))
}

fn restore(event: &Event) -> Result<Effect, Rejection> {
    Err(refuse(event.kind()))
}
