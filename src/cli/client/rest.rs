//! REST requests of a client, with a proof by NIP-98 where there is a key.
//!
//! Source: docs/rules.md, "REST". No redirect is followed, so a proof reaches the relay of the option alone.

use std::{fmt, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode, header};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use nostr_protocol::{Kind, hex, sign::SecretKey};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use super::{
    super::address::{Address, over_http},
    Draft, Trouble, sign,
    text::said,
    tls,
};

/// Longest wait for an answer, in seconds.
const REST_ANSWER_SECS: u64 = 10;
/// Most bytes of an answer: a page of fifty of the largest KeyPackages.
const REST_BYTES_MAX: usize = 16 << 20;
/// Most bytes of a cursor.
const CURSOR_BYTES_MAX: usize = 1_024;

/// The relay's answer to a request.
pub(in crate::cli) enum Reply {
    /// The body of a 200.
    Found(Value),
    /// The relay has no REST API here.
    NoDoor,
    /// The relay refuses, in words.
    Refused(Refusal),
}

/// A refusal.
pub(in crate::cli) struct Refusal {
    pub(in crate::cli) status: StatusCode,
    reason: String,
}

impl Refusal {
    /// The relay's words; a terminal may show them.
    pub(in crate::cli) fn reason(&self) -> &str {
        &self.reason
    }
}

impl fmt::Display for Refusal {
    /// Writes the status and the relay's words, which a terminal may show.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.reason)
    }
}

/// The REST API of a relay, for one key or none.
pub(in crate::cli) struct Rest<'a> {
    relay: &'a Address,
    key: Option<&'a SecretKey>,
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

fn failed(error: &dyn fmt::Display) -> Trouble {
    Trouble(format!("no answer by REST: {error}"))
}

impl<'a> Rest<'a> {
    pub(in crate::cli) fn new(relay: &'a Address, key: Option<&'a SecretKey>) -> Result<Self, Trouble> {
        let tls = tls::config().map_err(|error| failed(&error))?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        Ok(Self { relay, key, http: Client::builder(TokioExecutor::new()).build(connector) })
    }

    /// Asks for a path under the API's prefix.
    ///
    /// # Errors
    /// The relay gives no answer.
    pub(in crate::cli) async fn get(&self, path: &str) -> Result<Reply, Trouble> {
        self.call(Method::GET, path, None).await
    }

    /// Sends a body to a path under the API's prefix.
    ///
    /// # Errors
    /// The relay gives no answer.
    pub(in crate::cli) async fn post(&self, path: &str, body: &Value) -> Result<Reply, Trouble> {
        self.call(Method::POST, path, Some(body.to_string())).await
    }

    async fn call(&self, method: Method, path: &str, body: Option<String>) -> Result<Reply, Trouble> {
        let path = format!("{}{path}", self.relay.api_prefix);
        let mut request = Request::builder().method(method.clone()).uri(self.relay.http(&path));
        if let Some(key) = self.key {
            let mut proof = Draft::new(Kind::HTTP_AUTH)
                .tag(&["u", &over_http(&self.relay.name, &path)])
                .tag(&["method", method.as_str()]);
            if let Some(body) = &body {
                proof = proof.tag(&["payload", &hex::to_hex(&Sha256::digest(body))]);
            }
            let proof = BASE64_STANDARD.encode(sign(&proof, key)?.json());
            request = request.header(header::AUTHORIZATION, format!("Nostr {proof}"));
        }
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        let request = request.body(Full::new(Bytes::from(body.unwrap_or_default()))).map_err(|it| failed(&it))?;
        let answering = async {
            let answer = self.http.request(request).await.map_err(|error| failed(&error))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), REST_BYTES_MAX).collect().await;
            Ok::<_, Trouble>((status, body.map_err(|error| failed(&error))?.to_bytes()))
        };
        let answered = timeout(Duration::from_secs(REST_ANSWER_SECS), answering).await;
        let (status, body) = answered.map_err(|_| failed(&format!("none within {REST_ANSWER_SECS} s")))??;
        Ok(reply(status, &serde_json::from_slice(&body).unwrap_or_default()))
    }
}

fn reply(status: StatusCode, body: &Value) -> Reply {
    match status {
        StatusCode::OK => Reply::Found(body.clone()),
        // A door answers by a problem document.
        StatusCode::NOT_FOUND if body["status"].is_null() => Reply::NoDoor,
        _ => Reply::Refused(Refusal { status, reason: said(body["detail"].as_str().unwrap_or("no reason")) }),
    }
}

/// The cursor of the next page of a list; `None` at its end.
///
/// # Errors
/// The relay gives a cursor that does not fit into a URL.
pub(in crate::cli) fn next_cursor(page: &Value) -> Result<Option<&str>, Trouble> {
    let Some(cursor) = page["next_cursor"].as_str() else { return Ok(None) };
    let fits =
        cursor.len() <= CURSOR_BYTES_MAX && cursor.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_');
    if fits { Ok(Some(cursor)) } else { Err(Trouble("the relay gives a cursor that is none".to_owned())) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_a_find_a_refusal_or_no_door() {
        let problem = json!({"status": 404, "detail": "invalid: no\u{1b}such thing"});
        assert!(matches!(reply(StatusCode::OK, &json!({"a": 1})), Reply::Found(body) if body["a"] == 1));
        assert!(matches!(reply(StatusCode::NOT_FOUND, &Value::Null), Reply::NoDoor));
        let Reply::Refused(refusal) = reply(StatusCode::NOT_FOUND, &problem) else { panic!("a refusal") };
        assert_eq!(refusal.to_string(), "404 Not Found: invalid: no\\u{1b}such thing");
        let Reply::Refused(refusal) = reply(StatusCode::BAD_GATEWAY, &Value::Null) else { panic!("a refusal") };
        assert_eq!(refusal.to_string(), "502 Bad Gateway: no reason");
    }

    #[test]
    fn a_cursor_that_does_not_fit_into_a_url_is_refused() {
        assert_eq!(next_cursor(&json!({"next_cursor": "a-_9"})).expect("one"), Some("a-_9"));
        assert_eq!(next_cursor(&json!({"next_cursor": null})).expect("none"), None);
        for wrong in ["a&limit=1", "a b", "é", &"a".repeat(CURSOR_BYTES_MAX + 1)] {
            assert!(next_cursor(&json!({"next_cursor": wrong})).is_err(), "{wrong}");
        }
    }
}
