//! `NEG-OPEN`, `NEG-MSG`, `NEG-CLOSE` (NIP-77): set reconciliation over the events that the reader may see.
//!
//! A session holds ids in memory between the client's messages. So it ends when the client sends no message for a
//! while, and at the latest after [`LIFE_SECS_MAX`]; the connection's task looks once a second while a session is open.

use std::{collections::HashMap, time::Duration};

use negentropy::{Id, Negentropy, NegentropyStorageVector};
use nostr_protocol::{
    Filter, Rejection, UnixSecs, hex,
    message::{Answer, neg_err_frame, neg_msg_frame, neg_refused_frame},
    negentropy::is_whole,
};
use tokio::{sync::watch, time::Instant};

use super::{
    super::{
        Session,
        archive::{ArchiveRead, Limits},
        openings::Openings,
    },
    neg_memory::SessionMemory,
};
use crate::observe::request_log::Door;

/// Most sessions of one connection.
const SESSIONS_MAX: usize = 2;
/// Most events that one session reconciles.
const SESSION_EVENTS_MAX: usize = 250_000;
/// Memory that an event takes in a session, in bytes: its time and its id.
const EVENT_BYTES: usize = 40;
/// Memory that a session takes beside its events, its openings and the lists of its filter, in bytes.
const SESSION_BYTES: usize = 1 << 10;
/// Most bytes of an answer, before it is written as hex.
const ANSWER_BYTES_MAX: u64 = 60_000;
/// Longest time between two messages of a session, in seconds.
pub(super) const IDLE_SECS_MAX: u64 = 60;
/// Longest life of a session, in seconds.
const LIFE_SECS_MAX: u64 = 600;
/// Time between two looks for sessions that have ended, in milliseconds.
const LOOK_MS: u64 = 1_000;
/// The answer to a message of a session that never was, that the client closed, or that ended with a group or by an
/// order of the operator.
const NOT_OPEN: &str = "closed: the session is not open; NEG-OPEN it anew";

/// The NIP-77 sessions of one connection.
#[derive(Default)]
pub(crate) struct NegSessions {
    open: HashMap<String, NegSession>,
    looked: Option<Instant>,
}

struct NegSession {
    negentropy: Negentropy<'static, NegentropyStorageVector>,
    filter: Filter,
    /// The groups that opened their events to the reader: the session ends when one of them is shut to it.
    openings: Openings,
    /// Changes with each order of the operator and each configuration that is put into force: the session, whose ids
    /// were read by the ones before, ends then.
    orders: watch::Receiver<u64>,
    opened_at: UnixSecs,
    /// Time of the client's last message.
    used_at: UnixSecs,
    memory: SessionMemory,
}

impl NegSessions {
    /// Ends a session.
    pub(crate) fn close(&mut self, id: &str) {
        self.open.remove(id);
    }

    /// Waits until it is time to look for sessions that have ended; without a session, for ever.
    pub(crate) async fn due(&self) {
        match self.looked.filter(|_| !self.open.is_empty()) {
            Some(looked) => tokio::time::sleep_until(looked + Duration::from_millis(LOOK_MS)).await,
            None => std::future::pending().await,
        }
    }

    /// Ends the sessions that have had their time, and gives the frames that tell the client so.
    pub(crate) fn end_late(&mut self, now: UnixSecs) -> Vec<Answer> {
        self.looked = Some(Instant::now());
        let late = self.open.iter().filter_map(|(id, open)| Some((id.clone(), open.is_late(now)?)));
        let late: Vec<(String, String)> = late.collect();
        late.into_iter()
            .map(|(id, reason)| {
                self.close(&id);
                neg_err_frame(&id, &reason)
            })
            .collect()
    }

    fn insert(&mut self, id: &str, session: NegSession) {
        self.looked.get_or_insert_with(Instant::now);
        self.open.insert(id.to_owned(), session);
    }
}

impl NegSession {
    /// The reason why the session ends now, if there is one. The clock may be set back, and that ends a session too.
    fn is_late(&self, now: UnixSecs) -> Option<String> {
        if self.memory.is_over() {
            return Some(SessionMemory::OVER.to_owned());
        }
        if self.used_at.abs_diff(now) >= IDLE_SECS_MAX {
            return Some(format!("closed: no message of this session came for {IDLE_SECS_MAX} s; NEG-OPEN it anew"));
        }
        (self.opened_at.abs_diff(now) >= LIFE_SECS_MAX)
            .then(|| format!("closed: the session was open for {LIFE_SECS_MAX} s; NEG-OPEN it anew"))
    }
}

/// Opens a session, or replaces the one of the same id, and answers its first message.
pub(crate) async fn open(session: &mut Session, id: &str, filter: Filter, message: &str) -> Answer {
    session.neg.close(id);
    match try_open(session, id, filter).await {
        Ok(open) => {
            session.neg.insert(id, open);
            self::message(session, id, message).await
        }
        Err(rejection) => {
            session.caller.app.metrics.request_refused("neg", &rejection);
            neg_refused_frame(id, &rejection)
        }
    }
}

