//! The content of the store, and the effects of storing an event.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    convert::Infallible,
    sync::Arc,
};

use nostr_extensions::{
    Admitted, Audience, Effect, Group, GroupStatus, ManagedGroup, NostrGroupId, Persistence, Sealed, Source, Stamp,
    gate::Touches,
    mls_gateway::{
        deletion::{Deletion, deleters, is_known_undeletable, is_private_of, is_undeletable, may_delete, vanishes},
        group::{
            Changed, Invited, Join, MembershipBounds, OrderedMessage, Refusal, RosterChange, SeenEpoch, ServiceAnswer,
            WrapChange, apply_roster, apply_service, apply_vanish, apply_wrap, leaves_groups, next_epoch,
        },
        key_package::DirectoryEntry,
    },
    query::Position,
};
use nostr_protocol::{DAY_SECS, Event, EventId, PublicKey, UnixSecs, mutation};

use crate::{
    AppliedAnswer, ClaimRates, Cursor, OnceName, RecordName, Saved, StoredRecord,
    decide::{
        keys::{Address, Claimed, TombstoneKey, address, claimed, tombstone_key},
        stock::{LAST_RESORT_MAX, TWINS_MAX},
    },
    weight::{DELETED_ROWS_MAX, Weight},
};

/// The hash of a request, its time, and its answer.
pub(super) type KeptAnswer = ([u8; 16], UnixSecs, crate::Claimed);
/// A request for KeyPackages: its id, its time, and the KeyPackages that the owner had; `None` once it was answered.
pub(super) type LastRequest = (EventId, UnixSecs, Option<HashSet<[u8; 32]>>);

#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) head: Cursor,
    pub(super) log: BTreeMap<Cursor, Item>,
    pub(super) ids: HashMap<EventId, Cursor>,
    /// Changes of groups without an event, by their places in the log.
    pub(super) marks: BTreeMap<Cursor, Touches>,
    pub(super) groups: HashMap<NostrGroupId, Arc<ManagedGroup>>,
    pub(super) unlisted: HashSet<NostrGroupId>,
    /// Memberships in which the key has not acted.
    pub(super) invited: HashMap<(NostrGroupId, PublicKey), Invited>,
    pub(super) founded: Vec<(PublicKey, UnixSecs)>,
    /// Whether the target was public.
    pub(super) tombstones: HashMap<TombstoneKey, bool>,
    pub(super) address_tombstones: HashMap<Address, UnixSecs>,
    pub(super) claimed: HashSet<Claimed>,
    pub(super) vanished: HashMap<PublicKey, UnixSecs>,
    /// Claims that took something: the owner, the rates' parties, the number, and the time.
    pub(super) takes: Vec<(PublicKey, ClaimRates, usize, UnixSecs)>,
    /// Answers to claims by reader and name, with the hash of the request and the time.
    pub(super) receipts: HashMap<(PublicKey, [u8; 16]), KeptAnswer>,
    /// The last request for KeyPackages to an owner.
    pub(super) requests: HashMap<PublicKey, LastRequest>,
    /// Records of the relay itself.
    pub(super) records: HashMap<RecordName, StoredRecord>,
    /// Names that are used once, each with the time of its end.
    pub(super) once: HashMap<OnceName, UnixSecs>,
}

#[derive(Clone, Debug)]
pub(super) struct Item {
    pub(super) event: Event,
    pub(super) stamp: Stamp,
    pub(super) found_by_queries: bool,
    /// The groups that its entry in the log says that it touched; `None` where its kind says all.
    pub(super) told: Option<Touches>,
    pub(super) address: Option<Address>,
    pub(super) package: Option<DirectoryEntry>,
}

impl Item {
    pub(super) fn seal(&self) -> Sealed {
        Sealed::new(self.event.clone(), self.stamp)
    }

    /// The groups that it touched.
    pub(super) fn touches(&self) -> Touches {
        self.told.clone().unwrap_or_else(|| Touches::by_kind(self.event.view()))
    }

    fn is_public(&self) -> bool {
        *self.seal().audience() == Audience::Everyone
    }

