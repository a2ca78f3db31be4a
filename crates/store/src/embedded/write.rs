//! One event into the open transaction: everything that may refuse it first, then its effects, then the event.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use heed::RwTxn;
use nostr_extensions::{
    Admitted, Effect, GroupStatus, NostrGroupId, Persistence, Sealed, Source, Stamp,
    admit::NEVER,
    mls_gateway::{
        group::{Changed, Refusal, RosterChange, SeenEpoch, WRAPPED_GROUPS_MAX, WrapChange, apply_roster, apply_wrap},
        key_package::DirectoryEntry,
    },
};
use nostr_protocol::{Event, EventId, EventRef, Kind, PublicKey, UnixSecs, tag::name};

use super::{
    Shared,
    fail::Fail,
    groups::raised,
    ids::IdChanges,
    keys::{self, CURSOR_MAX, Key, Stored, cursor_bytes, number_from},
    log::{Vanishing, tombstone, vanished_at},
    tables::Tables,
};
use crate::{Cursor, Saved};

/// Most groups of which the writer remembers that they are managed or unlisted.
const STANDINGS_MAX: usize = 65_536;
/// Most cursors in one value of `expiry`.
const EXPIRY_LIST_MAX: usize = 512;

/// What a group is for ever, or until a roster forces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Unlisted,
    Managed,
}

/// What the writer remembers of groups from one transaction to the next.
pub(super) type Standings = HashMap<NostrGroupId, Standing>;

/// An open write transaction, and what becomes known to readers when it is committed.
pub(super) struct Tx<'e> {
    pub(super) txn: RwTxn<'e>,
    pub(super) tables: &'e Tables,
    pub(super) shared: &'e Shared,
    pub(super) standings: &'e mut Standings,
    /// The cursor of the next event.
    pub(super) next: Cursor,
    pub(super) vanishing: Arc<Vanishing>,
    pub(super) ids: IdChanges<'e>,
    pub(super) epochs: HashMap<NostrGroupId, Option<u64>>,
    pub(super) expiring: BTreeMap<UnixSecs, Vec<u8>>,
    pub(super) scratch: Vec<u8>,
}

/// What an effect leaves for the event that brings it.
#[derive(Clone, Copy, Default)]
pub(super) struct Marks {
    pub(super) author_only: bool,
    pub(super) touches_groups: bool,
}

/// What came of the effect: refused or passed over as a whole, or done.
pub(super) type Applied = Result<Marks, Saved>;

