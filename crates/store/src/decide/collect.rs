//! Deciding on loaded facts: nothing here reads or writes a store.
//!
//! Each change is collected, and goes into the facts too, so that later events of the batch are decided by it.

use std::{collections::HashMap, convert::Infallible, sync::Arc};

use nostr_extensions::{
    Admitted, EventMeta, GroupRecord, GroupStatus, NostrGroupId, Role, RouteHasher, Source,
    gate::Touches,
    mls_gateway::{
        deletion::is_commit,
        group::{Changed, CommitLog, Invited},
        key_package::DirectoryEntry,
    },
};
use nostr_protocol::{Event, EventId, Kind, PublicKey, UnixSecs};

use super::{
    AUTHOR_ONLY, COMMIT, EPHEMERAL, LOG_ONLY, TOUCHES_GROUPS,
    changes::{ChangedGroup, Changes, MemberChange, Put, PutPackage, RecordChange},
    facts::{AddressHolder, Facts, GroupFacts, Origin, Referenced, Target},
    keys::{Address, Claimed, Reference, TombstoneKey, author_of, reference_of},
    lookup::{Apply, Lookup, Membership, OWNED_MAX, OwnedPackage, Placement, StoredEvent},
    prefixes,
};

/// Facts, and the changes that were made to them.
pub(super) struct Collecting<'a> {
    facts: Facts,
    /// The address of each event among the facts that holds one, so that removing an event looks at no other.
    held: HashMap<Origin, Address>,
    /// The reference of each KeyPackage among the facts that has one.
    referenced: HashMap<Origin, Reference>,
    pub(super) changes: Changes,
    route_hasher: &'a RouteHasher,
}

impl<'a> Collecting<'a> {
    pub(super) fn new(facts: Facts, route_hasher: &'a RouteHasher) -> Self {
        let held = facts.holders.iter().map(|(address, holder)| (holder.at, *address)).collect();
        let of_reference = |(reference, found): (&Reference, &Vec<Referenced>)| {
            let reference = *reference;
            found.iter().map(move |it| (it.at, reference)).collect::<Vec<_>>()
        };
        let referenced = facts.references.iter().flat_map(of_reference).collect();
        let mut collecting = Self { facts, held, referenced, changes: Changes::default(), route_hasher };
        collecting.free_addresses();
        collecting
    }

    /// Removes the events that vanished keys left at addresses that are asked about: they are gone for every reader,
    /// and would keep the addresses from others.
    fn free_addresses(&mut self) {
        let Facts { holders, vanished, .. } = &self.facts;
        let left = holders.iter().filter(|(address, holder)| {
            vanished.get(&author_of(address)).is_some_and(|until| holder.created_at <= *until)
        });
        let left: Vec<_> = left.map(|(_, holder)| (holder.at, holder.id)).collect();
        for (at, id) in left {
            self.take_out(at, &id);
        }
    }

    /// Puts an event, and gives its number among those that are put.
    fn add(&mut self, event: &Event, placement: Placement<'_>, is_ephemeral: bool) -> usize {
        let flags = flags_of(&placement.meta);
        let EventMeta { received_at, expires_at, touches, .. } = placement.meta;
        let mut put = Put {
            event: event.clone(),
            received_at,
            expires_at,
            flags: flags | if is_ephemeral { EPHEMERAL } else { 0 } | if is_commit(event.view()) { COMMIT } else { 0 },
            prefixes: Vec::new(),
            routes: Vec::new(),
            group: None,
            is_told: touches.is_some(),
            touches: touches.unwrap_or_else(|| Touches::by_kind(event.view())),
            address: placement.address,
            package: placement.package.as_deref().map(|entry| put_package(event, entry)),
            gone: false,
        };
        let sealed = put.seal(0);
        put.routes = self.route_hasher.routes(&sealed);
        put.group = sealed.group().cloned();
        if put.flags & (LOG_ONLY | EPHEMERAL) == 0 {
            put.prefixes = prefixes(event.view(), sealed.audience());
        }
        let n = self.changes.put.len();
        if !is_ephemeral {
            self.learn(&put, Origin::Batch(n));
        }
        self.changes.put.push(put);
        n
    }

