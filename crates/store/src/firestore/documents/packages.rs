//! The directory of KeyPackages: one document for each owner, so that concurrent claims and additions conflict.
//!
//! Source: docs/rules.md, "KeyPackages".

use gcloud_sdk::google::firestore::v1::{Document, Write};
use nostr_protocol::{EventId, PublicKey, UnixSecs};

use crate::firestore::{
    documents::names::Names,
    wire::{
        fail::Fail,
        value::{self, Fields, ReadFields as _, Unpack, Version},
    },
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
    pub(crate) created_at: UnixSecs,
    pub(crate) expires_at: UnixSecs,
}

/// The KeyPackages of an owner, in the order of the log.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    pub(crate) version: Version,
    pub(crate) packages: Vec<Package>,
    changed: bool,
}

impl Directory {
    /// Reads a document; without one, an empty directory.
    pub(crate) fn read(document: Option<&Document>) -> Result<Self, Fail> {
        let packed = document.and_then(|document| document.bytes("packages")).unwrap_or_default();
        let packages = unpack(packed).ok_or(Fail::Damaged("an owner's KeyPackages"))?;
        Ok(Self { version: Version::of(document), packages, changed: false })
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
        Ok(Some(match (self.packages.is_empty(), self.version) {
            (true, Version::Absent) => return Ok(None),
            (true, state) => value::delete_expected(name, state),
            (false, state) => value::put(name, Fields::default().bytes("packages", pack(&self.packages)), state),
        }))
    }
}

fn pack(packages: &[Package]) -> Vec<u8> {
    let mut packed = Vec::with_capacity(packages.len() * 97);
    for package in packages {
        packed.extend_from_slice(package.id.as_bytes());
        packed.extend_from_slice(&package.content_hash);
        packed.push(u8::from(package.last_resort) | u8::from(package.reference.is_some()) << 1);
        packed.extend_from_slice(&package.reference.unwrap_or_default());
        packed.extend_from_slice(&package.created_at.to_be_bytes());
        packed.extend_from_slice(&package.expires_at.to_be_bytes());
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
            created_at: left.u64()?,
            expires_at: left.u64()?,
        });
    }
    Some(packages)
}
