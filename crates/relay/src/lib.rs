//! The server: connections, subscriptions, and HTTP on the same port.

pub mod app;
pub mod config;
pub mod delivery;
pub mod expiry;
pub mod observe;
pub mod peers;
pub mod rate_limit;
pub mod server;
pub mod session;
pub mod start;
pub mod storage;
pub mod system;

pub use delivery::{follow, follower, groups, live, outbox, writer};
pub use observe::{info, metrics, telemetry};
pub use session::{archive, connection, handlers};
pub use start::{Relay, StartError, run};
pub use system::{backoff, clock, random};
