//! The embedded store's side of deciding: look-ups and changes in the open transaction.

use std::sync::Arc;

use nostr_extensions::{
    Admitted, GroupRecord, GroupStatus, NostrGroupId, Sealed, Source, Stamp,
    admit::NEVER,
    gate::Touches,
    mls_gateway::{
        group::{Changed, CommitLog, Invited},
        key_package::DirectoryEntry,
    },
};
use nostr_protocol::{Event, EventId, PublicKey, UnixSecs};

use super::{
    fail::Fail,
    keys::{AUTHOR_ONLY, CURSOR_MAX, Key, cursor_bytes, flags_of, number_from, pair},
    vanished::Vanished,
    write::Tx,
};
use crate::{
    Cursor,
    decide::{
        keys::{Address, Claimed, TombstoneKey},
        lookup::{AddressHolder, Apply, Lookup, Membership, OwnedPackage, Placement, StoredEvent},
    },
    weight::Weight,
};

impl Lookup for Tx<'_> {
    type Error = Fail;
    type At = Cursor;

    fn stored(&self, id: &EventId) -> Result<Option<(Cursor, UnixSecs)>, Fail> {
        Ok(self.find(id)?.map(|(at, stored)| (at, stored.expires_at)))
    }

    fn target(&self, id: &EventId) -> Result<Option<StoredEvent<'_, Cursor>>, Fail> {
        let found = self.find(id)?.filter(|(_, stored)| !self.vanishing.hides(stored.event));
        let Some((at, stored)) = found else { return Ok(None) };
        let told = self.tables.told(&self.txn, at, &stored)?;
        Ok(Some(StoredEvent {
            at,
            event: stored.event,
            author_only: stored.has(AUTHOR_ONLY),
            touches: told.unwrap_or_else(|| Touches::by_kind(stored.event)),
            expires_at: stored.expires_at,
            rows: Weight::of(stored.event).rows,
        }))
    }

    fn vanished(&self, key: &PublicKey) -> Result<Option<UnixSecs>, Fail> {
        // Few stores know of a vanished key, and to see that costs a third of a look-up.
        if self.tables.vanished.is_empty(&self.txn)? {
            return Ok(None);
        }
        let value = self.tables.vanished.get(&self.txn, key.as_bytes())?;
        Ok(value.map(Vanished::read).transpose()?.map(|vanished| vanished.at))
    }

    fn tombstone(&self, key: &TombstoneKey) -> Result<Option<bool>, Fail> {
        Ok(self.tables.tombstones.get(&self.txn, &pair(key))?.map(|value| value == [1]))
    }

    fn holder(&self, address: &Address) -> Result<Option<AddressHolder<Cursor>>, Fail> {
        let Some(at) = self.tables.addresses.get(&self.txn, address)?.map(number_from) else { return Ok(None) };
        let stored = self.tables.event(&self.txn, at)?.ok_or(Fail::Corrupt("an address leads to no event"))?;
        // A hidden event loses its address to the next one, and is removed by a sweep.
        if self.vanishing.hides(stored.event) {
            return Ok(None);
        }
        let (id, created_at) = (stored.event.id(), stored.event.created_at());
        let rows = Weight::of(stored.event).rows;
        Ok(Some(AddressHolder { at, id, created_at, expires_at: stored.expires_at, rows }))
    }

    fn address_tombstone(&self, address: &Address) -> Result<Option<UnixSecs>, Fail> {
        Ok(self.tables.address_tombstones.get(&self.txn, address)?.map(number_from))
    }

    fn is_claimed(&self, claimed: &Claimed) -> Result<bool, Fail> {
        Ok(self.tables.claimed.get(&self.txn, &pair(claimed))?.is_some())
    }

    fn is_reference_taken(&self, entry: &DirectoryEntry, now: UnixSecs) -> Result<bool, Fail> {
        self.tables.is_reference_taken(&self.txn, entry, &self.vanishing, now)
    }

    fn packages(&self, owner: &PublicKey, now: UnixSecs) -> Result<Vec<OwnedPackage<Cursor>>, Fail> {
        self.tables.packages_of(&self.txn, owner, &self.vanishing, now)
    }

    fn is_managed(&mut self, group: &NostrGroupId) -> Result<bool, Fail> {
        if let Some(is_managed) = self.known_groups.is_managed(group) {
            return Ok(is_managed);
        }
        let is_managed = self.tables.is_managed(&self.txn, group)?;
        if is_managed || self.tables.is_unlisted(&self.txn, group)? {
            self.known_groups.note(group, is_managed);
        }
        Ok(is_managed)
    }

    fn membership(&self, group: &NostrGroupId, key: &PublicKey) -> Result<Option<Membership>, Fail> {
        self.tables.membership(&self.txn, group, key)
    }

    fn last_epoch(&mut self, group: &NostrGroupId) -> Result<Option<u64>, Fail> {
        if let Some(last) = self.raised_epoch(group) {
            return Ok(last);
        }
        let last = self.tables.group_record(&self.txn, group)?.and_then(|record| record.last_epoch);
        self.epochs.insert(group.clone(), last);
        Ok(last)
    }

    fn record(&self, group: &NostrGroupId) -> Result<Option<GroupRecord>, Fail> {
        self.tables.group_record(&self.txn, group)
    }

    fn source(&self, group: &NostrGroupId) -> Result<Option<Source>, Fail> {
        Ok(self.tables.group_record(&self.txn, group)?.map(|record| record.source))
    }

    fn group(&self, group: &NostrGroupId) -> Result<GroupStatus, Fail> {
        let mut status = self.tables.group_status(&self.txn, group)?;
        if let GroupStatus::Managed(managed) = &mut status
            && let Some(last) = self.raised_epoch(group)
        {
            Arc::make_mut(managed).record.last_epoch = last;
        }
        Ok(status)
    }

    fn groups_of(&self, key: &PublicKey) -> Result<Vec<NostrGroupId>, Fail> {
        Ok(self.tables.groups_of(&self.txn, &[*key])?.into_iter().collect())
    }

    fn memberships(&self, key: &PublicKey) -> Result<usize, Fail> {
        self.tables.memberships_of(&self.txn, key)
    }

    fn first_to_give_way(&self, key: &PublicKey) -> Result<Option<(NostrGroupId, Invited)>, Fail> {
        self.tables.first_to_give_way(&self.txn, key)
    }

    fn invited_by(&self, inviter: &PublicKey) -> Result<u32, Fail> {
        self.tables.invited_by(&self.txn, inviter)
    }

    fn invitations(&self, member: &PublicKey, inviter: &PublicKey) -> Result<u32, Fail> {
        self.tables.invitations(&self.txn, member, inviter)
    }

    fn founded(&self, key: &PublicKey, now: UnixSecs) -> Result<u32, Fail> {
        self.tables.founded_today(&self.txn, key, now)
    }
}

