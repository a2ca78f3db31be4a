//! The routes that a subscription stands under, and its weight: the room that it takes in the index.

use nostr_extensions::{
    Policy, READER_KEYS_MAX, Reader, RouteHasher,
    audience::{is_for_admin_keys, is_for_group, may_be_for_keys, may_be_public},
    route::Condition,
};
use nostr_protocol::{Filter, Kind, PublicKey, Rejection};
use tokio::task::yield_now;

/// Most routes that the subscriptions of one connection stand under, together with the conditions of their filters.
pub(super) const CONNECTION_ROUTES_MAX: usize = 20_000;
/// Most bytes that the filters of one connection take. A filter stands under its most selective condition alone, and
/// may hold long lists beside it.
pub(super) const CONNECTION_FILTER_BYTES_MAX: usize = 4 << 20;

/// Bytes that a route takes in the index and in its subscription, about.
const ROUTE_BYTES: usize = 48;

/// The room that subscriptions take. It does not depend on their reader's keys, so that a reader that authenticates
/// needs no more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Weight {
    /// Routes, with those of as many keys as a reader may have, and conditions.
    pub(super) routes: usize,
    /// Bytes of the filters.
    pub(super) bytes: usize,
}

impl Weight {
    /// Bytes that the subscription takes, with its routes.
    pub(super) const fn held_bytes(self) -> usize {
        self.bytes + ROUTE_BYTES * self.routes
    }

    /// Adds the weight of a further subscription of the same connection.
    ///
    /// # Errors
    /// `error:` at the bound of a connection.
    pub(super) fn add(&mut self, other: Self) -> Result<(), Rejection> {
        let sum = Self { routes: self.routes + other.routes, bytes: self.bytes + other.bytes };
        if sum.routes > CONNECTION_ROUTES_MAX {
            return Err(Rejection::error(format!(
                "the subscriptions of this connection name over {CONNECTION_ROUTES_MAX} values; CLOSE some first"
            )));
        }
        if sum.bytes > CONNECTION_FILTER_BYTES_MAX {
            return Err(Rejection::error(format!(
                "the filters of this connection take over {} MiB; CLOSE some first",
                CONNECTION_FILTER_BYTES_MAX >> 20
            )));
        }
        *self = sum;
        Ok(())
    }

    /// Takes the weight of a subscription off again.
    pub(super) const fn subtract(&mut self, other: Self) {
        self.routes -= other.routes;
        self.bytes -= other.bytes;
    }
}

/// Values that are hashed at the price of one that is put into the index and taken out again.
const HASHED_PER_INDEXED: usize = 10;

/// The price of working out the routes of these filters, in values that are put into the index.
pub(super) fn hashing_cost(filters: &[Filter]) -> usize {
    filters.iter().map(|filter| 1 + Narrowest::of(filter).values(filter) / HASHED_PER_INDEXED).sum()
}

/// Values of filters that are hashed before other tasks run, about a tenth of a millisecond; a filter is not divided.
const HASHED_AT_ONCE_MAX: usize = 1_000;

/// Parts in which routes are sorted, by their first bits: a request of 19,000 values has 300 in each.
const PARTS: usize = 1 << (u64::BITS - PART_SHIFT);
/// Bits of a route behind those that name its part.
const PART_SHIFT: u32 = u64::BITS - 6;

/// The conditions that a filter stands under: the most selective ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Narrowest {
    /// None: it matches nothing.
    Nothing,
    Ids,
    Tag(u8),
    Authors,
    /// Its kinds, and the reader's keys.
    Kinds,
}

impl Narrowest {
    fn of(filter: &Filter) -> Self {
        if filter.is_impossible() {
            return Self::Nothing;
        }
        let tag = filter.tags.iter().min_by_key(|(_, values)| values.len());
        match tag {
            _ if filter.ids.is_some() => Self::Ids,
            Some((letter, _)) => Self::Tag(*letter),
            None if filter.authors.is_some() => Self::Authors,
            None => Self::Kinds,
        }
    }

