//! Every query of this store. Each needs an index of [`super::index`].

use gcloud_sdk::google::firestore::v1::{
    ArrayValue, Cursor as Edge, StructuredQuery, Value,
    structured_query::{
        CollectionSelector, CompositeFilter, Direction, FieldFilter, FieldReference, Filter, Order, Projection,
        composite_filter, field_filter::Operator, filter::FilterType,
    },
    value::ValueType,
};
use nostr_protocol::{PublicKey, UnixSecs};

use super::{
    groups,
    names::{Collection, Names, field},
};
use crate::firestore::wire::{
    clock::{Micros, SEC, timestamp},
    value::array,
};

/// Most values of one `array-contains-any` or `in`.
pub(crate) const VALUES_MAX: usize = 30;

fn value(value: ValueType) -> Value {
    Value { value_type: Some(value) }
}

fn named(path: &str) -> Option<FieldReference> {
    Some(FieldReference { field_path: path.to_owned() })
}

fn secs(time: UnixSecs) -> ValueType {
    ValueType::IntegerValue(i64::try_from(time).unwrap_or(i64::MAX))
}

fn time(time: Micros) -> ValueType {
    ValueType::TimestampValue(timestamp(time))
}

/// Builds a query.
pub(super) struct QueryBuilder(pub(super) StructuredQuery);

impl QueryBuilder {
    pub(super) fn of(names: &Names, collection: Collection) -> Self {
        let from = CollectionSelector { collection_id: names.collection(collection), all_descendants: false };
        Self(StructuredQuery { from: vec![from], ..StructuredQuery::default() })
    }

    pub(super) fn only(mut self, path: &str, op: Operator, to: ValueType) -> Self {
        let one = FieldFilter { field: named(path), op: op.into(), value: Some(value(to)) };
        let one = Filter { filter_type: Some(FilterType::FieldFilter(one)) };
        self.0.r#where = Some(match self.0.r#where.take() {
            None => one,
            Some(others) => {
                let filters = vec![others, one];
                let all = CompositeFilter { op: composite_filter::Operator::And.into(), filters };
                Filter { filter_type: Some(FilterType::CompositeFilter(all)) }
            }
        });
        self
    }

    pub(super) fn by(mut self, path: &str, direction: Direction) -> Self {
        self.0.order_by.push(Order { field: named(path), direction: direction.into() });
        self
    }

    fn select(mut self, fields: &[&str]) -> Self {
        self.0.select = Some(Projection { fields: fields.iter().filter_map(|path| named(path)).collect() });
        self
    }

    fn behind(mut self, values: Vec<ValueType>) -> Self {
        self.0.start_at = Some(Edge { values: values.into_iter().map(value).collect(), before: false });
        self
    }

    fn most(mut self, limit: usize) -> StructuredQuery {
        self.0.limit = Some(i32::try_from(limit).unwrap_or(i32::MAX));
        self.0
    }
}

/// Arguments of [`events_under`]: events with one of these numbers, in NIP-01's order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Under<'a> {
    /// At most [`VALUES_MAX`].
    pub(crate) numbers: &'a [i64],
    pub(crate) since: Option<UnixSecs>,
    pub(crate) until: Option<UnixSecs>,
    /// The position to begin after: an event's `created_at` and its document's name.
    pub(crate) behind: Option<(UnixSecs, &'a str)>,
    pub(crate) limit: usize,
}

pub(crate) fn events_under(names: &Names, under: Under<'_>) -> StructuredQuery {
    let mut asked = QueryBuilder::of(names, Collection::Events);
    asked = match under.numbers {
        [number] => asked.only(field::PREFIXES, Operator::ArrayContains, ValueType::IntegerValue(*number)),
        numbers => asked.only(field::PREFIXES, Operator::ArrayContainsAny, array(numbers)),
    };
    if let Some(since) = under.since {
        asked = asked.only(field::CREATED_AT, Operator::GreaterThanOrEqual, secs(since));
    }
    if let Some(until) = under.until {
        asked = asked.only(field::CREATED_AT, Operator::LessThanOrEqual, secs(until));
    }
    asked = asked.by(field::CREATED_AT, Direction::Descending).by(field::NAME, Direction::Ascending);
    if let Some((created_at, name)) = under.behind {
        asked = asked.behind(vec![secs(created_at), ValueType::ReferenceValue(name.to_owned())]);
    }
    asked.most(under.limit)
}

/// The events of [`events_under`], reduced to these fields.
pub(crate) fn parts_under(names: &Names, under: Under<'_>, fields: &[&str]) -> StructuredQuery {
    QueryBuilder(events_under(names, under)).select(fields).0
}