impl Tx<'_> {
    /// Stores one event with its effects; on an error the transaction is to be given up.
    pub(super) fn save(&mut self, admitted: &Admitted) -> Result<Saved, Fail> {
        let event = admitted.event().view();
        if admitted.persistence() == Persistence::Ephemeral {
            let stamp = Stamp {
                cursor: self.next,
                received_at: admitted.received_at(),
                expires_at: admitted.expires_at(),
                author_only: false,
            };
            self.next += 1;
            return Ok(Saved::New(Sealed::new(admitted.event().clone(), stamp)));
        }
        // Whether a message is stored is told to those alone who may send it now.
        if let Effect::GroupMessage { group, keys, unlisted, .. } = admitted.effect()
            && !self.may_send(group, keys, *unlisted)?
        {
            return Ok(Saved::Refused(Refusal::no_member(keys)));
        }
        if let Some((_, stored)) = self.find(&event.id())?
            && !self.vanishing.hides(stored.event)
        {
            return Ok(Saved::Duplicate);
        }
        if self.is_gone(event)? {
            return Ok(Saved::Deleted);
        }
        let now = admitted.received_at();
        let applied = match admitted.effect() {
            Effect::None => Ok(Marks::default()),
            Effect::Replace { identifier } => self.replace(event, identifier, now)?,
            Effect::KeyPackage { entry, identifier } => self.key_package(event, entry, identifier.as_deref(), now)?,
            Effect::GroupMessage { group, epoch, .. } => Ok(self.group_message(group, *epoch)?),
            Effect::Roster(change) => self.roster(change, now)?,
            Effect::Wrap(change) => self.wrap(change, now)?,
            Effect::Delete(deletion) => self.delete(event, deletion)?,
            Effect::Vanish => self.vanish(event, now)?,
        };
        let marks = match applied {
            Ok(marks) => marks,
            Err(saved) => return Ok(saved),
        };
        let log_only = admitted.persistence() == Persistence::LogOnly;
        self.put(admitted.event(), now, admitted.expires_at(), log_only, marks).map(Saved::New)
    }

    /// The stored event of this id, hidden or not.
    pub(super) fn find(&self, id: &EventId) -> Result<Option<(Cursor, Stored<'_>)>, Fail> {
        self.tables.find(&self.txn, id, &self.ids.cursors(id))
    }

    /// Puts an event behind all others.
    pub(super) fn put(
        &mut self,
        event: &Event,
        received_at: UnixSecs,
        expires_at: UnixSecs,
        log_only: bool,
        marks: Marks,
    ) -> Result<Sealed, Fail> {
        if self.next > CURSOR_MAX {
            return Err(Fail::Full);
        }
        let stamp = Stamp { cursor: self.next, received_at, expires_at, author_only: marks.author_only };
        let mut flags = 0;
        for (set, flag) in [
            (marks.author_only, keys::AUTHOR_ONLY),
            (marks.touches_groups, keys::TOUCHES_GROUPS),
            (log_only, keys::LOG_ONLY),
        ] {
            flags |= if set { flag } else { 0 };
        }
        let sealed = self.tables.put_event(&mut self.txn, event, stamp, flags, &mut self.ids, &mut self.scratch)?;
        if stamp.expires_at != NEVER {
            self.expiring.entry(stamp.expires_at).or_default().extend_from_slice(&cursor_bytes(stamp.cursor));
        }
        self.next += 1;
        Ok(sealed)
    }

    /// Writes the expiry of what this transaction stored: one entry for all that ends in one second.
    pub(super) fn flush_expiry(&mut self) -> Result<(), Fail> {
        for (expires_at, cursors) in std::mem::take(&mut self.expiring) {
            for list in cursors.chunks(EXPIRY_LIST_MAX * 6) {
                let key = Key::new().with(&keys::time_bytes(expires_at)).with(&list[..6]);
                self.tables.expiry.put(&mut self.txn, &key, list)?;
            }
        }
        Ok(())
    }

    /// Whether the event's author or recipient took it back before it came: by name, or by vanishing.
    pub(super) fn is_gone(&self, event: EventRef<'_>) -> Result<bool, Fail> {
        if !self.tables.vanished.is_empty(&self.txn)? {
            let vanished = |key: &PublicKey| self.vanished_secs(key).ok().flatten();
            if vanished_at(event, vanished).is_some() {
                return Ok(true);
            }
        }
        if matches!(event.kind(), Kind::GROUP_MESSAGE | Kind::ROSTER | Kind::DELETION | Kind::VANISH) {
            return Ok(false);
        }
        let id = event.id();
        let buried = |key: &PublicKey| -> Result<bool, Fail> {
            Ok(self.tables.tombstones.get(&self.txn, &tombstone(&id, key))?.is_some())
        };
        if buried(&event.pubkey())? {
            return Ok(true);
        }
        if matches!(event.kind(), Kind::NOISE_DM | Kind::KEY_PACKAGE_REQUEST | Kind::GIFT_WRAP) {
            for recipient in nostr_extensions::audience::recipients(event) {
                if buried(&recipient)? {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// NIP-01: of one address the newest is kept, of those of one second the one with the lowest id.
    pub(super) fn replace(&mut self, event: EventRef<'_>, identifier: &str, now: UnixSecs) -> Result<Applied, Fail> {
        let address = keys::address(&event.pubkey(), event.kind(), identifier);
        match self.place(event, &address, now)? {
            Ok(old) => self.take_place(&address, old)?,
            Err(saved) => return Ok(Err(saved)),
        }
        Ok(Ok(Marks::default()))
    }

    /// Whether the event may have its address, and which event it displaces there.
    fn place(&self, event: EventRef<'_>, address: &[u8], now: UnixSecs) -> Result<Result<Option<Cursor>, Saved>, Fail> {
        if let Some(deleted) = self.tables.address_tombstones.get(&self.txn, address)?
            && event.created_at() <= number_from(deleted)
        {
            return Ok(Err(Saved::Deleted));
        }
        let Some(cursor) = self.tables.addresses.get(&self.txn, address)?.map(number_from) else {
            return Ok(Ok(None));
        };
        let old = self.tables.event(&self.txn, cursor)?.ok_or(Fail::Corrupt("an address leads to no event"))?;
        let is_there = old.expires_at > now && !self.vanishing.hides(old.event);
        let newer = (old.event.created_at(), std::cmp::Reverse(old.event.id()))
            > (event.created_at(), std::cmp::Reverse(event.id()));
        if is_there && newer { Ok(Err(Saved::Superseded)) } else { Ok(Ok(Some(cursor))) }
    }

    fn take_place(&mut self, address: &[u8], old: Option<Cursor>) -> Result<(), Fail> {
        if let Some(old) = old {
            self.tables.remove_event(&mut self.txn, &mut self.ids, old)?;
        }
        Ok(self.tables.addresses.put(&mut self.txn, address, &cursor_bytes(self.next))?)
    }

    pub(super) fn key_package(
        &mut self,
        event: EventRef<'_>,
        entry: &DirectoryEntry,
        identifier: Option<&str>,
        now: UnixSecs,
    ) -> Result<Applied, Fail> {
        if self.tables.is_claimed(&self.txn, entry)? {
            return Ok(Err(Saved::Deleted));
        }
        let address = identifier.map(|identifier| keys::address(&entry.owner, event.kind(), identifier));
        let old = match address.as_ref().map(|address| self.place(event, address, now)).transpose()? {
            Some(Err(saved)) => return Ok(Err(saved)),
            Some(Ok(old)) => old,
            None => None,
        };
        if self.tables.is_reference_taken(&self.txn, entry, &self.vanishing, now)? {
            return Ok(Err(Saved::Refused(Refusal::ReferenceTaken)));
        }
        if let Some(address) = address {
            self.take_place(&address, old)?;
        }
        self.tables.put_package(&mut self.txn, entry, self.next)?;
        Ok(Ok(Marks::default()))
    }

    /// What the group is, where it is anything.
    fn standing(&mut self, group: &NostrGroupId) -> Result<Option<Standing>, Fail> {
        if let Some(standing) = self.standings.get(group) {
            return Ok(Some(*standing));
        }
        let standing = if self.tables.is_managed(&self.txn, group)? {
            Standing::Managed
        } else if self.tables.is_unlisted(&self.txn, group)? {
            Standing::Unlisted
        } else {
            return Ok(None);
        };
        self.remember(group, standing);
        Ok(Some(standing))
    }

    fn remember(&mut self, group: &NostrGroupId, standing: Standing) {
        if self.standings.len() >= STANDINGS_MAX {
            self.standings.clear();
        }
        self.standings.insert(group.clone(), standing);
    }

    fn may_send(&mut self, group: &NostrGroupId, keys: &[PublicKey], unlisted: bool) -> Result<bool, Fail> {
        match self.standing(group)? {
            Some(Standing::Managed) => self.has_member(group, keys),
            Some(Standing::Unlisted) | None => Ok(unlisted),
        }
    }

    fn group_message(&mut self, group: &NostrGroupId, epoch: SeenEpoch) -> Result<Marks, Fail> {
        let standing = self.standing(group)?;
        if standing.is_none() {
            self.tables.unlisted.put(&mut self.txn, group.as_str().as_bytes(), &[])?;
            self.remember(group, Standing::Unlisted);
        }
        if standing == Some(Standing::Managed) && epoch != SeenEpoch::Nowhere {
            let last = self.last_epoch(group)?;
            if let Some(next) = raised(last, epoch) {
                self.epochs.insert(group.clone(), next);
            }
        }
        Ok(Marks::default())
    }

    fn has_member(&self, group: &NostrGroupId, keys: &[PublicKey]) -> Result<bool, Fail> {
        for key in keys {
            if self.tables.is_member(&self.txn, group, key)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn last_epoch(&mut self, group: &NostrGroupId) -> Result<Option<u64>, Fail> {
        if let Some(last) = self.epochs.get(group) {
            return Ok(*last);
        }
        if let Some(last) = self.shared.epochs.lock().last(group) {
            return Ok(last);
        }
        let last = self.tables.group_record(&self.txn, group)?.and_then(|record| record.last_epoch);
        self.epochs.insert(group.clone(), last);
        Ok(last)
    }

    fn roster(&mut self, change: &RosterChange, now: UnixSecs) -> Result<Applied, Fail> {
        let status = self.tables.group_status(&self.txn, &change.group)?;
        match apply_roster(&status, change, now) {
            Ok(changed) => self.change(&change.group, changed, now).map(Ok),
            Err(refusal) => Ok(Err(Saved::Refused(refusal))),
        }
    }

    fn wrap(&mut self, change: &WrapChange, now: UnixSecs) -> Result<Applied, Fail> {
        // Only a group that wraps decide is worth reading whole.
        if self.tables.group_record(&self.txn, &change.group)?.is_some_and(|it| it.source != Source::GiftWrap) {
            return Ok(Ok(Marks::default()));
        }
        let status = self.tables.group_status(&self.txn, &change.group)?;
        let founded = match (&status, &change.founder) {
            (GroupStatus::Unknown, Some(founder)) => self.tables.founded_today(&self.txn, founder, now)?,
            _ => 0,
        };
        match apply_wrap(&status, change, founded, now) {
            // Anyone may wrap to anyone: it is delivered, and makes no more memberships than a reader can bear.
            Ok(Some(_)) if self.tables.is_in_groups(&self.txn, &change.recipient, WRAPPED_GROUPS_MAX)? => {
                Ok(Ok(Marks::default()))
            }
            Ok(Some(changed)) => self.change(&change.group, changed, now).map(Ok),
            Ok(None) => Ok(Ok(Marks::default())),
            Err(refusal) => Ok(Err(Saved::Refused(refusal))),
        }
    }

    /// Writes a change of a group.
    pub(super) fn change(&mut self, group: &NostrGroupId, mut changed: Changed, now: UnixSecs) -> Result<Marks, Fail> {
        changed.view.record.last_epoch = self.last_epoch(group)?;
        self.tables.put_change(&mut self.txn, group, &changed, self.next, now)?;
        self.remember(group, Standing::Managed);
        Ok(Marks::default())
    }

    /// Whether an event at `cursor` names a group that a wrap may have changed.
    pub(super) fn names_group(event: EventRef<'_>) -> bool {
        event.kind() == Kind::GIFT_WRAP && event.tags().value(name::GROUP).is_some()
    }
}
