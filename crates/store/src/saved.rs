//! Outcomes of saving an event, and the answer to its publisher for each.
//!
//! Source: docs/rules.md, "Answers to clients". `OK true` says that the event is stored with the effect that its sender
//! asked for.

use nostr_extensions::{Sealed, mls_gateway::group::Refusal};
use nostr_protocol::Rejection;

/// The reason of `OK true` for an event that is stored already.
pub const DUPLICATE: &str = "duplicate: this event is stored already";

/// The outcome of saving one event of a batch.
#[derive(Clone, Debug)]
pub enum Saved {
    /// The event is durable with its effects. [`Sealed`] holds its place in the log.
    New(Sealed),
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
    /// The answer to the publisher: the reason of an `OK true`, empty for a new event, or the rejection of an `OK
    /// false`.
    ///
    /// # Errors
    /// The [`Rejection`], if the event is not stored with its effect.
    pub fn answer(&self) -> Result<&'static str, Rejection> {
        match self {
            Self::New(_) => Ok(""),
            Self::Duplicate | Self::DeletedByRecipient => Ok(DUPLICATE),
            Self::Superseded => Err(Rejection::duplicate("a newer version is stored")),
            Self::Deleted => Err(Rejection::blocked("this event was deleted; what was deleted does not come back")),
            Self::Refused(refusal) => Err(refusal.clone().into()),
        }
    }
}
