//! Every query that this store asks, and the indexes that answer them.
//!
//! The service refuses a query that no index answers; its emulator knows no indexes. So [`check`] says of a query which
//! index it needs, as the service's rules have it (<https://firebase.google.com/docs/firestore/query-data/index-overview>),
//! and whether that is declared; the files in `deploy/` are made from the same declarations ([`super::deploy`]).

use gcloud_sdk::google::firestore::v1::{
    Cursor as Edge, StructuredQuery, Value,
    structured_query::{
        CollectionSelector, CompositeFilter, Direction, FieldFilter, FieldReference, Filter, Order, Projection,
        composite_filter, field_filter::Operator, filter::FilterType,
    },
    value::ValueType,
};
use nostr_protocol::{PublicKey, UnixSecs};

use super::{
    clock::{Micros, timestamp},
    names::{Collection, Names, field},
    value::array,
};

/// Most values of one `array-contains-any`.
pub(super) const VALUES_MAX: usize = 30;

/// How an index orders a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Ascending,
    Descending,
    Contains,
}

/// Indexes over several fields.
pub(super) const COMPOSITE: [(Collection, &[(&str, Way)]); 1] = [(
    Collection::Events,
    &[(field::PREFIXES, Way::Contains), (field::CREATED_AT, Way::Descending), (field::NAME, Way::Ascending)],
)];

/// Indexes over one field; every other field has none, for each costs at every write.
pub(super) const SINGLE: [(Collection, &str, &[Way]); 8] = [
    (Collection::Events, field::EXPIRES_AT, &[Way::Ascending]),
    (Collection::Events, field::RECEIVED_AT, &[Way::Ascending]),
    (Collection::Log, field::AT, &[Way::Ascending, Way::Descending]),
    (Collection::Vanished, field::PENDING, &[Way::Ascending]),
    (Collection::Groups, field::GROUP, &[Way::Ascending]),
    (Collection::Groups, field::MANAGED, &[Way::Ascending]),
    (Collection::Groups, field::KEYS, &[Way::Contains]),
    (Collection::Members, field::KEYS, &[Way::Contains]),
];

/// Fields by which the service removes documents.
pub(super) const LIFETIMES: [(Collection, &str); 1] = [(Collection::Events, field::EXPIRES_AT)];

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

/// A query in the making.
struct Asked(StructuredQuery);

impl Asked {
    fn of(names: &Names, collection: Collection) -> Self {
        let from = CollectionSelector { collection_id: names.collection(collection), all_descendants: false };
        Self(StructuredQuery { from: vec![from], ..StructuredQuery::default() })
    }

