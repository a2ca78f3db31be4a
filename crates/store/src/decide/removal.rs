//! Deletions by name and by address, and vanishing.
//!
//! Source: NIP-09, NIP-62; docs/rules.md, "Deletion". A deletion that comes before its target leaves a tombstone, which
//! is checked when the target arrives.

use nostr_extensions::{
    EventMeta, GroupStatus,
    gate::Touches,
    mls_gateway::{
        deletion::{Deletion, is_known_undeletable, is_private_of, is_undeletable, may_delete},
        group::{Refusal, apply_vanish, leaves_groups},
    },
};
use nostr_protocol::{EventId, EventRef, PublicKey, UnixSecs};

use super::{
    event::{Decider, NotPut},
    keys::{Address, address, tombstone_key},
    lookup::Apply,
};
use crate::weight::DELETED_ROWS_MAX;

/// A stored event that a deletion names, as its deleter may know it.
struct Named<A> {
    at: A,
    is_public: bool,
    /// Whether it is private, and by the deleter or to it.
    is_private: bool,
    /// Whether the deleter may take it back.
    is_own: bool,
    /// Whether the deleter may not take it back, and sees it.
    is_others: bool,
    /// Whether the deletion is refused as a whole.
    is_undeletable: bool,
    /// The groups that it touched.
    touches: Touches,
    /// Rows of the index that go with it.
    rows: usize,
}

