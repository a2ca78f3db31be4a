//! What a batch has to know, read from the service.
//!
//! There are two ways to be sure at the commit that what was read still holds. What the batch will write, if all goes
//! well, is read plainly and written with the precondition that it is as it was: of any number of racers one wins, and
//! the others find out at once. What the batch only relies on, and others rarely change (that an event was not deleted,
//! that a group's members are these), is read in a transaction, whose commit fails if it changed; so nothing has to be
//! written to be sure, and a busy group's head is not touched by its messages.

use std::collections::{BTreeSet, HashMap};

use gcloud_sdk::google::firestore::v1::Document;
use nostr_extensions::{Admitted, Effect, NostrGroupId};
use nostr_protocol::{Event, EventId, PublicKey, UnixSecs};

use crate::{
    Cursor,
    decide::facts::{Address, Claimed, Facts, Place, Target, Wanted},
    firestore::{
        Inner,
        documents::{
            events::StoredEvent,
            groups::{GroupHead, Members},
            names::field,
            packages::Directory,
        },
        read::{
            load_addresses::AddressDoc,
            load_packages::{deleters_of_packages, read_references, read_taken},
        },
        wire::{
            client::{GetAnswer, Transaction},
            fail::Fail,
            value::{ReadFields as _, Unpack, Version},
        },
    },
};

/// A group as it was read, with all its members where it may be changed.
#[derive(Clone, Debug)]
pub(crate) struct GroupDoc {
    pub(crate) head: GroupHead,
    pub(crate) members: Members,
    /// Whether the commit finds by itself that it changed.
    pub(crate) guarded: bool,
}

/// Documents that may be written, as they were read.
#[derive(Debug, Default)]
pub(crate) struct ReadDocuments {
    pub(crate) addresses: HashMap<Address, AddressDoc>,
    pub(crate) owners: HashMap<PublicKey, Directory>,
    pub(crate) groups: HashMap<NostrGroupId, GroupDoc>,
    pub(crate) founders: HashMap<PublicKey, (Version, Vec<UnixSecs>)>,
}

/// What is read of the documents that are relied on: all that they say, but for the content of events, which may be long,
/// and what only queries need.
const GUARDED: [&str; 12] = [
    "public",
    "until",
    field::GROUP,
    "unlisted",
    "record",
    "members",
    "shards",
    "head",
    field::RECEIVED_AT,
    field::EXPIRES_AT,
    "flags",
    "place",
];

/// What was read for a batch.
#[derive(Debug, Default)]
pub(crate) struct BatchState {
    pub(crate) facts: Facts,
    pub(crate) documents: ReadDocuments,
    pub(crate) transaction: Option<Transaction>,
}

/// Events have places in the facts by which they are told apart; which, does not matter here.
#[derive(Default)]
pub(crate) struct EventNumbers(HashMap<EventId, Cursor>);

impl EventNumbers {
    pub(crate) fn cursor_of(&mut self, id: EventId) -> Cursor {
        let next = self.0.len() as Cursor;
        *self.0.entry(id).or_insert(next)
    }

    pub(super) fn of(&mut self, id: EventId) -> Place {
        Place::Stored(self.cursor_of(id))
    }
}

/// What is to be saved, as far as it says what has to be known.
pub(crate) struct LoadRequest<'a> {
    pub(crate) wanted: Wanted,
    pub(crate) events: Vec<(&'a Event, &'a Effect)>,
    /// Whose KeyPackages may be taken out, beside those whom `wanted` names.
    pub(crate) owners: BTreeSet<PublicKey>,
}

impl<'a> LoadRequest<'a> {
    /// Whether its events are stored need not be known where all of them are to be: the commit fails if one is.
    pub(crate) fn of(batch: &'a [Admitted], with_ids: bool) -> Self {
        let mut wanted = Wanted::by(batch);
        if !with_ids {
            wanted.ids.clear();
        }
        let events: Vec<_> = batch.iter().map(|admitted| (admitted.event(), admitted.effect())).collect();
        Self { wanted, owners: vanishing(&events).collect(), events }
    }
}

