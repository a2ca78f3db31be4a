//! A client of a running relay: one connection, and the REST API beside it. `rnostr doctor` and the commands of people
//! share it, and it knows of the relay what every client is told.
//!
//! The relay may be anybody's: its messages are bounded, its events are verified, and its words are made harmless for a
//! terminal before anything else reads them.

mod control;
mod draft;
mod message;
mod options;
mod rest;
mod socket;
pub(in crate::cli) mod text;
mod tls;

use std::{fmt, future::Future};

pub(in crate::cli) use self::{
    control::Controls,
    draft::{Draft, sign},
    message::{Answer, Message},
    options::{Connection, public_key},
    rest::{Reply, Rest, next_cursor},
    socket::{ANSWER_SECS, Client},
};

/// The reason why a connection is of no further use.
#[derive(Debug)]
pub(in crate::cli) struct Trouble(pub(in crate::cli) String);

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Trouble> for String {
    fn from(trouble: Trouble) -> Self {
        trouble.0
    }
}

/// Whether a reason asks for AUTH (NIP-42).
pub(in crate::cli) fn asks_for_auth(reason: &str) -> bool {
    reason.starts_with("auth-required:")
}

/// The words behind a refusal that a key may help against; none where the command has one.
pub(in crate::cli) fn hint(reason: &str, has_key: bool) -> &'static str {
    if asks_for_auth(reason) && !has_key { "; name your key's file by --key-file, or set RNOSTR_KEY" } else { "" }
}

/// Runs a command's work to its end.
///
/// # Errors
/// The error of the work, or of a runtime that does not start.
pub(in crate::cli) fn run<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| format!("the runtime cannot start: {error}"))?.block_on(work)
}
