//! The server: connections, subscriptions, and HTTP on the same port.

pub mod app;
pub mod archive;
pub mod clock;
pub mod config;
pub mod connection;
pub mod expiry;
pub mod follow;
pub mod groups;
pub mod handlers;
pub mod info;
pub mod live;
pub mod metrics;
pub mod outbox;
pub mod pause;
pub mod random;
pub mod rate_limit;
pub mod roads;
pub mod server;
pub mod start;
pub mod storage;
pub mod telemetry;
pub mod wake;
pub mod writer;

pub use start::{Relay, StartError, run};
