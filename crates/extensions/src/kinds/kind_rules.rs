//! The questions that the rules of every kind answer.

use nostr_protocol::{Event, Kind, Rejection};

use crate::{
    context::{Context, Verdict},
    effect::{Effect, Persistence},
    policy::Policy,
};

/// Rules of one kind. No field has a default, so a kind with a forgotten answer does not compile.
pub struct KindRules {
    /// Whether it is published at all, and the check that admits it.
    pub(crate) publication: Publication,
    /// Reads the effect of an event that comes back from an export; refuses an event that no store holds.
    pub(crate) restore: fn(&Event) -> Result<Effect, Rejection>,
    /// Whether admission needs the state of the group that the event's `h` names.
    pub needs_group: bool,
    /// Whether keys off the whitelist publish it.
    pub non_residents: NonResidents,
    /// The budget that a publisher pays from.
    pub budget: Budget,
    /// The readers that it is for.
    pub readers: Readers,
    /// The groups that an event of this kind may change.
    pub changes: GroupChange,
    /// How long it is kept, as far as the kind alone decides.
    pub kept: Kept,
    /// The quota of its author that it counts against; `None` where its own rules end it, or no store keeps it.
    pub quota: Option<Quota>,
    /// Whether an `expiration` tag (NIP-40) may end it earlier; else the tag is refused.
    pub may_expire: bool,
    /// The keys that an event belongs to, and that may take it back.
    pub owners: Owners,
    /// The effect of a deletion (NIP-09) on it.
    pub deletable: Deletable,
    /// Whether an owner that vanishes (NIP-62) takes it along.
    pub vanishes: bool,
    /// Counters of stored events, beside the one of the kind.
    pub counters: &'static [KindCounter],
    /// Whether NIP-11's `mls_gateway.kinds` lists it.
    pub in_nip11: bool,
}

/// See [`KindRules::publication`].
pub(crate) enum Publication {
    /// Nobody publishes it. The function gives the answer, before the signature is checked.
    Refused(fn(Kind) -> Rejection),
    /// The kind's own check decides, after the list that holds for every kind.
    Checked(fn(&Event, &Context<'_>) -> Result<Verdict, Rejection>),
}

/// See [`KindRules::non_residents`]. It matters only where a whitelist is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NonResidents {
    /// Residents alone publish it.
    Refused,
    /// Any key publishes it to a recipient that is a resident.
    ToResidents,
    /// The kind's own check decides.
    Checked,
}

/// See [`KindRules::budget`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Budget {
    /// That of all events.
    Events,
    /// That of KeyPackages.
    KeyPackages,
    /// That of all events, and that of the sender's messages to the group.
    GroupMessages,
    /// That of all events, and that of the sender's gift wraps to each recipient.
    GiftWraps,
}

/// See [`KindRules::readers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// Every reader that this relay answers.
    Everyone,
    /// Every reader; the author alone where the store says so, as for a deletion with a private target.
    EveryoneOrAuthor,
    /// The keys that `p` tags name.
    Recipients,
    /// The keys that `p` tags name, and the author.
    AuthorAndRecipients,
    /// The members of the group that `h` names.
    Group {
        /// Whether the events of an unlisted group are for filters that name the group or the event's id.
        unlisted: bool,
        /// Whether the relay's admin keys read the events of every group.
        admin_keys: bool,
    },
    /// Nobody.
    Nobody,
}

/// See [`KindRules::changes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupChange {
    /// None.
    Nothing,
    /// The group that `h` names.
    NamedGroup,
    /// Every group that the author is a member of.
    EveryGroup,
}

/// See [`KindRules::kept`]. The kind's own check sets the time at which a stored event ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is stored.
    Stored,
    /// It is stored while the archive is on, and else passed on through the short-lived log.
    Archived,
    /// It is delivered to the subscriptions that are open, and no query finds it. A shared store keeps it in its log
    /// for a minute, for the other instances.
    Ephemeral,
}

/// See [`KindRules::quota`]. Events of one quota count together, and those of another one beside them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quota {
    /// Events of all kinds that have no quota of their own.
    Events,
    /// Direct messages (4).
    DirectMessages,
    /// Deletions, which must find room where events do not.
    Deletions,
    /// Requests to vanish.
    Vanishing,
}

/// See [`KindRules::owners`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// The author.
    Author,
    /// The author, and each key that a `p` tag names.
    AuthorAndRecipients,
}

/// See [`KindRules::deletable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deletable {
    /// A deletion by an owner removes it.
    ByOwners,
    /// A deletion has no effect on it.
    NoEffect,
    /// A deletion that names it is refused as a whole.
    Refused,
}

/// See [`KindRules::counters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KindCounter {
    /// KeyPackages that were stored.
    KeyPackagesStored,
    /// Group messages and rosters.
    GroupsUpdated,
}

impl KindRules {
    /// Whether some event of this kind is for everyone.
    #[must_use]
    pub const fn may_be_public(&self) -> bool {
        matches!(self.readers, Readers::Everyone | Readers::EveryoneOrAuthor)
    }

    /// Whether some event of this kind is for named keys.
    #[must_use]
    pub const fn may_be_for_keys(&self) -> bool {
        matches!(self.readers, Readers::Recipients | Readers::AuthorAndRecipients | Readers::EveryoneOrAuthor)
    }

    /// Whether events of this kind belong to a group.
    #[must_use]
    pub const fn is_for_group(&self) -> bool {
        matches!(self.readers, Readers::Group { .. })
    }

    /// Whether the relay's admin keys read events of this kind in every group.
    #[must_use]
    pub const fn is_for_admin_keys(&self) -> bool {
        matches!(self.readers, Readers::Group { admin_keys: true, .. })
    }

    /// Whether the recipients of an event of this kind own it, beside its author.
    #[must_use]
    pub const fn is_owned_by_recipients(&self) -> bool {
        matches!(self.owners, Owners::AuthorAndRecipients)
    }

    /// Whether a deletion that names an event of this kind is refused.
    #[must_use]
    pub const fn refuses_deletion(&self) -> bool {
        matches!(self.deletable, Deletable::Refused)
    }
}

impl Kept {
    /// How an event is kept under a policy.
    #[must_use]
    pub const fn persistence(self, policy: &Policy) -> Persistence {
        match self {
            Self::Stored => Persistence::Stored,
            Self::Archived if policy.archive_secs.is_some() => Persistence::Stored,
            Self::Archived => Persistence::LogOnly,
            Self::Ephemeral => Persistence::Ephemeral,
        }
    }
}
