//! The index of one shard: its connections, and their subscriptions by route.
//!
//! A route leads to a subscription, whose [`Routes`] tell the filters that stand under it: no other filter is matched.
//! Each function does a bounded
//! amount of work, because its caller holds the lock that live delivery needs: routes are added, removed and looked up
//! [`ROUTES_PER_HOLD_MAX`] at a time. A subscription is found once all its routes are there.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use nostr_extensions::Reader;
use nostr_protocol::{Filter, Rejection, message::Answer};
use nostr_store::Cursor;

use super::{
    members::{AskedMembers, Awaited, Following},
    outbox::{Outbox, SubscriptionName},
    payers::Account,
    routes::{Routes, Weight},
};

/// Most routes that are added, removed or looked up while the index is locked once.
pub(super) const ROUTES_PER_HOLD_MAX: usize = 512;

/// Name of a connection for as long as it is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub(super) u64);

/// Number of a subscription. It is never used again, so a route that is left of a removed one leads nowhere.
pub(super) type SubscriptionNumber = u64;

pub(super) struct Index {
    cursor: Cursor,
    next_number: SubscriptionNumber,
    connections: HashMap<ConnectionId, Connection>,
    subscriptions: HashMap<SubscriptionNumber, IndexedSubscription>,
    routes: BTreeSet<(u64, SubscriptionNumber)>,
    /// The routes under `Member` of a key.
    members: AskedMembers,
    /// Number of routes that were looked up.
    #[cfg(test)]
    looked_up: std::cell::Cell<u64>,
}

struct Connection {
    reader: Reader,
    outbox: Arc<Outbox>,
    payer: Arc<Account>,
    subscriptions: BTreeMap<Arc<str>, SubscriptionNumber>,
    weight: Weight,
}

/// One open subscription.
pub(super) struct Subscription {
    pub(super) connection: ConnectionId,
    pub(super) number: SubscriptionNumber,
    pub(super) id: Arc<str>,
    pub(super) name: SubscriptionName,
    pub(super) filters: Arc<[Filter]>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) payer: Arc<Account>,
    weight: Weight,
}

struct IndexedSubscription {
    subscription: Arc<Subscription>,
    reader: Reader,
    routes: Arc<Routes>,
    /// `None` until all its routes are in the index.
    starts: Option<Starts>,
}

/// The places in the log from which events are delivered.
#[derive(Clone, Copy)]
struct Starts {
    /// Archived events up to this cursor are not delivered: the archive's part of the answer has them.
    archived: Cursor,
    /// Events that are in no archive are not delivered up to this cursor.
    unarchived: Cursor,
}

/// A subscription that was removed, whose routes are still to be removed.
pub(super) struct Removed {
    pub(super) number: SubscriptionNumber,
    pub(super) routes: Arc<Routes>,
}

/// A subscription of a connection whose reader has changed.
pub(super) struct OfReader {
    pub(super) number: SubscriptionNumber,
    pub(super) filters: Arc<[Filter]>,
    pub(super) routes: Arc<Routes>,
}

impl Index {
    pub(super) fn new(cursor: Cursor) -> Self {
        Self {
            cursor,
            next_number: 0,
            connections: HashMap::new(),
            subscriptions: HashMap::new(),
            routes: BTreeSet::new(),
            members: AskedMembers::default(),
            #[cfg(test)]
            looked_up: std::cell::Cell::new(0),
        }
    }

    pub(super) const fn cursor(&self) -> Cursor {
        self.cursor
    }

    pub(super) fn advance(&mut self, cursor: Cursor) {
        self.cursor = self.cursor.max(cursor);
    }

    /// Number of open subscriptions.
    pub(super) fn len(&self) -> usize {
        self.subscriptions.len()
    }

    pub(super) fn connect(&mut self, id: ConnectionId, outbox: Arc<Outbox>, payer: Arc<Account>) {
        payer.connect();
        let connection = Connection {
            reader: Reader::default(),
            outbox,
            payer,
            subscriptions: BTreeMap::new(),
            weight: Weight::default(),
        };
        self.connections.insert(id, connection);
    }

    /// Removes a connection and its subscriptions.
    pub(super) fn disconnect(&mut self, id: ConnectionId) -> Vec<Removed> {
        let Some(connection) = self.connections.remove(&id) else { return Vec::new() };
        connection.payer.disconnect();
        connection.subscriptions.into_values().filter_map(|number| self.take(number)).collect()
    }

    /// The reader of a connection and its payer's account; `None` once the connection is removed.
    pub(super) fn reader(&self, id: ConnectionId) -> Option<(Reader, Arc<Account>)> {
        self.connections.get(&id).map(|connection| (connection.reader.clone(), Arc::clone(&connection.payer)))
    }

    /// Sets the reader of a connection and of its subscriptions, whose routes still are those of the reader before.
    pub(super) fn set_reader(&mut self, id: ConnectionId, reader: &Reader) -> Vec<OfReader> {
        let Some(connection) = self.connections.get_mut(&id) else { return Vec::new() };
        connection.reader = reader.clone();
        let mut open = Vec::with_capacity(connection.subscriptions.len());
        for number in connection.subscriptions.values() {
            if let Some(indexed) = self.subscriptions.get_mut(number) {
                indexed.reader = reader.clone();
                let filters = Arc::clone(&indexed.subscription.filters);
                open.push(OfReader { number: *number, filters, routes: Arc::clone(&indexed.routes) });
            }
        }
        open
    }

