//! `AUTH` (NIP-42): the client proves a key; each proof adds one to the connection's reader.

use nostr_protocol::{
    EventError, EventId, Kind, PublicKey, Rejection, Unverified,
    auth::authenticate,
    message::{Answer, notice_frame, ok_frame, refused_frame},
};

use super::{
    super::Session,
    event::{answer_to_bad_event, claimed_id},
};
use crate::rate_limit::{Fault, RetryAfter};

/// Answers with `OK`, or with a `NOTICE` where the message has no id. AUTH has buckets of its own, so that events of
/// this client or of another one at its address do not keep a key from authenticating.
pub(crate) async fn handle(session: &mut Session, json: &str) -> Answer {
    if let Err(retry) = pay(session) {
        // A client that goes on without a pause pays for each further AUTH as for a malformed message.
        session.caller.fault(Fault::Malformed, json.len());
        session.caller.app.metrics.refused(Kind::AUTH, "rate-limited");
        session.caller.app.metrics.rate_limited("auth");
        return refused(claimed_id(json), &retry.into());
    }
    let event = Unverified::parse(json.as_bytes());
    let event = match event {
        Ok(event) => event,
        Err(error) => {
            match error {
                EventError::WrongId { .. } => fine(session),
                _ => session.caller.fault(Fault::Malformed, json.len()),
            }
            return answer_to_bad_event(json, &error);
        }
    };
    let id = event.event().id();
    match prove(session, event).await.and_then(|key| session.add_key(key)) {
        Ok(()) => ok_frame(&id, true, ""),
        Err(rejection) => {
            session.caller.app.metrics.refused(Kind::AUTH, "auth");
            refused_frame(&id, &rejection)
        }
    }
}

async fn prove(session: &mut Session, event: Unverified) -> Result<PublicKey, Rejection> {
    let verified = event.verify();
    session.caller.app.metrics.signature_checked();
    let verified = verified.map_err(|error| {
        fine(session);
        Rejection::invalid(error.to_string())
    })?;
    let app = &session.caller.app;
    let key = authenticate(&verified, session.challenge.text(), &session.caller.client.names, app.clock.now())?;
    app.policy().may_authenticate(&key)?;
    Ok(key)
}

fn pay(session: &mut Session) -> Result<(), RetryAfter> {
    let (app, payer) = (&session.caller.app, session.caller.payer());
    app.limits.auth(&mut session.caller.limits, payer, app.clock.now_ms())
}

/// Fines the connection for a proof whose id or signature is wrong.
fn fine(session: &mut Session) {
    let app = &session.caller.app;
    app.limits.forged_auth(&mut session.caller.limits, app.clock.now_ms());
}

/// The answer to a proof that is not taken.
fn refused(id: Option<EventId>, rejection: &Rejection) -> Answer {
    match id {
        Some(id) => refused_frame(&id, rejection),
        None => notice_frame(&rejection.to_string()),
    }
}
