//! Pauses between tries at something that is away: growing, bounded, and spread, so that instances do not come back to it in
//! step.

use std::time::Duration;

use crate::random;

/// The first pause; it doubles with each further one.
const PAUSE_MS_MIN: u64 = 50;
/// The longest pause.
pub const PAUSE_MS_MAX: u64 = 2_000;

/// The pause after a try that failed, when as many as `failures` had failed before it.
#[must_use]
pub fn after(failures: u32) -> Duration {
    let longest = PAUSE_MS_MIN.saturating_mul(1 << failures.min(16)).min(PAUSE_MS_MAX);
    Duration::from_millis(longest / 2 + random::below(longest / 2 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_bounded() {
        for failures in [0, 1, 5, 60, u32::MAX] {
            let longest = 50_u64.saturating_mul(1 << failures.min(20)).min(2_000);
            for _ in 0..100 {
                let ms = after(failures).as_millis() as u64;
                assert!((longest / 2..=longest).contains(&ms), "{ms} ms after {failures}");
            }
        }
    }
}
