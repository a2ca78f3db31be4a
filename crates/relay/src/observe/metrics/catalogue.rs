//! Every metric that the relay exposes: its name, type, unit and labels, and the sentence of its HELP.
//!
//! Source: MLS Gateway specification, "Metrics (Prometheus Format)". Labels are kinds and words of the lists below:
//! never a key, an id, a group or an address. `docs/metrics.md` has a row for each metric, which a test compares.

/// The type of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Shape {
    Counter,
    Gauge,
    /// With the upper bounds of its buckets.
    Histogram(&'static [f64]),
}

/// The series of a metric.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Labels {
    /// One series.
    None,
    /// One series for each kind with rules of its own, and one for each of these words.
    Kinds(&'static [&'static str]),
    /// One series for each of these values of this label.
    Words(&'static str, &'static [&'static str]),
}

/// A metric.
#[derive(Clone, Copy, Debug)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) unit: &'static str,
    pub(super) labels: Labels,
    pub(super) help: &'static str,
}

impl Metric {
    const fn new(shape: Shape, name: &'static str, unit: &'static str, help: &'static str) -> Self {
        Self { name, shape, unit, labels: Labels::None, help }
    }

    const fn by(self, label: &'static str, values: &'static [&'static str]) -> Self {
        Self { labels: Labels::Words(label, values), ..self }
    }

    const fn by_kind(self, further: &'static [&'static str]) -> Self {
        Self { labels: Labels::Kinds(further), ..self }
    }
}

/// Declares the metrics, and the list of all of them.
macro_rules! metrics {
    ($(
        $constant:ident: $shape:expr, $name:literal, $unit:literal, $help:literal $(, .$by:ident($($how:expr),*))?;
    )+) => {
        $(
            #[doc = $help]
            pub(super) const $constant: Metric = Metric::new($shape, $name, $unit, $help)$(.$by($($how),*))?;
        )+

        /// Every metric.
        pub(super) const ALL: &[Metric] = &[$($constant),+];
    };
}

use Shape::{Counter, Gauge};

/// Upper bounds of store operations, in seconds; the specification's 0.1, 0.5 and 1.0 among them.
const DB_SECS: Shape =
    Shape::Histogram(&[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0]);
/// Upper bounds of the times that a client waits for, in seconds.
const WAIT_SECS: Shape =
    Shape::Histogram(&[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0]);
/// Upper bounds of the number of events in a batch.
const BATCH_EVENTS: Shape = Shape::Histogram(&[1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0]);

/// Ways to read and to write.
pub(super) const DOORS: &[&str] = &["event", "req", "count", "neg", "auth", "rest", "http", "connection", "other"];
/// Reasons of refusals: the words of NIP-01 and NIP-42, and the bounds that answer without one.
pub(super) const REASONS: &[&str] = &[
    "invalid",
    "unsupported",
    "pow",
    "blocked",
    "restricted",
    "auth-required",
    "rate-limited",
    "error",
    "deleted",
    "refused",
    "storage",
    "auth",
    "event",
    "message",
    "memory",
    "faults",
    "long_requests",
    "connections_max",
    "connections_per_address_max",
    "handshakes_per_minute_max",
    "http_requests",
    "other",
];
/// Caches of the relay.
pub(super) const CACHES: &[&str] = &["groups", "key_packages"];

