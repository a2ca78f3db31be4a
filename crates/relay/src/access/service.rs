//! The connection to the access service: `GET {acl_url}/groups/{id}` with a bearer token.
//!
//! Redirects are not followed: the token would go to another host, which would then decide about groups. Connections
//! are kept and used again.

use std::{collections::HashMap, time::Duration};

use axum::http::{HeaderValue, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use nostr_extensions::{NostrGroupId, Role};
use nostr_protocol::PublicKey;
use tokio::time::timeout;

use super::answer;
use crate::{config::MlsGateway, error::StartError};

/// Longest wait for a whole answer, in milliseconds, from the first byte of the question on.
const ANSWER_MS_MAX: u64 = 4_000;
/// Longest wait for a connection, in milliseconds.
const CONNECT_MS_MAX: u64 = 2_000;
/// Most bytes of an answer: ten thousand members take 1.1 MB.
const ANSWER_BYTES_MAX: usize = 2 << 20;
/// Connections to the service that are kept while no question is asked.
const IDLE_CONNECTIONS_MAX: usize = 8;
/// Time for which such a connection is kept, in seconds.
const IDLE_SECS: u64 = 30;

/// The reason why a question has no answer that counts; the text is for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The service does not answer, or says that it cannot: other groups fare alike.
    Away(String),
    /// The answer about this group is not one.
    Wrong(String),
}

/// See the module.
pub(super) struct Service {
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
    url: String,
    authorization: Option<HeaderValue>,
}

impl Service {
    /// The service of the configuration.
    ///
    /// # Errors
    /// The token is no text for a header, or the machine's certificates cannot be read.
    pub(super) fn new(gateway: &MlsGateway) -> Result<Self, StartError> {
        let wrong = |error: &dyn std::fmt::Display| StartError::new(format!("acl_url and acl_token: {error}"));
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(Duration::from_millis(CONNECT_MS_MAX)));
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
            .map_err(|error| wrong(&error))?
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(IDLE_SECS))
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            .build(connector);
        let bearer = |token: &str| {
            let mut value = HeaderValue::from_str(&format!("Bearer {token}"))?;
            value.set_sensitive(true);
            Ok::<_, axum::http::header::InvalidHeaderValue>(value)
        };
        let authorization = gateway.acl_token.as_ref().map(|token| bearer(token.expose())).transpose();
        let url = gateway.acl_url.clone().ok_or_else(|| wrong(&"set acl_url"))?;
        Ok(Self { client, url, authorization: authorization.map_err(|error| wrong(&error))? })
    }

    /// The members of a group; `None` where the service does not know it.
    pub(super) async fn members(&self, id: &NostrGroupId) -> Result<Option<HashMap<PublicKey, Role>>, Failure> {
        match timeout(Duration::from_millis(ANSWER_MS_MAX), self.ask(id)).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::Away(format!("no whole answer within {ANSWER_MS_MAX} ms"))),
        }
    }

    async fn ask(&self, id: &NostrGroupId) -> Result<Option<HashMap<PublicKey, Role>>, Failure> {
        let request = Request::get(self.url_of(id)).header(header::ACCEPT, "application/json");
        let request = match &self.authorization {
            Some(authorization) => request.header(header::AUTHORIZATION, authorization),
            None => request,
        };
        let request = request.body(Empty::new()).map_err(|error| Failure::Away(error.to_string()))?;
        let response = self.client.request(request).await.map_err(|error| Failure::Away(why(&error)))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            status if status.is_redirection() => {
                return Err(Failure::Away(format!("the answer is {status}, and redirects are not followed")));
            }
            // The service refuses this id, and may well answer for others.
            status if status.is_client_error() && !is_about_the_relay(status) => {
                return Err(Failure::Wrong(format!("the answer is {status}")));
            }
            status => return Err(Failure::Away(format!("the answer is {status}"))),
        }
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| match error.downcast_ref::<http_body_util::LengthLimitError>() {
            Some(_) => Failure::Wrong(format!("the answer has more than {ANSWER_BYTES_MAX} bytes")),
            None => Failure::Away(format!("the answer broke off: {error}")),
        })?;
        answer::members(&body.to_bytes()).map(Some).map_err(Failure::Wrong)
    }

    /// The URL of a question. A group's id holds one character that a path escapes: `:`.
    fn url_of(&self, id: &NostrGroupId) -> String {
        format!("{}/groups/{}", self.url, id.as_str().replace(':', "%3A"))
    }
}

/// Whether a refusal is about this relay or its pace, and not about the group.
fn is_about_the_relay(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED
            | StatusCode::FORBIDDEN
            | StatusCode::PROXY_AUTHENTICATION_REQUIRED
            | StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
    )
}

/// An error with its causes: the first one says no more than that the request failed.
fn why(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}
