//! Pauses between tries: growing, bounded, and random, so that processes do not come back to a service in step.

use std::time::Duration;

use crate::random;

/// Pauses that double with each failure, up to a bound.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    ms_first: u64,
    ms_max: u64,
    among_racers: bool,
}

impl Backoff {
    /// Pauses before a service that is away is tried again. The first lasts at most `ms_first` milliseconds, none lasts
    /// longer than `ms_max`, and each lasts at least half as long as it may.
    #[must_use]
    pub const fn new(ms_first: u64, ms_max: u64) -> Self {
        Self { ms_first, ms_max, among_racers: false }
    }

    /// Pauses before a write that others overtook is tried again. The bounds are those of [`Backoff::new`], but a pause
    /// may be as short as 1 ms, so that writers that met are spread as widely as possible.
    #[must_use]
    pub const fn among_racers(ms_first: u64, ms_max: u64) -> Self {
        Self { ms_first, ms_max, among_racers: true }
    }

    /// The pause after a try that failed, when `failures` tries had failed before it.
    #[must_use]
    pub fn pause(self, failures: u32) -> Duration {
        let longest = self.ms_first.saturating_mul(1 << failures.min(32)).min(self.ms_max);
        let shortest = if self.among_racers { 1 } else { longest / 2 };
        Duration::from_millis(shortest + random::up_to(longest.saturating_sub(shortest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_bounded() {
        for failures in [0, 1, 5, 60, u32::MAX] {
            let longest = 50_u64.saturating_mul(1 << failures.min(20)).min(2_000);
            for _ in 0..100 {
                let away = Backoff::new(50, 2_000).pause(failures).as_millis() as u64;
                assert!((longest / 2..=longest).contains(&away), "{away} ms after {failures}");
                let racer = Backoff::among_racers(50, 2_000).pause(failures).as_millis() as u64;
                assert!((1..=longest).contains(&racer), "{racer} ms after {failures}");
            }
        }
    }
}
