//! The party that reads or publishes: over a connection, whose session holds it, or by one HTTP request.

use std::{net::IpAddr, sync::Arc};

use nostr_extensions::Reader;
use nostr_protocol::{Event, auth::RelayNames};

use crate::{
    app::App,
    delivery::{groups::NamedGroups, writer::InFlight},
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

/// See the module.
pub(crate) struct Caller {
    pub(crate) app: Arc<App>,
    pub(crate) client: Client,
    /// The keys that were proven.
    pub(crate) reader: Reader,
    /// The share of the processor that the task runs on.
    pub(crate) share: Share,
    /// The groups that were named so far.
    pub(crate) named: NamedGroups,
    /// Its events under way, and the memory that it makes the relay hold.
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) limits: ConnectionLimits,
}

impl Caller {
    /// The party that pays for requests, apart from events: the first key that the operator named, else the address.
    pub(crate) fn payer(&self) -> Payer {
        match self.reader.keys().iter().find(|key| self.app.policy().is_named(key)) {
            Some(key) => Payer::Key(*key),
            None => Payer::Address(self.client.block()),
        }
    }

    /// The party that pays for an event that names no group of the reader: its author where the operator named that
    /// key and the reader has it, else [`Self::payer`].
    pub(crate) fn payer_of(&self, event: &Event) -> Payer {
        let author = event.pubkey();
        if self.reader.has(&author) && self.app.policy().is_named(&author) { Payer::Key(author) } else { self.payer() }
    }

    /// The number of [`Self::payer`] in fair turns.
    pub(crate) fn payer_hash(&self) -> u64 {
        self.app.limits.payer_hash(self.payer())
    }

    /// Takes another reader, who may pay from now on.
    pub(crate) fn set_reader(&mut self, reader: Reader) {
        self.reader = reader;
        let payer = self.payer_hash();
        self.share.change_payer(payer);
        self.in_flight.outbox().change_payer(payer);
    }

    /// Charges for a message of `bytes` that the relay cannot use.
    pub(crate) fn fault(&mut self, fault: Fault, bytes: usize) {
        let (app, payer) = (&self.app, self.payer());
        app.limits.fault(&mut self.limits, payer, (fault, bytes), app.clock.now_ms());
    }
}
