//! The suites that start a relay of their own and talk to it over WebSocket and HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test fails by panicking")]

mod mls_protocol_compliance;
mod support;
