//! A query to a store: a filter, and the audiences that the reader holds.
//!
//! A store may give back too much, never too little: the gate decides event by event.

use nostr_protocol::{EventId, Filter, PublicKey, UnixSecs};

use crate::mls_gateway::group::NostrGroupId;

/// The audiences that a query is planned over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Events for everyone.
    pub everyone: bool,
    /// Events for these keys.
    pub keys: Vec<PublicKey>,
    /// Events of these groups.
    pub groups: Vec<NostrGroupId>,
    /// Rosters of all groups.
    pub all_rosters: bool,
}

/// A filter over a scope. With `ids` in the filter the scope does not narrow: the gate decides event by event.
#[derive(Clone, Debug)]
pub struct Query {
    /// The filter; its `limit` is the caller's business.
    pub filter: Filter,
    /// The audiences to look into.
    pub scope: Scope,
}

impl Query {
    /// Whether there is an audience or an id to look for at all.
    #[must_use]
    pub fn finds_something(&self) -> bool {
        let scope = &self.scope;
        self.filter.ids.is_some()
            || scope.everyone
            || scope.all_rosters
            || !scope.keys.is_empty()
            || !scope.groups.is_empty()
    }
}

/// A place in the order of NIP-01: `created_at` falling, then id rising.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// `created_at` of the event.
    pub created_at: UnixSecs,
    /// Its id.
    pub id: EventId,
}

impl Ord for Position {
    /// Earlier in the order is less: newer first, then the lower id.
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        other.created_at.cmp(&self.created_at).then(self.id.cmp(&other.id))
    }
}

impl PartialOrd for Position {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
