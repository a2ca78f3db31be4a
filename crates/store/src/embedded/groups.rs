//! Groups: their records and members, and the epochs that their messages show.
//!
//! [`nostr_extensions::mls_gateway::group`] decides the effect of a roster, a wrap or a vanishing key. This module
//! reads and writes the state.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
};

use heed::{RoTxn, RwTxn};
use nostr_extensions::{
    GroupRecord, GroupStatus, ManagedGroup, NostrGroupId, Role,
    mls_gateway::group::{Changed, Invited},
};
use nostr_protocol::{DAY_SECS, PublicKey, UnixSecs};

use super::{
    fail::Fail,
    keys::{Key, number_from},
    tables::Tables,
};
use crate::{Cursor, decide::lookup::Membership};

/// Most groups that [`KnownGroups`] remembers.
const KNOWN_GROUPS_MAX: usize = 65_536;
/// Most groups whose last epoch is kept in memory.
const EPOCHS_MAX: usize = 65_536;

fn members_prefix(group: &NostrGroupId) -> Vec<u8> {
    let mut key = Vec::with_capacity(group.as_str().len() + 33);
    key.extend_from_slice(group.as_str().as_bytes());
    key.push(0);
    key
}

fn member(group: &NostrGroupId, key: &PublicKey) -> Vec<u8> {
    let mut out = members_prefix(group);
    out.extend_from_slice(key.as_bytes());
    out
}

fn membership(key: &PublicKey, group: &NostrGroupId) -> Vec<u8> {
    [key.as_bytes(), group.as_str().as_bytes()].concat()
}

fn invited_key(key: &PublicKey, rank: u64, group: &NostrGroupId) -> Vec<u8> {
    [&key.as_bytes()[..], &rank.to_be_bytes(), group.as_str().as_bytes()].concat()
}

/// The group of a membership in which the key has not acted, by the name of its entry.
fn invited_group(name: &[u8]) -> Result<NostrGroupId, Fail> {
    let id = std::str::from_utf8(name.get(40..).unwrap_or_default()).ok().and_then(NostrGroupId::parse);
    id.ok_or(Fail::Corrupt("a membership has no group"))
}

/// The value of a member: its role, and its [`Invited::rank`] while it has not acted.
fn member_value(role: Role, rank: Option<u64>) -> Vec<u8> {
    let mut value = vec![u8::from(role == Role::Admin)];
    value.extend(rank.into_iter().flat_map(u64::to_be_bytes));
    value
}

/// The [`Invited::rank`] of a member; `None` for one that has acted, as every older store has them.
fn invited_rank(value: &[u8]) -> Option<u64> {
    value.get(1..9).map(number_from)
}

/// The numbers that are kept of a key.
#[derive(Clone, Copy, Default)]
struct Counts {
    memberships: u32,
    invited: u32,
}

fn role_from(byte: Option<&u8>) -> Result<Role, Fail> {
    match byte {
        Some(0) => Ok(Role::Member),
        Some(1) => Ok(Role::Admin),
        _ => Err(Fail::Corrupt("a member has no role")),
    }
}

impl Tables {
    pub(super) fn group_record(&self, txn: &RoTxn<'_>, group: &NostrGroupId) -> Result<Option<GroupRecord>, Fail> {
        let Some(json) = self.groups.get(txn, group.as_str().as_bytes())? else { return Ok(None) };
        serde_json::from_slice(json).map(Some).map_err(|_| Fail::Corrupt("a group's record does not read"))
    }

    pub(super) fn put_group_record(
        &self,
        txn: &mut RwTxn<'_>,
        group: &NostrGroupId,
        record: &GroupRecord,
    ) -> Result<(), Fail> {
        let json = serde_json::to_vec(record).map_err(|_| Fail::Corrupt("a group's record does not write"))?;
        self.groups.put(txn, group.as_str().as_bytes(), &json)
    }

    pub(super) fn is_managed(&self, txn: &RoTxn<'_>, group: &NostrGroupId) -> Result<bool, Fail> {
        Ok(self.groups.get(txn, group.as_str().as_bytes())?.is_some())
    }

    pub(super) fn is_unlisted(&self, txn: &RoTxn<'_>, group: &NostrGroupId) -> Result<bool, Fail> {
        Ok(self.unlisted.get(txn, group.as_str().as_bytes())?.is_some())
    }

