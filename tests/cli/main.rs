//! The commands as an operator runs them: their output, their exit codes and the files that they leave.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod backup;
mod check;
mod doctor;
mod health;
mod invite;
mod moving;
mod reload;
mod run;
mod server;