    pub(super) fn position(&self) -> Position {
        Position { created_at: self.event.created_at(), id: self.event.id() }
    }
}

/// How an event is stored.
#[derive(Default)]
pub(super) struct StoredWith {
    pub(super) author_only: bool,
    /// The groups that it changed, and those that the events changed which it removed.
    pub(super) touches: Touches,
    pub(super) address: Option<Address>,
    pub(super) package: Option<DirectoryEntry>,
}

impl State {
    pub(super) fn save(&mut self, admitted: &Admitted) -> Saved {
        let event = admitted.event();
        let now = admitted.received_at();
        if admitted.persistence() == Persistence::Ephemeral {
            self.head += 1;
            return Saved::New(Sealed::new(event.clone(), self.stamp(admitted, false)));
        }
        // Only a sender that may send the event now is told whether it is stored.
        match admitted.effect() {
            Effect::GroupMessage { group, keys, unlisted, .. }
                if !self.may_send(group, keys, *unlisted) && !mutation!("save-sender") =>
            {
                return Saved::Refused(Refusal::no_member(keys));
            }
            Effect::Wrap(change) if self.groups.get(&change.group).is_some_and(|view| is_stranger(view, change)) => {
                return Saved::Refused(Refusal::stranger(&change.publishers));
            }
            Effect::GroupMessage { group, .. } | Effect::Wrap(WrapChange { group, .. })
                if self.is_closed(group, admitted) =>
            {
                return Saved::Refused(Refusal::Closed);
            }
            _ => {}
        }
        if let Some(saved) = self.is_known(event, now) {
            return saved;
        }
        let mut advice = None;
        let applied = match admitted.effect() {
            Effect::None => Ok(StoredWith::default()),
            Effect::Replace { identifier } => self
                .replace(event, identifier, now)
                .map(|address| StoredWith { address: Some(address), ..StoredWith::default() }),
            Effect::KeyPackage { entry, identifier, kept_max } => {
                self.key_package(event, entry, identifier.as_deref(), *kept_max, now)
            }
            Effect::GroupMessage { group, keys, epoch, order, .. } => {
                match self.order(group, order.as_ref(), event.id(), now) {
                    Ok(fault) => {
                        advice = fault;
                        Ok(self.group_message(group, keys, *epoch))
                    }
                    Err(refusal) => Err(Saved::Refused(refusal)),
                }
            }
            Effect::Roster(change) => self.roster(change, admitted),
            Effect::Wrap(change) => self.wrap(change, now),
            Effect::Delete(deletion) => self.delete(event, deletion, now),
            Effect::Vanish => Ok(self.vanish(event, now)),
        };
        match applied {
            Ok(placement) => {
                self.make_room(&event.id());
                let stamp = self.stamp(admitted, placement.author_only);
                let is_found = admitted.persistence() == Persistence::Stored;
                let sealed = self.put(event.clone(), stamp, is_found, placement);
                match advice {
                    None => Saved::New(sealed),
                    Some(fault) => Saved::Advised(Box::new((sealed, fault))),
                }
            }
            Err(saved) => saved,
        }
    }

    fn stamp(&self, admitted: &Admitted, author_only: bool) -> Stamp {
        Stamp { cursor: self.head, received_at: admitted.received_at(), expires_at: admitted.expires_at(), author_only }
    }

    /// Puts an event after all others.
    pub(super) fn put(&mut self, event: Event, stamp: Stamp, found_by_queries: bool, placement: StoredWith) -> Sealed {
        self.head += 1;
        let item = Item {
            stamp: Stamp { cursor: self.head, ..stamp },
            found_by_queries,
            told: placement.touches.kept_of(event.view()),
            address: placement.address,
            package: placement.package,
            event,
        };
        let sealed = item.seal().touching(item.told.clone());
        self.ids.insert(item.event.id(), self.head);
        self.log.insert(self.head, item);
        sealed
    }

    pub(super) fn remove(&mut self, cursor: Cursor) {
        if let Some(item) = self.log.remove(&cursor) {
            self.ids.remove(&item.event.id());
        }
    }