    pub(super) fn membership(
        &self,
        txn: &RoTxn<'_>,
        group: &NostrGroupId,
        key: &PublicKey,
    ) -> Result<Option<Membership>, Fail> {
        let Some(value) = self.members.get(txn, &member(group, key))? else { return Ok(None) };
        let invited = match invited_rank(value) {
            Some(rank) => Some(Invited::of_rank(rank, self.inviter(txn, group, key, rank)?)),
            None => None,
        };
        Ok(Some(Membership { invited }))
    }

    /// The key that a membership counts against.
    fn inviter(
        &self,
        txn: &RoTxn<'_>,
        group: &NostrGroupId,
        key: &PublicKey,
        rank: u64,
    ) -> Result<Option<PublicKey>, Fail> {
        let value = self.invited.get(txn, &invited_key(key, rank, group))?;
        Ok(value.and_then(|inviter| inviter.try_into().ok()).map(PublicKey::from_bytes))
    }

    /// The first to give way of the key's memberships in which it has not acted.
    pub(super) fn first_to_give_way(
        &self,
        txn: &RoTxn<'_>,
        key: &PublicKey,
    ) -> Result<Option<(NostrGroupId, Invited)>, Fail> {
        let Some(found) = self.invited.prefix_iter(txn, key.as_bytes())?.next() else { return Ok(None) };
        let (tail, inviter) = found?;
        let by = inviter.try_into().ok().map(PublicKey::from_bytes);
        let invited = Invited::of_rank(number_from(&tail[32..40]), by);
        Ok(Some((invited_group(tail)?, invited)))
    }

    /// The groups of the keys' memberships in which they have not acted.
    pub(super) fn invited_groups(&self, txn: &RoTxn<'_>, keys: &[PublicKey]) -> Result<BTreeSet<NostrGroupId>, Fail> {
        let mut groups = BTreeSet::new();
        for key in keys {
            for entry in self.invited.prefix_iter(txn, key.as_bytes())? {
                groups.insert(invited_group(entry?.0)?);
            }
        }
        Ok(groups)
    }

    /// The members of a group that have not acted.
    pub(super) fn invited_members(
        &self,
        txn: &RoTxn<'_>,
        group: &NostrGroupId,
    ) -> Result<BTreeMap<PublicKey, Invited>, Fail> {
        let prefix = members_prefix(group);
        let mut invited = BTreeMap::new();
        for entry in self.members.prefix_iter(txn, &prefix)? {
            let (key, value) = entry?;
            if let Some(rank) = invited_rank(value) {
                let key = key[prefix.len()..].try_into().map_err(|_| Fail::Corrupt("a member has no key"))?;
                let key = PublicKey::from_bytes(key);
                invited.insert(key, Invited::of_rank(rank, self.inviter(txn, group, &key, rank)?));
            }
        }
        Ok(invited)
    }

    /// The numbers that are kept of a key. A store that was made before they were kept counts memberships once.
    fn counts_of(&self, txn: &RoTxn<'_>, key: &PublicKey) -> Result<Counts, Fail> {
        if let Some(value) = self.counts.get(txn, key.as_bytes())? {
            let (memberships, invited) =
                value.split_at_checked(4).ok_or(Fail::Corrupt("a key's counts are cut short"))?;
            let number = |bytes: &[u8]| u32::try_from(number_from(bytes)).unwrap_or(u32::MAX);
            return Ok(Counts { memberships: number(memberships), invited: number(invited) });
        }
        let memberships = self.memberships.prefix_iter(txn, key.as_bytes())?.count();
        Ok(Counts { memberships: u32::try_from(memberships).unwrap_or(u32::MAX), invited: 0 })
    }

    /// Changes the numbers of a key, before the memberships themselves.
    fn count(&self, txn: &mut RwTxn<'_>, key: &PublicKey, memberships: i32, invited: i32) -> Result<(), Fail> {
        let before = self.counts_of(txn, key)?;
        let memberships = before.memberships.saturating_add_signed(memberships);
        let value = [memberships.to_be_bytes(), before.invited.saturating_add_signed(invited).to_be_bytes()].concat();
        Ok(self.counts.put(txn, key.as_bytes(), &value)?)
    }

    pub(super) fn memberships_of(&self, txn: &RoTxn<'_>, key: &PublicKey) -> Result<usize, Fail> {
        Ok(self.counts_of(txn, key)?.memberships as usize)
    }

