//! The relay's counters, under the specification's names (MLS Gateway specification, "Metrics (Prometheus Format)").
//!
//! `catalogue` lists the metrics, `recorder` keeps them, `families` holds those with labels, `exposition` writes them,
//! `gather` sets those that are read when somebody asks, and `sizes` asks the store for its sizes. `tally` holds totals
//! that the relay itself reads. Counting takes an atomic addition or two, or an entry of a list.

mod catalogue;
mod exposition;
mod families;
mod gather;
mod recorder;
pub(crate) mod sizes;
mod tally;
#[cfg(test)]
mod tests;

use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use metrics::{Counter, Gauge, Histogram};
use nostr_extensions::{
    Sealed,
    gate::Touches,
    kinds::{GroupChange, KindCounter, rules},
};
use nostr_protocol::{Kind, Rejection, Word};
use nostr_store::{Saved, StoreError};

pub use self::recorder::Recorder;
pub(crate) use self::{
    exposition::Format,
    families::Lookups,
    gather::Gauges,
    tally::{Refusals, Totals},
};
use self::{
    families::{ByKind, ByWord},
    tally::Tally,
};

/// Time between two times at which recorded durations are counted into their buckets, in milliseconds. A duration takes
/// eight bytes until then.
const SETTLE_MS: u64 = 1_000;

/// The counters, made once.
pub(crate) struct Metrics {
    recorder: Recorder,
    tally: Tally,
    pub(crate) gauges: Gauges,
    processed: ByKind,
    errors: ByKind,
    /// Errors at which no event is at hand.
    errors_without_kind: Counter,
    refusals: ByWord<Counter>,
    rate_limited: ByWord<Counter>,
    groups_updated: Counter,
    key_packages_stored: Counter,
    key_packages_claimed: Counter,
    membership_updates: Counter,
    requests: ByWord<Counter>,
    request_secs: ByWord<Histogram>,
    event_ok_secs: Histogram,
    delivery_secs: Histogram,
    db_secs: ByWord<Histogram>,
    batches: Histogram,
    expired: Counter,
    delivered: Counter,
    conditions: Counter,
    delivered_from_log: Counter,
    subscriptions_ended: ByWord<Counter>,
    connections: Gauge,
    clock_skew: Gauge,
    passes: ByWord<Counter>,
    fetched: Counter,
    skipped: Counter,
    peer_messages_dropped: ByWord<Counter>,
    access_questions: ByWord<Counter>,
    outbound_requests: ByWord<Counter>,
    unknown_addresses: ByWord<Counter>,
    signatures_checked: Counter,
    read_cost: Counter,
    frames_received: Counter,
    bytes_received: Counter,
    frames_sent: Counter,
    bytes_sent: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(Recorder::new())
    }
}

impl Metrics {
    /// The counters of `recorder`, each with the value that it has there.
    pub(crate) fn new(recorder: Recorder) -> Self {
        use catalogue as c;
        let (counter, gauge) = (|metric| recorder.counter(metric, &[]), |metric| recorder.gauge(metric, &[]));
        let (words, histogram) =
            (|metric| ByWord::counters(&recorder, metric), |metric| recorder.histogram(metric, &[]));
        Self {
            tally: Tally::default(),
            gauges: Gauges::new(&recorder),
            processed: ByKind::new(&recorder, &c::PROCESSED),
            errors: ByKind::new(&recorder, &c::ERRORS),
            errors_without_kind: recorder.counter(&c::ERRORS, &[("kind", "none")]),
            refusals: words(&c::REFUSALS),
            rate_limited: words(&c::RATE_LIMITED),
            groups_updated: counter(&c::GROUPS_UPDATED),
            key_packages_stored: counter(&c::KEY_PACKAGES_STORED),
            key_packages_claimed: counter(&c::KEY_PACKAGES_CLAIMED),
            membership_updates: counter(&c::MEMBERSHIP_UPDATES),
            requests: words(&c::REQUESTS),
            request_secs: ByWord::histograms(&recorder, &c::REQUEST_SECS),
            event_ok_secs: histogram(&c::EVENT_OK_SECS),
            delivery_secs: histogram(&c::DELIVERY_SECS),
            db_secs: ByWord::histograms(&recorder, &c::DB_SECONDS),
            batches: histogram(&c::BATCHES),
            expired: counter(&c::EXPIRED),
            delivered: counter(&c::DELIVERED),
            conditions: counter(&c::CONDITIONS),
            delivered_from_log: counter(&c::FROM_LOG),
            subscriptions_ended: words(&c::SUBSCRIPTIONS_ENDED),
            connections: gauge(&c::CONNECTIONS),
            clock_skew: gauge(&c::CLOCK_SKEW),
            passes: words(&c::PASSES),
            fetched: counter(&c::FETCHED),
            skipped: counter(&c::SKIPPED),
            peer_messages_dropped: words(&c::PEER_MESSAGES_DROPPED),
            access_questions: words(&c::ACCESS_QUESTIONS),
            outbound_requests: words(&c::OUTBOUND_REQUESTS),
            unknown_addresses: words(&c::UNKNOWN_ADDRESSES),
            signatures_checked: counter(&c::SIGNATURES),
            read_cost: counter(&c::READ_COST),
            frames_received: counter(&c::FRAMES_RECEIVED),
            bytes_received: counter(&c::BYTES_RECEIVED),
            frames_sent: counter(&c::FRAMES_SENT),
            bytes_sent: counter(&c::BYTES_SENT),
            recorder,
        }
    }

