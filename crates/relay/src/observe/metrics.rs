//! The relay's counters, under the specification's names (MLS Gateway specification, "Metrics (Prometheus Format)").
//!
//! Labels are kinds, operations and words: never a key, an id, a group or an address.

use std::{collections::HashMap, time::Duration};

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use nostr_extensions::kinds::{KINDS, KindCounter, rules};
use nostr_protocol::{Kind, Rejection, Word};
use nostr_store::{Saved, StoreError};

/// Upper bounds of the histogram of store operations, in seconds; the specification's 0.1 and 0.5 among them.
const DB_BUCKETS_SECS: [f64; 13] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

/// Name of the counter of stored events.
const PROCESSED: &str = "mls_gateway_events_processed_total";
/// Name of the counter of errors. It has the labels of [`PROCESSED`], so that the specification's quotient of both
/// returns data.
const ERRORS: &str = "mls_gateway_errors_total";
/// Name of the counter of the same errors by reason.
const REFUSALS: &str = "mls_gateway_refusals_total";

/// Every counter, with the text that `/metrics` shows above it.
const COUNTERS: &[(&str, &str)] = &[
    (PROCESSED, "Events stored or passed on, by kind."),
    ("mls_gateway_groups_updated_total", "Group messages and rosters."),
    ("mls_gateway_keypackages_stored_total", "KeyPackages stored."),
    ("mls_gateway_membership_updates_total", "Rosters stored."),
    (ERRORS, "Refusals and failures, by the kind of the event."),
    (REFUSALS, "Refusals and failures, by reason."),
    ("mls_gateway_requests_total", "Requests that were answered, by the way of reading."),
    ("mls_gateway_events_delivered_total", "Live deliveries of events."),
    ("mls_gateway_delivery_conditions_total", "Conditions of filters that live delivery looked at."),
    ("mls_gateway_delivery_log_events_total", "Events that live delivery read from the log because a queue was full."),
    ("mls_gateway_subscriptions_ended_total", "Subscriptions that live delivery ended, by reason."),
    ("mls_gateway_events_expired_total", "Events that the sweeper removed."),
    ("mls_gateway_signatures_checked_total", "Signatures that were checked."),
    ("mls_gateway_unknown_client_addresses_total", "Forwarded requests whose client's address is unknown, by reason."),
    ("mls_gateway_peer_messages_dropped_total", "Messages between instances that were not believed, by reason."),
    ("mls_gateway_follow_passes_total", "Passes over a shared store's log, by result."),
    ("mls_gateway_follow_fetched_events_total", "Events of the log that the instance fetched for its clients."),
    ("mls_gateway_follow_skipped_events_total", "Events of the log for which no client of the instance waited."),
    ("mls_gateway_access_questions_total", "Questions to the access service, by outcome."),
    ("mls_gateway_outbound_requests_total", "KeyPackage requests for other relays, by outcome."),
    ("mls_gateway_read_cost_total", "Units that clients' requests have cost."),
    ("mls_gateway_firestore_document_reads_total", "Documents that the instance has read of Firestore."),
];
/// Every gauge, with its text.
const GAUGES: &[(&str, &str)] = &[
    ("mls_gateway_connections", "Open connections."),
    ("mls_gateway_subscriptions", "Open subscriptions."),
    ("mls_gateway_log_cursor", "Place in the log up to which every event has been delivered live."),
    ("mls_gateway_ready", "1 while the relay is ready, else 0."),
    ("mls_gateway_follow_lag_seconds", "Time since the last pass over a shared store's log that reached its head."),
    ("mls_gateway_clock_skew_seconds", "Lead of the machine's clock over a shared store's."),
];
/// Every histogram, with its text.
const HISTOGRAMS: &[(&str, &str)] =
    &[("mls_gateway_db_operation_duration_seconds", "Duration of the store's operations.")];

/// One counter for each kind with rules of its own, and one for all other kinds.
struct ByKind {
    named: HashMap<Kind, Counter>,
    other: Counter,
}

impl ByKind {
    fn new(recorder: &PrometheusRecorder, name: &'static str) -> Self {
        let of = |kind: String| counter(recorder, name, vec![Label::new("kind", kind)]);
        Self { named: KINDS.iter().map(|kind| (*kind, of(kind.to_string()))).collect(), other: of("other".to_owned()) }
    }

