//! The handlers of a client's messages, one file a message.

pub(crate) mod auth;
mod claim;
pub(crate) mod count;
pub(crate) mod event;
pub(crate) mod neg;
pub(crate) mod neg_memory;
mod neg_message;
pub(crate) mod req;

use nostr_protocol::message::{ClientMessage, closed_frame};

use super::{
    Session,
    wire::{ConnectionEnd, Wire},
};

/// Handles one message. The connection hands an `EVENT` to its handler directly, which needs no box.
pub(crate) async fn handle(
    session: &mut Session,
    wire: &mut Wire,
    message: ClientMessage<'_>,
) -> Result<(), ConnectionEnd> {
    match message {
        ClientMessage::Event(json) => event::handle(session, json.get()).await,
        ClientMessage::Auth(json) => {
            let answer = auth::handle(session, json.get()).await;
            wire.send(answer).await?;
        }
        ClientMessage::Req(id, filters) => match req::handle(session, wire, &id, filters).await {
            Ok(()) => {}
            Err(req::Stop::Refused(rejection)) => {
                session.app.live.unsubscribe(session.id, &id).await;
                wire.send(closed_frame(&id, &rejection)).await?;
            }
            Err(req::Stop::End(end)) => return Err(end),
        },
        ClientMessage::Count(id, filters) => {
            let frame = match count::handle(session, &id, &filters).await {
                Ok(frame) => frame,
                Err(rejection) => closed_frame(&id, &rejection),
            };
            wire.send(frame).await?;
        }
        ClientMessage::Close(id) => {
            session.app.live.unsubscribe(session.id, &id).await;
        }
        ClientMessage::NegOpen(id, filter, message) => {
            wire.send(neg::open(session, &id, *filter, &message).await).await?;
        }
        ClientMessage::NegMsg(id, message) => wire.send(neg::message(session, &id, &message).await).await?,
        ClientMessage::NegClose(id) => session.neg.close(&id),
    }
    Ok(())
}