/// Events with one of these numbers that the service received from a time on, in the order of these times.
pub(crate) fn received_under(
    names: &Names,
    numbers: &[i64],
    from: Micros,
    behind: Option<(Micros, &str)>,
    limit: usize,
) -> StructuredQuery {
    let mut asked = QueryBuilder::of(names, Collection::Events);
    asked = match numbers {
        [number] => asked.only(field::PREFIXES, Operator::ArrayContains, ValueType::IntegerValue(*number)),
        numbers => asked.only(field::PREFIXES, Operator::ArrayContainsAny, array(numbers)),
    };
    asked = asked
        .only(field::AT, Operator::GreaterThanOrEqual, time(from))
        .by(field::AT, Direction::Ascending)
        .by(field::NAME, Direction::Ascending);
    if let Some((at, name)) = behind {
        asked = asked.behind(vec![time(at), ValueType::ReferenceValue(name.to_owned())]);
    }
    asked.most(limit)
}

/// Names and addresses of events that have expired at `now`, the earliest first.
pub(crate) fn expired_events(names: &Names, now: UnixSecs, limit: usize) -> StructuredQuery {
    let until = now.saturating_mul(SEC);
    QueryBuilder::of(names, Collection::Events)
        .only(field::EXPIRES_AT, Operator::LessThanOrEqual, time(until))
        .by(field::EXPIRES_AT, Direction::Ascending)
        .select(&["address", "head"])
        .most(limit)
}

/// Receipts that have lapsed.
pub(crate) fn lapsed_receipts(names: &Names, now: UnixSecs, limit: usize) -> StructuredQuery {
    QueryBuilder::of(names, Collection::Receipts)
        .only(field::EXPIRES_AT, Operator::LessThanOrEqual, time(now.saturating_mul(SEC)))
        .by(field::EXPIRES_AT, Direction::Ascending)
        .select(&[])
        .most(limit)
}

/// Names of the used names whose time is past at `now`, the earliest first.
pub(crate) fn expired_once(names: &Names, now: UnixSecs, limit: usize) -> StructuredQuery {
    QueryBuilder::of(names, Collection::Once)
        .only(field::EXPIRES_AT, Operator::LessThanOrEqual, time(now.saturating_mul(SEC)))
        .by(field::EXPIRES_AT, Direction::Ascending)
        .select(&[field::NAME])
        .most(limit)
}

pub(crate) fn all_events(names: &Names) -> StructuredQuery {
    QueryBuilder::of(names, Collection::Events).0
}

/// The log's documents that the service received from a time on, and before another.
pub(crate) fn log_between(names: &Names, from: Micros, to: Option<Micros>) -> StructuredQuery {
    let mut asked = QueryBuilder::of(names, Collection::Log).only(field::AT, Operator::GreaterThanOrEqual, time(from));
    if let Some(to) = to {
        asked = asked.only(field::AT, Operator::LessThan, time(to));
    }
    asked.by(field::AT, Direction::Ascending).0
}

/// Documents of [`log_between`], in pages.
pub(crate) fn log_from(names: &Names, from: Micros, behind: Option<(Micros, &str)>, limit: usize) -> StructuredQuery {
    let mut asked = QueryBuilder(log_between(names, from, None)).by(field::NAME, Direction::Ascending);
    if let Some((at, name)) = behind {
        asked = asked.behind(vec![time(at), ValueType::ReferenceValue(name.to_owned())]);
    }
    asked.most(limit)
}

/// The newest documents of the log.
pub(crate) fn log_newest(names: &Names, limit: usize) -> StructuredQuery {
    QueryBuilder::of(names, Collection::Log).by(field::AT, Direction::Descending).most(limit)
}

/// Names of the log's documents that the service received before a time.
pub(crate) fn log_before(names: &Names, before: Micros, limit: usize) -> StructuredQuery {
    QueryBuilder::of(names, Collection::Log)
        .only(field::AT, Operator::LessThan, time(before))
        .by(field::AT, Direction::Ascending)
        .select(&[field::NAME])
        .most(limit)
}

/// Vanished keys that still have events.
pub(crate) fn vanished_pending(names: &Names, behind: Option<&str>, limit: usize) -> StructuredQuery {
    let mut asked = QueryBuilder::of(names, Collection::Vanished)
        .only(field::PENDING, Operator::Equal, ValueType::BooleanValue(true))
        .by(field::NAME, Direction::Ascending);
    if let Some(name) = behind {
        asked = asked.behind(vec![ValueType::ReferenceValue(name.to_owned())]);
    }
    asked.most(limit)
}

