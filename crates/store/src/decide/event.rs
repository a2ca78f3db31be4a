//! The rules by which an admitted event is stored, in every store but the oracle: everything that may refuse it first,
//! then its effects, then the event.

use std::cmp::Reverse;

use nostr_extensions::{
    Admitted, Effect, EventMeta, Persistence,
    gate::Touches,
    mls_gateway::{
        deletion::{deleters, is_gone_by, owners},
        group::Refusal,
        key_package::DirectoryEntry,
    },
};
use nostr_protocol::{EventRef, UnixSecs};

use super::{
    group::{GroupMessage, Sender},
    keys::{Address, address, claimed, tombstone_key},
    lookup::{AddressHolder, Apply, Placement},
    stock::{GivingWay, line_of, make_room},
};
use crate::Saved;

/// Decides events and records one after the other, each by all that was decided before.
pub(crate) struct Decider<'s, S>(pub(crate) &'s mut S);

/// The outcome for one event.
#[derive(Debug)]
pub(crate) enum Decision<P> {
    /// It was put with its effects. It may have a fault that its publisher is told of.
    Put(P, Option<Refusal>),
    /// It was not put, nothing changed, and this is the answer.
    Answer(Saved),
}

/// Why an event is not put.
pub(super) enum NotPut<E> {
    /// A rule says so.
    Answer(Saved),
    /// The store failed; its transaction is to be given up.
    Failed(E),
}

impl<E> From<E> for NotPut<E> {
    fn from(error: E) -> Self {
        Self::Failed(error)
    }
}

impl<E> NotPut<E> {
    pub(super) const fn refused(refusal: Refusal) -> Self {
        Self::Answer(Saved::Refused(refusal))
    }
}

