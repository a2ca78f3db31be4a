//! The end of a connection that has lasted for as long as the operator lets it.
//!
//! A front end such as Cloud Run's cuts off a WebSocket at its time-out, maybe while an event waits for its `OK`, and
//! all those of one start at the same time. The relay ends each connection itself before, when its answers are sent,
//! and spreads the ends so that the clients come back one after the other.

use std::time::Duration;

use tokio::time::Instant;

use crate::system::random;

/// Longest time over which the ends of connections of one age are spread, in seconds.
const SPREAD_SECS_MAX: u64 = 300;
/// Longest time that is left at the end for answers that are under way, in seconds.
const LAST_ANSWERS_SECS_MAX: u64 = 10;

/// The moment at which a connection that begins `now` is ended; `None` if `lifetime_secs` is 0.
pub(super) fn end(lifetime_secs: u64, now: Instant) -> Option<Instant> {
    let lifetime_ms = 1_000 * lifetime_secs;
    let last_ms = lifetime_ms - (1_000 * LAST_ANSWERS_SECS_MAX).min(lifetime_ms / 10);
    let spread_ms = (1_000 * SPREAD_SECS_MAX).min(lifetime_ms / 2);
    (lifetime_ms > 0).then(|| now + Duration::from_millis(last_ms - random::below(spread_ms)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_spread_over_the_minutes_before_the_time_out() {
        let now = Instant::now();
        let draws: Vec<u64> = (0..2_000).map(|_| (end(3_600, now).expect("an end") - now).as_millis() as u64).collect();
        let (first, last) = (draws.iter().min().expect("draws"), draws.iter().max().expect("draws"));
        assert!((3_290_000..3_310_000).contains(first), "{first}");
        assert!((3_570_000..=3_590_000).contains(last), "{last}");
        let early = draws.iter().filter(|&&ms| ms < 3_440_000).count();
        assert!((800..1_200).contains(&early), "{early} of 2,000 in the first half");
    }

    #[test]
    fn a_short_life_is_spread_over_its_half_and_none_has_no_end() {
        let now = Instant::now();
        for _ in 0..100 {
            let life = end(2, now).expect("an end") - now;
            assert!((Duration::from_millis(800)..=Duration::from_millis(1_800)).contains(&life), "{life:?}");
        }
        assert_eq!(end(0, now), None);
    }
}