/// Keys whose requests to vanish are among the events.
pub(crate) fn vanishing<'a>(events: &'a [(&Event, &Effect)]) -> impl Iterator<Item = PublicKey> + 'a {
    events.iter().filter(|(_, effect)| matches!(effect, Effect::Vanish)).map(|(event, _)| event.pubkey())
}

/// The first reads, which need nothing but the batch.
pub(crate) struct FirstReads {
    pub(crate) guarded: GetAnswer,
    pub(crate) ids: GetAnswer,
    pub(crate) plain: GetAnswer,
}

impl Inner {
    /// Reads what a batch has to know.
    pub(crate) async fn load(&self, batch: LoadRequest<'_>) -> Result<BatchState, Fail> {
        let wanted = &batch.wanted;
        let leaving: Vec<PublicKey> = wanted.leaving.iter().copied().collect();
        let (guarded, ids, plain, left) = tokio::join!(
            self.guarded(wanted),
            self.get_ids(&wanted.ids),
            self.client.get(self.plain_names(wanted), None),
            self.groups_of(&leaving),
        );
        let (guarded, transaction) = guarded?;
        let rest = async {
            let first = FirstReads { guarded, ids: ids?, plain: plain? };
            self.complete(&batch, first, left?).await
        };
        match rest.await {
            Ok((facts, documents)) => Ok(BatchState { facts, documents, transaction }),
            Err(fail) => {
                if let Some(transaction) = transaction {
                    self.client.rollback(transaction).await;
                }
                Err(fail)
            }
        }
    }

    /// What is relied on, in a transaction; none where nothing is.
    async fn guarded(&self, wanted: &Wanted) -> Result<(GetAnswer, Option<Transaction>), Fail> {
        let mut names: Vec<String> = Vec::new();
        names.extend(wanted.tombstones.iter().map(|buried| self.names.tombstone(buried)));
        names.extend(wanted.vanished.iter().map(|key| self.names.vanished(key)));
        names.extend(wanted.claimed.iter().map(|claimed| self.names.claimed(claimed)));
        names.extend(wanted.targets.iter().map(|id| self.names.event(id)));
        names.extend(wanted.groups.iter().filter(|id| is_guarded(wanted, id)).map(|id| self.names.group(id)));
        if names.is_empty() {
            return Ok((GetAnswer::default(), None));
        }
        let (got, transaction) = self.client.get_guarded(names, &GUARDED).await?;
        Ok((got, Some(transaction)))
    }

    async fn get_ids(&self, ids: &BTreeSet<EventId>) -> Result<GetAnswer, Fail> {
        self.client.get(ids.iter().map(|id| self.names.event(id)).collect(), Some(&["place"])).await
    }

