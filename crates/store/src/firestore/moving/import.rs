//! Import: as many records in one Commit as fit, decided and written like batches of events.

use std::{collections::BTreeSet, sync::Arc};

use nostr_extensions::Restored;
use nostr_protocol::{Kind, PublicKey, UnixSecs};

use crate::{
    decide::{
        facts::{Address, Wanted},
        restore::{cut, decide},
    },
    firestore::{
        Inner,
        documents::events,
        read::load::{LoadRequest, vanishing},
        wire::fail::Fail,
    },
    moving::{Imported, Record},
};

/// Estimated bytes of a member in a commit, with its entry in the index of memberships.
const MEMBER_BYTES: usize = 200;
/// Estimated bytes of any other record.
const RECORD_BYTES: usize = 400;

impl<'a> LoadRequest<'a> {
    /// The request for records of an export.
    fn of_records(records: &'a [Record<Restored>], now: UnixSecs) -> Self {
        let mut wanted = Wanted::by_records(records, now);
        // A head is written whole, even if it only gains the mark of unlisted messages.
        wanted.whole.clone_from(&wanted.groups);
        let events: Vec<_> = records
            .iter()
            .filter_map(|record| match record {
                Record::Event(restored) => Some((restored.event(), restored.effect())),
                _ => None,
            })
            .collect();
        let mut owners: BTreeSet<PublicKey> = vanishing(&events).collect();
        for record in records {
            match record {
                Record::Vanished { key, .. } => drop(owners.insert(*key)),
                Record::AddressTombstone { address, .. } => owners.extend(owner_at(address)),
                Record::Removal(removal) if removal.is_key_package => drop(owners.insert(removal.author)),
                _ => {}
            }
        }
        Self { wanted, events, owners }
    }
}

/// The owner of the KeyPackage that the address may hold.
fn owner_at(address: &Address) -> Option<PublicKey> {
    let (key, rest) = address.split_first_chunk::<32>()?;
    let (kind, _) = rest.split_first_chunk::<2>()?;
    Kind(u16::from_be_bytes(*kind)).is_key_package().then(|| PublicKey::from_bytes(*key))
}

/// Estimated bytes of a record in a commit.
fn byte_len(record: &Record<Restored>) -> usize {
    match record {
        Record::Event(restored) => events::byte_len(restored.event().view()),
        Record::Group { view, .. } => RECORD_BYTES + view.members.len() * MEMBER_BYTES,
        _ => RECORD_BYTES,
    }
}

impl Inner {
    /// See [`crate::moving::Moving::import`].
    pub(crate) async fn import(
        self: &Arc<Self>,
        records: Vec<Record<Restored>>,
        now: UnixSecs,
    ) -> Result<Vec<Imported>, Fail> {
        let mut outcomes = Vec::with_capacity(records.len());
        for part in cut(records).into_iter().flat_map(|part| self.in_size(part, byte_len)) {
            outcomes.extend(self.import_part(&part, now).await?);
        }
        // Writes the epochs too, so that the answer covers every record.
        self.flush().await?;
        Ok(outcomes)
    }

    /// Imports a part. If it fails as a whole, it is halved.
    async fn import_part(&self, part: &[Record<Restored>], now: UnixSecs) -> Result<Vec<Imported>, Fail> {
        match self.import_whole(part, now).await {
            Err(Fail::Large | Fail::Invalid(_)) if part.len() > 1 => {
                let (front, back) = part.split_at(part.len() / 2);
                let mut outcomes = Box::pin(self.import_part(front, now)).await?;
                outcomes.extend(Box::pin(self.import_part(back, now)).await?);
                Ok(outcomes)
            }
            Err(Fail::Invalid(why)) => Err(Fail::Invalid(named(part, &why))),
            done => done,
        }
    }

    async fn import_whole(&self, part: &[Record<Restored>], now: UnixSecs) -> Result<Vec<Imported>, Fail> {
        let mut tries = 0;
        loop {
            let imported = self.try_to_import(part, now).await;
            if !self.is_tried_again(&imported, tries, part.len()).await {
                return imported;
            }
            tries += 1;
        }
    }

    async fn try_to_import(&self, part: &[Record<Restored>], now: UnixSecs) -> Result<Vec<Imported>, Fail> {
        let loaded = self.load(LoadRequest::of_records(part, now)).await?;
        let restoring = decide(part, loaded.facts, &self.route_hasher, now);
        let mut documents = loaded.documents;
        let place = self.draw_place(&restoring.changes);
        let writes = match restoring.changes.is_empty() {
            true => Ok(Vec::new()),
            false => self.writes(&restoring.changes, &mut documents, place),
        };
        let is_large = writes.as_ref().is_ok_and(|writes| part.len() > 1 && self.is_large(writes));
        let writes = if is_large { Err(Fail::Large) } else { writes };
        if let Some(time) = self.commit_or_end(writes, loaded.transaction).await? {
            self.committed(&restoring.changes, time, place);
        }
        Ok(restoring.outcomes)
    }
}

/// The service's reason, with the id of the event that it refuses.
fn named(part: &[Record<Restored>], why: &str) -> String {
    match part {
        [Record::Event(restored)] => format!("event {}: {why}", restored.event().id()),
        _ => why.to_owned(),
    }
}
