//! Events that come back from an export: the second way into a store, for the operator's own commands.
//!
//! Source: decisions, "Elsewhere" (import of events never changes groups). Who may publish an event was asked when it was
//! first stored, and with it how long it is kept; neither is asked again. What it is in the directory of KeyPackages, at
//! its address and for what it deletes follows from the event alone, by the code that admission uses.

use nostr_protocol::{Event, Kind, Lifetime, Rejection, UnixSecs, Verified};

use crate::{
    admit::{Effect, identifier},
    mls_gateway::{deletion, key_package, welcome},
};

/// What a store keeps with an event beside its place in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventMeta {
    /// When it was received.
    pub received_at: UnixSecs,
    /// From when on it is served to nobody; [`NEVER`](crate::admit::NEVER) for what is kept without end.
    pub expires_at: UnixSecs,
    /// Whether it is for its author alone, as a deletion that names what is not public.
    pub author_only: bool,
    /// Whether it is in the log that feeds live delivery, and found by no query.
    pub log_only: bool,
    /// Whether it took events out of the log that had changed groups.
    pub touches_groups: bool,
}

/// An event that some store held, and whose id and signature were checked again.
///
/// It is no [`Admitted`](crate::Admitted): a store takes it by another door, which changes no group.
#[derive(Clone, Debug)]
pub struct Restored {
    event: Event,
    meta: EventMeta,
    effect: Effect,
}

impl Restored {
    /// From a verified event and what was kept with it.
    ///
    /// # Errors
    /// A [`Rejection`], in words for the operator: the event is of a kind that is never stored, or does not have the form
    /// of its kind.
    pub fn new(event: Verified, meta: EventMeta) -> Result<Self, Rejection> {
        let event = event.into_event();
        welcome::refuse_inner_kinds(event.kind())?;
        let effect = match event.kind() {
            Kind::KEY_PACKAGE | Kind::ADDRESSABLE_KEY_PACKAGE => {
                let (entry, identifier) = key_package::read(&event);
                Effect::KeyPackage { entry, identifier }
            }
            Kind::DELETION => Effect::Delete(deletion::read(&event)?),
            Kind::VANISH => Effect::Vanish,
            kind => match kind.lifetime() {
                Lifetime::Regular => Effect::None,
                Lifetime::Replaceable => Effect::Replace { identifier: "".into() },
                Lifetime::Addressable => Effect::Replace { identifier: identifier(&event) },
                Lifetime::Ephemeral => {
                    return Err(Rejection::invalid(format!("kind {kind} is ephemeral and never stored")));
                }
            },
        };
        Ok(Self { event, meta, effect })
    }

    /// The event.
    #[must_use]
    pub const fn event(&self) -> &Event {
        &self.event
    }

    /// What was kept with it.
    #[must_use]
    pub const fn meta(&self) -> EventMeta {
        self.meta
    }

    /// What storing it changes beside the event: never a group.
    #[must_use]
    pub const fn effect(&self) -> &Effect {
        &self.effect
    }
}