    fn only(mut self, path: &str, op: Operator, to: ValueType) -> Self {
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

    fn by(mut self, path: &str, direction: Direction) -> Self {
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

/// Which events lie under one of these numbers, in NIP-01's order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Under<'a> {
    /// At most [`VALUES_MAX`].
    pub(super) numbers: &'a [i64],
    pub(super) since: Option<UnixSecs>,
    pub(super) until: Option<UnixSecs>,
    /// The `created_at` and the document's name of the event behind which to begin.
    pub(super) behind: Option<(UnixSecs, &'a str)>,
    pub(super) limit: usize,
}

pub(super) fn events_under(names: &Names, under: Under<'_>) -> StructuredQuery {
    let mut asked = Asked::of(names, Collection::Events);
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

/// As [`events_under`], with these fields alone.
pub(super) fn parts_under(names: &Names, under: Under<'_>, fields: &[&str]) -> StructuredQuery {
    Asked(events_under(names, under)).select(fields).0
}

/// Events that have expired at `now`, the longest gone first: their names and addresses.
pub(super) fn expired_events(names: &Names, now: UnixSecs, limit: usize) -> StructuredQuery {
    let until = now.saturating_mul(super::clock::SEC);
    Asked::of(names, Collection::Events)
        .only(field::EXPIRES_AT, Operator::LessThanOrEqual, time(until))
        .by(field::EXPIRES_AT, Direction::Ascending)
        .select(&["address"])
        .most(limit)
}

pub(super) fn all_events(names: &Names) -> StructuredQuery {
    Asked::of(names, Collection::Events).0
}

/// The log's documents that were taken in from a time on, and before another.
pub(super) fn log_between(names: &Names, from: Micros, to: Option<Micros>) -> StructuredQuery {
    let mut asked = Asked::of(names, Collection::Log).only(field::AT, Operator::GreaterThanOrEqual, time(from));
    if let Some(to) = to {
        asked = asked.only(field::AT, Operator::LessThan, time(to));
    }
    asked.by(field::AT, Direction::Ascending).0
}

/// As [`log_between`], some at a time.
pub(super) fn log_from(names: &Names, from: Micros, behind: Option<(Micros, &str)>, limit: usize) -> StructuredQuery {
    let mut asked = Asked(log_between(names, from, None)).by(field::NAME, Direction::Ascending);
    if let Some((at, name)) = behind {
        asked = asked.behind(vec![time(at), ValueType::ReferenceValue(name.to_owned())]);
    }
    asked.most(limit)
}

/// The newest documents of the log.
pub(super) fn log_newest(names: &Names, limit: usize) -> StructuredQuery {
    Asked::of(names, Collection::Log).by(field::AT, Direction::Descending).most(limit)
}

/// Names of the log's documents that were taken in before a time.
pub(super) fn log_before(names: &Names, before: Micros, limit: usize) -> StructuredQuery {
    Asked::of(names, Collection::Log)
        .only(field::AT, Operator::LessThan, time(before))
        .by(field::AT, Direction::Ascending)
        .select(&[field::NAME])
        .most(limit)
}

/// Keys that vanished and whose events are not all gone.
pub(super) fn vanished_pending(names: &Names, behind: Option<&str>, limit: usize) -> StructuredQuery {
    let mut asked = Asked::of(names, Collection::Vanished)
        .only(field::PENDING, Operator::Equal, ValueType::BooleanValue(true))
        .by(field::NAME, Direction::Ascending);
    if let Some(name) = behind {
        asked = asked.behind(vec![ValueType::ReferenceValue(name.to_owned())]);
    }
    asked.most(limit)
}

/// Groups, or parts of large groups, of which one of these keys is a member.
pub(super) fn memberships(
    names: &Names,
    collection: Collection,
    keys: &[i64],
    behind: Option<&str>,
    limit: usize,
) -> StructuredQuery {
    let mut asked = Asked::of(names, collection)
        .only(field::KEYS, Operator::ArrayContainsAny, array(keys))
        .by(field::NAME, Direction::Ascending)
        .select(&[field::GROUP]);
    if let Some(name) = behind {
        asked = asked.behind(vec![ValueType::ReferenceValue(name.to_owned())]);
    }
    asked.most(limit)
}

/// As [`memberships`], all of them, to be counted.
pub(super) fn memberships_of(names: &Names, collection: Collection, key: &PublicKey) -> StructuredQuery {
    let number = ValueType::IntegerValue(super::groups::number(key));
    Asked::of(names, collection).only(field::KEYS, Operator::ArrayContains, number).0
}

/// Documents in the order of their names, these fields of them.
pub(super) fn every(
    names: &Names,
    collection: Collection,
    behind: Option<&str>,
    fields: &[&str],
    limit: usize,
) -> StructuredQuery {
    let mut asked = Asked::of(names, collection).by(field::NAME, Direction::Ascending).select(fields);
    if let Some(name) = behind {
        asked = asked.behind(vec![ValueType::ReferenceValue(name.to_owned())]);
    }
    asked.most(limit)
}

/// Groups, managed or not, in the order of their ids, these fields of them.
pub(super) fn every_group(names: &Names, behind: Option<&str>, fields: &[&str], limit: usize) -> StructuredQuery {
    let mut asked = Asked::of(names, Collection::Groups).by(field::GROUP, Direction::Ascending).select(fields);
    if let Some(id) = behind {
        asked = asked.behind(vec![ValueType::StringValue(id.to_owned())]);
    }
    asked.most(limit)
}

/// Where the events lie that were received from a time on, by that time and then by name.
pub(super) fn received_since(
    names: &Names,
    since: UnixSecs,
    behind: Option<(UnixSecs, &str)>,
    limit: usize,
) -> StructuredQuery {
    let mut asked = Asked::of(names, Collection::Events)
        .only(field::RECEIVED_AT, Operator::GreaterThanOrEqual, secs(since))
        .by(field::RECEIVED_AT, Direction::Ascending)
        .by(field::NAME, Direction::Ascending)
        .select(&[field::RECEIVED_AT, "place"]);
    if let Some((received_at, name)) = behind {
        asked = asked.behind(vec![secs(received_at), ValueType::ReferenceValue(name.to_owned())]);
    }
    asked.most(limit)
}

pub(super) fn managed_groups(names: &Names) -> StructuredQuery {
    Asked::of(names, Collection::Groups).only(field::MANAGED, Operator::Equal, ValueType::BooleanValue(true)).0
}

/// The fields that a query compares, each with how.
fn compared(filter: Option<&Filter>, into: &mut Vec<(String, Operator)>) {
    match filter.and_then(|filter| filter.filter_type.as_ref()) {
        Some(FilterType::CompositeFilter(all)) => {
            for filter in &all.filters {
                compared(Some(filter), into);
            }
        }
        Some(FilterType::FieldFilter(one)) => {
            let path = one.field.as_ref().map(|field| field.field_path.clone()).unwrap_or_default();
            into.push((path, one.op()));
        }
        Some(FilterType::UnaryFilter(_)) | None => {}
    }
}

/// The index that a query needs: its collection, and the fields in their order.
fn needed(query: &StructuredQuery) -> (String, Vec<(String, Way)>) {
    let mut filters = Vec::new();
    compared(query.r#where.as_ref(), &mut filters);
    let mut orders: Vec<(String, Way)> = Vec::new();
    for order in &query.order_by {
        let path = order.field.as_ref().map(|field| field.field_path.clone()).unwrap_or_default();
        orders.push((path, if order.direction() == Direction::Descending { Way::Descending } else { Way::Ascending }));
    }
    let mut fields: Vec<(String, Way)> = Vec::new();
    for (path, op) in &filters {
        let needs = match op {
            Operator::Equal | Operator::In => (path.clone(), Way::Ascending),
            Operator::ArrayContains | Operator::ArrayContainsAny => (path.clone(), Way::Contains),
            _ => {
                // What is compared by size is the first to order by.
                if orders.iter().all(|(ordered, _)| ordered != path) {
                    orders.insert(0, (path.clone(), Way::Ascending));
                }
                continue;
            }
        };
        fields.push(needs);
    }
    // Every index ends with the document's name, in the direction of the field before it.
    let before = orders.iter().rev().find(|(path, _)| path != field::NAME).map_or(Way::Ascending, |(_, way)| *way);
    orders.retain(|(path, way)| path != field::NAME || *way != before);
    fields.extend(orders);
    let collection = query.from.first().map(|from| from.collection_id.clone()).unwrap_or_default();
    (collection, fields)
}

/// Whether a declared index answers the query.
pub(super) fn check(query: &StructuredQuery) -> Result<(), String> {
    let (collection, fields) = needed(query);
    let (_, collection) = collection.rsplit_once('_').unwrap_or_default();
    let fields: Vec<(&str, Way)> = fields.iter().map(|(path, way)| (path.as_str(), *way)).collect();
    let there = match fields[..] {
        [] => true,
        [(path, way)] => {
            SINGLE.iter().any(|(of, field, ways)| of.name() == collection && *field == path && ways.contains(&way))
        }
        _ => COMPOSITE.iter().any(|(of, declared)| of.name() == collection && **declared == fields[..]),
    };
    if there { Ok(()) } else { Err(format!("no index of {collection} over {fields:?}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::new("projects/p/databases/(default)/documents", "rnostr")
    }

    #[test]
    fn a_query_without_an_index_is_found_out() {
        let n = names();
        let under = Under { numbers: &[1], since: Some(1), until: None, behind: None, limit: 1 };
        assert_eq!(check(&events_under(&n, under)), Ok(()));
        let ascending = Asked::of(&n, Collection::Events)
            .only(field::PREFIXES, Operator::ArrayContains, ValueType::IntegerValue(1))
            .by(field::CREATED_AT, Direction::Ascending);
        let by_name = Asked::of(&n, Collection::Events)
            .only(field::PREFIXES, Operator::ArrayContains, ValueType::IntegerValue(1))
            .by(field::CREATED_AT, Direction::Descending);
        let by_size =
            Asked::of(&n, Collection::Events).only("flags", Operator::GreaterThan, ValueType::IntegerValue(1));
        let unordered = Asked::of(&n, Collection::Vanished).only("until", Operator::Equal, ValueType::IntegerValue(1));
        let backwards = Asked::of(&n, Collection::Events).by(field::EXPIRES_AT, Direction::Descending);
        let two = Asked::of(&n, Collection::Groups)
            .only(field::MANAGED, Operator::Equal, ValueType::BooleanValue(true))
            .only(field::KEYS, Operator::ArrayContains, ValueType::IntegerValue(1));
        for asked in [ascending, by_name, by_size, unordered, backwards, two] {
            check(&asked.0).expect_err("there is no such index");
        }
    }

    #[test]
    fn fields_with_indexes_are_fields() {
        for (collection, path, _) in SINGLE {
            assert!(collection.fields().contains(&path), "{path}");
        }
        for (collection, fields) in COMPOSITE {
            assert!(fields.iter().all(|(path, _)| *path == field::NAME || collection.fields().contains(path)));
        }
    }
}
