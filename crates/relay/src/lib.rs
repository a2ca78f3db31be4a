//! The server: connections, subscriptions, and HTTP on the same port.
#![deny(clippy::disallowed_methods)]

mod access;
pub mod app;
mod beside;
pub mod check;
#[allow(clippy::disallowed_methods, reason = "this module is the one reader of the environment")]
pub mod config;
mod console;
pub mod delivery;
mod directory;
mod error;
mod expiry;
mod inboxes;
pub mod manage;
mod memory;
pub mod observe;
mod outbound;
mod peers;
pub mod pid_file;
mod quotas;
mod rate_limit;
mod rest;
mod server;
mod session;
mod shares;
mod start;
pub mod storage;
pub mod system;
mod turns;
mod write_policy;

pub use error::StartError;
pub use expiry::sweep;
pub use start::{Relay, run};