    pub(super) fn holds(&self, id: &EventId, now: UnixSecs) -> bool {
        let item = self.ids.get(id).and_then(|cursor| self.log.get(cursor));
        item.is_some_and(|item| item.stamp.expires_at > now)
    }

    /// Removes the event of this id, which has expired if it is there.
    pub(super) fn make_room(&mut self, id: &EventId) {
        if let Some(cursor) = self.ids.get(id) {
            self.remove(*cursor);
        }
    }

    /// The answer for an event that is stored or was taken back.
    pub(super) fn is_known(&self, event: &Event, now: UnixSecs) -> Option<Saved> {
        let id = event.id();
        let deleted_by = |key: &PublicKey| self.tombstones.contains_key(&tombstone_key(&id, key));
        if self.vanished.iter().any(|(key, at)| vanishes(event.view(), key, *at)) {
            Some(Saved::Deleted)
        } else if self.holds(&id, now) {
            Some(Saved::Duplicate)
        } else if deleters(event.view()).next().is_some_and(|author| deleted_by(&author)) {
            Some(Saved::Deleted)
        } else if deleters(event.view()).skip(1).any(|recipient| deleted_by(&recipient)) {
            Some(Saved::DeletedByRecipient)
        } else {
            None
        }
    }

    pub(super) fn replace(&mut self, event: &Event, identifier: &str, now: UnixSecs) -> Result<Address, Saved> {
        let address = address(&event.pubkey(), event.kind(), identifier);
        let old = self.place(event, &address, now)?;
        if let Some(old) = old {
            self.remove(old);
        }
        Ok(address)
    }

    fn place(&self, event: &Event, address: &Address, now: UnixSecs) -> Result<Option<Cursor>, Saved> {
        if self.address_tombstones.get(address).is_some_and(|at| event.created_at() <= *at) {
            return Err(Saved::Deleted);
        }
        let Some((cursor, old)) = self.log.iter().find(|(_, item)| item.address.as_ref() == Some(address)) else {
            return Ok(None);
        };
        // The event that comes first in NIP-01's order keeps the address: the newer, then the one with the lower id.
        let position = Position { created_at: event.created_at(), id: event.id() };
        let stays = old.stamp.expires_at > now && old.position() < position;
        if stays { Err(Saved::Superseded) } else { Ok(Some(*cursor)) }
    }

    pub(super) fn key_package(
        &mut self,
        event: &Event,
        entry: &DirectoryEntry,
        identifier: Option<&str>,
        kept_max: usize,
        now: UnixSecs,
    ) -> Result<StoredWith, Saved> {
        if self.claimed.contains(&claimed(&entry.owner, &entry.content_hash)) {
            return Err(Saved::Deleted);
        }
        let address = identifier.map(|it| address(&event.pubkey(), event.kind(), it));
        let old = match &address {
            Some(address) => self.place(event, address, now)?,
            None => None,
        };
        let taken = entry.reference.is_some()
            && self.log.values().any(|item| {
                item.stamp.expires_at > now
                    && item.package.as_ref().is_some_and(|other| {
                        other.owner == entry.owner
                            && other.reference == entry.reference
                            && other.content_hash != entry.content_hash
                    })
            });
        if taken {
            return Err(Saved::Refused(Refusal::ReferenceTaken));
        }
        let mut entry = entry.clone();
        let leaving = self.giving_way(event, &mut entry, (kept_max, old), now)?;
        for cursor in old.into_iter().chain(leaving) {
            let gone = self.log.get(&cursor).and_then(|item| item.package.clone());
            if Some(cursor) != old {
                self.bury_held(cursor);
            }
            self.remove(cursor);
            let is_twin = gone.as_ref().is_some_and(|gone| gone.content_hash == entry.content_hash);
            if let Some(gone) = gone.filter(|gone| gone.last_resort && !is_twin && Some(cursor) != old) {
                self.claimed.insert(claimed(&gone.owner, &gone.content_hash));
            }
        }
        Ok(StoredWith { address, package: Some(entry), ..StoredWith::default() })
    }

