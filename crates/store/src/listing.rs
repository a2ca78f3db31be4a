//! Lists of everything of a sort, for the operator: pages that go on behind a place.

use nostr_protocol::PublicKey;

use crate::Cost;

/// A page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    /// The entries, in their order. A page that is not the last may be short, or empty.
    pub entries: Vec<T>,
    /// The place to go on from, exclusive; `None` at the end.
    pub next: Option<T>,
    /// The work of the call.
    pub cost: Cost,
}

impl<T: Clone> Listed<T> {
    /// The page of at most `most` entries, out of those behind its place, of which the caller found one more.
    pub(crate) fn of(mut found: Vec<T>, most: usize) -> Self {
        let cost = Cost::of_units(found.len().max(1) as u64);
        let has_more = found.len() > most;
        found.truncate(most);
        let next = found.last().filter(|_| has_more).cloned();
        Self { entries: found, next, cost }
    }
}

/// The first key behind another one; `None` behind the last.
pub(crate) fn successor(key: &PublicKey) -> Option<[u8; 32]> {
    let mut bytes = *key.as_bytes();
    for byte in bytes.iter_mut().rev() {
        let (next, is_full) = byte.overflowing_add(1);
        *byte = next;
        if !is_full {
            return Some(bytes);
        }
    }
    None
}