    pub(super) fn invited_by(&self, txn: &RoTxn<'_>, inviter: &PublicKey) -> Result<u32, Fail> {
        Ok(self.counts_of(txn, inviter)?.invited)
    }

    /// How many of the member's memberships count against the inviter. It looks at all in which the member has not
    /// acted: at most [`nostr_extensions::mls_gateway::group::MEMBERSHIPS_MAX`].
    pub(super) fn invitations(&self, txn: &RoTxn<'_>, member: &PublicKey, inviter: &PublicKey) -> Result<u32, Fail> {
        let mut count = 0;
        for entry in self.invited.prefix_iter(txn, member.as_bytes())? {
            count += u32::from(entry?.1 == inviter.as_bytes());
        }
        Ok(count)
    }

    /// A group's state with all its members. The record's last epoch may be older than the one in [`Epochs`].
    pub(super) fn group_status(&self, txn: &RoTxn<'_>, group: &NostrGroupId) -> Result<GroupStatus, Fail> {
        let Some(record) = self.group_record(txn, group)? else {
            let unlisted = self.is_unlisted(txn, group)?;
            return Ok(if unlisted { GroupStatus::Unlisted } else { GroupStatus::Unknown });
        };
        let prefix = members_prefix(group);
        let mut members = HashMap::new();
        for entry in self.members.prefix_iter(txn, &prefix)? {
            let (key, role) = entry?;
            let key = key[prefix.len()..].try_into().map_err(|_| Fail::Corrupt("a member has no key"))?;
            members.insert(PublicKey::from_bytes(key), role_from(role.first())?);
        }
        Ok(GroupStatus::Managed(Arc::new(ManagedGroup { record, members })))
    }

    pub(super) fn groups_of(&self, txn: &RoTxn<'_>, keys: &[PublicKey]) -> Result<BTreeSet<NostrGroupId>, Fail> {
        let mut groups = BTreeSet::new();
        for key in keys {
            for entry in self.memberships.prefix_iter(txn, key.as_bytes())? {
                let id = std::str::from_utf8(&entry?.0[32..]).ok().and_then(NostrGroupId::parse);
                groups.insert(id.ok_or(Fail::Corrupt("a membership has no group"))?);
            }
        }
        Ok(groups)
    }

    /// The first managed groups that begin with a prefix and lie behind a place.
    pub(super) fn groups_after(
        &self,
        txn: &RoTxn<'_>,
        prefix: &str,
        after: Option<&NostrGroupId>,
        most: usize,
    ) -> Result<Vec<NostrGroupId>, Fail> {
        let from = match after {
            Some(after) if after.as_str() >= prefix => Bound::Excluded(after.as_str().as_bytes()),
            // No key is empty.
            _ if prefix.is_empty() => Bound::Unbounded,
            _ => Bound::Included(prefix.as_bytes()),
        };
        let mut groups = Vec::new();
        for entry in self.groups.range(txn, &(from, Bound::Unbounded))?.take(most) {
            let id = std::str::from_utf8(entry?.0).ok().and_then(NostrGroupId::parse);
            let id = id.ok_or(Fail::Corrupt("a group has no id"))?;
            if !id.as_str().starts_with(prefix) {
                break;
            }
            groups.push(id);
        }
        Ok(groups)
    }

    /// How many groups `founder` founded by wraps in the 24 hours before `now`.
    pub(super) fn founded_today(&self, txn: &RoTxn<'_>, founder: &PublicKey, now: UnixSecs) -> Result<u32, Fail> {
        let tails = Self::tails(self.founded, txn, founder.as_bytes())?;
        let recent = tails.iter().filter(|tail| founded_at(tail).saturating_add(DAY_SECS) > now);
        Ok(u32::try_from(recent.count()).unwrap_or(u32::MAX))
    }

