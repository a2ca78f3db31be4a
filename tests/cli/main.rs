//! The commands as an operator runs them: their output, their exit codes and the files that they leave.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod backup;
mod check;
mod delete;
mod doctor;
mod fake;
mod floods;
mod group;
mod health;
mod invite;
mod key_packages;
mod moving;
mod person;
mod publish;
mod reload;
mod req;
mod roster;
mod run;
mod server;
mod sqlite;
mod sync;
mod sync_secrets;
