//! The relay as seen from outside: its documents for clients and people, its metrics, its logs.

pub(crate) mod home;
pub(crate) mod info;
pub mod metrics;
pub(crate) mod request_id;
pub(crate) mod request_log;
pub(crate) mod slow;
pub mod telemetry;
pub(crate) mod traces;