    /// The KeyPackage events that give way to one, beside the event that it displaces at its address.
    fn giving_way(
        &self,
        event: &Event,
        entry: &mut DirectoryEntry,
        (kept_max, displaced): (usize, Option<Cursor>),
        now: UnixSecs,
    ) -> Result<Vec<Cursor>, Saved> {
        let mut owned = self.packages_of(&entry.owner, now);
        entry.last_resort |= owned.iter().any(|(_, it)| it.content_hash == entry.content_hash && it.last_resort);
        owned.retain(|(cursor, _)| Some(*cursor) != displaced);
        let position = |cursor: &Cursor| self.log.get(cursor).map(Item::position);
        let (twins, others): (Vec<_>, Vec<_>) =
            owned.into_iter().partition(|(_, it)| it.content_hash == entry.content_hash);
        // Each thing that may give way, with the position of its newest event: NIP-01's order has the newest first.
        let mut standing: Vec<(Option<Position>, Vec<Cursor>)> = Vec::new();
        let most = if twins.is_empty() {
            let of_sort = others.iter().filter(|(_, it)| it.last_resort == entry.last_resort);
            let contents: BTreeSet<[u8; 32]> = of_sort.map(|(_, it)| it.content_hash).collect();
            for content in contents {
                let events = others.iter().filter(|(_, it)| it.content_hash == content).map(|(cursor, _)| *cursor);
                let events: Vec<Cursor> = events.collect();
                standing.push((events.iter().filter_map(position).min(), events));
            }
            if entry.last_resort { LAST_RESORT_MAX } else { kept_max.max(1) }
        } else {
            standing.extend(twins.iter().map(|(cursor, _)| (position(cursor), vec![*cursor])));
            TWINS_MAX
        };
        let own = Position { created_at: event.created_at(), id: event.id() };
        standing.push((Some(own), Vec::new()));
        standing.sort();
        let leaving = standing.split_off(standing.len().min(most));
        if leaving.iter().any(|(position, _)| *position == Some(own)) {
            return Err(Saved::Refused(Refusal::StockIsNewer));
        }
        Ok(leaving.into_iter().flat_map(|(_, events)| events).collect())
    }

    /// An owner's KeyPackage events that have not expired, from the oldest to the newest.
    pub(super) fn packages_of(&self, owner: &PublicKey, now: UnixSecs) -> Vec<(Cursor, DirectoryEntry)> {
        let live = self.log.iter().filter(|(_, item)| item.stamp.expires_at > now);
        let entries = live.filter_map(|(cursor, item)| Some((*cursor, item.package.clone()?)));
        entries.filter(|(_, entry)| entry.owner == *owner).collect()
    }

    pub(super) fn status(&self, group: &NostrGroupId) -> GroupStatus {
        match self.groups.get(group) {
            Some(view) => GroupStatus::Managed(Arc::clone(view)),
            None if self.unlisted.contains(group) => GroupStatus::Unlisted,
            None => GroupStatus::Unknown,
        }
    }

    /// Gives a group the members of an answer of the access service.
    pub(super) fn apply_answer(&mut self, answer: &ServiceAnswer, now: UnixSecs) -> Option<AppliedAnswer> {
        let status = self.status(&answer.group);
        let mut changed = apply_service(&status, answer, now)?;
        let (mut gives_way, mut without_room) = (Vec::new(), Vec::new());
        for Join { key, .. } in &changed.joined {
            let memberships = self.groups.values().filter(|view| view.members.contains_key(key)).count();
            if memberships >= answer.bounds.memberships_max {
                match self.first_to_give_way(key) {
                    Some((first, _)) => gives_way.push(first.clone()),
                    None => without_room.push(*key),
                }
            }
        }
        changed.leave_out(&without_room);
        let is_known = matches!(&status, GroupStatus::Managed(view) if view.record.source == Source::Acl);
        if is_known && changed.delta.is_empty() && !answer.sets_time_of(&status) {
            return None;
        }
        let touches = self.change(&answer.group, changed, gives_way, now).touches;
        self.head += 1;
        self.marks.insert(self.head, touches.clone());
        Some(AppliedAnswer { cursor: self.head, touches, left_out: without_room.len() })
    }

