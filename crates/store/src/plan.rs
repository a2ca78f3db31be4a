//! The plan of a query: the ranges of the index that hold all its events, and its division into parts.
//!
//! A range costs a descent into the index, and a request may name tens of thousands. So a plan is a list whose places
//! are computed, not written down, and a caller reads a query of many ranges in parts, each with a bounded number of
//! them. The parts of a query hold all its events; an event may lie in several.

use nostr_extensions::{
    NostrGroupId, Query,
    audience::{is_for_admin_keys, may_be_public},
    kinds::{ADMIN_KINDS, GROUP_KINDS, KEY_KINDS},
};
use nostr_protocol::{Filter, Kind, PublicKey};

use crate::index::{Key, prefix};

/// Most ranges of authors with kinds that a plan prefers to a tag of the filter.
const AUTHOR_KINDS_MAX: usize = 2_000;
/// Most ranges of authors with kinds that a plan prefers to the kinds alone, under which everybody's events lie.
const MANY_AUTHOR_KINDS_MAX: usize = 20_000;
/// Ranges that an author without kinds counts for: one for each kind that the author has written, by estimate.
const RANGES_PER_AUTHOR: usize = 8;
/// Ranges that an id counts for.
const RANGES_PER_ID: usize = 2;

/// A part of a query: some places of its plan or, with `ids` in the filter, some of the ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    first: usize,
    end: usize,
}

impl Part {
    /// The whole query.
    pub const WHOLE: Self = Self { first: 0, end: usize::MAX };

    /// Whether the part holds the first place.
    pub(crate) const fn is_first(self) -> bool {
        self.first == 0
    }

    /// The part of a list.
    pub(crate) fn of<T>(self, list: &[T]) -> &[T] {
        let end = self.end.min(list.len());
        &list[self.first.min(end)..end]
    }

    /// Number of the first `count` places that the part holds.
    fn len(self, count: usize) -> usize {
        self.end.min(count).saturating_sub(self.first)
    }
}

/// Divides a query into parts of at most `ranges_max` ranges. The parts together hold every event of the query.
#[must_use]
pub fn parts(query: &Query, ranges_max: usize) -> Vec<Part> {
    let plan;
    let sections = match &query.filter.ids {
        Some(ids) => [(ids.len(), RANGES_PER_ID), (0, 1), (0, 1), (0, 1)],
        None => {
            plan = Plan::of(query);
            plan.sections()
        }
    };
    let ranges: usize = sections.iter().map(|(places, weight)| places * weight).sum();
    if ranges <= ranges_max {
        return vec![Part::WHOLE];
    }
    let mut parts = Vec::new();
    let mut first = 0;
    for (places, weight) in sections {
        let (end, step) = (first + places, (ranges_max / weight).max(1));
        parts.extend((first..end).step_by(step).map(|first| Part { first, end: (first + step).min(end) }));
        first = end;
    }
    parts
}

/// One place of a plan.
pub(crate) enum Planned<'a> {
    /// A range of the index.
    Range(Key),
    /// The public events of an author, of all kinds.
    Author(&'a PublicKey),
}

/// The ranges under which public events are looked up: those of the filter's narrowest condition.
enum Public<'a> {
    Nothing,
    AuthorKinds(&'a [PublicKey], Vec<Kind>),
    Tag(u8, &'a [Box<str>]),
    Authors(&'a [PublicKey]),
    Kinds(Vec<Kind>),
    Everything,
}

impl<'a> Public<'a> {
    fn of(filter: &'a Filter) -> Self {
        let kinds: Option<Vec<Kind>> =
            filter.kinds.as_ref().map(|kinds| kinds.iter().copied().filter(|kind| may_be_public(*kind)).collect());
        let narrowest = || filter.tags.iter().min_by_key(|(_, values)| values.len());
        match (&filter.authors, kinds) {
            (_, Some(kinds)) if kinds.is_empty() => Self::Nothing,
            (Some(authors), Some(kinds)) if authors.len().saturating_mul(kinds.len()) <= AUTHOR_KINDS_MAX => {
                Self::AuthorKinds(authors, kinds)
            }
            (authors, kinds) => match (narrowest(), authors, kinds) {
                (Some((letter, values)), ..) => Self::Tag(*letter, values),
                (None, Some(authors), None) => Self::Authors(authors),
                (None, Some(authors), Some(kinds))
                    if authors.len().saturating_mul(kinds.len()) <= MANY_AUTHOR_KINDS_MAX =>
                {
                    Self::AuthorKinds(authors, kinds)
                }
                (None, _, Some(kinds)) => Self::Kinds(kinds),
                (None, None, None) => Self::Everything,
            },
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::AuthorKinds(authors, kinds) => authors.len() * kinds.len(),
            Self::Tag(_, values) => values.len(),
            Self::Authors(authors) => authors.len(),
            Self::Kinds(kinds) => kinds.len(),
            Self::Everything => 1,
        }
    }

    fn place(&self, place: usize) -> Option<Planned<'a>> {
        Some(match self {
            Self::Nothing => return None,
            Self::AuthorKinds(authors, kinds) => {
                let (author, kind) = (authors.get(place / kinds.len())?, kinds[place % kinds.len()]);
                Planned::Range(prefix::author_kind(author, kind))
            }
            Self::Tag(letter, values) => Planned::Range(prefix::tag(*letter, values.get(place)?)),
            Self::Authors(authors) => Planned::Author(authors.get(place)?),
            Self::Kinds(kinds) => Planned::Range(prefix::kind(*kinds.get(place)?)),
            Self::Everything => Planned::Range(prefix::everything_public()),
        })
    }
}

/// The rosters that a reader with an admin key looks up: all of them, or those of the groups that the filter names.
enum Rosters<'a> {
    Nothing,
    All,
    Named(&'a [Box<str>], Vec<Kind>),
}

/// The plan of a query without ids, a list of places.
pub(crate) struct Plan<'a> {
    query: &'a Query,
    key_kinds: Vec<Kind>,
    group_kinds: Vec<Kind>,
    rosters: Rosters<'a>,
    public: Public<'a>,
}

