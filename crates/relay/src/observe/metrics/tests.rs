//! Names, labels and HELP of what is exposed.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    catalogue::{ALL, ERRORS, Labels, Metric, PROCESSED, REASONS, REFUSALS, Shape},
    *,
};

/// Everything that `/metrics` shows, with one refusal of a kind and one without.
fn shown() -> String {
    let metrics = Metrics::default();
    metrics.refused(Kind(444), "blocked");
    metrics.error("message");
    metrics.render(Format::Prometheus)
}

/// The row of `docs/metrics.md` for a metric.
fn row(metric: &Metric) -> String {
    let Metric { name, shape, unit, labels, help } = metric;
    let (shape, labels) = (
        type_of(metric, shape),
        match labels {
            Labels::None => String::new(),
            Labels::Kinds(further) => format!("`kind`: a number, {}", listed(further)),
            Labels::Words(label, values) => format!("`{label}`: {}", listed(values)),
        },
    );
    format!("| `{name}` | {shape} | {unit} | {labels} | {help} |")
}

fn type_of(metric: &Metric, shape: &Shape) -> &'static str {
    match shape {
        Shape::Gauge if metric.name.ends_with("_total") => "counter",
        Shape::Counter => "counter",
        Shape::Gauge => "gauge",
        Shape::Histogram(_) => "histogram",
    }
}

fn listed(values: &[&str]) -> String {
    values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ")
}

/// promtool refuses a metric without HELP, and a counter whose name does not end in `_total`.
#[test]
fn every_metric_has_its_help_and_its_type() {
    let text = shown();
    let named = |before: &str| {
        let lines = text.lines().filter_map(|line| line.strip_prefix(before)?.split_once(' '));
        lines.map(|(name, rest)| (name.to_owned(), rest.to_owned())).collect::<BTreeMap<_, _>>()
    };
    let (help, types) = (named("# HELP "), named("# TYPE "));
    assert_eq!(help, ALL.iter().map(|it| (it.name.to_owned(), it.help.to_owned())).collect());
    assert_eq!(types, ALL.iter().map(|it| (it.name.to_owned(), type_of(it, &it.shape).to_owned())).collect());
    assert_eq!(ALL.len(), types.len(), "no name stands twice");
    assert!(ALL.iter().all(|it| (type_of(it, &it.shape) == "counter") == it.name.ends_with("_total")));
}

/// The document's table, printed where it differs so that it can be copied.
#[test]
fn the_document_has_a_row_for_each_metric_and_no_other() {
    let document = include_str!("../../../../../docs/metrics.md");
    let wanted: Vec<String> = ALL.iter().map(row).collect();
    let rows = document.lines().filter(|line| line.starts_with("| `mls_gateway_") || line.starts_with("| `process_"));
    let rows: Vec<&str> = rows.collect();
    assert_eq!(rows, wanted, "docs/metrics.md is to have these rows:\n{}\n", wanted.join("\n"));
}

/// Each series that the catalogue promises is there from the start, so that a rate has a value from the second scrape.
#[test]
fn every_series_is_there_from_the_start_and_no_label_is_free() {
    let text = shown();
    let mut found: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let series = line.rsplit_once(' ').expect("a value").0;
        let (name, labels) =
            series.split_once('{').map_or((series, ""), |(name, rest)| (name, rest.trim_end_matches('}')));
        let metric = ALL.iter().find(|it| {
            let suffix = name.strip_prefix(it.name);
            suffix.is_some_and(|it| it.is_empty() || matches!(it, "_bucket" | "_sum" | "_count"))
        });
        let metric = metric.unwrap_or_else(|| panic!("{name} is in no list"));
        let labels =
            labels.split(',').filter(|label| !label.is_empty() && !label.starts_with("le=")).map(str::to_owned);
        found.entry(metric.name).or_default().extend(labels);
    }
    for Metric { name, labels, .. } in ALL {
        let of = |label: &str, values: Vec<String>| values.iter().map(|it| format!("{label}=\"{it}\"")).collect();
        let wanted: BTreeSet<String> = match labels {
            Labels::None => BTreeSet::new(),
            Labels::Words(label, values) => of(label, values.iter().map(|it| (*it).to_owned()).collect()),
            Labels::Kinds(further) => {
                let kinds = nostr_extensions::kinds::KINDS.iter().map(ToString::to_string);
                of("kind", kinds.chain(further.iter().map(|it| (*it).to_owned())).collect())
            }
        };
        assert_eq!(found.get(name), Some(&wanted), "{name}");
    }
}

/// The specification divides one counter by the other, so each series needs one with the same labels.
#[test]
fn errors_and_processed_events_carry_the_kind_alone() {
    let text = shown();
    let series = |name: &str| {
        let lines =
            text.lines().filter_map(|line| line.strip_prefix(name)?.strip_prefix("{kind=\"")?.split_once("\"} "));
        lines.map(|(kind, count)| (kind.to_owned(), count.to_owned())).collect::<BTreeMap<_, _>>()
    };
    let (processed, mut errors) = (series(PROCESSED.name), series(ERRORS.name));
    assert_eq!(errors.remove("none").as_deref(), Some("1"));
    assert_eq!(errors.get("444").map(String::as_str), Some("1"));
    assert_eq!(errors.get("other").map(String::as_str), Some("0"));
    assert_eq!(errors.into_keys().collect::<Vec<_>>(), processed.into_keys().collect::<Vec<_>>());
    for reason in ["blocked", "message"] {
        assert!(text.contains(&format!("{}{{reason=\"{reason}\"}} 1", REFUSALS.name)), "{text}");
    }
}

/// The specification's bounds of buckets, in its spelling.
#[test]
fn store_operations_are_a_histogram_with_the_specifications_bounds() {
    let metrics = Metrics::default();
    metrics.db_operation("save", Duration::from_millis(300));
    let text = metrics.render(Format::Prometheus);
    for (bound, count) in [("0.1", 0), ("0.5", 1), ("1.0", 1), ("+Inf", 1)] {
        let bucket =
            format!("mls_gateway_db_operation_duration_seconds_bucket{{operation=\"save\",le=\"{bound}\"}} {count}");
        assert!(text.contains(&bucket), "{text}");
    }
    assert!(text.contains("mls_gateway_db_operation_duration_seconds_sum{operation=\"save\"} 0.3\n"), "{text}");
}

/// A list that a word is missing from counts it under another one, and every word of a rejection is in the list.
#[test]
fn every_word_of_a_rejection_is_a_reason() {
    use Word::{AuthRequired, Blocked, Error, Invalid, RateLimited, Restricted, Unsupported};
    for word in [AuthRequired, Blocked, Error, Invalid, RateLimited, Restricted, Unsupported] {
        assert!(REASONS.contains(&word.as_str()), "{word:?}");
    }
}
