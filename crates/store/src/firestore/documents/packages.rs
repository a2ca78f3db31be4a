//! The directory of KeyPackages: one document for each owner, so that concurrent claims and additions conflict.
//!
//! Source: docs/rules.md, "KeyPackages".

use gcloud_sdk::google::firestore::v1::{Document, Write};
use nostr_protocol::{EventId, Kind, PublicKey, UnixSecs};

use crate::{
    decide::ledger::Ledger,
    firestore::{
        documents::names::Names,
        wire::{
            fail::Fail,
            value::{self, Fields, ReadFields as _, Unpack, Version},
        },
    },
    index::{Address, address_of_hash},
};

/// Most KeyPackages of one owner, so that the document can hold them.
pub(crate) const PACKAGES_MAX: usize = 5_000;

/// One KeyPackage event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) id: EventId,
    pub(crate) content_hash: [u8; 32],
    pub(crate) reference: Option<[u8; 16]>,
    pub(crate) last_resort: bool,
    /// Whether it is a 30443.
    pub(crate) is_addressable: bool,
    /// The hash of its `d`, if it is a 30443. Entries of older releases lack it.
    pub(crate) slot: Option<[u8; 16]>,
    pub(crate) created_at: UnixSecs,
    pub(crate) expires_at: UnixSecs,
}

impl Package {
    /// The address that the event of this owner holds.
    pub(crate) fn address(&self, owner: &PublicKey) -> Option<Address> {
        self.slot.map(|slot| address_of_hash(owner, Kind::ADDRESSABLE_KEY_PACKAGE, &slot))
    }
}

/// The KeyPackages of an owner, in the order of the log.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    pub(crate) version: Version,
    pub(crate) packages: Vec<Package>,
    pub(crate) ledger: Ledger,
    changed: bool,
}

impl Directory {
    /// Reads a document; without one, an empty directory.
    pub(crate) fn read(document: Option<&Document>) -> Result<Self, Fail> {
        let packed = document.and_then(|document| document.bytes("packages")).unwrap_or_default();
        let packages = unpack(packed).ok_or(Fail::Damaged("an owner's KeyPackages"))?;
        let ledger = document.and_then(|document| document.bytes("ledger")).unwrap_or_default();
        let ledger = Ledger::unpack(ledger).ok_or(Fail::Damaged("an owner's ledger"))?;
        Ok(Self { version: Version::of(document), packages, ledger, changed: false })
    }

    /// Has the ledger, or a mark of a KeyPackage, be written.
    pub(crate) const fn note_change(&mut self) {
        self.changed = true;
    }

    /// Marks the events with these bytes as ones of last resort.
    pub(crate) fn mark_last_resort(&mut self, content_hash: &[u8; 32]) {
        for package in self.packages.iter_mut().filter(|package| package.content_hash == *content_hash) {
            package.last_resort = true;
        }
        self.changed = true;
    }

    pub(crate) fn add(&mut self, package: Package) {
        self.packages.push(package);
        self.changed = true;
    }

    /// Keeps the KeyPackages for which `keep` holds.
    pub(crate) fn retain(&mut self, keep: impl Fn(&Package) -> bool) {
        let before = self.packages.len();
        self.packages.retain(keep);
        self.changed |= self.packages.len() < before;
    }

    /// The write that stores a changed directory, without KeyPackages that have expired at `now`.
    pub(crate) fn write(&mut self, names: &Names, owner: &PublicKey, now: UnixSecs) -> Result<Option<Write>, Fail> {
        if !self.changed {
            return Ok(None);
        }
        self.packages.retain(|package| package.expires_at > now);
        if self.packages.len() > PACKAGES_MAX {
            return Err(Fail::Invalid(format!("an owner has at most {PACKAGES_MAX} KeyPackages")));
        }
        let name = names.owner(owner);
        let has_ledger = self.ledger.until(now).is_some();
        Ok(Some(match (self.packages.is_empty() && !has_ledger, self.version) {
            (true, Version::Absent) => return Ok(None),
            (true, state) => value::delete_expected(name, state),
            (false, state) => {
                let mut fields = Fields::default().bytes("packages", pack(&self.packages));
                if has_ledger {
                    fields = fields.bytes("ledger", self.ledger.pack());
                }
                value::put(name, fields, state)
            }
        }))
    }
}

fn pack(packages: &[Package]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(packages.len() * 113);
    for package in packages {
        packed.extend_from_slice(package.id.as_bytes());
        packed.extend_from_slice(&package.content_hash);
        let flags = [package.last_resort, package.reference.is_some(), package.is_addressable, package.slot.is_some()];
        packed.push(flags.iter().rev().fold(0, |flags, flag| flags << 1 | u8::from(*flag)));
        packed.extend_from_slice(&package.reference.unwrap_or_default());
        packed.extend_from_slice(&package.created_at.to_be_bytes());
        packed.extend_from_slice(&package.expires_at.to_be_bytes());
        packed.extend(package.slot.into_iter().flatten());
    }
    packed
}

fn unpack(packed: &[u8]) -> Option<Vec<Package>> {
    let mut left = Unpack(packed);
    let mut packages = Vec::new();
    while !left.is_empty() {
        let id = EventId::from_bytes(left.array()?);
        let content_hash = left.array()?;
        let flags = left.byte()?;
        let reference = left.array()?;
        packages.push(Package {
            id,
            content_hash,
            reference: (flags & 2 != 0).then_some(reference),
            last_resort: flags & 1 != 0,
            is_addressable: flags & 4 != 0,
            created_at: left.u64()?,
            expires_at: left.u64()?,
            slot: if flags & 8 != 0 { Some(left.array()?) } else { None },
        });
    }
    Some(packages)
}
