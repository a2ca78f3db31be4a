//! Every index that queries need, and a check that a query has one.
//!
//! The service refuses a query without an index, and its emulator does not. So [`check`] derives the index of a query
//! by the service's rules (<https://firebase.google.com/docs/firestore/query-data/index-overview>), and fails if it is
//! not declared. The files in `deploy/` are made of the same declarations ([`super::deploy`]).

use gcloud_sdk::google::firestore::v1::{
    StructuredQuery,
    structured_query::{Direction, Filter, field_filter::Operator, filter::FilterType},
};

use super::names::{Collection, field};

/// The order of a field in an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum IndexMode {
    Ascending,
    Descending,
    Contains,
}

/// Indexes over several fields.
pub(crate) const COMPOSITE: [(Collection, &[(&str, IndexMode)]); 2] = [
    (
        Collection::Events,
        &[
            (field::PREFIXES, IndexMode::Contains),
            (field::CREATED_AT, IndexMode::Descending),
            (field::NAME, IndexMode::Ascending),
        ],
    ),
    // Only events with the field have entries: those that are listed in the order of receipt.
    (Collection::Events, &[(field::PREFIXES, IndexMode::Contains), (field::AT, IndexMode::Ascending)]),
];

/// Indexes over one field. Every other field has none, because each index costs at every write.
pub(crate) const SINGLE: [(Collection, &str, &[IndexMode]); 9] = [
    (Collection::Events, field::EXPIRES_AT, &[IndexMode::Ascending]),
    (Collection::Events, field::RECEIVED_AT, &[IndexMode::Ascending]),
    (Collection::Once, field::EXPIRES_AT, &[IndexMode::Ascending]),
    (Collection::Log, field::AT, &[IndexMode::Ascending, IndexMode::Descending]),
    (Collection::Vanished, field::PENDING, &[IndexMode::Ascending]),
    (Collection::Groups, field::GROUP, &[IndexMode::Ascending]),
    (Collection::Groups, field::MANAGED, &[IndexMode::Ascending]),
    (Collection::Groups, field::KEYS, &[IndexMode::Contains]),
    (Collection::Members, field::KEYS, &[IndexMode::Contains]),
];

/// Fields by which the service removes expired documents.
pub(crate) const LIFETIMES: [(Collection, &str); 2] =
    [(Collection::Events, field::EXPIRES_AT), (Collection::Once, field::EXPIRES_AT)];

/// Collects the fields that a filter compares, with their operators.
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

/// The index that a query needs: its collection, and the fields in order.
fn needed(query: &StructuredQuery) -> (String, Vec<(String, IndexMode)>) {
    let mut filters = Vec::new();
    compared(query.r#where.as_ref(), &mut filters);
    let mut orders: Vec<(String, IndexMode)> = Vec::new();
    for order in &query.order_by {
        let path = order.field.as_ref().map(|field| field.field_path.clone()).unwrap_or_default();
        orders.push((
            path,
            if order.direction() == Direction::Descending { IndexMode::Descending } else { IndexMode::Ascending },
        ));
    }
    let mut fields: Vec<(String, IndexMode)> = Vec::new();
    for (path, op) in &filters {
        let needs = match op {
            // Every document is found by its name.
            Operator::Equal | Operator::In if path == field::NAME => continue,
            Operator::Equal | Operator::In => (path.clone(), IndexMode::Ascending),
            Operator::ArrayContains | Operator::ArrayContainsAny => (path.clone(), IndexMode::Contains),
            _ => {
                // The service orders by a field with an inequality first.
                if orders.iter().all(|(ordered, _)| ordered != path) {
                    orders.insert(0, (path.clone(), IndexMode::Ascending));
                }
                continue;
            }
        };
        fields.push(needs);
    }
    // Every index ends with the document's name, in the direction of the field before it.
    let before =
        orders.iter().rev().find(|(path, _)| path != field::NAME).map_or(IndexMode::Ascending, |(_, mode)| *mode);
    orders.retain(|(path, mode)| path != field::NAME || *mode != before);
    fields.extend(orders);
    let collection = query.from.first().map(|from| from.collection_id.clone()).unwrap_or_default();
    (collection, fields)
}

/// Whether a declared index answers the query.
pub(crate) fn check(query: &StructuredQuery) -> Result<(), String> {
    let (collection, fields) = needed(query);
    let (_, collection) = collection.rsplit_once('_').unwrap_or_default();
    let fields: Vec<(&str, IndexMode)> = fields.iter().map(|(path, mode)| (path.as_str(), *mode)).collect();
    let there = match fields[..] {
        [] => true,
        [(path, mode)] => {
            SINGLE.iter().any(|(of, field, modes)| of.name() == collection && *field == path && modes.contains(&mode))
        }
        _ => COMPOSITE.iter().any(|(of, declared)| of.name() == collection && **declared == fields[..]),
    };
    if there { Ok(()) } else { Err(format!("no index of {collection} over {fields:?}")) }
}

#[cfg(test)]
mod tests {
    use gcloud_sdk::google::firestore::v1::value::ValueType;

    use super::{
        super::{
            names::Names,
            query::{QueryBuilder, Under, events_under},
        },
        *,
    };

    fn names() -> Names {
        Names::new("projects/p/databases/(default)/documents", "rnostr")
    }

    #[test]
    fn a_query_without_an_index_is_found_out() {
        let n = names();
        let under = Under { numbers: &[1], since: Some(1), until: None, behind: None, limit: 1 };
        assert_eq!(check(&events_under(&n, under)), Ok(()));
        let ascending = QueryBuilder::of(&n, Collection::Events)
            .only(field::PREFIXES, Operator::ArrayContains, ValueType::IntegerValue(1))
            .by(field::CREATED_AT, Direction::Ascending);
        let by_name = QueryBuilder::of(&n, Collection::Events)
            .only(field::PREFIXES, Operator::ArrayContains, ValueType::IntegerValue(1))
            .by(field::CREATED_AT, Direction::Descending);
        let by_size =
            QueryBuilder::of(&n, Collection::Events).only("flags", Operator::GreaterThan, ValueType::IntegerValue(1));
        let unordered =
            QueryBuilder::of(&n, Collection::Vanished).only("until", Operator::Equal, ValueType::IntegerValue(1));
        let backwards = QueryBuilder::of(&n, Collection::Events).by(field::EXPIRES_AT, Direction::Descending);
        let two = QueryBuilder::of(&n, Collection::Groups)
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
