//! The OpenAPI document of the doors, made of what stands beside each.
//!
//! Source: OpenAPI 3.1; docs/rules.md, "REST".

use std::sync::Arc;

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        RefOr, ServerBuilder,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
    },
};

use super::{
    diagnose, events, groups, key_packages, messages, page,
    problem::{self, ProblemDocument},
    refresh,
};
use crate::{app::App, config::Config};

/// The name of the scheme of authentication in the document.
const NIP98: &str = "nip98";
/// The name of the scheme by which the access service authenticates.
const ACL_TOKEN: &str = "acl_token";

/// Every door.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "rnostr: the delivery service of MLS groups",
        description = "KeyPackages, groups and messages over HTTP, by the same rules as over the WebSocket. A hidden \
            thing is answered as an absent one. Every refusal is a problem document (RFC 9457)."
    ),
    paths(
        key_packages::claim::claim,
        key_packages::stock::stock,
        groups::all,
        groups::one,
        groups::members,
        groups::roster,
        refresh::refresh,
        key_packages::owner::of_owner,
        messages::of_group,
        messages::inbox,
        events::one,
        events::publish,
        diagnose::diagnose,
        json,
        html
    ),
    components(schemas(ProblemDocument)),
    modifiers(&Security, &Problems),
    tags(
        (name = "groups", description = "Managed groups, for their members and admin keys."),
        (name = "keypackages", description = "The directory of KeyPackages."),
        (name = "messages", description = "Catching up in the order of receipt."),
        (name = "events", description = "Single events."),
        (name = "keypackages", description = "The directory of KeyPackages."),
        (name = "document", description = "This document."),
    )
)]
struct Doors;

/// The scheme of NIP-98.
struct Security;

impl Modify for Security {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let about = "NIP-98: `Nostr ` and the base64 of an event of kind 27235 whose tags name the URL (`u`), the \
            `method` and, for a request with a body, its SHA-256 in hex (`payload`), at most 60 s old. A proof of a \
            request that changes something is used once.";
        let header = ApiKeyValue::with_description("Authorization", about);
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(NIP98, SecurityScheme::ApiKey(ApiKey::Header(header)));
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).description(Some("The token `acl_token`."));
        components.add_security_scheme(ACL_TOKEN, SecurityScheme::Http(bearer.build()));
    }
}

/// The media type of refusals.
struct Problems;

impl Modify for Problems {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        for item in document.paths.paths.values_mut() {
            for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
                for (status, answer) in &mut operation.responses.responses {
                    if let RefOr::T(answer) = answer
                        && status.starts_with(['4', '5'])
                        && let Some(problem) = answer.content.shift_remove("application/json")
                    {
                        answer.content.insert(problem::MEDIA_TYPE.to_owned(), problem);
                    }
                }
            }
        }
    }
}

/// The document for the prefix of the configuration.
pub(super) fn document(config: &Config) -> utoipa::openapi::OpenApi {
    let mut document = Doors::openapi();
    document.servers = Some(vec![ServerBuilder::new().url(&config.mls_gateway.api_prefix).build()]);
    document
}

/// The OpenAPI document.
#[utoipa::path(get, path = "/openapi.json", tag = "document",
    responses((status = 200, description = "This document, OpenAPI 3.1.", content_type = "application/json",
        body = serde_json::Value)))]
pub(super) async fn json(State(app): State<Arc<App>>) -> Response {
    let headers = [(header::CACHE_CONTROL, "public, max-age=3600")];
    (headers, axum::Json(document(&app.config))).into_response()
}

/// The page that shows the document.
#[utoipa::path(get, path = "/docs", tag = "document",
    responses((status = 200, description = "A page for people, which fetches nothing.", content_type = "text/html",
        body = String)))]
pub(super) async fn html(State(app): State<Arc<App>>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "public, max-age=3600"),
        (header::CONTENT_SECURITY_POLICY, page::CSP),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, page::of(&document(&app.config))).into_response()
}
