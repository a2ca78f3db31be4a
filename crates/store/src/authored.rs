//! Queries for all that a store keeps of one author without end, by which a relay counts it.

use nostr_extensions::{
    Query, Scope,
    kinds::{KEY_KINDS, Quota, rules},
};
use nostr_protocol::{Filter, Kind, PublicKey};

/// Queries that together find each event of the author that counts against `quota`, once. They find other events too,
/// which the caller passes over.
#[must_use]
pub fn authored(author: &PublicKey, quota: Quota) -> Vec<Query> {
    let is_private = |kind: &Kind| rules(*kind).quota == Some(quota);
    let private: Vec<Kind> = KEY_KINDS.into_iter().filter(is_private).collect();
    let kinds = match quota {
        Quota::Events | Quota::DirectMessages => None,
        Quota::Deletions => Some(vec![Kind::DELETION]),
        Quota::Vanishing => Some(vec![Kind::VANISH]),
    };
    let query = |kinds, scope| {
        let filter = Filter { authors: Some(vec![*author]), kinds, ..Filter::default() };
        Query { filter, scope }
    };
    let mut queries = Vec::new();
    if quota != Quota::DirectMessages {
        queries.push(query(kinds, Scope { everyone: true, ..Scope::default() }));
    }
    if !private.is_empty() {
        queries.push(query(Some(private), Scope { keys: vec![*author], ..Scope::default() }));
    }
    queries
}
