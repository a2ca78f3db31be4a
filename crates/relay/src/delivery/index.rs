//! The index of subscriptions by route.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use nostr_extensions::{
    Policy, Reader, Role, RouteHasher,
    audience::{is_for_admin_keys, is_for_group, may_be_for_keys, may_be_public},
    route::Condition,
};
use nostr_protocol::{Filter, Kind, PublicKey, Rejection};
use nostr_store::Cursor;

use super::{
    live::Subscription,
    outbox::{Outbox, SubscriptionName},
};

/// Most routes that the subscriptions of one connection stand under, together with the conditions of their filters: the
/// bound on the work that one event causes for one connection.
const CONNECTION_ROUTES_MAX: usize = 20_000;

/// Most bytes that the filters of one connection take. A filter stands under its most selective condition alone, and
/// may hold long lists beside it.
const CONNECTION_FILTER_BYTES_MAX: usize = 4 << 20;

/// Name of a connection for as long as it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u64);

type SubscriptionId = u64;

pub(super) struct Index {
    cursor: Cursor,
    next_id: u64,
    /// Number of events for which candidates were looked for.
    deliveries: u64,
    route_hasher: RouteHasher,
    connections: HashMap<ConnectionId, Connection>,
    subscriptions: HashMap<SubscriptionId, IndexedSubscription>,
    routes: BTreeSet<(u64, SubscriptionId)>,
    /// Number of routes under `Member` of a key.
    member_routes: usize,
}

struct Connection {
    reader: Reader,
    outbox: Arc<Outbox>,
    subscriptions: BTreeMap<Arc<str>, SubscriptionId>,
    routes: usize,
    filter_bytes: usize,
}

struct IndexedSubscription {
    subscription: Arc<Subscription>,
    routes: Box<[u64]>,
    /// Number of routes under `Member` among them.
    member_routes: usize,
    /// Number of the last delivery that it was a candidate for, so that two routes to it count once.
    seen: u64,
    /// Archived events up to this cursor are not delivered: the archive's part of the answer has them.
    from: Cursor,
    /// Events that are in no archive are not delivered up to this cursor.
    from_unarchived: Cursor,
}

impl Index {
    pub(super) fn new(cursor: Cursor, route_hasher: RouteHasher) -> Self {
        Self {
            cursor,
            next_id: 0,
            deliveries: 0,
            route_hasher,
            connections: HashMap::new(),
            subscriptions: HashMap::new(),
            routes: BTreeSet::new(),
            member_routes: 0,
        }
    }

    pub(super) const fn cursor(&self) -> Cursor {
        self.cursor
    }

    pub(super) fn advance(&mut self, cursor: Cursor) {
        self.cursor = self.cursor.max(cursor);
    }

    pub(super) fn len(&self) -> usize {
        self.subscriptions.len()
    }

    pub(super) fn connect(&mut self, outbox: Arc<Outbox>) -> ConnectionId {
        self.next_id += 1;
        let id = ConnectionId(self.next_id);
        let connection = Connection {
            reader: Reader::default(),
            outbox,
            subscriptions: BTreeMap::new(),
            routes: 0,
            filter_bytes: 0,
        };
        self.connections.insert(id, connection);
        id
    }

    pub(super) fn disconnect(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.remove(&id) else { return };
        for subscription in connection.subscriptions.into_values() {
            self.forget(subscription);
        }
    }

