//! The time of day, which tests can set. Nothing else in this crate asks the system for it, except the timestamps of
//! log lines.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use nostr_protocol::UnixSecs;

/// A source of Unix time.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;

    /// Seconds since 1970.
    fn now(&self) -> UnixSecs {
        self.now_ms() / 1_000
    }

    /// Whether the clock runs by itself, so that its difference from another clock is worth measuring.
    fn runs(&self) -> bool {
        true
    }
}

/// The machine's clock.
#[derive(Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this module is the one source of the time of day")]
    fn now_ms(&self) -> u64 {
        // A clock before 1970 reads as 1970: every event is then too far ahead and is refused with that said.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
    }
}

/// A clock that stands still until it is set, for tests.
#[derive(Debug, Default)]
pub struct SetClock(AtomicU64);

impl SetClock {
    /// A clock that shows `secs`.
    #[must_use]
    pub fn at(secs: UnixSecs) -> Self {
        Self(AtomicU64::new(secs * 1_000))
    }

    /// Sets the clock to `secs`.
    pub fn set(&self, secs: UnixSecs) {
        self.0.store(secs * 1_000, Ordering::Relaxed);
    }
}

impl Clock for SetClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn runs(&self) -> bool {
        false
    }
}

/// Milliseconds by which the machine's clock and its timer differ over a journey if the clock was set meanwhile.
const SET_MS: u64 = 500;

/// The moment at which a store was asked for its time, by the machine's clock and by its timer.
#[derive(Clone, Copy)]
pub(crate) struct Asked {
    machine_ms: u64,
    at: Instant,
}

/// The time of day by the clock of a store that several machines share: this machine's clock less its skew, which is
/// its measured lead over the store's clock. An event's end is then the same moment on every machine.
pub(crate) struct StoreClock {
    machine: Arc<dyn Clock>,
    skew_ms: AtomicI64,
}

impl StoreClock {
    /// The machine's time, until a skew is measured.
    pub(crate) fn new(machine: Arc<dyn Clock>) -> Self {
        Self { machine, skew_ms: AtomicI64::new(0) }
    }

    /// Notes the time at which the store is asked for its time.
    pub(crate) fn ask(&self) -> Asked {
        Asked { machine_ms: self.machine.now_ms(), at: Instant::now() }
    }

    /// Takes in a reading of the store's clock, which was made between the question and now. Returns `false`, and takes
    /// in nothing, if the machine's clock was set meanwhile.
    ///
    /// The skew lies in a range as wide as the journey to the store. The known skew changes only so far as it lies
    /// outside, so a slow journey moves the time little and a fast one sets it right.
    pub(crate) fn compare(&self, asked: Asked, store_ms: u64) -> bool {
        if !self.machine.runs() {
            return true;
        }
        let (answered_ms, took) = (self.machine.now_ms(), asked.at.elapsed());
        let due_ms = asked.machine_ms.saturating_add(u64::try_from(took.as_millis()).unwrap_or(u64::MAX));
        if answered_ms.abs_diff(due_ms) > SET_MS || answered_ms < asked.machine_ms {
            return false;
        }
        let lead = |at_ms: u64| at_ms.cast_signed().saturating_sub(store_ms.cast_signed());
        let skew_ms = self.skew_ms().clamp(lead(asked.machine_ms), lead(answered_ms));
        self.skew_ms.store(skew_ms, Ordering::Relaxed);
        true
    }

    /// Milliseconds by which the machine's clock is ahead of the store's; negative if it is behind.
    pub(crate) fn skew_ms(&self) -> i64 {
        self.skew_ms.load(Ordering::Relaxed)
    }
}

impl Clock for StoreClock {
    fn now_ms(&self) -> u64 {
        self.machine.now_ms().saturating_add_signed(self.skew_ms().saturating_neg())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A clock that stands still between settings and counts as one that runs.
    struct Running(SetClock);

    impl Clock for Running {
        fn now_ms(&self) -> u64 {
            self.0.now_ms()
        }
    }

    #[test]
    fn the_skew_changes_no_further_than_a_reading_proves() {
        let machine = Arc::new(Running(SetClock::at(1_000)));
        let clock = StoreClock::new(Arc::<Running>::clone(&machine));
        assert_eq!(clock.now_ms(), 1_000_000);
        // The store was asked 400 ms ago, and has answered now.
        let asked = |machine_ms: u64| Asked { machine_ms, at: Instant::now() - Duration::from_millis(400) };
        for (store_ms, skew_ms) in [
            (999_800, 0),
            (1_000_100, -100),
            (999_900, -100),
            (460_000, 539_600),
            (459_900, 539_700),
            (459_800, 539_800),
            (459_900, 539_800),
        ] {
            assert!(clock.compare(asked(999_600), store_ms));
            assert_eq!((store_ms, clock.skew_ms()), (store_ms, skew_ms));
        }
        assert_eq!(clock.now_ms(), 460_200);
        for (set_to, why) in [(900, "back"), (1_100, "forward")] {
            machine.0.set(set_to);
            assert!(!clock.compare(asked(999_600), 460_000), "the machine's clock was set {why} meanwhile");
            assert_eq!(clock.skew_ms(), 539_800);
        }
    }

    #[test]
    fn a_clock_that_is_set_by_hand_is_not_corrected() {
        let clock = StoreClock::new(Arc::new(SetClock::at(1_000)));
        assert!(clock.compare(clock.ask(), 5_000));
        assert_eq!((clock.skew_ms(), clock.now_ms()), (0, 1_000_000));
    }
}