impl<S: Apply> Decider<'_, S> {
    /// Puts an event with its effects, or answers why not.
    ///
    /// # Errors
    /// The store's; the transaction is to be given up.
    pub(crate) fn event(&mut self, admitted: &Admitted) -> Result<Decision<S::Put>, S::Error> {
        if admitted.persistence() == Persistence::Ephemeral {
            return self.0.put_ephemeral(admitted).map(|put| Decision::Put(put, None));
        }
        match self.placement(admitted) {
            Ok((placement, advice)) => self.0.put(admitted.event(), placement).map(|put| Decision::Put(put, advice)),
            Err(NotPut::Answer(saved)) => Ok(Decision::Answer(saved)),
            Err(NotPut::Failed(error)) => Err(error),
        }
    }

    fn placement<'e>(&mut self, admitted: &'e Admitted) -> Result<(Placement<'e>, Option<Refusal>), NotPut<S::Error>> {
        let (event, now) = (admitted.event().view(), admitted.received_at());
        // Only a sender that may send the event now is told whether it is stored.
        let sender = match admitted.effect() {
            Effect::GroupMessage { group, keys, unlisted, .. } => {
                let sender = self.check_sender(group, keys, *unlisted)?;
                self.check_open(group, admitted)?;
                sender
            }
            Effect::Wrap(change) => {
                let sender = self.check_inviter(change)?;
                self.check_open(&change.group, admitted)?;
                sender
            }
            _ => Sender::default(),
        };
        let expired = self.check_new(event, now)?;
        let mut placement = Placement::new(EventMeta {
            received_at: now,
            expires_at: admitted.expires_at(),
            author_only: false,
            log_only: admitted.persistence() == Persistence::LogOnly,
            touches: None,
        });
        let (mut touches, mut advice) = (Touches::Nothing, None);
        match admitted.effect() {
            Effect::None => {}
            Effect::Replace { identifier } => placement.address = Some(self.replace(event, identifier, now)?),
            Effect::KeyPackage { entry, identifier, kept_max } => {
                self.key_package(event, entry, (identifier.as_deref(), *kept_max), (&mut placement, now))?;
            }
            Effect::GroupMessage { group, epoch, order, .. } => {
                let message = GroupMessage { group, epoch: *epoch, order: *order };
                advice = self.group_message(event.id(), &message, sender, now)?;
            }
            Effect::Roster(change) => touches = self.roster(change, admitted)?,
            Effect::Wrap(change) => touches = self.wrap(change, sender, now)?,
            Effect::Delete(deletion) => touches = self.delete(event, deletion, &mut placement.meta)?,
            Effect::Vanish => touches = self.vanish(event, now)?,
        }
        placement.meta.touches = touches.kept_of(event);
        self.make_room(event, expired)?;
        Ok((placement, advice))
    }

    /// Removes the expired event that [`Self::check_new`] found under the id of the event that takes its place.
    pub(super) fn make_room(&mut self, event: EventRef<'_>, expired: Option<S::At>) -> Result<(), S::Error> {
        expired.map_or(Ok(()), |at| self.0.remove(at, &event.id()))
    }

    /// Refuses an event that is stored, and one that was taken back before it came: by an owner that vanished, or by
    /// name. A stored event that has expired at `now` is as good as absent, and is given for [`Self::make_room`].
    pub(super) fn check_new(&self, event: EventRef<'_>, now: UnixSecs) -> Result<Option<S::At>, NotPut<S::Error>> {
        // Asked first, as the events that a vanished key left may be stored still.
        for key in owners(event) {
            if self.0.vanished(&key)?.is_some_and(|at| is_gone_by(event, at)) {
                return Err(NotPut::Answer(Saved::Deleted));
            }
        }
        let id = event.id();
        let stored = self.0.stored(&id)?;
        if stored.is_some_and(|(_, expires_at)| expires_at > now) {
            return Err(NotPut::Answer(Saved::Duplicate));
        }
        for key in deleters(event) {
            if self.0.tombstone(&tombstone_key(&id, &key))?.is_some() {
                let by_author = key == event.pubkey();
                return Err(NotPut::Answer(if by_author { Saved::Deleted } else { Saved::DeletedByRecipient }));
            }
        }
        Ok(stored.map(|(at, _)| at))
    }

    /// Removes the event that this one displaces at its address.
    pub(super) fn replace(
        &mut self,
        event: EventRef<'_>,
        identifier: &str,
        now: UnixSecs,
    ) -> Result<Address, NotPut<S::Error>> {
        let address = address(&event.pubkey(), event.kind(), identifier);
        if let Some(old) = self.displaced(event, &address, now)? {
            self.0.remove(old.at, &old.id)?;
        }
        Ok(address)
    }

    /// Checks a KeyPackage against the directory, and removes the event that it displaces at its address, and those
    /// that give way to it. Places it at its address and in the directory.
    pub(super) fn key_package<'e>(
        &mut self,
        event: EventRef<'_>,
        entry: &'e DirectoryEntry,
        (identifier, kept_max): (Option<&str>, usize),
        (placement, now): (&mut Placement<'e>, UnixSecs),
    ) -> Result<(), NotPut<S::Error>> {
        if self.0.is_claimed(&claimed(&entry.owner, &entry.content_hash))? {
            return Err(NotPut::Answer(Saved::Deleted));
        }
        let address = identifier.map(|it| address(&event.pubkey(), event.kind(), it));
        let old = match &address {
            Some(address) => self.displaced(event, address, now)?,
            None => None,
        };
        if self.0.is_reference_taken(entry, now)? {
            return Err(NotPut::refused(Refusal::ReferenceTaken));
        }
        let mut owned = self.0.packages(&entry.owner, now)?;
        let entry = line_of(entry, &owned);
        owned.retain(|package| old.is_none_or(|old| old.id != package.id));
        let rank = (event.created_at(), Reverse(event.id()));
        let GivingWay { events, spent } = make_room(&entry, rank, &owned, kept_max).map_err(NotPut::refused)?;
        if let Some(old) = old {
            self.0.remove(old.at, &old.id)?;
        }
        for gone in &events {
            self.0.remove(gone.at, &gone.id)?;
            if let Some(address) = &gone.address {
                // Nobody holds the address now, and an older version that was replaced is not to take it.
                let until = self.0.address_tombstone(address)?.unwrap_or_default().max(gone.created_at);
                self.0.bury_address(address, until)?;
            }
        }
        for content_hash in &spent {
            self.0.claim(&claimed(&entry.owner, content_hash))?;
        }
        (placement.address, placement.package) = (address, Some(entry));
        Ok(())
    }

    /// The event that this one displaces at its address; refused where it may not have the address. NIP-01: the newest
    /// is kept, and of those of one second the one with the lowest id.
    fn displaced(
        &self,
        event: EventRef<'_>,
        address: &Address,
        now: UnixSecs,
    ) -> Result<Option<AddressHolder<S::At>>, NotPut<S::Error>> {
        if self.0.address_tombstone(address)?.is_some_and(|until| event.created_at() <= until) {
            return Err(NotPut::Answer(Saved::Deleted));
        }
        let Some(old) = self.0.holder(address)? else { return Ok(None) };
        let order = |created_at: UnixSecs, id| (created_at, Reverse(id));
        let is_newer = order(old.created_at, old.id) > order(event.created_at(), event.id());
        if old.expires_at > now && is_newer { Err(NotPut::Answer(Saved::Superseded)) } else { Ok(Some(old)) }
    }
}
