//! The directory of KeyPackages: each owner's KeyPackages, the bytes that a reference names, and claims.
//!
//! Source: docs/rules.md, "KeyPackages".

use heed::{RoTxn, RwTxn};
use nostr_extensions::{Sealed, mls_gateway::key_package::DirectoryEntry};
use nostr_protocol::{PublicKey, UnixSecs};

use super::{
    fail::Fail,
    keys::{Key, Stored, cursor_bytes, hash16, number_from, pair},
    log::seal,
    tables::Tables,
    vanished::Vanishing,
    write::Tx,
};
use crate::{
    Cursor,
    decide::{
        claim::{Owned, claim},
        keys::{Claimed, claimed, tombstone_key},
        lookup::Apply as _,
    },
};

fn owned(owner: &PublicKey, cursor: Cursor) -> Key {
    Key::new().with(owner.as_bytes()).with(&cursor_bytes(cursor))
}

fn named(owner: &PublicKey, reference: &[u8]) -> Key {
    Key::new().with(owner.as_bytes()).with(reference)
}

impl Tables {
    /// Whether the entry's reference names other bytes of its owner at `now`.
    pub(super) fn is_reference_taken(
        &self,
        txn: &RoTxn<'_>,
        entry: &DirectoryEntry,
        vanishing: &Vanishing,
        now: UnixSecs,
    ) -> Result<bool, Fail> {
        let Some(reference) = &entry.reference else { return Ok(false) };
        let prefix = named(&entry.owner, &hash16(reference.as_bytes()));
        for found in self.references.prefix_iter(txn, &prefix)? {
            let (key, content) = found?;
            if content == entry.content_hash {
                continue;
            }
            let stored = self.event(txn, number_from(&key[prefix.len()..]))?;
            if stored.is_some_and(|stored| stored.expires_at > now && !vanishing.hides(stored.event)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn put_package(&self, txn: &mut RwTxn<'_>, entry: &DirectoryEntry, cursor: Cursor) -> Result<(), Fail> {
        // An owner's KeyPackages without references share one hash here; nothing is checked by it.
        let reference = hash16(entry.reference.as_deref().unwrap_or_default().as_bytes());
        let value = Key::new().with(&reference).with(&entry.content_hash).with(&[u8::from(entry.last_resort)]);
        self.packages.put(txn, &owned(&entry.owner, cursor), &value)?;
        if entry.reference.is_some() {
            let key = named(&entry.owner, &reference).with(&cursor_bytes(cursor));
            self.references.put(txn, &key, &entry.content_hash)?;
        }
        Ok(())
    }

    pub(super) fn remove_package(&self, txn: &mut RwTxn<'_>, owner: &PublicKey, cursor: Cursor) -> Result<(), Fail> {
        let key = owned(owner, cursor);
        let Some(reference) = self.packages.get(txn, &key)?.and_then(|value| value.first_chunk::<16>()).copied() else {
            return Ok(());
        };
        self.packages.delete(txn, &key)?;
        self.references.delete(txn, &named(owner, &reference).with(&cursor_bytes(cursor)))?;
        Ok(())
    }

    /// Cursors of all events with the bytes of one KeyPackage.
    pub(super) fn twins(&self, txn: &RoTxn<'_>, (owner, content): &Claimed) -> Result<Vec<Cursor>, Fail> {
        let mut cursors = Vec::new();
        for found in self.packages.prefix_iter(txn, owner)? {
            let (key, value) = found?;
            if value.get(16..32) == Some(&content[..]) {
                cursors.push(number_from(key.get(32..).unwrap_or_default()));
            }
        }
        Ok(cursors)
    }

    /// The KeyPackages of an owner that have not expired at `now`, oldest first.
    fn packages_of(
        &self,
        txn: &RoTxn<'_>,
        owner: &PublicKey,
        vanishing: &Vanishing,
        now: UnixSecs,
    ) -> Result<Vec<Owned>, Fail> {
        let mut packages = Vec::new();
        for found in self.packages.prefix_iter(txn, owner.as_bytes())? {
            let (key, value) = found?;
            let cursor = number_from(&key[32..]);
            let (Some(content_hash), Some(last_resort)) =
                (value.get(16..48).and_then(|hash| hash.first_chunk()), value.get(48))
            else {
                return Err(Fail::Corrupt("a KeyPackage's entry is cut short"));
            };
            let stored = self.package_event(txn, cursor)?;
            if stored.expires_at > now && !vanishing.hides(stored.event) {
                let (content_hash, last_resort) = (*content_hash, *last_resort == 1);
                packages.push(Owned { cursor, id: stored.event.id(), content_hash, last_resort });
            }
        }
        Ok(packages)
    }

    fn package_event<'t>(&self, txn: &'t RoTxn<'_>, cursor: Cursor) -> Result<Stored<'t>, Fail> {
        self.event(txn, cursor)?.ok_or(Fail::Corrupt("a KeyPackage has no event"))
    }
}

impl Tx<'_> {
    /// See [`crate::Store::claim_key_packages`].
    pub(super) fn claim_key_packages(
        &mut self,
        owner: &PublicKey,
        packages_max: usize,
        now: UnixSecs,
    ) -> Result<Vec<Sealed>, Fail> {
        let claim = claim(&self.tables.packages_of(&self.txn, owner, &self.vanishing, now)?, packages_max);
        let mut given = Vec::with_capacity(claim.given.len());
        for cursor in claim.given {
            given.push(seal(self.tables.package_event(&self.txn, cursor)?, cursor)?);
        }
        for content_hash in &claim.used {
            self.tables.claimed.put(&mut self.txn, &pair(&claimed(owner, content_hash)), &[])?;
        }
        for (cursor, id) in &claim.gone {
            self.bury(&tombstone_key(id, owner), true)?;
            self.remove(*cursor, id)?;
        }
        Ok(given)
    }
}
