//! One client's session: its connection, its keys, and the messages it sends.

pub(crate) mod archive;
pub(crate) mod connection;
pub(crate) mod handlers;
mod openings;
mod wire;

use std::{net::IpAddr, sync::Arc};

use nostr_extensions::{READER_KEYS_MAX, Reader};
use nostr_protocol::{Filter, PublicKey, Rejection, auth::RelayNames};

use self::handlers::neg::NegSessions;
use crate::{
    app::App,
    delivery::{ConnectionId, writer::InFlight},
    rate_limit::{AddressBlock, Charges, Class, Payer},
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

/// The state of one connection.
pub(crate) struct Session {
    app: Arc<App>,
    client: Client,
    challenge: String,
    reader: Reader,
    id: ConnectionId,
    in_flight: Arc<InFlight>,
    share: Share,
    neg: NegSessions,
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
        self.app.live.set_reader(self.id, self.reader.clone());
        self.share.change_payer(self.payer_hash());
        Ok(())
    }

    /// The party that pays for what this connection asks, apart from its events: the first of its keys that the operator
    /// named, else its address.
    pub(crate) fn payer(&self) -> Payer {
        match self.reader.keys().iter().find(|key| self.app.policy.is_named(key)) {
            Some(key) => Payer::Key(*key),
            None => Payer::Address(AddressBlock::of(self.client.address)),
        }
    }

    /// The number of [`Self::payer`] in fair turns.
    pub(crate) fn payer_hash(&self) -> u64 {
        self.app.limits.payer_hash(self.payer())
    }

    /// Charges the address for an event or a proof that came in, unless a resident sends it.
    ///
    /// # Errors
    /// `rate-limited:`
    fn pay_address(&self, class: Class) -> Result<Charges, Rejection> {
        let mut charges = self.app.delivery.charges();
        if !self.is_listed_resident() {
            charges.add(self.app.limits.address(self.client.address, class, self.app.clock.now_ms())?);
        }
        Ok(charges)
    }

    /// Fines the address for a message that was no event, or whose signature did not hold.
    fn penalise_address(&self) {
        self.app.limits.invalid(self.client.address, self.app.clock.now_ms());
    }

    /// Returns whether a key on the operator's list has authenticated: without a list, no reader counts as a resident
    /// here.
    fn is_listed_resident(&self) -> bool {
        self.reader.keys().iter().any(|key| self.app.policy.is_listed(key))
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
        if filters.iter().any(|filter| filter.longest_list() > limitation.max_tag_values) {
            return Err(Rejection::invalid(format!(
                "a list in a filter has at most {} values; send several filters",
                limitation.max_tag_values
            )));
        }
        self.app.gate.admit_request(&self.reader, filters)
    }
}
