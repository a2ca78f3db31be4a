//! Single look-ups: whether an event is stored, a group's state, a key's groups, sizes of the store.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use gcloud_sdk::google::firestore::v1::Document;
use nostr_extensions::{Group, GroupStatus, ManagedGroup, NostrGroupId, mls_gateway::group::Invited};
use nostr_protocol::{EventId, PublicKey, UnixSecs};
use parking_lot::Mutex;

use crate::{
    Cost, Cursor, Listed, Stats,
    firestore::{
        Inner,
        documents::{
            events::{EventDocument, WITHOUT_CONTENT},
            groups::{GroupHead, Members, number, read_commits, unpack},
            names::{Collection, field},
            query::{self, VALUES_MAX},
        },
        wire::{clock::through, fail::Fail, value::ReadFields as _},
    },
};

/// Most groups that one query gives.
const MEMBERSHIPS_MAX: usize = 1_000;
/// Most reads of a group that changes while it is read.
const READS_MAX: usize = 8;

/// The last sizes, and the time of the last count.
#[derive(Debug, Default)]
pub(crate) struct StatsCache(Mutex<Counted>);

#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    /// The beginning of the last count, whether or not it had an answer.
    began: Option<Instant>,
    stats: Option<Stats>,
}

impl Inner {
    pub(crate) async fn holds(&self, id: &EventId, now: UnixSecs) -> Result<bool, Fail> {
        let (name, hidden) = (self.names.event(id), self.hiding.now());
        let got = self.client.get(vec![name.clone()], Some(&WITHOUT_CONTENT)).await?;
        match got.get(&name) {
            None => Ok(false),
            Some(document) => {
                let stored = EventDocument::read(document)?;
                Ok(stored.expires_at > now && (stored.is_commit() || !hidden.hides(stored.event.view())))
            }
        }
    }

    pub(crate) async fn group(&self, id: &NostrGroupId) -> Result<(Group, Cursor), Fail> {
        self.client.settle().await;
        self.group_now(id).await
    }

    /// Like [`Inner::group`], without the wait that makes the cursor cover every acknowledged commit.
    pub(crate) async fn group_now(&self, id: &NostrGroupId) -> Result<(Group, Cursor), Fail> {
        for tries in 0..READS_MAX {
            match self.read_group(id).await {
                Err(Fail::Conflict) => self.wait_before(u32::try_from(tries).unwrap_or(u32::MAX)).await,
                read => return read,
            }
        }
        Err(Fail::Conflict)
    }

    /// The members of a group that have not acted, with the group's state.
    pub(crate) async fn group_with_invited(
        &self,
        id: &NostrGroupId,
    ) -> Result<(GroupStatus, BTreeMap<PublicKey, Invited>), Fail> {
        for tries in 0..READS_MAX {
            match self.read_members(id).await {
                Err(Fail::Conflict) => self.wait_before(u32::try_from(tries).unwrap_or(u32::MAX)).await,
                read => {
                    let ((group, _), members) = read?;
                    return Ok((group.status, self.not_acted(id, &members).await?));
                }
            }
        }
        Err(Fail::Conflict)
    }

    async fn read_group(&self, id: &NostrGroupId) -> Result<(Group, Cursor), Fail> {
        Ok(self.read_members(id).await?.0)
    }

    /// Whether the key is a member of the group and has acted in it, and the number of documents that were read.
    pub(crate) async fn has_acted(&self, id: &NostrGroupId, key: &PublicKey) -> Result<(bool, u64), Fail> {
        let head_name = self.names.group(id);
        let got = self.client.get(vec![head_name.clone()], None).await?;
        let head = GroupHead::read(got.get(&head_name))?;
        let mut members = head.inline();
        let shards = head.shards(&self.names, Some(&[*key]));
        // The list and a mark of the membership are read whether the key is a member or not, so the price is the same.
        let documents = 2 + shards.len() as u64;
        let lists = self.client.get(shards.clone(), None).await?;
        for document in shards.iter().filter_map(|shard| lists.get(shard)) {
            let packed = document.bytes("members").unwrap_or_default();
            members.extend(unpack(packed).ok_or(Fail::Damaged("members"))?);
        }
        let Some(member) = members.get(key) else { return Ok((false, documents)) };
        let Some(rank) = member.invited_rank else { return Ok((true, documents)) };
        let name = self.names.invited(key, rank, id);
        Ok((self.client.get(vec![name.clone()], None).await?.get(&name).is_none(), documents))
    }

    async fn read_members(&self, id: &NostrGroupId) -> Result<((Group, Cursor), Members), Fail> {
        let (head_name, epoch_name) = (self.names.group(id), self.names.epoch(id));
        let commits_name = self.names.commits(id);
        let pending = self.epochs.last(id);
        let asked = [&head_name, &epoch_name, &commits_name].map(String::clone).to_vec();
        let got = self.client.get(asked, None).await?;
        let head = GroupHead::read(got.get(&head_name))?;
        let mut members = head.inline();
        let status = match head.record.clone() {
            None if head.unlisted => GroupStatus::Unlisted,
            None => GroupStatus::Unknown,
            Some(mut record) => {
                let stored = got.get(&epoch_name).and_then(|document| document.secs("epoch"));
                record.last_epoch = record.last_epoch.max(stored).max(pending);
                record.commits = read_commits(got.get(&commits_name))?;
                let shards = head.shards(&self.names, None);
                let lists = self.client.get(shards.clone(), None).await?;
                for shard in shards {
                    let document = lists.get(&shard).ok_or(Fail::Conflict)?;
                    let packed = document.bytes("members").unwrap_or_default();
                    members.extend(unpack(packed).ok_or(Fail::Damaged("members"))?);
                }
                let roles = members.iter().map(|(key, member)| (*key, member.role)).collect();
                GroupStatus::Managed(Arc::new(ManagedGroup { record, members: roles }))
            }
        };
        Ok(((Group { id: id.clone(), status }, through(got.read_at)), members))
    }

