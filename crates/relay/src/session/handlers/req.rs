//! `REQ`: wait until what was acknowledged anywhere is known here, subscribe at the current cursor, read the archive up to it, EOSE, then live from the cursor on. Nothing falls
//! between the two, and nothing comes twice.

use nostr_extensions::{Released, policy::KeyPackageConsumption};
use nostr_protocol::{EventId, Filter, Rejection, message::eose_frame};

use crate::{
    archive::{Limits, Read},
    connection::{End, Session, Wire},
    outbox::{Outgoing, SubName},
    rate_limit::Paid,
};

/// Why a request ends before its EOSE.
pub(crate) enum Stop {
    /// The client is told.
    Refused(Rejection),
    /// The connection ends.
    End(End),
}

impl From<Rejection> for Stop {
    fn from(rejection: Rejection) -> Self {
        Self::Refused(rejection)
    }
}

impl From<End> for Stop {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

/// Most KeyPackages of one owner that an answer uses up (decisions, "KeyPackages" 4).
const CLAIMED_PER_ANSWER_MAX: usize = 2;
/// Most owners whose KeyPackages one answer uses up.
const CLAIMED_OWNERS_MAX: usize = 50;

/// Serves a request.
pub(crate) async fn handle(session: &mut Session, wire: &mut Wire, id: &str, filters: Vec<Filter>) -> Result<(), Stop> {
    session.check_request(id, &filters)?;
    session.publisher.settled().await;
    let app = &session.app;
    app.fresh().await?;
    let limitation = &app.config.limitation;
    let filters: std::sync::Arc<[Filter]> = filters.into();
    let up_to = app.live.subscribe(session.id, id, std::sync::Arc::clone(&filters), limitation.max_subscriptions)?;
    let claimed = claim(session, &filters).await?;
    let limits = Limits { default: limitation.default_limit as u64, max: limitation.max_limit as u64 };
    let name = SubName::new(id);
    wire.feed_all(claimed.iter().map(|event| Outgoing::event(&name, event))).await?;
    let mut read = Read::new(app, &session.reader, &filters, up_to, limits);
    while let Some(page) = read.next_page().await.map_err(Rejection::from)? {
        // What is fed is written when the socket's buffer is full, or with the EOSE.
        wire.feed_all(page.iter().map(|event| Outgoing::event(&name, event))).await?;
        tokio::task::yield_now().await;
    }
    app.metrics.request("req");
    wire.feed(Outgoing::Text(eose_frame(id))).await?;
    wire.flush().await?;
    Ok(())
}

/// Where reading consumes, takes KeyPackages of the named authors for this reader.
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
            let pay = |_| app.limits.claim(&reader, session.peer.address, owner, app.clock.now_ms()).ok();
            let paid: Vec<Paid> = (0..CLAIMED_PER_ANSWER_MAX).map_while(pay).collect();
            let allowed = paid.len();
            if allowed == 0 {
                continue;
            }
            let mut receipt = app.receipt();
            paid.into_iter().for_each(|paid| receipt.add(paid));
            if let Some(wake) = &app.wake {
                wake.committed(receipt.into_debits());
            }
            let sealed = app.store.claim_key_packages(owner, allowed, now).await;
            let sealed = sealed.map_err(|error| Rejection::from(crate::archive::ReadError::from(error)))?;
            let ids: Vec<EventId> = sealed.iter().map(|sealed| sealed.position().id).collect();
            let asker = nostr_extensions::Asker { reader: &session.reader, filter, claimed: &ids };
            for event in &sealed {
                claimed.extend(app.gate.release(event, asker, None, now));
            }
        }
    }
    Ok(claimed)
}
