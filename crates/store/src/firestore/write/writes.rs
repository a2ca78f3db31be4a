//! The changes of a batch as the writes of one Commit, at most one for each document.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use gcloud_sdk::google::firestore::v1::Write;
use nostr_extensions::{NostrGroupId, mls_gateway::group::Invited};
use nostr_protocol::{EventId, PublicKey, UnixSecs};

use crate::{
    decide::{
        EPHEMERAL,
        batch::{Changes, MemberChange, RecordChange},
        facts::Address,
    },
    firestore::{
        Inner,
        documents::{
            commits, events,
            groups::{Member, Members, NextGroup, write_commits},
            names::field,
            packages::Package,
        },
        read::load::ReadDocuments,
        wire::{
            fail::Fail,
            value::{self, Fields, Version},
        },
    },
};

impl Inner {
    /// The writes that carry out `changes`. The events take the places from `place` on.
    pub(crate) fn writes(
        &self,
        changes: &Changes,
        documents: &mut ReadDocuments,
        place: u64,
    ) -> Result<Vec<Write>, Fail> {
        let now = changes.put.iter().map(|put| put.received_at).min().unwrap_or_default();
        let mut writes = Vec::new();
        let mut entries = commits::PackedEntries::default();
        let mut removed: BTreeSet<&EventId> = changes.removed.iter().map(|(_, id)| id).collect();
        for (put, place) in changes.put.iter().zip(place..) {
            entries.push(put);
            if !put.gone && put.flags & EPHEMERAL == 0 {
                let replaces = removed.remove(&put.event.id());
                writes.push(events::put(&self.names, put, place, replaces));
            }
        }
        if let Some(mark) = &changes.mark {
            entries.push_mark(&mark.touches);
        }
        if entries.byte_len() > commits::ENTRIES_BYTES_MAX {
            return Err(Fail::Large);
        }
        if changes.places() > 0 {
            writes.push(commits::put(&self.names, &self.random.id(), place, entries));
        }
        writes.extend(removed.iter().map(|id| value::delete(self.names.event(id))));
        for (key, public) in &changes.tombstones {
            let name = self.names.tombstone(key);
            writes.push(value::set(name, Fields::default().flag("public", *public)));
        }
        let claimed = changes.claimed.iter().map(|claimed| self.names.claimed(claimed));
        writes.extend(claimed.map(|name| value::set(name, Fields::default())));
        for (key, until) in &changes.vanished {
            let fields = Fields::default().number("until", *until).flag(field::PENDING, true);
            writes.push(value::set(self.names.vanished(key), fields));
        }
        self.address_writes(changes, documents, &mut writes);
        self.package_writes(changes, documents, now, &mut writes)?;
        self.group_writes(changes, documents, &mut writes)?;
        self.founder_writes(changes, documents, &mut writes);
        Ok(writes)
    }

    fn address_writes(&self, changes: &Changes, documents: &mut ReadDocuments, writes: &mut Vec<Write>) {
        let gone = gone(changes);
        let mut touched: BTreeSet<Address> = BTreeSet::new();
        let mut buried = BTreeMap::new();
        for (address, until) in &changes.address_tombstones {
            if let Some(document) = documents.addresses.get_mut(address) {
                touched.insert(*address);
                document.deleted_until = Some(*until);
            } else {
                // The address of a KeyPackage that gave way was not read.
                let known: &mut UnixSecs = buried.entry(*address).or_default();
                *known = (*known).max(*until);
            }
        }
        for put in &changes.put {
            let Some(address) = put.address else { continue };
            touched.insert(address);
            if let Some(document) = documents.addresses.get_mut(&address) {
                document.holder = Some((put.event.id(), put.event.created_at(), put.expires_at));
            }
        }
        for address in touched {
            let Some(document) = documents.addresses.get(&address) else { continue };
            let name = self.names.address(&address);
            let holder = document.holder.filter(|(id, ..)| !gone.contains(id));
            if holder.is_none() && document.deleted_until.is_none() {
                if document.version != Version::Absent {
                    writes.push(value::delete_expected(name, document.version));
                }
                continue;
            }
            let mut fields = Fields::default();
            if let Some((id, created_at, expires_at)) = holder {
                fields = fields
                    .text("event", &id.to_hex())
                    .number(field::CREATED_AT, created_at)
                    .number("expires", expires_at);
            }
            if let Some(until) = document.deleted_until {
                fields = fields.number(field::DELETED_UNTIL, until);
            }
            writes.push(value::put(name, fields, document.version));
        }
        let raised = |(address, until)| value::raise(self.names.address(&address), field::DELETED_UNTIL, until);
        writes.extend(buried.into_iter().map(raised));
    }

