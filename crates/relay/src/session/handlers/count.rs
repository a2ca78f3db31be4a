//! `COUNT` (NIP-45): the number of events that the reader would be sent.

use std::time::Instant;

use nostr_protocol::{
    Filter, Rejection,
    message::{Answer, approximate_count_frame, count_frame},
};

use super::super::{
    Session,
    archive::{ArchiveRead, Limits, ReadError},
    openings::Openings,
};
use crate::observe::request_log::Door;

/// Most times that a request is counted because a group was shut to its reader meanwhile.
const COUNTS_MAX: usize = 3;

/// Counts over the same read as REQ; a filter's own `limit` holds, the relay's does not. A count that costs as much as
/// one request may ends there, and is told as approximate: there are at least so many events. So is a count without the
/// events of a group that is closed.
pub(crate) async fn handle(session: &Session, id: &str, filters: &[Filter]) -> Result<Answer, Rejection> {
    let arrival = session.caller.app.request_log.arrival();
    session.check_request(id, filters)?;
    session.caller.in_flight.settled().await;
    let app = &session.caller.app;
    app.delivery.fresh().await?;
    for _ in 0..COUNTS_MAX {
        let up_to = app.groups.readable_up_to();
        let mut read = ArchiveRead::new(&session.caller, filters, up_to, Limits::NONE);
        let (mut count, mut openings) = (0, Openings::default());
        let mut held = session.caller.in_flight.outbox().holding().hold(0);
        let is_whole = loop {
            match read.next_page().await {
                Ok(Some(page)) => {
                    count += page.len() as u64;
                    openings.note(app, &session.caller.reader, &page);
                    held.set(openings.bytes());
                }
                Ok(None) => break !read.is_withheld(),
                Err(ReadError::TooLarge) => break false,
                Err(error) => return Err(error.into()),
            }
        };
        let work = read.work();
        if openings.hold(&session.caller, filters).await? {
            app.metrics.request("count");
            app.metrics.request_took("count", arrival.at.elapsed());
            app.request_log.read(Door::Count, arrival, &[("archive", Instant::now())], filters, work);
            return Ok(if is_whole { count_frame(id, count) } else { approximate_count_frame(id, count) });
        }
    }
    Err(Rejection::error("a group of the answer was shut while its events were counted; ask again"))
}
