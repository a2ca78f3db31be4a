//! The gateway's rules, each test named for the promise that it holds the code to.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

mod admit_table;
mod common;
mod deletion;
mod gate_table;
mod gift_wrap;
mod key_package;
mod kinds_table;
mod mls;
mod mutations;
mod order;
mod requests;
mod roster;
mod shapes;
mod strangers;
mod vectors;
