//! Diagnoses of an event: whether a reader may publish it now, and whether the reader is shown it.
//!
//! Source: docs/rules.md, "REST" 15. The answers are those of the code that decides about every event: admission and
//! the committing transaction, which is given up, and the gate. Nothing is stored, and nothing is paid for the event by
//! its reader.

use nostr_extensions::{Asker, Publisher, Query, Reader, Scope, Sealed, Stamp, admit};
use nostr_protocol::{Event, Filter, Rejection, Rule, Verified, Word};
use nostr_store::{Cost, PageBounds, Part};

use super::{
    Caller,
    archive::{Meter, NAMED_GROUP_UNITS},
    handlers::event,
    settling,
};
use crate::error::read_failed;

/// Units of the look for the stored event.
const LOOK_UNITS: u64 = 16;
/// The reason for an event that is not stored, and that the reader would be shown.
const WOULD_BE_SHOWN: &str = "the event is not stored; the reader would be shown it";

/// See the module.
#[derive(Debug)]
pub(crate) struct Diagnosis {
    pub(crate) write: Verdict,
    pub(crate) read: Verdict,
}

/// One decision.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    pub(crate) is_yes: bool,
    /// The relay's reason; empty where there is nothing to say.
    pub(crate) reason: String,
    pub(crate) rule: Rule,
}

impl Verdict {
    fn yes(reason: impl Into<String>) -> Self {
        Self { is_yes: true, reason: reason.into(), rule: admit::PUBLISHED_BY }
    }

    fn no(reason: impl Into<String>, rule: Rule) -> Self {
        Self { is_yes: false, reason: reason.into(), rule }
    }

    /// The decision of a refusal.
    ///
    /// # Errors
    /// The refusal itself where no rule is behind it: the relay failed, and decided nothing.
    fn refused(rejection: Rejection) -> Result<Self, Rejection> {
        match rejection.rule {
            Some(rule) => Ok(Self::no(rejection.to_string(), rule)),
            None => Err(rejection),
        }
    }
}

/// Diagnoses an event for a reader, at the cost of `caller`, who may know of every event.
///
/// # Errors
/// `error:` where the store does not answer, `rate-limited:` where the caller has read too much.
pub(crate) async fn of(caller: &Caller, event: Verified, reader: &Reader) -> Result<Diagnosis, Rejection> {
    let app = &caller.app;
    let mut meter = Meter::new(caller);
    meter.may_go_on()?;
    meter.charge(Cost { units: LOOK_UNITS + NAMED_GROUP_UNITS, documents: 0 });
    if let Some(Err(rejection)) = reader.primary().map(|key| app.policy().may_authenticate(&key)) {
        let verdict = Verdict::refused(rejection)?;
        return Ok(Diagnosis { write: verdict.clone(), read: verdict });
    }
    app.delivery.fresh().await?;
    let (write, new) = publish(caller, &meter, event.clone(), reader).await?;
    let read = read(caller, &meter, event.event(), reader, &write, new).await?;
    Ok(Diagnosis { write: write.into_verdict()?, read })
}

/// The decision about publishing.
enum Write {
    Accepted(String),
    Refused(Rejection),
}

impl Write {
    fn into_verdict(self) -> Result<Verdict, Rejection> {
        match self {
            Self::Accepted(reason) => Ok(Verdict::yes(reason)),
            Self::Refused(rejection) => Verdict::refused(rejection),
        }
    }
}

/// Decides as for an EVENT of the reader, and gives the event as the store would hold it, if it is new.
async fn publish(
    caller: &Caller,
    meter: &Meter<'_>,
    event: Verified,
    reader: &Reader,
) -> Result<(Write, Option<Sealed>), Rejection> {
    let app = &caller.app;
    let publisher = Publisher { reader, names: &caller.client.names };
    let decided = match app.inboxes.require_proof(caller, publisher, event.event()).await {
        Ok(()) => event::decide(app, event, publisher, caller.payer()).await,
        Err(rejection) => Err(rejection),
    };
    let admitted = match decided {
        Ok((admitted, _)) => admitted,
        Err(rejection) => return Ok((Write::Refused(rejection), None)),
    };
    let turn = meter.turn_at_store().await;
    let saved = app.store.rehearse(&admitted).await.map_err(read_failed)?;
    drop(turn);
    let write = match saved.answer() {
        Ok(reason) => Write::Accepted(reason.into_owned()),
        Err(rejection) => Write::Refused(rejection),
    };
    Ok((write, saved.into_new_event()))
}

/// Decides as for a request of the reader that names the event by its id: about the stored event, else about the event
/// as it would be stored.
async fn read(
    caller: &Caller,
    meter: &Meter<'_>,
    event: &Event,
    reader: &Reader,
    write: &Write,
    new: Option<Sealed>,
) -> Result<Verdict, Rejection> {
    let app = &caller.app;
    let filter = Filter { ids: Some(vec![event.id()]), ..Filter::default() };
    let query = Query { filter: filter.clone(), scope: Scope::default() };
    let bounds = PageBounds { part: Part::WHOLE, events_max: 1, bytes_max: 1, entries_max: 1 };
    let (up_to, now) = (app.groups.readable_up_to(), app.clock.now());
    let turn = meter.turn_at_store().await;
    let mut page = app.store.scan(&query, None, up_to, bounds, now).await.map_err(read_failed)?;
    drop(turn);
    let stored = page.events.pop();
    let is_stored = stored.is_some();
    let sealed = match (stored.or(new), write) {
        (Some(sealed), _) => sealed,
        // Another reader may publish it.
        (None, Write::Refused(rejection)) if matches!(rejection.word, Word::Restricted | Word::AuthRequired) => {
            let expires_at = admit::expiration(event);
            Sealed::new(event.clone(), Stamp { cursor: 0, received_at: now, expires_at, author_only: false })
        }
        (None, Write::Refused(rejection)) => return Verdict::refused(rejection.clone()),
        (None, Write::Accepted(reason)) => return Ok(Verdict::no(reason.clone(), Rule("Deletion", 9))),
    };
    let group = match sealed.group() {
        Some(id) => {
            let known = app.groups.get(id).await.map_err(read_failed)?;
            match settling::for_publisher(app, reader, caller.payer(), known).await {
                Ok(state) => Some(state),
                Err(rejection) => return Verdict::refused(rejection),
            }
        }
        None => None,
    };
    let state = group.as_ref().map(|state| state.group());
    Ok(match app.gate.verdict(&sealed, Asker::new(reader, &filter), state, now) {
        Ok(_) => Verdict::yes(if is_stored { "" } else { WOULD_BE_SHOWN }),
        Err(hidden) => Verdict::no(hidden.to_string(), hidden.rule()),
    })
}
