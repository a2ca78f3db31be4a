//! The memberships that a batch needs: how many a key has, which give way first, and in which the member has not acted.
//!
//! A membership in which the key has not acted has a document of its own ([`Names::invited`]). The lists of members say
//! when it was made, and so give the document's name. A first act removes the document and writes no list.
//!
//! [`Names::invited`]: crate::firestore::documents::names::Names::invited

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use gcloud_sdk::google::firestore::v1::Document;
use nostr_extensions::{
    Effect, NostrGroupId, Source,
    mls_gateway::group::{Invited, MEMBERSHIPS_MAX, RosterOp},
};
use nostr_protocol::{Event, PublicKey, hex};
use parking_lot::Mutex;

use super::load::{GroupDoc, ReadDocuments};
use crate::{
    decide::facts::{Facts, Wanted},
    firestore::{
        Inner,
        documents::{
            groups::{GroupHead, Members},
            names::Collection,
            query::{self, VALUES_MAX},
        },
        wire::{
            client::GetAnswer,
            fail::Fail,
            value::{ReadFields as _, Version, id_of},
        },
    },
};

/// Most counts of memberships at one time.
const COUNTS_MAX: usize = 4;
/// Most memberships that one count finds, well above those that a key may have.
const COUNTED_MAX: u64 = 10_000;
/// Most memberships that are remembered as acted in.
const ACTED_MAX: usize = 65_536;

/// Memberships that are known to be acted in, so that their documents are not read for every message. A membership that
/// is made anew later has another rank.
#[derive(Debug, Default)]
pub(crate) struct Acted(Mutex<HashSet<(NostrGroupId, PublicKey, u64)>>);

impl Acted {
    fn knows(&self, group: &NostrGroupId, key: &PublicKey, rank: u64) -> bool {
        self.0.lock().contains(&(group.clone(), *key, rank))
    }

    pub(crate) fn learn(&self, group: &NostrGroupId, key: &PublicKey, rank: u64) {
        let mut acted = self.0.lock();
        if acted.len() >= ACTED_MAX {
            acted.clear();
        }
        acted.insert((group.clone(), *key, rank));
    }
}

/// The facts of keys that may become members, with the documents of the memberships that may give way.
#[derive(Default)]
pub(super) struct Joining {
    memberships: HashMap<PublicKey, usize>,
    first: Vec<(PublicKey, NostrGroupId, Invited, String, Version)>,
    invited_by: HashMap<PublicKey, u32>,
    invitations: HashMap<(PublicKey, PublicKey), u32>,
}

impl Joining {
    /// The groups in which a member may give way.
    pub(super) fn groups(&self) -> BTreeSet<NostrGroupId> {
        self.first.iter().map(|(_, group, ..)| group.clone()).collect()
    }

    pub(super) fn read(self, facts: &mut Facts, documents: &mut ReadDocuments) {
        facts.memberships = self.memberships;
        facts.invited_by = self.invited_by;
        facts.invitations = self.invitations;
        for (key, group, invited, name, version) in self.first {
            facts.invited.entry(key).or_default().insert(group, invited);
            documents.invited.insert(name, version);
        }
    }
}

impl Inner {
    pub(super) async fn get_joining(
        &self,
        wanted: &Wanted,
        events: &[(&Event, &Effect)],
        plain: &GetAnswer,
    ) -> Result<Joining, Fail> {
        let mut heads = BTreeMap::new();
        for id in wanted.whole.iter().chain(&wanted.wrapped) {
            heads.insert(id, GroupHead::read(plain.get(&self.names.group(id)))?);
        }
        // Without events an answer of the access service is applied, which names the keys itself.
        let joining: Vec<PublicKey> = match events {
            [] => wanted.joining.keys().copied().collect(),
            _ => may_join(events, &heads).into_iter().collect(),
        };
        if joining.is_empty() {
            return Ok(Joining::default());
        }
        let inviters = wanted.inviters.iter().map(|inviter| self.names.inviter(inviter));
        let pairs = wanted.invitations.iter().map(|(member, inviter)| self.names.invitations(member, inviter));
        let names = inviters.chain(pairs).collect();
        let (memberships, found) =
            tokio::try_join!(self.count_memberships(wanted, &joining), self.client.get(names, None))?;
        let count = |name: String| {
            let count = found.get(&name).and_then(|document| document.int("count"));
            u32::try_from(count.unwrap_or_default()).unwrap_or_default()
        };
        let inviters = wanted.inviters.iter();
        let invited_by = inviters.map(|inviter| (*inviter, count(self.names.inviter(inviter)))).collect();
        let pairs = wanted.invitations.iter();
        let invitations = pairs.map(|it| (*it, count(self.names.invitations(&it.0, &it.1)))).collect();
        let first = self.get_first_to_give_way(wanted, &memberships).await?;
        Ok(Joining { memberships, first, invited_by, invitations })
    }

