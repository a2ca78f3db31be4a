//! `EVENT`: the way in. Parsed, paid for, looked up, verified, admitted, handed to the writer; the writer answers.
//!
//! A signature is checked here, on the connection's task: the runtime's workers are the pool, the order within a
//! connection is kept, and between two events other connections get their turn.

use nostr_extensions::{
    Admitted, Publisher, admit, audience,
    kinds::{Budget, rules},
};
use nostr_protocol::{
    Event, EventError, EventId, Kind, Rejection, Unverified,
    message::{notice_frame, ok_frame, refused_frame},
};
use nostr_store::StoreError;

use crate::{
    connection::Session,
    rate_limit::{Class, Receipt, Sender},
    writer::DUPLICATE,
};

/// Takes an event in. Every answer goes through the publisher's outbox.
pub(crate) async fn handle(session: &mut Session, json: &str) {
    let parsed = Unverified::parse(json.as_bytes());
    let class = parsed.as_ref().map_or(Class::Event, |event| class(event.event().kind()));
    let paid = session.pay_address(class);
    let (event, receipt) = match (parsed, paid) {
        (Ok(event), Ok(receipt)) => (event, receipt),
        (Ok(event), Err(rejection)) => {
            session.app.metrics.rejected(&rejection);
            return session.publisher.outbox.push(refused_frame(&event.event().id(), &rejection));
        }
        (Err(error), _) => {
            session.app.metrics.error("event");
            session.penalise_address();
            return session.publisher.outbox.push(frame_for_bad_event(json, &error));
        }
    };
    let id = event.event().id();
    match take(session, event, receipt).await {
        Ok(Taken::New(admitted, receipt)) => session.app.writer.save(*admitted, &session.publisher, receipt).await,
        Ok(Taken::Known) => session.publisher.outbox.push(ok_frame(&id, true, DUPLICATE)),
        Err(rejection) => {
            session.app.metrics.rejected(&rejection);
            session.publisher.outbox.push(refused_frame(&id, &rejection));
        }
    }
    tokio::task::consume_budget().await;
}

enum Taken {
    /// With what was paid for it.
    New(Box<Admitted>, Receipt),
    Known,
}

async fn take(session: &Session, event: Unverified, mut receipt: Receipt) -> Result<Taken, Rejection> {
    let app = &session.app;
    let now = app.clock.now();
    let writer = Publisher { reader: &session.reader, names: &session.peer.names };
    admit::precheck(event.event(), writer, &app.policy, now)?;
    let id = event.event().id();
    // A store that is shared is asked once, by the transaction that would store the event.
    let known = app.follow.is_none() && app.store.holds(&id).await.map_err(unavailable)?;
    // The signature is checked and the rules are asked whether the event is stored or not, so that only who may publish
    // an event learns that it is here.
    let verified = event.verify().map_err(|error| {
        session.penalise_address();
        Rejection::invalid(error.to_string())
    })?;
    let group = match admit::group_of(verified.event()) {
        Some(group) => {
            session.publisher.groups_settled().await;
            Some(app.groups.get(&group).await.map_err(unavailable)?)
        }
        None => None,
    };
    // Where others write too, what is known of a group may be a moment old: nobody is refused by that.
    let again = group.as_ref().filter(|_| app.follow.is_some()).map(|group| (verified.clone(), group.id.clone()));
    let admitted = match (admit::admit(verified, writer, &app.policy, group.as_deref(), now), again) {
        (Err(_), Some((verified, group))) => {
            app.fresh().await?;
            let group = app.groups.get(&group).await.map_err(unavailable)?;
            admit::admit(verified, writer, &app.policy, Some(&group), now)?
        }
        (admitted, _) => admitted?,
    };
    if known {
        return Ok(Taken::Known);
    }
    pay_sender(session, admitted.event(), &mut receipt)?;
    if let Some(warning) = admitted.warning() {
        tracing::info!(owner = %app.owner_tags.owner_tag(&admitted.event().pubkey()), "KeyPackage: {warning}");
    }
    Ok(Taken::New(Box::new(admitted), receipt))
}

#[allow(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
fn unavailable(error: StoreError) -> Rejection {
    tracing::warn!(%error, "reading failed");
    Rejection::error("storage unavailable, try again")
}

fn class(kind: Kind) -> Class {
    match rules(kind).budget {
        Budget::KeyPackages => Class::KeyPackage,
        Budget::Events | Budget::GroupMessages | Budget::GiftWraps => Class::Event,
    }
}

/// After admission: the key that sends, and for a message the group or inbox it goes to (decisions, "Rate limits").
fn pay_sender(session: &Session, event: &Event, receipt: &mut Receipt) -> Result<(), Rejection> {
    let limits = &session.app.limits;
    let now_ms = session.app.clock.now_ms();
    let author = event.pubkey();
    let key = if session.reader.has(&author) { Some(author) } else { session.reader.primary() };
    if let Some(key) = key {
        receipt.add(limits.sender(&key, class(event.kind()), now_ms)?);
    }
    let sender = key.map_or(Sender::Address(session.peer.address), Sender::Key);
    match rules(event.kind()).budget {
        Budget::Events | Budget::KeyPackages => {}
        Budget::GroupMessages => {
            if let Some(group) = admit::group_of(event) {
                receipt.add(limits.group_message(sender, group.as_str(), now_ms)?);
            }
        }
        Budget::GiftWraps => {
            for recipient in audience::recipients(event.view()) {
                receipt.add(limits.gift_wrap(sender, &recipient, now_ms)?);
            }
        }
    }
    Ok(())
}

/// The answer to what is no event: `OK false` where it names an id, as NIP-01 has it, else a `NOTICE`.
pub(crate) fn frame_for_bad_event(json: &str, error: &EventError) -> String {
    let rejection = Rejection::invalid(error.to_string());
    let id = match error {
        EventError::WrongId { claimed } => Some(*claimed),
        _ => claimed_id(json),
    };
    match id {
        Some(id) => refused_frame(&id, &rejection),
        None => notice_frame(&rejection.to_string()),
    }
}

/// The id that malformed JSON claims, where it can be made out.
fn claimed_id(json: &str) -> Option<EventId> {
    let after = json.split_once("\"id\"")?.1.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    EventId::from_hex(after.get(..64)?)
}
