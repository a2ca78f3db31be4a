//! One client's connection, and what it asks.

pub mod archive;
pub mod connection;
pub mod handlers;
