//! `COUNT` (NIP-45): how many events the reader would be sent.

use nostr_protocol::{Filter, Rejection, message::count_frame};

use crate::{
    archive::{Limits, Read},
    connection::Session,
};

/// Counts over the same read as REQ; a filter's own `limit` holds, the relay's does not.
pub(crate) async fn handle(session: &Session, id: &str, filters: &[Filter]) -> Result<String, Rejection> {
    session.check_request(id, filters)?;
    session.publisher.settled().await;
    let app = &session.app;
    app.fresh().await?;
    // Never closed while a connection is open.
    let _place = app.unbounded_reads.acquire().await;
    let limits = Limits { default: u64::MAX, max: u64::MAX };
    let mut read = Read::new(app, &session.reader, filters, app.groups.applied(), limits);
    let mut count = 0;
    while let Some(page) = read.next_page().await? {
        count += page.len() as u64;
        tokio::task::yield_now().await;
    }
    app.metrics.request("count");
    Ok(count_frame(id, count))
}
