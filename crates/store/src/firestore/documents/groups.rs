//! Groups as documents: a head with the members in it, or with shards for many members.
//!
//! A shard has its own name and never changes; the head names the current shards. A change of the group writes the head
//! and the shards that differ, in one Commit. A reader of an old head finds its shards, or reads again. Heads and
//! shards list the members' numbers, by which the groups of a key are found.

use std::collections::BTreeMap;

use gcloud_sdk::google::firestore::v1::{Document, Write};
use nostr_extensions::{GroupRecord, NostrGroupId, Role, mls_gateway::group::CommitLog};
use nostr_protocol::PublicKey;

use crate::firestore::{
    documents::names::{Names, field},
    wire::{
        fail::Fail,
        value::{self, Fields, ReadFields as _, Unpack, Version, hex},
    },
};

/// Most members in the head itself, which is read with each batch of messages.
const INLINE_MEMBERS_MAX: usize = 200;
/// Most members in a shard (docs/rules.md, "Elsewhere" 1). A look-up of one key reads one shard.
const SHARD_MEMBERS_MAX: usize = 1_000;
/// Bytes of a shard's name before it is written in hex.
const SHARD_NAME_BYTES: usize = 16;

/// Members in the order of their keys.
pub(crate) type Members = BTreeMap<PublicKey, Member>;

/// A member as a head or a shard lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) role: Role,
    /// Its [`Invited::rank`](nostr_extensions::mls_gateway::group::Invited::rank), where another key made it a member.
    /// It has acted since then if [`Names::invited`] names no document, so that a first act writes no list.
    pub(crate) invited_rank: Option<u64>,
}

impl Member {
    const IS_ADMIN: u8 = 1;
    const WAS_INVITED: u8 = 2;

    fn pack(self, packed: &mut Vec<u8>) {
        let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
        packed.push(
            flag(self.role == Role::Admin, Self::IS_ADMIN) | flag(self.invited_rank.is_some(), Self::WAS_INVITED),
        );
        packed.extend(self.invited_rank.into_iter().flat_map(u64::to_be_bytes));
    }

    fn unpack(left: &mut Unpack<'_>) -> Option<Self> {
        let flags = left.byte()?;
        let role = if flags & Self::IS_ADMIN == 0 { Role::Member } else { Role::Admin };
        let invited_rank = if flags & Self::WAS_INVITED == 0 { None } else { Some(left.u64()?) };
        Some(Self { role, invited_rank })
    }
}

/// A key as a number. Keys with the same number find each other's groups, and no decision depends on it.
pub(crate) fn number(key: &PublicKey) -> i64 {
    let bytes = key.as_bytes();
    i64::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5], bytes[6], bytes[7]])
}

/// A shard's place: it holds the members from `first` on, up to the next shard's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shard {
    first: PublicKey,
    name: [u8; SHARD_NAME_BYTES],
}

#[derive(Clone, Debug)]
enum Lists {
    Inline(Members),
    Shards(Vec<Shard>),
}

/// A group as it is stored, without the members in shards.
#[derive(Clone, Debug)]
pub(crate) struct GroupHead {
    pub(crate) version: Version,
    /// Whether the group carried unlisted messages.
    pub(crate) unlisted: bool,
    /// The record of a managed group.
    pub(crate) record: Option<GroupRecord>,
    lists: Lists,
}

impl GroupHead {
    /// Reads a document; without one, the head of an unknown group.
    pub(crate) fn read(document: Option<&Document>) -> Result<Self, Fail> {
        let damaged = || Fail::Damaged("a group's head");
        let version = Version::of(document);
        let Some(document) = document else {
            return Ok(Self { version, unlisted: false, record: None, lists: Lists::Inline(Members::new()) });
        };
        let record = match document.text("record") {
            Some(json) => Some(serde_json::from_str(json).map_err(|_| damaged())?),
            None => None,
        };
        let lists = match document.bytes("shards") {
            Some(packed) => Lists::Shards(unpack_shards(packed).ok_or_else(damaged)?),
            None => Lists::Inline(unpack(document.bytes("members").unwrap_or_default()).ok_or_else(damaged)?),
        };
        Ok(Self { version, unlisted: document.flag("unlisted"), record, lists })
    }

