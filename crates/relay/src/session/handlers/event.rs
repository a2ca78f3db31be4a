//! `EVENT`: an event is parsed, paid for, looked up, verified, admitted and handed to the writer, which answers.
//!
//! An event that the operator's program is asked about goes on in a task of its own ([`Asked`]).
//!
//! An event that lacks nothing but a key of its sender may wait for the client's AUTH: paid for, and not yet verified.
//!
//! The connection's task parses the event and checks the signature: the runtime's workers are the pool, the order
//! within a connection is kept, and between two events other clients get their share of the processor ([`Shares`]).
//!
//! [`Shares`]: crate::shares::Shares

use std::{sync::Arc, time::Instant};

use nostr_extensions::{
    Admitted, Group, GroupStatus, Publisher, Source, admit, audience,
    kinds::{Budget, rules},
};
use nostr_protocol::{
    Event, EventError, EventId, Kind, PublicKey, Rejection, Unverified, Verified, Word,
    message::{Answer, notice_frame, refused_frame},
};
use nostr_store::{
    DUPLICATE,
    weight::{Weight, price_of_members},
};

use super::super::{Caller, Session, at_program::Asked, settling};
use crate::{
    app::App,
    delivery::{
        groups::GroupState,
        writer::{Arrival, Handed, InFlight, Outcome},
    },
    error::read_failed,
    inboxes::is_known,
    rate_limit::{Charges, Class, Fault, NotByKey, Payer, Price, Sender},
    system::time::rfc3339,
};

/// Takes in the event `json` of the message `text`, which may be paid for already. Every answer goes through the
/// connection's outbox.
pub(crate) async fn handle(session: &mut Session, text: &str, json: &str, paid: Option<Payment>) {
    let event = match parse(&mut session.caller, json) {
        Ok(event) => event,
        Err(error) => return session.caller.in_flight.answer(answer_to_bad_event(json, &error)),
    };
    let payment = match payment(&mut session.caller, event.event(), paid).await {
        Ok(payment) => payment,
        Err(rejection) => return refuse(&mut session.caller, event.event(), rejection.into()),
    };
    if lacks_key_alone(session, event.event(), text.len()).await {
        return session.waiting.push(text, None, Some(payment));
    }
    if let Some(asked) = submit(&mut session.caller, event, payment).await {
        session.at_program.put(asked);
    }
    tokio::task::consume_budget().await;
}

/// Takes in the one event of a request, and waits for its outcome. An event that lacks a key waits for none.
///
/// # Errors
/// The reason why `json` is no event.
pub(crate) async fn publish(caller: &mut Caller, json: &str) -> Result<Outcome, EventError> {
    let event = parse(caller, json)?;
    match payment(caller, event.event(), None).await {
        Ok(payment) => {
            if let Some(asked) = submit(caller, event, payment).await {
                asked.settle().await;
            }
        }
        Err(rejection) => refuse(caller, event.event(), rejection.into()),
    }
    caller.in_flight.settled().await;
    Ok(caller.in_flight.take_outcome())
}

/// Parses an event, and charges for one that is none.
fn parse(caller: &mut Caller, json: &str) -> Result<Unverified, EventError> {
    let parsed = Unverified::parse(json.as_bytes());
    if parsed.is_err() {
        caller.app.metrics.error("event");
        caller.fault(Fault::Malformed, json.len());
    }
    parsed
}

/// Hands an event that is paid for to the writer, if the rules let it. Returns one that the operator's program is to be
/// asked about before.
#[must_use]
async fn submit(caller: &mut Caller, event: Unverified, payment: Payment) -> Option<Asked> {
    let named = event.event().clone();
    let arrival = payment.arrival;
    match take(caller, event, payment).await {
        Ok(Intake::New(handed)) => hand_on(&caller.app, *handed, &caller.in_flight).await,
        Ok(Intake::Asked(asked)) => return Some(*asked),
        Ok(Intake::Duplicate) => caller.in_flight.conclude(&named.id(), Outcome::Accepted(DUPLICATE.into())),
        Err(refused) => {
            note_refused(&caller.app, arrival, named.kind());
            refuse(caller, &named, refused);
        }
    }
    None
}

/// Hands an event that nothing refuses to the writer, which answers.
pub(crate) async fn hand_on(app: &App, handed: Handed, in_flight: &Arc<InFlight>) {
    if is_key_package(handed.admitted.event()) {
        log_key_package(app, handed.arrival, &handed.admitted);
    }
    app.writer.save(handed, in_flight).await;
}