    fn count(&self, kind: Kind) {
        self.named.get(&kind).unwrap_or(&self.other).increment(1);
    }
}

fn counter(recorder: &PrometheusRecorder, name: &'static str, labels: Vec<Label>) -> Counter {
    recorder.register_counter(&Key::from_parts(name, labels), &META)
}

fn describe(recorder: &PrometheusRecorder) {
    for (name, text) in COUNTERS {
        recorder.describe_counter(KeyName::from_const_str(name), None, (*text).into());
    }
    for (name, text) in GAUGES {
        recorder.describe_gauge(KeyName::from_const_str(name), None, (*text).into());
    }
    for (name, text) in HISTOGRAMS {
        recorder.describe_histogram(KeyName::from_const_str(name), None, (*text).into());
    }
}

/// The counters, made once.
pub(crate) struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    processed: ByKind,
    errors: ByKind,
    /// Errors at which no event is at hand.
    errors_without_kind: Counter,
    groups_updated: Counter,
    key_packages_stored: Counter,
    membership_updates: Counter,
    db_save: Histogram,
    db_scan: Histogram,
    db_sweep: Histogram,
    expired: Counter,
    delivered: Counter,
    conditions: Counter,
    delivered_from_log: Counter,
    connections: Gauge,
    subscriptions: Gauge,
    log_cursor: Gauge,
    ready: Gauge,
    follow_lag: Gauge,
    clock_skew: Gauge,
    fetched: Counter,
    skipped: Counter,
    signatures_checked: Counter,
    read_cost: Counter,
    documents_read: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        #[allow(clippy::expect_used, reason = "the buckets are a literal that is not empty")]
        let recorder =
            PrometheusBuilder::new().set_buckets(&DB_BUCKETS_SECS).expect("buckets are given").build_recorder();
        describe(&recorder);
        let counter = |name: &'static str, labels: Vec<Label>| counter(&recorder, name, labels);
        let duration = |operation: &'static str| {
            let key =
                Key::from_parts("mls_gateway_db_operation_duration_seconds", vec![Label::new("operation", operation)]);
            recorder.register_histogram(&key, &META)
        };
        let gauge = |name: &'static str| recorder.register_gauge(&Key::from_name(name), &META);
        Self {
            processed: ByKind::new(&recorder, PROCESSED),
            errors: ByKind::new(&recorder, ERRORS),
            errors_without_kind: counter(ERRORS, vec![Label::new("kind", "none")]),
            groups_updated: counter("mls_gateway_groups_updated_total", vec![]),
            key_packages_stored: counter("mls_gateway_keypackages_stored_total", vec![]),
            membership_updates: counter("mls_gateway_membership_updates_total", vec![]),
            db_save: duration("save"),
            db_scan: duration("scan"),
            db_sweep: duration("sweep"),
            expired: counter("mls_gateway_events_expired_total", vec![]),
            delivered: counter("mls_gateway_events_delivered_total", vec![]),
            conditions: counter("mls_gateway_delivery_conditions_total", vec![]),
            delivered_from_log: counter("mls_gateway_delivery_log_events_total", vec![]),
            connections: gauge("mls_gateway_connections"),
            subscriptions: gauge("mls_gateway_subscriptions"),
            log_cursor: gauge("mls_gateway_log_cursor"),
            ready: gauge("mls_gateway_ready"),
            follow_lag: gauge("mls_gateway_follow_lag_seconds"),
            clock_skew: gauge("mls_gateway_clock_skew_seconds"),
            fetched: counter("mls_gateway_follow_fetched_events_total", vec![]),
            skipped: counter("mls_gateway_follow_skipped_events_total", vec![]),
            signatures_checked: counter("mls_gateway_signatures_checked_total", vec![]),
            read_cost: counter("mls_gateway_read_cost_total", vec![]),
            documents_read: counter("mls_gateway_firestore_document_reads_total", vec![]),
            handle: recorder.handle(),
            recorder,
        }
    }
}

static META: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

impl Metrics {
    /// The text that Prometheus reads.
    pub(crate) fn render(&self, subscriptions: usize, cursor: u64) -> String {
        self.subscriptions.set(subscriptions as f64);
        self.log_cursor.set(cursor as f64);
        self.handle.run_upkeep();
        self.handle.render()
    }

