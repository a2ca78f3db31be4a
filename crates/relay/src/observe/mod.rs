//! The relay as seen from outside: its documents for clients and people, its metrics, its logs.

pub(crate) mod info;
pub(crate) mod metrics;
pub mod telemetry;
