//! An audience is data: derived from the event alone, stored and indexed with it.
//!
//! Source: docs/rules.md, "Who may publish, who may read" (the table's column "readable by"). Whether a group is
//! managed or unlisted is no part of the audience: that is asked at each delivery.

use nostr_protocol::{EventRef, Kind, PublicKey};

pub use crate::tags::recipients;
use crate::{
    kinds::{Readers, rules},
    mls_gateway::group::NostrGroupId,
    tags,
};

/// The readers of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Every reader that this relay answers.
    Everyone,
    /// These keys alone, in ascending order: the recipients, and for some kinds the author.
    Keys(Vec<PublicKey>),
    /// The members of a group, or for an unlisted one each reader that names it.
    Group(NostrGroupId),
    /// Nobody.
    Nobody,
}

/// The audience of an event as far as the event alone tells.
///
/// For a deletion it is everyone; the store narrows it to the author where a target is not a public event
/// ([`crate::Stamp::author_only`]).
#[must_use]
pub fn audience(event: EventRef<'_>) -> Audience {
    audience_of(event, rules(event.kind()).readers)
}

/// The audience of an event whose kind is for these readers.
pub(crate) fn audience_of(event: EventRef<'_>, readers: Readers) -> Audience {
    match readers {
        Readers::Everyone | Readers::EveryoneOrAuthor => Audience::Everyone,
        Readers::Recipients => keys(recipients(event)),
        Readers::AuthorAndRecipients => {
            let mut to = recipients(event);
            to.push(event.pubkey());
            keys(to)
        }
        Readers::Group { .. } => tags::group(event).map_or(Audience::Nobody, Audience::Group),
        Readers::Nobody => Audience::Nobody,
    }
}

fn keys(mut keys: Vec<PublicKey>) -> Audience {
    keys.sort_unstable();
    keys.dedup();
    Audience::Keys(keys)
}

/// Whether events of this kind belong to a group.
#[must_use]
pub const fn is_for_group(kind: Kind) -> bool {
    rules(kind).is_for_group()
}

/// Whether the relay's admin keys read events of this kind in every group.
#[must_use]
pub const fn is_for_admin_keys(kind: Kind) -> bool {
    rules(kind).is_for_admin_keys()
}

/// Whether some event of this kind is for everyone.
#[must_use]
pub const fn may_be_public(kind: Kind) -> bool {
    rules(kind).may_be_public()
}

/// Whether some event of this kind is for named keys.
#[must_use]
pub const fn may_be_for_keys(kind: Kind) -> bool {
    rules(kind).may_be_for_keys()
}
