//! `POST keypackages/claim`: KeyPackages of one owner, each for this claimant.
//!
//! Source: docs/rules.md, "Claims".

use axum::http::StatusCode;
use nostr_extensions::mls_gateway::key_package::{ciphersuite, suite_name};
use nostr_protocol::PublicKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use utoipa::ToSchema;

use crate::{
    app::App,
    directory::claim::{self as directory, Answered, CLAIM_MAX, Handed, NothingGiven, Question},
    rest::{
        Problem, Visit,
        answer::{Answer, EventJson},
        events::Event,
        problem::ProblemDocument,
    },
    system::time::rfc3339,
};

/// Header that names a request for its repetitions (draft-ietf-httpapi-idempotency-key-header).
const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Most bytes of its value.
const NAME_BYTES_MAX: usize = 255;

/// A claim.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClaimRequest {
    /// The owner's key: 64 lower-case hex digits, or `npub`.
    #[schema(example = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")]
    owner: String,
    /// Number of KeyPackages.
    #[serde(default = "one")]
    #[schema(minimum = 1, maximum = 10, default = 1)]
    count: u64,
    /// The ciphersuite of each, by its name in RFC 9420 or by its number.
    #[serde(default)]
    ciphersuite: Option<Suite>,
}

const fn one() -> u64 {
    1
}

/// A ciphersuite by name or number.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Suite {
    /// Its number.
    Number(u16),
    /// Its name, or its number as text.
    Name(String),
}

/// The KeyPackages of a claim.
#[derive(Serialize, ToSchema)]
pub(crate) struct ClaimAnswer {
    /// The KeyPackages, oldest first and those of last resort after all others. There may be fewer than were asked for.
    keypackages: Vec<ClaimedPackage>,
    /// KeyPackages of the owner that can still be given for the first time.
    #[schema(example = 7)]
    remaining: usize,
}

/// A KeyPackage that was given.
#[derive(Serialize, ToSchema)]
pub(crate) struct ClaimedPackage {
    /// The owner's key, in hex.
    owner: String,
    /// Its reference: of its tags, else of its bytes.
    key_reference: Option<String>,
    /// Its ciphersuite, by its name in RFC 9420, else by its number.
    #[schema(example = "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519")]
    ciphersuite: Option<String>,
    /// The time from which on it is of no use (RFC 3339).
    #[schema(example = "2026-12-01T00:00:00Z")]
    expires_at: String,
    /// Whether others are given it too.
    last_resort: bool,
    /// The event, as its owner signed it.
    #[schema(value_type = Event)]
    event: EventJson,
}

impl ClaimedPackage {
    fn of(app: &App, handed: &Handed) -> Self {
        let event = handed.released.event();
        let described = app.described.of(event);
        Self {
            owner: event.pubkey().to_hex(),
            key_reference: described.reference.clone(),
            ciphersuite: described.ciphersuite.map(|number| suite_name(number).into_owned()),
            expires_at: rfc3339(handed.expires_at),
            last_resort: handed.is_last_resort,
            event: EventJson::new(&handed.released),
        }
    }
}

/// KeyPackages of one owner, each for this claimant alone.
///
/// The oldest come first. A KeyPackage is used up while the owner has another one; the last one, and one that is marked
/// as of last resort, is given again and again. With `Idempotency-Key` the same request gets the same answer for 24
/// hours.
#[utoipa::path(post, path = "/keypackages/claim", tag = "keypackages", security(("nip98" = [])),
    request_body = ClaimRequest,
    params(("Idempotency-Key" = Option<String>, Header,
        description = "A name of 1 to 255 visible characters for this request of this reader.")),
    responses(
        (status = 200, description = "The KeyPackages.", body = ClaimAnswer),
        (status = 400, description = "The body is no claim.", body = ProblemDocument),
        (status = 401, description = "No proof, or a bad one.", body = ProblemDocument),
        (status = 403, description = "The relay takes no proof of this key.", body = ProblemDocument),
        (status = 404, description = "The owner has none that fits.", body = ProblemDocument),
        (status = 413, description = "The body is over `max_message_length`.", body = ProblemDocument),
        (status = 415, description = "The body is not `application/json`.", body = ProblemDocument),
        (status = 422, description = "Another request has this `Idempotency-Key`.", body = ProblemDocument),
        (status = 429, description = "As many were claimed as may be in an hour.", body = ProblemDocument),
        (status = 503, description = "The store does not answer.", body = ProblemDocument),
    ))]
pub(in crate::rest) async fn claim(visit: Visit) -> Result<Answer, Problem> {
    let reader = visit.key()?;
    let question = question(&visit)?;
    let Answered { handed, remaining } =
        directory::claim(&visit.caller, reader, question).await.map_err(|nothing| match nothing {
            NothingGiven::None => Problem::not_found(),
            NothingGiven::NameTaken => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid: another request has this Idempotency-Key; use a new one",
            ),
            NothingGiven::Refused(rejection) => rejection.into(),
        })?;
    let keypackages = handed.iter().map(|handed| ClaimedPackage::of(visit.app(), handed)).collect();
    Answer::json(&visit, &ClaimAnswer { keypackages, remaining }).await
}

fn question(visit: &Visit) -> Result<Question, Problem> {
    let request: ClaimRequest = serde_json::from_slice(&visit.body).map_err(|_| {
        Problem::bad_parameter(
            "the body is {\"owner\": hex or npub, \"count\": 1 to 10, \"ciphersuite\": name or number}, count and \
             ciphersuite optional",
        )
    })?;
    let owner = PublicKey::from_hex_or_npub(&request.owner)
        .map_err(|error| Problem::bad_parameter(format!("owner: {error}")))?;
    let count = usize::try_from(request.count).ok().filter(|count| (1..=CLAIM_MAX).contains(count));
    let count = count.ok_or_else(|| Problem::bad_parameter(format!("count is a number from 1 to {CLAIM_MAX}")))?;
    let unknown = || Problem::bad_parameter("ciphersuite is a name of RFC 9420, or a number from 1 to 65535");
    let suite = match request.ciphersuite {
        None => None,
        Some(Suite::Number(number)) => Some(number),
        Some(Suite::Name(text)) => Some(ciphersuite(&text).ok_or_else(unknown)?),
    };
    if suite == Some(0) {
        return Err(unknown());
    }
    let kept = match visit.header(IDEMPOTENCY_KEY)? {
        None => None,
        Some(name) if (1..=NAME_BYTES_MAX).contains(&name.len()) => {
            let suite = suite.map_or([0; 2], u16::to_be_bytes);
            let asked = [&owner.as_bytes()[..], &[count as u8], &suite].concat();
            Some((hash(name.as_bytes()), hash(&asked)))
        }
        Some(_) => return Err(Problem::bad_parameter(format!("Idempotency-Key has 1 to {NAME_BYTES_MAX} characters"))),
    };
    Ok(Question { owner, count, suite, kept })
}

fn hash(bytes: &[u8]) -> [u8; 16] {
    let mut front = [0; 16];
    front.copy_from_slice(&Sha256::digest(bytes)[..16]);
    front
}