fn is_key_package(event: &Event) -> bool {
    rules(event.kind()).budget == Budget::KeyPackages
}

/// Notes the refusal of an event that was paid for in the logs.
pub(crate) fn note_refused(app: &App, arrival: Arrival, kind: Kind) {
    tracing::debug!(request = %arrival.request, event_kind = kind.0, "event refused");
    app.request_log.refused(arrival, kind);
}

fn refuse(caller: &mut Caller, event: &Event, refused: Refused) {
    if let Refused::Forged(_) = refused {
        caller.fault(Fault::Malformed, event.json().len());
    }
    reject(&caller.app, &caller.in_flight, event, Rejection::from(refused));
}

/// Tells the publisher of an event its refusal.
pub(crate) fn reject(app: &App, in_flight: &InFlight, event: &Event, rejection: Rejection) {
    app.metrics.rejected(event.kind(), &rejection);
    in_flight.conclude(&event.id(), Outcome::Refused(rejection));
}

enum Intake {
    /// An event for the writer.
    New(Box<Handed>),
    /// The same, once the operator's program has been asked.
    Asked(Box<Asked>),
    /// An event that is stored already.
    Duplicate,
}

/// The reason why an event is not taken.
enum Refused {
    /// A rule or a limit forbids it.
    ByRule(Rejection),
    /// Its signature does not hold.
    Forged(EventError),
}

impl From<Rejection> for Refused {
    fn from(rejection: Rejection) -> Self {
        Self::ByRule(rejection)
    }
}

impl From<Refused> for Rejection {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::ByRule(rejection) => rejection,
            Refused::Forged(error) => Self::invalid(error.to_string()),
        }
    }
}

/// Whether the event would be refused for want of a key alone, and may wait for the client's AUTH.
async fn lacks_key_alone(session: &Session, event: &Event, bytes: usize) -> bool {
    if !session.waits_for_key(bytes) {
        return false;
    }
    let caller = &session.caller;
    let (app, now) = (&caller.app, caller.app.clock.now());
    let publisher = Publisher { reader: &caller.reader, names: &caller.client.names };
    // No group is looked up for an event that cannot pass, or that lacks a key whatever its group is.
    if let Err(rejection) = admit::precheck(event, publisher, &app.policy(), now) {
        return rejection.word == Word::AuthRequired;
    }
    // Whether a wrap waits that brings no proof tells nothing about its group either.
    if let Err(rejection) = app.inboxes.require_proof(caller, publisher, event).await {
        return rejection.word == Word::AuthRequired;
    }
    let group = match admit::group_of(event) {
        Some(group) => app.groups.get(&group).await.ok(),
        None => None,
    };
    admit::lacks_key(event, publisher, &app.policy(), group.as_deref().map(GroupState::group), now)
}

async fn take(caller: &Caller, event: Unverified, mut payment: Payment) -> Result<Intake, Refused> {
    let app = &caller.app;
    let now = app.clock.now();
    let publisher = Publisher { reader: &caller.reader, names: &caller.client.names };
    admit::precheck(event.event(), publisher, &app.policy(), now)?;
    let id = event.event().id();
    // The transaction that would store the event looks it up too; a store that is shared is asked only then.
    let is_stored = !app.delivery.is_followed() && app.store.holds(&id, now).await.map_err(read_failed)?;
    // The signature and the rules are checked for a stored event too, so that only a client that may publish an event
    // learns that it is stored.
    let verified = event.verify();
    app.metrics.signature_checked();
    let verified = verified.map_err(Refused::Forged)?;
    if admit::group_of(verified.event()).is_some() {
        caller.in_flight.groups_settled().await;
    }
    let payer = caller.payer_of(verified.event());
    let asked = app.write_policy.asks().then(|| (verified.clone(), app.management.changes()));
    app.inboxes.require_proof(caller, publisher, verified.event()).await?;
    let package = is_key_package(verified.event()).then(|| verified.event().clone());
    let (admitted, group) = decide(app, verified, publisher, payer).await.inspect_err(|rejection| {
        if let Some(package) = package.filter(|_| rejection.rule.is_some_and(|rule| rule.0 == "KeyPackages")) {
            app.console.refused.note(&package, &rejection.to_string(), true, now);
        }
    })?;
    let state = group.as_deref().map(GroupState::group);
    if is_stored {
        return Ok(Intake::Duplicate);
    }
    pay_sender(caller, admitted.event(), state, &mut payment).await?;
    let room = app.quotas.hold(caller, &admitted).await?;
    let Payment { charges, arrival, .. } = payment;
    let handed = Handed { admitted, payer: caller.payer_hash(), charges, arrival, room };
    Ok(match asked {
        Some((verified, changes)) => {
            Intake::Asked(Box::new(Asked::new(caller, (verified, payer), changes, handed, now)))
        }
        None => Intake::New(Box::new(handed)),
    })
}

