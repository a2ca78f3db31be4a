//! `AUTH` (NIP-42): the client proves a key; each proof adds one to the connection's reader.

use nostr_protocol::{
    EventError, PublicKey, Rejection, Unverified,
    auth::authenticate,
    message::{notice_frame, ok_frame, refused_frame},
};

use super::event::frame_for_bad_event;
use crate::{connection::Session, rate_limit::Class};

/// Answers with `OK`, or with a `NOTICE` where what was sent has no id.
pub(crate) fn handle(session: &mut Session, json: &str) -> String {
    if let Err(rejection) = session.pay_address(Class::Event) {
        return notice_frame(&rejection.to_string());
    }
    let event = match Unverified::parse(json.as_bytes()) {
        Ok(event) => event,
        Err(error) => return frame_for_bad_event(json, &error),
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
    let key = authenticate(&verified, &session.challenge, &session.peer.names, app.clock.now())?;
    if app.policy.auth_required && !app.policy.is_resident(&key) {
        return Err(Rejection::restricted("this key is not on this relay's list; ask its operator to be listed"));
    }
    Ok(key)
}