    /// Takes an event that is put into the facts.
    fn learn(&mut self, put: &Put, at: Origin) {
        let (event, expires_at) = (&put.event, put.expires_at);
        let author_only = put.flags & AUTHOR_ONLY != 0;
        self.facts.ids.insert(event.id(), (at, expires_at));
        let rows = put.prefixes.len();
        let touches = put.touches.clone();
        let stays = put.flags & COMMIT != 0;
        let target = Target { at, event: event.clone(), author_only, stays, touches, expires_at, rows };
        self.facts.targets.insert(event.id(), target);
        if let Some(address) = put.address {
            let holder = AddressHolder { at, id: event.id(), created_at: event.created_at(), expires_at, rows };
            self.facts.holders.insert(address, holder);
            self.held.insert(at, address);
        }
        if let Some(PutPackage { owner, content_hash, last_resort, .. }) = &put.package {
            let (id, content_hash, last_resort) = (event.id(), *content_hash, *last_resort);
            let (created_at, address) = (event.created_at(), put.address);
            let owned = OwnedPackage { at, id, content_hash, last_resort, created_at, address };
            self.facts.packages.entry(*owner).or_default().push((owned, expires_at));
        }
        if let Some(PutPackage { reference: Some(reference), content_hash, .. }) = &put.package {
            let referenced = Referenced { at, content_hash: *content_hash, expires_at };
            self.facts.references.entry(*reference).or_default().push(referenced);
            self.referenced.insert(at, *reference);
        }
    }

    fn take_out(&mut self, at: Origin, id: &EventId) {
        match at {
            Origin::Stored(cursor) => self.changes.removed.push((cursor, *id)),
            Origin::Batch(n) => self.changes.put[n].gone = true,
        }
        self.facts.ids.remove(id);
        self.facts.targets.remove(id);
        self.facts.packages.values_mut().for_each(|owned| owned.retain(|(package, _)| package.at != at));
        if let Some(address) = self.held.remove(&at)
            && self.facts.holders.get(&address).is_some_and(|holder| holder.at == at)
        {
            self.facts.holders.remove(&address);
        }
        if let Some(reference) = self.referenced.remove(&at)
            && let Some(referenced) = self.facts.references.get_mut(&reference)
        {
            referenced.retain(|it| it.at != at);
        }
    }

    fn group_facts(&mut self, group: &NostrGroupId) -> &mut GroupFacts {
        self.facts.groups.entry(group.clone()).or_default()
    }

    /// Notes that the key has one membership more, or one less.
    fn count_membership(&mut self, key: &PublicKey, change: i32) {
        if let Some(memberships) = self.facts.memberships.get_mut(key) {
            *memberships = memberships.saturating_add_signed(change as isize);
        }
        self.changes.counts.entry(*key).or_default().memberships += change;
    }

    /// Notes that one membership more of this member, or one less, counts against a key.
    fn count_invited(&mut self, member: &PublicKey, inviter: Option<PublicKey>, change: i32) {
        let Some(inviter) = inviter else { return };
        let invited = self.facts.invited_by.entry(inviter).or_default();
        *invited = invited.saturating_add_signed(change);
        let invitations = self.facts.invitations.entry((*member, inviter)).or_default();
        *invitations = invitations.saturating_add_signed(change);
        self.changes.counts.entry(inviter).or_default().invited += change;
    }

    /// Forgets that the key has not acted in the group, if it has not.
    fn forget_invited(&mut self, group: &NostrGroupId, key: &PublicKey) -> Option<Invited> {
        let invited = self.facts.invited.get_mut(key)?.remove(group)?;
        self.count_invited(key, invited.by, -1);
        Some(invited)
    }

