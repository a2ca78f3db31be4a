//! The store in memory: each rule in its plainest form, to hold the other stores against. For tests, and for a relay
//! that may forget.

mod claims;
mod moving;
#[cfg(feature = "simulation")]
mod shared;
mod state;

use std::collections::BTreeSet;

use async_trait::async_trait;
use nostr_extensions::{
    Admitted, Audience, Group, GroupStatus, ManagedGroup, NostrGroupId, Query, RouteHasher, Sealed,
    admit::NEVER,
    mls_gateway::{group::ServiceAnswer, key_package::suite_of},
    query::Position,
};
use nostr_protocol::{EventId, Kind, PublicKey, UnixSecs, mutation};
use parking_lot::Mutex;

use self::state::{Item, State};
use crate::{
    AppliedAnswer, Claim, Claimed, Cost, Cursor, ExpiredPackage, Listed, LogEntry, LogPage, OnceName, Page, PageBounds,
    Receipt, Received, ReceivedBounds, ReceivedPage, RecordName, Saved, Stats, Stock, StockRequest, Store, StoreError,
    StoredRecord, Swept, decide::MARK_KIND,
};

/// A store that ends with the process.
#[derive(Debug)]
pub struct Memory {
    state: Mutex<State>,
    route_hasher: RouteHasher,
    secret: [u8; 32],
    /// Whether events are decided on as the shared stores decide.
    #[cfg(feature = "simulation")]
    decides_as_shared: bool,
}

impl Default for Memory {
    fn default() -> Self {
        let (route_hasher, secret) = (crate::random::route_hasher(), crate::random::secret());
        Self {
            state: Mutex::default(),
            route_hasher,
            secret,
            #[cfg(feature = "simulation")]
            decides_as_shared: false,
        }
    }
}

impl Memory {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store that decides on events by the code of PostgreSQL and Firestore.
    #[cfg(feature = "simulation")]
    #[must_use]
    pub fn deciding_as_shared() -> Self {
        Self { decides_as_shared: true, ..Self::default() }
    }

    /// Forgets what an export leaves behind: rates, receipts and requests, and which KeyPackages were given as the last
    /// ones of their owners.
    #[cfg(feature = "testing")]
    pub fn forget_claims(&self) {
        let mut state = self.state.lock();
        state.takes.clear();
        state.receipts.clear();
        state.requests.clear();
        for item in state.log.values_mut() {
            let is_marked = nostr_extensions::mls_gateway::key_package::describe(item.event.view()).is_marked;
            item.package.iter_mut().for_each(|entry| entry.last_resort = is_marked);
        }
    }
}

impl State {
    fn scan(&self, query: &Query, from: Option<Position>, up_to: Cursor, bounds: PageBounds, now: UnixSecs) -> Page {
        // All events lie in the first part, which gives too much and never too little.
        if !bounds.part.is_first() {
            return Page::default();
        }
        let mut items: Vec<&Item> = self
            .log
            .range(..=up_to)
            .map(|(_, item)| item)
            .filter(|item| item.found_by_queries && (item.stamp.expires_at > now || mutation!("expiry")))
            .filter(|item| from.is_none_or(|from| item.position() > from))
            .filter(|item| query.filter.matches(item.event.view()))
            .filter(|item| query.filter.ids.is_some() || is_in_scope(query, item))
            .collect();
        items.sort_unstable_by_key(|item| item.position());
        let mut page = Page::default();
        let mut bytes = 0;
        for item in items {
            page.cost += Cost::of_units(1 + Cost::of_event(item.event.view()));
            if page.events.len() >= bounds.events_max.max(1) || bytes >= bounds.bytes_max.max(1) {
                page.next = page.events.last().map(Sealed::position);
                break;
            }
            bytes += item.event.record().len();
            page.events.push(item.seal());
        }
        page
    }

    fn received(
        &self,
        query: &Received,
        from: Receipt,
        up_to: Cursor,
        bounds: ReceivedBounds,
        now: UnixSecs,
    ) -> ReceivedPage {
        let mut page =
            ReceivedPage { next: Receipt { cursor: up_to.max(from.cursor), look_from: 0 }, ..ReceivedPage::default() };
        if from.cursor >= up_to {
            return page;
        }
        let mut bytes = 0;
        let listed = self.log.range(from.cursor + 1..=up_to).map(|(_, item)| item);
        let listed = listed.filter(|item| item.found_by_queries && query.holds(&item.seal()));
        for item in listed.filter(|item| item.stamp.expires_at > now) {
            if page.events.len() >= bounds.events_max.max(1) || bytes >= bounds.bytes_max.max(1) {
                page.has_more = true;
                page.next.cursor = page.events.last().map_or(from.cursor, Sealed::cursor);
                break;
            }
            page.cost += Cost::of_units(1 + Cost::of_event(item.event.view()));
            bytes += item.event.record().len();
            page.events.push(item.seal());
        }
        page
    }