    /// Number of the values, the reader's keys aside.
    fn values(self, filter: &Filter) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Ids => filter.ids.as_ref().map_or(0, Vec::len),
            Self::Tag(letter) => filter.tag_values(letter).len(),
            Self::Authors => filter.authors.as_ref().map_or(0, Vec::len),
            Self::Kinds => filter.kinds.as_ref().map_or(1, Vec::len),
        }
    }
}

/// Whether the filter asks for a kind that passes.
fn asks(filter: &Filter, test: fn(Kind) -> bool) -> bool {
    filter.kinds.as_ref().is_none_or(|kinds| kinds.iter().any(|kind| test(*kind)))
}

/// The routes of a subscription, each once, and the filters that stand under each.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Routes {
    /// In ascending order.
    hashes: Vec<u64>,
    /// End of each route's part of `filters`.
    ends: Vec<u32>,
    /// Numbers of filters. The configuration allows at most 10,000 filters in a request.
    filters: Vec<u16>,
    /// The routes under `Member` of a key.
    members: Vec<u64>,
}

impl Routes {
    /// The routes of a reader's subscription, and the room that the subscription takes. Other tasks run in between.
    pub(super) async fn of(
        hasher: &RouteHasher,
        filters: &[Filter],
        reader: &Reader,
        policy: &Policy,
    ) -> (Self, Weight) {
        let (mut parts, mut hashed, mut rested_at) = (vec![Vec::new(); PARTS], 0, 0);
        for (number, filter) in (0..).zip(filters) {
            for route in value_routes(hasher, filter) {
                parts[(route >> PART_SHIFT) as usize].push((route, number));
                hashed += 1;
            }
            if hashed - rested_at >= HASHED_AT_ONCE_MAX {
                rested_at = hashed;
                yield_now().await;
            }
        }
        let mut routes = Self::default();
        for part in parts {
            rested_at += part.len();
            routes.add_sorted(part);
            if rested_at >= HASHED_AT_ONCE_MAX {
                rested_at = 0;
                yield_now().await;
            }
        }
        let weight = Weight {
            routes: routes.hashes.len()
                + key_routes_max(filters)
                + filters.iter().map(|filter| 1 + filter.tags.len()).sum::<usize>(),
            bytes: filters.iter().map(Filter::bytes).sum(),
        };
        if let Some((with_keys, _)) = routes.for_reader(hasher, filters, reader, policy) {
            routes = with_keys;
        }
        (routes, weight)
    }

    /// The same subscription's routes with those of its reader's keys, and the new ones among them; `None` where there
    /// are none. Keys are added to a reader and never taken away.
    pub(super) fn for_reader(
        &self,
        hasher: &RouteHasher,
        filters: &[Filter],
        reader: &Reader,
        policy: &Policy,
    ) -> Option<(Self, Vec<u64>)> {
        let is_new = |(route, filter): &(u64, u16)| self.filters_under(*route).binary_search(filter).is_err();
        let of_keys = key_routes(hasher, filters, reader, policy);
        let new: Vec<(u64, u16)> = of_keys.into_iter().filter(is_new).collect();
        if new.is_empty() {
            return None;
        }
        let added = new.iter().map(|(route, _)| *route).collect();
        let before = self.iter().flat_map(|route| self.filters_under(route).iter().map(move |filter| (route, *filter)));
        let asks_for_members = filters.iter().any(asks_for_members);
        let members = reader.keys().iter().filter(|_| asks_for_members).map(|key| hasher.hash(Condition::Member(*key)));
        let members = members.collect();
        Some((Self::from_pairs(before.chain(new).collect(), members), added))
    }

    fn from_pairs(pairs: Vec<(u64, u16)>, members: Vec<u64>) -> Self {
        let mut routes = Self { members, ..Self::default() };
        routes.add_sorted(pairs);
        routes
    }

    /// Adds routes that all come behind those that are there.
    fn add_sorted(&mut self, mut pairs: Vec<(u64, u16)>) {
        pairs.sort_unstable();
        pairs.dedup();
        self.filters.extend(pairs.iter().map(|(_, filter)| *filter));
        for under in pairs.chunk_by(|a, b| a.0 == b.0) {
            // A message holds fewer values than 2^32.
            self.ends.push(self.ends.last().copied().unwrap_or(0) + under.len() as u32);
            self.hashes.push(under[0].0);
        }
    }

