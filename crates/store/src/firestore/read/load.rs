//! Loading the facts that a batch is decided by.
//!
//! A commit has to find out whether these facts still hold. There are two ways:
//!
//! 1. Documents that the batch will write are read plainly, and written on condition that they kept their version. One
//!    of any number of racers wins, and the others learn it at once.
//! 2. Documents that the batch only relies on, and that rarely change (tombstones, members of a group), are read in a
//!    transaction. Its commit fails if one of them changed. So a busy group's messages rely on its head without writing
//!    it.

use std::collections::{BTreeSet, HashMap};

use gcloud_sdk::google::firestore::v1::Document;
use nostr_extensions::{Admitted, Effect, NostrGroupId, mls_gateway::group::CommitLog};
use nostr_protocol::{Event, EventId, PublicKey, UnixSecs};

use crate::{
    Cursor,
    decide::facts::{Address, Claimed, Facts, Origin, Target, Wanted},
    firestore::{
        Inner,
        documents::{
            events::{EventDocument, expires_at},
            groups::{GroupHead, Members},
            names::field,
            packages::Directory,
        },
        read::{
            load_addresses::AddressDoc,
            load_packages::{deleters_of_packages, read_packages, read_references, read_taken},
        },
        wire::{
            client::{GetAnswer, Transaction},
            fail::Fail,
            value::{ReadFields as _, Unpack, Version},
        },
    },
    weight::Weight,
};

/// A group as it was read, with all its members if the batch may change it.
#[derive(Clone, Debug)]
pub(crate) struct GroupDoc {
    pub(crate) head: GroupHead,
    pub(crate) members: Members,
    /// Whether the transaction finds a change of the head.
    pub(crate) guarded: bool,
}

/// Documents that the batch may write, as they were read.
#[derive(Debug, Default)]
pub(crate) struct ReadDocuments {
    pub(crate) addresses: HashMap<Address, AddressDoc>,
    pub(crate) owners: HashMap<PublicKey, Directory>,
    pub(crate) groups: HashMap<NostrGroupId, GroupDoc>,
    /// The logs of commits of the groups of which the batch asks for them.
    pub(crate) commits: HashMap<NostrGroupId, (Version, Option<CommitLog>)>,
    pub(crate) founders: HashMap<PublicKey, (Version, Vec<UnixSecs>)>,
    /// Memberships in which the key has not acted, by the names of their documents.
    pub(crate) invited: HashMap<String, Version>,
}

/// Fields that are read of guarded documents: all but the content of events, which may be long, and fields that only
/// queries need.
const GUARDED: [&str; 13] = [
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
    field::TOUCHED,
];

/// The facts for a batch, the documents that they were read from, and the transaction that guards the rest.
#[derive(Debug, Default)]
pub(crate) struct BatchState {
    pub(crate) facts: Facts,
    pub(crate) documents: ReadDocuments,
    pub(crate) transaction: Option<Transaction>,
}

/// Numbers by which the facts tell events apart. Any distinct numbers serve.
#[derive(Default)]
pub(crate) struct EventNumbers(HashMap<EventId, Cursor>);

impl EventNumbers {
    pub(crate) fn cursor_of(&mut self, id: EventId) -> Cursor {
        let next = self.0.len() as Cursor;
        *self.0.entry(id).or_insert(next)
    }

    pub(super) fn of(&mut self, id: EventId) -> Origin {
        Origin::Stored(self.cursor_of(id))
    }
}

/// A batch as far as it says which facts are needed.
pub(crate) struct LoadRequest<'a> {
    pub(crate) wanted: Wanted,
    pub(crate) events: Vec<(&'a Event, &'a Effect)>,
    /// Owners whose KeyPackages the batch may remove, besides those in `wanted`.
    pub(crate) owners: BTreeSet<PublicKey>,
}

