//! The KeyPackages that a batch needs.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gcloud_sdk::google::firestore::v1::Document;
use nostr_extensions::Effect;
use nostr_protocol::{Event, EventId, PublicKey, hex};

use super::load::{EventNumbers, ReadDocuments};
use crate::{
    decide::facts::{Facts, OwnedPackage, Referenced, Wanted},
    firestore::{
        Inner,
        documents::{
            names::Collection,
            packages::{Directory, Package},
            query,
        },
        wire::{fail::Fail, value::id_of},
    },
    index::{Front, front},
};

/// Most owners of claimed KeyPackages that are searched for at one time.
const SEARCHES_MAX: usize = 16;
/// Most owners that are looked at for the first 16 bytes of a key. Nobody finds a second key with the same ones.
const ALIKE_MAX: usize = 2;

impl Inner {
    /// Directories that may hold KeyPackages that were claimed elsewhere. Only the front of each owner's key is known.
    pub(crate) async fn get_taken(&self, wanted: &Wanted) -> Result<Vec<Document>, Fail> {
        let owners: BTreeSet<&Front> = wanted.taken.iter().map(|(owner, _)| owner).collect();
        let searches: Vec<_> = owners.into_iter().map(|owner| self.directories_of(owner)).collect();
        let found: Vec<Vec<Document>> = stream::iter(searches).buffered(SEARCHES_MAX).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn directories_of(&self, owner: &Front) -> Result<Vec<Document>, Fail> {
        let digits = hex::to_hex(owner);
        let behind = self.names.named(Collection::Owners, &digits);
        let asked = query::every(&self.names, Collection::Owners, Some(&behind), &["packages", "ledger"], ALIKE_MAX);
        let mut found = self.client.query(asked).await?.documents;
        found.retain(|document| id_of(document).starts_with(&digits));
        Ok(found)
    }
}

/// Keys that delete KeyPackages. Their directories are needed.
pub(super) fn deleters_of_packages(events: &[(&Event, &Effect)], facts: &Facts) -> BTreeSet<PublicKey> {
    let mut owners = BTreeSet::new();
    let is_package = |effect: &Effect| matches!(effect, Effect::KeyPackage { .. });
    for (_, effect) in events {
        let Effect::Delete(deletion) = effect else { continue };
        // The target may be in the same batch.
        let in_batch = |id: &EventId| events.iter().any(|(other, effect)| other.id() == *id && is_package(effect));
        let stored = |id: &EventId| facts.targets.get(id).is_some_and(|target| target.event.kind().is_key_package());
        let by_id = deletion.ids.iter().any(|id| stored(id) || in_batch(id));
        if by_id || deletion.addresses.iter().any(|(kind, _)| kind.is_key_package()) {
            owners.insert(deletion.by);
        }
    }
    owners
}

/// Adds the directories of the owners to the facts.
pub(super) fn read_packages(wanted: &Wanted, documents: &ReadDocuments, numbers: &mut EventNumbers, facts: &mut Facts) {
    for owner in &wanted.owners {
        let Some(directory) = documents.owners.get(owner) else { continue };
        let vanished = facts.vanished.get(owner).copied();
        let there = directory.packages.iter().filter(|it| vanished.is_none_or(|until| it.created_at > until));
        let owned = there.map(|it| {
            let Package { id, content_hash, last_resort, created_at, .. } = *it;
            let address = it.address(owner);
            (OwnedPackage { at: numbers.of(id), id, content_hash, last_resort, created_at, address }, it.expires_at)
        });
        facts.packages.insert(*owner, owned.collect());
    }
}

pub(super) fn read_references(
    wanted: &Wanted,
    documents: &ReadDocuments,
    numbers: &mut EventNumbers,
    facts: &mut Facts,
) {
    for (owner, reference) in &wanted.references {
        let Some(directory) = documents.owners.get(owner) else { continue };
        let vanished = facts.vanished.get(owner).copied();
        let named = directory.packages.iter().filter(|package| {
            package.reference.as_ref() == Some(reference) && vanished.is_none_or(|until| package.created_at > until)
        });
        let named = named.map(|package| Referenced {
            at: numbers.of(package.id),
            content_hash: package.content_hash,
            expires_at: package.expires_at,
        });
        facts.references.insert((*owner, *reference), named.collect());
    }
}

/// Adds the KeyPackages that were claimed elsewhere to the facts.
pub(crate) fn read_taken(
    wanted: &Wanted,
    directories: &[Document],
    numbers: &mut EventNumbers,
    facts: &mut Facts,
    documents: &mut ReadDocuments,
) -> Result<(), Fail> {
    for document in directories {
        let owner = PublicKey::from_hex(id_of(document)).ok_or(Fail::Damaged("an owner"))?;
        let directory = Directory::read(Some(document))?;
        for package in &directory.packages {
            let claimed = (front(owner.as_bytes()), front(&package.content_hash));
            if wanted.taken.contains(&claimed) {
                facts.taken.entry(claimed).or_default().push((numbers.cursor_of(package.id), package.id));
            }
        }
        documents.owners.entry(owner).or_insert(directory);
    }
    Ok(())
}
