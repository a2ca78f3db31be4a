//! One client's session: its connection, its keys, and the messages it sends.

pub(crate) mod archive;
mod at_program;
pub(crate) mod caller;
pub(crate) mod connection;
pub(crate) mod diagnosis;
pub(crate) mod handlers;
pub(crate) mod intake;
mod lifetime;
mod openings;
pub(crate) mod settling;
mod waiting;
mod wire;

use std::sync::Arc;

use nostr_extensions::{READER_KEYS_MAX, Reader};
use nostr_protocol::{Filter, PublicKey, Rejection};
use yawc::close::CloseCode;

use self::{at_program::AtProgram, handlers::neg::NegSessions, waiting::Waiting, wire::ConnectionEnd};
pub(crate) use self::{
    caller::{Caller, Client},
    wire::{Accepted, Silence},
};
use crate::{
    config::Limitation,
    delivery::{ConnectionId, outbox::Challenge},
};

/// The state of one connection.
pub(crate) struct Session {
    caller: Caller,
    challenge: Arc<Challenge>,
    id: ConnectionId,
    neg: NegSessions,
    waiting: Waiting,
    at_program: AtProgram,
}

impl Session {
    /// Adds a key that the client has proven.
    ///
    /// # Errors
    /// `restricted:` at the bound of [`READER_KEYS_MAX`].
    fn add_key(&mut self, key: PublicKey) -> Result<(), Rejection> {
        let reader = &self.caller.reader;
        if reader.has(&key) {
            return Ok(());
        }
        if reader.keys().len() >= READER_KEYS_MAX {
            return Err(Rejection::restricted(format!(
                "a connection authenticates at most {READER_KEYS_MAX} keys; open another one"
            )));
        }
        let mut keys = reader.keys().to_vec();
        keys.push(key);
        self.caller.set_reader(Reader::new(&keys));
        self.challenge.meet();
        self.caller.app.live.set_reader(self.id, &self.caller.reader);
        Ok(())
    }

    /// Looks at a change of the policy or the blocked addresses.
    ///
    /// # Errors
    /// The end of the connection, where a key of its reader or its address is banned.
    fn look_at_orders(&self) -> Result<(), ConnectionEnd> {
        let app = &self.caller.app;
        let policy = app.policy();
        if policy.is_banned_reader(&self.caller.reader) {
            return Err(ConnectionEnd::Close(CloseCode::Policy, "this key is banned from this relay"));
        }
        let keys = self.caller.reader.keys();
        if policy.auth_required && !keys.iter().all(|key| policy.is_resident(key)) {
            return Err(ConnectionEnd::Close(CloseCode::Policy, "this key is not on this relay's list any more"));
        }
        if app.management.blocks(self.caller.client.address) {
            return Err(ConnectionEnd::Close(CloseCode::Policy, "this address is blocked at this relay"));
        }
        if policy.has_admin_key(keys) {
            // The rosters of all groups go to a key that has become an admin key.
            app.live.set_reader(self.id, &self.caller.reader);
        }
        Ok(())
    }

    /// Whether a message of so many bytes, which a key alone would let pass, may wait for the client's AUTH.
    fn waits_for_key(&self, bytes: usize) -> bool {
        self.caller.reader.is_anonymous() && self.waiting.has_room(bytes)
    }

    /// Checks the rules for every request: the id's length, the lists' lengths, and the right to ask at all.
    fn check_request(&self, id: &str, filters: &[Filter]) -> Result<(), Rejection> {
        let limitation = &self.caller.app.config.limitation;
        if id.is_empty() || id.chars().count() > limitation.max_subid_length {
            return Err(Rejection::invalid(format!(
                "a subscription id has 1 to {} characters",
                limitation.max_subid_length
            )));
        }
        check_lists(limitation, filters)?;
        self.caller.app.gate.admit_request(&self.caller.reader, filters)
    }
}

/// Checks the lengths of the lists in filters.
fn check_lists(limitation: &Limitation, filters: &[Filter]) -> Result<(), Rejection> {
    let lengths = || filters.iter().map(Filter::list_lengths);
    for (length, max, values) in [
        (lengths().map(|lengths| lengths.ids).max(), limitation.max_ids, "ids"),
        (lengths().map(|lengths| lengths.authors).max(), limitation.max_authors, "authors"),
        (lengths().map(|lengths| lengths.other).max(), limitation.max_tag_values, "values of a tag, or kinds"),
    ] {
        if length.is_some_and(|length| length > max) {
            return Err(Rejection::invalid(format!("a filter has at most {max} {values}; send several filters")));
        }
    }
    Ok(())
}
