//! The store in memory: each rule in its plainest form, to hold the other stores against. For tests, and for a relay that
//! may forget.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use futures_util::future::{BoxFuture, ready};
use nostr_extensions::{
    Admitted, Audience, Effect, GroupState, GroupStatus, GroupView, Keep, NostrGroupId, Query, Sealed, Stamp,
    admit::NEVER,
    gate::Touches,
    mls_gateway::{
        deletion::{Deletion, may_delete, vanishes},
        group::{Changed, Refusal, apply_roster, apply_vanish, apply_wrap, next_epoch},
        key_package::Entry,
    },
    query::Position,
};
use nostr_protocol::{Event, EventId, Kind, PublicKey, UnixSecs, tag::name};
use parking_lot::Mutex;

use crate::{Cursor, LogEntry, Page, PageBounds, Saved, Stats, Store, StoreError};

const DAY_SECS: u64 = 86_400;

/// A store that ends with the process.
#[derive(Debug, Default)]
pub struct Memory {
    state: Mutex<State>,
}

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

type Address = (PublicKey, Kind, Box<str>);

#[derive(Debug, Default)]
struct State {
    head: Cursor,
    log: BTreeMap<Cursor, Item>,
    ids: HashMap<EventId, Cursor>,
    groups: HashMap<NostrGroupId, Arc<GroupView>>,
    unlisted: HashSet<NostrGroupId>,
    founded: Vec<(PublicKey, UnixSecs)>,
    /// Whether the target was public.
    tombstones: HashMap<(EventId, PublicKey), bool>,
    address_tombstones: HashMap<Address, UnixSecs>,
    claimed: HashSet<(PublicKey, [u8; 32])>,
    vanished: HashMap<PublicKey, UnixSecs>,
}

#[derive(Debug)]
struct Item {
    event: Event,
    stamp: Stamp,
    found_by_queries: bool,
    touches_groups: bool,
    address: Option<Address>,
    package: Option<Entry>,
}

impl Item {
    fn seal(&self) -> Sealed {
        Sealed::new(self.event.clone(), self.stamp)
    }

    fn is_public(&self) -> bool {
        *self.seal().audience() == Audience::Everyone
    }

    fn position(&self) -> Position {
        Position { created_at: self.event.created_at(), id: self.event.id() }
    }
}

/// What an event is stored with, beside what it says.
#[derive(Default)]
struct With {
    author_only: bool,
    touches_groups: bool,
    address: Option<Address>,
    package: Option<Entry>,
}

impl State {
    fn save(&mut self, admitted: &Admitted) -> Saved {
        let event = admitted.event();
        let now = admitted.received_at();
        if admitted.keep() == Keep::Ephemeral {
            self.head += 1;
            return Saved::New(Sealed::new(event.clone(), self.stamp(admitted, false)));
        }
        if self.ids.contains_key(&event.id()) {
            return Saved::Duplicate;
        }
        if self.is_gone(event) {
            return Saved::Deleted;
        }
        let applied = match admitted.effect() {
            Effect::None => Ok(With::default()),
            Effect::Replace { identifier } => {
                self.replace(event, identifier, now).map(|address| With { address: Some(address), ..With::default() })
            }
            Effect::KeyPackage { entry, identifier } => self.key_package(event, entry, identifier.as_deref(), now),
            Effect::GroupMessage { group, members, epoch } => self.group_message(group, members, *epoch),
            Effect::Roster(change) => match apply_roster(&self.status(&change.group), change, now) {
                Ok(changed) => Ok(self.change(&change.group, changed, now)),
                Err(refusal) => Err(Saved::Refused(refusal)),
            },
            Effect::Wrap(change) => {
                let founder = change.founder;
                let recent = |(key, at): &&(PublicKey, UnixSecs)| Some(*key) == founder && at + DAY_SECS > now;
                let founded = u32::try_from(self.founded.iter().filter(recent).count()).unwrap_or(u32::MAX);
                match apply_wrap(&self.status(&change.group), change, founded, now) {
                    Ok(Some(changed)) => Ok(self.change(&change.group, changed, now)),
                    Ok(None) => Ok(With::default()),
                    Err(refusal) => Err(Saved::Refused(refusal)),
                }
            }
            Effect::Delete(deletion) => self.delete(event, deletion),
            Effect::Vanish => Ok(self.vanish(event, now)),
        };
        match applied {
            Ok(with) => Saved::New(self.put(admitted, with)),
            Err(saved) => saved,
        }
    }

