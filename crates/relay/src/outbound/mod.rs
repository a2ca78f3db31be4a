//! Sending KeyPackage requests on to their recipients' relays, as a client of each (`[outbound]`).
//!
//! Source: MLS Gateway specification, kind 447 ("cross-relay interop"); NIP-17 (10050); NIP-65 (10002). An owner's own
//! lists say where to; anyone may have written them, so each address is checked before it is dialled, every wait has an
//! end, a host that fails is left alone for a while and holds nothing meanwhile, and connections are shared by the
//! names and the networks of hosts.

mod address;
mod connection;
mod hosts;
mod lists;
mod schedule;

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use nostr_protocol::{Event, PublicKey, sign::SecretKey};
use parking_lot::Mutex;
use tokio::{sync::mpsc, task::JoinSet, time::sleep_until};

use self::{
    connection::{Failed, send},
    hosts::Step,
    lists::targets,
    schedule::{End, Schedule, Sending},
};
use crate::{app::App, observe::metrics::Metrics};

/// Most requests whose recipients' lists are still to be read. A further one is not sent on; it is kept here all the
/// same.
const PARCELS_MAX: usize = 256;
/// Least time between two warnings that requests were dropped, in seconds.
const WARNING_SECS: u64 = 60;

/// A request for the relays of its recipient.
pub(crate) struct Parcel {
    pub(crate) owner: PublicKey,
    pub(crate) event: Event,
}

/// The requests that wait to be sent.
#[derive(Clone)]
pub(crate) struct Outbound {
    parcels: mpsc::Sender<Parcel>,
    ends: Arc<Ends>,
}

impl Outbound {
    /// Starts sending; ends when the relay stops.
    pub(crate) fn start(app: Arc<App>, key: SecretKey) -> Self {
        let (parcels, waiting) = mpsc::channel::<Parcel>(PARCELS_MAX);
        let ends = Arc::new(Ends { metrics: Arc::clone(&app.metrics), dropped: Mutex::default() });
        tokio::spawn(run(app, key, waiting, Arc::clone(&ends)));
        Self { parcels, ends }
    }

    /// Has a request be sent on. Does not wait.
    pub(crate) fn send(&self, parcel: Parcel) {
        // One that finds no room is kept here, where its recipient may ask for it.
        if self.parcels.try_send(parcel).is_err() {
            self.ends.count(End::Dropped);
        }
    }
}

async fn run(app: Arc<App>, key: SecretKey, mut parcels: mpsc::Receiver<Parcel>, ends: Arc<Ends>) {
    let mut schedule = Schedule::default();
    let mut running = JoinSet::new();
    loop {
        let now = Instant::now();
        schedule.end_late(now).into_iter().for_each(|end| ends.count(end));
        while let Some((sending, step)) = schedule.next(now) {
            running.spawn(take(sending, step, key.clone(), app.config.outbound.allow_private));
        }
        let wakes = schedule.wakes(now);
        let waking = async {
            match wakes {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let went_on = tokio::select! {
            () = app.stopping.cancelled() => return,
            Some(ended) = running.join_next() => match ended {
                Ok((sending, Taken::LookUp(found))) => schedule.looked_up(sending, found, Instant::now()),
                Ok((sending, Taken::Connection(addresses, answer))) => {
                    schedule.answered(sending, &addresses, &answer, Instant::now())
                }
                Err(error) => {
                    // A step has no place that panics. Its host stays busy, so that it cannot do so again.
                    tracing::error!(%error, "sending a request ended early");
                    Ok(())
                }
            },
            parcel = parcels.recv() => {
                let Some(Parcel { owner, event }) = parcel else { return };
                for target in targets(&app, &owner).await {
                    if let Err(end) = schedule.add(target, event.clone(), Instant::now()) {
                        ends.count(end);
                    }
                }
                Ok(())
            }
            () = waking => Ok(()),
        };
        if let Err(end) = went_on {
            ends.count(end);
        }
    }
}

/// The result of a step.
enum Taken {
    LookUp(Option<Vec<SocketAddr>>),
    Connection(Vec<SocketAddr>, Result<(), Failed>),
}

async fn take(sending: Sending, step: Step, key: SecretKey, allows_private: bool) -> (Sending, Taken) {
    let host = &sending.target.host;
    let taken = match step {
        Step::LookUp => {
            let found = sending.target.resolve(allows_private).await;
            Taken::LookUp(found.inspect_err(|reason| tracing::debug!(host, "no relay to send to: {reason}")).ok())
        }
        Step::Connect(addresses) => {
            let answer = send(&sending.target, &addresses, &sending.event, &key).await;
            match &answer {
                Ok(()) => {}
                Err(Failed::Refused(reason)) => tracing::debug!(host, "a request was refused: {reason}"),
                Err(Failed::Unanswered(reason) | Failed::Unreachable(reason)) => {
                    tracing::debug!(host, "a request was not sent: {reason}");
                }
            }
            Taken::Connection(addresses, answer)
        }
    };
    (sending, taken)
}

/// The ends of requests, for the metrics and the log.
struct Ends {
    metrics: Arc<Metrics>,
    /// The requests that were dropped since the last warning, and its time.
    dropped: Mutex<(u64, Option<Instant>)>,
}

impl Ends {
    fn count(&self, end: End) {
        self.metrics.outbound_request(end.word());
        if end != End::Dropped {
            return;
        }
        let mut dropped = self.dropped.lock();
        let (count, warned) = &mut *dropped;
        *count += 1;
        if warned.is_none_or(|at| at.elapsed() >= Duration::from_secs(WARNING_SECS)) {
            tracing::warn!(count, "KeyPackage requests were not sent on to other relays, as too many wait for them");
            (*count, *warned) = (0, Some(Instant::now()));
        }
    }
}