    /// The text that Prometheus reads.
    pub(crate) fn render(&self, format: Format) -> String {
        self.recorder.settle();
        format.of(&self.recorder.text())
    }

    /// The totals as of now.
    pub(crate) fn totals(&self) -> Totals {
        self.tally.totals()
    }

    /// Counts recorded durations into their buckets for ever, whether or not anybody reads them.
    pub(crate) async fn settle(&self) {
        loop {
            tokio::time::sleep(Duration::from_millis(SETTLE_MS)).await;
            self.recorder.settle();
        }
    }

    /// Sets the seconds by which the machine's clock is ahead of the store's.
    pub(crate) fn clock_skew(&self, secs: f64) {
        self.clock_skew.set(secs);
    }

    /// Counts a pass over the log that has ended.
    pub(crate) fn pass(&self, result: &'static str) {
        self.passes.count(result);
    }

    /// Counts a message between instances that was not believed, or not in all that it says.
    pub(crate) fn peer_message_dropped(&self, reason: &'static str) {
        self.peer_messages_dropped.count(reason);
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
        self.access_questions.count(outcome);
    }

    /// Counts a KeyPackage request for one other relay, by its outcome.
    pub(crate) fn outbound_request(&self, outcome: &'static str) {
        self.outbound_requests.count(outcome);
    }

    /// Counts an answer of the access service that changed a group's members.
    pub(crate) fn members_changed(&self) {
        self.membership_updates.increment(1);
    }

    /// Counts units of reading that a client paid for.
    pub(crate) fn read_cost(&self, units: u64) {
        self.read_cost.increment(units);
    }

    /// Counts an event by the store's answer.
    pub(crate) fn saved(&self, kind: Kind, saved: &Result<Saved, StoreError>) {
        match saved {
            Ok(saved) if saved.new_event().is_some() => {
                self.processed.count(kind);
                self.tally.events.fetch_add(1, Relaxed);
                for counter in rules(kind).counters {
                    match counter {
                        KindCounter::KeyPackagesStored => self.key_packages_stored.increment(1),
                        KindCounter::GroupsUpdated => self.groups_updated.increment(1),
                    }
                }
                if saved.new_event().is_some_and(changes_members) {
                    self.membership_updates.increment(1);
                }
            }
            Ok(Saved::Deleted) => self.refused(kind, "deleted"),
            Ok(Saved::Superseded | Saved::Refused(_)) => self.refused(kind, "refused"),
            // An event that is stored already.
            Ok(_) => {}
            Err(_) => self.refused(kind, "storage"),
        }
    }

    /// Records the time from the arrival of an event to its `OK`.
    pub(crate) fn event_answered(&self, took: Duration) {
        self.event_ok_secs.record(took.as_secs_f64());
        self.tally.ok.record(took);
    }

