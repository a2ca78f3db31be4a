//! Live delivery: takes committed events in commit order, finds the subscriptions that may ask for each, and sends the
//! events that the gate releases.
//!
//! A filter stands in an index under a few routes: its most selective condition. An event is looked up under its own
//! routes, so that it reaches the connections it concerns and no other. Events for named keys or for members are routed
//! by the reader's keys, so that a filter such as `{"kinds":[445]}` costs nothing for the messages of groups that its
//! reader is not in.
//!
//! Connections are spread over shards. Each shard has an index, a queue and a task of its own, so that delivery uses
//! the cores there are and each connection gets its events in the order of the log.
//!
//! One client cannot hold up the deliveries of others: the index is locked for a bounded number of routes at a time,
//! filters are matched while it is free, the task yields after a bounded number of conditions, and each condition is
//! charged to the account of the subscription's payer. A subscription that overdraws it ends.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU64, Ordering},
};

use nostr_extensions::{
    Asker, Gate, Group, Persistence, Prepared, Reader, RouteHasher, gate::Touches, kinds::rules, route::Condition,
};
use nostr_protocol::{Filter, Kind, Rejection, message::closed_frame, mutation};
use nostr_store::{Cursor, LogEntry};
use parking_lot::{Mutex, MutexGuard};
use tokio::task::yield_now;

use super::{
    groups::{GroupState, Groups},
    index::{Candidate, ConnectionId, Found, Index, OfReader, Place, Removed, Search, Subscription},
    members::{Awaited, Following},
    outbox::{KeptByPayer, Outbox},
    payers::Payers,
    queue::{LiveEvent, ShardQueue},
    routes::{Routes, hashing_cost},
};
use crate::{observe::metrics::Metrics, system::clock::Clock};

/// Most shards, however many threads serve connections.
pub(super) const SHARDS_MAX: usize = 8;
/// Bytes of a long request at the price of one value that it opens.
const BYTES_PER_VALUE: usize = 64;
/// Conditions after which a shard lets other tasks run: about a third of a millisecond.
const CONDITIONS_PER_TURN_MAX: usize = 50_000;
/// Most subscriptions that are taken out of the index while it is locked once.
const CANDIDATES_PER_HOLD_MAX: usize = 256;
/// Conditions that a filter costs beside those that are matched: it is found, sorted and taken out of the index.
const CONDITIONS_PER_CANDIDATE: usize = 8;

/// The reason that a client is given for the end of a subscription that costs too much.
const TOO_COSTLY: &str = "matching the filters of this subscription against live events costs too much; \
     name fewer tag letters and values, or fewer filters; retry in 1 s";
/// The reason that a client is given for the end of a subscription whose events it does not read.
const TOO_SLOW: &str = "too slow: events came faster than they were read; subscribe again";

/// The open subscriptions of all connections.
pub struct Live {
    gate: Gate,
    groups: Arc<Groups>,
    shards: Vec<Mutex<Index>>,
    /// The queues of the shards, once delivery runs.
    queues: OnceLock<Vec<Arc<ShardQueue>>>,
    payers: Payers,
    route_hasher: RouteHasher,
    next_connection: AtomicU64,
    /// Every event up to here was handed to the shards.
    handed: AtomicU64,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
}

impl Live {
    /// No subscriptions; events that are committed already are delivered to nobody. `route_hasher` is the store's.
    /// `workers` is the number of threads that serve connections.
    pub(crate) fn new(
        gate: Gate,
        groups: Arc<Groups>,
        route_hasher: RouteHasher,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
        workers: usize,
    ) -> Self {
        let cursor = groups.readable_up_to();
        let shards = workers.clamp(1, SHARDS_MAX);
        Self {
            gate,
            groups,
            shards: (0..shards).map(|_| Mutex::new(Index::new(cursor))).collect(),
            queues: OnceLock::new(),
            payers: Payers::new(shards),
            route_hasher,
            next_connection: AtomicU64::new(0),
            handed: AtomicU64::new(cursor),
            metrics,
            clock,
        }
    }