    fn member_change(
        &mut self,
        group: &NostrGroupId,
        key: &PublicKey,
        role: Option<Role>,
        was_member: bool,
        joined: &HashMap<PublicKey, Option<Invited>>,
    ) -> MemberChange {
        let Some(role) = role else {
            self.count_membership(key, -1);
            return MemberChange::Leaves(self.forget_invited(group, key));
        };
        if was_member {
            return MemberChange::Takes(role);
        }
        let invited = joined.get(key).copied().flatten();
        if let Some(invited) = invited {
            self.facts.invited.entry(*key).or_default().insert(group.clone(), invited);
            self.count_invited(key, invited.by, 1);
        }
        self.count_membership(key, 1);
        MemberChange::Joins(role, invited)
    }
}

fn flags_of(meta: &EventMeta) -> i16 {
    let flag = |is_set: bool, flag: i16| if is_set { flag } else { 0 };
    let touches_others = matches!(meta.touches, Some(Touches::Groups(_) | Touches::EveryGroup));
    flag(meta.author_only, AUTHOR_ONLY) | flag(meta.log_only, LOG_ONLY) | flag(touches_others, TOUCHES_GROUPS)
}

fn put_package(event: &Event, entry: &DirectoryEntry) -> PutPackage {
    PutPackage {
        is_addressable: event.kind() == Kind::ADDRESSABLE_KEY_PACKAGE,
        owner: entry.owner,
        reference: entry.reference.as_ref().map(|text| reference_of(entry.owner, text)),
        content_hash: entry.content_hash,
        last_resort: entry.last_resort,
    }
}