    fn stamp(&self, admitted: &Admitted, author_only: bool) -> Stamp {
        Stamp {
            cursor: self.head,
            received_at: admitted.received_at(),
            expires_at: admitted.expires_at(),
            author_only,
        }
    }

    fn put(&mut self, admitted: &Admitted, with: With) -> Sealed {
        self.head += 1;
        let item = Item {
            event: admitted.event().clone(),
            stamp: self.stamp(admitted, with.author_only),
            found_by_queries: admitted.keep() == Keep::Stored,
            touches_groups: with.touches_groups,
            address: with.address,
            package: with.package,
        };
        let sealed = item.seal();
        self.ids.insert(item.event.id(), self.head);
        self.log.insert(self.head, item);
        sealed
    }

    fn remove(&mut self, cursor: Cursor) {
        if let Some(item) = self.log.remove(&cursor) {
            self.ids.remove(&item.event.id());
        }
    }

    fn is_gone(&self, event: &Event) -> bool {
        let view = event.view();
        let vanished = self.vanished.iter().any(|(key, at)| takes_along(event, key, *at));
        let buried = !matches!(event.kind(), Kind::DELETION | Kind::VANISH)
            && self.tombstones.keys().any(|(target, by)| *target == event.id() && may_delete(view, by));
        vanished || buried
    }

    fn replace(&mut self, event: &Event, identifier: &str, now: UnixSecs) -> Result<Address, Saved> {
        let address = (event.pubkey(), event.kind(), identifier.into());
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
        // Of one address the earlier one in NIP-01's order stays: the newer, then the one with the lower id.
        let position = Position { created_at: event.created_at(), id: event.id() };
        let stays = old.stamp.expires_at > now && old.position() < position;
        if stays { Err(Saved::Superseded) } else { Ok(Some(*cursor)) }
    }

    fn key_package(
        &mut self,
        event: &Event,
        entry: &Entry,
        identifier: Option<&str>,
        now: UnixSecs,
    ) -> Result<With, Saved> {
        if self.claimed.contains(&(entry.owner, entry.content_hash)) {
            return Err(Saved::Deleted);
        }
        let address: Option<Address> = identifier.map(|it| (event.pubkey(), event.kind(), it.into()));
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
        if let Some(old) = old {
            self.remove(old);
        }
        Ok(With { address, package: Some(entry.clone()), ..With::default() })
    }

    fn status(&self, group: &NostrGroupId) -> GroupStatus {
        match self.groups.get(group) {
            Some(view) => GroupStatus::Managed(Arc::clone(view)),
            None if self.unlisted.contains(group) => GroupStatus::Unlisted,
            None => GroupStatus::Unknown,
        }
    }

    fn change(&mut self, group: &NostrGroupId, changed: Changed, now: UnixSecs) -> With {
        self.groups.insert(group.clone(), Arc::new(changed.view));
        self.founded.extend(changed.founder.map(|founder| (founder, now)));
        With::default()
    }

    fn group_message(
        &mut self,
        group: &NostrGroupId,
        members: &[PublicKey],
        epoch: nostr_extensions::mls_gateway::group::SeenEpoch,
    ) -> Result<With, Saved> {
        let state = GroupState { id: group.clone(), status: self.status(group) };
        let allowed = if members.is_empty() { !state.is_managed() } else { state.has_member(members) };
        if !allowed {
            return Err(Saved::Refused(Refusal::NotMember));
        }
        match self.groups.get_mut(group) {
            Some(view) => {
                let record = &mut Arc::make_mut(view).record;
                record.last_epoch = next_epoch(record.last_epoch, epoch);
            }
            None => drop(self.unlisted.insert(group.clone())),
        }
        Ok(With::default())
    }

