//! Nostr as bytes and values: events, filters, messages and authentication. No I/O, no clock, no async.
#![forbid(unsafe_code)]
#![deny(clippy::disallowed_methods)]

pub mod auth;
pub mod event;
pub mod filter;
pub mod hex;
pub mod http_auth;
pub mod invitation;
pub mod key;
pub mod kind;
mod matcher;
pub mod message;
pub mod mutation;
pub mod negentropy;
mod parse;
pub mod pow;
pub mod rejection;
pub mod sign;
pub mod tag;
#[cfg(feature = "testing")]
#[allow(clippy::disallowed_methods, reason = "tests draw keys by chance")]
pub mod testing;

pub use event::{Event, EventError, EventRef, Unverified, Verified};
pub use filter::Filter;
pub use key::{EventId, PublicKey};
pub use kind::{Kind, Lifetime};
pub use matcher::Matcher;
pub use rejection::{Rejection, Rule, Word};
pub use tag::{Tag, Tags};

/// Unix time in whole seconds.
pub type UnixSecs = u64;

/// Seconds of a day.
pub const DAY_SECS: u64 = 86_400;