    fn plain_names(&self, wanted: &Wanted) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        names.extend(wanted.addresses.iter().map(|address| self.names.address(address)));
        let owners: BTreeSet<&PublicKey> = wanted.owners.iter().chain(&wanted.leaving).collect();
        names.extend(owners.into_iter().map(|owner| self.names.owner(owner)));
        names.extend(wanted.groups.iter().filter(|id| !is_guarded(wanted, id)).map(|id| self.names.group(id)));
        names.extend(wanted.founders.iter().map(|key| self.names.founder(key)));
        let with_messages = wanted.members.iter().map(|(group, _)| group);
        let unknown: BTreeSet<&NostrGroupId> = with_messages.filter(|id| !self.epochs.knows(id)).collect();
        names.extend(unknown.into_iter().map(|id| self.names.epoch(id)));
        names
    }

    async fn complete(
        &self,
        batch: &LoadRequest<'_>,
        first: FirstReads,
        left: Vec<NostrGroupId>,
    ) -> Result<(Facts, ReadDocuments), Fail> {
        let LoadRequest { wanted, events, .. } = batch;
        let mut facts = Facts::default();
        let mut documents = ReadDocuments::default();
        self.read_marks(wanted, &first.guarded, &mut facts)?;
        let is_stored = |id: &&EventId| first.ids.get(&self.names.event(id)).is_some();
        facts.ids = wanted.ids.iter().filter(is_stored).copied().collect();
        let mut numbers = EventNumbers::default();
        self.read_targets(wanted, &first.guarded, &mut numbers, &mut facts)?;
        let mut owners = wanted.owners.clone();
        owners.extend(&wanted.leaving);
        let mut more: BTreeSet<PublicKey> = deleters_of_packages(events, &facts);
        more.extend(&batch.owners);
        more.retain(|owner| !owners.contains(owner));
        let (packages, taken, holders, groups, counts) = tokio::try_join!(
            self.client.get(more.iter().map(|owner| self.names.owner(owner)).collect(), None),
            self.get_taken(wanted),
            self.get_holders(wanted, &first.plain),
            self.get_groups(wanted, &first, &left),
            self.count_memberships(wanted, events, &first.plain),
        )?;
        for owner in owners {
            documents.owners.insert(owner, Directory::read(first.plain.get(&self.names.owner(&owner)))?);
        }
        for owner in more {
            documents.owners.insert(owner, Directory::read(packages.get(&self.names.owner(&owner)))?);
        }
        read_taken(wanted, &taken, &mut numbers, &mut facts, &mut documents)?;
        self.read_addresses(wanted, &first.plain, &holders, &mut numbers, &mut facts, &mut documents)?;
        read_references(wanted, &documents, &mut numbers, &mut facts);
        self.read_founders(wanted, &first.plain, &mut facts, &mut documents)?;
        self.read_groups(wanted, groups, &first.plain, &mut facts, &mut documents);
        facts.memberships = counts;
        Ok((facts, documents))
    }

    fn read_marks(&self, wanted: &Wanted, guarded: &GetAnswer, facts: &mut Facts) -> Result<(), Fail> {
        for buried in &wanted.tombstones {
            if let Some(document) = guarded.get(&self.names.tombstone(buried)) {
                facts.tombstones.insert(*buried, document.flag("public"));
            }
        }
        for key in &wanted.vanished {
            if let Some(document) = guarded.get(&self.names.vanished(key)) {
                let until = document.secs("until").ok_or(Fail::Damaged("a vanished key"))?;
                facts.vanished.insert(*key, until);
            }
        }
        let is_claimed = |claimed: &&Claimed| guarded.get(&self.names.claimed(claimed)).is_some();
        facts.claimed = wanted.claimed.iter().filter(is_claimed).copied().collect();
        Ok(())
    }

    fn read_targets(
        &self,
        wanted: &Wanted,
        guarded: &GetAnswer,
        numbers: &mut EventNumbers,
        facts: &mut Facts,
    ) -> Result<(), Fail> {
        for id in &wanted.targets {
            let Some(document) = guarded.get(&self.names.event(id)) else { continue };
            let stored = StoredEvent::read(document)?;
            if !self.hiding.now().hides(stored.event.view()) {
                let author_only = stored.is_author_only();
                facts.targets.insert(*id, Target { at: numbers.of(*id), event: stored.event, author_only });
            }
        }
        Ok(())
    }

    fn read_founders(
        &self,
        wanted: &Wanted,
        plain: &GetAnswer,
        facts: &mut Facts,
        documents: &mut ReadDocuments,
    ) -> Result<(), Fail> {
        for founder in &wanted.founders {
            let document = plain.get(&self.names.founder(founder));
            let mut times = foundings(document)?;
            times.retain(|at| *at > wanted.day_start);
            facts.founded.insert(*founder, u32::try_from(times.len()).unwrap_or(u32::MAX));
            documents.founders.insert(*founder, (Version::of(document), times));
        }
        Ok(())
    }
}

/// When a key founded groups.
pub(crate) fn foundings(founder: Option<&Document>) -> Result<Vec<UnixSecs>, Fail> {
    let mut packed = Unpack(founder.and_then(|it| it.bytes("times")).unwrap_or_default());
    let mut times = Vec::new();
    while !packed.is_empty() {
        times.push(packed.u64().ok_or(Fail::Damaged("a founder"))?);
    }
    Ok(times)
}

/// Whether a group's head is only relied on, by messages, and not changed.
pub(crate) fn is_guarded(wanted: &Wanted, id: &NostrGroupId) -> bool {
    !wanted.whole.contains(id) && !wanted.wrapped.contains(id)
}
