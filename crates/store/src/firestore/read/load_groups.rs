//! The groups that a batch needs.

use std::{collections::BTreeSet, sync::Arc};

use nostr_extensions::{ManagedGroup, NostrGroupId, Source};
use nostr_protocol::PublicKey;

use crate::{
    decide::facts::{Facts, GroupFacts, Wanted},
    firestore::{
        Inner,
        documents::groups::{GroupHead, read_commits, unpack},
        read::load::{FirstReads, GroupDoc, ReadDocuments, is_guarded},
        wire::{
            client::GetAnswer,
            fail::Fail,
            value::{ReadFields as _, Version},
        },
    },
};

impl Inner {
    /// The groups that are wanted or left, each with the members that are wanted of it.
    pub(crate) async fn get_groups(
        &self,
        wanted: &Wanted,
        first: &FirstReads,
        left: &[NostrGroupId],
        give_way: &BTreeSet<NostrGroupId>,
    ) -> Result<Vec<(NostrGroupId, GroupDoc)>, Fail> {
        let left: BTreeSet<&NostrGroupId> =
            left.iter().chain(give_way).filter(|id| !wanted.groups.contains(id)).collect();
        let heads = self.client.get(left.iter().map(|id| self.names.group(id)).collect(), None).await?;
        let mut groups = Vec::new();
        for id in &wanted.groups {
            let guarded = is_guarded(wanted, id);
            let got = if guarded { &first.guarded } else { &first.plain };
            let head = GroupHead::read(got.get(&self.names.group(id)))?;
            let by_wraps = || head.record.as_ref().is_some_and(|record| record.source == Source::GiftWrap);
            let is_whole =
                wanted.whole.contains(id) || give_way.contains(id) || (wanted.wrapped.contains(id) && by_wraps());
            let asked = wanted.members.iter().filter(|(group, _)| group == id).map(|(_, key)| *key);
            let keys = if is_whole { None } else { Some(asked.collect::<Vec<PublicKey>>()) };
            groups.push((id.clone(), head, keys, guarded));
        }
        for id in left {
            // The decision relies on no group in which a member only may give way.
            let guarded = give_way.contains(id);
            groups.push((id.clone(), GroupHead::read(heads.get(&self.names.group(id)))?, None, guarded));
        }
        let shards = groups.iter().flat_map(|(_, head, keys, _)| head.shards(&self.names, keys.as_deref()));
        let shards = self.client.get(shards.collect(), None).await?;
        let mut read = Vec::new();
        for (id, head, keys, guarded) in groups {
            let mut members = head.inline();
            for shard in head.shards(&self.names, keys.as_deref()) {
                // A missing shard means that the group has changed since its head was read.
                let document = shards.get(&shard).ok_or(Fail::Conflict)?;
                members.extend(unpack(document.bytes("members").unwrap_or_default()).ok_or(Fail::Damaged("members"))?);
            }
            read.push((id, GroupDoc { head, members, guarded }));
        }
        Ok(read)
    }

    pub(crate) fn read_groups(
        &self,
        wanted: &Wanted,
        groups: Vec<(NostrGroupId, GroupDoc)>,
        plain: &GetAnswer,
        facts: &mut Facts,
        documents: &mut ReadDocuments,
    ) -> Result<(), Fail> {
        for id in &wanted.ordered {
            let document = plain.get(&self.names.commits(id));
            documents.commits.insert(id.clone(), (Version::of(document), read_commits(document)?));
        }
        for (id, group) in groups {
            let mut view = group.head.record.clone().map(|record| ManagedGroup {
                record,
                members: group.members.iter().map(|(key, member)| (*key, member.role)).collect(),
            });
            if let Some(view) = &mut view {
                let stored = plain.get(&self.names.epoch(&id)).and_then(|document| document.secs("epoch"));
                view.record.last_epoch = view.record.last_epoch.max(stored);
                if wanted.members.iter().any(|(group, _)| *group == id) {
                    self.epochs.learn(&id, view.record.last_epoch);
                }
                view.record.last_epoch = view.record.last_epoch.max(self.epochs.last(&id));
                view.record.commits = documents.commits.get(&id).and_then(|(_, commits)| commits.clone());
            }
            if view.is_some() || group.head.unlisted {
                let view = view.map(Arc::new);
                facts.groups.insert(id.clone(), GroupFacts { view, unlisted: group.head.unlisted });
            }
            // A group that was left and has lost its record is not written.
            if wanted.groups.contains(&id) || group.head.record.is_some() {
                documents.groups.insert(id, group);
            }
        }
        Ok(())
    }
}
