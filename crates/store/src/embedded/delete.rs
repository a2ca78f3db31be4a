//! What a key takes back: deletions by name and by address, and vanishing.
//!
//! Source: NIP-09, NIP-62; decisions, "Deletion". A deletion that comes before its target leaves a tombstone, which is
//! checked when the target arrives.

use std::sync::Arc;

use nostr_extensions::{
    GroupStatus,
    mls_gateway::{
        deletion::{Deletion, may_delete},
        group::{Refusal, apply_vanish, leaves_groups},
    },
};
use nostr_protocol::{EventId, EventRef, Kind, PublicKey, UnixSecs, tag::name};

use super::{
    fail::Fail,
    keys::{self, Key, cursor_bytes, number_from},
    log::{is_public, tombstone},
    write::{Applied, Marks, Tx},
};
use crate::{Cursor, Saved};

/// What one target of a deletion is.
pub(super) enum Target {
    /// The deleter's to take back.
    Own { cursor: Cursor, public: bool, touches_groups: bool },
    /// Stored, and not to be taken back by this key.
    Others { public: bool },
    /// A group message or roster of the deleter.
    Undeletable,
    /// Taken back before.
    Buried { public: bool },
    /// Never seen.
    Unknown,
}

/// The record of a key that vanished.
#[derive(Clone, Copy)]
pub(super) struct Vanished {
    pub(super) at: UnixSecs,
    /// The log is to be searched up to here, exclusive.
    pub(super) until: Cursor,
    /// It has been searched up to here, exclusive.
    pub(super) searched: Cursor,
}

impl Vanished {
    pub(super) fn read(value: &[u8]) -> Result<Self, Fail> {
        if value.len() != 20 {
            return Err(Fail::Corrupt("a vanished key's record is cut short"));
        }
        Ok(Self {
            at: number_from(&value[..8]),
            until: number_from(&value[8..14]),
            searched: number_from(&value[14..]),
        })
    }

    pub(super) fn bytes(self) -> Key {
        Key::new().with(&self.at.to_be_bytes()).with(&cursor_bytes(self.until)).with(&cursor_bytes(self.searched))
    }

    pub(super) const fn is_pending(self) -> bool {
        self.searched < self.until
    }
}

impl Tx<'_> {
    pub(super) fn delete(&mut self, event: EventRef<'_>, deletion: &Deletion) -> Result<Applied, Fail> {
        let mut targets = Vec::with_capacity(deletion.ids.len());
        for id in &deletion.ids {
            let target = self.target(id, &deletion.by)?;
            if matches!(target, Target::Undeletable) {
                return Ok(Err(Saved::Refused(Refusal::Undeletable)));
            }
            targets.push((id, target));
        }
        // An address of another author is no target, and nothing is known of it here.
        let foreign = event.tags().named(name::ADDRESS).count() > deletion.addresses.len();
        let mut marks = Marks { author_only: foreign, touches_groups: false };
        for (id, target) in targets {
            match target {
                Target::Own { cursor, public, touches_groups } => {
                    marks.author_only |= !public;
                    marks.touches_groups |= touches_groups;
                    self.bury(id, &deletion.by, public)?;
                    self.tables.remove_event(&mut self.txn, &mut self.ids, cursor)?;
                }
                Target::Others { public } | Target::Buried { public } => marks.author_only |= !public,
                Target::Undeletable | Target::Unknown => {
                    marks.author_only = true;
                    self.bury(id, &deletion.by, false)?;
                }
            }
        }
        for (kind, identifier) in &deletion.addresses {
            let address = keys::address(&deletion.by, *kind, identifier);
            marks.author_only |= !self.delete_address(&address, event.created_at())?;
        }
        Ok(Ok(marks))
    }

    pub(super) fn target(&self, id: &EventId, by: &PublicKey) -> Result<Target, Fail> {
        let found = self.find(id)?.filter(|(_, stored)| !self.vanishing.hides(stored.event));
        let Some((cursor, stored)) = found else {
            let tombstone = self.tables.tombstones.get(&self.txn, &tombstone(id, by))?;
            return Ok(tombstone.map_or(Target::Unknown, |value| Target::Buried { public: value == [1] }));
        };
        let public = is_public(&stored);
        let event = stored.event;
        Ok(match event.kind() {
            Kind::GROUP_MESSAGE | Kind::ROSTER if event.pubkey() == *by => Target::Undeletable,
            // Taking back a deletion or a request to vanish has no effect (NIP-09, NIP-62).
            Kind::DELETION | Kind::VANISH => Target::Others { public },
            _ if may_delete(event, by) => Target::Own { cursor, public, touches_groups: Self::names_group(event) },
            _ => Target::Others { public },
        })
    }

    pub(super) fn bury(&mut self, id: &EventId, by: &PublicKey, public: bool) -> Result<(), Fail> {
        Ok(self.tables.tombstones.put(&mut self.txn, &tombstone(id, by), &[u8::from(public)])?)
    }

    /// Removes the versions of an address up to `at`, for good; says whether anything was known of the address.
    pub(super) fn delete_address(&mut self, address: &[u8], at: UnixSecs) -> Result<bool, Fail> {
        let before = self.tables.address_tombstones.get(&self.txn, address)?.map(number_from);
        let cursor = self.tables.addresses.get(&self.txn, address)?.map(number_from);
        let mut hidden = false;
        if let Some(cursor) = cursor {
            let stored = self.tables.event(&self.txn, cursor)?.ok_or(Fail::Corrupt("an address leads to no event"))?;
            hidden = self.vanishing.hides(stored.event);
            if stored.event.created_at() <= at {
                self.tables.remove_event(&mut self.txn, &mut self.ids, cursor)?;
            }
        }
        if before.is_none_or(|before| before < at) {
            self.tables.address_tombstones.put(&mut self.txn, address, &at.to_be_bytes())?;
        }
        Ok(before.is_some() || (cursor.is_some() && !hidden))
    }

    /// When a key vanished, where it did.
    pub(super) fn vanished_secs(&self, key: &PublicKey) -> Result<Option<UnixSecs>, Fail> {
        let value = self.tables.vanished.get(&self.txn, key.as_bytes())?;
        Ok(value.map(Vanished::read).transpose()?.map(|vanished| vanished.at))
    }

    /// Marks the key as vanished up to `at`, which hides its events from now on; whether it was not.
    pub(super) fn take_along(&mut self, key: PublicKey, at: UnixSecs) -> Result<bool, Fail> {
        let is_new = self.vanished_secs(&key)?.is_none_or(|before| before < at);
        if is_new {
            let vanished = Vanished { at, until: self.next, searched: 0 };
            self.tables.vanished.put(&mut self.txn, key.as_bytes(), &vanished.bytes())?;
            Arc::make_mut(&mut self.vanishing).0.insert(key, at);
        }
        Ok(is_new)
    }

    /// Marks the key as vanished, and takes it out of its groups.
    pub(super) fn vanish(&mut self, event: EventRef<'_>, now: UnixSecs) -> Result<Applied, Fail> {
        let key = event.pubkey();
        let at = event.created_at();
        self.take_along(key, at)?;
        if !leaves_groups(at, now) {
            return Ok(Ok(Marks::default()));
        }
        for group in self.tables.groups_of(&self.txn, &[key])? {
            let GroupStatus::Managed(view) = self.tables.group_status(&self.txn, &group)? else { continue };
            if let Some(changed) = apply_vanish(&view, &key) {
                self.change(&group, changed, now)?;
            }
        }
        Ok(Ok(Marks::default()))
    }
}
