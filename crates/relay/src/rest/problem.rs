//! Refusals of the REST doors: problem documents.
//!
//! Source: RFC 9457; docs/rules.md, "REST". The status follows from the reason's word. `detail` is the reason as a
//! client of the socket reads it.

use std::collections::BTreeMap;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use nostr_protocol::{Rejection, Word};
use serde::Serialize;
use utoipa::{
    IntoResponses, ToSchema,
    openapi::{ContentBuilder, Ref, RefOr, Response as Stated, ResponseBuilder},
};

use crate::rate_limit::RetryAfter;

/// The media type of a problem document.
pub(super) const MEDIA_TYPE: &str = "application/problem+json";
/// Seconds after which a client may try again where no reason names a time.
const RETRY_SECS: u64 = 1;

/// A refusal of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Problem {
    status: StatusCode,
    detail: String,
    retry_secs: Option<u64>,
    /// The URL that a proof of this request names.
    url: Option<String>,
    /// A word for a program, where the status does not say all.
    code: Option<&'static str>,
}

/// A refusal (RFC 9457).
#[derive(Serialize, ToSchema)]
#[schema(title = "Problem")]
pub(crate) struct ProblemDocument<'a> {
    /// Always `about:blank`: the status says the type.
    #[schema(example = "about:blank")]
    r#type: &'static str,
    /// The status in words.
    #[schema(example = "Unauthorized")]
    title: &'static str,
    /// The status.
    #[schema(example = 401, minimum = 400, maximum = 599)]
    status: u16,
    /// The relay's reason. It starts with a word of NIP-01 or NIP-42, and names the change that helps.
    #[schema(example = "auth-required: authenticate this request by NIP-98")]
    detail: &'a str,
    /// With 401: the URL that the `u` tag of a proof names.
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<&'a str>,
    /// With a token that does not count: `expired` or `token`.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    /// With 429: the seconds after which to try again.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

/// The answers beside its 200 that every GET for a reader with a key may give, for the document.
pub(super) struct OfGet;

/// The same of a list with a cursor.
pub(super) struct OfList;

const OF_GET: [(u16, &str); 5] = [
    (304, "The client has it."),
    (401, "No proof, or a bad one."),
    (403, "The relay takes no proof of this key, or the request costs too much."),
    (429, "Too many requests, too much reading, or too many questions to the access service."),
    (503, "The store does not answer, or the group is closed as the access service does not."),
];
const OF_LIST: [(u16, &str); 2] = [
    (400, "A parameter is wrong, or the cursor is none of this request."),
    (410, "The cursor is of another store; begin again."),
];

/// These answers, of which each refusal is a problem document.
fn stated<'s>(answers: impl IntoIterator<Item = &'s (u16, &'s str)>) -> BTreeMap<String, RefOr<Stated>> {
    let state = |(status, description): &(u16, &str)| {
        let answer = ResponseBuilder::new().description(*description);
        let answer = match status {
            400.. => {
                let schema = Ref::from_schema_name(ProblemDocument::name());
                answer.content(MEDIA_TYPE, ContentBuilder::new().schema(Some(schema)).build())
            }
            _ => answer,
        };
        (status.to_string(), RefOr::T(answer.build()))
    };
    answers.into_iter().map(state).collect()
}

impl IntoResponses for OfGet {
    fn responses() -> BTreeMap<String, RefOr<Stated>> {
        stated(&OF_GET)
    }
}

impl IntoResponses for OfList {
    fn responses() -> BTreeMap<String, RefOr<Stated>> {
        stated(OF_GET.iter().chain(&OF_LIST))
    }
}

