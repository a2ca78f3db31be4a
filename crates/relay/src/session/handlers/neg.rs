//! `NEG-OPEN`, `NEG-MSG`, `NEG-CLOSE` (NIP-77): set reconciliation over the events that the reader may see.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use negentropy::{Id, Negentropy, NegentropyStorageVector};
use nostr_extensions::{Asker, NostrGroupId, admit::group_of};
use nostr_protocol::{
    Filter, Rejection, hex,
    message::{Answer, neg_err_frame, neg_msg_frame},
};
use tokio::sync::OwnedSemaphorePermit;

use super::super::{
    Session,
    archive::{ArchiveRead, Limits},
};
use crate::error::read_failed;

/// Most sessions of one connection.
const SESSIONS_MAX: usize = 2;
/// Most events in the sessions of all connections, at 40 bytes each.
pub(crate) const EVENTS_MAX: usize = 5_000_000;
/// Most events that one session reconciles.
const SESSION_EVENTS_MAX: usize = 250_000;
/// Most bytes of an answer, before it is written as hex.
const ANSWER_BYTES_MAX: u64 = 60_000;

/// The NIP-77 sessions of one connection.
#[derive(Default)]
pub(crate) struct NegSessions {
    open: HashMap<String, NegSession>,
}

struct NegSession {
    negentropy: Negentropy<'static, NegentropyStorageVector>,
    filter: Filter,
    /// The groups that opened their events to the reader: the session ends when one of them is closed to it.
    groups: Vec<NostrGroupId>,
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
    let _permit = app.unbounded_reads.acquire().await;
    let mut permits = Vec::new();
    let mut storage = NegentropyStorageVector::new();
    let mut events = 0;
    let mut groups = HashSet::new();
    let (filters, up_to) = (std::slice::from_ref(&filter), app.groups.readable_up_to());
    let mut read = ArchiveRead::new(app, &session.reader, filters, up_to, Limits::NONE);
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
        for event in page {
            groups.extend(group_of(event.event()));
            let id = Id::from_byte_array(*event.id().as_bytes());
            storage.insert(event.created_at(), id).map_err(|_| Rejection::error("the session cannot be opened"))?;
        }
        tokio::task::yield_now().await;
    }
    storage.seal().map_err(|_| Rejection::error("the session cannot be opened"))?;
    let negentropy =
        Negentropy::owned(storage, ANSWER_BYTES_MAX).map_err(|_| Rejection::error("the session cannot be opened"))?;
    app.metrics.request("neg");
    let asker = Asker::new(&session.reader, &filter);
    // A reader may see an event for another reason, as a gift wrap's recipient does; such an event stays when its group
    // closes.
    let open = app.groups.filter(groups.into_iter().collect(), |state| app.gate.may_scan(state, asker));
    let groups = open.await.map_err(read_failed)?;
    Ok(NegSession { negentropy, filter, groups, _permits: permits })
}

/// Answers a message of an open session.
pub(crate) async fn message(session: &mut Session, id: &str, message: &str) -> Answer {
    if !still_open(session, id).await {
        session.neg.close(id);
        return neg_err_frame(id, "closed: the session is not open; NEG-OPEN it anew");
    }
    let Some(open) = session.neg.open.get_mut(id) else {
        return neg_err_frame(id, "closed: the session is not open; NEG-OPEN it anew");
    };
    let answer = hex::parse_any(message.as_bytes()).and_then(|query| open.negentropy.reconcile(&query).ok());
    match answer {
        Some(answer) => neg_msg_frame(id, &hex::to_hex(&answer)),
        None => {
            session.neg.close(id);
            neg_err_frame(id, "invalid: the message is no negentropy message of version 1 in hex")
        }
    }
}

/// Returns whether every group that had a part in the session is still open to its reader.
async fn still_open(session: &Session, id: &str) -> bool {
    let Some(open) = session.neg.open.get(id) else { return false };
    if !open.groups.is_empty() && session.app.delivery.fresh().await.is_err() {
        return false;
    }
    let asker = Asker::new(&session.reader, &open.filter);
    let gate = &session.app.gate;
    // A group whose state cannot be read is closed to every reader.
    session.app.groups.all(&open.groups, |state| gate.may_scan(state, asker)).await.unwrap_or(false)
}