    fn package_writes(
        &self,
        changes: &Changes,
        documents: &mut ReadDocuments,
        now: UnixSecs,
        writes: &mut Vec<Write>,
    ) -> Result<(), Fail> {
        let removed: HashSet<&EventId> = changes.removed.iter().map(|(_, id)| id).collect();
        for directory in documents.owners.values_mut() {
            directory.retain(|package| !removed.contains(&package.id));
        }
        for put in &changes.put {
            let Some(package) = &put.package else { continue };
            let Some(directory) = documents.owners.get_mut(&package.owner) else { continue };
            directory.add(Package {
                id: put.event.id(),
                content_hash: package.content_hash,
                reference: package.reference.map(|(_, hash)| hash),
                last_resort: package.last_resort,
                is_addressable: package.is_addressable,
                slot: put.address.and_then(|address| address.last_chunk().copied()),
                created_at: put.event.created_at(),
                expires_at: put.expires_at,
            });
        }
        let gone = gone(changes);
        for (owner, directory) in &mut documents.owners {
            let vanished = changes.vanished.iter().find(|(key, _)| key == owner).map(|(_, until)| *until);
            let vanished = |package: &Package| vanished.is_some_and(|until| package.created_at <= until);
            directory.retain(|package| !gone.contains(&package.id) && !vanished(package));
            writes.extend(directory.write(&self.names, owner, now)?);
        }
        Ok(())
    }