/// Decides whether the rules let a reader publish an event, as far as that is decided before the store does, and gives
/// the state of its group.
pub(crate) async fn decide(
    app: &App,
    event: Verified,
    publisher: Publisher<'_>,
    payer: Payer,
) -> Result<(Admitted, Option<Arc<GroupState>>), Rejection> {
    let now = app.clock.now();
    let group = match admit::group_of(event.event()) {
        Some(group) => {
            let stored = app.groups.get(&group).await.map_err(read_failed)?;
            Some(settling::for_publisher(app, publisher.reader, payer, stored).await?)
        }
        None => None,
    };
    // If other processes write too, the cached state of a group may be a moment old, and nobody is refused by an old
    // one.
    let retry = group.as_ref().filter(|_| app.delivery.is_followed()).map(|group| (event.clone(), group.id.clone()));
    let mut group = group;
    let admitted =
        match (admit::admit(event, publisher, &app.policy(), group.as_deref().map(GroupState::group), now), retry) {
            (Err(_), Some((event, id))) => {
                app.delivery.fresh().await?;
                let fresh = app.groups.get(&id).await.map_err(read_failed)?;
                if app.gate.is_closed(&fresh) {
                    return Err(settling::closed());
                }
                group = Some(fresh);
                admit::admit(event, publisher, &app.policy(), group.as_deref().map(GroupState::group), now)?
            }
            (admitted, _) => admitted?,
        };
    Ok((admitted, group))
}

/// Logs the specification's line about a KeyPackage, and its faults ("Structured Logging (JSON)").
fn log_key_package(app: &App, arrival: Arrival, admitted: &Admitted) {
    let event = admitted.event();
    let (request, owner) = (arrival.request, app.owner_tags.owner_tag(&event.pubkey()));
    tracing::info!(
        target: "mls_gateway::mod",
        %request,
        event_kind = event.kind().0,
        %owner,
        expiry = rfc3339(admitted.expires_at()),
        "Processing KeyPackage from owner: {owner}"
    );
    if let Some(warning) = admitted.warning() {
        tracing::info!(%request, %owner, "KeyPackage: {warning}");
        app.console.refused.note(event, warning, false, app.clock.now());
    }
}

/// The price of an event. One that changes a group costs for the group's members too: each instance reads them anew.
fn price(event: &Event, member: Option<&Member>) -> Price {
    let class = match rules(event.kind()).budget {
        Budget::KeyPackages => Class::KeyPackage,
        Budget::Events | Budget::GroupMessages | Budget::GiftWraps => Class::Event,
    };
    let members = member.map_or(0, |member| member.changed_members);
    Price { class, times: Weight::of(event.view()).price().saturating_add(price_of_members(members)) }
}

/// A key of the reader that is a member of the managed group that an event names.
#[derive(Clone, Copy)]
struct Member {
    key: PublicKey,
    /// Number of members of the group, if the event may change them.
    changed_members: usize,
    /// Set where anyone founded the group, so that a client can make as many such keys as it likes.
    is_free: bool,
}

impl Member {
    /// The reader's member of a group: the event's author where it is one of them, else the first.
    fn of(caller: &Caller, event: &Event, group: &Group) -> Option<Self> {
        let GroupStatus::Managed(view) = &group.status else { return None };
        let author = event.pubkey();
        let keys = caller.reader.keys();
        let author = keys.iter().filter(|key| **key == author);
        let key = author.chain(keys).find(|key| view.members.contains_key(*key)).copied()?;
        let policy = caller.app.policy();
        let may_change = match event.kind() {
            Kind::ROSTER => true,
            Kind::GIFT_WRAP => {
                let recipients = audience::recipients(event.view());
                view.record.source == Source::GiftWrap && recipients.iter().any(|key| !view.members.contains_key(key))
            }
            _ => false,
        };
        let changed_members = if may_change { view.members.len() } else { 0 };
        Some(Self { key, changed_members, is_free: view.record.is_anyones() && !policy.is_named(&key) })
    }
}

