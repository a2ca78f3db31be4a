//! The directory of KeyPackages: what an owner has, which bytes a reference names, and claims.
//!
//! Source: decisions, "KeyPackages".

use heed::{RoTxn, RwTxn};
use nostr_extensions::{Sealed, mls_gateway::key_package::DirectoryEntry};
use nostr_protocol::{PublicKey, UnixSecs};

use super::{
    fail::Fail,
    ids::IdChanges,
    keys::{Key, cursor_bytes, hash16, number_from},
    log::{Vanishing, seal, tombstone},
    tables::Tables,
};
use crate::Cursor;

/// One KeyPackage event.
struct Package {
    cursor: Cursor,
    content: [u8; 32],
    last_resort: bool,
}

fn owned(owner: &PublicKey, cursor: Cursor) -> Key {
    Key::new().with(owner.as_bytes()).with(&cursor_bytes(cursor))
}

fn named(owner: &PublicKey, reference: &[u8]) -> Key {
    Key::new().with(owner.as_bytes()).with(reference)
}

fn claimed(owner: &PublicKey, content: &[u8; 32]) -> Key {
    Key::new().with(&owner.as_bytes()[..16]).with(&content[..16])
}

impl Tables {
    /// Whether the KeyPackage was claimed, in this event or in a twin.
    pub(super) fn is_claimed(&self, txn: &RoTxn<'_>, entry: &DirectoryEntry) -> Result<bool, Fail> {
        Ok(self.claimed.get(txn, &claimed(&entry.owner, &entry.content_hash))?.is_some())
    }

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

    /// See [`crate::Store::claim_key_packages`].
    pub(super) fn claim(
        &self,
        txn: &mut RwTxn<'_>,
        ids: &mut IdChanges<'_>,
        owner: &PublicKey,
        packages_max: usize,
        vanishing: &Vanishing,
        now: UnixSecs,
    ) -> Result<Vec<Sealed>, Fail> {
        let all = self.packages_of(txn, owner, vanishing, now)?;
        let mut contents = std::collections::HashSet::new();
        let mut distinct: Vec<&Package> = all.iter().filter(|package| contents.insert(&package.content)).collect();
        let mut left = distinct.len();
        // Oldest first, and what is of last resort after all that is not.
        distinct.sort_by_key(|package| package.last_resort);
        let mut given = Vec::new();
        for package in distinct.into_iter().take(packages_max) {
            let stored = self.event(txn, package.cursor)?.ok_or(Fail::Corrupt("a KeyPackage has no event"))?;
            given.push(seal(stored, package.cursor)?);
            if package.last_resort || left == 1 {
                continue;
            }
            left -= 1;
            self.claimed.put(txn, &claimed(owner, &package.content), &[])?;
            for twin in all.iter().filter(|twin| twin.content == package.content) {
                let stored = self.event(txn, twin.cursor)?.ok_or(Fail::Corrupt("a KeyPackage has no event"))?;
                let id = stored.event.id();
                self.tombstones.put(txn, &tombstone(&id, owner), &[1])?;
                self.remove_event(txn, ids, twin.cursor)?;
            }
        }
        Ok(given)
    }

    /// What an owner has to give at `now`, oldest first.
    fn packages_of(
        &self,
        txn: &RoTxn<'_>,
        owner: &PublicKey,
        vanishing: &Vanishing,
        now: UnixSecs,
    ) -> Result<Vec<Package>, Fail> {
        let mut packages = Vec::new();
        for found in self.packages.prefix_iter(txn, owner.as_bytes())? {
            let (key, value) = found?;
            let cursor = number_from(&key[32..]);
            let (Some(content), Some(last_resort)) =
                (value.get(16..48).and_then(|hash| hash.first_chunk()), value.get(48))
            else {
                return Err(Fail::Corrupt("a KeyPackage's entry is cut short"));
            };
            let stored = self.event(txn, cursor)?.ok_or(Fail::Corrupt("a KeyPackage has no event"))?;
            if stored.expires_at > now && !vanishing.hides(stored.event) {
                packages.push(Package { cursor, content: *content, last_resort: *last_resort == 1 });
            }
        }
        Ok(packages)
    }
}
