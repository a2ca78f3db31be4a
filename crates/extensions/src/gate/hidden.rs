//! The reasons why the gate releases an event to a reader, or does not. No door tells them to the reader.

use std::fmt;

use nostr_protocol::Rule;

use crate::moderation::{BANNED_EVENTS, BANNED_KEYS, ORDERS};

/// The reason why an event is not released.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hidden {
    /// It has expired.
    Expired,
    /// The filter does not match it.
    NotAskedFor,
    /// The relay shows nothing before AUTH.
    BeforeAuth,
    /// The orders over NIP-86 are not known.
    OrdersUnknown,
    /// The operator has banned it.
    BannedEvent,
    /// The operator has banned its author.
    BannedAuthor,
    /// The operator has banned a key of the reader.
    BannedReader,
    /// Reading uses KeyPackages up, and the reader has not claimed this one.
    NotClaimed,
    /// It is for keys that the reader does not have.
    ForOthers,
    /// The state of its group cannot be read.
    GroupUnknown,
    /// The access service gave no answer about its group.
    GroupClosed,
    /// No key of the reader is a member of its group.
    NoMember,
    /// Its group is not managed, and the request does not open it.
    NotOpened,
    /// No reader is shown events of its kind.
    FromEveryone,
}

impl Hidden {
    /// The rule that hides it.
    #[must_use]
    pub const fn rule(self) -> Rule {
        match self {
            Self::Expired => Rule("Archive", 5),
            Self::NotAskedFor => Rule("Who may publish, who may read", 1),
            Self::BeforeAuth => Rule("Identity", 7),
            Self::OrdersUnknown => ORDERS,
            Self::BannedEvent => BANNED_EVENTS,
            Self::BannedAuthor | Self::BannedReader => BANNED_KEYS,
            Self::NotClaimed => Rule("Consumption on read", 3),
            Self::GroupUnknown => Rule("Groups", 5),
            Self::GroupClosed => Rule("Access service", 9),
            Self::NoMember => Rule("Who may publish, who may read", 8),
            Self::NotOpened => Rule("Unlisted groups", 2),
            Self::ForOthers | Self::FromEveryone => Rule("Who may publish, who may read", 0),
        }
    }
}

impl fmt::Display for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Expired => "the event has expired",
            Self::NotAskedFor => "the request does not ask for it",
            Self::BeforeAuth => "this relay shows nothing before AUTH",
            Self::OrdersUnknown => "the operator's orders are not known yet",
            Self::BannedEvent => "the event is banned from this relay",
            Self::BannedAuthor => "the author of the event is banned from this relay",
            Self::BannedReader => "a key of the reader is banned from this relay",
            Self::NotClaimed => "a KeyPackage of another owner goes to a request that claims it",
            Self::ForOthers => "the event is for other keys",
            Self::GroupUnknown => "the state of its group cannot be read",
            Self::GroupClosed => "its group is closed until the access service answers",
            Self::NoMember => "the reader is no member of its group now",
            Self::NotOpened => "its group is not managed, and this relay opens none such by an id of this form",
            Self::FromEveryone => "no reader is shown this kind",
        })
    }
}
