//! Events that come back from an export: the second way into a store, for the operator's own commands.
//!
//! Source: docs/rules.md, "Elsewhere" (import of events never changes groups). Admission was decided when the event was
//! first stored, and its end with it; neither is decided again. Its line in the directory of KeyPackages, its address
//! and the targets of a deletion follow from the event alone, by the code that admission uses.

use nostr_protocol::{Event, Rejection, UnixSecs, Verified};

use crate::{effect::Effect, kinds::rules};

/// Data that a store keeps with an event beside its place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventMeta {
    /// Time at which it was received.
    pub received_at: UnixSecs,
    /// Time from which on no reader is served it; [`NEVER`](crate::effect::NEVER) for an event that is kept without
    /// end.
    pub expires_at: UnixSecs,
    /// Whether it is for its author alone, as a deletion with a target that is not public.
    pub author_only: bool,
    /// Whether it is in the log that feeds live delivery, and found by no query.
    pub log_only: bool,
    /// Whether it removed other events, which may have changed groups.
    pub touches_groups: bool,
}

/// An event that some store held, and whose id and signature were checked again.
///
/// It is no [`Admitted`](crate::Admitted): a store takes it by a function of its own, which changes no group.
#[derive(Clone, Debug)]
pub struct Restored {
    event: Event,
    meta: EventMeta,
    effect: Effect,
}

impl Restored {
    /// From a verified event and the data that was kept with it.
    ///
    /// # Errors
    /// A [`Rejection`], in words for the operator: the event is of a kind that is never stored, or does not have the
    /// form of its kind.
    pub fn new(event: Verified, meta: EventMeta) -> Result<Self, Rejection> {
        let event = event.into_event();
        let effect = (rules(event.kind()).restore)(&event)?;
        Ok(Self { event, meta, effect })
    }

    /// The event.
    #[must_use]
    pub const fn event(&self) -> &Event {
        &self.event
    }

    /// The data that was kept with it.
    #[must_use]
    pub const fn meta(&self) -> EventMeta {
        self.meta
    }

    /// The change that storing it makes beside the event: never of a group.
    #[must_use]
    pub const fn effect(&self) -> &Effect {
        &self.effect
    }
}
