//! The tests that the threats name are there.

use std::{collections::BTreeSet, path::Path};

use crate::files::{read, tracked};

/// Fewest tests that the page names, lest the search finds none and says nothing.
const NAMED_MIN: usize = 30;

/// The names in the last column of the page's tables.
fn named(page: &str) -> BTreeSet<&str> {
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| it tries to"));
    let last = rows.filter_map(|line| line.trim_end_matches(" |").rsplit(" | ").next());
    last.flat_map(|column| column.split('`').skip(1).step_by(2)).collect()
}

#[test]
fn every_test_that_a_threat_names_is_there() {
    let page = read(Path::new("docs/security.md"));
    let named = named(&page);
    assert!(named.len() >= NAMED_MIN, "{named:?}");
    let sources: Vec<String> = tracked(&["rs"]).iter().map(|path| read(path)).collect();
    let is_there = |name: &&&str| sources.iter().any(|text| text.contains(&format!("fn {name}(")));
    let missing: Vec<_> = named.iter().filter(|name| !is_there(name)).collect();
    assert!(missing.is_empty(), "docs/security.md names tests that are not there: {missing:?}");
}

#[test]
fn names_are_those_of_the_last_column() {
    let page = "| it tries to | a | b | tests |\n|---|---|\n| read `x` | no | - | `one_test`, `another` |\n\
                | y | z | - | - |\n";
    assert_eq!(named(page), BTreeSet::from(["one_test", "another"]));
}