    /// Writes the state of a group after a change, and counts its founding.
    pub(super) fn put_change(
        &self,
        txn: &mut RwTxn<'_>,
        group: &NostrGroupId,
        changed: &Changed,
        cursor: Cursor,
        now: UnixSecs,
    ) -> Result<(), Fail> {
        self.put_group_record(txn, group, &changed.view.record)?;
        let joined: HashMap<_, _> = changed.joined.iter().map(|join| (join.key, join.invited)).collect();
        for (key, role) in &changed.delta {
            match role {
                Some(role) => self.put_member(txn, group, key, *role, joined.get(key).copied().flatten())?,
                None => self.remove_member(txn, group, key)?,
            }
        }
        if let Some(founder) = changed.founder {
            for tail in Self::tails(self.founded, txn, founder.as_bytes())? {
                if founded_at(&tail).saturating_add(DAY_SECS) <= now {
                    self.founded.delete(txn, &Key::new().with(founder.as_bytes()).with(&tail))?;
                }
            }
            let key = Key::new().with(founder.as_bytes()).with(&now.to_be_bytes()).with(&cursor.to_be_bytes());
            self.founded.put(txn, &key, &[])?;
        }
        Ok(())
    }
}

impl Tables {
    /// Makes a key a member, or gives a member a role.
    fn put_member(
        &self,
        txn: &mut RwTxn<'_>,
        group: &NostrGroupId,
        key: &PublicKey,
        role: Role,
        invited: Option<Invited>,
    ) -> Result<(), Fail> {
        let name = member(group, key);
        if let Some(value) = self.members.get(txn, &name)? {
            let value = member_value(role, invited_rank(value));
            return self.members.put(txn, &name, &value);
        }
        self.count(txn, key, 1, 0)?;
        if let Some(invited) = invited {
            let inviter = invited.by.as_ref().map_or(&[][..], |inviter| inviter.as_bytes());
            self.invited.put(txn, &invited_key(key, invited.rank(), group), inviter)?;
            invited.by.map_or(Ok(()), |inviter| self.count(txn, &inviter, 0, 1))?;
        }
        self.members.put(txn, &name, &member_value(role, invited.map(|invited| invited.rank())))?;
        Ok(self.memberships.put(txn, &membership(key, group), &[])?)
    }

    pub(super) fn remove_member(&self, txn: &mut RwTxn<'_>, group: &NostrGroupId, key: &PublicKey) -> Result<(), Fail> {
        let Some(membership_before) = self.membership(txn, group, key)? else { return Ok(()) };
        if let Some(invited) = membership_before.invited {
            self.forget_invited(txn, group, key, &invited)?;
        }
        self.count(txn, key, -1, 0)?;
        self.members.delete(txn, &member(group, key))?;
        self.memberships.delete(txn, &membership(key, group))?;
        Ok(())
    }

    /// Marks a membership as acted in.
    pub(super) fn act(
        &self,
        txn: &mut RwTxn<'_>,
        group: &NostrGroupId,
        key: &PublicKey,
        was: &Invited,
    ) -> Result<(), Fail> {
        let name = member(group, key);
        let value = self.members.get(txn, &name)?.ok_or(Fail::Corrupt("a member that acts is none"))?;
        // A reader may name a key twice.
        if invited_rank(value).is_some() {
            let role = role_from(value.first())?;
            self.forget_invited(txn, group, key, was)?;
            self.members.put(txn, &name, &member_value(role, None))?;
        }
        Ok(())
    }

    fn forget_invited(
        &self,
        txn: &mut RwTxn<'_>,
        group: &NostrGroupId,
        key: &PublicKey,
        was: &Invited,
    ) -> Result<(), Fail> {
        self.invited.delete(txn, &invited_key(key, was.rank(), group))?;
        was.by.map_or(Ok(()), |inviter| self.count(txn, &inviter, 0, -1))
    }
}

fn founded_at(tail: &[u8]) -> UnixSecs {
    tail.first_chunk().map_or(0, |bytes| UnixSecs::from_be_bytes(*bytes))
}

/// Groups that the writer remembers from one transaction to the next, as messages ask for them all the time: a managed
/// group stays managed for ever, and a group that is marked as unlisted stays so until a roster forces it.
#[derive(Default)]
pub(super) struct KnownGroups(HashMap<NostrGroupId, bool>);

impl KnownGroups {
    /// Whether the group is managed, else unlisted; `None` where it is not remembered.
    pub(super) fn is_managed(&self, group: &NostrGroupId) -> Option<bool> {
        self.0.get(group).copied()
    }

    pub(super) fn note(&mut self, group: &NostrGroupId, is_managed: bool) {
        if self.0.len() >= KNOWN_GROUPS_MAX {
            self.0.clear();
        }
        self.0.insert(group.clone(), is_managed);
    }

