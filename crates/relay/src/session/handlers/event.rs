//! `EVENT`: an event is parsed, paid for, looked up, verified, admitted and handed to the writer, which answers.
//!
//! The connection's task checks the signature: the runtime's workers are the pool, the order within a connection is
//! kept, and between two events other connections get their turn.

use nostr_extensions::{
    Admitted, Publisher, admit, audience,
    kinds::{Budget, rules},
};
use nostr_protocol::{
    Event, EventError, EventId, Kind, Rejection, Unverified,
    message::{Answer, notice_frame, ok_frame, refused_frame},
};

use super::super::Session;
use crate::{
    delivery::writer::DUPLICATE,
    error::read_failed,
    rate_limit::{Charges, Class, Sender},
};

/// Takes an event in. Every answer goes through the connection's outbox.
pub(crate) async fn handle(session: &mut Session, json: &str) {
    let parsed = Unverified::parse(json.as_bytes());
    let class = parsed.as_ref().map_or(Class::Event, |event| class(event.event().kind()));
    let paid = session.pay_address(class);
    let (event, charges) = match (parsed, paid) {
        (Ok(event), Ok(charges)) => (event, charges),
        (Ok(event), Err(rejection)) => {
            session.app.metrics.rejected(&rejection);
            return session.in_flight.answer(refused_frame(&event.event().id(), &rejection));
        }
        (Err(error), _) => {
            session.app.metrics.error("event");
            session.penalise_address();
            return session.in_flight.answer(answer_to_bad_event(json, &error));
        }
    };
    let id = event.event().id();
    match take(session, event, charges).await {
        Ok(Intake::New(admitted, charges)) => session.app.writer.save(*admitted, &session.in_flight, charges).await,
        Ok(Intake::Duplicate) => session.in_flight.answer(ok_frame(&id, true, DUPLICATE)),
        Err(rejection) => {
            session.app.metrics.rejected(&rejection);
            session.in_flight.answer(refused_frame(&id, &rejection));
        }
    }
    tokio::task::consume_budget().await;
}

enum Intake {
    /// An event for the writer, with the charges for it.
    New(Box<Admitted>, Charges),
    /// An event that is stored already.
    Duplicate,
}

async fn take(session: &Session, event: Unverified, mut charges: Charges) -> Result<Intake, Rejection> {
    let app = &session.app;
    let now = app.clock.now();
    let publisher = Publisher { reader: &session.reader, names: &session.client.names };
    admit::precheck(event.event(), publisher, &app.policy, now)?;
    let id = event.event().id();
    // The transaction that would store the event looks it up too; a store that is shared is asked only then.
    let is_stored = !app.delivery.is_followed() && app.store.holds(&id).await.map_err(read_failed)?;
    // The signature and the rules are checked for a stored event too, so that only a client that may publish an event
    // learns that it is stored.
    let verified = event.verify().map_err(|error| {
        session.penalise_address();
        Rejection::invalid(error.to_string())
    })?;
    let group = match admit::group_of(verified.event()) {
        Some(group) => {
            session.in_flight.groups_settled().await;
            Some(app.groups.get(&group).await.map_err(read_failed)?)
        }
        None => None,
    };
    // If other processes write too, the cached state of a group may be a moment old, and nobody is refused by an old
    // one.
    let retry = group.as_ref().filter(|_| app.delivery.is_followed()).map(|group| (verified.clone(), group.id.clone()));
    let admitted = match (admit::admit(verified, publisher, &app.policy, group.as_deref(), now), retry) {
        (Err(_), Some((verified, group))) => {
            app.delivery.fresh().await?;
            let group = app.groups.get(&group).await.map_err(read_failed)?;
            admit::admit(verified, publisher, &app.policy, Some(&group), now)?
        }
        (admitted, _) => admitted?,
    };
    if is_stored {
        return Ok(Intake::Duplicate);
    }
    pay_sender(session, admitted.event(), &mut charges)?;
    if let Some(warning) = admitted.warning() {
        tracing::info!(owner = %app.owner_tags.owner_tag(&admitted.event().pubkey()), "KeyPackage: {warning}");
    }
    Ok(Intake::New(Box::new(admitted), charges))
}

fn class(kind: Kind) -> Class {
    match rules(kind).budget {
        Budget::KeyPackages => Class::KeyPackage,
        Budget::Events | Budget::GroupMessages | Budget::GiftWraps => Class::Event,
    }
}

/// Charges the sending key for an admitted event, and for a message the sender at its group or inbox (docs/rules.md,
/// "Rate limits" 3 to 5).
fn pay_sender(session: &Session, event: &Event, charges: &mut Charges) -> Result<(), Rejection> {
    let limits = &session.app.limits;
    let now_ms = session.app.clock.now_ms();
    let author = event.pubkey();
    let key = if session.reader.has(&author) { Some(author) } else { session.reader.primary() };
    if let Some(key) = key {
        charges.add(limits.sender(&key, class(event.kind()), now_ms)?);
    }
    let sender = key.map_or(Sender::Address(session.client.address), Sender::Key);
    match rules(event.kind()).budget {
        Budget::Events | Budget::KeyPackages => {}
        Budget::GroupMessages => {
            if let Some(group) = admit::group_of(event) {
                charges.add(limits.group_message(sender, group.as_str(), now_ms)?);
            }
        }
        Budget::GiftWraps => {
            for recipient in audience::recipients(event.view()) {
                charges.add(limits.gift_wrap(sender, &recipient, now_ms)?);
            }
        }
    }
    Ok(())
}

/// The answer to JSON that is no event: `OK false` where it names an id, as NIP-01 has it, else a `NOTICE`.
pub(crate) fn answer_to_bad_event(json: &str, error: &EventError) -> Answer {
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
