//! The relay's only sources of time and of chance, and pauses between tries.

pub(crate) mod backoff;
pub mod clock;
pub(crate) mod random;