impl Lookup for Collecting<'_> {
    type Error = Infallible;
    type At = Origin;

    fn stored(&self, id: &EventId) -> Result<Option<(Origin, UnixSecs)>, Infallible> {
        Ok(self.facts.ids.get(id).copied())
    }

    fn target(&self, id: &EventId) -> Result<Option<StoredEvent<'_, Origin>>, Infallible> {
        let Some(target) = self.facts.targets.get(id) else { return Ok(None) };
        let Target { at, author_only, expires_at, rows, .. } = *target;
        let touches = target.touches.clone();
        Ok(Some(StoredEvent { at, event: target.event.view(), author_only, touches, expires_at, rows }))
    }

    fn vanished(&self, key: &PublicKey) -> Result<Option<UnixSecs>, Infallible> {
        Ok(self.facts.vanished.get(key).copied())
    }

    fn tombstone(&self, key: &TombstoneKey) -> Result<Option<bool>, Infallible> {
        Ok(self.facts.tombstones.get(key).copied())
    }

    fn holder(&self, address: &Address) -> Result<Option<AddressHolder<Origin>>, Infallible> {
        Ok(self.facts.holders.get(address).copied())
    }

    fn address_tombstone(&self, address: &Address) -> Result<Option<UnixSecs>, Infallible> {
        Ok(self.facts.address_tombstones.get(address).copied())
    }

    fn is_claimed(&self, claimed: &Claimed) -> Result<bool, Infallible> {
        Ok(self.facts.claimed.contains(claimed))
    }

    fn is_reference_taken(&self, entry: &DirectoryEntry, now: UnixSecs) -> Result<bool, Infallible> {
        let reference = entry.reference.as_ref().map(|text| reference_of(entry.owner, text));
        let mut referenced = reference.and_then(|it| self.facts.references.get(&it)).into_iter().flatten();
        Ok(referenced.any(|other| other.expires_at > now && other.content_hash != entry.content_hash))
    }

    fn packages(&self, owner: &PublicKey, now: UnixSecs) -> Result<Vec<OwnedPackage<Origin>>, Infallible> {
        let owned = self.facts.packages.get(owner).into_iter().flatten();
        Ok(owned.filter(|(_, expires_at)| *expires_at > now).map(|(package, _)| *package).take(OWNED_MAX).collect())
    }

    fn is_managed(&mut self, group: &NostrGroupId) -> Result<bool, Infallible> {
        Ok(self.facts.groups.get(group).is_some_and(|facts| facts.view.is_some()))
    }

    fn membership(&self, group: &NostrGroupId, key: &PublicKey) -> Result<Option<Membership>, Infallible> {
        let view = self.facts.groups.get(group).and_then(|facts| facts.view.as_ref());
        let is_member = view.is_some_and(|view| view.members.contains_key(key));
        let invited = || self.facts.invited.get(key).and_then(|groups| groups.get(group)).copied();
        Ok(is_member.then(|| Membership { invited: invited() }))
    }

    fn last_epoch(&mut self, group: &NostrGroupId) -> Result<Option<u64>, Infallible> {
        Ok(self.facts.groups.get(group).and_then(|facts| facts.view.as_ref()?.record.last_epoch))
    }

    fn record(&self, group: &NostrGroupId) -> Result<Option<GroupRecord>, Infallible> {
        Ok(self.facts.groups.get(group).and_then(|facts| Some(facts.view.as_ref()?.record.clone())))
    }

    fn source(&self, group: &NostrGroupId) -> Result<Option<Source>, Infallible> {
        Ok(self.facts.groups.get(group).and_then(|facts| Some(facts.view.as_ref()?.record.source)))
    }

    fn group(&self, group: &NostrGroupId) -> Result<GroupStatus, Infallible> {
        Ok(self.facts.groups.get(group).map_or(GroupStatus::Unknown, GroupFacts::status))
    }

    fn groups_of(&self, key: &PublicKey) -> Result<Vec<NostrGroupId>, Infallible> {
        let has_member = |facts: &GroupFacts| facts.view.as_ref().is_some_and(|view| view.members.contains_key(key));
        let groups = self.facts.groups.iter().filter(|(_, facts)| has_member(facts));
        Ok(groups.map(|(id, _)| id.clone()).collect())
    }

    fn memberships(&self, key: &PublicKey) -> Result<usize, Infallible> {
        Ok(self.facts.memberships.get(key).copied().unwrap_or_default())
    }

    fn first_to_give_way(&self, key: &PublicKey) -> Result<Option<(NostrGroupId, Invited)>, Infallible> {
        let invited = self.facts.invited.get(key).into_iter().flatten();
        let first = invited.min_by_key(|(group, invited)| (invited.rank(), *group));
        Ok(first.map(|(group, invited)| (group.clone(), *invited)))
    }

    fn invited_by(&self, inviter: &PublicKey) -> Result<u32, Infallible> {
        Ok(self.facts.invited_by.get(inviter).copied().unwrap_or_default())
    }

    fn invitations(&self, member: &PublicKey, inviter: &PublicKey) -> Result<u32, Infallible> {
        Ok(self.facts.invitations.get(&(*member, *inviter)).copied().unwrap_or_default())
    }

    fn founded(&self, key: &PublicKey, _: UnixSecs) -> Result<u32, Infallible> {
        Ok(self.facts.founded.get(key).copied().unwrap_or_default())
    }
}