    /// Sets whether the relay is ready, and the time since the last pass began that reached the head of the log.
    pub(crate) fn readiness(&self, ready: bool, lag: Option<Duration>) {
        self.ready.set(f64::from(u8::from(ready)));
        if let Some(lag) = lag {
            self.follow_lag.set(lag.as_secs_f64());
        }
    }

    /// Sets the seconds by which the machine's clock is ahead of the store's.
    pub(crate) fn clock_skew(&self, secs: f64) {
        self.clock_skew.set(secs);
    }

    /// Counts a pass over the log that has ended.
    pub(crate) fn pass(&self, result: &'static str) {
        counter(&self.recorder, "mls_gateway_follow_passes_total", vec![Label::new("result", result)]).increment(1);
    }

    /// Counts a message between instances that was not believed, or not in all that it says.
    pub(crate) fn peer_message_dropped(&self, reason: &'static str) {
        counter(&self.recorder, "mls_gateway_peer_messages_dropped_total", vec![Label::new("reason", reason)])
            .increment(1);
    }

    /// Counts events of the log that were fetched for live delivery.
    pub(crate) fn fetched(&self, events: usize) {
        self.fetched.increment(events as u64);
    }

    /// Counts events of the log that no subscription waited for.
    pub(crate) fn skipped(&self, events: usize) {
        self.skipped.increment(events as u64);
    }

    /// Counts a question to the access service, by its outcome.
    pub(crate) fn access_answer(&self, outcome: &'static str) {
        counter(&self.recorder, "mls_gateway_access_questions_total", vec![Label::new("outcome", outcome)])
            .increment(1);
    }

    /// Counts a KeyPackage request for one other relay, by its outcome.
    pub(crate) fn outbound_request(&self, outcome: &'static str) {
        counter(&self.recorder, "mls_gateway_outbound_requests_total", vec![Label::new("outcome", outcome)])
            .increment(1);
    }

    /// Counts units of reading that a client paid for.
    pub(crate) fn read_cost(&self, units: u64) {
        self.read_cost.increment(units);
    }

    /// Sets the documents that the store has read so far.
    pub(crate) fn documents_read(&self, documents: u64) {
        self.documents_read.absolute(documents);
    }

    /// Counts an event by the store's answer.
    pub(crate) fn saved(&self, kind: Kind, saved: &Result<Saved, StoreError>) {
        match saved {
            Ok(Saved::New(_) | Saved::Advised(..)) => {
                self.processed.count(kind);
                for counter in rules(kind).counters {
                    match counter {
                        KindCounter::KeyPackagesStored => self.key_packages_stored.increment(1),
                        KindCounter::GroupsUpdated => self.groups_updated.increment(1),
                        KindCounter::MembershipUpdates => self.membership_updates.increment(1),
                    }
                }
            }
            Ok(Saved::Duplicate | Saved::DeletedByRecipient) => {}
            Ok(Saved::Deleted) => self.refused(kind, "deleted"),
            Ok(Saved::Superseded | Saved::Refused(_)) => self.refused(kind, "refused"),
            Err(_) => self.refused(kind, "storage"),
        }
    }

    /// Counts a refusal of an event of this kind.
    pub(crate) fn rejected(&self, kind: Kind, rejection: &Rejection) {
        if rejection.word != Word::Duplicate {
            self.refused(kind, rejection.word.as_str());
        }
    }

    /// Counts an event of this kind that was not taken, by the reason.
    pub(crate) fn refused(&self, kind: Kind, reason: &'static str) {
        self.errors.count(kind);
        self.reason(reason);
    }

    /// Counts an error at which no event is at hand, by the reason.
    pub(crate) fn error(&self, reason: &'static str) {
        self.errors_without_kind.increment(1);
        self.reason(reason);
    }

    fn reason(&self, reason: &'static str) {
        counter(&self.recorder, REFUSALS, vec![Label::new("reason", reason)]).increment(1);
    }

    /// Counts a connection whose client's address is not known, by the reason.
    pub(crate) fn unknown_client_address(&self, reason: &'static str) {
        counter(&self.recorder, "mls_gateway_unknown_client_addresses_total", vec![Label::new("reason", reason)])
            .increment(1);
    }

