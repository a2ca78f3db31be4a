//! A relay in this process, and clients that reach it over the network as any other does.
//!
//! Nothing here sleeps to let something happen: [`TestRelay::caught_up`] compares cursors, and what does not come is
//! proven by an answer that would have come after it.
#![allow(dead_code, reason = "not every suite uses every part")]

pub mod backend;
mod client;
mod event;
pub mod gateway;
mod http;
pub mod process;
mod relay;
pub mod shared;
pub mod wire;

#[allow(unused_imports, reason = "not every suite uses every part")]
pub use self::{
    client::{Answer, Client, empty_set},
    event::{Draft, Event, Keys, now},
    http::{Response, http, parse},
    relay::TestRelay,
};