    /// Records the number of events of a batch.
    pub(crate) fn batch(&self, events: usize) {
        self.batches.record(events as f64);
    }

    /// Counts a refusal of an event of this kind.
    pub(crate) fn rejected(&self, kind: Kind, rejection: &Rejection) {
        if rejection.word != Word::Duplicate {
            self.refused(kind, rejection.word.as_str());
        }
        if rejection.word == Word::RateLimited {
            self.rate_limited("event");
        }
    }

    /// Counts the refusal of a request by this way of reading.
    pub(crate) fn request_refused(&self, door: &'static str, rejection: &Rejection) {
        self.error(rejection.word.as_str());
        if rejection.word == Word::RateLimited {
            self.rate_limited(door);
        }
    }

    /// Counts an event of this kind that was not taken, by the reason.
    pub(crate) fn refused(&self, kind: Kind, reason: &'static str) {
        self.errors.count(kind);
        self.refusals.count(reason);
        self.tally.refused(reason);
    }

    /// Counts an error at which no event is at hand, by the reason.
    pub(crate) fn error(&self, reason: &'static str) {
        self.errors_without_kind.increment(1);
        self.refusals.count(reason);
        self.tally.refused(reason);
    }

    /// Counts a refusal by a rate.
    pub(crate) fn rate_limited(&self, door: &'static str) {
        self.rate_limited.count(door);
    }

    /// Counts a connection whose client's address is not known, by the reason.
    pub(crate) fn unknown_client_address(&self, reason: &'static str) {
        self.unknown_addresses.count(reason);
    }

    /// Counts a signature that was checked.
    pub(crate) fn signature_checked(&self) {
        self.signatures_checked.increment(1);
    }

    /// Counts a request that was answered.
    pub(crate) fn request(&self, door: &'static str) {
        self.requests.count(door);
        self.tally.requests.fetch_add(1, Relaxed);
    }

    /// Records the time from a request to the end of its answer.
    pub(crate) fn request_took(&self, door: &'static str, took: Duration) {
        self.request_secs.record(door, took.as_secs_f64());
    }

    /// Records the duration of a call of the store.
    pub(crate) fn db_operation(&self, operation: &'static str, took: Duration) {
        self.db_secs.record(operation, took.as_secs_f64());
    }

    /// Counts KeyPackages that a claimant was given.
    pub(crate) fn claimed(&self, key_packages: usize) {
        self.key_packages_claimed.increment(key_packages as u64);
    }

    /// Counts events that the sweeper removed.
    pub(crate) fn expired(&self, events: usize) {
        self.expired.increment(events as u64);
    }

    /// Counts the live deliveries of one event.
    pub(crate) fn delivered(&self, times: usize) {
        self.delivered.increment(times as u64);
        self.tally.deliveries.fetch_add(times as u64, Relaxed);
    }

    /// Records that a write to a client has ended, whose oldest live event was committed at this time.
    pub(crate) fn delivered_since(&self, committed: Instant) {
        let took = committed.elapsed();
        self.delivery_secs.record(took.as_secs_f64());
        self.tally.delivery.record(took);
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
        self.subscriptions_ended.count(reason);
    }

    /// Counts a frame of a client.
    pub(crate) fn frame_received(&self, bytes: usize) {
        self.frames_received.increment(1);
        self.bytes_received.increment(bytes as u64);
    }

    /// Counts messages to a client.
    pub(crate) fn frames_sent(&self, frames: u64, bytes: u64) {
        self.frames_sent.increment(frames);
        self.bytes_sent.increment(bytes);
    }

    /// Counts one client more.
    pub(crate) fn connection_opened(&self) {
        self.connections.increment(1.0);
        self.tally.connections.fetch_add(1, Relaxed);
    }

    /// Counts one client less.
    pub(crate) fn connection_closed(&self) {
        self.connections.decrement(1.0);
        self.tally.connections.fetch_sub(1, Relaxed);
    }
}

/// Whether the event changed the members of a group.
fn changes_members(sealed: &Sealed) -> bool {
    rules(sealed.kind()).changes != GroupChange::Nothing && sealed.touches() != Touches::Nothing
}
