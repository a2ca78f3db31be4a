//! The parts of the index that a query goes through.

use std::ops::Bound;

use heed::RoTxn;
use nostr_extensions::Query;
use nostr_protocol::PublicKey;

use super::{
    fail::Fail,
    keys::{Key, number_from},
    tables::Tables,
};
use crate::index::{self, prefix};

/// Ranges in which all events that fit the query lie, each a prefix of index keys.
pub(super) fn plan(tables: &Tables, txn: &RoTxn<'_>, query: &Query) -> Result<Vec<Key>, Fail> {
    index::plan(query, |author, ranges_max, ranges| author_kinds(tables, txn, author, ranges_max, ranges))
}

/// A range for each kind that the author has written, found by a seek from one to the next; `false` when there would be
/// more than `ranges_max` in all.
fn author_kinds(
    tables: &Tables,
    txn: &RoTxn<'_>,
    author: &PublicKey,
    ranges_max: usize,
    ranges: &mut Vec<Key>,
) -> Result<bool, Fail> {
    let author = prefix::author(author);
    let mut from = Some(author);
    while let Some(start) = from {
        let range = (Bound::Included(&start[..]), Bound::Unbounded);
        let Some(entry) = tables.index.range(txn, &range)?.next() else { break };
        let key = entry?.0;
        let Some(kind) = key.strip_prefix(&author[..]).and_then(|rest| rest.first_chunk::<2>()) else { break };
        if ranges.len() >= ranges_max {
            return Ok(false);
        }
        ranges.push(author.with(kind));
        from = u16::try_from(number_from(kind) + 1).ok().map(|next| author.with(&next.to_be_bytes()));
    }
    Ok(true)
}