    /// Counts a signature that was checked.
    pub(crate) fn signature_checked(&self) {
        self.signatures_checked.increment(1);
    }

    /// Counts a request that was answered.
    pub(crate) fn request(&self, door: &'static str) {
        counter(&self.recorder, "mls_gateway_requests_total", vec![Label::new("door", door)]).increment(1);
    }

    /// Records the duration of a call of the store.
    pub(crate) fn db_operation(&self, operation: &'static str, took: Duration) {
        let histogram = match operation {
            "save" => &self.db_save,
            "scan" => &self.db_scan,
            _ => &self.db_sweep,
        };
        histogram.record(took.as_secs_f64());
    }

    /// Counts events that the sweeper removed.
    pub(crate) fn expired(&self, events: usize) {
        self.expired.increment(events as u64);
    }

    /// Counts the live deliveries of one event.
    pub(crate) fn delivered(&self, times: usize) {
        self.delivered.increment(times as u64);
    }

    /// Counts the conditions of filters that live delivery looked at.
    pub(crate) fn conditions(&self, conditions: usize) {
        self.conditions.increment(conditions as u64);
    }

    /// Counts events that a shard of live delivery read from the log because its queue was full.
    pub(crate) fn delivered_from_log(&self, events: usize) {
        self.delivered_from_log.increment(events as u64);
    }

    /// Counts a subscription that the relay ended, by the reason.
    pub(crate) fn subscription_ended(&self, reason: &'static str) {
        counter(&self.recorder, "mls_gateway_subscriptions_ended_total", vec![Label::new("reason", reason)])
            .increment(1);
    }

    /// Counts one client more.
    pub(crate) fn connection_opened(&self) {
        self.connections.increment(1.0);
    }

    /// Counts one client less.
    pub(crate) fn connection_closed(&self) {
        self.connections.decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    /// Everything that `/metrics` shows once each metric has a value.
    fn shown() -> String {
        let metrics = Metrics::default();
        metrics.pass("completed");
        metrics.peer_message_dropped("old");
        metrics.refused(Kind(444), "blocked");
        metrics.error("message");
        metrics.unknown_client_address("untrusted_peer");
        metrics.request("req");
        metrics.access_answer("known");
        metrics.outbound_request("sent");
        metrics.subscription_ended("too_slow");
        for operation in ["save", "scan", "sweep"] {
            metrics.db_operation(operation, Duration::from_millis(1));
        }
        metrics.render(0, 0)
    }

    /// promtool refuses a metric without HELP, and a counter whose name does not end in `_total`.
    #[test]
    fn every_metric_has_its_help_and_stands_in_the_document() {
        let text = shown();
        let named = |before: &str| {
            let names = text.lines().filter_map(|line| line.strip_prefix(before)?.split(' ').next());
            names.map(str::to_owned).collect::<BTreeSet<_>>()
        };
        assert_eq!(named("# HELP "), named("# TYPE "));
        let known = COUNTERS.iter().chain(GAUGES).chain(HISTOGRAMS).map(|(name, _)| (*name).to_owned());
        assert_eq!(named("# TYPE "), known.collect());
        assert!(COUNTERS.iter().all(|(name, _)| name.ends_with("_total")));
        let document = include_str!("../../../../docs/metrics.md");
        for name in named("# TYPE ") {
            assert!(document.contains(&format!("`{name}`")), "docs/metrics.md has no {name}");
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
        let (processed, mut errors) = (series(PROCESSED), series(ERRORS));
        assert_eq!(errors.remove("none").as_deref(), Some("1"));
        assert_eq!(errors.get("444").map(String::as_str), Some("1"));
        assert_eq!(errors.get("other").map(String::as_str), Some("0"));
        assert_eq!(errors.into_keys().collect::<Vec<_>>(), processed.into_keys().collect::<Vec<_>>());
        for reason in ["blocked", "message"] {
            assert!(text.contains(&format!("{REFUSALS}{{reason=\"{reason}\"}} 1")), "{text}");
        }
        for name in [PROCESSED, ERRORS] {
            assert!(text.lines().filter(|line| line.starts_with(name)).all(|line| line.contains("{kind=")), "{text}");
        }
    }
}
