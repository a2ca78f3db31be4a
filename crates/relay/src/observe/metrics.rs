//! The relay's counters, under the specification's names (MLS Gateway specification, "Metrics (Prometheus Format)").
//!
//! Labels are kinds, operations and words: never a key, an id, a group or an address.

use std::{collections::HashMap, time::Duration};

use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use nostr_extensions::kinds::{KINDS, KindCounter, rules};
use nostr_protocol::{Kind, Rejection, Word};
use nostr_store::{Saved, StoreError};

/// Upper bounds of the histogram of store operations, in seconds; the specification's 0.1 and 0.5 among them.
const DB_BUCKETS_SECS: [f64; 13] =
    [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0];

/// The counters, made once.
pub(crate) struct Metrics {
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
    /// Counters by kind, for the kinds that are counted by number.
    processed: HashMap<Kind, Counter>,
    processed_other: Counter,
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
        let counter =
            |name: &'static str, labels: Vec<Label>| recorder.register_counter(&Key::from_parts(name, labels), &META);
        let processed = |kind: String| counter("mls_gateway_events_processed_total", vec![Label::new("kind", kind)]);
        let duration = |operation: &'static str| {
            let key =
                Key::from_parts("mls_gateway_db_operation_duration_seconds", vec![Label::new("operation", operation)]);
            recorder.register_histogram(&key, &META)
        };
        let gauge = |name: &'static str| recorder.register_gauge(&Key::from_name(name), &META);
        Self {
            processed: KINDS
                .iter()
                .filter(|kind| rules(**kind).counted_by_number)
                .map(|kind| (*kind, processed(kind.to_string())))
                .collect(),
            processed_other: processed("other".to_owned()),
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
        let key = Key::from_parts("mls_gateway_follow_passes_total", vec![Label::new("result", result)]);
        self.recorder.register_counter(&key, &META).increment(1);
    }

    /// Counts a message between instances that was not believed, or not in all that it says.
    pub(crate) fn peer_message_dropped(&self, reason: &'static str) {
        let key = Key::from_parts("mls_gateway_peer_messages_dropped_total", vec![Label::new("reason", reason)]);
        self.recorder.register_counter(&key, &META).increment(1);
    }

    /// Counts events of the log that were fetched for live delivery.
    pub(crate) fn fetched(&self, events: usize) {
        self.fetched.increment(events as u64);
    }

    /// Counts events of the log that no subscription waited for.
    pub(crate) fn skipped(&self, events: usize) {
        self.skipped.increment(events as u64);
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
            Ok(Saved::New(_)) => {
                self.processed.get(&kind).unwrap_or(&self.processed_other).increment(1);
                for counter in rules(kind).counters {
                    match counter {
                        KindCounter::KeyPackagesStored => self.key_packages_stored.increment(1),
                        KindCounter::GroupsUpdated => self.groups_updated.increment(1),
                        KindCounter::MembershipUpdates => self.membership_updates.increment(1),
                    }
                }
            }
            Ok(Saved::Duplicate | Saved::DeletedByRecipient) => {}
            Ok(Saved::Deleted) => self.error("deleted"),
            Ok(Saved::Superseded | Saved::Refused(_)) => self.error("refused"),
            Err(_) => self.error("storage"),
        }
    }

    /// Counts a refusal.
    pub(crate) fn rejected(&self, rejection: &Rejection) {
        if rejection.word != Word::Duplicate {
            self.error(rejection.word.as_str());
        }
    }

    /// Counts an error under its name.
    pub(crate) fn error(&self, reason: &'static str) {
        let key = Key::from_parts("mls_gateway_errors_total", vec![Label::new("reason", reason)]);
        self.recorder.register_counter(&key, &META).increment(1);
    }

    /// Counts a connection whose client's address is not known, by the reason.
    pub(crate) fn unknown_client_address(&self, reason: &'static str) {
        let key = Key::from_parts("mls_gateway_unknown_client_addresses_total", vec![Label::new("reason", reason)]);
        self.recorder.register_counter(&key, &META).increment(1);
    }

    /// Counts a signature that was checked.
    pub(crate) fn signature_checked(&self) {
        self.signatures_checked.increment(1);
    }

    /// Counts a request that was answered.
    pub(crate) fn request(&self, door: &'static str) {
        let key = Key::from_parts("mls_gateway_requests_total", vec![Label::new("door", door)]);
        self.recorder.register_counter(&key, &META).increment(1);
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
        let key = Key::from_parts("mls_gateway_subscriptions_ended_total", vec![Label::new("reason", reason)]);
        self.recorder.register_counter(&key, &META).increment(1);
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
