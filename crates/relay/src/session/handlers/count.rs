//! `COUNT` (NIP-45): the number of events that the reader would be sent.

use nostr_protocol::{
    Filter, Rejection,
    message::{Answer, count_frame},
};

use super::super::{
    Session,
    archive::{ArchiveRead, Limits},
};

/// Counts over the same read as REQ; a filter's own `limit` holds, the relay's does not.
pub(crate) async fn handle(session: &Session, id: &str, filters: &[Filter]) -> Result<Answer, Rejection> {
    session.check_request(id, filters)?;
    session.in_flight.settled().await;
    let app = &session.app;
    app.delivery.fresh().await?;
    // The semaphore is never closed while a connection is open.
    let _permit = app.unbounded_reads.acquire().await;
    let up_to = app.groups.readable_up_to();
    let mut read = ArchiveRead::new(app, &session.reader, filters, up_to, Limits::NONE);
    let mut count = 0;
    while let Some(page) = read.next_page().await? {
        count += page.len() as u64;
        tokio::task::yield_now().await;
    }
    app.metrics.request("count");
    Ok(count_frame(id, count))
}
