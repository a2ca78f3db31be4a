//! `NEG-OPEN`, `NEG-MSG`, `NEG-CLOSE` (NIP-77): set reconciliation over the events that the reader may see.

use std::{collections::HashMap, sync::Arc};

use negentropy::{Id, Negentropy, NegentropyStorageVector};
use nostr_protocol::{
    Filter, Rejection, hex,
    message::{Answer, neg_err_frame, neg_msg_frame},
};
use tokio::sync::OwnedSemaphorePermit;

use super::super::{
    Session,
    archive::{ArchiveRead, Limits},
    openings::Openings,
};

/// Most sessions of one connection.
const SESSIONS_MAX: usize = 2;
/// Most events in the sessions of all connections, at 40 bytes each.
pub(crate) const EVENTS_MAX: usize = 5_000_000;
/// Most events that one session reconciles.
const SESSION_EVENTS_MAX: usize = 250_000;
/// Most bytes of an answer, before it is written as hex.
const ANSWER_BYTES_MAX: u64 = 60_000;
/// The answer to a message of a session that never was, that the client closed, or that ended with a group.
const NOT_OPEN: &str = "closed: the session is not open; NEG-OPEN it anew";

/// The NIP-77 sessions of one connection.
#[derive(Default)]
pub(crate) struct NegSessions {
    open: HashMap<String, NegSession>,
}

struct NegSession {
    negentropy: Negentropy<'static, NegentropyStorageVector>,
    filter: Filter,
    /// The groups that opened their events to the reader: the session ends when one of them is shut to it.
    openings: Openings,
    /// The session's share of [`EVENTS_MAX`].
    _permits: Vec<OwnedSemaphorePermit>,
}

impl NegSessions {
    /// Ends a session.
    pub(crate) fn close(&mut self, id: &str) {
        self.open.remove(id);
    }
}

/// Opens a session, or replaces the one of the same id, and answers its first message.
pub(crate) async fn open(session: &mut Session, id: &str, filter: Filter, message: &str) -> Answer {
    session.neg.close(id);
    match try_open(session, id, filter).await {
        Ok(open) => {
            session.neg.open.insert(id.to_owned(), open);
            self::message(session, id, message).await
        }
        Err(rejection) => neg_err_frame(id, &rejection.to_string()),
    }
}

async fn try_open(session: &Session, id: &str, filter: Filter) -> Result<NegSession, Rejection> {
    session.check_request(id, std::slice::from_ref(&filter))?;
    if session.neg.open.len() >= SESSIONS_MAX {
        return Err(Rejection::error(format!("a connection has at most {SESSIONS_MAX} sessions; NEG-CLOSE one first")));
    }
    session.in_flight.settled().await;
    let app = &session.app;
    app.delivery.fresh().await?;
    let mut permits = Vec::new();
    let mut storage = NegentropyStorageVector::new();
    let mut events = 0;
    let mut openings = Openings::default();
    let (filters, up_to) = (std::slice::from_ref(&filter), app.groups.readable_up_to());
    let mut read = ArchiveRead::new(session, filters, up_to, Limits::NONE);
    while let Some(page) = read.next_page().await? {
        events += page.len();
        if events > SESSION_EVENTS_MAX {
            return Err(Rejection::blocked(format!(
                "the filter fits over {SESSION_EVENTS_MAX} events; narrow it by kinds, tags, since or until"
            )));
        }
        if !page.is_empty() {
            let share = Arc::clone(&app.neg_events).try_acquire_many_owned(page.len() as u32);
            permits.push(
                share.map_err(|_| Rejection::blocked("too many sessions are open on this relay; try again later"))?,
            );
        }
        openings.note(app, &session.reader, &page);
        for event in page {
            let id = Id::from_byte_array(*event.id().as_bytes());
            storage.insert(event.created_at(), id).map_err(|_| Rejection::error("the session cannot be opened"))?;
        }
    }
    storage.seal().map_err(|_| Rejection::error("the session cannot be opened"))?;
    let negentropy =
        Negentropy::owned(storage, ANSWER_BYTES_MAX).map_err(|_| Rejection::error("the session cannot be opened"))?;
    app.metrics.request("neg");
    Ok(NegSession { negentropy, filter, openings, _permits: permits })
}

/// Answers a message of an open session. The answer is made first and goes out only if every group that had a part in
/// the session is still open to its reader.
pub(crate) async fn message(session: &mut Session, id: &str, message: &str) -> Answer {
    let Some(open) = session.neg.open.get_mut(id) else { return neg_err_frame(id, NOT_OPEN) };
    let answer = hex::parse_any(message.as_bytes()).and_then(|query| open.negentropy.reconcile(&query).ok());
    let filters = std::slice::from_ref(&open.filter);
    let refusal = match open.openings.hold(&session.app, &session.reader, filters).await {
        Err(rejection) => rejection.to_string(),
        Ok(false) => NOT_OPEN.to_owned(),
        Ok(true) => match answer {
            Some(answer) => return neg_msg_frame(id, &hex::to_hex(&answer)),
            None => "invalid: the message is no negentropy message of version 1 in hex".to_owned(),
        },
    };
    session.neg.close(id);
    neg_err_frame(id, &refusal)
}
