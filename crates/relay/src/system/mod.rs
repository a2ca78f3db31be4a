//! Time, chance and pauses.

pub mod backoff;
pub mod clock;
pub mod random;
