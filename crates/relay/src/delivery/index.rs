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

use super::live::Subscription;
use crate::outbox::{Outbox, SubName};

/// Most routes that the subscriptions of one connection stand under, and most conditions of their filters: what one event
/// may cost one connection.
const CONNECTION_ROUTES_MAX: usize = 20_000;

/// Most bytes that the filters of one connection take: a filter stands under its most selective condition alone, and may
/// hold long lists beside it.
const CONNECTION_FILTER_BYTES_MAX: usize = 4 << 20;

/// Names a connection for as long as it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(u64);

type SubscriptionId = u64;

pub(super) struct Index {
    cursor: Cursor,
    next_id: u64,
    /// Events for which candidates were looked for.
    deliveries: u64,
    router: RouteHasher,
    connections: HashMap<ConnectionId, Connection>,
    subscriptions: HashMap<SubscriptionId, Entry>,
    routes: BTreeSet<(u64, SubscriptionId)>,
    /// How many subscriptions stand under `Member` of a key.
    member_routes: usize,
}

struct Connection {
    reader: Reader,
    outbox: Arc<Outbox>,
    subscriptions: BTreeMap<Arc<str>, SubscriptionId>,
    routes: usize,
    filter_bytes: usize,
}

struct Entry {
    subscription: Arc<Subscription>,
    routes: Box<[u64]>,
    /// Routes under `Member` among them.
    member_routes: usize,
    /// The last delivery it was a candidate for, so that two routes to it count once.
    seen: u64,
    /// Nothing at or before this is delivered: the archive's part of the answer has it.
    from: Cursor,
    /// The same for what is in no archive.
    from_unarchived: Cursor,
}

impl Index {
    pub(super) fn new(cursor: Cursor, router: RouteHasher) -> Self {
        Self {
            cursor,
            next_id: 0,
            deliveries: 0,
            router,
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
                let (routes, member_routes) = routes(&self.router, &entry.subscription.filters, &reader, policy);
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
        let (routes, member_routes) = routes(&self.router, &filters, &connection.reader, policy);
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
        let subscription = Arc::new(Subscription { connection: connection_id, name: SubName::new(&id), id, filters });
        let entry = Entry { subscription, routes, member_routes, seen: 0, from, from_unarchived: self.cursor };
        self.subscriptions.insert(key, entry);
        Ok(())
    }

    pub(super) fn unsubscribe(&mut self, connection: ConnectionId, id: &str) -> bool {
        let Some(connection) = self.connections.get_mut(&connection) else { return false };
        let Some(key) = connection.subscriptions.remove(id) else { return false };
        if let Some(entry) = self.subscriptions.get(&key) {
            connection.routes -= entry.routes.len() + conditions(&entry.subscription.filters);
            connection.filter_bytes -= bytes(&entry.subscription.filters);
        }
        self.forget(key);
        true
    }

    /// Ends every subscription; whose they were.
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

    /// Whether any subscription stands under `Member` of a key.
    pub(super) const fn asks_for_members(&self) -> bool {
        self.member_routes > 0
    }

    /// Whether one of the event's routes leads to a subscription that has not had it from the archive.
    pub(super) fn wants(&self, event: &Passing<'_>) -> bool {
        self.keys(event).into_iter().any(|key| {
            let mut under = self.routes.range((key, 0)..=(key, u64::MAX));
            under.any(|(_, id)| self.subscriptions.get(id).is_some_and(|entry| entry.waits_for(event)))
        })
    }

    /// Each subscription that one of the event's routes leads to, once.
    pub(super) fn candidates(&mut self, event: &Passing<'_>) -> Vec<Candidate> {
        let mut found = Vec::new();
        // Two events may share a cursor, so that tells no deliveries apart.
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

    /// The event's routes, with those of the members of its group.
    fn keys(&self, event: &Passing<'_>) -> Vec<u64> {
        let members = event.members.filter(|_| self.asks_for_members()).into_iter().flatten();
        let member_routes = members.map(|(key, _)| self.router.hash(Condition::Member(*key)));
        event.routes.iter().copied().chain(member_routes).collect()
    }
}

impl Entry {
    /// Whether the event is not in the archive's part of the answer.
    const fn waits_for(&self, event: &Passing<'_>) -> bool {
        let from = if event.archived { self.from } else { self.from_unarchived };
        event.cursor > from
    }
}

/// What of an event leads to subscriptions.
pub(super) struct Passing<'a> {
    pub(super) cursor: Cursor,
    /// Its routes, but for those of members.
    pub(super) routes: &'a [u64],
    /// Who is in its group.
    pub(super) members: Option<&'a HashMap<PublicKey, Role>>,
    /// Whether queries find it.
    pub(super) archived: bool,
}

/// A subscription that may ask for an event, to be matched when the index is not locked any more.
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

/// The routes of a subscription, and how many of them are `Member` routes.
fn routes(router: &RouteHasher, filters: &[Filter], reader: &Reader, policy: &Policy) -> (Box<[u64]>, usize) {
    let mut routes = BTreeSet::new();
    let mut member_routes = BTreeSet::new();
    for filter in filters.iter().filter(|filter| !filter.is_impossible()) {
        let add = |routes: &mut BTreeSet<u64>, key: Condition<'_>| routes.insert(router.hash(key));
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
            if any(is_for_admin_keys) && reader.keys().iter().any(|key| policy.is_admin(key)) {
                add(&mut routes, Condition::Rosters);
            }
        }
    }
    let members = member_routes.len();
    routes.append(&mut member_routes);
    (routes.into_iter().collect(), members)
}
