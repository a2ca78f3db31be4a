//! A claim of a KeyPackage by REST, with a proof by NIP-98.

use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Request, StatusCode, header};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use nostr_protocol::{Kind, hex, sign::SecretKey};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::time::timeout;

use super::{
    super::address::{Address, over_http},
    client::{Draft, Trouble, sign},
};

/// Longest wait for the answer, in seconds.
const ANSWER_SECS: u64 = 10;
/// Most bytes of the answer.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// The relay's answer to a claim.
pub(super) enum Claimed {
    /// The ids of the events of the KeyPackages.
    Given(Vec<String>),
    /// The relay has no such door.
    NoDoor,
    /// The reason of a refusal.
    Refused(String),
}

/// Claims one KeyPackage of `owner`.
///
/// # Errors
/// The relay gives no answer.
pub(super) async fn claim(relay: &Address, keys: &SecretKey, owner: &str) -> Result<Claimed, Trouble> {
    let path = format!("{}/keypackages/claim", relay.api_prefix);
    let body = json!({"owner": owner}).to_string();
    let hash = hex::to_hex(&Sha256::digest(&body));
    let proof = Draft::new(Kind::HTTP_AUTH)
        .tag(&["u", &over_http(&relay.name, &path)])
        .tag(&["method", "POST"])
        .tag(&["payload", &hash]);
    let proof = BASE64_STANDARD.encode(sign(&proof, keys)?.json());
    let failed = |error: &dyn std::fmt::Display| Trouble(format!("no answer to a claim by REST: {error}"));
    let request = Request::post(relay.http(&path))
        .header(header::AUTHORIZATION, format!("Nostr {proof}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|error| failed(&error))?;
    let connector = HttpsConnectorBuilder::new()
        .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
        .map_err(|error| failed(&error))?
        .https_or_http()
        .enable_http1()
        .build();
    let answering = async {
        let answer = Client::builder(TokioExecutor::new()).build(connector).request(request).await;
        let answer = answer.map_err(|error| failed(&error))?;
        let status = answer.status();
        let body =
            Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|error| failed(&error))?;
        Ok((status, body.to_bytes()))
    };
    let (status, body) = timeout(Duration::from_secs(ANSWER_SECS), answering).await.map_err(|late| failed(&late))??;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    Ok(match status {
        StatusCode::OK => {
            let given = body["keypackages"].as_array().map(Vec::as_slice).unwrap_or_default();
            Claimed::Given(given.iter().filter_map(|it| Some(it["event"]["id"].as_str()?.to_owned())).collect())
        }
        // A door answers by a problem document.
        StatusCode::NOT_FOUND if body["status"].is_null() => Claimed::NoDoor,
        _ => Claimed::Refused(format!("{status}: {}", body["detail"].as_str().unwrap_or("no reason"))),
    })
}
