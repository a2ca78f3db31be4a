//! `REQ`: a subscription with its part of the archive.
//!
//! 1. Wait until this process knows every event that any instance acknowledged.
//! 2. Subscribe at the current cursor.
//! 3. Claim KeyPackages, if reading consumes them, and send them.
//! 4. Send the archive up to that cursor, and EOSE.
//!
//! From the cursor on events come live. No event falls between the two, and none comes twice.

use std::sync::Arc;

use nostr_extensions::{Asker, Released, policy::KeyPackageConsumption};
use nostr_protocol::{EventId, Filter, Rejection, message::eose_frame};

use super::super::{
    Session,
    archive::{ArchiveRead, Limits},
    wire::{ConnectionEnd, Wire},
};
use crate::{
    delivery::{Outgoing, outbox::SubscriptionName},
    error::read_failed,
    rate_limit::Paid,
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

/// Most KeyPackages of one owner that an answer uses up (docs/rules.md, "Consumption on read" 4).
const CLAIMED_PER_ANSWER_MAX: usize = 2;
/// Most owners with KeyPackages that one answer uses up.
const CLAIMED_OWNERS_MAX: usize = 50;

/// Serves a request.
pub(crate) async fn handle(session: &mut Session, wire: &mut Wire, id: &str, filters: Vec<Filter>) -> Result<(), Stop> {
    session.check_request(id, &filters)?;
    session.in_flight.settled().await;
    let app = &session.app;
    app.delivery.fresh().await?;
    let limitation = &app.config.limitation;
    let filters: Arc<[Filter]> = filters.into();
    let up_to = app.live.subscribe(session.id, id, Arc::clone(&filters), limitation.max_subscriptions)?;
    let claimed = claim(session, &filters).await?;
    let name = SubscriptionName::new(id);
    wire.feed(claimed.iter().map(|event| Outgoing::event(&name, event))).await?;
    let mut read = ArchiveRead::new(app, &session.reader, &filters, up_to, Limits::of(limitation));
    while let Some(page) = read.next_page().await.map_err(Rejection::from)? {
        // Fed events are written when the socket's buffer is full, or with the EOSE.
        wire.feed(page.iter().map(|event| Outgoing::event(&name, event))).await?;
        tokio::task::yield_now().await;
    }
    app.metrics.request("req");
    wire.send(eose_frame(id)).await?;
    Ok(())
}

/// Takes KeyPackages of the named authors for this reader, where the operator chose that reading consumes them.
async fn claim(session: &Session, filters: &[Filter]) -> Result<Vec<Released>, Rejection> {
    let app = &session.app;
    if app.policy.keypackage_consumption == KeyPackageConsumption::Never {
        return Ok(Vec::new());
    }
    let mut claimed = Vec::new();
    let mut owners = 0;
    let now = app.clock.now();
    for filter in filters {
        let asks = filter.kinds.iter().flatten().any(|kind| kind.is_key_package());
        let Some(authors) = filter.authors.as_ref().filter(|_| asks && !filter.is_impossible()) else { continue };
        owners += authors.len();
        if owners > CLAIMED_OWNERS_MAX {
            return Err(Rejection::invalid(format!(
                "a request takes KeyPackages of at most {CLAIMED_OWNERS_MAX} owners"
            )));
        }
        for owner in authors.iter().filter(|owner| !session.reader.has(owner)) {
            let Some(reader) = session.reader.primary() else { continue };
            let pay = |_| app.limits.claim(&reader, session.client.address, owner, app.clock.now_ms()).ok();
            let paid: Vec<Paid> = (0..CLAIMED_PER_ANSWER_MAX).map_while(pay).collect();
            let allowed = paid.len();
            if allowed == 0 {
                continue;
            }
            let mut charges = app.delivery.charges();
            paid.into_iter().for_each(|paid| charges.add(paid));
            app.delivery.claimed(charges);
            let sealed = app.store.claim_key_packages(owner, allowed, now).await.map_err(read_failed)?;
            let ids: Vec<EventId> = sealed.iter().map(|sealed| sealed.position().id).collect();
            let asker = Asker { reader: &session.reader, filter, claimed: &ids };
            for event in &sealed {
                claimed.extend(app.gate.release(event, asker, None, now));
            }
        }
    }
    Ok(claimed)
}