metrics! {
    PROCESSED: Counter, "mls_gateway_events_processed_total", "events",
        "Events stored or passed on, by kind.", .by_kind(&["other"]);
    ERRORS: Counter, "mls_gateway_errors_total", "refusals",
        "Refusals and failures, by the kind of the event; none if no event is at hand.", .by_kind(&["other", "none"]);
    REFUSALS: Counter, "mls_gateway_refusals_total", "refusals",
        "The same refusals and failures, by reason.", .by("reason", REASONS);
    RATE_LIMITED: Counter, "mls_gateway_rate_limited_total", "refusals",
        "Refusals because a rate was used up, by the way in.", .by("door", DOORS);
    GROUPS_UPDATED: Counter, "mls_gateway_groups_updated_total", "events", "Group messages and rosters.";
    KEY_PACKAGES_STORED: Counter, "mls_gateway_keypackages_stored_total", "events", "KeyPackages stored.";
    KEY_PACKAGES_CLAIMED: Counter, "mls_gateway_keypackages_claimed_total", "KeyPackages",
        "KeyPackages given to claimants.";
    MEMBERSHIP_UPDATES: Counter, "mls_gateway_membership_updates_total", "changes",
        "Changes of groups' members: by rosters, by gift wraps, by the access service, and by keys that vanished.";
    REQUESTS: Counter, "mls_gateway_requests_total", "requests",
        "Requests that were answered, by the way of reading.", .by("door", &["req", "count", "neg", "rest"]);
    REQUEST_SECS: WAIT_SECS, "mls_gateway_request_duration_seconds", "seconds",
        "Time from a request to the end of its answer.", .by("door", &["req", "count", "neg"]);
    EVENT_OK_SECS: WAIT_SECS, "mls_gateway_event_ok_seconds", "seconds",
        "Time from the arrival of an event to its OK, for events that the store was asked about.";
    DELIVERY_SECS: WAIT_SECS, "mls_gateway_delivery_seconds", "seconds",
        "Time from a commit to the end of the write that carries its event, for the oldest event of each write.";
    DB_SECONDS: DB_SECS, "mls_gateway_db_operation_duration_seconds", "seconds",
        "Duration of the store's operations.", .by("operation", &["save", "scan", "sweep"]);
    BATCHES: BATCH_EVENTS, "mls_gateway_batch_events", "events", "Events in one batch of the writer.";
    DELIVERED: Counter, "mls_gateway_events_delivered_total", "deliveries", "Live deliveries of events.";
    CONDITIONS: Counter, "mls_gateway_delivery_conditions_total", "conditions",
        "Conditions of filters that live delivery looked at.";
    FROM_LOG: Counter, "mls_gateway_delivery_log_events_total", "events",
        "Events that live delivery read from the log because a queue was full.";
    SUBSCRIPTIONS_ENDED: Counter, "mls_gateway_subscriptions_ended_total", "subscriptions",
        "Subscriptions that live delivery ended, by reason; too_slow is an outbox that overflowed.",
        .by("reason", &["too_slow", "too_costly"]);
    EXPIRED: Counter, "mls_gateway_events_expired_total", "events", "Events that the sweeper removed.";
    SIGNATURES: Counter, "mls_gateway_signatures_checked_total", "signatures", "Signatures that were checked.";
    UNKNOWN_ADDRESSES: Counter, "mls_gateway_unknown_client_addresses_total", "requests",
        "Forwarded requests whose client's address is unknown, by reason.",
        .by("reason", &["untrusted_peer", "no_x_forwarded_for"]);
    PEER_MESSAGES_DROPPED: Counter, "mls_gateway_peer_messages_dropped_total", "messages",
        "Messages between instances that were not believed, by reason.",
        .by("reason", &["forged", "old", "repeated", "excess"]);
    PASSES: Counter, "mls_gateway_follow_passes_total", "passes",
        "Passes over a shared store's log, by result.", .by("result", &["completed", "failed"]);
    FETCHED: Counter, "mls_gateway_follow_fetched_events_total", "events",
        "Events of the log that the instance fetched for its clients.";
    SKIPPED: Counter, "mls_gateway_follow_skipped_events_total", "events",
        "Events of the log for which no client of the instance waited.";
    ACCESS_QUESTIONS: Counter, "mls_gateway_access_questions_total", "questions",
        "Questions to the access service, by outcome.", .by("outcome", &["known", "unknown", "failed"]);
    OUTBOUND_REQUESTS: Counter, "mls_gateway_outbound_requests_total", "requests",
        "KeyPackage requests for other relays, one for each relay, by outcome.",
        .by("outcome", &["sent", "refused", "unreachable", "dropped"]);
    READ_COST: Counter, "mls_gateway_read_cost_total", "units", "Units that clients' requests have cost.";
    DOCUMENTS_READ: Counter, "mls_gateway_firestore_document_reads_total", "documents",
        "Documents that the instance has read of Firestore.";
    FRAMES_RECEIVED: Counter, "mls_gateway_frames_received_total", "frames",
        "WebSocket messages and control frames received.";
    FRAMES_SENT: Counter, "mls_gateway_frames_sent_total", "frames", "WebSocket messages sent.";
    BYTES_RECEIVED: Counter, "mls_gateway_received_bytes_total", "bytes",
        "Bytes of the frames received, after decompression.";
    BYTES_SENT: Counter, "mls_gateway_sent_bytes_total", "bytes", "Bytes of the messages sent, before compression.";
    CACHE_HITS: Counter, "mls_gateway_cache_hits_total", "look-ups",
        "Look-ups that a cache answered.", .by("cache", CACHES);
    CACHE_MISSES: Counter, "mls_gateway_cache_misses_total", "look-ups",
        "Look-ups that a cache could not answer.", .by("cache", CACHES);
    CONNECTIONS: Gauge, "mls_gateway_connections", "connections", "Open WebSocket connections.";
    SUBSCRIPTIONS: Gauge, "mls_gateway_subscriptions", "subscriptions", "Open subscriptions.";
    LOG_CURSOR: Gauge, "mls_gateway_log_cursor", "cursor",
        "Place in the log up to which every event has been delivered live.";
    LOG_HEAD: Gauge, "mls_gateway_log_head", "cursor",
        "Place in the log of the last commit that the instance knows of.";
    READY: Gauge, "mls_gateway_ready", "0 or 1", "1 while the relay is ready, else 0.";
    FOLLOW_LAG: Gauge, "mls_gateway_follow_lag_seconds", "seconds",
        "Time since the last pass over a shared store's log that reached its head.";
    CLOCK_SKEW: Gauge, "mls_gateway_clock_skew_seconds", "seconds",
        "Lead of the machine's clock over a shared store's.";
    QUEUE_EVENTS: Gauge, "mls_gateway_queue_events", "events",
        "Events that wait: for the writer, for live delivery, and owners that wait for a request for KeyPackages.",
        .by("queue", &["writer", "delivery", "keypackage_requests"]);
    CLIENT_MEMORY: Gauge, "mls_gateway_client_memory_bytes", "bytes", "Memory that clients make the relay hold.";
    CLIENT_MEMORY_MAX: Gauge, "mls_gateway_client_memory_max_bytes", "bytes",
        "Memory above which the relay ends the connection that holds the most.";
    STORE_EVENTS: Gauge, "mls_gateway_store_events", "events", "Events in the store.";
    STORE_GROUPS: Gauge, "mls_gateway_store_groups", "groups", "Managed groups in the store.";
    KEY_PACKAGE_STOCK: Gauge, "mls_gateway_keypackage_stock", "KeyPackages",
        "KeyPackages in the directory; -1 if the store does not count them.";
    STORE_BYTES: Gauge, "mls_gateway_store_bytes", "bytes",
        "Bytes that the store uses; of the embedded store, of its map; 0 if it cannot tell.";
    STORE_BYTES_MAX: Gauge, "mls_gateway_store_max_bytes", "bytes",
        "Bytes that the store may use, the size of the embedded store's map; 0 if nothing bounds them.";
    TASKS: Gauge, "mls_gateway_tasks", "tasks", "Tasks of the runtime.";
    BUSY_TASKS: Gauge, "mls_gateway_tasks_queued", "tasks", "Tasks that wait in the runtime's shared queue.";
    BACKEND: Gauge, "mls_gateway_backend_info", "1", "1 for the store in use, else 0.",
        .by("backend", &["embedded", "postgres", "firestore"]);
    CPU: Gauge, "process_cpu_seconds_total", "seconds", "User and system processor time.";
    RESIDENT: Gauge, "process_resident_memory_bytes", "bytes", "Resident memory.";
    VIRTUAL: Gauge, "process_virtual_memory_bytes", "bytes", "Virtual memory, the embedded store's map included.";
    OPEN_FDS: Gauge, "process_open_fds", "descriptors", "Open file descriptors.";
    MAX_FDS: Gauge, "process_max_fds", "descriptors", "Most file descriptors that the system allows.";
    THREADS: Gauge, "process_threads", "threads", "Threads.";
    START_TIME: Gauge, "process_start_time_seconds", "seconds since 1970", "Time at which the process started.";
}
