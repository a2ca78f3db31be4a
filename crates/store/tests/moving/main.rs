//! Moves between stores: nothing is lost, and nothing comes back that was gone.
#![allow(clippy::expect_used, reason = "a test")]

mod delete;
mod files;
mod foreign;
mod keyed;
mod merge;
mod random;
mod stores;
mod whole;