    /// Puts other routes in the place of a subscription's. The caller adds those that are new.
    pub(super) fn replace_routes(&mut self, number: SubscriptionNumber, routes: Routes) {
        if let Some(indexed) = self.subscriptions.get_mut(&number) {
            self.members.add(routes.members());
            self.members.remove(indexed.routes.members());
            indexed.routes = Arc::new(routes);
        }
    }

    /// Takes room for a subscription, whose routes the caller then adds. Gives its number; `None` once the connection
    /// is removed.
    ///
    /// # Errors
    /// `error:` at a bound of the connection or of its payer.
    pub(super) fn open(
        &mut self,
        id: ConnectionId,
        subscription: &str,
        filters: Arc<[Filter]>,
        (routes, weight): (Arc<Routes>, Weight),
        subscriptions_max: usize,
    ) -> Result<Option<SubscriptionNumber>, Rejection> {
        let Some(connection) = self.connections.get_mut(&id) else { return Ok(None) };
        if connection.subscriptions.len() >= subscriptions_max {
            return Err(Rejection::error(format!(
                "this connection has {subscriptions_max} subscriptions open; CLOSE one first"
            )));
        }
        connection.weight.add(weight)?;
        if let Err(rejection) = connection.payer.reserve(weight) {
            connection.weight.subtract(weight);
            return Err(rejection);
        }
        connection.outbox.holding().grow(weight.held_bytes());
        self.next_number += 1;
        let number = self.next_number;
        let name: Arc<str> = subscription.into();
        connection.subscriptions.insert(Arc::clone(&name), number);
        let subscription = Arc::new(Subscription {
            connection: id,
            number,
            name: SubscriptionName::new(&name),
            id: name,
            filters,
            outbox: Arc::clone(&connection.outbox),
            payer: Arc::clone(&connection.payer),
            weight,
        });
        let reader = connection.reader.clone();
        self.members.add(routes.members());
        let indexed = IndexedSubscription { subscription, reader, routes, starts: None };
        self.subscriptions.insert(number, indexed);
        Ok(Some(number))
    }

    /// Adds some of the routes; `true` where more may be left.
    pub(super) fn add_routes(&mut self, number: SubscriptionNumber, routes: &mut impl Iterator<Item = u64>) -> bool {
        if !self.subscriptions.contains_key(&number) {
            return false;
        }
        let mut added = 0;
        for route in routes.take(ROUTES_PER_HOLD_MAX) {
            self.routes.insert((route, number));
            added += 1;
        }
        added == ROUTES_PER_HOLD_MAX
    }

    /// Removes some of the routes; `true` where more may be left.
    pub(super) fn remove_routes(&mut self, number: SubscriptionNumber, routes: &mut impl Iterator<Item = u64>) -> bool {
        let mut removed = 0;
        for route in routes.take(ROUTES_PER_HOLD_MAX) {
            self.routes.remove(&(route, number));
            removed += 1;
        }
        removed == ROUTES_PER_HOLD_MAX
    }

    /// Lets a subscription be found from here on; archived events are delivered to it from `archived` on.
    pub(super) fn activate(&mut self, number: SubscriptionNumber, archived: Cursor) {
        if let Some(indexed) = self.subscriptions.get_mut(&number) {
            indexed.starts = Some(Starts { archived, unarchived: self.cursor });
        }
    }

    /// Removes a subscription by its name, for a client that closes or replaces it. Its events that still wait are not
    /// sent.
    pub(super) fn close(&mut self, connection: ConnectionId, id: &str) -> Option<Removed> {
        let connection = self.connections.get_mut(&connection)?;
        let number = connection.subscriptions.remove(id);
        let open = number.and_then(|number| self.subscriptions.get(&number));
        connection.outbox.drop_subscription(id, open.map(|indexed| &indexed.subscription.name));
        self.take(number?)
    }

    /// Removes this subscription, and sends its end to the client after the events that wait; `None` where it is gone
    /// already, or another one of its name has taken its place.
    pub(super) fn end(&mut self, subscription: &Subscription, closed: Answer) -> Option<Removed> {
        let connection = self.connections.get_mut(&subscription.connection)?;
        if connection.subscriptions.get(&subscription.id) != Some(&subscription.number) {
            return None;
        }
        connection.subscriptions.remove(&subscription.id);
        // While the index is locked, so that the client's next request of the same id finds the end or comes before it.
        subscription.outbox.end(&subscription.name, closed);
        self.take(subscription.number)
    }

    fn take(&mut self, number: SubscriptionNumber) -> Option<Removed> {
        let IndexedSubscription { subscription, routes, .. } = self.subscriptions.remove(&number)?;
        subscription.payer.give_back(subscription.weight);
        if let Some(connection) = self.connections.get_mut(&subscription.connection) {
            connection.weight.subtract(subscription.weight);
            connection.outbox.holding().shrink(subscription.weight.held_bytes());
        }
        self.members.remove(routes.members());
        Some(Removed { number, routes })
    }