impl Apply for Collecting<'_> {
    type Put = usize;

    fn put(&mut self, event: &Event, placement: Placement<'_>) -> Result<usize, Infallible> {
        Ok(self.add(event, placement, false))
    }

    fn put_ephemeral(&mut self, admitted: &Admitted) -> Result<usize, Infallible> {
        let meta = EventMeta {
            received_at: admitted.received_at(),
            expires_at: admitted.expires_at(),
            author_only: false,
            log_only: false,
            touches: None,
        };
        Ok(self.add(admitted.event(), Placement::new(meta), true))
    }

    fn remove(&mut self, at: Origin, id: &EventId) -> Result<(), Infallible> {
        self.take_out(at, id);
        Ok(())
    }

    fn bury(&mut self, key: &TombstoneKey, public: bool) -> Result<(), Infallible> {
        self.facts.tombstones.insert(*key, public);
        self.changes.tombstones.push((*key, public));
        Ok(())
    }

    fn bury_address(&mut self, address: &Address, until: UnixSecs) -> Result<(), Infallible> {
        self.facts.address_tombstones.insert(*address, until);
        self.changes.address_tombstones.push((*address, until));
        Ok(())
    }

    fn vanish(&mut self, key: &PublicKey, until: UnixSecs) -> Result<(), Infallible> {
        self.facts.vanished.insert(*key, until);
        self.changes.vanished.push((*key, until));
        Ok(())
    }

    fn claim(&mut self, claimed: &Claimed) -> Result<(), Infallible> {
        self.facts.claimed.insert(*claimed);
        self.changes.claimed.push(*claimed);
        for (cursor, id) in self.facts.taken.remove(claimed).unwrap_or_default() {
            self.take_out(Origin::Stored(cursor), &id);
        }
        Ok(())
    }

    fn change_group(&mut self, group: &NostrGroupId, changed: Changed, now: UnixSecs) -> Result<(), Infallible> {
        let before = self.facts.groups.get(group).and_then(|facts| facts.view.clone());
        let joined: HashMap<_, _> = changed.joined.iter().map(|join| (join.key, join.invited)).collect();
        let mut members = Vec::with_capacity(changed.delta.len());
        for (key, role) in &changed.delta {
            let was_member = before.as_ref().is_some_and(|view| view.members.contains_key(key));
            members.push((*key, self.member_change(group, key, *role, was_member, &joined)));
        }
        if let Some(founder) = changed.founder {
            self.count_founding(&founder, now)?;
        }
        let record = RecordChange::Whole(changed.view.record.clone());
        self.changes.groups.push(ChangedGroup { group: group.clone(), record, members });
        self.group_facts(group).view = Some(Arc::new(changed.view));
        Ok(())
    }

    fn act(&mut self, group: &NostrGroupId, key: &PublicKey, was: &Invited) -> Result<(), Infallible> {
        // A reader may name a key twice.
        if self.forget_invited(group, key).is_some() {
            let members = vec![(*key, MemberChange::Acts(*was))];
            self.changes.groups.push(ChangedGroup { group: group.clone(), record: RecordChange::Nothing, members });
        }
        Ok(())
    }

    fn give_way(&mut self, group: &NostrGroupId, key: &PublicKey, was: &Invited) -> Result<(), Infallible> {
        self.forget_invited(group, key);
        self.count_membership(key, -1);
        if let Some(view) = self.facts.groups.get_mut(group).and_then(|facts| facts.view.as_mut()) {
            Arc::make_mut(view).members.remove(key);
        }
        let members = vec![(*key, MemberChange::Leaves(Some(*was)))];
        self.changes.groups.push(ChangedGroup { group: group.clone(), record: RecordChange::Nothing, members });
        Ok(())
    }

    fn raise_epoch(&mut self, group: &NostrGroupId, epoch: u64) -> Result<(), Infallible> {
        if let Some(view) = &mut self.group_facts(group).view {
            Arc::make_mut(view).record.last_epoch = Some(epoch);
        }
        self.changes.epochs.push((group.clone(), epoch));
        Ok(())
    }

    fn set_commits(&mut self, group: &NostrGroupId, commits: Option<CommitLog>) -> Result<(), Infallible> {
        if let Some(view) = &mut self.group_facts(group).view {
            let record = &mut Arc::make_mut(view).record;
            record.commits = commits;
            let record = RecordChange::Commits(record.clone());
            self.changes.groups.push(ChangedGroup { group: group.clone(), record, members: Vec::new() });
        }
        Ok(())
    }

    fn mark_unlisted(&mut self, group: &NostrGroupId) -> Result<bool, Infallible> {
        let is_new = !std::mem::replace(&mut self.group_facts(group).unlisted, true);
        if is_new {
            self.changes.unlisted.push(group.clone());
        }
        Ok(is_new)
    }

    fn count_founding(&mut self, key: &PublicKey, at: UnixSecs) -> Result<(), Infallible> {
        let founded = self.facts.founded.entry(*key).or_default();
        *founded = founded.saturating_add(1);
        self.changes.founded.push((*key, at));
        Ok(())
    }
}