/// Heads and shards of groups that have one of these keys as a member.
pub(crate) fn memberships(
    names: &Names,
    collection: Collection,
    keys: &[i64],
    behind: Option<&str>,
    limit: usize,
) -> StructuredQuery {
    let mut asked = QueryBuilder::of(names, collection)
        .only(field::KEYS, Operator::ArrayContainsAny, array(keys))
        .by(field::NAME, Direction::Ascending)
        .select(&[field::GROUP]);
    if let Some(name) = behind {
        asked = asked.behind(vec![ValueType::ReferenceValue(name.to_owned())]);
    }
    asked.most(limit)
}

/// All heads or shards with one of these keys as a member, to be counted. At most [`VALUES_MAX`] keys.
pub(crate) fn memberships_of(names: &Names, collection: Collection, keys: &[PublicKey]) -> StructuredQuery {
    let numbers: Vec<i64> = keys.iter().map(groups::number).collect();
    QueryBuilder::of(names, collection).only(field::KEYS, Operator::ArrayContainsAny, array(&numbers)).0
}

/// Documents in the order of their names, reduced to these fields.
pub(crate) fn every(
    names: &Names,
    collection: Collection,
    behind: Option<&str>,
    fields: &[&str],
    limit: usize,
) -> StructuredQuery {
    let mut asked = QueryBuilder::of(names, collection).by(field::NAME, Direction::Ascending).select(fields);
    if let Some(name) = behind {
        asked = asked.behind(vec![ValueType::ReferenceValue(name.to_owned())]);
    }
    asked.most(limit)
}

/// Groups, managed or not, in the order of their ids, reduced to these fields.
pub(crate) fn every_group(names: &Names, behind: Option<&str>, fields: &[&str], limit: usize) -> StructuredQuery {
    let mut asked = QueryBuilder::of(names, Collection::Groups).by(field::GROUP, Direction::Ascending).select(fields);
    if let Some(id) = behind {
        asked = asked.behind(vec![ValueType::StringValue(id.to_owned())]);
    }
    asked.most(limit)
}

/// Groups, managed or not, in the order of their ids, whose ids do not lie before a prefix and lie behind a place.
pub(crate) fn groups_from(names: &Names, prefix: &str, behind: Option<&str>, limit: usize) -> StructuredQuery {
    let mut asked = QueryBuilder::of(names, Collection::Groups)
        .only(field::GROUP, Operator::GreaterThanOrEqual, ValueType::StringValue(prefix.to_owned()))
        .by(field::GROUP, Direction::Ascending)
        .select(&[field::GROUP, field::MANAGED]);
    if let Some(id) = behind {
        asked = asked.behind(vec![ValueType::StringValue(id.to_owned())]);
    }
    asked.most(limit)
}

/// Places of events that were received from a time on, ordered by that time and then by name.
pub(crate) fn received_since(
    names: &Names,
    since: UnixSecs,
    behind: Option<(UnixSecs, &str)>,
    limit: usize,
) -> StructuredQuery {
    let mut asked = QueryBuilder::of(names, Collection::Events)
        .only(field::RECEIVED_AT, Operator::GreaterThanOrEqual, secs(since))
        .by(field::RECEIVED_AT, Direction::Ascending)
        .by(field::NAME, Direction::Ascending)
        .select(&[field::RECEIVED_AT, "place"]);
    if let Some((received_at, name)) = behind {
        asked = asked.behind(vec![secs(received_at), ValueType::ReferenceValue(name.to_owned())]);
    }
    asked.most(limit)
}

/// Names of the groups that have a document, of at most [`VALUES_MAX`] names.
pub(crate) fn groups_named(names: &Names, groups: &[String]) -> StructuredQuery {
    let values = groups.iter().map(|name| value(ValueType::ReferenceValue(name.clone()))).collect();
    let list = ValueType::ArrayValue(ArrayValue { values });
    QueryBuilder::of(names, Collection::Groups)
        .only(field::NAME, Operator::In, list)
        .select(&[field::NAME])
        .most(VALUES_MAX)
}

/// Those of at most [`VALUES_MAX`] names of groups that have this key as a member in their heads.
pub(crate) fn groups_with_member(names: &Names, groups: &[String], key: &PublicKey) -> StructuredQuery {
    let values = groups.iter().map(|name| value(ValueType::ReferenceValue(name.clone()))).collect();
    QueryBuilder::of(names, Collection::Groups)
        .only(field::NAME, Operator::In, ValueType::ArrayValue(ArrayValue { values }))
        .only(field::KEYS, Operator::ArrayContains, ValueType::IntegerValue(groups::number(key)))
        .select(&[field::GROUP])
        .most(VALUES_MAX)
}

pub(crate) fn managed_groups(names: &Names) -> StructuredQuery {
    QueryBuilder::of(names, Collection::Groups).only(field::MANAGED, Operator::Equal, ValueType::BooleanValue(true)).0
}
