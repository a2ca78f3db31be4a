//! `COUNT` (NIP-45): the number of events that the reader would be sent.

use nostr_protocol::{
    Filter, Rejection,
    message::{Answer, count_frame},
};

use super::super::{
    Session,
    archive::{ArchiveRead, Limits},
    openings::Openings,
};

/// Most times that a request is counted because a group was shut to its reader meanwhile.
const COUNTS_MAX: usize = 3;

/// Counts over the same read as REQ; a filter's own `limit` holds, the relay's does not.
pub(crate) async fn handle(session: &Session, id: &str, filters: &[Filter]) -> Result<Answer, Rejection> {
    session.check_request(id, filters)?;
    session.in_flight.settled().await;
    let app = &session.app;
    app.delivery.fresh().await?;
    // The semaphore is never closed while a connection is open.
    let _permit = app.unbounded_reads.acquire().await;
    for _ in 0..COUNTS_MAX {
        let up_to = app.groups.readable_up_to();
        let mut read = ArchiveRead::new(app, &session.reader, filters, up_to, Limits::NONE);
        let (mut count, mut openings) = (0, Openings::default());
        while let Some(page) = read.next_page().await? {
            count += page.len() as u64;
            openings.note(app, &session.reader, &page);
            tokio::task::yield_now().await;
        }
        if openings.hold(app, &session.reader, filters).await? {
            app.metrics.request("count");
            return Ok(count_frame(id, count));
        }
    }
    Err(Rejection::error("a group of the answer was shut while its events were counted; ask again"))
}