    /// Number of shards.
    pub(super) const fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Notes the queues of the shards, whose lengths metrics show.
    pub(super) fn note_queues(&self, queues: Vec<Arc<ShardQueue>>) {
        let _ = self.queues.set(queues);
    }

    /// Number of events in the longest queue of a shard. The queues share their events.
    pub(crate) fn waiting(&self) -> usize {
        let queues = self.queues.get().map_or(&[][..], Vec::as_slice);
        queues.iter().map(|queue| queue.waiting().0).max().unwrap_or(0)
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The index of a connection's shard.
    fn index(&self, connection: ConnectionId) -> MutexGuard<'_, Index> {
        // The remainder is below the number of shards, so it fits and the shard is there.
        self.shards[(connection.0 % self.shards.len() as u64) as usize].lock()
    }

    /// Adds a connection without keys. `payer` is the hash of the client's address.
    pub fn connect(&self, outbox: Arc<Outbox>, payer: u64) -> ConnectionId {
        let id = ConnectionId(self.next_connection.fetch_add(1, Ordering::Relaxed));
        let account = self.payers.account(payer, self.clock.now_ms());
        self.index(id).connect(id, outbox, account);
        id
    }

    /// Removes a connection and its subscriptions.
    pub(crate) async fn disconnect(&self, connection: ConnectionId) {
        let removed = self.index(connection).disconnect(connection);
        for removed in removed {
            self.remove_routes(connection, removed).await;
        }
    }

    /// Sets the reader of a connection, in all its subscriptions.
    pub(crate) fn set_reader(&self, connection: ConnectionId, reader: &Reader) {
        let mut open = self.index(connection).set_reader(connection, reader);
        if mutation!("auth-routes") {
            open.clear();
        }
        let policy = self.gate.policy().now();
        for OfReader { number, filters, routes: before } in open {
            let Some((routes, new)) = before.for_reader(&self.route_hasher, &filters, reader, &policy) else {
                continue;
            };
            self.index(connection).replace_routes(number, routes);
            let mut added = new.into_iter();
            while self.index(connection).add_routes(number, &mut added) {}
        }
    }

    /// Charges the payer of a connection for a long request before it is read.
    ///
    /// # Errors
    /// `rate-limited:` when the payer's requests were too long lately.
    pub(crate) fn charge_length(&self, connection: ConnectionId, bytes: usize) -> Result<(), Rejection> {
        let Some((_, payer)) = self.index(connection).reader(connection) else { return Ok(()) };
        payer.charge_opened(bytes / BYTES_PER_VALUE, self.clock.now_ms())
    }

    /// Opens a subscription, or replaces the one of the same id. Gives the cursor up to which the archive is to be
    /// read: later events are delivered from here.
    ///
    /// Its routes are added a bounded number at a time, and it is found once all are there. The cursor is read then,
    /// while the search for an event's subscriptions stands still in its shard. An event is handed to delivery only
    /// after the cursor has passed it, so every delivered event lies at or before the cursor, and an event that was
    /// acknowledged before the request came is in the archive's part of the answer. The follower skips events that no
    /// subscription waits for; it asks the index after the cursor has passed them too.
    ///
    /// # Errors
    /// `error:` when the connection, or the connections of its payer together, have too many subscriptions or
    /// conditions open. `rate-limited:` when the payer opened too many conditions lately.
    pub async fn subscribe(
        &self,
        connection: ConnectionId,
        id: &str,
        filters: Arc<[Filter]>,
        subscriptions_max: usize,
    ) -> Result<Cursor, Rejection> {
        self.unsubscribe(connection, id).await;
        let Some((reader, payer)) = self.index(connection).reader(connection) else { return Ok(0) };
        payer.charge_opened(hashing_cost(&filters), self.clock.now_ms())?;
        // The reader changes between the requests of a connection alone, and not meanwhile.
        let (routes, weight) = Routes::of(&self.route_hasher, &filters, &reader, &self.gate.policy().now()).await;
        payer.charge_opened(routes.len(), self.clock.now_ms())?;
        let routes = Arc::new(routes);
        let opened = (Arc::clone(&routes), weight);
        let opened = self.index(connection).open(connection, id, filters, opened, subscriptions_max)?;
        let Some(number) = opened else { return Ok(0) };
        let mut added = routes.iter();
        while self.index(connection).add_routes(number, &mut added) {
            yield_now().await;
        }
        let mut index = self.index(connection);
        let from = self.groups.readable_up_to();
        index.activate(number, from);
        if mutation!("handoff-gap") {
            return Ok(from.saturating_sub(1));
        }
        if mutation!("handoff-overlap") {
            return Ok(Cursor::MAX);
        }
        Ok(from)
    }

