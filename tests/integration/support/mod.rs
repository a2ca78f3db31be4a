//! A relay in this process, and clients that reach it over the network as any other does.
//!
//! Nothing here sleeps to let something happen: [`TestRelay::caught_up`] compares cursors, and what does not come is
//! proven by an answer that would have come after it.

mod client;
mod event;
mod http;
mod relay;

pub use self::{
    client::{Client, Answer},
    event::{Draft, Event, Keys, now},
    http::{Response, http},
    relay::TestRelay,
};
