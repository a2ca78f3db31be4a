//! Sending KeyPackage requests on to their recipients' relays, as a client of each (`[outbound]`).
//!
//! Source: MLS Gateway specification, kind 447 ("cross-relay interop"); NIP-17 (10050); NIP-65 (10002). An owner's own
//! lists say where to; anyone may have written them, so each address is checked before it is dialled, every wait has an
//! end, a host that fails is left alone for a while, and a host has one connection at one time.

mod address;
mod connection;
mod hosts;

use std::{sync::Arc, time::Duration};

use nostr_extensions::{Asker, Query, Reader, Scope};
use nostr_protocol::{Event, Filter, Kind, PublicKey, auth::RelayAddress, sign::SecretKey, tag::name};
use nostr_store::{PageBounds, Part};
use tokio::{
    sync::{Semaphore, mpsc},
    time::sleep,
};

use self::{
    address::Target,
    connection::{Failed, send},
    hosts::Hosts,
};
use crate::app::App;

/// Most requests that wait to be sent. A further one is not sent on; it is kept here all the same.
const WAITING_MAX: usize = 256;
/// Most relays of one recipient that a request is sent to.
const RELAYS_MAX: usize = 3;
/// Most connections to other relays at one time.
const CONNECTIONS_MAX: usize = 8;
/// Most tries at one relay.
const TRIES_MAX: u32 = 3;
/// Pause before the second try, in seconds; each further one is ten times as long.
const RETRY_SECS: u64 = 5;
/// Most events of one kind that are read of a recipient: lists are replaceable.
const LISTS_MAX: usize = 1;

/// A request for the relays of its recipient.
pub(crate) struct Parcel {
    pub(crate) owner: PublicKey,
    pub(crate) event: Event,
}

/// The requests that wait to be sent.
#[derive(Clone)]
pub(crate) struct Outbound(mpsc::Sender<Parcel>);

impl Outbound {
    /// Starts sending; ends when the relay stops.
    pub(crate) fn start(app: Arc<App>, key: SecretKey) -> Self {
        let (sender, mut waiting) = mpsc::channel::<Parcel>(WAITING_MAX);
        tokio::spawn(async move {
            let (hosts, places) = (Arc::new(Hosts::default()), Arc::new(Semaphore::new(CONNECTIONS_MAX)));
            loop {
                let parcel = tokio::select! {
                    () = app.stopping.cancelled() => return,
                    parcel = waiting.recv() => parcel,
                };
                let Some(Parcel { owner, event }) = parcel else { return };
                for target in targets(&app, &owner).await {
                    let sending = Sending {
                        target,
                        event: event.clone(),
                        key: key.clone(),
                        hosts: Arc::clone(&hosts),
                        allows_private: app.config.outbound.allow_private,
                    };
                    let stopping = app.stopping.clone();
                    let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                    tokio::spawn(async move {
                        stopping.run_until_cancelled(sending.run()).await;
                        drop(place);
                    });
                }
            }
        });
        Self(sender)
    }

    /// Has a request be sent on. Does not wait.
    pub(crate) fn send(&self, parcel: Parcel) {
        // One that finds no room is kept here, where its recipient may ask for it.
        let _ = self.0.try_send(parcel);
    }
}

/// The relays where the owner reads: those of its 10050, else the read relays of its 10002, but not this one.
async fn targets(app: &App, owner: &PublicKey) -> Vec<Target> {
    let own = app.config.server.relay_addresses();
    let mut targets: Vec<Target> = Vec::new();
    for kind in [Kind(10_050), Kind(10_002)] {
        for url in listed(app, owner, kind).await {
            let is_own = RelayAddress::parse(&url).is_some_and(|address| own.contains(&address));
            let target = Target::parse(&url).filter(|target| !is_own && !targets.contains(target));
            targets.extend(target);
            if targets.len() >= RELAYS_MAX {
                return targets;
            }
        }
        if !targets.is_empty() {
            break;
        }
    }
    targets
}

/// The URLs in the owner's list of this kind, as anybody may read it here.
async fn listed(app: &App, owner: &PublicKey, kind: Kind) -> Vec<String> {
    let filter = Filter { kinds: Some(vec![kind]), authors: Some(vec![*owner]), ..Filter::default() };
    let query = Query { filter: filter.clone(), scope: Scope { everyone: true, ..Scope::default() } };
    let now = app.clock.now();
    let bounds = PageBounds { part: Part::WHOLE, events_max: LISTS_MAX, bytes_max: 1 << 18, entries_max: 64 };
    let Ok(page) = app.store.scan(&query, None, app.store.head(), bounds, now).await else { return Vec::new() };
    let reader = Reader::new(&[*owner]);
    let released = page.events.iter().filter_map(|it| app.gate.release(it, Asker::new(&reader, &filter), None, now));
    let mut urls = Vec::new();
    for list in released {
        for tag in list.event().tags().iter() {
            let is_read = match tag.name() {
                name::RELAY => kind == Kind(10_050),
                // Without a marker a relay is for both.
                "r" => kind == Kind(10_002) && tag.get(2).is_none_or(|marker| marker == "read"),
                _ => false,
            };
            urls.extend(tag.value().filter(|_| is_read).map(str::to_owned));
        }
    }
    urls
}

/// One request for one relay.
struct Sending {
    target: Target,
    event: Event,
    key: SecretKey,
    hosts: Arc<Hosts>,
    allows_private: bool,
}

impl Sending {
    async fn run(self) {
        for tries in 0..TRIES_MAX {
            if tries > 0 {
                sleep(Duration::from_secs(RETRY_SECS * 10_u64.pow(tries - 1))).await;
            }
            let Some(visit) = self.hosts.visit(&self.target.host) else { continue };
            match send(&self.target, &self.event, &self.key, self.allows_private).await {
                Ok(()) => return visit.succeeded(),
                // Another try would be answered alike.
                Err(Failed::Refused(reason)) => {
                    visit.succeeded();
                    return tracing::debug!(host = %self.target.host, "a request was refused: {reason}");
                }
                Err(Failed::Unreachable(reason)) => {
                    visit.failed();
                    tracing::debug!(host = %self.target.host, "a request was not sent: {reason}");
                }
            }
        }
    }
}
