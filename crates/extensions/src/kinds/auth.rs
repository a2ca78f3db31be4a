//! Kinds 22242 and 27235, proofs of a key (NIP-42, NIP-98): for this relay, and for no reader.

use nostr_protocol::{Kind, Rejection, Rule};

use super::{Budget, Deletable, GroupChange, Kept, KindRules, NonResidents, Owners, Publication, Readers, any};

/// Rules of a 22242, which a client sends in an `AUTH` message and never as an event.
pub(super) const RULES: KindRules = KindRules {
    publication: Publication::Refused(refuse),
    restore: any::refuse_to_restore,
    needs_group: false,
    non_residents: NonResidents::Refused,
    budget: Budget::Events,
    readers: Readers::Nobody,
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

/// Rules of a 27235, which a client sends in the header of a request: published, it is passed on to nobody.
pub(super) const HTTP_RULES: KindRules = KindRules {
    publication: Publication::Checked(any::admit),
    restore: any::refuse_to_restore,
    needs_group: false,
    non_residents: NonResidents::Refused,
    budget: Budget::Events,
    readers: Readers::Nobody,
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

fn refuse(kind: Kind) -> Rejection {
    Rejection::invalid(format!("kind {kind} is not published; send it as [\"AUTH\", event]")).under(Rule("Identity", 6))
}
