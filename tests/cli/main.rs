//! The commands as an operator runs them: what they print, how they end, what they leave.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod moving;
mod run;
