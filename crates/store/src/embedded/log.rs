//! The log of events: found by cursor and by id, put and taken out with every entry that leads to them.

use std::collections::HashMap;

use heed::{PutFlags, RoTxn, RwTxn};
use nostr_extensions::{
    Sealed, Stamp,
    audience::{audience, recipients},
    mls_gateway::deletion::vanishes,
};
use nostr_protocol::{Event, EventId, EventRef, Kind, PublicKey, UnixSecs};

use super::{
    fail::Fail,
    keys::{self, AUTHOR_ONLY, ID_BYTES, Key, LOG_ONLY, Stored, cursor_bytes, cursors_from, number_from},
    tables::Tables,
};
use crate::Cursor;

impl Tables {
    /// The event at `cursor`, read in place.
    pub(super) fn event<'t>(&self, txn: &'t RoTxn<'_>, cursor: Cursor) -> Result<Option<Stored<'t>>, Fail> {
        self.events.get(txn, &cursor_bytes(cursor))?.map(Stored::read).transpose()
    }

    /// The event of this id, hidden or not.
    pub(super) fn find<'t>(
        &self,
        txn: &'t RoTxn<'_>,
        id: &EventId,
    ) -> Result<Option<(Cursor, Stored<'t>)>, Fail> {
        let Some(cursors) = self.ids.get(txn, &id.as_bytes()[..ID_BYTES])? else { return Ok(None) };
        for cursor in cursors_from(cursors) {
            let stored = self.event(txn, cursor)?.ok_or(Fail::Corrupt("an id leads to no event"))?;
            if stored.event.id() == *id {
                return Ok(Some((cursor, stored)));
            }
        }
        Ok(None)
    }

    /// The cursor of the last event in the log; 0 for none.
    pub(super) fn last_cursor(&self, txn: &RoTxn<'_>) -> Result<Cursor, Fail> {
        Ok(self.events.last(txn)?.map_or(0, |(key, _)| number_from(key)))
    }

    /// Puts an event behind all others, with the entries that lead to it.
    pub(super) fn put_event(
        &self,
        txn: &mut RwTxn<'_>,
        event: &Event,
        stamp: Stamp,
        flags: u8,
        scratch: &mut Vec<u8>,
    ) -> Result<Sealed, Fail> {
        let cursor = stamp.cursor;
        let sealed = Sealed::new(event.clone(), stamp);
        Stored::write(scratch, &stamp, flags, event.record());
        self.events.put_with_flags(txn, PutFlags::APPEND, &cursor_bytes(cursor), scratch)?;
        let id = event.id();
        let id_key = &id.as_bytes()[..ID_BYTES];
        if self.ids.get_or_put(txn, id_key, &cursor_bytes(cursor))?.is_some() {
            let mut cursors = self.ids.get(txn, id_key)?.unwrap_or_default().to_vec();
            cursors.extend_from_slice(&cursor_bytes(cursor));
            self.ids.put(txn, id_key, &cursors)?;
        }
        if flags & LOG_ONLY == 0 {
            keys::index_keys(event.view(), sealed.audience(), cursor, |key| Ok(self.index.put(txn, key, &[])?))?;
        }
        Ok(sealed)
    }

    /// Takes an event out with every entry that leads to it; `false` where there is none. Its entry in `expiry` stays
    /// and leads nowhere, as cursors are never used again.
    pub(super) fn remove_event(&self, txn: &mut RwTxn<'_>, cursor: Cursor) -> Result<bool, Fail> {
        let Some(value) = self.events.get(txn, &cursor_bytes(cursor))?.map(<[u8]>::to_vec) else { return Ok(false) };
        let stored = Stored::read(&value)?;
        let event = stored.event;
        let id = event.id();
        let id_key = &id.as_bytes()[..ID_BYTES];
        let others: Vec<u8> = cursors_from(self.ids.get(txn, id_key)?.unwrap_or_default())
            .filter(|other| *other != cursor)
            .flat_map(cursor_bytes)
            .collect();
        if others.is_empty() {
            self.ids.delete(txn, id_key)?;
        } else {
            self.ids.put(txn, id_key, &others)?;
        }
        if !stored.has(LOG_ONLY) {
            keys::index_keys(event, &stored.audience(), cursor, |key| {
                self.index.delete(txn, key)?;
                Ok(())
            })?;
        }
        if let Some(address) = keys::address_of(event)
            && self.addresses.get(txn, &address)? == Some(&cursor_bytes(cursor))
        {
            self.addresses.delete(txn, &address)?;
        }
        if event.kind().is_key_package() {
            self.remove_package(txn, &event.pubkey(), cursor)?;
        }
        self.events.delete(txn, &cursor_bytes(cursor))?;
        Ok(true)
    }

    /// The keys of `table` that begin with `prefix`, without it.
    pub(super) fn tails(table: super::tables::Table, txn: &RoTxn<'_>, prefix: &[u8]) -> Result<Vec<Vec<u8>>, Fail> {
        let mut tails = Vec::new();
        for entry in table.prefix_iter(txn, prefix)? {
            tails.push(entry?.0[prefix.len()..].to_vec());
        }
        Ok(tails)
    }
}

/// An event by value, sealed.
pub(super) fn seal(stored: Stored<'_>, cursor: Cursor) -> Result<Sealed, Fail> {
    let record = bytes::Bytes::copy_from_slice(stored.event.record());
    let event = Event::from_record(record).ok_or(Fail::Corrupt("an event's record is cut short"))?;
    Ok(Sealed::new(event, stored.stamp(cursor)))
}

/// Whether the event, as it is stored, is for everyone.
pub(super) fn is_public(stored: &Stored<'_>) -> bool {
    !stored.has(AUTHOR_ONLY) && audience(stored.event) == nostr_extensions::Audience::Everyone
}

/// Keys that vanished and whose events are not all gone yet, each with the time up to which they are to go.
#[derive(Clone, Debug, Default)]
pub(super) struct Vanishing(pub(super) HashMap<PublicKey, UnixSecs>);

impl Vanishing {
    /// Whether the event is gone for every reader, if not yet for the disk.
    pub(super) fn hides(&self, event: EventRef<'_>) -> bool {
        !self.0.is_empty() && vanished_at(event, |key| self.0.get(key).copied()).is_some()
    }
}

/// The key that takes `event` along, where `vanished` says when a key vanished. The request to vanish itself stays.
pub(super) fn vanished_at(
    event: EventRef<'_>,
    vanished: impl Fn(&PublicKey) -> Option<UnixSecs>,
) -> Option<PublicKey> {
    if event.kind() == Kind::VANISH {
        return None;
    }
    let takes = |key: &PublicKey| vanished(key).is_some_and(|at| vanishes(event, key, at));
    let author = event.pubkey();
    if takes(&author) {
        return Some(author);
    }
    match event.kind() {
        Kind::NOISE_DM | Kind::KEY_PACKAGE_REQUEST | Kind::GIFT_WRAP => recipients(event).into_iter().find(takes),
        _ => None,
    }
}

/// The key of a tombstone.
pub(super) fn tombstone(target: &EventId, deleter: &PublicKey) -> Key {
    Key::new().with(&target.as_bytes()[..16]).with(&deleter.as_bytes()[..16])
}
