//! Authentication of a request by NIP-98.
//!
//! Source: docs/rules.md, "REST" and "Identity" 5. The signature is checked before the body is read; the hash of the
//! body afterwards. A proof of a request that changes something is used once, over all instances.

use std::fmt::Write as _;

use axum::http::{HeaderMap, Method, header};
use nostr_protocol::{
    PublicKey, Rejection, Verified,
    auth::RelayNames,
    http_auth::{HTTP_AUTH_AGE_SECS_MAX, HttpRequest, authenticate_request, read_header},
};
use sha2::{Digest as _, Sha256};

use super::Problem;
use crate::{
    app::App,
    error::read_failed,
    rate_limit::{Class, Payer, Price},
    session::Caller,
};

/// Seconds for which an instance's clock may be off, at which it is no longer ready.
const SKEW_SECS_MAX: u64 = 30;
/// Seconds after its `created_at` for which a proof that was used is remembered: as long as any instance may take it.
const USED_SECS: u64 = HTTP_AUTH_AGE_SECS_MAX + 2 * SKEW_SECS_MAX;

/// Reads the proof in the headers and checks its signature; `None` where there is none.
///
/// # Errors
/// 401 for anything but one proof with a valid signature.
pub(super) fn of_headers(app: &App, headers: &HeaderMap) -> Result<Option<Verified>, Problem> {
    let refuse = |rejection: Rejection| Problem::bad_proof(&rejection);
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(refuse(Rejection::invalid("send one Authorization header")));
    }
    let value = value.to_str().map_err(|_| refuse(Rejection::invalid("the Authorization header is no text")))?;
    let event = read_header(value).map_err(refuse)?;
    let verified = event.verify();
    app.metrics.signature_checked();
    verified.map(Some).map_err(|error| refuse(Rejection::invalid(error.to_string())))
}

/// Checks that the proof is of this request, and gives the key that it proves.
///
/// # Errors
/// 401 for a proof of another request, 403 where the relay takes no AUTH of this key.
pub(super) fn check(
    app: &App,
    proof: &Verified,
    names: &RelayNames,
    (method, target, body): (&Method, &str, Option<&[u8]>),
) -> Result<PublicKey, Problem> {
    let body = body.map(hash);
    let request = HttpRequest { method: method.as_str(), target, body_sha256: body.as_deref() };
    let key = authenticate_request(proof, request, names, app.clock.now());
    let key = key.map_err(|rejection| Problem::bad_proof(&rejection))?;
    app.policy().may_authenticate(&key)?;
    Ok(key)
}

/// Uses the proof of a request that changes something, which the store writes down: the client pays for one event.
///
/// # Errors
/// 401 where it was used before, on any instance; 429 beyond the client's rate; 503 where the store does not answer.
pub(super) async fn use_once(caller: &Caller, proof: &Verified) -> Result<(), Problem> {
    let app = &caller.app;
    let (event, now) = (proof.event(), app.clock.now());
    pay(caller, 1)?;
    let until = event.created_at().saturating_add(USED_SECS);
    match app.store.use_once(event.id().as_bytes(), until, now).await {
        Ok(true) => Ok(()),
        Ok(false) => {
            let used = "this proof was used; sign another one, with a tag of your own if it is of the same second";
            Err(Problem::bad_proof(&Rejection::invalid(used)))
        }
        Err(error) => Err(read_failed(error).into()),
    }
}

/// Takes the price of so many events from the client's address, or from the key that pays for it.
///
/// # Errors
/// `rate-limited:` beyond the client's rate.
pub(crate) fn pay(caller: &Caller, times: u32) -> Result<(), Rejection> {
    let (app, block, now_ms) = (&caller.app, caller.client.block(), caller.app.clock.now_ms());
    let price = Price { class: Class::Event, times };
    let mut charges = app.delivery.charges();
    charges.add(match caller.payer() {
        Payer::Key(key) => app.limits.key(&key, block, price, now_ms)?,
        Payer::Address(_) => app.limits.address(block, price, now_ms)?,
    });
    app.delivery.claimed(charges);
    Ok(())
}

/// SHA-256 in lower-case hex.
fn hash(body: &[u8]) -> String {
    Sha256::digest(body).iter().fold(String::with_capacity(64), |mut hex, byte| {
        // Writing to a string cannot fail.
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}
