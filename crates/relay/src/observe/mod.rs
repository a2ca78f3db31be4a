//! What the relay says about itself.

pub mod info;
pub mod metrics;
pub mod telemetry;
