//! Which parts of the index a query goes through.
//!
//! What is private is looked for under the audiences that the reader holds, so that a query costs the same beside ten
//! messages of other groups and beside ten million. What is public is looked for by the narrowest condition of the
//! filter: authors with kinds, then a tag, then authors, kinds, time.

use std::ops::Bound;

use heed::RoTxn;
use nostr_extensions::{
    Query,
    audience::{is_for_group, may_be_for_keys, may_be_public},
};
use nostr_protocol::{Filter, Kind, PublicKey};

use super::{
    fail::Fail,
    keys::{GROUP_KINDS, KEY_KINDS, Key, number_from, prefix},
    tables::Tables,
};

/// Most ranges of a plan over what is public; beyond, it goes by a condition with fewer, or by time, and looks at each
/// event. Each range costs a descent into the index on every page.
const RANGES_MAX: usize = 2_000;

/// The ranges in which every event lies that fits the query, each a prefix of index keys.
pub(super) fn plan(tables: &Tables, txn: &RoTxn<'_>, query: &Query) -> Result<Vec<Key>, Fail> {
    let filter = &query.filter;
    let scope = &query.scope;
    let mut ranges = Vec::new();
    if filter.is_impossible() {
        return Ok(ranges);
    }
    let asked = |kinds: &'static [Kind]| kinds.iter().copied().filter(|kind| filter.asks_kind(*kind));

    for key in &scope.keys {
        ranges.extend(asked(&KEY_KINDS).filter(|kind| may_be_for_keys(*kind)).map(|kind| prefix::reader(key, kind)));
    }
    let named = filter.tags.get(&b'h');
    // A roster names its group by `h`: with values asked for, all rosters are those of these groups.
    let all_rosters = scope.all_rosters && filter.asks_kind(Kind::ROSTER);
    let whole_rosters = all_rosters && named.is_none();
    if whole_rosters {
        ranges.push(prefix::all_rosters());
    }
    for group in &scope.groups {
        let is_named =
            named.is_none_or(|values| values.binary_search_by(|value| (**value).cmp(group.as_str())).is_ok());
        if is_named {
            let kinds = asked(&GROUP_KINDS).filter(|kind| is_for_group(*kind));
            let kinds = kinds.filter(|kind| !(all_rosters && *kind == Kind::ROSTER));
            ranges.extend(kinds.map(|kind| prefix::group(group, kind)));
        }
    }
    if let (true, Some(values)) = (all_rosters, named) {
        let groups = values.iter().filter_map(|value| nostr_extensions::NostrGroupId::parse(value));
        ranges.extend(groups.map(|group| prefix::group(&group, Kind::ROSTER)));
    }
    if scope.everyone {
        public(tables, txn, filter, &mut ranges)?;
    }
    Ok(ranges)
}

fn public(tables: &Tables, txn: &RoTxn<'_>, filter: &Filter, ranges: &mut Vec<Key>) -> Result<(), Fail> {
    let kinds: Option<Vec<Kind>> =
        filter.kinds.as_ref().map(|kinds| kinds.iter().copied().filter(|kind| may_be_public(*kind)).collect());
    if kinds.as_ref().is_some_and(Vec::is_empty) {
        return Ok(());
    }
    if let (Some(authors), Some(kinds)) = (&filter.authors, &kinds)
        && authors.len().saturating_mul(kinds.len()) <= RANGES_MAX
    {
        for author in authors {
            ranges.extend(kinds.iter().map(|kind| prefix::author_kind(author, *kind)));
        }
        return Ok(());
    }
    let narrowest = filter.tags.iter().min_by_key(|(_, values)| values.len());
    if let Some((letter, values)) = narrowest {
        ranges.extend(values.iter().map(|value| prefix::tag(*letter, value)));
        return Ok(());
    }
    match (&filter.authors, kinds) {
        (Some(authors), None) => {
            let before = ranges.len();
            for author in authors {
                if !author_kinds(tables, txn, author, before + RANGES_MAX, ranges)? {
                    ranges.truncate(before);
                    ranges.push(prefix::everything_public());
                    break;
                }
            }
        }
        (_, Some(kinds)) => ranges.extend(kinds.into_iter().map(prefix::kind)),
        (None, None) => ranges.push(prefix::everything_public()),
    }
    Ok(())
}

/// A range for each kind that the author has written, found by leaping from one to the next; `false` when there would be
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
