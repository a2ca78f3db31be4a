//! The handlers of a client's messages, one file a message.

pub(crate) mod auth;
mod claim;
pub(crate) mod count;
pub(crate) mod event;
pub(crate) mod neg;
pub(crate) mod neg_memory;
pub(crate) mod req;

use nostr_protocol::{
    Filter, Word,
    message::{ClientMessage, closed_frame},
};

use super::{
    Session,
    waiting::Request,
    wire::{ConnectionEnd, Wire},
};

/// Handles one message. The connection hands an `EVENT` to its handler directly, which needs no box.
pub(crate) async fn handle(
    session: &mut Session,
    wire: &mut Wire,
    text: &str,
    message: ClientMessage<'_>,
) -> Result<(), ConnectionEnd> {
    if wait_for_auth(session, text, &message).await {
        return Ok(());
    }
    match message {
        ClientMessage::Event(json) => event::handle(session, text, json.get(), None).await,
        ClientMessage::Auth(json) => {
            let answer = auth::handle(session, json.get()).await;
            // With a key the waiting messages are as good as new ones. Without one they wait for nothing.
            session.waiting.end();
            wire.send(answer).await?;
        }
        ClientMessage::Req(id, filters) => match req::handle(session, wire, &id, filters).await {
            Ok(()) => {}
            Err(req::Stop::Refused(rejection)) => {
                session.caller.app.metrics.request_refused("req", &rejection);
                session.caller.app.live.unsubscribe(session.id, &id).await;
                wire.send(closed_frame(&id, &rejection)).await?;
            }
            Err(req::Stop::End(end)) => return Err(end),
        },
        ClientMessage::Count(id, filters) => {
            let frame = match count::handle(session, &id, &filters).await {
                Ok(frame) => frame,
                Err(rejection) => {
                    session.caller.app.metrics.request_refused("count", &rejection);
                    closed_frame(&id, &rejection)
                }
            };
            wire.send(frame).await?;
        }
        ClientMessage::Close(id) => {
            session.caller.app.live.unsubscribe(session.id, &id).await;
        }
        ClientMessage::NegOpen(id, filter, message) => {
            wire.send(neg::open(session, &id, *filter, &message).await).await?;
        }
        ClientMessage::NegMsg(id, message) => wire.send(neg::message(session, &id, &message).await).await?,
        ClientMessage::NegClose(id) => session.neg.close(&id),
    }
    Ok(())
}

/// Keeps a request that would be refused for want of a key alone, while the client may still authenticate. A request
/// drops the one that it replaces, or ends, from those that are kept.
async fn wait_for_auth(session: &mut Session, text: &str, message: &ClientMessage<'_>) -> bool {
    let (request, id, filters): (Request, _, &[Filter]) = match message {
        ClientMessage::Req(id, filters) => (Request::Subscription, id, filters),
        ClientMessage::Count(id, filters) => (Request::Count, id, filters),
        ClientMessage::NegOpen(id, filter, _) => (Request::Session, id, std::slice::from_ref(&**filter)),
        ClientMessage::Close(id) => {
            session.waiting.drop_request(Request::Subscription, id);
            session.waiting.drop_request(Request::Count, id);
            return false;
        }
        ClientMessage::NegClose(id) => {
            session.waiting.drop_request(Request::Session, id);
            return false;
        }
        ClientMessage::Event(_) | ClientMessage::Auth(_) | ClientMessage::NegMsg(..) => return false,
    };
    session.waiting.drop_request(request, id);
    if !session.waits_for_key(text.len()) {
        return false;
    }
    if !session.check_request(id, filters).is_err_and(|rejection| rejection.word == Word::AuthRequired) {
        return false;
    }
    match request {
        Request::Subscription => session.caller.app.live.unsubscribe(session.id, id).await,
        Request::Session => session.neg.close(id),
        Request::Count => {}
    }
    session.waiting.push(text, Some((request, id)), None);
    true
}
