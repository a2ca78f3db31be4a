//! The engines: each starts, answers, ends, starts again, and leaves nothing behind.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs, reason = "a test fails by panicking")]

mod emulator;
mod endings;
mod postgres;
mod proxy;
mod redis;
mod support;
