//! Rounds of the tests of faults: their number, the choices of each from a seed, and the times that they took.
//!
//! `RNOSTR_TEST_ROUNDS` is the number of rounds of each test, 1 by default. `RNOSTR_TEST_SEED` is the seed of a run
//! whose choices are to be made again; without it each run draws one and prints it.

use std::{
    ops::RangeInclusive,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

fn number(variable: &str) -> Option<u64> {
    let value = std::env::var(variable).ok().filter(|value| !value.is_empty())?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable}={value}: write a number")))
}

/// The rounds of one test. They are printed as they end, and the slowest at the end of all.
pub struct Rounds {
    test: &'static str,
    seed: u64,
    count: u64,
    begun: u64,
    slowest: Duration,
}

impl Rounds {
    /// The rounds of a test, as many as the environment says.
    pub fn of(test: &'static str) -> Self {
        let drawn = || {
            let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
            u64::from(since.subsec_nanos())
        };
        let seed = number("RNOSTR_TEST_SEED").unwrap_or_else(drawn);
        let count = number("RNOSTR_TEST_ROUNDS").unwrap_or(1);
        println!("{test}: {count} rounds, RNOSTR_TEST_SEED={seed}");
        Self { test, seed, count, begun: 0, slowest: Duration::ZERO }
    }

    /// The next round, if there is one.
    pub fn next(&mut self) -> Option<Round> {
        if self.begun == self.count {
            return None;
        }
        self.begun += 1;
        let number = self.begun - 1;
        // Rounds of one seed make choices that have nothing to do with each other.
        let state = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number.wrapping_mul(0xd134_2543_de82_ef95);
        Some(Round { number, turn: self.seed.wrapping_add(number), state })
    }

    /// Prints a round that ended well: its choices, and the time until all was as it should be.
    pub fn ended(&mut self, round: &Round, choices: &str, took: Duration) {
        println!("{}: round {}, {choices}: {} ms", self.test, round.number, took.as_millis());
        self.slowest = self.slowest.max(took);
    }
}

impl Drop for Rounds {
    fn drop(&mut self) {
        let Self { test, seed, begun, count, slowest } = self;
        if std::thread::panicking() {
            println!("{test}: failed in round {} with RNOSTR_TEST_SEED={seed}", begun.saturating_sub(1));
        } else {
            println!("{test}: {begun} of {count} rounds, the slowest took {} ms", slowest.as_millis());
        }
    }
}

/// One round, and its choices.
pub struct Round {
    /// Counts from 0.
    pub number: u64,
    turn: u64,
    state: u64,
}

impl Round {
    /// The choice of this round among `of`: rounds that follow each other take them in turn, so that a few rounds have
    /// all of them.
    pub fn turn<T: Copy>(&self, of: &[T]) -> T {
        of[(self.turn % of.len() as u64) as usize]
    }

    /// A number from this range.
    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        range.start() + self.next() % (range.end() - range.start() + 1)
    }

    /// A time of so many milliseconds.
    pub fn ms(&mut self, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