    fn sweep(&mut self, now: UnixSecs, events_max: usize) -> Swept {
        let now = if mutation!("sweep-early") { now + 3_600 } else { now };
        self.once.retain(|_, until| *until > now);
        let expired = self.log.iter().filter(|(_, it)| it.stamp.expires_at != NEVER && it.stamp.expires_at <= now);
        let mut expired: Vec<(UnixSecs, Cursor)> = expired.map(|(cursor, it)| (it.stamp.expires_at, *cursor)).collect();
        expired.sort_unstable();
        expired.truncate(events_max);
        let mut swept = Swept { removed: expired.len(), ..Swept::default() };
        for (_, cursor) in &expired {
            if let Some(item) = self.log.get(cursor)
                && let Some(entry) = item.package.as_ref().filter(|entry| !entry.last_resort)
                && item.event.kind() == Kind::KEY_PACKAGE
            {
                let suite = suite_of(item.event.view());
                swept.expired.push(ExpiredPackage { owner: entry.owner, content_hash: entry.content_hash, suite });
            }
            self.remove(*cursor);
        }
        swept
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

#[async_trait]
impl Store for Memory {
    async fn save(&self, batch: Vec<Admitted>) -> Vec<Result<Saved, StoreError>> {
        let mut state = self.state.lock();
        #[cfg(feature = "simulation")]
        if self.decides_as_shared {
            return shared::save(&mut state, batch, &self.route_hasher).into_iter().map(Ok).collect();
        }
        batch.iter().map(|admitted| Ok(state.save(admitted))).collect()
    }

    async fn rehearse(&self, admitted: &Admitted) -> Result<Saved, StoreError> {
        let mut state = self.state.lock().clone();
        Ok(state.save(admitted))
    }

    async fn scan(
        &self,
        query: &Query,
        from: Option<Position>,
        up_to: Cursor,
        bounds: PageBounds,
        now: UnixSecs,
    ) -> Result<Page, StoreError> {
        Ok(self.state.lock().scan(query, from, up_to, bounds, now))
    }

    async fn received(
        &self,
        query: &Received,
        from: Receipt,
        up_to: Cursor,
        bounds: ReceivedBounds,
        now: UnixSecs,
    ) -> Result<ReceivedPage, StoreError> {
        Ok(self.state.lock().received(query, from, up_to, bounds, now))
    }

    async fn after(&self, cursor: Cursor, entries_max: usize) -> Result<LogPage, StoreError> {
        let state = self.state.lock();
        let behind = state.log.range(cursor.saturating_add(1)..).take(entries_max);
        let events = behind.map(|(_, item)| LogEntry::new(item.seal(), item.told.clone(), &self.route_hasher));
        let marks = state.marks.range(cursor.saturating_add(1)..).take(entries_max).map(|(at, touches)| LogEntry {
            cursor: *at,
            kind: MARK_KIND,
            touches: touches.clone(),
            group: None,
            routes: Vec::new(),
            sealed: None,
        });
        let mut entries: Vec<LogEntry> = events.chain(marks).collect();
        entries.sort_unstable_by_key(|entry| entry.cursor);
        entries.truncate(entries_max);
        let (through, is_head) = match entries.last() {
            Some(last) if entries.len() >= entries_max => (last.cursor, last.cursor == state.head),
            _ => (state.head.max(cursor), true),
        };
        Ok(LogPage { entries, through, is_head, read_at_ms: None })
    }

    async fn events_at(&self, cursors: &[Cursor]) -> Result<Vec<Sealed>, StoreError> {
        let state = self.state.lock();
        let mut events: Vec<Sealed> =
            cursors.iter().filter_map(|cursor| state.log.get(cursor)).map(Item::seal).collect();
        events.sort_unstable_by_key(Sealed::cursor);
        Ok(events)
    }

    fn route_hasher(&self) -> RouteHasher {
        self.route_hasher
    }

    fn head(&self) -> Cursor {
        self.state.lock().head
    }

    fn secret(&self) -> [u8; 32] {
        self.secret
    }

    async fn holds(&self, id: &EventId, now: UnixSecs) -> Result<bool, StoreError> {
        Ok(self.state.lock().holds(id, now))
    }

    async fn group(&self, id: &NostrGroupId) -> Result<(Group, Cursor), StoreError> {
        let state = self.state.lock();
        Ok((Group { id: id.clone(), status: state.status(id) }, state.head))
    }

    async fn known_groups(&self, ids: &[NostrGroupId]) -> Result<Vec<NostrGroupId>, StoreError> {
        let state = self.state.lock();
        let is_known = |id: &&NostrGroupId| !matches!(state.status(id), GroupStatus::Unknown);
        Ok(ids.iter().filter(is_known).cloned().collect())
    }

    async fn groups_of(&self, keys: &[PublicKey]) -> Result<Vec<NostrGroupId>, StoreError> {
        let state = self.state.lock();
        let of = |view: &ManagedGroup| keys.iter().any(|key| view.members.contains_key(key));
        let groups: BTreeSet<NostrGroupId> =
            state.groups.iter().filter(|(_, view)| of(view)).map(|(id, _)| id.clone()).collect();
        Ok(groups.into_iter().collect())
    }

    async fn groups_after(
        &self,
        prefix: &str,
        after: Option<&NostrGroupId>,
        most: usize,
    ) -> Result<Listed<NostrGroupId>, StoreError> {
        let state = self.state.lock();
        let is_listed = |id: &NostrGroupId| id.as_str().starts_with(prefix) && after.is_none_or(|after| id > after);
        let mut found: Vec<NostrGroupId> = state.groups.keys().filter(|id| is_listed(id)).cloned().collect();
        found.sort_unstable();
        found.truncate(most + 1);
        Ok(Listed::of(found, most))
    }

    async fn owners_after(&self, after: Option<&PublicKey>, most: usize) -> Result<Listed<PublicKey>, StoreError> {
        let state = self.state.lock();
        let owners = state.log.values().filter_map(|item| item.package.as_ref()).map(|package| package.owner);
        let owners: BTreeSet<PublicKey> = owners.filter(|owner| after.is_none_or(|after| owner > after)).collect();
        Ok(Listed::of(owners.into_iter().take(most + 1).collect(), most))
    }

    async fn invited_groups(&self, keys: &[PublicKey]) -> Result<Vec<NostrGroupId>, StoreError> {
        let state = self.state.lock();
        let invited = state.invited.keys().filter(|(_, member)| keys.contains(member));
        Ok(invited.map(|(group, _)| group.clone()).collect::<BTreeSet<_>>().into_iter().collect())
    }

    async fn apply_answer(&self, answer: &ServiceAnswer, now: UnixSecs) -> Result<Option<AppliedAnswer>, StoreError> {
        Ok(self.state.lock().apply_answer(answer, now))
    }

    async fn claim_key_packages(&self, claim: &Claim, now: UnixSecs) -> Result<Claimed, StoreError> {
        Ok(self.state.lock().claim(claim, now))
    }

    async fn stock(&self, owner: &PublicKey, now: UnixSecs) -> Result<Stock, StoreError> {
        Ok(self.state.lock().stock(owner, now))
    }

    async fn may_request(&self, request: &StockRequest, now: UnixSecs) -> Result<bool, StoreError> {
        Ok(self.state.lock().may_request(request, now))
    }

    async fn shares_group(&self, owner: &PublicKey, key: &PublicKey) -> Result<(bool, Cost), StoreError> {
        let state = self.state.lock();
        let own = state.groups.values().filter(|view| view.members.contains_key(key)).count();
        Ok((state.shares_group(owner, key), Cost::of_units(1 + own as u64)))
    }

    async fn use_once(&self, name: &OnceName, until: UnixSecs, now: UnixSecs) -> Result<bool, StoreError> {
        let mut state = self.state.lock();
        let is_new = state.once.get(name).is_none_or(|until| *until <= now);
        if is_new {
            state.once.insert(*name, until);
        }
        Ok(is_new)
    }

    async fn record(&self, name: RecordName, known: u64) -> Result<Option<StoredRecord>, StoreError> {
        let found = self.state.lock().records.get(&name).cloned();
        Ok(found.filter(|record| record.version != known))
    }

    async fn put_record(&self, name: RecordName, known: u64, value: Vec<u8>) -> Result<bool, StoreError> {
        let mut state = self.state.lock();
        let is_known = state.records.get(&name).map_or(0, |record| record.version) == known;
        if is_known {
            state.records.insert(name, StoredRecord { version: known + 1, value });
        }
        Ok(is_known)
    }

    async fn sweep(&self, now: UnixSecs, events_max: usize) -> Result<Swept, StoreError> {
        Ok(self.state.lock().sweep(now, events_max))
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        let state = self.state.lock();
        let (events, groups) = (state.log.len() as u64, state.groups.len() as u64);
        Ok(Stats { events, groups, key_packages: None, bytes_used: 0, bytes_max: 0 })
    }
}
