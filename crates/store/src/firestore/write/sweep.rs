//! Removal of expired events and of events that vanished keys left, some at a time.
//!
//! The service removes expired events by itself within a day, if its lifetime policy is set (`deploy/`). This store
//! does not wait for it. An event that the service removes leaves its address and its place in a directory behind;
//! readers of these check that the event exists.

use std::collections::{BTreeSet, HashMap};

use gcloud_sdk::google::firestore::v1::Document;
use nostr_extensions::mls_gateway::{deletion::vanishes, key_package::suite_of};
use nostr_protocol::{EventRef, Kind, PublicKey, UnixSecs};

use crate::{
    ExpiredPackage, Swept,
    firestore::{
        Inner,
        documents::{
            events::{EventDocument, WITHOUT_CONTENT, owner_number},
            names::{Collection, field},
            packages::Directory,
            query::{self, Under},
        },
        wire::{
            fail::Fail,
            queries::QueryAnswer,
            value::{self, Fields, ReadFields as _, Version, id_of},
        },
    },
};

/// Most events that one call of the service removes.
const SWEEP_EVENTS_MAX: usize = 400;
/// Most such calls of one sweep.
const SWEEP_ROUNDS_MAX: usize = 50;
/// Most vanished keys that one query gives, and whose events one sweep removes.
const VANISHED_MAX: usize = 1_000;
/// Most events of a vanished key that one query reads.
const SEARCHED_MAX: usize = 400;

impl Inner {
    /// See [`crate::Store::sweep`].
    pub(crate) async fn sweep(&self, now: UnixSecs, events_max: usize) -> Result<Swept, Fail> {
        self.history.is_ours()?;
        let pending = self.learn_vanished().await?;
        self.forget_once(now, SWEEP_ROUNDS_MAX).await?;
        let mut swept = Swept::default();
        for _ in 0..SWEEP_ROUNDS_MAX {
            let most = events_max.saturating_sub(swept.removed).min(SWEEP_EVENTS_MAX);
            if most == 0 {
                break;
            }
            let expired = self.client.query(query::expired_events(&self.names, now, most)).await?;
            let found = expired.documents.len();
            let packages = self.expired_packages(&expired).await?;
            swept.removed += self.remove_expired(expired).await?;
            swept.expired.extend(packages);
            if found < most {
                break;
            }
        }
        for document in &pending.documents {
            if swept.removed >= events_max {
                break;
            }
            swept.removed += self.remove_vanished(document, events_max - swept.removed).await?;
        }
        self.sweep_receipts(now).await?;
        for _ in 0..SWEEP_ROUNDS_MAX {
            if self.sweep_log(pending.read_at, SWEEP_EVENTS_MAX).await? < SWEEP_EVENTS_MAX {
                break;
            }
        }
        Ok(swept)
    }

    /// KeyPackages of kind 443 among expired events that expire without having been given.
    async fn expired_packages(&self, expired: &QueryAnswer) -> Result<Vec<ExpiredPackage>, Fail> {
        let kind = |document: &&Document| Some(EventRef::new(&[document.bytes("head")?, b"{}"].concat())?.kind());
        let packages = expired.documents.iter().filter(|it| kind(it) == Some(Kind::KEY_PACKAGE));
        let names: Vec<String> = packages.map(|document| document.name.clone()).collect();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let got = self.client.get(names, None).await?;
        let events = got.documents.values().map(EventDocument::read).collect::<Result<Vec<_>, Fail>>()?;
        let owners: BTreeSet<PublicKey> = events.iter().map(|it| it.event.pubkey()).collect();
        let directories = self.client.get(owners.iter().map(|owner| self.names.owner(owner)).collect(), None).await?;
        let mut found = Vec::new();
        for EventDocument { event, .. } in events {
            let (id, owner) = (event.id(), event.pubkey());
            let directory = Directory::read(directories.get(&self.names.owner(&owner)))?;
            let fresh = directory.packages.iter().find(|package| package.id == id && !package.last_resort);
            found.extend(fresh.map(|package| ExpiredPackage {
                owner,
                content_hash: package.content_hash,
                suite: suite_of(event.view()),
            }));
        }
        Ok(found)
    }

