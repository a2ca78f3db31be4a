//! The time of day, which tests can set. Nothing else in this crate asks the system for it, except the timestamps of
//! log lines.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
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

/// The moment at which a store was asked for its time, by this machine's timer.
#[derive(Clone, Copy)]
pub(crate) struct Asked(Instant);

/// The time of day by the clock of a store that several machines share. An event's end is then the same moment on every
/// machine.
///
/// Between two readings of the store's clock the time goes on by the machine's timer, which nobody sets. The machine's
/// clock counts until the first reading, and where the store belongs to this process.
pub(crate) struct StoreClock {
    machine: Arc<dyn Clock>,
    /// A moment of the timer.
    base: Instant,
    /// The store's time at `base`, in milliseconds; [`UNREAD`] before the first reading.
    at_base_ms: AtomicI64,
}

/// Stands for the store's time before it was read.
const UNREAD: i64 = i64::MIN;

impl StoreClock {
    /// The machine's time, until the store's is read.
    pub(crate) fn new(machine: Arc<dyn Clock>) -> Self {
        Self { machine, base: Instant::now(), at_base_ms: AtomicI64::new(UNREAD) }
    }

    /// Notes the moment at which the store is asked for its time.
    pub(crate) fn ask(&self) -> Asked {
        Asked(Instant::now())
    }

    /// Takes in a reading of the store's clock, which was made between the question and now.
    ///
    /// So the store's time lies in a range as wide as the journey to the store. The known time changes only so far as
    /// it lies outside, so a slow journey moves the time little and a fast one sets it right.
    pub(crate) fn compare(&self, asked: Asked, store_ms: u64) {
        if !self.machine.runs() {
            return;
        }
        let since_base = |moment: Instant| milliseconds(moment.saturating_duration_since(self.base));
        let (now_ms, asked_ms, store_ms) = (since_base(Instant::now()), since_base(asked.0), store_ms.cast_signed());
        let known = match self.at_base_ms.load(Ordering::Relaxed) {
            UNREAD => self.machine.now_ms().cast_signed().saturating_sub(now_ms),
            known => known,
        };
        let at_base_ms = known.clamp(store_ms.saturating_sub(now_ms), store_ms.saturating_sub(asked_ms));
        self.at_base_ms.store(at_base_ms, Ordering::Relaxed);
    }

    /// The store's time, if it was read.
    fn store_ms(&self) -> Option<u64> {
        let at_base_ms = Some(self.at_base_ms.load(Ordering::Relaxed)).filter(|it| *it != UNREAD)?;
        Some(u64::try_from(at_base_ms.saturating_add(milliseconds(self.base.elapsed()))).unwrap_or(0))
    }

    /// Milliseconds by which the machine's clock is ahead of the store's; negative if it is behind, 0 before the
    /// store's was read.
    pub(crate) fn skew_ms(&self) -> i64 {
        let machine_ms = self.machine.now_ms().cast_signed();
        self.store_ms().map_or(0, |store_ms| machine_ms.saturating_sub(store_ms.cast_signed()))
    }
}

impl Clock for StoreClock {
    fn now_ms(&self) -> u64 {
        self.store_ms().unwrap_or_else(|| self.machine.now_ms())
    }
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A clock that stands still between settings and counts as one that runs.
    struct Running(SetClock);

    impl Clock for Running {
        fn now_ms(&self) -> u64 {
            self.0.now_ms()
        }
    }

    /// Milliseconds that the lines of a test may take.
    const EXACT_MS: u64 = 100;

    #[test]
    fn the_skew_changes_no_further_than_a_reading_proves() {
        let machine = Arc::new(Running(SetClock::at(1_000)));
        let clock = StoreClock::new(Arc::<Running>::clone(&machine));
        assert_eq!(clock.now_ms(), 1_000_000);
        // The timer reaches back to before the question.
        let clock = StoreClock { base: Instant::now() - Duration::from_secs(1), ..clock };
        // The store was asked 400 ms ago, and has answered now.
        let asked = || Asked(Instant::now() - Duration::from_millis(400));
        for (store_ms, skew_ms) in [
            (999_800, 0),
            (1_000_100, -100),
            (999_900, -100),
            (460_000, 539_600),
            (459_900, 539_700),
            (459_800, 539_800),
            (459_900, 539_800),
        ] {
            clock.compare(asked(), store_ms);
            assert!(clock.skew_ms().abs_diff(skew_ms) <= EXACT_MS, "{store_ms}: {}", clock.skew_ms());
        }
    }

    #[test]
    fn a_machine_whose_clock_is_set_keeps_the_time_of_its_store() {
        let machine = Arc::new(Running(SetClock::at(1_000)));
        let clock = StoreClock::new(Arc::<Running>::clone(&machine));
        machine.0.set(900);
        assert_eq!(clock.now(), 900, "no store was read yet");
        clock.compare(clock.ask(), 460_000);
        for set_to in [900, 1_100, 864_000, 0] {
            machine.0.set(set_to);
            assert!(clock.now_ms().abs_diff(460_000) <= EXACT_MS, "{}", clock.now_ms());
            let skew_ms = set_to.cast_signed() * 1_000 - 460_000;
            assert!(clock.skew_ms().abs_diff(skew_ms) <= EXACT_MS, "{}", clock.skew_ms());
        }
    }

    #[test]
    fn a_clock_that_is_set_by_hand_is_not_corrected() {
        let clock = StoreClock::new(Arc::new(SetClock::at(1_000)));
        clock.compare(clock.ask(), 5_000);
        assert_eq!((clock.skew_ms(), clock.now_ms()), (0, 1_000_000));
    }
}