    pub(crate) fn group_writes(
        &self,
        changes: &Changes,
        documents: &ReadDocuments,
        writes: &mut Vec<Write>,
    ) -> Result<(), Fail> {
        let mut next: BTreeMap<&NostrGroupId, NextGroup> = BTreeMap::new();
        let mut commits = BTreeMap::new();
        let base = |group: &NostrGroupId| {
            let known = documents.groups.get(group).ok_or(Fail::Damaged("a group that was not read"))?;
            let (unlisted, record, members) = (known.head.unlisted, known.head.record.clone(), known.members.clone());
            Ok::<NextGroup, Fail>(NextGroup { unlisted, record, before: members.clone(), members })
        };
        for group in &changes.unlisted {
            next.insert(group, NextGroup { unlisted: true, ..base(group)? });
        }
        for change in &changes.groups {
            if let (Some(record), Some(read)) = (change.record.record(), documents.commits.get(&change.group)) {
                commits.insert(&change.group, (read, record.commits.as_ref()));
            }
            // Neither a first act nor a commit changes a head.
            let is_acts = change.members.iter().all(|(_, it)| matches!(it, MemberChange::Acts(_)));
            if is_acts && !matches!(change.record, RecordChange::Whole(_)) {
                continue;
            }
            if !next.contains_key(&change.group) {
                next.insert(&change.group, base(&change.group)?);
            }
            let Some(group) = next.get_mut(&change.group) else { continue };
            if let Some(record) = change.record.record() {
                group.record = Some(record.clone());
            }
            for (key, change) in &change.members {
                change_list(&mut group.members, *key, *change);
            }
        }
        for (group, (read, after)) in commits {
            writes.extend(write_commits(&self.names, group, read, after)?);
        }
        self.invited_writes(changes, documents, writes);
        for (id, group) in &documents.groups {
            match next.get(id) {
                Some(next) => writes.extend(group.head.change(&self.names, id, next, || self.random.bytes())?),
                // A head that the decision relied on, and that no transaction guards, must keep its version.
                None if !group.guarded && !changes.put.is_empty() => {
                    writes.push(value::verify(self.names.group(id), group.head.version));
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Writes and removes the documents of memberships in which the key has not acted, and counts them for the keys
    /// that made them.
    fn invited_writes(&self, changes: &Changes, documents: &ReadDocuments, writes: &mut Vec<Write>) {
        // The document of each changed membership, or `None` where it goes.
        let mut next: BTreeMap<String, Option<Invited>> = BTreeMap::new();
        let mut counts: BTreeMap<String, i64> = BTreeMap::new();
        let all =
            changes.groups.iter().flat_map(|it| it.members.iter().map(move |(key, change)| (&it.group, key, change)));
        for (group, key, change) in all {
            let (invited, by) = match change {
                MemberChange::Joins(_, Some(invited)) => (invited, 1),
                MemberChange::Leaves(Some(was)) | MemberChange::Acts(was) => (was, -1),
                MemberChange::Leaves(None) | MemberChange::Joins(_, None) | MemberChange::Takes(_) => continue,
            };
            if let Some(inviter) = &invited.by {
                *counts.entry(self.names.inviter(inviter)).or_default() += by;
                *counts.entry(self.names.invitations(key, inviter)).or_default() += by;
            }
            next.insert(self.names.invited(key, invited.rank(), group), (by > 0).then_some(*invited));
        }
        for (name, invited) in next {
            match (invited, documents.invited.get(&name)) {
                (Some(invited), _) => {
                    let fields = match invited.by {
                        Some(inviter) => Fields::default().text("by", &inviter.to_hex()),
                        None => Fields::default(),
                    };
                    writes.push(value::set(name, fields));
                }
                // One of several events wins that act for the first time, or that have the membership give way.
                (None, Some(version)) => writes.push(value::delete_expected(name, *version)),
                // It was made by this batch.
                (None, None) => {}
            }
        }
        let counts = counts.into_iter().filter(|(_, by)| *by != 0);
        writes.extend(counts.map(|(name, by)| value::increase(name, "count", by)));
    }

    fn founder_writes(&self, changes: &Changes, documents: &mut ReadDocuments, writes: &mut Vec<Write>) {
        for (founder, at) in &changes.founded {
            if let Some((_, times)) = documents.founders.get_mut(founder) {
                times.push(*at);
            }
        }
        let founders: BTreeSet<_> = changes.founded.iter().map(|(founder, _)| founder).collect();
        for founder in founders {
            let Some((state, times)) = documents.founders.get(founder) else { continue };
            let times = times.iter().flat_map(|at| at.to_be_bytes()).collect();
            writes.push(value::put(self.names.founder(founder), Fields::default().bytes("times", times), *state));
        }
    }
}

/// Changes a list of members.
fn change_list(members: &mut Members, key: PublicKey, change: MemberChange) {
    match change {
        MemberChange::Leaves(_) => drop(members.remove(&key)),
        MemberChange::Takes(role) => {
            if let Some(member) = members.get_mut(&key) {
                member.role = role;
            }
        }
        MemberChange::Joins(role, invited) => {
            members.insert(key, Member { role, invited_rank: invited.map(|invited| invited.rank()) });
        }
        MemberChange::Acts(_) => {}
    }
}

/// Events that are gone after the changes. An expired event that is removed may be put anew.
fn gone(changes: &Changes) -> HashSet<EventId> {
    let mut gone: HashSet<EventId> = changes.removed.iter().map(|(_, id)| *id).collect();
    for put in &changes.put {
        if put.gone {
            gone.insert(put.event.id());
        } else {
            gone.remove(&put.event.id());
        }
    }
    gone
}
