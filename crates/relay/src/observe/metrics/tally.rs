//! Totals that the relay itself reads, for the console: the recorder's series can be written alone.
//!
//! Each total costs one addition beside the recorder's.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use super::catalogue::REASONS;

/// Buckets of durations: one for each microsecond below 8, then four for each doubling, up to 134 s.
const BUCKETS: usize = 104;
/// Microseconds below which each has a bucket of its own.
const EXACT_MICROS: u64 = 8;

/// See the module.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) events: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) deliveries: AtomicU64,
    pub(super) connections: AtomicU64,
    pub(super) refusals: [AtomicU64; REASONS.len()],
    pub(super) ok: Durations,
    pub(super) delivery: Durations,
}

/// The totals at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) events: u64,
    pub(crate) requests: u64,
    pub(crate) deliveries: u64,
    /// Open connections.
    pub(crate) connections: u64,
    pub(crate) refusals: Refusals,
    /// Times from the arrival of an event to its `OK`.
    pub(crate) ok: Spread,
    /// Times from a commit to the end of the write that carries its event.
    pub(crate) delivery: Spread,
}

impl Tally {
    /// Counts a refusal by its reason. One that the catalogue does not name counts under its last reason.
    pub(super) fn refused(&self, reason: &str) {
        let at = REASONS.iter().position(|known| *known == reason).unwrap_or(REASONS.len() - 1);
        self.refusals[at].fetch_add(1, Relaxed);
    }

    pub(super) fn totals(&self) -> Totals {
        Totals {
            events: self.events.load(Relaxed),
            requests: self.requests.load(Relaxed),
            deliveries: self.deliveries.load(Relaxed),
            connections: self.connections.load(Relaxed),
            refusals: Refusals(std::array::from_fn(|at| self.refusals[at].load(Relaxed))),
            ok: self.ok.spread(),
            delivery: self.delivery.spread(),
        }
    }
}

/// Refusals by reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Refusals([u64; REASONS.len()]);

impl Refusals {
    pub(crate) fn sum(&self) -> u64 {
        self.0.iter().sum()
    }

    /// The refusals since an earlier moment.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at].saturating_sub(earlier.0[at])))
    }

    /// The reasons with their numbers, the most frequent first, without those that did not occur.
    pub(crate) fn by_reason(&self) -> Vec<(&'static str, u64)> {
        let mut counted: Vec<_> = REASONS.iter().copied().zip(self.0).filter(|(_, count)| *count > 0).collect();
        counted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counted
    }
}

/// Durations that are being counted.
pub(super) struct Durations([AtomicU64; BUCKETS]);

impl Default for Durations {
    fn default() -> Self {
        Self([const { AtomicU64::new(0) }; BUCKETS])
    }
}

impl Durations {
    pub(super) fn record(&self, took: Duration) {
        self.0[bucket(u64::try_from(took.as_micros()).unwrap_or(u64::MAX))].fetch_add(1, Relaxed);
    }

    fn spread(&self) -> Spread {
        Spread(std::array::from_fn(|at| self.0[at].load(Relaxed)))
    }
}

/// Counts of durations by bucket.
#[derive(Clone, Debug)]
pub(crate) struct Spread([u64; BUCKETS]);

impl Default for Spread {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl Spread {
    /// The durations since an earlier moment.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at].saturating_sub(earlier.0[at])))
    }

    /// The milliseconds that so many percent of the durations do not exceed, to an eighth; `None` where there are none.
    pub(crate) fn percentile_ms(&self, percent: u64) -> Option<f64> {
        let all: u64 = self.0.iter().sum();
        let rank = (all * percent).div_ceil(100).max(1);
        let mut below = 0;
        let at = self.0.iter().position(|count| {
            below += count;
            below >= rank
        })?;
        Some(middle_micros(at) as f64 / 1_000.0)
    }
}

fn bucket(micros: u64) -> usize {
    if micros < EXACT_MICROS {
        return usize::try_from(micros).unwrap_or_default();
    }
    let doubling = micros.ilog2();
    let quarter = (micros >> (doubling - 2)) & 3;
    let at = EXACT_MICROS + u64::from(doubling - EXACT_MICROS.ilog2()) * 4 + quarter;
    usize::try_from(at).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The middle of a bucket.
fn middle_micros(bucket: usize) -> u64 {
    let at = bucket as u64;
    let Some(above) = at.checked_sub(EXACT_MICROS) else { return at };
    let doubling = above / 4 + u64::from(EXACT_MICROS.ilog2());
    let width = 1 << (doubling - 2);
    (4 + above % 4) * width + width / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_durations_near_its_middle() {
        let mut last = 0;
        for micros in (0..200).chain((8..26).flat_map(|n| [1 << n, (1 << n) + 7, (1 << (n + 1)) - 1])) {
            let at = bucket(micros);
            assert!(at >= last, "{micros}");
            last = at;
            assert!(middle_micros(at).abs_diff(micros) <= micros / 8, "{micros} {}", middle_micros(at));
        }
        assert_eq!((bucket(u64::MAX), bucket(1 << 40)), (BUCKETS - 1, BUCKETS - 1));
    }

    #[test]
    fn percentiles_are_those_of_the_interval() {
        let durations = Durations::default();
        for _ in 0..1_000 {
            durations.record(Duration::from_secs(1));
        }
        let before = durations.spread();
        assert_eq!(before.since(&before).percentile_ms(50), None);
        for ms in 1..=100 {
            durations.record(Duration::from_millis(ms));
        }
        let interval = durations.spread().since(&before);
        for (percent, expected) in [(50, 50.0), (99, 99.0), (100, 100.0)] {
            let found: f64 = interval.percentile_ms(percent).expect("a percentile");
            assert!((found - expected).abs() <= expected / 8.0, "{percent}: {found}");
        }
    }

    #[test]
    fn refusals_are_counted_by_reason() {
        let tally = Tally::default();
        for (reason, times) in [("rate-limited", 3), ("invalid", 5), ("no reason of the catalogue", 1)] {
            (0..times).for_each(|_| tally.refused(reason));
        }
        let refusals = tally.totals().refusals;
        assert_eq!(refusals.by_reason(), [("invalid", 5), ("rate-limited", 3), ("other", 1)]);
        assert_eq!((refusals.sum(), refusals.since(&refusals).by_reason()), (9, vec![]));
    }
}