    /// Names of the shards that hold these keys; `None` stands for all shards.
    pub(crate) fn shards(&self, names: &Names, keys: Option<&[PublicKey]>) -> Vec<String> {
        let Lists::Shards(shards) = &self.lists else { return Vec::new() };
        let mut wanted: Vec<usize> = match keys {
            None => (0..shards.len()).collect(),
            Some(keys) => keys.iter().map(|key| place(shards, key)).collect(),
        };
        wanted.sort_unstable();
        wanted.dedup();
        wanted.into_iter().map(|n| names.members(&hex(&shards[n].name))).collect()
    }

    /// The members in the head itself.
    pub(crate) fn inline(&self) -> Members {
        match &self.lists {
            Lists::Inline(members) => members.clone(),
            Lists::Shards(_) => Members::new(),
        }
    }

    /// The writes that turn the group into `next`.
    pub(crate) fn change(
        &self,
        names: &Names,
        group: &NostrGroupId,
        next: &NextGroup,
        mut random: impl FnMut() -> [u8; SHARD_NAME_BYTES],
    ) -> Result<Vec<Write>, Fail> {
        let mut writes = Vec::new();
        let mut head = Fields::default().text(field::GROUP, group.as_str());
        if next.unlisted {
            head = head.flag("unlisted", true);
        }
        if let Some(record) = &next.record {
            // The log of commits has a document of its own, so that a commit writes no head.
            let record = GroupRecord { commits: None, ..record.clone() };
            let json = serde_json::to_string(&record).map_err(|_| Fail::Damaged("a group's record"))?;
            head = head.flag(field::MANAGED, true).text("record", &json);
        }
        let old: &[Shard] = if let Lists::Shards(shards) = &self.lists { shards } else { &[] };
        let mut kept: Vec<Shard> = Vec::new();
        if next.members.len() <= INLINE_MEMBERS_MAX {
            head = head.bytes("members", pack(&next.members)).ints(field::KEYS, &numbers(&next.members));
        } else {
            for part in divide(old, &next.before, &next.members) {
                let shard = match part {
                    NextShard::Kept(shard) => shard,
                    NextShard::New(first, members) => {
                        let shard = Shard { first, name: random() };
                        let fields = Fields::default()
                            .text(field::GROUP, group.as_str())
                            .bytes("members", pack(&members))
                            .ints(field::KEYS, &numbers(&members));
                        writes.push(value::put(names.members(&hex(&shard.name)), fields, Version::Absent));
                        shard
                    }
                };
                kept.push(shard);
            }
            let packed = kept.iter().flat_map(|shard| shard.first.as_bytes().iter().chain(&shard.name).copied());
            head = head.bytes("shards", packed.collect());
        }
        writes.push(value::put(names.group(group), head, self.version));
        let gone = old.iter().filter(|shard| !kept.contains(shard));
        writes.extend(gone.map(|shard| value::delete(names.members(&hex(&shard.name)))));
        Ok(writes)
    }
}

/// A group as a change leaves it.
#[derive(Clone, Debug)]
pub(crate) struct NextGroup {
    pub(crate) unlisted: bool,
    pub(crate) record: Option<GroupRecord>,
    /// All members before the change.
    pub(crate) before: Members,
    /// All members after the change.
    pub(crate) members: Members,
}

/// The shard of a key.
fn place(shards: &[Shard], key: &PublicKey) -> usize {
    shards.partition_point(|shard| shard.first <= *key).saturating_sub(1)
}

enum NextShard {
    Kept(Shard),
    New(PublicKey, Members),
}

/// Deals members out to shards, and keeps the shards whose members stay the same.
fn divide(old: &[Shard], before: &Members, members: &Members) -> Vec<NextShard> {
    let deal = |members: &Members| {
        let mut dealt = vec![Members::new(); old.len().max(1)];
        for (key, member) in members {
            dealt[if old.is_empty() { 0 } else { place(old, key) }].insert(*key, *member);
        }
        dealt
    };
    let dealt = deal(members);
    // Few members in many shards are dealt out anew.
    let few = dealt.iter().filter(|part| !part.is_empty()).count() > 2 * members.len().div_ceil(SHARD_MEMBERS_MAX) + 2;
    if old.is_empty() || few {
        return split(members);
    }
    let mut parts = Vec::new();
    for ((shard, before), after) in old.iter().zip(deal(before)).zip(dealt) {
        if before == after {
            parts.push(NextShard::Kept(shard.clone()));
        } else {
            parts.extend(split(&after));
        }
    }
    parts
}

