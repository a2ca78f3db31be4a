//! `REQ`: a subscription with its part of the archive.
//!
//! 1. Wait until this process knows every event that any instance acknowledged.
//! 2. Subscribe at the current cursor.
//! 3. Claim KeyPackages, if reading consumes them, and send them.
//! 4. Send the archive up to that cursor, and EOSE.
//!
//! From the cursor on events come live. No event falls between the two, and none comes twice.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use nostr_protocol::{
    Filter, Rejection,
    message::{Completeness, eose_frame},
};

use super::{
    super::{
        Session,
        archive::{ArchiveRead, Limits},
        wire::{ConnectionEnd, Wire},
    },
    claim::claim,
};
use crate::{
    delivery::{Outgoing, outbox::SubscriptionName},
    observe::{request_log::Door, slow::ReadWork},
};

/// The reason why a request ends before its EOSE.
pub(crate) enum Stop {
    /// The request is refused, and the client is told.
    Refused(Rejection),
    /// The connection ends.
    End(ConnectionEnd),
}

impl From<Rejection> for Stop {
    fn from(rejection: Rejection) -> Self {
        Self::Refused(rejection)
    }
}

impl From<ConnectionEnd> for Stop {
    fn from(end: ConnectionEnd) -> Self {
        Self::End(end)
    }
}

/// Serves a request.
pub(crate) async fn handle(session: &mut Session, wire: &mut Wire, id: &str, filters: Vec<Filter>) -> Result<(), Stop> {
    let arrival = session.caller.app.request_log.arrival();
    session.check_request(id, &filters)?;
    session.caller.in_flight.settled().await;
    let app = &session.caller.app;
    app.delivery.fresh().await?;
    let fresh = Instant::now();
    let limitation = &app.config.limitation;
    let filters: Arc<[Filter]> = filters.into();
    let up_to = app.live.subscribe(session.id, id, Arc::clone(&filters), limitation.max_subscriptions).await?;
    let limits = Limits::of(limitation);
    let subscribed = Instant::now();
    let claims = claim(&session.caller, &filters, limits).await?;
    let name = SubscriptionName::new(id);
    let given: usize = claims.given.iter().map(|event| event.event().record().len()).sum();
    let held = session.caller.in_flight.outbox().holding().hold(given);
    let mut with_client = Duration::ZERO;
    feed(wire, claims.given.iter().map(|event| Outgoing::event(&name, event)), &mut with_client).await?;
    drop(held);
    if let Some(rejection) = claims.failed {
        // The KeyPackages that were used up are sent with the CLOSED.
        return Err(rejection.into());
    }
    let claimed = Instant::now();
    app.metrics.claimed(claims.given.len());
    let mut read = ArchiveRead::new(&session.caller, &claims.filters, up_to, limits);
    while let Some(page) = read.next_page().await.map_err(Rejection::from)? {
        // Fed events are written when the socket's buffer is full, or with the EOSE.
        feed(wire, page.iter().map(|event| Outgoing::event(&name, event)), &mut with_client).await?;
    }
    let read_through = Instant::now();
    app.metrics.request("req");
    let completeness = if claims.withholds { Completeness::Unknown } else { read.completeness() };
    let sending = Instant::now();
    wire.send(eose_frame(id, completeness)).await?;
    with_client += sending.elapsed();
    app.metrics.request_took("req", arrival.at.elapsed());
    let stages = [
        ("fresh", fresh),
        ("subscribe", subscribed),
        ("claim", claimed),
        ("archive", read_through),
        ("eose", Instant::now()),
    ];
    app.request_log.read(Door::Req, arrival, &stages, &filters, ReadWork { with_client, ..read.work() });
    Ok(())
}

/// Feeds frames, and adds the time that they took to `with_client`.
async fn feed(
    wire: &mut Wire,
    frames: impl Iterator<Item = Outgoing>,
    with_client: &mut Duration,
) -> Result<(), ConnectionEnd> {
    let feeding = Instant::now();
    let fed = wire.feed(frames).await;
    *with_client += feeding.elapsed();
    fed
}
