//! The relay's only sources of the time of day and of randomness, and pauses between tries.

pub(crate) mod backoff;
pub mod clock;
pub(crate) mod random;
pub(crate) mod time;