impl Problem {
    /// A problem of this status.
    pub(crate) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), retry_secs: None, url: None, code: None }
    }

    /// The answer about a thing that is not there, or that the reader may not see.
    pub(crate) fn not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "invalid: there is no such thing here for this reader")
    }

    /// The answer to a request that needs a key.
    pub(crate) fn key_required() -> Self {
        Self::from(Rejection::auth_required("authenticate this request by NIP-98: Authorization: Nostr <base64>"))
    }

    /// The refusal of a proof, whatever the reason's word.
    pub(super) fn bad_proof(rejection: &Rejection) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, rejection.to_string())
    }

    /// The refusal of a parameter.
    pub(crate) fn bad_parameter(text: impl std::fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, format!("invalid: {text}"))
    }

    /// The refusal of an event of which a newer version is stored, or that was deleted.
    pub(super) fn conflict(rejection: &Rejection) -> Self {
        Self::new(StatusCode::CONFLICT, rejection.to_string())
    }

    /// The refusal of an event, by its reason: a rule of its form is broken where a request's own form is right.
    pub(super) fn of_event(rejection: &Rejection) -> Self {
        let status =
            if rejection.word == Word::Invalid { StatusCode::UNPROCESSABLE_ENTITY } else { status_of(rejection.word) };
        Self { status, ..Self::from(rejection.clone()) }
    }

    /// The status.
    #[cfg(test)]
    pub(super) const fn status(&self) -> StatusCode {
        self.status
    }

    /// The same problem with a word for a program.
    pub(crate) fn with_code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// Names the URL that a proof of the request names. A request that needs a token takes no proof.
    pub(super) fn at(mut self, url: Option<String>) -> Self {
        self.url = url.filter(|_| self.status == StatusCode::UNAUTHORIZED && self.code.is_none());
        self
    }
}

const fn status_of(word: Word) -> StatusCode {
    match word {
        Word::Invalid | Word::Unsupported => StatusCode::BAD_REQUEST,
        Word::AuthRequired => StatusCode::UNAUTHORIZED,
        Word::Blocked | Word::Restricted | Word::Pow => StatusCode::FORBIDDEN,
        Word::Duplicate => StatusCode::CONFLICT,
        Word::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Word::Error => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The seconds in a reason that ends with `retry in N s` (docs/rules.md, "Rate limits" 11).
fn secs_in(reason: &str) -> Option<u64> {
    reason.rsplit_once("retry in ")?.1.strip_suffix(" s")?.parse().ok()
}

impl From<Rejection> for Problem {
    fn from(rejection: Rejection) -> Self {
        let status = status_of(rejection.word);
        let retry_secs =
            (status == StatusCode::TOO_MANY_REQUESTS).then(|| secs_in(&rejection.text).unwrap_or(RETRY_SECS));
        Self { status, detail: rejection.to_string(), retry_secs, url: None, code: None }
    }
}

impl From<RetryAfter> for Problem {
    fn from(retry: RetryAfter) -> Self {
        Self::from(Rejection::from(retry))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = ProblemDocument {
            r#type: "about:blank",
            title: self.status.canonical_reason().unwrap_or("Problem"),
            status: self.status.as_u16(),
            detail: &self.detail,
            url: self.url.as_deref(),
            code: self.code,
            retry_after: self.retry_secs,
        };
        let mut response = (self.status, axum::Json(document)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(secs) = self.retry_secs {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(nostr_protocol::http_auth::SCHEME));
        }
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_of_a_reason_decides_the_status() {
        for (rejection, of_request, of_event) in [
            (Rejection::invalid("x"), 400, 422),
            (Rejection::unsupported("x"), 400, 400),
            (Rejection::auth_required("x"), 401, 401),
            (Rejection::blocked("x"), 403, 403),
            (Rejection::restricted("x"), 403, 403),
            (Rejection::duplicate("x"), 409, 409),
            (Rejection::rate_limited("x"), 429, 429),
            (Rejection::error("x"), 503, 503),
        ] {
            assert_eq!(Problem::of_event(&rejection).status().as_u16(), of_event, "{rejection}");
            assert_eq!(Problem::from(rejection).status().as_u16(), of_request);
        }
    }

    #[test]
    fn the_seconds_of_a_rate_are_told_in_the_header() {
        let of = |text: &'static str| Problem::from(Rejection::rate_limited(text)).retry_secs;
        assert_eq!(of("too much reading; retry in 17 s"), Some(17));
        assert_eq!(of("too much reading"), Some(RETRY_SECS));
        assert_eq!(Problem::from(Rejection::error("retry in 17 s")).retry_secs, None);
        let response = Problem::from(Rejection::rate_limited("slow down; retry in 17 s")).into_response();
        assert_eq!(response.headers()[header::RETRY_AFTER], "17");
    }
}
