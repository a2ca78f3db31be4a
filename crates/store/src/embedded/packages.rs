//! The directory of KeyPackages: each owner's KeyPackages, and the bytes that a reference names.
//!
//! Source: docs/rules.md, "KeyPackages".

use std::ops::Bound;

use heed::{RoTxn, RwTxn};
use nostr_extensions::mls_gateway::key_package::{DirectoryEntry, suite_of};
use nostr_protocol::{Kind, PublicKey, UnixSecs};

use super::{
    fail::Fail,
    keys::{Key, Stored, address_of, cursor_bytes, hash16, number_from},
    tables::Tables,
    vanished::Vanishing,
};
use crate::{
    Cursor, ExpiredPackage,
    decide::{
        claim::{Contents, Owned},
        keys as keys_of,
        lookup::{OWNED_MAX, OwnedPackage},
    },
    listing::successor,
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

    /// The first owners of KeyPackages behind a place. It looks at one row of each.
    pub(super) fn owners_after(
        &self,
        txn: &RoTxn<'_>,
        after: Option<&PublicKey>,
        most: usize,
    ) -> Result<Vec<PublicKey>, Fail> {
        let mut owners = Vec::new();
        let mut from = after.map_or(Some([0; 32]), successor);
        while let Some(first) = from.filter(|_| owners.len() < most) {
            let range = (Bound::Included(&first[..]), Bound::Unbounded);
            let Some(row) = self.packages.range(txn, &range)?.next() else { break };
            let owner = row?.0.first_chunk().ok_or(Fail::Corrupt("a KeyPackage has no owner"))?;
            let owner = PublicKey::from_bytes(*owner);
            from = successor(&owner);
            owners.push(owner);
        }
        Ok(owners)
    }

    /// Marks the KeyPackage event at `cursor` as one of last resort.
    pub(super) fn mark_last_resort(&self, txn: &mut RwTxn<'_>, owner: &PublicKey, cursor: Cursor) -> Result<(), Fail> {
        let key = owned(owner, cursor);
        let Some(mut value) = self.packages.get(txn, &key)?.map(<[u8]>::to_vec) else { return Ok(()) };
        if let Some(last_resort) = value.get_mut(48) {
            *last_resort = 1;
        }
        self.packages.put(txn, &key, &value)
    }

    /// The owner's KeyPackage events, from the oldest to the newest.
    pub(super) fn packages_of(
        &self,
        txn: &RoTxn<'_>,
        owner: &PublicKey,
        vanishing: &Vanishing,
        now: UnixSecs,
    ) -> Result<Vec<OwnedPackage<Cursor>>, Fail> {
        let mut packages = Vec::new();
        self.visit_packages(
            txn,
            &PackagesAt { owner, vanishing, now },
            |_, _| false,
            |Owned { cursor: at, id, content_hash, last_resort }, stored| {
                let (created_at, address) = (stored.event.created_at(), address_of(stored.event));
                packages.push(OwnedPackage { at, id, content_hash, last_resort, created_at, address });
                Ok(packages.len() < OWNED_MAX)
            },
        )?;
        Ok(packages)
    }

    /// The KeyPackage at `cursor`, if it expires without having been given.
    pub(super) fn expiring_package(&self, txn: &RoTxn<'_>, cursor: Cursor) -> Result<Option<ExpiredPackage>, Fail> {
        let Some(stored) = self.event(txn, cursor)? else { return Ok(None) };
        if stored.event.kind() != Kind::KEY_PACKAGE {
            return Ok(None);
        }
        let owner = stored.event.pubkey();
        let Some(value) = self.packages.get(txn, &owned(&owner, cursor))? else { return Ok(None) };
        let content_hash = value.get(16..48).and_then(|hash| hash.first_chunk()).copied();
        let fresh = content_hash.filter(|_| value.get(48) == Some(&0));
        Ok(fresh.map(|content_hash| ExpiredPackage { owner, content_hash, suite: suite_of(stored.event) }))
    }

    /// Cursors of all events with the bytes of one KeyPackage.
    pub(super) fn twins(&self, txn: &RoTxn<'_>, (owner, content): &keys_of::Claimed) -> Result<Vec<Cursor>, Fail> {
        let mut cursors = Vec::new();
        for found in self.packages.prefix_iter(txn, owner)? {
            let (key, value) = found?;
            if value.get(16..32) == Some(&content[..]) {
                cursors.push(number_from(key.get(32..).unwrap_or_default()));
            }
        }
        Ok(cursors)
    }

    /// Calls `visit` with each KeyPackage of an owner and its event, read in place, from the oldest to the newest and
    /// as long as `visit` returns true. It passes over those that have expired at `now` and those that `skips` names.
    pub(super) fn visit_packages(
        &self,
        txn: &RoTxn<'_>,
        of: &PackagesAt<'_>,
        skips: impl Fn(&[u8; 32], bool) -> bool,
        mut visit: impl FnMut(Owned, Stored<'_>) -> Result<bool, Fail>,
    ) -> Result<(), Fail> {
        for found in self.packages.prefix_iter(txn, of.owner.as_bytes())? {
            let (key, value) = found?;
            let cursor = number_from(&key[32..]);
            let (Some(content_hash), Some(last_resort)) =
                (value.get(16..48).and_then(|hash| hash.first_chunk()), value.get(48))
            else {
                return Err(Fail::Corrupt("a KeyPackage's entry is cut short"));
            };
            let (content_hash, last_resort) = (*content_hash, *last_resort == 1);
            if skips(&content_hash, last_resort) {
                continue;
            }
            let stored = self.package_event(txn, cursor)?;
            if stored.expires_at > of.now && !of.vanishing.hides(stored.event) {
                let owned = Owned { cursor, id: stored.event.id(), content_hash, last_resort };
                if !visit(owned, stored)? {
                    break;
                }
            }
        }
        Ok(())
    }

    pub(super) fn package_event<'t>(&self, txn: &'t RoTxn<'_>, cursor: Cursor) -> Result<Stored<'t>, Fail> {
        self.event(txn, cursor)?.ok_or(Fail::Corrupt("a KeyPackage has no event"))
    }

    /// The owner's KeyPackages, and whether one of them is a 30443.
    pub(super) fn contents(&self, txn: &RoTxn<'_>, of: &PackagesAt<'_>) -> Result<(Contents, bool), Fail> {
        let (mut contents, mut is_addressable, mut count) = (Contents::default(), false, 0);
        self.visit_packages(
            txn,
            of,
            |_, _| false,
            |owned, stored| {
                contents.add(owned.content_hash, owned.last_resort);
                is_addressable |= stored.event.kind() == Kind::ADDRESSABLE_KEY_PACKAGE;
                count += 1;
                Ok(count < OWNED_MAX)
            },
        )?;
        Ok((contents, is_addressable))
    }

    /// The numbers of an owner's KeyPackages.
    pub(super) fn count_packages(
        &self,
        txn: &RoTxn<'_>,
        owner: &PublicKey,
        vanishing: &Vanishing,
        now: UnixSecs,
    ) -> Result<crate::Stock, Fail> {
        Ok(self.contents(txn, &PackagesAt { owner, vanishing, now })?.0.stock())
    }
}

/// The KeyPackages of an owner at a time.
pub(super) struct PackagesAt<'a> {
    pub(super) owner: &'a PublicKey,
    pub(super) vanishing: &'a Vanishing,
    pub(super) now: UnixSecs,
}
