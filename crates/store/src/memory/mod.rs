//! The store in memory: each rule in its plainest form, to hold the other stores against. For tests, and for a relay
//! that may forget.

mod moving;
mod state;

use std::collections::BTreeSet;

use futures_util::future::{BoxFuture, ready};
use nostr_extensions::{
    Admitted, Audience, Group, ManagedGroup, NostrGroupId, Query, RouteHasher, Sealed, admit::NEVER,
    mls_gateway::key_package::DirectoryEntry, query::Position,
};
use nostr_protocol::{EventId, Kind, PublicKey, UnixSecs};
use parking_lot::Mutex;

use self::state::{Item, State};
use crate::{
    Cursor, LogEntry, LogPage, Page, PageBounds, Saved, Stats, Store, StoreError,
    decide::keys::{claimed, tombstone_key},
    random_route_hasher,
};

/// A store that ends with the process.
#[derive(Debug)]
pub struct Memory {
    state: Mutex<State>,
    router: RouteHasher,
}

impl Default for Memory {
    fn default() -> Self {
        Self { state: Mutex::default(), router: random_route_hasher() }
    }
}

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl State {
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
        let mut distinct: Vec<(Cursor, DirectoryEntry)> = Vec::new();
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
            self.claimed.insert(claimed(owner, &entry.content_hash));
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
                self.tombstones.insert(tombstone_key(&id, owner), true);
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

    fn after(&self, cursor: Cursor, entries_max: usize) -> BoxFuture<'_, Result<LogPage, StoreError>> {
        let state = self.state.lock();
        let behind = state.log.range(cursor.saturating_add(1)..).take(entries_max);
        let entries: Vec<LogEntry> =
            behind.map(|(_, item)| LogEntry::new(item.seal(), item.touches_groups, &self.router)).collect();
        let (through, is_head) = match entries.last() {
            Some(last) if entries.len() >= entries_max => (last.cursor, last.cursor == state.head),
            _ => (state.head.max(cursor), true),
        };
        Box::pin(ready(Ok(LogPage { entries, through, is_head })))
    }

    fn events_at<'a>(&'a self, cursors: &'a [Cursor]) -> BoxFuture<'a, Result<Vec<Sealed>, StoreError>> {
        let state = self.state.lock();
        let mut events: Vec<Sealed> =
            cursors.iter().filter_map(|cursor| state.log.get(cursor)).map(Item::seal).collect();
        events.sort_unstable_by_key(Sealed::cursor);
        Box::pin(ready(Ok(events)))
    }

    fn route_hasher(&self) -> RouteHasher {
        self.router
    }

    fn head(&self) -> Cursor {
        self.state.lock().head
    }

    fn holds<'a>(&'a self, id: &'a EventId) -> BoxFuture<'a, Result<bool, StoreError>> {
        Box::pin(ready(Ok(self.state.lock().ids.contains_key(id))))
    }

    fn group<'a>(&'a self, id: &'a NostrGroupId) -> BoxFuture<'a, Result<(Group, Cursor), StoreError>> {
        let state = self.state.lock();
        Box::pin(ready(Ok((Group { id: id.clone(), status: state.status(id) }, state.head))))
    }

    fn groups_of<'a>(&'a self, keys: &'a [PublicKey]) -> BoxFuture<'a, Result<Vec<NostrGroupId>, StoreError>> {
        let state = self.state.lock();
        let of = |view: &ManagedGroup| keys.iter().any(|key| view.members.contains_key(key));
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