/// Shards of equal size, none above the limit.
fn split(members: &Members) -> Vec<NextShard> {
    let count = members.len().div_ceil(SHARD_MEMBERS_MAX).max(1);
    let size = members.len().div_ceil(count).max(1);
    let all: Vec<(PublicKey, Member)> = members.iter().map(|(key, member)| (*key, *member)).collect();
    all.chunks(size).map(|part| NextShard::New(part[0].0, part.iter().copied().collect())).collect()
}

fn numbers(members: &Members) -> Vec<i64> {
    members.keys().map(number).collect()
}

fn pack(members: &Members) -> Vec<u8> {
    let mut packed = Vec::with_capacity(members.len() * 41);
    for (key, member) in members {
        packed.extend_from_slice(key.as_bytes());
        member.pack(&mut packed);
    }
    packed
}

/// Reads the log of a group's commits.
pub(crate) fn read_commits(document: Option<&Document>) -> Result<Option<CommitLog>, Fail> {
    let json = document.and_then(|document| document.text("log"));
    json.map(|json| serde_json::from_str(json).map_err(|_| Fail::Damaged("a group's commits"))).transpose()
}

/// The write that sets the log of a group's commits, if the log of that version changes.
pub(crate) fn write_commits(
    names: &Names,
    group: &NostrGroupId,
    (version, before): &(Version, Option<CommitLog>),
    after: Option<&CommitLog>,
) -> Result<Option<Write>, Fail> {
    let name = names.commits(group);
    Ok(match after {
        _ if before.as_ref() == after => None,
        None => Some(value::delete_expected(name, *version)),
        Some(log) => {
            let json = serde_json::to_string(log).map_err(|_| Fail::Damaged("a group's commits"))?;
            Some(value::put(name, Fields::default().text("log", &json), *version))
        }
    })
}

/// Reads the packed members of a head or a shard.
pub(crate) fn unpack(packed: &[u8]) -> Option<Members> {
    let mut left = Unpack(packed);
    let mut members = Members::new();
    while !left.is_empty() {
        let key = left.key()?;
        members.insert(key, Member::unpack(&mut left)?);
    }
    Some(members)
}

fn unpack_shards(packed: &[u8]) -> Option<Vec<Shard>> {
    let mut left = Unpack(packed);
    let mut shards = Vec::new();
    while !left.is_empty() {
        shards.push(Shard { first: left.key()?, name: left.array()? });
    }
    Some(shards)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(of: impl Iterator<Item = u16>) -> Members {
        of.map(|n| {
            let mut bytes = [0; 32];
            bytes[..2].copy_from_slice(&n.to_be_bytes());
            (PublicKey::from_bytes(bytes), Member { role: Role::Member, invited_rank: Some(n.into()) })
        })
        .collect()
    }

    fn sizes(parts: &[NextShard]) -> Vec<Option<usize>> {
        parts
            .iter()
            .map(|part| if let NextShard::New(_, members) = part { Some(members.len()) } else { None })
            .collect()
    }

    #[test]
    fn a_shard_is_written_again_only_where_it_changed() {
        let all = members(0..3_000);
        let parts = divide(&[], &Members::new(), &all);
        assert_eq!(sizes(&parts), [Some(1_000); 3]);
        let shards: Vec<Shard> = parts
            .iter()
            .zip(0..)
            .map(|(part, n)| match part {
                NextShard::New(first, _) => Shard { first: *first, name: [n; SHARD_NAME_BYTES] },
                NextShard::Kept(_) => unreachable!("there was none"),
            })
            .collect();
        let without = members((0..3_000).filter(|n| *n != 1_500));
        assert_eq!(sizes(&divide(&shards, &all, &without)), [None, Some(999), None]);
        let with = members(0..3_001);
        assert_eq!(sizes(&divide(&shards, &all, &with)), [None, None, Some(501), Some(500)]);
        assert_eq!(sizes(&divide(&shards, &all, &members(1_000..3_000))), [None, None], "an empty shard goes");
        let key = |n: u16| *members(n..n + 1).keys().next().expect("one");
        assert_eq!([0, 999, 1_000, 2_999, 9_999].map(|n| place(&shards, &key(n))), [0, 0, 1, 2, 2]);
    }
}
