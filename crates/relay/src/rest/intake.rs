//! The body of a request: read whole, within the bounds of a message on the socket.
//!
//! Source: docs/rules.md, "Memory" 4 and 5. Its bytes count as an unfinished message while it comes.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, StatusCode, header},
};
use futures_util::StreamExt as _;
use nostr_protocol::Rejection;
use tokio::time::{Instant, timeout_at};

use super::Problem;
use crate::{
    memory::{Holding, UNFINISHED_STEP_BYTES},
    session::intake::{BYTES_PER_SEC_MIN, MESSAGE_SECS_MAX},
};

/// The media type of the doors' bodies.
pub(super) const JSON: &str = "application/json";

/// The time for which a request's body came, which no slow request of the relay's is made of.
#[derive(Clone, Debug, Default)]
pub(super) struct BodyTime(Arc<AtomicU64>);

impl BodyTime {
    /// Notes the time.
    pub(super) fn set(&self, time: Duration) {
        self.0.store(u64::try_from(time.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The time that was noted; none for a request without a body.
    pub(super) fn get(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// Reads a JSON body of at most `bytes_max` bytes.
///
/// # Errors
/// 415 for another media type, 413 for a longer body, 400 for one that breaks off or comes too slowly, and 503 where
/// the unfinished bodies of the payer hold too much memory.
pub(super) async fn read(
    (headers, media_type): (&HeaderMap, &str),
    body: Body,
    bytes_max: usize,
    holding: &Holding,
) -> Result<Bytes, Problem> {
    let too_long = || {
        let detail = format!("invalid: the body is over {bytes_max} bytes, which is max_message_length");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    };
    if !is_of_media_type(headers, media_type) {
        let detail = format!("invalid: the body is JSON; send Content-Type: {media_type}");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let declared = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > bytes_max as u64) {
        return Err(too_long());
    }
    let came = receive(body, bytes_max, holding).await;
    holding.note_unfinished(0);
    came?.ok_or_else(too_long).map(Bytes::from)
}

/// The bytes of the body; `None` where there are more than `bytes_max`.
async fn receive(body: Body, bytes_max: usize, holding: &Holding) -> Result<Option<Vec<u8>>, Problem> {
    let began = Instant::now();
    let mut stream = body.into_data_stream();
    let (mut whole, mut noted) = (Vec::new(), 0);
    let mut held = holding.hold(0);
    loop {
        let secs = MESSAGE_SECS_MAX + whole.len() as u64 / BYTES_PER_SEC_MIN;
        let next = timeout_at(began + Duration::from_secs(secs), stream.next()).await;
        let part = match next {
            Ok(None) => return Ok(Some(whole)),
            Ok(Some(Ok(part))) => part,
            Ok(Some(Err(_))) => return Err(Problem::bad_parameter("the body breaks off; send it whole")),
            Err(_) => {
                return Err(Problem::bad_parameter("the body comes too slowly; send it again without pauses"));
            }
        };
        if whole.len() + part.len() > bytes_max {
            return Ok(None);
        }
        whole.extend_from_slice(&part);
        held.set(whole.capacity());
        let steps = whole.len() / UNFINISHED_STEP_BYTES;
        if steps > noted {
            noted = steps;
            if !holding.note_unfinished(whole.len()) || held.is_shed() {
                return Err(Rejection::error("unfinished bodies hold too much memory; send fewer at one time").into());
            }
        }
    }
}

/// Whether the body is said to be of this media type.
pub(crate) fn is_of_media_type(headers: &HeaderMap, media_type: &str) -> bool {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let told = value.split(';').next().unwrap_or_default().trim();
    told.eq_ignore_ascii_case(media_type)
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn json_is_told_by_its_media_type() {
        let of = |value: &'static str| {
            let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(value))]);
            is_of_media_type(&headers, JSON)
        };
        assert!(of("application/json") && of("Application/JSON; charset=utf-8"));
        assert!(!of("text/plain") && !of("application/jsonx") && !of("") && !is_of_media_type(&HeaderMap::new(), JSON));
    }
}
