//! The KeyPackages that a batch has to know.

use std::collections::BTreeSet;

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gcloud_sdk::google::firestore::v1::Document;
use nostr_extensions::Effect;
use nostr_protocol::{Event, EventId, PublicKey, hex};

use super::load::{EventNumbers, ReadDocuments};
use crate::{
    decide::facts::{Facts, Referenced, Wanted},
    firestore::{
        Inner,
        documents::{names::Collection, packages::Directory, query},
        wire::{fail::Fail, value::id_of},
    },
    index::{Front, front},
};

/// Most owners of KeyPackages that are searched for at one time.
const SEARCHES_MAX: usize = 16;
/// Most owners whose keys begin alike that are looked at; nobody finds a second one.
const ALIKE_MAX: usize = 2;

impl Inner {
    /// The directories in which KeyPackages may lie that were claimed elsewhere: of an owner no more than the front of its
    /// key is known.
    pub(crate) async fn get_taken(&self, wanted: &Wanted) -> Result<Vec<Document>, Fail> {
        let owners: BTreeSet<&Front> = wanted.taken.iter().map(|(owner, _)| owner).collect();
        let searches: Vec<_> = owners.into_iter().map(|owner| self.directories_of(owner)).collect();
        let found: Vec<Vec<Document>> = stream::iter(searches).buffered(SEARCHES_MAX).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    async fn directories_of(&self, owner: &Front) -> Result<Vec<Document>, Fail> {
        let digits = hex::to_hex(owner);
        let behind = self.names.named(Collection::Owners, &digits);
        let asked = query::every(&self.names, Collection::Owners, Some(&behind), &["packages"], ALIKE_MAX);
        let mut found = self.client.query(asked).await?.documents;
        found.retain(|document| id_of(document).starts_with(&digits));
        Ok(found)
    }
}

/// Who deletes KeyPackages, whose directories have to be known.
pub(super) fn deleters_of_packages(events: &[(&Event, &Effect)], facts: &Facts) -> BTreeSet<PublicKey> {
    let mut owners = BTreeSet::new();
    let is_package = |effect: &Effect| matches!(effect, Effect::KeyPackage { .. });
    for (_, effect) in events {
        let Effect::Delete(deletion) = effect else { continue };
        // A target may be an event of this very batch.
        let in_batch = |id: &EventId| events.iter().any(|(other, effect)| other.id() == *id && is_package(effect));
        let stored = |id: &EventId| facts.targets.get(id).is_some_and(|target| target.event.kind().is_key_package());
        let by_id = deletion.ids.iter().any(|id| stored(id) || in_batch(id));
        if by_id || deletion.addresses.iter().any(|(kind, _)| kind.is_key_package()) {
            owners.insert(deletion.by);
        }
    }
    owners
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

/// Takes in the KeyPackages that were claimed elsewhere.
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
