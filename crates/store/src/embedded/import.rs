//! Everything in: records of an export, in one transaction.

use nostr_extensions::{
    Effect, GroupStatus, ManagedGroup, NostrGroupId, Restored,
    mls_gateway::{deletion::Deletion, group::Changed},
};
use nostr_protocol::{PublicKey, UnixSecs};

use super::{
    delete::Target,
    fail::Fail,
    keys::{Key, address, number_from},
    tables::Tables,
    write::{Marks, Tx},
};
use crate::{
    Cursor,
    decide::restore::{delta, new_unless, refused},
    index::Front,
    moving::{Imported, Record, foundings_missing, merge_group},
};

impl Tx<'_> {
    /// Writes one record; on an error the transaction is to be given up.
    pub(super) fn import(&mut self, record: &Record<Restored>, now: UnixSecs) -> Result<Imported, Fail> {
        Ok(match record {
            Record::Vanished { key, at } => new_unless(!self.take_along(*key, *at)?),
            Record::Tombstone { target, deleter, public } => {
                let key = Key::new().with(target).with(deleter);
                let known = self.tables.tombstones.get(&self.txn, &key)?.is_some();
                if !known {
                    self.tables.tombstones.put(&mut self.txn, &key, &[u8::from(*public)])?;
                }
                new_unless(known)
            }
            Record::AddressTombstone { address, until } => {
                let here = self.tables.address_tombstones.get(&self.txn, address)?.map(number_from);
                let known = here.is_some_and(|here| here >= *until);
                if !known {
                    self.delete_address(address, *until)?;
                }
                new_unless(known)
            }
            Record::Claimed { owner, content } => new_unless(!self.claimed_elsewhere(owner, content)?),
            Record::Founded { key, at } => {
                let here = self.tables.founded_today(&self.txn, key, now)? as usize;
                let missing = foundings_missing(here, at, now);
                for at in &missing {
                    self.tables.put_founded(&mut self.txn, key, *at, self.next)?;
                    // A place in the log of its own tells foundings of one second apart.
                    self.next += 1;
                }
                new_unless(missing.is_empty())
            }
            Record::Unlisted(group) => {
                let known = self.tables.is_unlisted(&self.txn, group)?;
                self.tables.unlisted.put(&mut self.txn, group.as_str().as_bytes(), &[])?;
                self.standings.remove(group);
                new_unless(known)
            }
            Record::Group { id, view } => self.import_group(id, view, now)?,
            Record::Event(restored) => self.restore(restored, now)?,
        })
    }

    fn import_group(&mut self, id: &NostrGroupId, given: &ManagedGroup, now: UnixSecs) -> Result<Imported, Fail> {
        let status = self.tables.group_status(&self.txn, id)?;
        let mut here = match status {
            GroupStatus::Managed(view) => Some(ManagedGroup::clone(&view)),
            GroupStatus::Unlisted | GroupStatus::Unknown => None,
        };
        if let Some(here) = &mut here {
            here.record.last_epoch = self.last_epoch(id)?;
        }
        let (imported, view) = merge_group(here.as_ref(), given);
        if matches!(imported, Imported::New | Imported::Replaced) {
            if let Some(epoch) = view.record.last_epoch {
                self.epochs.insert(id.clone(), Some(epoch));
            }
            let delta = delta(here.as_ref(), &view);
            self.change(id, Changed { view, delta, founder: None }, now)?;
        }
        Ok(imported)
    }

    /// Marks a KeyPackage as claimed, and removes it; whether it was not.
    fn claimed_elsewhere(&mut self, owner: &Front, content: &Front) -> Result<bool, Fail> {
        let key = Key::new().with(owner).with(content);
        if self.tables.claimed.get(&self.txn, &key)?.is_some() {
            return Ok(false);
        }
        self.tables.claimed.put(&mut self.txn, &key, &[])?;
        let mut gone: Vec<Cursor> = Vec::new();
        for found in self.tables.packages.prefix_iter(&self.txn, owner)? {
            let (key, value) = found?;
            if value.get(16..32) == Some(&content[..]) {
                gone.push(number_from(key.get(32..).unwrap_or_default()));
            }
        }
        for cursor in gone {
            self.tables.remove_event(&mut self.txn, &mut self.ids, cursor)?;
        }
        Ok(true)
    }

    fn restore(&mut self, restored: &Restored, now: UnixSecs) -> Result<Imported, Fail> {
        let (event, kept) = (restored.event().view(), restored.meta());
        if kept.expires_at <= now {
            return Ok(Imported::Expired);
        }
        if let Some((_, stored)) = self.find(&event.id())?
            && !self.vanishing.hides(stored.event)
        {
            return Ok(Imported::Unchanged);
        }
        if self.is_gone(event)? {
            return Ok(Imported::Deleted);
        }
        let applied = match restored.effect() {
            Effect::Replace { identifier } => self.replace(event, identifier, now)?,
            Effect::KeyPackage { entry, identifier } => self.key_package(event, entry, identifier.as_deref(), now)?,
            Effect::Delete(deletion) => Ok(self.take_back(event.created_at(), deletion)?),
            Effect::Vanish => {
                self.take_along(event.pubkey(), event.created_at())?;
                Ok(Marks::default())
            }
            Effect::None | Effect::GroupMessage { .. } | Effect::Roster(_) | Effect::Wrap(_) => Ok(Marks::default()),
        };
        let marks = match applied {
            Ok(marks) => marks,
            Err(saved) => return Ok(refused(&saved)),
        };
        let marks =
            Marks { author_only: kept.author_only, touches_groups: marks.touches_groups || kept.touches_groups };
        self.put(restored.event(), kept.received_at, kept.expires_at, kept.log_only, marks)?;
        Ok(Imported::New)
    }

    /// What a deletion does where it was not published: what it took back elsewhere goes here too, and nothing refuses it.
    /// What is not here has its tombstone as a record of its own.
    fn take_back(&mut self, at: UnixSecs, deletion: &Deletion) -> Result<Marks, Fail> {
        let by = deletion.by;
        let mut marks = Marks::default();
        for id in &deletion.ids {
            if let Target::Own { cursor, public, touches_groups } = self.target(id, &by)? {
                marks.touches_groups |= touches_groups;
                self.bury(id, &by, public)?;
                self.tables.remove_event(&mut self.txn, &mut self.ids, cursor)?;
            }
        }
        for (kind, identifier) in &deletion.addresses {
            self.delete_address(&address(&by, *kind, identifier), at)?;
        }
        Ok(marks)
    }
}

impl Tables {
    /// Counts a founding at a place in the log.
    pub(super) fn put_founded(
        &self,
        txn: &mut heed::RwTxn<'_>,
        founder: &PublicKey,
        at: UnixSecs,
        cursor: Cursor,
    ) -> Result<(), Fail> {
        let key = Key::new().with(founder.as_bytes()).with(&at.to_be_bytes()).with(&cursor.to_be_bytes());
        Ok(self.founded.put(txn, &key, &[])?)
    }
}