    /// Ends a subscription, if it is open.
    pub(crate) async fn unsubscribe(&self, connection: ConnectionId, id: &str) {
        let removed = self.index(connection).close(connection, id);
        if let Some(removed) = removed {
            self.remove_routes(connection, removed).await;
        }
    }

    async fn remove_routes(&self, connection: ConnectionId, removed: Removed) {
        let mut routes = removed.routes.iter();
        while self.index(connection).remove_routes(removed.number, &mut routes) {
            yield_now().await;
        }
    }

    /// Ends this subscription, and tells its client why. Does nothing where another of its name has taken its place.
    async fn end(&self, subscription: &Subscription, word: &'static str, reason: &Rejection) {
        let closed = closed_frame(&subscription.id, reason);
        let removed = self.index(subscription.connection).end(subscription, closed);
        if let Some(removed) = removed {
            self.metrics.subscription_ended(word);
            self.remove_routes(subscription.connection, removed).await;
        }
    }

    /// Ends all subscriptions, and tells their clients why.
    pub(super) fn end_all(&self, reason: &Rejection) {
        for shard in &self.shards {
            let _ended = shard.lock().end_all(|id| closed_frame(id, reason));
        }
    }

    /// Number of open subscriptions.
    pub fn subscriptions(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().len()).sum()
    }

    /// Number of routes of all shards.
    #[cfg(test)]
    pub(super) fn routes(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().routes_len()).sum()
    }

    /// Number of routes that were looked up in all shards.
    #[cfg(test)]
    pub(super) fn routes_looked_up(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().looked_up()).sum()
    }

    /// The cursor up to which every event has been delivered.
    pub fn cursor(&self) -> Cursor {
        self.shards.iter().map(|shard| shard.lock().cursor()).min().unwrap_or_default()
    }

    /// The cursor up to which a shard has delivered every event.
    pub(super) fn delivered(&self, shard: usize) -> Cursor {
        self.shards[shard].lock().cursor()
    }

    /// Notes that a shard has no event up to `cursor` left to deliver.
    pub(super) fn advance(&self, shard: usize, cursor: Cursor) {
        self.shards[shard].lock().advance(cursor);
    }

    /// The cursor up to which the follower has handed every event to the shards.
    pub(super) fn handed(&self) -> Cursor {
        self.handed.load(Ordering::Acquire)
    }

    /// Notes that the follower has handed every event up to `cursor` to the shards.
    pub(super) fn note_handed(&self, cursor: Cursor) {
        self.handed.fetch_max(cursor, Ordering::AcqRel);
    }

    /// Returns whether a subscription waits for messages of a group: by its id, or as a member.
    pub(crate) async fn awaits_messages_of(&self, group: &GroupState) -> bool {
        let message = LogEntry {
            cursor: Cursor::MAX,
            kind: Kind::GROUP_MESSAGE,
            touches: Touches::Nothing,
            group: Some(group.id.clone()),
            routes: vec![self.route_hasher.hash(Condition::Tag(b'h', group.id.as_str()))],
            sealed: None,
        };
        self.wants(&message, Some(group)).await
    }

    /// Returns whether a subscription may wait for the entry, as far as can be said without the state of its group.
    pub(super) fn may_want(&self, entry: &LogEntry) -> bool {
        (entry.group.is_some() && self.shards.iter().any(|shard| shard.lock().asks_for_members()))
            || self.wants_by_itself(entry)
    }

    /// Returns whether a subscription waits for the entry, under one of its routes or as a member of its group.
    pub(super) async fn wants(&self, entry: &LogEntry, group: Option<&GroupState>) -> bool {
        if self.wants_by_itself(entry) {
            return true;
        }
        let place = self.place_of(entry);
        for shard in 0..self.shards.len() {
            if let Some(awaited) = self.awaited(shard, group).await
                && is_wanted(&self.shards[shard], &awaited.routes, place)
            {
                return true;
            }
        }
        false
    }

    /// Returns whether a subscription waits for the entry under one of its own routes.
    fn wants_by_itself(&self, entry: &LogEntry) -> bool {
        let place = self.place_of(entry);
        self.shards.iter().any(|shard| is_wanted(shard, &entry.routes, place))
    }

    fn place_of(&self, entry: &LogEntry) -> Place {
        Place { cursor: entry.cursor, is_archived: self.is_archived(entry.kind) }
    }

    /// The routes of the group's members under which a subscription of the shard stands; `None` for no group.
    async fn awaited(&self, shard: usize, group: Option<&GroupState>) -> Option<Arc<Awaited>> {
        let group = group.filter(|group| group.is_managed())?;
        let known = group.members().awaited(shard);
        {
            let index = self.shards[shard].lock();
            if let Some(known) = known.as_ref().filter(|known| index.is_followed_by(known)) {
                return Some(Arc::clone(known));
            }
            if !index.asks_for_members() {
                return None;
            }
        }
        let mut following = Following::from(group.members().all(&group.status, &self.route_hasher), known.as_deref());
        while self.follow(shard, &mut following) {
            yield_now().await;
        }
        let awaited = Arc::new(following.done());
        group.members().keep(shard, &awaited);
        Some(awaited)
    }

    fn follow(&self, shard: usize, following: &mut Following<'_>) -> bool {
        self.shards[shard].lock().follow(following)
    }

    /// Delivers one event to the subscriptions of a shard that may see it. Its group's state is as of the event's place
    /// in the log, or later, so that a removal holds for the message after it. Without a state an event of a group is
    /// delivered to nobody.
    pub(super) async fn deliver(&self, shard: usize, event: &LiveEvent) {
        let sealed = &event.sealed;
        let place = Place { cursor: sealed.cursor(), is_archived: self.is_archived(sealed.kind()) };
        let found = self.find(shard, event).await;
        if !found.is_empty() {
            let (group, now_ms) = (event.group().map(GroupState::group), self.clock.now_ms());
            let prepared = sealed.prepare();
            let kept = KeptByPayer::new(&event.sharing, event.committed);
            let mut delivering =
                Delivering { live: self, prepared, group, now_ms, kept, delivered: 0, looked_at: 0, turn: 0 };
            let mut by_subscription = found.chunk_by(|a, b| a.number == b.number);
            loop {
                let candidates = self.candidates(shard, &mut by_subscription, place);
                if candidates.is_empty() {
                    break;
                }
                for (candidate, found) in candidates {
                    delivering.offer(&candidate, found).await;
                }
            }
            self.metrics.delivered(delivering.delivered);
            self.metrics.conditions(delivering.looked_at);
        }
        self.advance(shard, sealed.cursor());
    }

    /// The subscriptions that the event's routes lead to, with each such route, in order.
    async fn find(&self, shard: usize, event: &LiveEvent) -> Vec<Found> {
        let awaited = self.awaited(shard, event.group()).await;
        let members = awaited.as_ref().map_or(&[][..], |awaited| &awaited.routes);
        let mut found = Vec::new();
        for routes in [event.routes(&self.route_hasher), members] {
            let mut search = Search::new(routes);
            search.found = found;
            while self.shards[shard].lock().search(&mut search) {
                yield_now().await;
            }
            found = search.found;
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Some of the subscriptions that wait for the event, with the routes that led to each; none at the end.
    fn candidates<'f>(
        &self,
        shard: usize,
        by_subscription: &mut impl Iterator<Item = &'f [Found]>,
        place: Place,
    ) -> Vec<(Candidate, &'f [Found])> {
        let mut candidates = Vec::new();
        loop {
            let index = self.shards[shard].lock();
            let mut looked_at = 0;
            for found in by_subscription.take(CANDIDATES_PER_HOLD_MAX) {
                looked_at += 1;
                candidates.extend(index.candidate(found[0].number, place).map(|candidate| (candidate, found)));
            }
            if looked_at < CANDIDATES_PER_HOLD_MAX || !candidates.is_empty() {
                return candidates;
            }
        }
    }

    /// Returns whether a query finds events of this kind, so that a subscription gets each from the archive or from
    /// here and not from both.
    fn is_archived(&self, kind: Kind) -> bool {
        rules(kind).kept.persistence(&self.gate.policy().now()) == Persistence::Stored
    }
}

