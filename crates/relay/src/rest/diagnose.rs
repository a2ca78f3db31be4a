//! Diagnoses for admin keys: whether a reader may publish an event and is shown it, and by which rule.
//!
//! Source: docs/rules.md, "REST" 15.

use nostr_extensions::Reader;
use nostr_protocol::{PublicKey, Rejection, Unverified, Verified};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{Answer, Problem, Visit, events::Event, problem::ProblemDocument};
use crate::session::diagnosis::{self, Diagnosis};

/// A question about an event and a reader.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DiagnoseRequest<'a> {
    /// The signed event, stored here or not.
    #[schema(value_type = Event)]
    #[serde(borrow)]
    event: &'a RawValue,
    /// The reader's key: 64 lower-case hex digits, or `npub`. Null, or left out, for a reader without a key.
    #[schema(example = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")]
    #[serde(default)]
    reader: Option<String>,
}

/// The decisions about the event.
#[derive(Serialize, ToSchema)]
pub(crate) struct DiagnoseAnswer {
    write: WriteVerdict,
    read: ReadVerdict,
}

/// The decision about publishing it now.
#[derive(Serialize, ToSchema)]
pub(crate) struct WriteVerdict {
    /// Whether the relay would answer `OK true` to the reader.
    #[schema(example = false)]
    allowed: bool,
    /// The text of that `OK`.
    #[schema(example = "restricted: this event is taken from its author alone; AUTH with the key that signed it too")]
    reason: String,
    /// Heading and number of the rule in docs/rules.md that decides; the heading alone for its table.
    #[schema(example = "Identity 2")]
    rule: String,
}

/// The decision about showing it to the reader now.
#[derive(Serialize, ToSchema)]
pub(crate) struct ReadVerdict {
    /// Whether a request of the reader by the event's id is given it: as it is stored, else as it would be.
    #[schema(example = true)]
    visible: bool,
    /// The reason; empty for a stored event that is shown.
    #[schema(example = "")]
    reason: String,
    /// Heading and number of the rule in docs/rules.md that decides; the heading alone for its table.
    #[schema(example = "Who may publish, who may read")]
    rule: String,
}

impl From<Diagnosis> for DiagnoseAnswer {
    fn from(Diagnosis { write, read }: Diagnosis) -> Self {
        Self {
            write: WriteVerdict { allowed: write.is_yes, reason: write.reason, rule: write.rule.to_string() },
            read: ReadVerdict { visible: read.is_yes, reason: read.reason, rule: read.rule.to_string() },
        }
    }
}

/// Whether a reader may publish an event and is shown it, and by which rule, for admin keys.
///
/// The code that decides about every event decides here, and nothing is stored. Rates are not looked at.
#[utoipa::path(post, path = "/diagnose", tag = "events", security(("nip98" = [])),
    request_body = DiagnoseRequest,
    responses(
        (status = 200, description = "The decisions.", body = DiagnoseAnswer),
        (status = 400, description = "The body is no such question, or holds no signed event.", body = ProblemDocument),
        (status = 401, description = "No proof, or a bad one.", body = ProblemDocument),
        (status = 403, description = "The key is none of `admin_pubkeys`.", body = ProblemDocument),
        (status = 413, description = "The body is over `max_message_length`.", body = ProblemDocument),
        (status = 415, description = "The body is not `application/json`.", body = ProblemDocument),
        (status = 429, description = "Too many requests, or too much reading.", body = ProblemDocument),
        (status = 503, description = "The store does not answer.", body = ProblemDocument),
    ))]
pub(super) async fn diagnose(visit: Visit) -> Result<Answer, Problem> {
    let asking = visit.key()?;
    if !visit.app().policy().is_admin(&asking) {
        return Err(Rejection::restricted("diagnoses are for the admin keys of this relay").into());
    }
    let (event, reader) = read(&visit)?;
    answer(&visit, event, &reader).await
}

/// Reads the body: a signed event, and the reader.
///
/// # Errors
/// 400 for any other body.
pub(crate) fn read(visit: &Visit) -> Result<(Verified, Reader), Problem> {
    let form = || Problem::bad_parameter("the body is {\"event\": a signed event, \"reader\": hex, npub or null}");
    let DiagnoseRequest { event, reader } = serde_json::from_slice(&visit.body).map_err(|_| form())?;
    let reader = match reader {
        Some(key) => {
            let key = PublicKey::from_hex_or_npub(&key);
            Reader::new(&[key.map_err(|error| Problem::bad_parameter(format!("reader: {error}")))?])
        }
        None => Reader::default(),
    };
    let no_event = |error| Problem::bad_parameter(format!("event: {error}"));
    let event = Unverified::parse(event.get().as_bytes()).map_err(no_event)?;
    let verified = event.verify();
    visit.app().metrics.signature_checked();
    Ok((verified.map_err(no_event)?, reader))
}

/// The decisions about an event and a reader.
///
/// # Errors
/// 503 where the store does not answer, 429 where the caller has read too much.
pub(crate) async fn answer(visit: &Visit, event: Verified, reader: &Reader) -> Result<Answer, Problem> {
    let diagnosis = diagnosis::of(&visit.caller, event, reader).await?;
    Answer::json(visit, &DiagnoseAnswer::from(diagnosis)).await
}