    fn delete(&mut self, event: &Event, deletion: &Deletion) -> Result<With, Saved> {
        let by = deletion.by;
        let stored = |state: &Self, id: &EventId| state.ids.get(id).copied();
        let undeletable = deletion.ids.iter().filter_map(|id| self.log.get(&stored(self, id)?)).any(|item| {
            matches!(item.event.kind(), Kind::GROUP_MESSAGE | Kind::ROSTER) && item.event.pubkey() == by
        });
        if undeletable {
            return Err(Saved::Refused(Refusal::Undeletable));
        }
        let foreign = event.tags().named(name::ADDRESS).count() > deletion.addresses.len();
        let mut with = With { author_only: foreign, ..With::default() };
        for id in &deletion.ids {
            let public = match stored(self, id).and_then(|cursor| Some((cursor, self.log.get(&cursor)?))) {
                Some((cursor, item)) => {
                    let public = item.is_public();
                    let kept = matches!(item.event.kind(), Kind::DELETION | Kind::VANISH);
                    if !kept && may_delete(item.event.view(), &by) {
                        with.touches_groups |=
                            item.event.kind() == Kind::GIFT_WRAP && item.event.tags().value(name::GROUP).is_some();
                        self.tombstones.insert((*id, by), public);
                        self.remove(cursor);
                    }
                    public
                }
                None => *self.tombstones.entry((*id, by)).or_insert(false),
            };
            with.author_only |= !public;
        }
        for (kind, identifier) in &deletion.addresses {
            let address = (by, *kind, identifier.clone());
            let current = self.log.iter().find(|(_, item)| item.address.as_ref() == Some(&address));
            let current = current.map(|(cursor, item)| (*cursor, item.event.created_at()));
            with.author_only |= current.is_none() && !self.address_tombstones.contains_key(&address);
            if let Some((cursor, created_at)) = current
                && created_at <= event.created_at()
            {
                self.remove(cursor);
            }
            let until = self.address_tombstones.entry(address).or_default();
            *until = (*until).max(event.created_at());
        }
        Ok(with)
    }

    fn vanish(&mut self, event: &Event, now: UnixSecs) -> With {
        let (key, at) = (event.pubkey(), event.created_at());
        let until = self.vanished.entry(key).or_default();
        *until = (*until).max(at);
        let gone = self.log.iter().filter(|(_, item)| takes_along(&item.event, &key, at));
        let gone: Vec<Cursor> = gone.map(|(cursor, _)| *cursor).collect();
        for cursor in gone {
            self.remove(cursor);
        }
        let changes: Vec<(NostrGroupId, Changed)> =
            self.groups.iter().filter_map(|(id, view)| Some((id.clone(), apply_vanish(view, &key)?))).collect();
        for (group, changed) in changes {
            self.change(&group, changed, now);
        }
        With::default()
    }

    fn scan(&self, query: &Query, from: Option<Position>, up_to: Cursor, bounds: PageBounds, now: UnixSecs) -> Page {
        let mut items: Vec<&Item> = self
            .log
            .range(..=up_to)
            .map(|(_, item)| item)
            .filter(|item| item.found_by_queries && item.stamp.expires_at > now)
            .filter(|item| from.is_none_or(|from| item.position() > from))
            .filter(|item| query.filter.matches(item.event.view()))
            .filter(|item| query.filter.ids.is_some() || is_in_scope(query, item))
            .collect();
        items.sort_unstable_by_key(|item| item.position());
        let mut page = Page::default();
        let mut bytes = 0;
        for item in items {
            if page.events.len() >= bounds.events_max.max(1) || bytes >= bounds.bytes_max.max(1) {
                page.next = page.events.last().map(Sealed::position);
                break;
            }
            bytes += item.event.record().len();
            page.events.push(item.seal());
        }
        page
    }

    fn claim(&mut self, owner: &PublicKey, packages_max: usize, now: UnixSecs) -> Vec<Sealed> {
        // One for each KeyPackage, the first to be stored.
        let mut distinct: Vec<(Cursor, Entry)> = Vec::new();
        for (cursor, item) in &self.log {
            if let Some(entry) = item.package.as_ref().filter(|it| it.owner == *owner && item.stamp.expires_at > now)
                && distinct.iter().all(|(_, known)| known.content_hash != entry.content_hash)
            {
                distinct.push((*cursor, entry.clone()));
            }
        }
        let mut left = distinct.len();
        let (last_resort, once): (Vec<_>, Vec<_>) = distinct.into_iter().partition(|(_, entry)| entry.last_resort);
        let mut given = Vec::new();
        for (cursor, entry) in once.into_iter().chain(last_resort).take(packages_max) {
            given.extend(self.log.get(&cursor).map(Item::seal));
            if entry.last_resort || left == 1 {
                continue;
            }
            left -= 1;
            self.claimed.insert((*owner, entry.content_hash));
            let twin = |item: &Item| {
                item.stamp.expires_at > now
                    && item
                        .package
                        .as_ref()
                        .is_some_and(|it| it.owner == *owner && it.content_hash == entry.content_hash)
            };
            let twins = self.log.iter().filter(|(_, item)| twin(item));
            let twins: Vec<(Cursor, EventId)> = twins.map(|(cursor, item)| (*cursor, item.event.id())).collect();
            for (cursor, id) in twins {
                self.tombstones.insert((id, *owner), true);
                self.remove(cursor);
            }
        }
        given
    }

