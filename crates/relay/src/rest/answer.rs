//! Answers of the REST doors.
//!
//! Source: RFC 9110, 8.8.3 and 13.1.2; RFC 9111, 5.2; docs/rules.md, "REST". An event stands in an answer as
//! [`EventJson`], which is made from a [`Released`] alone. The bytes of an answer count in the memory of its request
//! until they are handed to the socket.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes},
    extract::{MatchedPath, OriginalUri, Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::Stream;
use nostr_extensions::Released;
use nostr_protocol::hex;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::{Problem, Visit, intake::BodyTime};
use crate::{
    app::App,
    delivery::Outbox,
    server::{Connected, client_of},
};

/// Bytes of an answer that are handed to the socket at one time.
const CHUNK_BYTES_MAX: usize = 64 << 10;

/// The media type of an answer.
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// An event in an answer: the JSON as its author signed it.
#[derive(Clone)]
pub(crate) struct EventJson(Bytes);

impl EventJson {
    /// The event that the gate released to the reader of the answer.
    pub(crate) fn new(released: &Released) -> Self {
        Self(released.json())
    }
}

impl Serialize for EventJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json: &RawValue = serde_json::from_slice(&self.0).map_err(serde::ser::Error::custom)?;
        json.serialize(serializer)
    }
}

/// An answer with a body of JSON.
pub(crate) struct Answer {
    body: Bytes,
    is_private: bool,
    outbox: Arc<Outbox>,
}

impl Answer {
    /// The answer to a visit. It is private if the visit has proven a key.
    ///
    /// # Errors
    /// 503 where the request is to end for want of memory.
    pub(crate) async fn json(visit: &Visit, value: &impl Serialize) -> Result<Self, Problem> {
        visit.caller.share.pause().await;
        let no_memory = || nostr_protocol::Rejection::error("the relay is short of memory; ask for less at one time");
        let body = serde_json::to_vec(value).map_err(|_| no_memory())?;
        visit.holding().grow(body.capacity());
        if visit.holding().shed().is_cancelled() {
            return Err(no_memory().into());
        }
        visit.app().metrics.request("rest");
        let is_private = !visit.caller.reader.is_anonymous();
        Ok(Self { body: body.into(), is_private, outbox: Arc::clone(visit.caller.in_flight.outbox()) })
    }
}

/// A weak validator: gzip changes the bytes and not the answer.
fn etag(body: &[u8]) -> HeaderValue {
    let hash = hex::to_hex(&Sha256::digest(body)[..16]);
    HeaderValue::from_str(&format!("W/\"{hash}\"")).unwrap_or_else(|_| HeaderValue::from_static("W/\"\""))
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let cached = if self.is_private { "no-store" } else { "no-cache" };
        let headers = [
            (header::CONTENT_TYPE, JSON),
            (header::ETAG, etag(&self.body)),
            (header::CACHE_CONTROL, HeaderValue::from_static(cached)),
            (header::VARY, HeaderValue::from_static("Authorization")),
            (header::CONTENT_LENGTH, HeaderValue::from(self.body.len())),
        ];
        (headers, Body::from_stream(HeldBody { rest: self.body, outbox: self.outbox })).into_response()
    }
}

/// The rest of an answer's body, and the memory of its request.
struct HeldBody {
    rest: Bytes,
    outbox: Arc<Outbox>,
}

impl Stream for HeldBody {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let length = self.rest.len().min(CHUNK_BYTES_MAX);
        if length == 0 {
            return Poll::Ready(None);
        }
        let chunk = self.rest.split_to(length);
        self.outbox.holding().shrink(length);
        Poll::Ready(Some(Ok(chunk)))
    }
}

/// Gives each refusal for want of a proof the URL that a proof names, and a client that has the answer 304.
pub(crate) async fn finish(State(app): State<Arc<App>>, mut request: Request, next: Next) -> Response {
    let url = expected_url(&app, &request);
    let asked = match *request.method() {
        Method::GET | Method::HEAD => request.headers().get(header::IF_NONE_MATCH).cloned(),
        _ => None,
    };
    let arrival = app.request_log.arrival();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let method = request.method().clone();
    let body_time = BodyTime::default();
    request.extensions_mut().insert(body_time.clone());
    let mut response = next.run(request).await;
    let route = route.as_ref().map_or("no route", MatchedPath::as_str);
    app.request_log.route(arrival, method.as_str(), route, body_time.get());
    if let Some(reason) = reason_of(response.status()) {
        app.metrics.error(reason);
        if response.status() == StatusCode::TOO_MANY_REQUESTS {
            app.metrics.rate_limited("rest");
        }
    }
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        return problem.at(url).into_response();
    }
    if response.status() == StatusCode::OK && asked.is_some_and(|asked| holds(&asked, response.headers())) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response.headers_mut().remove(header::CONTENT_LENGTH);
        response.headers_mut().remove(header::CONTENT_TYPE);
        *response.body_mut() = Body::empty();
    }
    response
}

/// The word under which an answer is counted as refused. An absent thing is no refusal.
fn reason_of(status: StatusCode) -> Option<&'static str> {
    match status {
        StatusCode::UNAUTHORIZED => Some("auth-required"),
        StatusCode::FORBIDDEN => Some("restricted"),
        StatusCode::TOO_MANY_REQUESTS => Some("rate-limited"),
        StatusCode::NOT_FOUND => None,
        status if status.is_client_error() => Some("invalid"),
        status => status.is_server_error().then_some("error"),
    }
}

/// The URL that the `u` tag of a proof of this request names.
fn expected_url(app: &App, request: &Request) -> Option<String> {
    let connected = request.extensions().get::<Connected>()?;
    let uri = request.extensions().get::<OriginalUri>().map_or(request.uri(), |uri| &uri.0);
    let target = uri.path_and_query().map_or("/", |target| target.as_str());
    client_of(app, connected.peer, request.headers()).names.request_url(target)
}

/// Whether the client's list of validators holds the answer's.
fn holds(asked: &HeaderValue, headers: &HeaderMap) -> bool {
    let Some(own) = headers.get(header::ETAG).and_then(|etag| etag.to_str().ok()) else { return false };
    let own = own.trim_start_matches("W/");
    asked.to_str().is_ok_and(|asked| {
        asked.split(',').any(|one| matches!(one.trim(), "*") || one.trim().trim_start_matches("W/") == own)
    })
}