impl Apply for Tx<'_> {
    type Put = Sealed;

    fn put(&mut self, event: &Event, placement: Placement<'_>) -> Result<Sealed, Fail> {
        let (cursor, meta) = (self.next, placement.meta);
        if cursor > CURSOR_MAX {
            return Err(Fail::Full);
        }
        if let Some(address) = &placement.address {
            self.tables.addresses.put(&mut self.txn, address, &cursor_bytes(cursor))?;
        }
        if let Some(entry) = &placement.package {
            self.tables.put_package(&mut self.txn, entry, cursor)?;
        }
        let (received_at, expires_at) = (meta.received_at, meta.expires_at);
        let stamp = Stamp { cursor, received_at, expires_at, author_only: meta.author_only };
        let (flags, recent, scratch) = (flags_of(&meta), &mut self.recent, &mut self.scratch);
        let sealed = self.tables.put_event(&mut self.txn, event, stamp, flags, recent, scratch)?;
        if let Some(told) = &meta.touches {
            self.tables.keep_touched(&mut self.txn, cursor, told)?;
        }
        if expires_at != NEVER {
            self.expiring.entry(expires_at).or_default().extend_from_slice(&cursor_bytes(cursor));
        }
        self.next += 1;
        self.rows += Weight::of(event.view()).rows;
        Ok(sealed.touching(meta.touches))
    }

    fn put_ephemeral(&mut self, admitted: &Admitted) -> Result<Sealed, Fail> {
        let stamp = Stamp {
            cursor: self.next,
            received_at: admitted.received_at(),
            expires_at: admitted.expires_at(),
            author_only: false,
        };
        self.next += 1;
        Ok(Sealed::new(admitted.event().clone(), stamp))
    }

    fn remove(&mut self, at: Cursor, _: &EventId) -> Result<(), Fail> {
        self.remove_event(at).map(drop)
    }

    fn bury(&mut self, key: &TombstoneKey, public: bool) -> Result<(), Fail> {
        self.tables.tombstones.put(&mut self.txn, &pair(key), &[u8::from(public)])
    }

    fn bury_address(&mut self, address: &Address, until: UnixSecs) -> Result<(), Fail> {
        self.tables.address_tombstones.put(&mut self.txn, address, &until.to_be_bytes())
    }

    fn vanish(&mut self, key: &PublicKey, until: UnixSecs) -> Result<(), Fail> {
        let vanished = Vanished { at: until, until: self.next, searched: 0 };
        self.tables.vanished.put(&mut self.txn, key.as_bytes(), &vanished.bytes())?;
        Arc::make_mut(&mut self.vanishing).0.insert(*key, until);
        Ok(())
    }

    fn claim(&mut self, claimed: &Claimed) -> Result<(), Fail> {
        self.tables.claimed.put(&mut self.txn, &pair(claimed), &[])?;
        for cursor in self.tables.twins(&self.txn, claimed)? {
            self.remove_event(cursor)?;
        }
        Ok(())
    }

    fn act(&mut self, group: &NostrGroupId, key: &PublicKey, was: &Invited) -> Result<(), Fail> {
        self.tables.act(&mut self.txn, group, key, was)
    }

    fn give_way(&mut self, group: &NostrGroupId, key: &PublicKey, _: &Invited) -> Result<(), Fail> {
        self.tables.remove_member(&mut self.txn, group, key)
    }

    fn change_group(&mut self, group: &NostrGroupId, changed: Changed, now: UnixSecs) -> Result<(), Fail> {
        self.tables.put_change(&mut self.txn, group, &changed, self.next, now)?;
        self.known_groups.note(group, true);
        Ok(())
    }

    fn raise_epoch(&mut self, group: &NostrGroupId, epoch: u64) -> Result<(), Fail> {
        self.epochs.insert(group.clone(), Some(epoch));
        Ok(())
    }

    fn set_commits(&mut self, group: &NostrGroupId, commits: Option<CommitLog>) -> Result<(), Fail> {
        let record = self.tables.group_record(&self.txn, group)?;
        let record = record.ok_or(Fail::Corrupt("a group with commits has no record"))?;
        self.tables.put_group_record(&mut self.txn, group, &GroupRecord { commits, ..record })
    }

    fn mark_unlisted(&mut self, group: &NostrGroupId) -> Result<bool, Fail> {
        if self.known_groups.is_managed(group) == Some(false) {
            return Ok(false);
        }
        self.tables.unlisted.put_new(&mut self.txn, group.as_str().as_bytes(), &[])
    }

    fn count_founding(&mut self, key: &PublicKey, at: UnixSecs) -> Result<(), Fail> {
        let key = Key::new().with(key.as_bytes()).with(&at.to_be_bytes()).with(&self.next.to_be_bytes());
        self.tables.founded.put(&mut self.txn, &key, &[])?;
        // A place in the log of its own tells foundings of one second apart.
        self.next += 1;
        Ok(())
    }
}
