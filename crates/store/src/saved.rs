//! Outcomes of saving an event, and the answer to its publisher for each.
//!
//! Source: docs/rules.md, "Answers to clients". `OK true` says that the event is stored with the effect that its sender
//! asked for.

use std::borrow::Cow;

use nostr_extensions::{Sealed, mls_gateway::group::Refusal};
use nostr_protocol::{Rejection, Rule};

/// The reason of `OK true` for an event that is stored already.
pub const DUPLICATE: &str = "duplicate: this event is stored already";

/// The outcome of saving one event of a batch.
#[derive(Clone, Debug)]
pub enum Saved {
    /// The event is durable with its effects. [`Sealed`] holds its place in the log.
    New(Sealed),
    /// The same, of an event with a fault that refuses none here. Its publisher is told of the fault.
    Advised(Box<(Sealed, Refusal)>),
    /// The event is stored already, by this call or an earlier one, and has not expired.
    Duplicate,
    /// A recipient of the event deleted it. Its publisher hears the same as for [`Saved::Duplicate`].
    DeletedByRecipient,
    /// A newer event of the same address is stored.
    Superseded,
    /// The author deleted the event, or an owner vanished after it was made, or its KeyPackage was claimed.
    Deleted,
    /// A condition that admission relied on no longer holds, or the effect that the event asks for cannot be had.
    Refused(Refusal),
}

impl Saved {
    /// The event, if it is new.
    #[must_use]
    pub fn new_event(&self) -> Option<&Sealed> {
        match self {
            Self::New(sealed) => Some(sealed),
            Self::Advised(advised) => Some(&advised.0),
            _ => None,
        }
    }

    /// The event, if it is new.
    #[must_use]
    pub fn into_new_event(self) -> Option<Sealed> {
        match self {
            Self::New(sealed) => Some(sealed),
            Self::Advised(advised) => Some(advised.0),
            _ => None,
        }
    }

    /// The answer to the publisher: the text of an `OK true`, empty for a new event without a fault, or the rejection
    /// of an `OK false`.
    ///
    /// # Errors
    /// The [`Rejection`], if the event is not stored with its effect.
    pub fn answer(&self) -> Result<Cow<'static, str>, Rejection> {
        match self {
            Self::New(_) => Ok("".into()),
            // A word of NIP-01 in front would say that the event was refused.
            Self::Advised(advised) => Ok(Rejection::from(advised.1.clone()).text),
            Self::Duplicate | Self::DeletedByRecipient => Ok(DUPLICATE.into()),
            Self::Superseded => {
                Err(Rejection::duplicate("a newer version is stored").under(Rule("Answers to clients", 3)))
            }
            Self::Deleted => {
                let refusal = Rejection::blocked("this event was deleted; what was deleted does not come back");
                Err(refusal.under(Rule("Deletion", 9)))
            }
            Self::Refused(refusal) => Err(refusal.clone().into()),
        }
    }
}