    /// Removes receipts that have lapsed.
    async fn sweep_receipts(&self, now: UnixSecs) -> Result<(), Fail> {
        for _ in 0..SWEEP_ROUNDS_MAX {
            let lapsed = self.client.query(query::lapsed_receipts(&self.names, now, SWEEP_EVENTS_MAX)).await?.documents;
            if lapsed.is_empty() {
                break;
            }
            let count = lapsed.len();
            self.client.write_each(lapsed.into_iter().map(|document| value::delete(document.name)).collect()).await?;
            if count < SWEEP_EVENTS_MAX {
                break;
            }
        }
        Ok(())
    }

    /// Reads the vanished keys that still have events, and gives the first [`VANISHED_MAX`].
    pub(crate) async fn learn_vanished(&self) -> Result<QueryAnswer, Fail> {
        let read = async |behind: Option<&str>| {
            self.client.query(query::vanished_pending(&self.names, behind, VANISHED_MAX)).await
        };
        let first = read(None).await?;
        let mut keys: HashMap<PublicKey, UnixSecs> = HashMap::new();
        let mut next = None;
        loop {
            let documents = next.as_ref().map_or(&first.documents, |page: &QueryAnswer| &page.documents);
            let pending = documents
                .iter()
                .filter_map(|document| Some((PublicKey::from_hex(id_of(document))?, document.secs("until")?)));
            keys.extend(pending);
            match documents.last().filter(|_| documents.len() >= VANISHED_MAX) {
                Some(last) => next = Some(read(Some(&last.name)).await?),
                None => break,
            }
        }
        // A later page may lack keys that vanished after the first read, so the first time counts.
        self.hiding.settle(&keys, first.read_at);
        Ok(first)
    }

    async fn remove_expired(&self, expired: QueryAnswer) -> Result<usize, Fail> {
        if expired.documents.is_empty() {
            return Ok(0);
        }
        let addresses: HashMap<String, String> = expired
            .documents
            .iter()
            .filter_map(|document| {
                let name = self.names.named(Collection::Addresses, document.text("address")?);
                Some((name, id_of(document).to_owned()))
            })
            .collect();
        let deletes = expired
            .documents
            .iter()
            .map(|document| value::delete_expected(document.name.clone(), Version::of(Some(document))));
        let removed = self.client.write_each(deletes.collect()).await?;
        let held = self.client.get(addresses.keys().cloned().collect(), None).await?;
        let orphans = held.documents.values().filter(|document| {
            document.int(field::DELETED_UNTIL).is_none()
                && document.text("event") == addresses.get(&document.name).map(String::as_str)
        });
        let orphans: Vec<_> =
            orphans.map(|it| value::delete_expected(it.name.clone(), Version::of(Some(it)))).collect();
        if !orphans.is_empty() {
            self.client.write_each(orphans).await?;
        }
        Ok(removed)
    }

    /// Removes some of the events that a vanished key left. Marks the key as finished if none is left.
    async fn remove_vanished(&self, vanished: &Document, events_max: usize) -> Result<usize, Fail> {
        let key = PublicKey::from_hex(id_of(vanished)).ok_or(Fail::Damaged("a vanished key"))?;
        let until = vanished.secs("until").ok_or(Fail::Damaged("a vanished key"))?;
        let mut removed = 0;
        let mut behind: Option<(UnixSecs, String)> = None;
        for _ in 0..SWEEP_ROUNDS_MAX {
            let limit = SEARCHED_MAX.min(events_max - removed).max(1);
            let under = Under {
                numbers: &[owner_number(&key)],
                since: None,
                until: Some(until),
                behind: behind.as_ref().map(|(at, name)| (*at, name.as_str())),
                limit,
            };
            let found = self.client.query(query::parts_under(&self.names, under, &WITHOUT_CONTENT)).await?.documents;
            let mut deletes = Vec::new();
            for document in &found {
                let stored = EventDocument::read(document)?;
                if !stored.is_commit() && vanishes(stored.event.view(), &key, until) {
                    deletes.push(value::delete(document.name.clone()));
                }
                behind = Some((stored.event.created_at(), document.name.clone()));
            }
            removed += deletes.len();
            if !deletes.is_empty() {
                self.client.commit(deletes, None).await?;
            }
            if found.len() < limit {
                let done = Fields::default().number("until", until).flag(field::PENDING, false);
                let done = value::put(vanished.name.clone(), done, Version::of(Some(vanished)));
                return match self.client.commit(vec![done], None).await {
                    // A conflict means that the key vanished again meanwhile.
                    Ok(_) | Err(Fail::Conflict) => Ok(removed),
                    Err(fail) => Err(fail),
                };
            }
            if removed >= events_max {
                break;
            }
        }
        Ok(removed)
    }
}
