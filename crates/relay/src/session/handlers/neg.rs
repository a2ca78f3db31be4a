//! `NEG-OPEN`, `NEG-MSG`, `NEG-CLOSE` (NIP-77): set reconciliation over what the reader may see.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use negentropy::{Id, Negentropy, NegentropyStorageVector};
use nostr_extensions::{Asker, NostrGroupId, admit::group_of};
use nostr_protocol::{
    Filter, Rejection, hex,
    message::{neg_err_frame, neg_msg_frame},
};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    archive::{Limits, Read, ReadError},
    connection::Session,
};

/// Most sessions of one connection.
const SESSIONS_MAX: usize = 2;
/// Most events in the sessions of all connections, at 40 bytes each.
pub const EVENTS_MAX: usize = 5_000_000;
/// Most events that one session reconciles.
const SESSION_EVENTS_MAX: usize = 250_000;
/// Most bytes of an answer, before it is written as hex.
const ANSWER_BYTES_MAX: u64 = 60_000;

/// The sessions of one connection.
#[derive(Default)]
pub(crate) struct Sessions {
    open: HashMap<String, Open>,
}

struct Open {
    negentropy: Negentropy<'static, NegentropyStorageVector>,
    filter: Filter,
    /// The groups whose events are in it: where one is shut now, the session ends.
    groups: Vec<NostrGroupId>,
    /// Its share of [`EVENTS_MAX`].
    _places: Vec<OwnedSemaphorePermit>,
}

impl Sessions {
    /// Ends a session.
    pub(crate) fn close(&mut self, id: &str) {
        self.open.remove(id);
    }
}

/// Opens a session, in the place of one of the same id, and answers its first message.
pub(crate) async fn open(session: &mut Session, id: &str, filter: Filter, message: &str) -> String {
    session.neg.close(id);
    match try_open(session, id, filter).await {
        Ok(open) => {
            session.neg.open.insert(id.to_owned(), open);
            self::message(session, id, message).await
        }
        Err(rejection) => neg_err_frame(id, &rejection.to_string()),
    }
}

async fn try_open(session: &Session, id: &str, filter: Filter) -> Result<Open, Rejection> {
    session.check_request(id, std::slice::from_ref(&filter))?;
    if session.neg.open.len() >= SESSIONS_MAX {
        return Err(Rejection::error(format!("a connection has at most {SESSIONS_MAX} sessions; NEG-CLOSE one first")));
    }
    session.publisher.settled().await;
    let app = &session.app;
    app.fresh().await?;
    let _place = app.unbounded_reads.acquire().await;
    let mut places = Vec::new();
    let mut storage = NegentropyStorageVector::new();
    let mut events = 0;
    let mut met = HashSet::new();
    let limits = Limits { default: u64::MAX, max: u64::MAX };
    let mut read = Read::new(app, &session.reader, std::slice::from_ref(&filter), app.groups.applied(), limits);
    while let Some(page) = read.next_page().await? {
        events += page.len();
        if events > SESSION_EVENTS_MAX {
            return Err(Rejection::blocked(format!(
                "the filter fits over {SESSION_EVENTS_MAX} events; narrow it by kinds, tags, since or until"
            )));
        }
        if !page.is_empty() {
            let share = Arc::clone(&app.neg_events).try_acquire_many_owned(page.len() as u32);
            places.push(
                share.map_err(|_| Rejection::blocked("too many sessions are open on this relay; try again later"))?,
            );
        }
        for event in page {
            met.extend(group_of(event.event()));
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
    // What is open to a reader for another reason, as a gift wrap to its recipient, is not shut with the group.
    let open = app.groups.filter(met.into_iter().collect(), |state| app.gate.may_scan(state, asker));
    let groups = open.await.map_err(ReadError::from)?;
    Ok(Open { negentropy, filter, groups, _places: places })
}

/// Answers a message of an open session.
pub(crate) async fn message(session: &mut Session, id: &str, message: &str) -> String {
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

/// Whether every group that had a part in the session is still open to its reader.
async fn still_open(session: &Session, id: &str) -> bool {
    let Some(open) = session.neg.open.get(id) else { return false };
    if !open.groups.is_empty() && session.app.fresh().await.is_err() {
        return false;
    }
    let asker = Asker::new(&session.reader, &open.filter);
    let gate = &session.app.gate;
    // A group whose state cannot be read is shut.
    session.app.groups.all(&open.groups, |state| gate.may_scan(state, asker)).await.unwrap_or(false)
}