    /// The membership of the key that gives way first, and its invitation.
    fn first_to_give_way(&self, key: &PublicKey) -> Option<(&(NostrGroupId, PublicKey), &Invited)> {
        let invited = self.invited.iter().filter(|((_, member), _)| member == key);
        invited.min_by_key(|((group, _), invited)| (std::cmp::Reverse(invited.nth), invited.since, group))
    }

    /// Whether the group awaits an answer of the access service.
    fn is_closed(&self, group: &NostrGroupId, admitted: &Admitted) -> bool {
        admitted.asks_service() && self.groups.get(group).is_some_and(|view| view.record.awaits_answer())
    }

    fn roster(&mut self, change: &RosterChange, admitted: &Admitted) -> Result<StoredWith, Saved> {
        let now = admitted.received_at();
        let mut changed = match apply_roster(&self.status(&change.group), change, now) {
            Err(Refusal::NotAdmin) => return Err(Saved::Refused(Refusal::NotAdmin)),
            _ if self.is_closed(&change.group, admitted) => return Err(Saved::Refused(Refusal::Closed)),
            changed => changed.map_err(Saved::Refused)?,
        };
        self.count_invitations(&mut changed);
        let gives_way = self.gives_way(&changed, &change.bounds, change.by_admin_key).map_err(Saved::Refused)?;
        let placement = self.change(&change.group, changed, gives_way, now);
        self.act(&change.group, &[change.signer]);
        Ok(placement)
    }

    fn wrap(&mut self, change: &WrapChange, now: UnixSecs) -> Result<StoredWith, Saved> {
        let recent = |(key, at): &&(PublicKey, UnixSecs)| Some(*key) == change.founder && at + DAY_SECS > now;
        let founded = u32::try_from(self.founded.iter().filter(recent).count()).unwrap_or(u32::MAX);
        let mut placement = StoredWith::default();
        let changed = apply_wrap(&self.status(&change.group), change, founded, now).map_err(Saved::Refused)?;
        if let Some(mut changed) = changed {
            self.count_invitations(&mut changed);
            let founds = changed.founder.is_some();
            let gives_way = self.gives_way(&changed, &change.bounds, false).map_err(|refusal| {
                Saved::Refused(if founds { Refusal::stranger(&change.publishers) } else { refusal })
            })?;
            placement = self.change(&change.group, changed, gives_way, now);
        }
        self.act(&change.group, &change.publishers);
        Ok(placement)
    }

    /// Counts for each membership that a change makes, how many of its key's making the member has now.
    fn count_invitations(&self, changed: &mut Changed) {
        for Join { key, invited } in &mut changed.joined {
            let Some(invited) = invited else { continue };
            let standing = self.invited.iter().filter(|((_, member), it)| member == key && it.by == invited.by);
            invited.nth = u16::try_from(standing.count() + 1).unwrap_or(u16::MAX);
        }
    }

    /// The memberships that give way to those that a change makes.
    fn gives_way(
        &self,
        changed: &Changed,
        bounds: &MembershipBounds,
        by_operator: bool,
    ) -> Result<Vec<(NostrGroupId, PublicKey)>, Refusal> {
        let invites: Vec<&Invited> = changed.joined.iter().filter_map(|join| join.invited.as_ref()).collect();
        if let Some(Invited { by, .. }) = invites.first() {
            let before = self.invited.values().filter(|invited| invited.by == *by).count();
            if before + invites.len() > bounds.invited_max as usize {
                return Err(Refusal::InvitedFull);
            }
        }
        let mut gives_way = Vec::new();
        for Join { key, invited: new } in &changed.joined {
            let memberships = self.groups.values().filter(|view| view.members.contains_key(key)).count();
            if memberships >= bounds.memberships_max {
                let first = self.first_to_give_way(key);
                let full = Refusal::MembershipsFull(by_operator.then_some(*key));
                let (group, _) = first.filter(|(_, first)| new.is_none_or(|new| new.nth <= first.nth)).ok_or(full)?;
                gives_way.push(group.clone());
            }
        }
        Ok(gives_way)
    }