    /// Each route.
    pub(super) fn iter(&self) -> impl Iterator<Item = u64> {
        self.hashes.iter().copied()
    }

    /// Number of routes.
    pub(super) const fn len(&self) -> usize {
        self.hashes.len()
    }

    /// The routes under `Member` of a key.
    pub(super) fn members(&self) -> &[u64] {
        &self.members
    }

    /// The numbers of the filters that stand under a route, in ascending order.
    pub(super) fn filters_under(&self, route: u64) -> &[u16] {
        let Ok(at) = self.hashes.binary_search(&route) else { return &[] };
        let begin = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.filters[begin as usize..self.ends[at] as usize]
    }
}

/// The routes of a filter's values.
fn value_routes(hasher: &RouteHasher, filter: &Filter) -> impl Iterator<Item = u64> {
    let narrowest = Narrowest::of(filter);
    let (ids, tag, authors, kinds) = match narrowest {
        Narrowest::Nothing => (None, None, None, None),
        Narrowest::Ids => (filter.ids.as_ref(), None, None, None),
        Narrowest::Tag(letter) => (None, Some(letter), None, None),
        Narrowest::Authors => (None, None, filter.authors.as_ref(), None),
        Narrowest::Kinds => (None, None, None, filter.kinds.as_ref()),
    };
    let everything = (narrowest == Narrowest::Kinds && filter.kinds.is_none()).then_some(Condition::Everything);
    let tags = tag.into_iter().flat_map(|letter| filter.tag_values(letter).iter().map(move |value| (letter, value)));
    let public = kinds.into_iter().flatten().filter(|kind| may_be_public(**kind));
    let conditions = ids.into_iter().flatten().map(|id| Condition::Id(*id));
    let conditions = conditions.chain(tags.map(|(letter, value)| Condition::Tag(letter, value)));
    let conditions = conditions.chain(authors.into_iter().flatten().map(|author| Condition::Author(*author)));
    let conditions = conditions.chain(public.map(|kind| Condition::Kind(*kind))).chain(everything);
    conditions.map(|condition| hasher.hash(condition))
}

/// The routes of the reader's keys, each with the filter that stands under it.
fn key_routes(hasher: &RouteHasher, filters: &[Filter], reader: &Reader, policy: &Policy) -> Vec<(u64, u16)> {
    let hash = |condition: fn(PublicKey) -> Condition<'static>| {
        reader.keys().iter().map(move |key| hasher.hash(condition(*key))).collect::<Vec<u64>>()
    };
    let (inboxes, members) = (hash(Condition::Inbox), hash(Condition::Member));
    let rosters = policy.has_admin_key(reader.keys()).then(|| hasher.hash(Condition::Rosters));
    let mut routes = Vec::new();
    for (number, filter) in (0..).zip(filters) {
        if Narrowest::of(filter) != Narrowest::Kinds {
            continue;
        }
        let asked =
            |routes: &[u64], asks: bool| routes.iter().filter(move |_| asks).map(|route| (*route, number)).collect();
        let of_keys: [Vec<(u64, u16)>; 3] = [
            asked(&inboxes, asks(filter, may_be_for_keys)),
            asked(&members, asks(filter, is_for_group)),
            asked(rosters.as_slice(), asks(filter, is_for_admin_keys)),
        ];
        routes.extend(of_keys.into_iter().flatten());
    }
    routes
}

fn asks_for_members(filter: &Filter) -> bool {
    Narrowest::of(filter) == Narrowest::Kinds && asks(filter, is_for_group)
}

/// Most routes under the reader's keys, whichever it has.
fn key_routes_max(filters: &[Filter]) -> usize {
    let any = |test: fn(Kind) -> bool| {
        filters.iter().any(|filter| Narrowest::of(filter) == Narrowest::Kinds && asks(filter, test))
    };
    let keys = usize::from(any(may_be_for_keys)) + usize::from(any(is_for_group));
    keys * READER_KEYS_MAX + usize::from(any(is_for_admin_keys))
}
