//! The parts of the index that a query goes through.

use std::ops::Bound;

use heed::RoTxn;
use nostr_extensions::Query;

use super::{
    fail::Fail,
    keys::{Key, number_from},
    rows::{Kept, RecentRows, Slice},
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

/// A range of the index: its prefix, and its rows that were in memory.
pub(super) type Lead = (Key, Slice);

/// The parts of a query with their rows in memory, taken before the snapshot.
#[derive(Default)]
pub(super) struct Leads {
    ranges: Vec<Lead>,
    /// Everything that an author published, of whatever kind.
    authors: Vec<Lead>,
    /// All public events, where there are authors.
    everything: Option<Lead>,
}

impl Leads {
    pub(super) fn of(query: &Query, part: Part, recent: &RecentRows) -> Self {
        let lead = |prefix: Key| (prefix, recent.of(Kept::Index, &prefix));
        let (mut ranges, mut authors) = (Vec::new(), Vec::new());
        for place in Plan::of(query).places(part) {
            match place {
                Planned::Range(range) => ranges.push(lead(range)),
                Planned::Author(author) => authors.push(lead(prefix::author(author))),
            }
        }
        let everything = (!authors.is_empty()).then(|| lead(prefix::everything_public()));
        Self { ranges, authors, everything }
    }

    /// Ranges in which all events lie that fit the query and lie in the part, and the number of descents into the index
    /// that finding them took.
    pub(super) fn ranges(&self, tables: &Tables, txn: &RoTxn<'_>) -> Result<(Vec<Lead>, usize), Fail> {
        let mut ranges = self.ranges.clone();
        let ranges_max = ranges.len() + KINDS_MAX;
        for author in &self.authors {
            if !author_kinds(tables, txn, author, ranges_max, &mut ranges)? {
                ranges.truncate(self.ranges.len());
                ranges.extend(self.everything.clone());
                return Ok((ranges, KINDS_MAX));
            }
        }
        let descents = ranges.len() - self.ranges.len();
        Ok((ranges, descents))
    }
}

/// A range for each kind that the author has written, found by a seek from one to the next; `false` when there would be
/// more than `ranges_max` in all.
fn author_kinds(
    tables: &Tables,
    txn: &RoTxn<'_>,
    (author, recent): &Lead,
    ranges_max: usize,
    ranges: &mut Vec<Lead>,
) -> Result<bool, Fail> {
    let kind_of = |key: &[u8]| key.strip_prefix(&author[..]).and_then(|rest| rest.first_chunk::<2>()).copied();
    let mut from = Some(*author);
    while let Some(start) = from {
        let range = (Bound::Included(&start[..]), Bound::Unbounded);
        let written = tables.index.range(txn, &range)?.next().transpose()?.and_then(|(key, _)| kind_of(key));
        let kept = recent.first_from(&start).and_then(kind_of);
        let Some(kind) = written.into_iter().chain(kept).min() else { break };
        if ranges.len() >= ranges_max {
            return Ok(false);
        }
        let prefix = author.with(&kind);
        ranges.push((prefix, recent.clone().of(Kept::Index, &prefix)));
        from = u16::try_from(number_from(&kind) + 1).ok().map(|next| author.with(&next.to_be_bytes()));
    }
    Ok(true)
}
