//! Live delivery: follows the log in commit order, finds the subscriptions that may ask for an event, and sends what the
//! gate releases.
//!
//! A subscription stands in an index under a few routes: the most selective condition of each of its filters. An event
//! is looked up under the routes it has, so that it wakes the connections it concerns and no other. What is for named
//! keys or for members is routed by the reader's keys, so that a filter such as `{"kinds":[445]}` costs nothing for the
//! messages of groups that its reader is not in.

use std::{collections::HashMap, sync::Arc};

use nostr_extensions::{Asker, Gate, Group, GroupStatus, Persistence, Reader, Role, RouteHasher, Sealed, kinds::rules};
use nostr_protocol::{Filter, Kind, PublicKey, Rejection, UnixSecs, message::closed_frame};
use nostr_store::{Cursor, LogEntry};
use parking_lot::Mutex;
use tokio::sync::Notify;

pub use super::index::ConnectionId;
use super::index::{Candidate, Index, Passing};
use crate::{
    groups::Groups,
    outbox::{Outbox, Outgoing, SubName},
};

/// The open subscriptions of all connections.
pub struct Live {
    gate: Gate,
    groups: Arc<Groups>,
    index: Mutex<Index>,
    router: RouteHasher,
    /// Woken after each event.
    advanced: Notify,
}

impl Live {
    /// No subscriptions; what was committed so far is delivered to nobody. `router` is that of the store.
    pub fn new(gate: Gate, groups: Arc<Groups>, router: RouteHasher) -> Self {
        let index = Mutex::new(Index::new(groups.applied(), router));
        Self { gate, groups, index, router, advanced: Notify::new() }
    }

    /// Takes in a connection without keys.
    pub fn connect(&self, outbox: Arc<Outbox>) -> ConnectionId {
        self.index.lock().connect(outbox)
    }

    /// Forgets a connection with its subscriptions.
    pub fn disconnect(&self, connection: ConnectionId) {
        self.index.lock().disconnect(connection);
    }

    /// The reader of a connection is now another one, in all its subscriptions.
    pub fn set_reader(&self, connection: ConnectionId, reader: Reader) {
        self.index.lock().set_reader(connection, reader, self.gate.policy());
    }

    /// Opens a subscription, in the place of one of the same id. Gives the cursor up to which the archive is to be read:
    /// what was committed later is delivered from here.
    ///
    /// The cursor is read while delivery stands still. An event is handed to delivery only after the cursor has passed
    /// it, so whatever has been delivered lies at or before it, and an event that was acknowledged before the request
    /// came is in the archive's part of the answer. Where the log is followed, what nobody waits for is not delivered at
    /// all; who waits is asked after the cursor has passed it too.
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
        let from = self.groups.applied();
        index.subscribe(connection, id, filters, subscriptions_max, self.gate.policy(), from)?;
        Ok(from)
    }

    /// Ends a subscription; says whether it was open.
    pub fn unsubscribe(&self, connection: ConnectionId, id: &str) -> bool {
        self.index.lock().unsubscribe(connection, id)
    }

    /// Ends all subscriptions there are, and says why.
    pub fn end_all(&self, reason: &Rejection) {
        let ended = self.index.lock().end_all();
        for (outbox, id) in ended {
            outbox.push(closed_frame(&id, reason));
        }
    }

    /// How many subscriptions are open.
    pub fn subscriptions(&self) -> usize {
        self.index.lock().len()
    }

    /// The cursor up to which everything has been delivered.
    pub fn cursor(&self) -> Cursor {
        self.index.lock().cursor()
    }

    /// Waits until everything up to `cursor` has been delivered.
    pub async fn reached(&self, cursor: Cursor) {
        loop {
            // Made before the look at the cursor: it hears of what comes between the two.
            let advanced = self.advanced.notified();
            if self.cursor() >= cursor {
                return;
            }
            advanced.await;
        }
    }

    /// Whether a subscription may wait for an event, as far as can be said without the state of its group.
    pub fn may_want(&self, entry: &LogEntry) -> bool {
        let index = self.index.lock();
        (entry.group.is_some() && index.asks_for_members()) || index.wants(&self.passing(entry, None))
    }

    /// Whether a subscription waits for an event under one of its routes or as a member of its group.
    pub fn wants(&self, entry: &LogEntry, group: Option<&Group>) -> bool {
        self.index.lock().wants(&self.passing(entry, group))
    }

    fn passing<'a>(&self, entry: &'a LogEntry, group: Option<&'a Group>) -> Passing<'a> {
        Passing {
            cursor: entry.cursor,
            routes: &entry.routes,
            members: group.and_then(members),
            archived: self.is_archived(entry.kind),
        }
    }

    /// Notes that nothing up to `cursor` is left to be delivered.
    pub fn advance(&self, cursor: Cursor) {
        self.index.lock().advance(cursor);
        self.advanced.notify_waiters();
    }

    /// Delivers one event of the log to whom it is for. `group` is the state of the event's group as of its place in the
    /// log, so that a removal holds for the message after it and not for the one before; without it
    /// an event of a group is delivered to nobody.
    pub fn deliver(&self, sealed: &Sealed, group: Option<&Group>, now: UnixSecs) -> usize {
        self.deliver_along(&self.router.routes(sealed), sealed, group, now)
    }

    /// The same along routes that are known.
    pub fn deliver_along(&self, routes: &[u64], sealed: &Sealed, group: Option<&Group>, now: UnixSecs) -> usize {
        let mut delivered = 0;
        let passing = Passing {
            cursor: sealed.cursor(),
            routes,
            members: group.and_then(members),
            archived: self.is_archived(sealed.kind()),
        };
        let candidates = self.index.lock().candidates(&passing);
        // Filters are matched while the index is free: a client with many conditions holds up nobody's request.
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
        delivered
    }
}

impl Live {
    /// Whether a query finds the event, so that a subscription gets it from the archive or from here and not from both.
    fn is_archived(&self, kind: Kind) -> bool {
        rules(kind).kept.persistence(self.gate.policy()) == Persistence::Stored
    }
}

fn members(group: &Group) -> Option<&HashMap<PublicKey, Role>> {
    match &group.status {
        GroupStatus::Managed(view) => Some(&view.members),
        _ => None,
    }
}

/// One open subscription.
pub(crate) struct Subscription {
    pub(crate) connection: ConnectionId,
    pub(crate) id: Arc<str>,
    pub(crate) name: SubName,
    pub(crate) filters: Arc<[Filter]>,
}