    pub(super) fn forget_all(&mut self) {
        self.0.clear();
    }
}

/// The last epochs of groups. Messages raise them far more often than they are worth a write, so they are written once
/// a second a group and on close, and a crash loses those that were not. Only the registry shows them.
#[derive(Debug, Default)]
pub(super) struct Epochs {
    known: HashMap<NostrGroupId, Epoch>,
}

#[derive(Clone, Copy, Debug)]
struct Epoch {
    last: Option<u64>,
    written: bool,
}

impl Epochs {
    /// The last epoch, where it is not to be read from the group's record.
    pub(super) fn last(&self, group: &NostrGroupId) -> Option<Option<u64>> {
        self.known.get(group).map(|known| known.last)
    }

    /// Takes over the epochs that a committed transaction saw.
    pub(super) fn learn(&mut self, seen: HashMap<NostrGroupId, Option<u64>>) {
        for (group, last) in seen {
            let written = self.known.get(&group).is_some_and(|known| known.written && known.last == last);
            self.known.insert(group, Epoch { last, written });
        }
    }

    /// Whether more than [`EPOCHS_MAX`] are known, so that the written ones are to be forgotten.
    pub(super) fn is_full(&self) -> bool {
        self.known.len() > EPOCHS_MAX
    }

    pub(super) fn unwritten(&self) -> Vec<(NostrGroupId, Option<u64>)> {
        let unwritten = self.known.iter().filter(|(_, known)| !known.written);
        unwritten.map(|(group, known)| (group.clone(), known.last)).collect()
    }

    /// Notes that these epochs were written.
    pub(super) fn written(&mut self, groups: &[(NostrGroupId, Option<u64>)]) {
        for (group, last) in groups {
            if let Some(known) = self.known.get_mut(group) {
                known.written |= known.last == *last;
            }
        }
        if self.is_full() {
            self.known.retain(|_, known| !known.written);
        }
    }
}

#[cfg(test)]
mod tests {
    use nostr_protocol::testing::{keypair, public_key};

    use super::*;
    use crate::embedded::{Options, env::open_env};

    /// A store that was made before memberships without an act were noted has roles alone, and no counts.
    #[test]
    fn members_of_an_older_store_have_acted() {
        let directory = tempfile::tempdir().expect("a directory");
        let env = open_env(directory.path(), &Options::default()).expect("an environment");
        let tables = Tables::open(&env).expect("a store");
        let group = |n: u64| NostrGroupId::parse(&format!("group{n}")).expect("an id");
        let [alice, founder] = ["alice", "founder"].map(|name| public_key(&keypair(name)));
        let mut txn = env.write_txn().expect("a writer");
        for n in 0..3 {
            tables.members.put(&mut txn, &member(&group(n), &alice), &[1]).expect("a member");
            tables.memberships.put(&mut txn, &membership(&alice, &group(n)), &[]).expect("a membership");
        }
        let standing = tables.membership(&txn, &group(0), &alice).expect("an answer").expect("a member");
        assert!(standing.invited.is_none() && tables.first_to_give_way(&txn, &alice).expect("an answer").is_none());
        assert_eq!(tables.memberships_of(&txn, &alice).expect("a count"), 3);
        let invited = Invited { since: 7, nth: 2, by: Some(founder) };
        tables.put_member(&mut txn, &group(3), &alice, Role::Member, Some(invited)).expect("it is put");
        tables.put_member(&mut txn, &group(0), &alice, Role::Member, Some(invited)).expect("a role is put");
        assert_eq!(tables.memberships_of(&txn, &alice).expect("a count"), 4);
        assert_eq!(tables.invited_by(&txn, &founder).expect("a count"), 1);
        assert_eq!(tables.first_to_give_way(&txn, &alice).expect("an answer"), Some((group(3), invited)));
        assert_eq!(tables.invitations(&txn, &alice, &founder).expect("a count"), 1);
        assert_eq!(tables.invitations(&txn, &founder, &alice).expect("a count"), 0);
        for n in [0, 3] {
            tables.remove_member(&mut txn, &group(n), &alice).expect("it is removed");
        }
        assert_eq!(tables.memberships_of(&txn, &alice).expect("a count"), 2);
        assert_eq!(tables.invited_by(&txn, &founder).expect("a count"), 0);
        assert!(tables.invited.is_empty(&txn).expect("an answer"));
    }
}
