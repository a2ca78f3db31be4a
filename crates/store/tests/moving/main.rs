//! What is in one store goes to another and back, with nothing lost and nothing that was gone.
#![allow(clippy::expect_used, reason = "a test")]

mod files;
mod merge;
mod random;
mod stores;
mod whole;