/// Returns whether one of the routes leads to a subscription of the shard that waits for the event.
fn is_wanted(shard: &Mutex<Index>, routes: &[u64], place: Place) -> bool {
    let mut search = Search::new(routes);
    loop {
        let index = shard.lock();
        let goes_on = index.search(&mut search);
        if index.any_waits_for(&search.found, place) {
            return true;
        }
        if !goes_on {
            return false;
        }
        search.found.clear();
    }
}

/// One event on its way to the subscriptions of a shard.
struct Delivering<'a> {
    live: &'a Live,
    prepared: Prepared<'a>,
    group: Option<&'a Group>,
    now_ms: u64,
    /// The event's bytes in the outboxes of the shard's clients.
    kept: KeptByPayer<'a>,
    delivered: usize,
    looked_at: usize,
    /// Conditions that were looked at since other tasks could run.
    turn: usize,
}

impl Delivering<'_> {
    /// Sends the event to a subscription if a filter under one of these routes asks for it.
    async fn offer(&mut self, candidate: &Candidate, found: &[Found]) {
        if let [found] = found {
            self.offer_to_filters(candidate, candidate.routes.filters_under(found.route)).await;
            return;
        }
        let mut filters: Vec<u16> = Vec::new();
        found.iter().for_each(|found| filters.extend_from_slice(candidate.routes.filters_under(found.route)));
        filters.sort_unstable();
        filters.dedup();
        self.offer_to_filters(candidate, &filters).await;
    }

    /// Matches filters until one asks for the event. The subscription's payer is charged for each, and the subscription
    /// ends where that overdraws its account.
    async fn offer_to_filters(&mut self, Candidate { subscription, reader, .. }: &Candidate, filters: &[u16]) {
        if subscription.payer.owes_too_much(self.now_ms) {
            return self.live.end(subscription, "too_costly", &Rejection::rate_limited(TOO_COSTLY)).await;
        }
        let mut of_event = 0;
        for number in filters {
            let Some(filter) = subscription.filters.get(usize::from(*number)) else { continue };
            let mut looked_at = CONDITIONS_PER_CANDIDATE;
            let (asker, now) = (Asker::new(reader, filter), self.now_ms / 1_000);
            let released = self.live.gate.release_prepared(&self.prepared, asker, self.group, now, &mut looked_at);
            let is_sent = released.is_some();
            if let Some(released) = released {
                match subscription.outbox.push_event(&subscription.name, &released, &mut self.kept) {
                    Ok(is_queued) => self.delivered += usize::from(is_queued),
                    Err(_) => self.live.end(subscription, "too_slow", &Rejection::error(TOO_SLOW)).await,
                }
            }
            self.looked_at += looked_at;
            self.turn += looked_at;
            of_event += looked_at;
            let paid = subscription.payer.charge_matched(looked_at, of_event, self.now_ms);
            if paid.is_err() {
                self.live.end(subscription, "too_costly", &Rejection::rate_limited(TOO_COSTLY)).await;
            }
            if self.turn >= CONDITIONS_PER_TURN_MAX {
                self.turn = 0;
                yield_now().await;
            }
            if is_sent || paid.is_err() {
                return;
            }
        }
    }
}
