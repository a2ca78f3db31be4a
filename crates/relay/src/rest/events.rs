//! One event: read by its id, or published.
//!
//! Source: docs/rules.md, "REST" and "Answers to clients".

use nostr_extensions::Released;
use nostr_protocol::{EventId, Filter, Rejection};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Answer, Problem, Visit,
    answer::EventJson,
    path::PathValues,
    problem::{OfGet, ProblemDocument},
};
use crate::{
    delivery::writer::Outcome,
    session::{
        archive::{ArchiveRead, Limits},
        handlers::event,
    },
};

/// The outcome of an event that was accepted.
#[derive(Serialize, ToSchema)]
pub(crate) struct Accepted {
    /// Always true: a refusal is a problem.
    #[schema(example = true)]
    accepted: bool,
    /// Empty for a new event; `duplicate: …` for one that is stored already.
    #[schema(example = "")]
    message: String,
}

/// A signed event (NIP-01), as its author signed it.
#[derive(ToSchema)]
#[schema(title = "Event", example = json!({
    "id": "d7a0c1b64b0e4d4d8a5a3f3a0a0d3b7f3f1d0c8c2a5b6e7f8091a2b3c4d5e6f7",
    "pubkey": "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798",
    "created_at": 1795370771, "kind": 445, "tags": [["h", "grp_abc123"]], "content": "AAEAAg",
    "sig": concat!("908a15e46fb4d8675bab026fc230a0e3542bfade63da02d542fb78b2a8513fcd",
        "0092619a2c8c1221e581946e0191f2af505dfdf8657a414dbca329186f009262")
}))]
#[allow(dead_code, reason = "the document's schema; answers hold the JSON of the author")]
pub(crate) struct Event {
    /// SHA-256 of the canonical form, in hex.
    id: String,
    /// The author's key, in hex.
    pubkey: String,
    /// Unix seconds.
    created_at: u64,
    /// The kind.
    kind: u16,
    /// The tags.
    tags: Vec<Vec<String>>,
    /// The content.
    content: String,
    /// The author's signature, in hex.
    sig: String,
}

/// One event by its id.
///
/// It is found as by a REQ with `ids`: the id of a message opens an unlisted group. With `keypackage_consumption =
/// "on_read"` the KeyPackages of others are not found.
#[utoipa::path(get, path = "/events/{id}", tag = "events", security(("nip98" = [])),
    params(("id" = String, Path, description = "The event's id: 64 lower-case hex digits.",
        example = "d7a0c1b64b0e4d4d8a5a3f3a0a0d3b7f3f1d0c8c2a5b6e7f8091a2b3c4d5e6f7")),
    responses(
        (status = 200, description = "The event.", body = Event),
        (status = 404, description = "There is none that this reader may see.", body = ProblemDocument),
        OfGet,
    ))]
pub(super) async fn one(path: PathValues, visit: Visit) -> Result<Answer, Problem> {
    visit.key()?;
    let id = path.get("id").and_then(EventId::from_hex).ok_or_else(Problem::not_found)?;
    let found = find(&visit, id).await?.ok_or_else(Problem::not_found)?;
    Answer::json(&visit, &EventJson::new(&found)).await
}

/// The event of this id, if the gate releases it to the reader.
async fn find(visit: &Visit, id: EventId) -> Result<Option<Released>, Problem> {
    let filters = [Filter { ids: Some(vec![id]), ..Filter::default() }];
    let app = visit.app();
    app.gate.admit_request(&visit.caller.reader, &filters)?;
    app.delivery.fresh().await?;
    let mut read = ArchiveRead::new(&visit.caller, &filters, app.groups.readable_up_to(), Limits::NONE);
    let mut found = None;
    while let Some(page) = read.next_page().await.map_err(Rejection::from)? {
        found = found.or(page.into_iter().next());
    }
    Ok(found)
}

/// Publishes an event, by the rules and at the price of an EVENT.
///
/// Without a proof it is published as by a connection that has not authenticated.
#[utoipa::path(post, path = "/events", tag = "events", security((), ("nip98" = [])),
    request_body(content = Event, description = "The signed event."),
    responses(
        (status = 200, description = "It is stored, with the effect that its sender asked for.", body = Accepted,
            example = json!({"accepted": true, "message": ""})),
        (status = 400, description = "The body is no event.", body = ProblemDocument),
        (status = 401, description = "A bad proof, or none where the event needs one.", body = ProblemDocument),
        (status = 403, description = "`blocked:` or `restricted:`.", body = ProblemDocument),
        (status = 409, description = "A newer version is stored, or the event was deleted.", body = ProblemDocument),
        (status = 413, description = "The body is over `max_message_length`.", body = ProblemDocument),
        (status = 415, description = "The body is not `application/json`.", body = ProblemDocument),
        (status = 422, description = "`invalid:` a rule of its form is broken.", body = ProblemDocument),
        (status = 429, description = "`rate-limited:`", body = ProblemDocument),
        (status = 503, description = "`error:` the store takes no events now.", body = ProblemDocument),
    ))]
pub(super) async fn publish(mut visit: Visit) -> Result<Answer, Problem> {
    let body = std::mem::take(&mut visit.body);
    let json = std::str::from_utf8(&body).map_err(|_| Problem::bad_parameter("the body is not UTF-8"))?;
    match event::publish(&mut visit.caller, json.trim()).await.map_err(Problem::bad_parameter)? {
        Outcome::Accepted(message) => {
            let message = message.into_owned();
            Answer::json(&visit, &Accepted { accepted: true, message }).await
        }
        Outcome::Conflict(rejection) => Err(Problem::conflict(&rejection)),
        Outcome::Refused(rejection) => Err(Problem::of_event(&rejection)),
    }
}
