//! The suites that start a relay of their own and talk to it over WebSocket and HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test fails by panicking")]
#![allow(unreachable_pub, reason = "shared helpers are public to the suites")]

mod abuse;
mod access;
mod console;
mod durability;
mod every_path_agrees;
mod hidden;
mod instances;
mod manage;
mod metrics;
mod mls_protocol_compliance;
mod noise_client;
mod openmls_client;
mod processes;
mod rest;
mod support;
mod table;
