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
use crate::{
    Part,
    index::prefix,
    plan::{Plan, Planned},
};

/// Most ranges of the kinds that the authors of one call have written. Beyond it the call goes through all public
/// events by time, and looks at each.
const KINDS_MAX: usize = 2_000;

/// Ranges in which all events lie that fit the query and lie in the part, and the number of descents into the index
/// that finding them took.
pub(super) fn plan(tables: &Tables, txn: &RoTxn<'_>, query: &Query, part: Part) -> Result<(Vec<Key>, usize), Fail> {
    let mut ranges = Vec::new();
    let mut others = 0;
    let mut descents = 0;
    for place in Plan::of(query).places(part) {
        match place {
            Planned::Range(range) => {
                ranges.push(range);
                others = ranges.len();
            }
            Planned::Author(author) => {
                let fits = author_kinds(tables, txn, author, others + KINDS_MAX, &mut ranges)?;
                if !fits {
                    ranges.truncate(others);
                    ranges.push(prefix::everything_public());
                    return Ok((ranges, descents + KINDS_MAX));
                }
                descents = ranges.len() - others;
            }
        }
    }
    Ok((ranges, descents))
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