impl<'a> Plan<'a> {
    /// The plan of a query. It is the same for every call with equal queries.
    pub(crate) fn of(query: &'a Query) -> Self {
        let (filter, scope) = (&query.filter, &query.scope);
        let asked = |kinds: &'static [Kind]| kinds.iter().copied().filter(|kind| filter.asks_kind(*kind));
        let admin_kinds: Vec<Kind> = asked(&ADMIN_KINDS).collect();
        let all_rosters = scope.all_rosters && !admin_kinds.is_empty();
        // A roster names its group by `h`: with values asked for, all rosters are those of these groups.
        let rosters = match filter.tags.get(&b'h') {
            _ if !all_rosters => Rosters::Nothing,
            None => Rosters::All,
            Some(values) => Rosters::Named(values, admin_kinds),
        };
        let mut plan = Self {
            query,
            key_kinds: asked(&KEY_KINDS).collect(),
            group_kinds: asked(&GROUP_KINDS).filter(|kind| !(all_rosters && is_for_admin_keys(*kind))).collect(),
            rosters,
            public: if scope.everyone { Public::of(filter) } else { Public::Nothing },
        };
        if filter.is_impossible() {
            (plan.key_kinds, plan.group_kinds) = (Vec::new(), Vec::new());
            (plan.rosters, plan.public) = (Rosters::Nothing, Public::Nothing);
        }
        plan
    }

    /// Number of places of each section, and the ranges that one place counts for.
    fn sections(&self) -> [(usize, usize); 4] {
        let scope = &self.query.scope;
        let rosters = match &self.rosters {
            Rosters::Nothing => 0,
            Rosters::All => 1,
            Rosters::Named(groups, kinds) => groups.len() * kinds.len(),
        };
        let weight = if matches!(self.public, Public::Authors(_)) { RANGES_PER_AUTHOR } else { 1 };
        [
            (scope.keys.len() * self.key_kinds.len(), 1),
            (rosters, 1),
            (scope.groups.len() * self.group_kinds.len(), 1),
            (self.public.len(), weight),
        ]
    }

    /// The places of a part, without those that hold nothing.
    pub(crate) fn places(self, part: Part) -> impl Iterator<Item = Planned<'a>> {
        let count = self.sections().iter().map(|(places, _)| places).sum();
        (0..part.len(count)).filter_map(move |n| self.place(part.first + n))
    }

    fn place(&self, mut place: usize) -> Option<Planned<'a>> {
        let (filter, scope) = (&self.query.filter, &self.query.scope);
        let [(keys, _), (rosters, _), (groups, _), _] = self.sections();
        if place < keys {
            let kinds = self.key_kinds.len();
            return Some(Planned::Range(prefix::reader(&scope.keys[place / kinds], self.key_kinds[place % kinds])));
        }
        place -= keys;
        if place < rosters {
            let Rosters::Named(values, kinds) = &self.rosters else {
                return Some(Planned::Range(prefix::all_rosters()));
            };
            let group = NostrGroupId::parse(&values[place / kinds.len()])?;
            return Some(Planned::Range(prefix::group(&group, kinds[place % kinds.len()])));
        }
        place -= rosters;
        if place < groups {
            let kinds = self.group_kinds.len();
            let group = &scope.groups[place / kinds];
            let is_named =
                |values: &Vec<Box<str>>| values.binary_search_by(|value| (**value).cmp(group.as_str())).is_ok();
            let is_asked = filter.tags.get(&b'h').is_none_or(is_named);
            return is_asked.then(|| Planned::Range(prefix::group(group, self.group_kinds[place % kinds])));
        }
        self.public.place(place - groups)
    }
}
