//! Live delivery: takes committed events in commit order, finds the subscriptions that may ask for each, and sends the
//! events that the gate releases.
//!
//! A subscription stands in an index under a few routes: the most selective condition of each of its filters. An event
//! is looked up under its own routes, so that it reaches the connections it concerns and no other. Events for named
//! keys or for members are routed by the reader's keys, so that a filter such as `{"kinds":[445]}` costs nothing for
//! the messages of groups that its reader is not in.

use std::{collections::HashMap, sync::Arc};

use nostr_extensions::{Asker, Gate, Group, GroupStatus, Persistence, Reader, Role, RouteHasher, Sealed, kinds::rules};
use nostr_protocol::{Filter, Kind, PublicKey, Rejection, message::closed_frame};
use nostr_store::{Cursor, LogEntry};
use parking_lot::Mutex;

use super::{
    groups::Groups,
    index::{Candidate, ConnectionId, EventRoutes, Index},
    outbox::{Outbox, Outgoing, SubscriptionName},
};
use crate::{observe::metrics::Metrics, system::clock::Clock};

/// The open subscriptions of all connections.
pub struct Live {
    gate: Gate,
    groups: Arc<Groups>,
    index: Mutex<Index>,
    route_hasher: RouteHasher,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
}

/// One open subscription.
pub(crate) struct Subscription {
    pub(crate) connection: ConnectionId,
    pub(crate) id: Arc<str>,
    pub(crate) name: SubscriptionName,
    pub(crate) filters: Arc<[Filter]>,
}

impl Live {
    /// No subscriptions; events that are committed already are delivered to nobody. `route_hasher` is the store's.
    pub(crate) fn new(
        gate: Gate,
        groups: Arc<Groups>,
        route_hasher: RouteHasher,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let index = Mutex::new(Index::new(groups.readable_up_to(), route_hasher));
        Self { gate, groups, index, route_hasher, metrics, clock }
    }

    /// Adds a connection without keys.
    pub fn connect(&self, outbox: Arc<Outbox>) -> ConnectionId {
        self.index.lock().connect(outbox)
    }

    /// Removes a connection and its subscriptions.
    pub(crate) fn disconnect(&self, connection: ConnectionId) {
        self.index.lock().disconnect(connection);
    }

    /// Sets the reader of a connection, in all its subscriptions.
    pub(crate) fn set_reader(&self, connection: ConnectionId, reader: Reader) {
        self.index.lock().set_reader(connection, reader, self.gate.policy());
    }

    /// Opens a subscription, or replaces the one of the same id. Gives the cursor up to which the archive is to be
    /// read: later events are delivered from here.
    ///
    /// The cursor is read while delivery stands still. An event is handed to delivery only after the cursor has passed
    /// it, so every delivered event lies at or before the cursor, and an event that was acknowledged before the request
    /// came is in the archive's part of the answer. The follower skips events that no subscription waits for; it asks
    /// the index after the cursor has passed them too.
    ///
    /// # Errors
    /// `error:` when the connection has too many subscriptions or conditions open.
    pub fn subscribe(
        &self,
        connection: ConnectionId,
        id: &str,
        filters: Arc<[Filter]>,
        subscriptions_max: usize,
    ) -> Result<Cursor, Rejection> {
        let mut index = self.index.lock();
        let from = self.groups.readable_up_to();
        index.subscribe(connection, id, filters, subscriptions_max, self.gate.policy(), from)?;
        Ok(from)
    }

    /// Ends a subscription, if it is open.
    pub(crate) fn unsubscribe(&self, connection: ConnectionId, id: &str) {
        self.index.lock().unsubscribe(connection, id);
    }

    /// Ends all subscriptions, and tells their clients why.
    pub(super) fn end_all(&self, reason: &Rejection) {
        let ended = self.index.lock().end_all();
        for (outbox, id) in ended {
            outbox.push(closed_frame(&id, reason));
        }
    }

    /// Number of open subscriptions.
    pub fn subscriptions(&self) -> usize {
        self.index.lock().len()
    }

    /// The cursor up to which every event has been delivered.
    pub fn cursor(&self) -> Cursor {
        self.index.lock().cursor()
    }

    /// Returns whether a subscription may wait for the entry, as far as can be said without the state of its group.
    pub(super) fn may_want(&self, entry: &LogEntry) -> bool {
        let index = self.index.lock();
        (entry.group.is_some() && index.asks_for_members()) || index.wants(&self.entry_routes(entry, None))
    }

    /// Returns whether a subscription waits for the entry, under one of its routes or as a member of its group.
    pub(super) fn wants(&self, entry: &LogEntry, group: Option<&Group>) -> bool {
        self.index.lock().wants(&self.entry_routes(entry, group))
    }

    fn entry_routes<'a>(&self, entry: &'a LogEntry, group: Option<&'a Group>) -> EventRoutes<'a> {
        EventRoutes {
            cursor: entry.cursor,
            routes: &entry.routes,
            members: group.and_then(members),
            is_archived: self.is_archived(entry.kind),
        }
    }

    /// Notes that no event up to `cursor` is left to be delivered.
    pub(super) fn advance(&self, cursor: Cursor) {
        self.index.lock().advance(cursor);
    }

    /// Delivers one event to the subscriptions that may see it. `group` is the state of the event's group as of the
    /// event's place in the log, so that a removal holds for the message after it and not for the one before. Without a
    /// state an event of a group is delivered to nobody.
    pub(super) fn deliver(&self, sealed: &Sealed, group: Option<&Group>) {
        self.deliver_along(&self.route_hasher.routes(sealed), sealed, group);
    }

    /// Delivers one event, whose routes are known, as [`Self::deliver`] does.
    pub(super) fn deliver_along(&self, routes: &[u64], sealed: &Sealed, group: Option<&Group>) {
        let now = self.clock.now();
        let event = EventRoutes {
            cursor: sealed.cursor(),
            routes,
            members: group.and_then(members),
            is_archived: self.is_archived(sealed.kind()),
        };
        let candidates = self.index.lock().candidates(&event);
        let mut delivered = 0;
        // Filters are matched while the index is free: a client with many conditions holds up no other client's
        // request.
        for Candidate { subscription, reader, outbox } in candidates {
            let released = subscription
                .filters
                .iter()
                .find_map(|filter| self.gate.release(sealed, Asker::new(&reader, filter), group, now));
            let Some(released) = released else { continue };
            match outbox.push_event(Outgoing::event(&subscription.name, &released)) {
                Ok(()) => delivered += 1,
                Err(_) => {
                    let reason = Rejection::error("too slow: events came faster than they were read; subscribe again");
                    outbox.push(closed_frame(&subscription.id, &reason));
                    self.unsubscribe(subscription.connection, &subscription.id);
                }
            }
        }
        self.advance(sealed.cursor());
        self.metrics.delivered(delivered);
    }

    /// Returns whether a query finds events of this kind, so that a subscription gets each from the archive or from
    /// here and not from both.
    fn is_archived(&self, kind: Kind) -> bool {
        rules(kind).kept.persistence(self.gate.policy()) == Persistence::Stored
    }
}

fn members(group: &Group) -> Option<&HashMap<PublicKey, Role>> {
    match &group.status {
        GroupStatus::Managed(group) => Some(&group.members),
        _ => None,
    }
}
