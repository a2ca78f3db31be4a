//! `AUTH` (NIP-42): the client proves a key; each proof adds one to the connection's reader.

use nostr_protocol::{
    EventError, PublicKey, Rejection, Unverified,
    auth::authenticate,
    message::{Answer, notice_frame, ok_frame, refused_frame},
};

use super::{super::Session, event::answer_to_bad_event};
use crate::rate_limit::Class;

/// Answers with `OK`, or with a `NOTICE` where the message has no id or its address has sent too much.
pub(crate) fn handle(session: &mut Session, json: &str) -> Answer {
    if let Err(rejection) = session.pay_address(Class::Event) {
        return notice_frame(&rejection.to_string());
    }
    let event = match Unverified::parse(json.as_bytes()) {
        Ok(event) => event,
        Err(error) => return answer_to_bad_event(json, &error),
    };
    let id = event.event().id();
    match prove(session, event).and_then(|key| session.add_key(key)) {
        Ok(()) => ok_frame(&id, true, ""),
        Err(rejection) => {
            session.app.metrics.error("auth");
            refused_frame(&id, &rejection)
        }
    }
}

fn prove(session: &Session, event: Unverified) -> Result<PublicKey, Rejection> {
    let verified = event.verify().map_err(|error: EventError| {
        session.penalise_address();
        Rejection::invalid(error.to_string())
    })?;
    let app = &session.app;
    let key = authenticate(&verified, &session.challenge, &session.client.names, app.clock.now())?;
    if app.policy.auth_required && !app.policy.is_resident(&key) {
        return Err(Rejection::restricted("this key is not on this relay's list; ask its operator to be listed"));
    }
    Ok(key)
}