    fn sweep(&mut self, now: UnixSecs, events_max: usize) -> usize {
        let expired = self.log.iter().filter(|(_, it)| it.stamp.expires_at != NEVER && it.stamp.expires_at <= now);
        let mut expired: Vec<(UnixSecs, Cursor)> = expired.map(|(cursor, it)| (it.stamp.expires_at, *cursor)).collect();
        expired.sort_unstable();
        expired.truncate(events_max);
        for (_, cursor) in &expired {
            self.remove(*cursor);
        }
        expired.len()
    }
}

/// A request to vanish stays itself.
fn takes_along(event: &Event, key: &PublicKey, at: UnixSecs) -> bool {
    event.kind() != Kind::VANISH && vanishes(event.view(), key, at)
}

fn is_in_scope(query: &Query, item: &Item) -> bool {
    let scope = &query.scope;
    match item.seal().audience() {
        Audience::Everyone => scope.everyone,
        Audience::Keys(keys) => keys.iter().any(|key| scope.keys.contains(key)),
        Audience::Group(group) => {
            scope.groups.contains(group) || (scope.all_rosters && item.event.kind() == Kind::ROSTER)
        }
        Audience::Nobody => false,
    }
}

impl Store for Memory {
    fn save(&self, batch: Vec<Admitted>) -> BoxFuture<'_, Vec<Result<Saved, StoreError>>> {
        let mut state = self.state.lock();
        let saved = batch.iter().map(|admitted| Ok(state.save(admitted))).collect();
        Box::pin(ready(saved))
    }

    fn scan<'a>(
        &'a self,
        query: &'a Query,
        from: Option<Position>,
        up_to: Cursor,
        bounds: PageBounds,
        now: UnixSecs,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(ready(Ok(self.state.lock().scan(query, from, up_to, bounds, now))))
    }

    fn after(&self, cursor: Cursor, entries_max: usize) -> BoxFuture<'_, Result<Vec<LogEntry>, StoreError>> {
        let state = self.state.lock();
        let entry = |item: &Item| {
            let sealed = item.seal();
            let touches = if item.touches_groups { Touches::EveryGroup } else { sealed.touches() };
            LogEntry { sealed, touches }
        };
        let behind = state.log.range(cursor.saturating_add(1)..).take(entries_max);
        Box::pin(ready(Ok(behind.map(|(_, item)| entry(item)).collect())))
    }

    fn head(&self) -> Cursor {
        self.state.lock().head
    }

    fn holds<'a>(&'a self, id: &'a EventId) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(ready(Ok(self.state.lock().ids.contains_key(id))))
    }

    fn group<'a>(&'a self, id: &'a NostrGroupId) -> BoxFuture<'a, Result<(GroupState, Cursor), StoreError>> {
        let state = self.state.lock();
        Box::pin(ready(Ok((GroupState { id: id.clone(), status: state.status(id) }, state.head))))
    }

    fn groups_of<'a>(&'a self, keys: &'a [PublicKey]) -> BoxFuture<'a, Result<Vec<NostrGroupId>, StoreError>> {
        let state = self.state.lock();
        let of = |view: &GroupView| keys.iter().any(|key| view.members.contains_key(key));
        let groups: BTreeSet<NostrGroupId> =
            state.groups.iter().filter(|(_, view)| of(view)).map(|(id, _)| id.clone()).collect();
        Box::pin(ready(Ok(groups.into_iter().collect())))
    }

    fn claim_key_packages<'a>(
        &'a self,
        owner: &'a PublicKey,
        packages_max: usize,
        now: UnixSecs,
    ) -> BoxFuture<'a, Result<Vec<Sealed>, StoreError>> {
        Box::pin(ready(Ok(self.state.lock().claim(owner, packages_max, now))))
    }

    fn sweep(&self, now: UnixSecs, events_max: usize) -> BoxFuture<'_, Result<usize, StoreError>> {
        Box::pin(ready(Ok(self.state.lock().sweep(now, events_max))))
    }

    fn stats(&self) -> BoxFuture<'_, Result<Stats, StoreError>> {
        let state = self.state.lock();
        let (events, groups) = (state.log.len() as u64, state.groups.len() as u64);
        Box::pin(ready(Ok(Stats { events, groups, bytes_used: 0, bytes_max: 0 })))
    }
}