/// The key that is a member of the group that an event names, by the state that this process knows. A state that is
/// not in memory is read for few events of a connection, since nobody has paid yet; without it the address pays.
async fn member(caller: &mut Caller, event: &Event) -> Option<Member> {
    if caller.reader.is_anonymous() {
        return None;
    }
    let id = admit::group_of(event)?;
    let group = match caller.app.groups.in_memory(&id) {
        Some(group) => group,
        None => {
            let (app, block) = (&caller.app, caller.client.block());
            if !app.limits.may_look_up(&mut caller.limits, block, app.clock.now_ms()) {
                return None;
            }
            app.groups.get(&id).await.ok()?
        }
    };
    Member::of(caller, event, &group)
}

/// The payment for one event.
pub(crate) struct Payment {
    charges: Charges,
    price: Price,
    /// Set where a key that nobody can make for free paid alone.
    is_by_key: bool,
    arrival: Arrival,
}

/// The payment for an event: the one that was made when it came, or a new one.
async fn payment(caller: &mut Caller, event: &Event, paid: Option<Payment>) -> Result<Payment, Rejection> {
    if let Some(paid) = paid {
        // The wait for the client's AUTH is no time of the relay's.
        let arrival = Arrival { at: Instant::now(), ..paid.arrival };
        return Ok(Payment { arrival, ..paid });
    }
    let arrival = caller.app.request_log.arrival();
    tracing::debug!(request = %arrival.request, event_kind = event.kind().0, "event arrived");
    let member = member(caller, event).await;
    pay(caller, event, member, arrival)
}

/// Takes the price of an event before anything is computed for it: from a member of the group that it names, or from a
/// key that the operator named, alone; from the address of anybody else (docs/rules.md, "Rate limits" 2 to 4).
fn pay(caller: &Caller, event: &Event, member: Option<Member>, arrival: Arrival) -> Result<Payment, Rejection> {
    let app = &caller.app;
    let (block, price, now_ms) = (caller.client.block(), price(event, member.as_ref()), app.clock.now_ms());
    let by_key = match member {
        Some(Member { key, is_free: false, .. }) => Some(app.limits.key(&key, block, price, now_ms)?),
        Some(Member { key, is_free: true, .. }) => match app.limits.member(&key, block, price, now_ms) {
            Ok(paid) => Some(paid),
            Err(NotByKey::Key(retry)) => return Err(retry.into()),
            Err(NotByKey::Ceiling) => None,
        },
        None => match caller.payer_of(event) {
            Payer::Key(key) => Some(app.limits.key(&key, block, price, now_ms)?),
            Payer::Address(_) => None,
        },
    };
    let mut charges = app.delivery.charges();
    charges.add(match by_key {
        Some(paid) => paid,
        None => app.limits.address(block, price, now_ms)?,
    });
    Ok(Payment { charges, price, is_by_key: by_key.is_some(), arrival })
}

/// Charges the sending key for an admitted event, unless a key paid alone, and for a message the sender at its group or
/// inbox (docs/rules.md, "Rate limits" 4 to 6).
async fn pay_sender(
    caller: &Caller,
    event: &Event,
    group: Option<&Group>,
    Payment { charges, price, is_by_key, .. }: &mut Payment,
) -> Result<(), Rejection> {
    let limits = &caller.app.limits;
    let (block, now_ms) = (caller.client.block(), caller.app.clock.now_ms());
    let author = event.pubkey();
    let key = if caller.reader.has(&author) { Some(author) } else { caller.reader.primary() };
    if let Some(key) = key.filter(|_| !*is_by_key) {
        charges.add(limits.sender(&key, block, *price, now_ms)?);
    }
    let member = group.and_then(|group| Member::of(caller, event, group)).map(|member| member.key);
    let sender = member.or(key).map_or(Sender::Address(block), Sender::Key);
    match rules(event.kind()).budget {
        Budget::Events | Budget::KeyPackages => {}
        Budget::GroupMessages => {
            if let Some(group) = admit::group_of(event) {
                charges.add(limits.group_message(sender, block, group.as_str(), now_ms)?);
            }
        }
        Budget::GiftWraps => {
            for recipient in audience::recipients(event.view()) {
                // A sender that cannot be recognised now counts as a stranger.
                let is_known = limits.is_crowded(&recipient, now_ms)
                    && is_known(caller, &caller.reader, &recipient).await.unwrap_or(false);
                charges.add(limits.gift_wrap(sender, block, &recipient, is_known, now_ms)?);
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
pub(super) fn claimed_id(json: &str) -> Option<EventId> {
    let after = json.split_once("\"id\"")?.1.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?;
    EventId::from_hex(after.get(..64)?)
}