    /// Ends every subscription, with the frame that tells its client so. Gives each, and the routes, which are dropped
    /// while the index is free.
    pub(super) fn end_all(
        &mut self,
        closed: impl Fn(&str) -> Answer,
    ) -> (Vec<Arc<Subscription>>, BTreeSet<(u64, SubscriptionNumber)>) {
        for connection in self.connections.values_mut() {
            connection.subscriptions.clear();
            let weight = std::mem::take(&mut connection.weight);
            connection.outbox.holding().shrink(weight.held_bytes());
        }
        let ended = std::mem::take(&mut self.subscriptions);
        let ended: Vec<_> = ended.into_values().map(|indexed| indexed.subscription).collect();
        for subscription in &ended {
            subscription.payer.give_back(subscription.weight);
            subscription.outbox.end(&subscription.name, closed(&subscription.id));
        }
        self.members.clear();
        (ended, std::mem::take(&mut self.routes))
    }

    /// Returns whether any subscription stands under `Member` of a key.
    pub(super) fn asks_for_members(&self) -> bool {
        !self.members.is_empty()
    }

    /// Returns whether a list of members' routes has taken in all that came and went.
    pub(super) const fn is_followed_by(&self, awaited: &Awaited) -> bool {
        self.members.is_followed_by(awaited)
    }

    /// Brings a list of members' routes a step nearer to being up to date; `true` where more is left.
    pub(super) fn follow(&self, following: &mut Following<'_>) -> bool {
        #[cfg(test)]
        let before = following.steps;
        let goes_on = self.members.follow(following);
        #[cfg(test)]
        self.looked_up.set(self.looked_up.get() + (following.steps - before) as u64);
        goes_on
    }

    /// Number of routes that were looked up.
    #[cfg(test)]
    pub(super) fn looked_up(&self) -> u64 {
        self.looked_up.get()
    }

    /// Number of routes.
    #[cfg(test)]
    pub(super) fn routes_len(&self) -> usize {
        self.routes.len()
    }

    /// Looks up some of the routes of `search`; `true` where some are left.
    pub(super) fn search(&self, search: &mut Search<'_>) -> bool {
        let mut left = ROUTES_PER_HOLD_MAX;
        while let Some(route) = search.routes.get(search.at) {
            #[cfg(test)]
            self.looked_up.set(self.looked_up.get() + 1);
            let under = (*route, search.next)..=(*route, SubscriptionNumber::MAX);
            for (_, number) in self.routes.range(under) {
                if left == 0 {
                    search.next = *number;
                    return true;
                }
                search.found.push(Found { number: *number, route: *route });
                left -= 1;
            }
            search.at += 1;
            search.next = 0;
            left = left.saturating_sub(1);
            if left == 0 {
                break;
            }
        }
        search.at < search.routes.len()
    }

    /// Returns whether one of these subscriptions does not get the event from the archive.
    pub(super) fn any_waits_for(&self, found: &[Found], event: Place) -> bool {
        found.iter().any(|found| self.subscriptions.get(&found.number).is_some_and(|indexed| indexed.waits_for(event)))
    }

    /// The subscription of this number, if it does not get the event from the archive.
    pub(super) fn candidate(&self, number: SubscriptionNumber, event: Place) -> Option<Candidate> {
        let indexed = self.subscriptions.get(&number).filter(|indexed| indexed.waits_for(event))?;
        Some(Candidate {
            subscription: Arc::clone(&indexed.subscription),
            reader: indexed.reader.clone(),
            routes: Arc::clone(&indexed.routes),
        })
    }
}

/// A subscription that may ask for an event, to be matched while the index is free.
pub(super) struct Candidate {
    pub(super) subscription: Arc<Subscription>,
    pub(super) reader: Reader,
    pub(super) routes: Arc<Routes>,
}

impl IndexedSubscription {
    /// Returns whether the event is not in the archive's part of the answer.
    fn waits_for(&self, event: Place) -> bool {
        self.starts.is_some_and(|starts| {
            let from = if event.is_archived { starts.archived } else { starts.unarchived };
            event.cursor > from
        })
    }
}

/// The place of an event in the log.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) cursor: Cursor,
    /// Set where queries find the event.
    pub(super) is_archived: bool,
}

/// A search for the subscriptions that an event's routes lead to.
pub(super) struct Search<'a> {
    routes: &'a [u64],
    /// The route to go on with, and the subscription under it to go on from.
    at: usize,
    next: SubscriptionNumber,
    /// A subscription is here as often as routes lead to it.
    pub(super) found: Vec<Found>,
}

/// A subscription, and a route that led to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found {
    pub(super) number: SubscriptionNumber,
    pub(super) route: u64,
}

impl<'a> Search<'a> {
    pub(super) const fn new(routes: &'a [u64]) -> Self {
        Self { routes, at: 0, next: 0, found: Vec::new() }
    }
}
