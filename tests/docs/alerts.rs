//! Alerts, their tests, the dashboard and `docs/metrics.md` name the same alerts and metrics.

use std::collections::BTreeSet;

use crate::files::{read, root};

fn deployed(path: &str) -> String {
    read(&root().join("deploy").join(path))
}

/// The names behind this word at the beginning of a line.
fn named<'t>(text: &'t str, word: &str) -> Vec<&'t str> {
    text.lines()
        .filter_map(|line| line.trim_start().trim_start_matches("- ").strip_prefix(word))
        .map(str::trim)
        .collect()
}

/// The names in the first column of the document's tables.
fn rows(document: &str) -> BTreeSet<&str> {
    document.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`')).map(|(name, _)| name).collect()
}

/// The names of metrics in a text, without the suffixes of a histogram's series.
fn metrics(text: &str) -> BTreeSet<&str> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let words = text.split(|letter| !is_part(letter));
    let names = words.filter(|word| word.starts_with("mls_gateway_") || word.starts_with("process_"));
    let without = |name| ["_bucket", "_sum", "_count"].into_iter().find_map(|it| str::strip_suffix(name, it));
    names.map(|name| without(name).unwrap_or(name)).collect()
}

#[test]
fn every_alert_is_in_the_document_and_has_a_series_that_fires_and_one_that_does_not() {
    let (rules, tests) = (deployed("prometheus/alerts.yml"), deployed("prometheus/alerts_test.yml"));
    let document = read(&root().join("docs/metrics.md"));
    let (alerts, rows) = (named(&rules, "alert: "), rows(&document));
    assert!(alerts.len() >= 20, "{alerts:?}");
    let documented: BTreeSet<&str> = rows.iter().copied().filter(|name| name.starts_with(char::is_uppercase)).collect();
    assert_eq!(alerts.iter().copied().collect::<BTreeSet<_>>(), documented);
    let tried = named(&tests, "name: ");
    for alert in alerts {
        for outcome in ["fires", "does not fire"] {
            assert!(tried.contains(&format!("{alert} {outcome}").as_str()), "{alert} {outcome}");
        }
    }
}

#[test]
fn alerts_and_dashboard_ask_for_documented_metrics() {
    let document = read(&root().join("docs/metrics.md"));
    let rows = rows(&document);
    for file in ["prometheus/alerts.yml", "prometheus/alerts_test.yml", "grafana/dashboard.json"] {
        let text = deployed(file);
        let groups = named(&text, "name: ");
        let unknown: Vec<_> =
            metrics(&text).into_iter().filter(|name| !rows.contains(name) && !groups.contains(name)).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
}

/// Most metrics are on the dashboard, so that one that nobody looks at is noticed.
#[test]
fn every_metric_is_in_an_alert_or_on_the_dashboard() {
    let document = read(&root().join("docs/metrics.md"));
    let shown = [deployed("prometheus/alerts.yml"), deployed("grafana/dashboard.json")].concat();
    let (shown, rows) = (metrics(&shown), rows(&document));
    let missing: Vec<_> = rows.iter().filter(|name| name.contains('_') && !shown.contains(*name)).collect();
    // The store in use and plain virtual memory are labels for other queries.
    let expected = ["mls_gateway_backend_info", "process_threads", "process_virtual_memory_bytes"];
    assert_eq!(missing.into_iter().copied().collect::<Vec<_>>(), expected);
}

#[test]
fn every_alert_has_a_section_of_the_operations() {
    let (rules, page) = (deployed("prometheus/alerts.yml"), read(&root().join("docs/operations.md")));
    let alerts: BTreeSet<&str> = named(&rules, "alert: ").into_iter().collect();
    let (_, sections) = page.split_once("\n## Alerts\n").expect("the page has a section of alerts");
    let sections: BTreeSet<&str> = named(sections, "### ").into_iter().collect();
    assert_eq!(sections, alerts, "docs/operations.md has a section for each alert and for nothing else");
}
