//! Counters and histograms with labels, whose series are made once: counting looks nothing up in the recorder and
//! allocates nothing.

use std::sync::atomic::{AtomicU64, Ordering};

use metrics::{Counter, Histogram};
use nostr_extensions::kinds::KINDS;
use nostr_protocol::Kind;

use super::{
    catalogue::{Labels, Metric},
    recorder::Recorder,
};

/// One counter for each kind with rules of its own, and one for all other kinds.
pub(super) struct ByKind {
    /// By number.
    named: Vec<(Kind, Counter)>,
    other: Counter,
}

impl ByKind {
    pub(super) fn new(recorder: &Recorder, metric: &Metric) -> Self {
        let of = |kind: String| recorder.counter(metric, &[("kind", &kind)]);
        let mut named: Vec<_> = KINDS.iter().map(|kind| (*kind, of(kind.to_string()))).collect();
        named.sort_unstable_by_key(|(kind, _)| kind.0);
        Self { named, other: of("other".to_owned()) }
    }

    pub(super) fn count(&self, kind: Kind) {
        let found = self.named.binary_search_by_key(&kind.0, |(kind, _)| kind.0);
        found.map_or(&self.other, |at| &self.named[at].1).increment(1);
    }
}

/// One series for each word of a label. The lists of words are short, so that a look through one costs little.
pub(super) struct ByWord<T>(Vec<(&'static str, T)>);

impl<T> ByWord<T> {
    pub(super) fn new(metric: &Metric, make: impl Fn(&[(&str, &str)]) -> T) -> Self {
        let Labels::Words(label, values) = metric.labels else { return Self(Vec::new()) };
        Self(values.iter().map(|value| (*value, make(&[(label, *value)]))).collect())
    }

    /// The series of a word. A word that the catalogue does not name counts under its last one.
    pub(super) fn of(&self, word: &str) -> Option<&T> {
        let named = self.0.iter().find(|(value, _)| *value == word);
        debug_assert!(named.is_some(), "the catalogue has no {word}");
        named.or(self.0.last()).map(|(_, series)| series)
    }
}

impl ByWord<Counter> {
    pub(super) fn counters(recorder: &Recorder, metric: &Metric) -> Self {
        Self::new(metric, |labels| recorder.counter(metric, labels))
    }

    pub(super) fn count(&self, word: &str) {
        if let Some(counter) = self.of(word) {
            counter.increment(1);
        }
    }

    /// Raises a series to a total that is counted elsewhere.
    pub(super) fn raise(&self, word: &str, total: u64) {
        if let Some(counter) = self.of(word) {
            counter.absolute(total);
        }
    }
}

impl ByWord<Histogram> {
    pub(super) fn histograms(recorder: &Recorder, metric: &Metric) -> Self {
        Self::new(metric, |labels| recorder.histogram(metric, labels))
    }

    pub(super) fn record(&self, word: &str, value: f64) {
        if let Some(histogram) = self.of(word) {
            histogram.record(value);
        }
    }
}

/// Look-ups of a cache, which the cache counts itself.
#[derive(Default)]
pub(crate) struct Lookups {
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Lookups {
    /// Counts a look-up by its answer, and returns the answer.
    pub(crate) fn counted<T>(&self, answer: Option<T>) -> Option<T> {
        let counter = if answer.is_some() { &self.hits } else { &self.misses };
        counter.fetch_add(1, Ordering::Relaxed);
        answer
    }

    /// Numbers of the look-ups that were answered, and of the others.
    pub(super) fn numbers(&self) -> (u64, u64) {
        (self.hits.load(Ordering::Relaxed), self.misses.load(Ordering::Relaxed))
    }
}