    fn change(
        &mut self,
        group: &NostrGroupId,
        changed: Changed,
        gives_way: Vec<(NostrGroupId, PublicKey)>,
        now: UnixSecs,
    ) -> StoredWith {
        let touches = Touches::groups(gives_way.iter().map(|(left, _)| left).chain([group]).cloned());
        for given_up in gives_way {
            if let Some(view) = self.groups.get_mut(&given_up.0) {
                Arc::make_mut(view).members.remove(&given_up.1);
            }
            self.invited.remove(&given_up);
        }
        for (key, _) in changed.delta.iter().filter(|(_, role)| role.is_none()) {
            self.invited.remove(&(group.clone(), *key));
        }
        for Join { key, invited } in changed.joined {
            self.invited.extend(invited.map(|invited| ((group.clone(), key), invited)));
        }
        self.groups.insert(group.clone(), Arc::new(changed.view));
        self.founded.extend(changed.founder.map(|founder| (founder, now)));
        StoredWith { touches, ..StoredWith::default() }
    }

    /// Notes that these keys have acted in the group.
    fn act(&mut self, group: &NostrGroupId, keys: &[PublicKey]) {
        for key in keys {
            self.invited.remove(&(group.clone(), *key));
        }
    }

    fn may_send(&self, group: &NostrGroupId, keys: &[PublicKey], unlisted: bool) -> bool {
        let state = Group { id: group.clone(), status: self.status(group) };
        if state.is_managed() { state.has_member(keys) } else { unlisted }
    }

    /// Decides about a message by the order of its group's commits. Returns the fault of one that is stored all the
    /// same.
    fn order(
        &mut self,
        group: &NostrGroupId,
        message: Option<&OrderedMessage>,
        id: EventId,
        now: UnixSecs,
    ) -> Result<Option<Refusal>, Refusal> {
        let (Some(view), Some(message)) = (self.groups.get_mut(group), message) else { return Ok(None) };
        let record = &mut Arc::make_mut(view).record;
        let ruling = message.rule(record.commit_ordering, record.commits.as_ref(), id, now)?;
        if let Some(commits) = ruling.log {
            record.commits = commits;
        }
        Ok(ruling.advice)
    }

    fn group_message(&mut self, group: &NostrGroupId, keys: &[PublicKey], epoch: SeenEpoch) -> StoredWith {
        self.act(group, keys);
        match self.groups.get_mut(group) {
            Some(view) => {
                let record = &mut Arc::make_mut(view).record;
                record.last_epoch = next_epoch(record.last_epoch, epoch);
            }
            None => drop(self.unlisted.insert(group.clone())),
        }
        StoredWith::default()
    }

    pub(super) fn delete(&mut self, event: &Event, deletion: &Deletion, now: UnixSecs) -> Result<StoredWith, Saved> {
        let by = deletion.by;
        let targets: Vec<Option<&Item>> = deletion
            .ids
            .iter()
            .map(|id| self.log.get(self.ids.get(id)?).filter(|item| item.stamp.expires_at > now))
            .collect();
        if targets.iter().flatten().any(|it| is_undeletable(it.event.kind()) && it.event.pubkey() == by) {
            return Err(Saved::Refused(Refusal::Undeletable));
        }
        if deletion.ids.len() + deletion.addresses.len() > 1 && self.rows_named(event, deletion, now) > DELETED_ROWS_MAX
        {
            return Err(Saved::Refused(Refusal::DeletesTooMuch));
        }
        let is_others = |it: &Item| is_known_undeletable(it.event.view(), it.is_public(), &by);
        if deletion.addresses.is_empty() && targets.iter().all(|target| target.is_some_and(is_others)) {
            return Err(Saved::Refused(Refusal::NothingToDelete));
        }
        let mut placement = StoredWith { author_only: deletion.names_private_kind, ..StoredWith::default() };
        let mut gone = Vec::new();
        for (id, target) in deletion.ids.iter().zip(targets) {
            let Some(item) = target else {
                placement.author_only |= !*self.tombstones.entry(tombstone_key(id, &by)).or_insert(true);
                continue;
            };
            placement.author_only |= !item.is_public() && is_private_of(item.event.view(), &by);
            if may_delete(item.event.view(), &by) {
                placement.touches.add(item.touches());
                self.tombstones.insert(tombstone_key(id, &by), item.is_public());
                gone.push(item.stamp.cursor);
            }
        }
        if mutation!("deletion-effect") {
            gone.clear();
        }
        gone.into_iter().for_each(|cursor| self.remove(cursor));
        for (kind, identifier) in &deletion.addresses {
            self.delete_address(address(&by, *kind, identifier), event.created_at());
        }
        Ok(placement)
    }

