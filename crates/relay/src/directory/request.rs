//! Requests for KeyPackages (447) that the relay signs itself, when an owner's stock is low.
//!
//! Source: docs/rules.md, "Stock". Claims and sweeps note owners; one task asks the store for each whether it may be
//! asked now, over all instances, and publishes the request by the same admission and writer as any event.

use std::sync::Arc;

use nostr_extensions::{
    Publisher, Reader, admit,
    mls_gateway::{key_package::suite_name, key_package_request::TTL_SECS_MAX},
};
use nostr_protocol::{
    Kind, PublicKey,
    auth::RelayNames,
    sign::{SecretKey, Unsigned},
};
use nostr_store::StockRequest;
use tokio::sync::mpsc;

use crate::{
    app::App,
    delivery::{
        Outbox,
        outbox::Challenge,
        writer::{Handed, InFlight, Outcome},
    },
    outbound::{Outbound, Parcel},
    rate_limit::Payer,
};

/// Most owners that wait to be asked. A further one is asked after the next claim or expiry.
const WAITING_MAX: usize = 1_024;

/// An owner whose stock is low.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LowStock {
    pub(crate) owner: PublicKey,
    /// The ciphersuite of the KeyPackage that is gone, where it is known.
    pub(crate) suite: Option<u16>,
    /// The hash of a KeyPackage that expired.
    pub(crate) expired: Option<[u8; 32]>,
}

/// The owners that wait to be asked.
pub(crate) struct LowStocks {
    /// `None` where the relay has no system key.
    waiting: Option<mpsc::Sender<LowStock>>,
}

/// The other end of [`LowStocks`], with the key that signs.
pub(crate) struct Requests {
    waiting: mpsc::Receiver<LowStock>,
    key: SecretKey,
    /// `None` where requests are not sent on.
    outbound: Option<Outbound>,
}

impl LowStocks {
    /// Both ends; the second one if there is a system key.
    pub(crate) fn new(key: Option<SecretKey>) -> (Self, Option<Requests>) {
        let Some(key) = key else { return (Self { waiting: None }, None) };
        let (sender, waiting) = mpsc::channel(WAITING_MAX);
        (Self { waiting: Some(sender) }, Some(Requests { waiting, key, outbound: None }))
    }

    /// Number of owners that wait to be asked.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.as_ref().map_or(0, |waiting| waiting.max_capacity() - waiting.capacity())
    }

    /// Notes an owner. Does not wait.
    pub(crate) fn note(&self, low: LowStock) {
        if let Some(waiting) = &self.waiting {
            // An owner that finds no room is asked after its next claim.
            let _ = waiting.try_send(low);
        }
    }
}

impl Requests {
    /// Asks owners until the relay stops.
    pub(crate) async fn run(mut self, app: Arc<App>) {
        if app.config.outbound.enabled {
            self.outbound = Some(Outbound::start(Arc::clone(&app), self.key.clone()));
        }
        loop {
            let low = tokio::select! {
                () = app.stopping.cancelled() => return,
                low = self.waiting.recv() => low,
            };
            let Some(low) = low else { return };
            if let Err(reason) = self.ask(&app, low).await {
                tracing::warn!(owner = %app.owner_tags.owner_tag(&low.owner), "no request for KeyPackages: {reason}");
            }
        }
    }

    async fn ask(&self, app: &Arc<App>, low: LowStock) -> Result<(), String> {
        let (gateway, now) = (&app.config.mls_gateway, app.clock.now());
        let ttl = gateway.keypackage_request_ttl_secs.min(TTL_SECS_MAX);
        let tag = |name: &str, value: String| vec![name.to_owned(), value];
        let mut tags = vec![tag("p", low.owner.to_hex())];
        tags.extend(low.suite.map(|suite| tag("cs", suite_name(suite).into_owned())));
        tags.push(tag("min", gateway.keypackage_low_watermark.to_string()));
        tags.push(tag("ttl", ttl.to_string()));
        let content = r#"{"reason":"stock_low","note":"few KeyPackages are left here; publish new ones"}"#;
        let kind = Kind::KEY_PACKAGE_REQUEST.0;
        let event = self.key.sign(&Unsigned { created_at: now, kind, tags: &tags, content });
        let event = event.map_err(|error| error.to_string())?;
        let sent_on = event.event().clone();
        let request = StockRequest {
            owner: low.owner,
            id: event.event().id(),
            low_watermark: gateway.keypackage_low_watermark,
            expired: low.expired,
        };
        if !app.store.may_request(&request, now).await.map_err(|error| error.to_string())? {
            return Ok(());
        }
        let reader = Reader::new(&[self.key.public()]);
        let publisher = Publisher { reader: &reader, names: &RelayNames::Loopback };
        let admitted =
            admit::admit(event, publisher, &app.policy(), None, now).map_err(|refused| refused.to_string())?;
        let payer = app.limits.payer_hash(Payer::Key(self.key.public()));
        let outbox = Outbox::new(0, app.memory.open(payer), Challenge::new(String::new()));
        let in_flight = Arc::new(InFlight::of_request(Arc::new(outbox)));
        let arrival = app.request_log.arrival();
        let handed = Handed { admitted, payer, charges: app.delivery.charges(), arrival, room: None };
        app.writer.save(handed, &in_flight).await;
        in_flight.settled().await;
        match in_flight.take_outcome() {
            Outcome::Accepted(_) => {
                if let Some(outbound) = &self.outbound {
                    outbound.send(Parcel { owner: low.owner, event: sent_on });
                }
                Ok(())
            }
            Outcome::Conflict(refused) | Outcome::Refused(refused) => Err(refused.to_string()),
        }
    }
}