    /// Those of the groups that have a document. A query for many names costs one read if none of them is there, and
    /// each name that is asked for by itself costs one.
    pub(crate) async fn known_groups(&self, ids: &[NostrGroupId]) -> Result<Vec<NostrGroupId>, Fail> {
        self.client.settle().await;
        let names: Vec<String> = ids.iter().map(|id| self.names.group(id)).collect();
        let asked = names.chunks(VALUES_MAX).map(|names| self.client.query(query::groups_named(&self.names, names)));
        let found = futures_util::future::try_join_all(asked).await?;
        let known: HashSet<String> =
            found.into_iter().flat_map(|found| found.documents).map(|document| document.name).collect();
        let known = ids.iter().zip(&names).filter(|(_, name)| known.contains(*name)).map(|(id, _)| id.clone());
        Ok(known.collect())
    }

    pub(crate) async fn groups_of(&self, keys: &[PublicKey]) -> Result<Vec<NostrGroupId>, Fail> {
        let numbers: Vec<i64> = keys.iter().map(number).collect();
        let asked = numbers.chunks(VALUES_MAX).flat_map(|numbers| {
            [Collection::Groups, Collection::Members].map(|collection| self.memberships(collection, numbers))
        });
        let found = futures_util::future::try_join_all(asked).await?;
        let groups: BTreeSet<NostrGroupId> = found.into_iter().flatten().collect();
        Ok(groups.into_iter().collect())
    }

    /// The first managed groups behind a place. Groups that are not managed have documents too, so a page may be short
    /// though others follow.
    pub(crate) async fn groups_after(
        &self,
        prefix: &str,
        after: Option<&NostrGroupId>,
        most: usize,
    ) -> Result<Listed<NostrGroupId>, Fail> {
        self.client.settle().await;
        let behind = after.map(NostrGroupId::as_str).filter(|after| *after >= prefix);
        let found = self.client.query(query::groups_from(&self.names, prefix, behind, most)).await?.documents;
        let cost = Cost::of_documents(found.len().max(1) as u64);
        let mut next = None;
        let mut entries = Vec::new();
        for document in &found {
            let id = document.text(field::GROUP).and_then(NostrGroupId::parse).ok_or(Fail::Damaged("a group's id"))?;
            if !id.as_str().starts_with(prefix) {
                return Ok(Listed { entries, next: None, cost });
            }
            if document.flag(field::MANAGED) {
                entries.push(id.clone());
            }
            next = Some(id);
        }
        Ok(Listed { entries, next: next.filter(|_| found.len() == most), cost })
    }

    /// The first owners behind a place, by the names of their documents.
    pub(crate) async fn owners_after(&self, after: Option<&PublicKey>, most: usize) -> Result<Listed<PublicKey>, Fail> {
        self.client.settle().await;
        let behind = after.map(|after| self.names.owner(after));
        let asked = query::every(&self.names, Collection::Owners, behind.as_deref(), &[field::NAME], most);
        let found = self.client.query(asked).await?.documents;
        let cost = Cost::of_documents(found.len().max(1) as u64);
        let owner = |document: &Document| document.name.rsplit('/').next().and_then(PublicKey::from_hex);
        let owners = found.iter().map(|document| owner(document).ok_or(Fail::Damaged("an owner's name")));
        let entries = owners.collect::<Result<Vec<PublicKey>, Fail>>()?;
        let next = entries.last().filter(|_| found.len() == most).copied();
        Ok(Listed { entries, next, cost })
    }

    pub(super) async fn memberships(&self, collection: Collection, keys: &[i64]) -> Result<Vec<NostrGroupId>, Fail> {
        let mut groups = Vec::new();
        let mut behind: Option<String> = None;
        loop {
            let asked = query::memberships(&self.names, collection, keys, behind.as_deref(), MEMBERSHIPS_MAX);
            let found = self.client.query(asked).await?.documents;
            groups.extend(found.iter().filter_map(|document| NostrGroupId::parse(document.text(field::GROUP)?)));
            if found.len() < MEMBERSHIPS_MAX {
                return Ok(groups);
            }
            behind = found.last().map(|document| document.name.clone());
        }
    }

    /// The sizes of the last count, which is repeated after [`Options::stats_secs`], failed or not.
    ///
    /// [`Options::stats_secs`]: crate::firestore::Options::stats_secs
    pub(crate) async fn stats(&self) -> Result<Stats, Fail> {
        {
            let mut counted = self.stats.0.lock();
            let is_fresh = |at: Instant| at.elapsed() < Duration::from_secs(self.options.stats_secs);
            if counted.began.is_some_and(is_fresh) {
                let failed = || Fail::Unavailable("the last count had no answer; the next one is due later".to_owned());
                return counted.stats.ok_or_else(failed);
            }
            counted.began = Some(Instant::now());
        }
        // One after the other, so that clients lack the documents of one count at a time.
        let most = self.options.stats_entries_max;
        let (events, _) = self.client.count(query::all_events(&self.names), most).await?;
        let (groups, _) = self.client.count(query::managed_groups(&self.names), most).await?;
        let stats = Stats { events, groups, key_packages: None, bytes_used: 0, bytes_max: 0 };
        self.stats.0.lock().stats = Some(stats);
        Ok(stats)
    }
}
