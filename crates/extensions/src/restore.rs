//! Events that come back from an export: the second way into a store, for the operator's own commands.
//!
//! Source: docs/rules.md, "Elsewhere" (import of events never changes groups). Admission was decided when the event was
//! first stored, and its end with it; neither is decided again. Its line in the directory of KeyPackages, its address
//! and the targets of a deletion follow from the event alone, by the code that admission uses.
//!
//! Events of another relay's export come without anything beside them. [`ForeignRules`] decide about these as about a
//! client's, and give them their end.

use std::{collections::HashSet, sync::Arc};

use nostr_protocol::{Event, Kind, PublicKey, Rejection, UnixSecs, Verified, auth::RelayNames, tag::name};

use crate::{
    admit::admit,
    context::Publisher,
    effect::{Effect, Persistence},
    gate::Touches,
    kinds::rules,
    mls_gateway::group::{Group, GroupRecord, GroupStatus, ManagedGroup, Role, SeenEpoch, Source},
    policy::Policy,
    reader::Reader,
    strangers::StrangerRules,
    tags::one_group,
};

/// Data that a store keeps with an event beside its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// The groups that its entry in the log says that it touched: those that it changed, and those that the events
    /// changed which it removed. `None` where its kind says all ([`Touches::kept_of`]).
    pub touches: Option<Touches>,
}

/// An event that some store held, and whose id and signature were checked again.
///
/// It is no [`Admitted`](crate::Admitted): a store takes it by a function of its own, which changes no group.
#[derive(Clone, Debug)]
pub struct Restored {
    event: Event,
    meta: EventMeta,
    effect: Effect,
    is_foreign: bool,
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
        Ok(Self { event, meta, effect, is_foreign: false })
    }

    /// Whether it is another relay's, so that nothing beside it says which events it removed.
    #[must_use]
    pub const fn is_foreign(&self) -> bool {
        self.is_foreign
    }

    /// The event.
    #[must_use]
    pub const fn event(&self) -> &Event {
        &self.event
    }

    /// The data that was kept with it.
    #[must_use]
    pub const fn meta(&self) -> &EventMeta {
        &self.meta
    }

    /// The change that storing it makes beside the event: never of a group.
    #[must_use]
    pub const fn effect(&self) -> &Effect {
        &self.effect
    }
}

/// The rules for events of another relay: those for a client's events, without the ones about its sender. The operator
/// vouches for all authors, and no event changes a group.
#[derive(Clone, Debug)]
pub struct ForeignRules {
    policy: Policy,
    names: RelayNames,
}

impl ForeignRules {
    /// The rules of a relay with this policy, which has these `names` (NIP-62).
    #[must_use]
    pub fn new(policy: Policy, names: RelayNames) -> Self {
        // Without sources a gift wrap changes no group, and its shape is checked all the same.
        let sources = HashSet::new();
        // Events of an import were sent elsewhere, and bring no proofs.
        let strangers = StrangerRules::default();
        let policy = Policy { auth_required: false, residents: None, sources, strangers, ..policy };
        Self { policy, names }
    }

    /// The event as the store takes it, received at `now`.
    ///
    /// # Errors
    /// A [`Rejection`] with the reason why this relay does not hold such an event.
    pub fn restored(&self, event: Verified, now: UnixSecs) -> Result<Restored, Rejection> {
        let (kind, author) = (event.event().kind(), event.event().pubkey());
        match rules(kind).kept.persistence(&self.policy) {
            Persistence::Stored => {}
            Persistence::Ephemeral => return Err(Rejection::invalid("events of ephemeral kinds are never stored")),
            Persistence::LogOnly => {
                return Err(Rejection::invalid(format!("the archive is off, and keeps no kind {kind}")));
            }
        }
        match kind {
            // A stored roster would be answered with `duplicate:`, as if its group had been changed by it.
            Kind::ROSTER => return Err(Rejection::invalid("rosters change groups, which events alone do not bring")),
            // So would a stored gift wrap that founds a group, or adds a member to one.
            Kind::GIFT_WRAP if event.event().tags().value(name::GROUP).is_some() => {
                return Err(Rejection::invalid("gift wraps with h change groups, which events alone do not bring"));
            }
            Kind::GROUP_MESSAGE => return self.group_message(event, now),
            _ => {}
        }
        let reader = Reader::new(&[author]);
        let publisher = Publisher { reader: &reader, names: &self.names };
        let admitted = admit(event, publisher, &self.policy, None, now)?;
        Ok(Restored::foreign(admitted.event().clone(), now, admitted.expires_at(), admitted.effect().clone()))
    }

    /// A message is checked as one that a member, or a client that knows the unlisted group, publishes. The transaction
    /// finds out whether the group is managed.
    fn group_message(&self, event: Verified, now: UnixSecs) -> Result<Restored, Rejection> {
        let group = one_group(event.event())?;
        let author = event.event().pubkey();
        // Without unlisted groups, an id that carried a message would be closed for good to a managed group.
        let unlisted = group.is_capability() && self.policy.unlisted_groups;
        let status = if unlisted { GroupStatus::Unlisted } else { managed_with(author, now) };
        let reader = Reader::new(&[author]);
        let publisher = Publisher { reader: &reader, names: &self.names };
        let state = Group { id: group.clone(), status };
        let admitted = admit(event, publisher, &self.policy, Some(&state), now)?;
        let effect = Effect::GroupMessage { group, keys: Vec::new(), unlisted, epoch: SeenEpoch::Nowhere, order: None };
        Ok(Restored::foreign(admitted.event().clone(), now, admitted.expires_at(), effect))
    }
}

/// A managed group with this one member.
fn managed_with(member: PublicKey, now: UnixSecs) -> GroupStatus {
    let record = GroupRecord::new(Source::Roster, 1, now, None);
    GroupStatus::Managed(Arc::new(ManagedGroup { record, members: std::iter::once((member, Role::Member)).collect() }))
}

impl Restored {
    const fn foreign(event: Event, received_at: UnixSecs, expires_at: UnixSecs, effect: Effect) -> Self {
        let meta = EventMeta { received_at, expires_at, author_only: false, log_only: false, touches: None };
        Self { event, meta, effect, is_foreign: true }
    }
}