    pub(super) fn set_reader(&mut self, id: ConnectionId, reader: Reader, policy: &Policy) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.reader = reader.clone();
        connection.routes = 0;
        let open: Vec<SubscriptionId> = connection.subscriptions.values().copied().collect();
        let mut total = 0;
        for id in open {
            if let Some(entry) = self.subscriptions.get_mut(&id) {
                let (routes, member_routes) = routes(&self.route_hasher, &entry.subscription.filters, &reader, policy);
                for route in &entry.routes {
                    self.routes.remove(&(*route, id));
                }
                self.routes.extend(routes.iter().map(|route| (*route, id)));
                self.member_routes = self.member_routes - entry.member_routes + member_routes;
                total += routes.len() + conditions(&entry.subscription.filters);
                entry.routes = routes;
                entry.member_routes = member_routes;
            }
        }
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.routes = total;
        }
    }

    pub(super) fn subscribe(
        &mut self,
        connection_id: ConnectionId,
        id: &str,
        filters: Arc<[Filter]>,
        subscriptions_max: usize,
        policy: &Policy,
        from: Cursor,
    ) -> Result<(), Rejection> {
        self.unsubscribe(connection_id, id);
        let Some(connection) = self.connections.get_mut(&connection_id) else { return Ok(()) };
        if connection.subscriptions.len() >= subscriptions_max {
            return Err(Rejection::error(format!(
                "this connection has {subscriptions_max} subscriptions open; CLOSE one first"
            )));
        }
        let (routes, member_routes) = routes(&self.route_hasher, &filters, &connection.reader, policy);
        let weight = routes.len() + conditions(&filters);
        if connection.routes + weight > CONNECTION_ROUTES_MAX {
            return Err(Rejection::error(format!(
                "the subscriptions of this connection name over {CONNECTION_ROUTES_MAX} values; CLOSE some first"
            )));
        }
        let filter_bytes = bytes(&filters);
        if connection.filter_bytes + filter_bytes > CONNECTION_FILTER_BYTES_MAX {
            return Err(Rejection::error(format!(
                "the filters of this connection take over {} MiB; CLOSE some first",
                CONNECTION_FILTER_BYTES_MAX >> 20
            )));
        }
        self.next_id += 1;
        let key = self.next_id;
        let id: Arc<str> = id.into();
        connection.routes += weight;
        connection.filter_bytes += filter_bytes;
        connection.subscriptions.insert(Arc::clone(&id), key);
        self.routes.extend(routes.iter().map(|route| (*route, key)));
        self.member_routes += member_routes;
        let subscription =
            Arc::new(Subscription { connection: connection_id, name: SubscriptionName::new(&id), id, filters });
        let entry =
            IndexedSubscription { subscription, routes, member_routes, seen: 0, from, from_unarchived: self.cursor };
        self.subscriptions.insert(key, entry);
        Ok(())
    }

    pub(super) fn unsubscribe(&mut self, connection: ConnectionId, id: &str) {
        let Some(connection) = self.connections.get_mut(&connection) else { return };
        let Some(key) = connection.subscriptions.remove(id) else { return };
        if let Some(entry) = self.subscriptions.get(&key) {
            connection.routes -= entry.routes.len() + conditions(&entry.subscription.filters);
            connection.filter_bytes -= bytes(&entry.subscription.filters);
        }
        self.forget(key);
    }

    /// Ends every subscription. Gives the outbox and the id of each.
    pub(super) fn end_all(&mut self) -> Vec<(Arc<Outbox>, Arc<str>)> {
        let mut ended = Vec::with_capacity(self.subscriptions.len());
        for connection in self.connections.values_mut() {
            let subscriptions = std::mem::take(&mut connection.subscriptions);
            ended.extend(subscriptions.into_keys().map(|id| (Arc::clone(&connection.outbox), id)));
            (connection.routes, connection.filter_bytes) = (0, 0);
        }
        self.subscriptions.clear();
        self.routes.clear();
        self.member_routes = 0;
        ended
    }

    fn forget(&mut self, key: SubscriptionId) {
        if let Some(entry) = self.subscriptions.remove(&key) {
            for route in &entry.routes {
                self.routes.remove(&(*route, key));
            }
            self.member_routes -= entry.member_routes;
        }
    }

    /// Returns whether any subscription stands under `Member` of a key.
    pub(super) const fn asks_for_members(&self) -> bool {
        self.member_routes > 0
    }

    /// Returns whether one of the event's routes leads to a subscription that does not get the event from the archive.
    pub(super) fn wants(&self, event: &EventRoutes<'_>) -> bool {
        self.keys(event).into_iter().any(|key| {
            let mut under = self.routes.range((key, 0)..=(key, u64::MAX));
            under.any(|(_, id)| self.subscriptions.get(id).is_some_and(|entry| entry.waits_for(event)))
        })
    }

    /// The subscriptions that the event's routes lead to, each once.
    pub(super) fn candidates(&mut self, event: &EventRoutes<'_>) -> Vec<Candidate> {
        let mut found = Vec::new();
        // Two events may share a cursor, so the cursor does not tell deliveries apart.
        self.deliveries += 1;
        for key in self.keys(event) {
            for (_, id) in self.routes.range((key, 0)..=(key, u64::MAX)) {
                let Some(entry) = self.subscriptions.get_mut(id) else { continue };
                if entry.seen == self.deliveries || !entry.waits_for(event) {
                    continue;
                }
                entry.seen = self.deliveries;
                if let Some(connection) = self.connections.get(&entry.subscription.connection) {
                    found.push(Candidate {
                        subscription: Arc::clone(&entry.subscription),
                        reader: connection.reader.clone(),
                        outbox: Arc::clone(&connection.outbox),
                    });
                }
            }
        }
        found
    }

    /// The event's routes, and those of the members of its group.
    fn keys(&self, event: &EventRoutes<'_>) -> Vec<u64> {
        let members = event.members.filter(|_| self.asks_for_members()).into_iter().flatten();
        let member_routes = members.map(|(key, _)| self.route_hasher.hash(Condition::Member(*key)));
        event.routes.iter().copied().chain(member_routes).collect()
    }
}

