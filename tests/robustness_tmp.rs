//! Temporary.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, unreachable_pub, reason = "a test fails by panicking")]
#[path = "integration/abuse/mod.rs"]
mod abuse;
#[path = "integration/durability/mod.rs"]
mod durability;
#[path = "integration/support/mod.rs"]
mod support;