    /// How many groups each key is a member of. Keys are counted together first: where the groups of all of them are
    /// fewer than the bound, no key is near it, and the sum stands for each.
    ///
    /// The counts are read beside other commits, which may make the same key a member too: the bound may be exceeded by
    /// the number of commits at one time.
    async fn count_memberships(&self, wanted: &Wanted, keys: &[PublicKey]) -> Result<HashMap<PublicKey, usize>, Fail> {
        let fits = |key: &PublicKey, count: usize| count + times(wanted, key) <= wanted.memberships_max;
        let counting: Vec<_> = keys
            .chunks(VALUES_MAX)
            .map(|some| async move { Ok::<_, Fail>((some, self.count_together(some).await?)) })
            .collect();
        let counts: Vec<(&[PublicKey], usize)> = stream::iter(counting).buffered(COUNTS_MAX).try_collect().await?;
        let mut memberships = HashMap::new();
        let mut near = Vec::new();
        for (some, count) in counts {
            for key in some {
                memberships.insert(*key, count);
                if some.len() > 1 && !fits(key, count) {
                    near.push(*key);
                }
            }
        }
        let counting: Vec<_> = near
            .into_iter()
            .map(|key| async move { Ok::<_, Fail>((key, self.count_together(&[key]).await?)) })
            .collect();
        let counts: Vec<(PublicKey, usize)> = stream::iter(counting).buffered(COUNTS_MAX).try_collect().await?;
        memberships.extend(counts);
        Ok(memberships)
    }

    async fn count_together(&self, keys: &[PublicKey]) -> Result<usize, Fail> {
        let ((heads, _), (shards, _)) = tokio::try_join!(
            self.client.count(query::memberships_of(&self.names, Collection::Groups, keys), COUNTED_MAX),
            self.client.count(query::memberships_of(&self.names, Collection::Members, keys), COUNTED_MAX),
        )?;
        Ok(usize::try_from(heads + shards).unwrap_or(usize::MAX))
    }

    /// The groups of the keys' memberships in which they have not acted.
    pub(crate) async fn invited_groups(&self, keys: &[PublicKey]) -> Result<Vec<NostrGroupId>, Fail> {
        let asking: Vec<_> = keys.iter().map(|key| self.invited_documents(key, MEMBERSHIPS_MAX)).collect();
        let found: Vec<Vec<_>> = stream::iter(asking).buffered(COUNTS_MAX).try_collect().await?;
        let group = |document: Document| named(id_of(&document)).ok_or(Fail::Damaged("a membership"));
        let groups = found.into_iter().flatten().map(|document| Ok(group(document)?.1));
        Ok(groups.collect::<Result<BTreeSet<_>, Fail>>()?.into_iter().collect())
    }

    /// The documents of a key's memberships in which it has not acted, those first that give way first.
    async fn invited_documents(&self, key: &PublicKey, most: usize) -> Result<Vec<Document>, Fail> {
        let prefix = format!("{}_", key.to_hex());
        let behind = self.names.named(Collection::Invited, &prefix);
        let asked = query::every(&self.names, Collection::Invited, Some(&behind), &["by"], most);
        let mut found = self.client.query(asked).await?.documents;
        found.retain(|document| id_of(document).starts_with(&prefix));
        Ok(found)
    }

    /// For keys that come near the bound, as many memberships as the batch may make give way.
    async fn get_first_to_give_way(
        &self,
        wanted: &Wanted,
        memberships: &HashMap<PublicKey, usize>,
    ) -> Result<Vec<(PublicKey, NostrGroupId, Invited, String, Version)>, Fail> {
        let near = memberships.iter().filter(|(key, count)| **count + times(wanted, key) > wanted.memberships_max);
        let asking: Vec<_> = near
            .map(|(key, _)| async move {
                let found = self.invited_documents(key, times(wanted, key)).await?;
                let read = found.into_iter().map(|document| {
                    let (rank, group) = named(id_of(&document)).ok_or(Fail::Damaged("a membership"))?;
                    let invited = Invited::of_rank(rank, inviter(&document));
                    let version = Version::of(Some(&document));
                    Ok((*key, group, invited, document.name, version))
                });
                read.collect::<Result<Vec<_>, Fail>>()
            })
            .collect();
        let found: Vec<Vec<_>> = stream::iter(asking).buffered(COUNTS_MAX).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }

