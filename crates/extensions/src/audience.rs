//! An audience is data: derived from the event alone, stored and indexed with it.
//!
//! Source: decisions, "Who may publish, who may read" (the table's column "readable by"). Whether a group is managed or
//! unlisted is no part of the audience: that is asked at each delivery.

use nostr_protocol::{EventRef, Kind, PublicKey, tag::name};

use crate::mls_gateway::group::NostrGroupId;

/// Who an event is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Whoever this relay answers at all.
    Everyone,
    /// These keys alone: the recipients, and for some kinds the author.
    Keys(Vec<PublicKey>),
    /// The members of a group, or for an unlisted one whoever names it.
    Group(NostrGroupId),
    /// Nobody.
    Nobody,
}

/// The audience of an event of which nothing is known but itself.
///
/// For a deletion it is everyone; the store narrows it to the author where a target is not a public event
/// ([`crate::Stamp::author_only`]).
#[must_use]
pub fn audience(event: EventRef<'_>) -> Audience {
    match event.kind() {
        Kind::SEAL | Kind::WELCOME | Kind(448 | 449 | 451) | Kind::AUTH | Kind::HTTP_AUTH => Audience::Nobody,
        Kind::GROUP_MESSAGE | Kind::ROSTER => match event.tags().value(name::GROUP).and_then(NostrGroupId::parse) {
            Some(group) => Audience::Group(group),
            None => Audience::Nobody,
        },
        Kind::NOISE_DM | Kind::KEY_PACKAGE_REQUEST | Kind::GIFT_WRAP | Kind::EPHEMERAL_GIFT_WRAP => {
            Audience::Keys(recipients(event))
        }
        Kind::ENCRYPTED_DM => {
            let mut keys = recipients(event);
            keys.push(event.pubkey());
            keys.sort_unstable();
            keys.dedup();
            Audience::Keys(keys)
        }
        _ => Audience::Everyone,
    }
}

/// The keys that an event names by `p`.
#[must_use]
pub fn recipients(event: EventRef<'_>) -> Vec<PublicKey> {
    event.tags().values(name::PUBLIC_KEY).filter_map(PublicKey::from_hex).collect()
}

/// Whether events of this kind are for named keys alone, so that a reader without keys is asked to authenticate when a
/// filter names the kind (decisions, "Who may publish, who may read").
#[must_use]
pub const fn is_for_recipients(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::ENCRYPTED_DM
            | Kind::NOISE_DM
            | Kind::KEY_PACKAGE_REQUEST
            | Kind::ROSTER
            | Kind::GIFT_WRAP
            | Kind::EPHEMERAL_GIFT_WRAP
    )
}

/// Whether events of this kind belong to a group.
#[must_use]
pub const fn is_for_group(kind: Kind) -> bool {
    matches!(kind, Kind::GROUP_MESSAGE | Kind::ROSTER)
}

/// Whether some event of this kind is for everyone.
#[must_use]
pub const fn may_be_public(kind: Kind) -> bool {
    !is_for_recipients(kind)
        && !is_for_group(kind)
        && !matches!(kind, Kind::SEAL | Kind::WELCOME | Kind(448 | 449 | 451))
}

/// Whether some event of this kind is for named keys: the kinds above, and deletions.
#[must_use]
pub const fn may_be_for_keys(kind: Kind) -> bool {
    matches!(kind, Kind::DELETION) || (is_for_recipients(kind) && !matches!(kind, Kind::ROSTER))
}
