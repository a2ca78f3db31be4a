//! A relay in this process, and clients that reach it over the network.
//!
//! Nothing here sleeps to let something happen: [`TestRelay::caught_up`] compares cursors. To show that a frame does
//! not come, a test waits for an answer that the relay would have sent after it.
#![allow(dead_code, reason = "not every suite uses every part")]

pub mod backend;
mod client;
pub mod event;
pub mod gateway;
pub mod http;
pub mod observed;
pub mod process;
mod relay;
pub mod rest;
pub mod restorable;
pub mod rounds;
pub mod shared;
pub mod stranger;
pub mod wire;

#[allow(unused_imports, reason = "not every suite uses every part")]
pub use self::{
    client::{Answer, Client, empty_set},
    event::{Draft, Event, Keys, now},
    http::{Response, exchange_plainly, http, http_bytes, parse},
    relay::{TestRelay, WAIT},
};