    /// Reads in which of their groups those members have not acted that may act in them, or leave them.
    pub(super) async fn get_invited(
        &self,
        wanted: &Wanted,
        events: &[(&Event, &Effect)],
        groups: &[(NostrGroupId, GroupDoc)],
        facts: &mut Facts,
        documents: &mut ReadDocuments,
    ) -> Result<(), Fail> {
        let mut asked: Vec<(&NostrGroupId, PublicKey, u64)> = Vec::new();
        for (id, group) in groups {
            for key in concerned(wanted, events, id, &group.members) {
                if let Some(rank) = group.members.get(&key).and_then(|member| member.invited_rank)
                    && !self.acted.knows(id, &key, rank)
                {
                    asked.push((id, key, rank));
                }
            }
        }
        let names = asked.iter().map(|(id, key, rank)| self.names.invited(key, *rank, id)).collect();
        let found = self.client.get(names, None).await?;
        for (id, key, rank) in asked {
            let name = self.names.invited(&key, rank, id);
            match found.get(&name) {
                Some(document) => {
                    let invited = Invited::of_rank(rank, inviter(document));
                    facts.invited.entry(key).or_default().insert(id.clone(), invited);
                    documents.invited.insert(name, Version::of(Some(document)));
                }
                None => self.acted.learn(id, &key, rank),
            }
        }
        Ok(())
    }

    /// The members that have not acted, of all these.
    pub(crate) async fn not_acted(
        &self,
        id: &NostrGroupId,
        members: &Members,
    ) -> Result<BTreeMap<PublicKey, Invited>, Fail> {
        let invited = || members.iter().filter_map(|(key, member)| Some((*key, member.invited_rank?)));
        let names = invited().map(|(key, rank)| self.names.invited(&key, rank, id)).collect();
        let found = self.client.get(names, None).await?;
        let standing = invited().filter_map(|(key, rank)| {
            let document = found.get(&self.names.invited(&key, rank, id))?;
            Some((key, Invited::of_rank(rank, inviter(document))))
        });
        Ok(standing.collect())
    }
}

/// How often the batch names a key that may become a member.
fn times(wanted: &Wanted, key: &PublicKey) -> usize {
    wanted.joining.get(key).copied().unwrap_or_default()
}

/// The keys that may become members, by groups that their events may change.
fn may_join(events: &[(&Event, &Effect)], heads: &BTreeMap<&NostrGroupId, GroupHead>) -> BTreeSet<PublicKey> {
    let mut keys = BTreeSet::new();
    // A wrap may change a group that wraps decide, or that another of the batch may found.
    let may_change = |id: &NostrGroupId| {
        heads.get(id).is_some_and(|head| match &head.record {
            Some(record) => record.source == Source::GiftWrap,
            None => !head.unlisted,
        })
    };
    for (_, effect) in events {
        match effect {
            Effect::Roster(change) if change.may_add() => keys.extend(change.keys.iter().chain([&change.signer])),
            Effect::Wrap(change) if !change.unlisted && may_change(&change.group) => {
                keys.insert(change.recipient);
                keys.extend(change.founder);
            }
            _ => {}
        }
    }
    keys
}

/// The members of a group that may act in it by the batch, or leave it.
fn concerned(
    wanted: &Wanted,
    events: &[(&Event, &Effect)],
    id: &NostrGroupId,
    members: &Members,
) -> BTreeSet<PublicKey> {
    let senders = wanted.members.iter().filter(|(group, _)| group == id).map(|(_, key)| *key);
    let mut keys: BTreeSet<PublicKey> = senders.chain(wanted.leaving.iter().copied()).collect();
    if wanted.whole.contains(id) && !events.iter().any(|(_, effect)| matches!(effect, Effect::Roster(_))) {
        // An import replaces the group.
        keys.extend(members.keys());
    }
    for (_, effect) in events {
        let Effect::Roster(change) = effect else { continue };
        if change.group != *id {
            continue;
        }
        keys.insert(change.signer);
        match change.op {
            RosterOp::Remove => keys.extend(&change.keys),
            RosterOp::Replace | RosterOp::Bootstrap => {
                let stay: HashSet<&PublicKey> = change.keys.iter().collect();
                keys.extend(members.keys().filter(|key| !stay.contains(key)));
            }
            RosterOp::Add | RosterOp::Promote | RosterOp::Demote | RosterOp::ResetEpoch => {}
        }
    }
    keys
}

/// The rank and the group in the name of a membership's document.
fn named(id: &str) -> Option<(u64, NostrGroupId)> {
    let (_, rest) = id.split_once('_')?;
    let (rank, group) = rest.split_once('_')?;
    let group = hex::parse_any(group.as_bytes())?;
    Some((u64::from_str_radix(rank, 16).ok()?, NostrGroupId::parse(std::str::from_utf8(&group).ok()?)?))
}

fn inviter(document: &Document) -> Option<PublicKey> {
    PublicKey::from_hex(document.text("by")?)
}