async fn try_open(session: &Session, id: &str, filter: Filter) -> Result<NegSession, Rejection> {
    let arrival = session.caller.app.request_log.arrival();
    let app = &session.caller.app;
    let orders = app.management.changes();
    session.check_request(id, std::slice::from_ref(&filter))?;
    if session.neg.open.len() >= SESSIONS_MAX {
        return Err(Rejection::error(format!("a connection has at most {SESSIONS_MAX} sessions; NEG-CLOSE one first")));
    }
    session.caller.in_flight.settled().await;
    app.delivery.fresh().await?;
    let mut memory =
        SessionMemory::new(&app.neg_memory, session.caller.payer_hash(), session.caller.in_flight.outbox());
    memory.grow(SESSION_BYTES + filter.bytes())?;
    let (mut pages, mut events, mut openings) = (Vec::new(), 0, Openings::default());
    let (filters, up_to) = (std::slice::from_ref(&filter), app.groups.readable_up_to());
    let mut read = ArchiveRead::new(&session.caller, filters, up_to, Limits::NONE);
    while let Some(page) = read.next_page().await? {
        events += page.len();
        if events > SESSION_EVENTS_MAX {
            return Err(Rejection::blocked(format!(
                "the filter fits over {SESSION_EVENTS_MAX} events; narrow it by kinds, tags, since or until"
            )));
        }
        let known = openings.bytes();
        openings.note(app, &session.caller.reader, &page);
        memory.grow(page.len() * EVENT_BYTES + openings.bytes() - known)?;
        let items = page.iter().map(|event| (event.created_at(), *event.id().as_bytes()));
        pages.push(items.collect::<Box<[_]>>());
    }
    let work = read.work();
    drop(read);
    let negentropy = sealed(pages, events).await.ok_or_else(|| Rejection::error("the session cannot be opened"))?;
    app.metrics.request("neg");
    app.metrics.request_took("neg", arrival.at.elapsed());
    app.request_log.read(Door::Neg, arrival, &[("archive", std::time::Instant::now())], filters, work);
    let now = app.clock.now();
    Ok(NegSession { negentropy, filter, openings, orders, opened_at: now, used_at: now, memory })
}

/// The time and the id of an event.
type Item = (UnixSecs, [u8; 32]);

/// The pages of an answer, newest first, as a set. The items go in in nearly the order of the set, oldest first, so
/// that sealing it costs one look at each.
async fn sealed(mut pages: Vec<Box<[Item]>>, events: usize) -> Option<Negentropy<'static, NegentropyStorageVector>> {
    let mut storage = NegentropyStorageVector::with_capacity(events);
    let mut insert = |moment: &mut Vec<Item>| {
        moment.sort_unstable();
        moment.drain(..).try_for_each(|(at, id)| storage.insert(at, Id::from_byte_array(id)).ok())
    };
    let mut moment: Vec<Item> = Vec::new();
    while let Some(page) = pages.pop() {
        for item in page.iter().rev() {
            if moment.last().is_some_and(|(at, _)| *at != item.0) {
                insert(&mut moment)?;
            }
            moment.push(*item);
        }
        tokio::task::yield_now().await;
    }
    insert(&mut moment)?;
    storage.seal().ok()?;
    Negentropy::owned(storage, ANSWER_BYTES_MAX).ok()
}

/// Answers a message of an open session. The answer is made first and goes out only if every group that had a part in
/// the session is still open to its reader, and the operator has given no order since the session was opened.
pub(crate) async fn message(session: &mut Session, id: &str, message: &str) -> Answer {
    let Some(open) = session.neg.open.get_mut(id) else { return neg_err_frame(id, NOT_OPEN) };
    if open.memory.is_over() {
        session.neg.close(id);
        return neg_err_frame(id, SessionMemory::OVER);
    }
    open.used_at = session.caller.app.clock.now();
    let answer = hex::parse_any(message.as_bytes()).filter(|query| is_whole(query));
    let answer = answer.and_then(|query| open.negentropy.reconcile(&query).ok());
    let filters = std::slice::from_ref(&open.filter);
    let refusal = match open.openings.hold(&session.caller, filters).await {
        Err(error) => Rejection::from(error).to_string(),
        Ok(false) => NOT_OPEN.to_owned(),
        Ok(true) if open.orders.has_changed().unwrap_or(true) => NOT_OPEN.to_owned(),
        Ok(true) => match answer {
            Some(answer) => return neg_msg_frame(id, &hex::to_hex(&answer)),
            None => "invalid: the message is no negentropy message of version 1 in hex".to_owned(),
        },
    };
    session.neg.close(id);
    neg_err_frame(id, &refusal)
}
