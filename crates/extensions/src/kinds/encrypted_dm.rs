//! Kind 4, Encrypted Direct Message: for its author and its recipients.
//!
//! Source: NIP-04.

use super::{Budget, Deletable, GroupChange, Kept, KindRules, NonResidents, Owners, Publication, Quota, Readers, any};

pub(super) const RULES: KindRules = KindRules {
    publication: Publication::Checked(any::admit),
    restore: any::changes_nothing,
    needs_group: false,
    non_residents: NonResidents::Refused,
    budget: Budget::Events,
    readers: Readers::AuthorAndRecipients,
    changes: GroupChange::Nothing,
    kept: Kept::Stored,
    quota: Some(Quota::DirectMessages),
    may_expire: true,
    owners: Owners::Author,
    deletable: Deletable::ByOwners,
    vanishes: true,
    counters: &[],
    in_nip11: false,
};
