//! Authentication of one HTTP request by a signed event in its `Authorization` header.
//!
//! Source: NIP-98; docs/rules.md, "Identity" 5 and "REST". The event names the URL, the method and the body of the one
//! request that it authenticates.

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

use crate::{
    auth::RelayNames,
    event::{Unverified, Verified},
    key::PublicKey,
    kind::Kind,
    rejection::Rejection,
    tag::name,
};

/// Most seconds between the `created_at` of an HTTP request's authentication event and now, either way.
pub const HTTP_AUTH_AGE_SECS_MAX: u64 = 60;

/// The scheme of the `Authorization` header.
pub const SCHEME: &str = "Nostr";

/// SHA-256 of nothing, which some clients name for a request without a body.
const EMPTY_SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Base64 with padding or without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The request that an event is to authenticate.
#[derive(Clone, Copy, Debug)]
pub struct HttpRequest<'a> {
    /// The method, in upper case.
    pub method: &'a str,
    /// Path and query, byte for byte as the client sent them.
    pub target: &'a str,
    /// SHA-256 of the body in lower-case hex; `None` for a request without one.
    pub body_sha256: Option<&'a str>,
}

/// Reads the event in the value of an `Authorization` header. Its signature is not checked yet.
///
/// # Errors
/// `invalid:` where the value is not of this scheme, is no base64, or holds no event.
pub fn read_header(value: &str) -> Result<Unverified, Rejection> {
    let (scheme, token) = value.trim().split_once(' ').unwrap_or((value, ""));
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return Err(Rejection::invalid("the Authorization header is not of the scheme Nostr (NIP-98)"));
    }
    let json = BASE64
        .decode(token.trim())
        .map_err(|_| Rejection::invalid("the token behind Nostr is not base64 of an event's JSON (NIP-98)"))?;
    Unverified::parse(&json)
        .map_err(|error| Rejection::invalid(format!("the token behind Nostr holds no event of kind 27235: {error}")))
}

/// Checks that an event authenticates this request, and returns the key that it proves.
///
/// # Errors
/// `invalid:` with the check that failed, or `error:` where the relay does not know its own name.
pub fn authenticate_request(
    event: &Verified,
    request: HttpRequest<'_>,
    names: &RelayNames,
    now_secs: u64,
) -> Result<PublicKey, Rejection> {
    let event = event.event();
    if event.kind() != Kind::HTTP_AUTH {
        return Err(Rejection::invalid("the Authorization header takes an event of kind 27235 (NIP-98)"));
    }
    if event.created_at().abs_diff(now_secs) > HTTP_AUTH_AGE_SECS_MAX {
        return Err(Rejection::invalid(format!(
            "created_at is more than {HTTP_AUTH_AGE_SECS_MAX} s from this relay's time; set the clock and sign anew"
        )));
    }
    let tag = |name: &'static str| {
        let mut values = event.tags().named(name).map(|tag| tag.value());
        match (values.next(), values.next()) {
            (value, None) => Ok(value.flatten()),
            _ => Err(Rejection::invalid(format!("the event has several {name} tags; give it one"))),
        }
    };
    let url = tag(name::URL)?.ok_or_else(|| Rejection::invalid("the u tag is missing"))?;
    names.check_request(url, request.target)?;
    if tag(name::METHOD)? != Some(request.method) {
        return Err(Rejection::invalid(format!("the method tag is not the request's; write {}", request.method)));
    }
    match (tag(name::PAYLOAD)?, request.body_sha256) {
        (None, None) | (Some(EMPTY_SHA256), None) => {}
        (Some(payload), Some(body)) if payload == body => {}
        (None, Some(_)) => {
            return Err(Rejection::invalid("the payload tag is missing; write the SHA-256 of the body in hex"));
        }
        (Some(_), Some(_)) => return Err(Rejection::invalid("the payload tag is not the SHA-256 of the body in hex")),
        (Some(_), None) => return Err(Rejection::invalid("the payload tag names a body, and the request has none")),
    }
    Ok(event.pubkey())
}