impl IndexedSubscription {
    /// Returns whether the event is not in the archive's part of the answer.
    const fn waits_for(&self, event: &EventRoutes<'_>) -> bool {
        let from = if event.is_archived { self.from } else { self.from_unarchived };
        event.cursor > from
    }
}

/// The side of an event that leads to subscriptions.
pub(super) struct EventRoutes<'a> {
    pub(super) cursor: Cursor,
    /// The event's routes, without those of members.
    pub(super) routes: &'a [u64],
    /// The members of the event's group.
    pub(super) members: Option<&'a HashMap<PublicKey, Role>>,
    /// Set where queries find the event.
    pub(super) is_archived: bool,
}

/// A subscription that may ask for an event, to be matched after the index is unlocked.
pub(super) struct Candidate {
    pub(super) subscription: Arc<Subscription>,
    pub(super) reader: Reader,
    pub(super) outbox: Arc<Outbox>,
}

fn conditions(filters: &[Filter]) -> usize {
    filters.iter().map(|filter| 1 + filter.tags.len()).sum()
}

fn bytes(filters: &[Filter]) -> usize {
    filters.iter().map(Filter::bytes).sum()
}

/// The routes of a subscription, and the number of `Member` routes among them.
fn routes(hasher: &RouteHasher, filters: &[Filter], reader: &Reader, policy: &Policy) -> (Box<[u64]>, usize) {
    let mut routes = BTreeSet::new();
    let mut member_routes = BTreeSet::new();
    for filter in filters.iter().filter(|filter| !filter.is_impossible()) {
        let add = |routes: &mut BTreeSet<u64>, key: Condition<'_>| routes.insert(hasher.hash(key));
        let tag = filter.tags.iter().min_by_key(|(_, values)| values.len());
        if let Some(ids) = &filter.ids {
            for id in ids {
                add(&mut routes, Condition::Id(*id));
            }
        } else if let Some((letter, values)) = tag {
            for value in values {
                add(&mut routes, Condition::Tag(*letter, value));
            }
        } else if let Some(authors) = &filter.authors {
            for author in authors {
                add(&mut routes, Condition::Author(*author));
            }
        } else {
            let any =
                |test: fn(Kind) -> bool| filter.kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|kind| test(*kind)));
            match &filter.kinds {
                Some(kinds) => {
                    for kind in kinds.iter().filter(|kind| may_be_public(**kind)) {
                        add(&mut routes, Condition::Kind(*kind));
                    }
                }
                None => {
                    add(&mut routes, Condition::Everything);
                }
            }
            for key in reader.keys() {
                if any(may_be_for_keys) {
                    add(&mut routes, Condition::Inbox(*key));
                }
                if any(is_for_group) {
                    add(&mut member_routes, Condition::Member(*key));
                }
            }
            if any(is_for_admin_keys) && policy.has_admin_key(reader.keys()) {
                add(&mut routes, Condition::Rosters);
            }
        }
    }
    let members = member_routes.len();
    routes.append(&mut member_routes);
    (routes.into_iter().collect(), members)
}
