//! Seeded chance: each part of a simulation draws from a source of its own, so that one part's draws move no other's.

/// The next number of a source. Steps of a Weyl sequence are mixed by two multiplications (SplitMix64).
pub const fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A source of chance.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// The source of this name in the simulation of this seed.
    pub fn new(seed: u64, name: &str) -> Self {
        let mut state = seed;
        let mut hash = next(&mut state);
        for byte in name.bytes() {
            let mut mixed = hash ^ u64::from(byte);
            hash = next(&mut mixed);
        }
        Self(hash)
    }

    /// A number below `bound`, and 0 where that is 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        let number = next(&mut self.0);
        if bound == 0 { 0 } else { number % bound }
    }

    /// A number of at least `from` and at most `to`.
    pub const fn between(&mut self, from: u64, to: u64) -> u64 {
        from + self.below(to - from + 1)
    }

    /// `true` in `percent` of a hundred cases.
    pub const fn is(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// An index below `len`.
    pub const fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// One of the values.
    pub fn of<'a, T>(&mut self, values: &'a [T]) -> &'a T {
        &values[self.index(values.len())]
    }
}
