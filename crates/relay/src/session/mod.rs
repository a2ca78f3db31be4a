//! One client's session: its connection, its keys, and the messages it sends.

pub(crate) mod archive;
pub(crate) mod connection;
pub(crate) mod handlers;
pub(crate) mod intake;
mod openings;
mod settling;
mod waiting;
mod wire;

use std::{net::IpAddr, sync::Arc};

use nostr_extensions::{READER_KEYS_MAX, Reader};
use nostr_protocol::{Event, Filter, PublicKey, Rejection, auth::RelayNames};

pub(crate) use self::wire::{Accepted, Silence};
use self::{handlers::neg::NegSessions, waiting::Waiting};
use crate::{
    app::App,
    config::Limitation,
    delivery::{ConnectionId, groups::NamedGroups, outbox::Challenge, writer::InFlight},
    rate_limit::{AddressBlock, ConnectionLimits, Fault, Payer},
    shares::Share,
};

/// The relay's knowledge of a client before its first message.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    /// The client's address, as far as it can be trusted.
    pub(crate) address: IpAddr,
    /// The names by which the client may call this relay.
    pub(crate) names: Arc<RelayNames>,
}

impl Client {
    /// The block of addresses that pays for this client.
    pub(crate) fn block(&self) -> AddressBlock {
        AddressBlock::of(self.address)
    }
}

/// The state of one connection.
pub(crate) struct Session {
    app: Arc<App>,
    client: Client,
    challenge: Arc<Challenge>,
    reader: Reader,
    id: ConnectionId,
    in_flight: Arc<InFlight>,
    share: Share,
    named: NamedGroups,
    neg: NegSessions,
    limits: ConnectionLimits,
    waiting: Waiting,
}

impl Session {
    /// Adds a key that the client has proven.
    ///
    /// # Errors
    /// `restricted:` at the bound of [`READER_KEYS_MAX`].
    fn add_key(&mut self, key: PublicKey) -> Result<(), Rejection> {
        if self.reader.has(&key) {
            return Ok(());
        }
        if self.reader.keys().len() >= READER_KEYS_MAX {
            return Err(Rejection::restricted(format!(
                "a connection authenticates at most {READER_KEYS_MAX} keys; open another one"
            )));
        }
        let mut keys = self.reader.keys().to_vec();
        keys.push(key);
        self.reader = Reader::new(&keys);
        self.challenge.meet();
        self.app.live.set_reader(self.id, &self.reader);
        let payer = self.payer_hash();
        self.share.change_payer(payer);
        self.in_flight.outbox().change_payer(payer);
        Ok(())
    }

    /// The party that pays for what this connection asks, apart from its events: the first of its keys that the
    /// operator named, else its address.
    pub(crate) fn payer(&self) -> Payer {
        match self.reader.keys().iter().find(|key| self.app.policy.is_named(key)) {
            Some(key) => Payer::Key(*key),
            None => Payer::Address(self.client.block()),
        }
    }

    /// The party that pays for an event that names no group of the reader: its author where the operator named that
    /// key and the reader has it, else [`Self::payer`].
    pub(crate) fn payer_of(&self, event: &Event) -> Payer {
        let author = event.pubkey();
        if self.reader.has(&author) && self.app.policy.is_named(&author) { Payer::Key(author) } else { self.payer() }
    }

    /// The number of [`Self::payer`] in fair turns.
    pub(crate) fn payer_hash(&self) -> u64 {
        self.app.limits.payer_hash(self.payer())
    }

    /// Charges the connection for a message of `bytes` that the relay cannot use.
    fn fault(&mut self, fault: Fault, bytes: usize) {
        let (app, payer) = (&self.app, self.payer());
        app.limits.fault(&mut self.limits, payer, (fault, bytes), app.clock.now_ms());
    }

    /// Whether a message of so many bytes, which a key alone would let pass, may wait for the client's AUTH.
    fn waits_for_key(&self, bytes: usize) -> bool {
        self.reader.is_anonymous() && self.waiting.has_room(bytes)
    }

    /// Checks the rules for every request: the id's length, the lists' lengths, and the right to ask at all.
    fn check_request(&self, id: &str, filters: &[Filter]) -> Result<(), Rejection> {
        let limitation = &self.app.config.limitation;
        if id.is_empty() || id.chars().count() > limitation.max_subid_length {
            return Err(Rejection::invalid(format!(
                "a subscription id has 1 to {} characters",
                limitation.max_subid_length
            )));
        }
        check_lists(limitation, filters)?;
        self.app.gate.admit_request(&self.reader, filters)
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