impl<S: Apply> Decider<'_, S> {
    /// Takes back the targets of a deletion. One that names nothing that its author may delete is refused. One that
    /// names a private event by its author or to it, or a kind of private events, is for its author alone. Any other
    /// target counts as unknown. Returns the groups that the removed events touched: a follower of the log may have
    /// missed these.
    pub(super) fn delete(
        &mut self,
        event: EventRef<'_>,
        deletion: &Deletion,
        meta: &mut EventMeta,
    ) -> Result<Touches, NotPut<S::Error>> {
        let by = &deletion.by;
        let mut targets = Vec::with_capacity(deletion.ids.len());
        let mut rows = self.rows_at(deletion, event.created_at())?;
        for id in &deletion.ids {
            let named = self.named(id, by, meta.received_at)?;
            rows += named.as_ref().filter(|named| named.is_own).map_or(0, |named| named.rows);
            if named.as_ref().is_some_and(|named| named.is_undeletable) {
                return Err(NotPut::refused(Refusal::Undeletable));
            }
            targets.push((id, named));
        }
        if rows > DELETED_ROWS_MAX && deletion.ids.len() + deletion.addresses.len() > 1 {
            return Err(NotPut::refused(Refusal::DeletesTooMuch));
        }
        let is_others = |(_, named): &(_, Option<Named<S::At>>)| named.as_ref().is_some_and(|named| named.is_others);
        if deletion.addresses.is_empty() && targets.iter().all(is_others) {
            return Err(NotPut::refused(Refusal::NothingToDelete));
        }
        meta.author_only |= deletion.names_private_kind;
        let mut touches = Touches::Nothing;
        for (id, named) in targets {
            meta.author_only |= match named {
                Some(named) => {
                    let is_private = named.is_private;
                    if named.is_own {
                        touches.add(self.take_back(id, by, named)?);
                    }
                    is_private
                }
                None => self.leave_tombstone(id, by)?,
            };
        }
        for (kind, identifier) in &deletion.addresses {
            self.delete_address(&address(by, *kind, identifier), event.created_at())?;
        }
        Ok(touches)
    }

    /// Takes back the targets of a deletion that was published elsewhere: nothing refuses it. The tombstone of a target
    /// that is not here is a record of its own. Returns the groups that the removed events touched.
    pub(super) fn restore_deletion(
        &mut self,
        at: UnixSecs,
        deletion: &Deletion,
        now: UnixSecs,
    ) -> Result<Touches, S::Error> {
        let by = &deletion.by;
        let mut touches = Touches::Nothing;
        for id in &deletion.ids {
            if let Some(named) = self.named(id, by, now)?.filter(|named| named.is_own) {
                touches.add(self.take_back(id, by, named)?);
            }
        }
        for (kind, identifier) in &deletion.addresses {
            self.delete_address(&address(by, *kind, identifier), at)?;
        }
        Ok(touches)
    }

    /// Rows of the index that go with the events at a deletion's addresses.
    fn rows_at(&self, deletion: &Deletion, at: UnixSecs) -> Result<usize, S::Error> {
        let mut rows = 0;
        for (kind, identifier) in &deletion.addresses {
            let holder = self.0.holder(&address(&deletion.by, *kind, identifier))?;
            rows += holder.filter(|holder| holder.created_at <= at).map_or(0, |holder| holder.rows);
        }
        Ok(rows)
    }

    /// The stored event of this id, if it has not expired.
    fn named(&self, id: &EventId, by: &PublicKey, now: UnixSecs) -> Result<Option<Named<S::At>>, S::Error> {
        let stored = self.0.target(id)?.filter(|stored| stored.expires_at > now);
        Ok(stored.map(|stored| Named {
            at: stored.at,
            is_public: stored.is_public(),
            is_private: !stored.is_public() && is_private_of(stored.event, by),
            is_own: may_delete(stored.event, by),
            is_others: is_known_undeletable(stored.event, stored.is_public(), by),
            is_undeletable: is_undeletable(stored.event.kind()) && stored.event.pubkey() == *by,
            rows: stored.rows,
            touches: stored.touches,
        }))
    }

    fn take_back(&mut self, id: &EventId, by: &PublicKey, named: Named<S::At>) -> Result<Touches, S::Error> {
        self.0.bury(&tombstone_key(id, by), named.is_public)?;
        self.0.remove(named.at, id)?;
        Ok(named.touches)
    }

    /// Leaves a tombstone for a target that is not stored, unless there is one. Returns whether the target is known to
    /// have been private. An unknown one counts as public.
    fn leave_tombstone(&mut self, id: &EventId, by: &PublicKey) -> Result<bool, S::Error> {
        let key = tombstone_key(id, by);
        match self.0.tombstone(&key)? {
            Some(public) => Ok(!public),
            None => self.0.bury(&key, true).map(|()| false),
        }
    }

    /// Removes the versions of an address up to `at`, for good.
    pub(super) fn delete_address(&mut self, address: &Address, at: UnixSecs) -> Result<(), S::Error> {
        let holder = self.0.holder(address)?;
        let deleted = self.0.address_tombstone(address)?;
        if let Some(holder) = holder.filter(|holder| holder.created_at <= at) {
            self.0.remove(holder.at, &holder.id)?;
        }
        self.0.bury_address(address, deleted.unwrap_or_default().max(at))
    }

    /// Marks the author of a request as vanished, and takes it out of its groups. Returns what that touched: a key that
    /// leaves no group, such as one that anybody makes for this, costs nobody a cached state.
    pub(super) fn vanish(&mut self, event: EventRef<'_>, now: UnixSecs) -> Result<Touches, S::Error> {
        let (key, at) = (event.pubkey(), event.created_at());
        self.mark_vanished(&key, at)?;
        let mut touches = Touches::Nothing;
        if !leaves_groups(at, now) {
            return Ok(touches);
        }
        for group in self.0.groups_of(&key)? {
            if let GroupStatus::Managed(managed) = self.0.group(&group)?
                && let Some(changed) = apply_vanish(&managed, &key)
            {
                self.0.change_group(&group, changed, now)?;
                touches = Touches::EveryGroup;
            }
        }
        Ok(touches)
    }

    /// Marks the key as vanished up to `at`. Returns `false` if it already was.
    pub(super) fn mark_vanished(&mut self, key: &PublicKey, at: UnixSecs) -> Result<bool, S::Error> {
        let is_new = self.0.vanished(key)?.is_none_or(|before| before < at);
        if is_new {
            self.0.vanish(key, at)?;
        }
        Ok(is_new)
    }
}
