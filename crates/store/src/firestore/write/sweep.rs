//! Removal of expired events and of events that vanished keys left, some at a time.
//!
//! The service removes expired events by itself within a day, if its lifetime policy is set (`deploy/`). This store
//! does not wait for it. An event that the service removes leaves its address and its place in a directory behind;
//! readers of these check that the event exists.

use std::collections::HashMap;

use nostr_extensions::mls_gateway::deletion::vanishes;
use nostr_protocol::{PublicKey, UnixSecs};

use crate::firestore::{
    Inner,
    documents::{
        events::{EventDocument, WITHOUT_CONTENT, owner_number},
        names::{Collection, field},
        query::{self, Under},
    },
    wire::{
        fail::Fail,
        queries::QueryAnswer,
        value::{self, Fields, ReadFields as _, Version, id_of},
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
    pub(crate) async fn sweep(&self, now: UnixSecs, events_max: usize) -> Result<usize, Fail> {
        self.history.is_ours()?;
        let pending = self.learn_vanished().await?;
        self.forget_once(now, SWEEP_ROUNDS_MAX).await?;
        let mut removed = 0;
        for _ in 0..SWEEP_ROUNDS_MAX {
            let most = events_max.saturating_sub(removed).min(SWEEP_EVENTS_MAX);
            if most == 0 {
                break;
            }
            let expired = self.client.query(query::expired_events(&self.names, now, most)).await?;
            let found = expired.documents.len();
            removed += self.remove_expired(expired).await?;
            if found < most {
                break;
            }
        }
        for document in &pending.documents {
            if removed >= events_max {
                break;
            }
            removed += self.remove_vanished(document, events_max - removed).await?;
        }
        for _ in 0..SWEEP_ROUNDS_MAX {
            if self.sweep_log(pending.read_at, SWEEP_EVENTS_MAX).await? < SWEEP_EVENTS_MAX {
                break;
            }
        }
        Ok(removed)
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
            document.int("deleted_until").is_none()
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
    async fn remove_vanished(
        &self,
        vanished: &gcloud_sdk::google::firestore::v1::Document,
        events_max: usize,
    ) -> Result<usize, Fail> {
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
                if vanishes(stored.event.view(), &key, until) {
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