    /// Rows of the index that go with the targets of a deletion.
    fn rows_named(&self, event: &Event, deletion: &Deletion, now: UnixSecs) -> usize {
        let named = deletion.ids.iter().filter_map(|id| self.log.get(self.ids.get(id)?));
        let named = named.filter(|item| item.stamp.expires_at > now && may_delete(item.event.view(), &deletion.by));
        let addresses: HashSet<Address> =
            deletion.addresses.iter().map(|(kind, identifier)| address(&deletion.by, *kind, identifier)).collect();
        let held = self.log.values().filter(|item| item.address.is_some_and(|it| addresses.contains(&it)));
        let held = held.filter(|item| item.event.created_at() <= event.created_at());
        named.chain(held).map(|item| Weight::of(item.event.view()).rows).sum()
    }

    /// Removes the versions of an address up to `at`, for good.
    pub(super) fn delete_address(&mut self, address: Address, at: UnixSecs) {
        let current = self.log.iter().find(|(_, item)| item.address.as_ref() == Some(&address));
        let current = current.map(|(cursor, item)| (*cursor, item.event.created_at()));
        if let Some((cursor, created_at)) = current
            && created_at <= at
        {
            self.remove(cursor);
        }
        let until = self.address_tombstones.entry(address).or_default();
        *until = (*until).max(at);
    }

    /// Keeps versions as old as this event away from the address that it holds.
    pub(super) fn bury_held(&mut self, cursor: Cursor) {
        let Some(item) = self.log.get(&cursor) else { return };
        if let Some(address) = item.address {
            let until = self.address_tombstones.entry(address).or_default();
            *until = (*until).max(item.event.created_at());
        }
    }

    fn vanish(&mut self, event: &Event, now: UnixSecs) -> StoredWith {
        let (key, at) = (event.pubkey(), event.created_at());
        self.take_along(key, at);
        if !leaves_groups(at, now) {
            return StoredWith::default();
        }
        let changes: Vec<(NostrGroupId, Changed)> =
            self.groups.iter().filter_map(|(id, view)| Some((id.clone(), apply_vanish(view, &key)?))).collect();
        let touches = if changes.is_empty() { Touches::Nothing } else { Touches::EveryGroup };
        for (group, changed) in changes {
            self.change(&group, changed, Vec::new(), now);
        }
        StoredWith { touches, ..StoredWith::default() }
    }
}

impl State {
    /// Marks the key as vanished, and removes the events that go with it.
    pub(super) fn take_along(&mut self, key: PublicKey, at: UnixSecs) {
        let until = self.vanished.entry(key).or_default();
        *until = (*until).max(at);
        let gone = self.log.iter().filter(|(_, item)| vanishes(item.event.view(), &key, at));
        let gone: Vec<Cursor> = gone.map(|(cursor, _)| *cursor).collect();
        for cursor in gone {
            self.remove(cursor);
        }
    }
}

/// Whether a gift wrap to this group comes from none who may send one.
fn is_stranger(view: &ManagedGroup, change: &WrapChange) -> bool {
    let is_member = |key: &PublicKey| Ok::<_, Infallible>(view.members.contains_key(key));
    let Ok(is_from_inside) = change.is_from_inside(view.record.source, is_member);
    !is_from_inside
}