impl<'a> LoadRequest<'a> {
    /// The request of a batch. `with_ids` asks whether its events are stored. The first try leaves that out, because
    /// the commit fails if one is.
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

/// Answers of the first reads, which need nothing but the batch.
pub(crate) struct FirstReads {
    pub(crate) guarded: GetAnswer,
    pub(crate) ids: GetAnswer,
    pub(crate) plain: GetAnswer,
}

impl Inner {
    /// Reads the facts for a batch.
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

    /// Guarded documents, and the transaction that read them; no transaction if there are none.
    async fn guarded(&self, wanted: &Wanted) -> Result<(GetAnswer, Option<Transaction>), Fail> {
        let mut names: Vec<String> = Vec::new();
        names.extend(wanted.tombstones.iter().map(|key| self.names.tombstone(key)));
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
        let names = ids.iter().map(|id| self.names.event(id)).collect();
        self.client.get(names, Some(&["place", field::EXPIRES_AT])).await
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
        names.extend(wanted.ordered.iter().map(|id| self.names.commits(id)));
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
        let mut numbers = EventNumbers::default();
        for id in &wanted.ids {
            if let Some(document) = first.ids.get(&self.names.event(id)) {
                facts.ids.insert(*id, (numbers.of(*id), expires_at(document)));
            }
        }
        self.read_targets(wanted, &first.guarded, &mut numbers, &mut facts)?;
        let mut owners = wanted.owners.clone();
        owners.extend(&wanted.leaving);
        let mut more: BTreeSet<PublicKey> = deleters_of_packages(events, &facts);
        more.extend(&batch.owners);
        more.retain(|owner| !owners.contains(owner));
        let (packages, taken, holders, (joining, groups)) = tokio::try_join!(
            self.client.get(more.iter().map(|owner| self.names.owner(owner)).collect(), None),
            self.get_taken(wanted),
            self.get_holders(wanted, &first.plain),
            async {
                let joining = self.get_joining(wanted, events, &first.plain).await?;
                let groups = self.get_groups(wanted, &first, &left, &joining.groups()).await?;
                Ok((joining, groups))
            },
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
        read_packages(wanted, &documents, &mut numbers, &mut facts);
        self.read_founders(wanted, &first.plain, &mut facts, &mut documents)?;
        joining.read(&mut facts, &mut documents);
        self.get_invited(wanted, events, &groups, &mut facts, &mut documents).await?;
        self.read_groups(wanted, groups, &first.plain, &mut facts, &mut documents)?;
        Ok((facts, documents))
    }

    fn read_marks(&self, wanted: &Wanted, guarded: &GetAnswer, facts: &mut Facts) -> Result<(), Fail> {
        for key in &wanted.tombstones {
            if let Some(document) = guarded.get(&self.names.tombstone(key)) {
                facts.tombstones.insert(*key, document.flag("public"));
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
            let stored = EventDocument::read(document)?;
            if stored.is_commit() || !self.hiding.now().hides(stored.event.view()) {
                let (author_only, stays) = (stored.is_author_only(), stored.is_commit());
                let rows = Weight::of(stored.event.view()).rows;
                let touches = stored.touches();
                let (event, expires_at, at) = (stored.event, stored.expires_at, numbers.of(*id));
                facts.targets.insert(*id, Target { at, event, author_only, stays, touches, expires_at, rows });
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

/// The times at which a key founded groups.
pub(crate) fn foundings(founder: Option<&Document>) -> Result<Vec<UnixSecs>, Fail> {
    let mut packed = Unpack(founder.and_then(|it| it.bytes("times")).unwrap_or_default());
    let mut times = Vec::new();
    while !packed.is_empty() {
        times.push(packed.u64().ok_or(Fail::Damaged("a founder"))?);
    }
    Ok(times)
}

/// Whether the batch only relies on a group's head, and does not change it.
pub(crate) fn is_guarded(wanted: &Wanted, id: &NostrGroupId) -> bool {
    !wanted.whole.contains(id) && !wanted.wrapped.contains(id)
}
