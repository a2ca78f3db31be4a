//! The REST doors under `api_prefix`, while `enable_api`.
//!
//! Source: MLS Gateway specification, "REST API Endpoints"; docs/rules.md, "REST". A request is a [`Visit`]: the same
//! reader, gate, budgets and payers as a connection's. A door is a function of one file:
//!
//! 1. It takes a [`Visit`], which was authenticated by NIP-98 if it says so, and whose body was read and paid for. A
//!    door that needs a key asks for it by [`Visit::key`].
//! 2. It reads by [`crate::session::archive::ArchiveRead`] and the gate, and publishes by the EVENT handler.
//! 3. It gives an [`Answer`], or a [`Problem`], into which every `Rejection` turns.
//! 4. It states itself by `#[utoipa::path]`, and has a line in [`routes`] and one in [`document`].
//!
//! A hidden thing is answered as an absent one, by [`Problem::not_found`].

mod answer;
mod cursor;
mod diagnose;
mod document;
mod events;
mod groups;
mod intake;
mod key_packages;
mod list;
mod messages;
mod page;
mod path;
mod problem;
mod proof;
mod refresh;
mod routes;
mod sheds;
mod visit;

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderName, HeaderValue, Method, Uri, header},
};
use tower_http::{
    compression::{CompressionLayer, predicate::SizeAbove},
    cors::{AllowOrigin, Any, CorsLayer},
};

pub(crate) use self::{
    answer::{Answer, EventJson, finish},
    cursor::{Cursors, Question},
    diagnose::{answer as diagnosed, read as read_diagnosis},
    groups::{GROUPS_PER_TURN_MAX, MEMBERS_PER_UNIT, group_for, states},
    intake::is_of_media_type,
    list::{List, cost, fixed as list_fixed, text as list_text},
    path::PathValues,
    problem::Problem,
    proof::pay as pay_for_events,
    sheds::Sheds,
    visit::Visit,
};
use crate::{
    app::App,
    config::{Config, Origins},
};

/// Bytes from which on an answer is compressed, where the client asks for it.
pub(crate) const GZIP_BYTES_MIN: u64 = 1_024;

/// The routes under the prefix of the configuration; `None` where the API is off.
pub(crate) fn router(app: &Arc<App>) -> Option<Router> {
    if !app.config.mls_gateway.enable_api {
        return None;
    }
    let gzip = CompressionLayer::new().gzip(true).compress_when(SizeAbove::new(GZIP_BYTES_MIN));
    let doors = routes::router(app)
        .layer(axum::middleware::from_fn_with_state(Arc::clone(app), answer::finish))
        .layer(gzip)
        .layer(cors(&app.config.server.allowed_origins));
    let prefix = &app.config.mls_gateway.api_prefix;
    let bare = axum::routing::any(async || Problem::not_found());
    Some(Router::new().nest(prefix, doors).route(&format!("{prefix}/"), bare))
}

/// Returns whether a request is for the API.
pub(crate) fn is_for(config: &Config, uri: &Uri) -> bool {
    let rest = uri.path().strip_prefix(config.mls_gateway.api_prefix.as_str());
    config.mls_gateway.enable_api && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Lets the pages of `allowed_origins` ask and read. A wildcard stands for no `Authorization` (Fetch, "CORS protocol"),
/// so the headers are named.
fn cors(allowed: &Origins) -> CorsLayer {
    let asked = [
        header::AUTHORIZATION,
        header::CONTENT_TYPE,
        header::IF_NONE_MATCH,
        HeaderName::from_static("idempotency-key"),
    ];
    let cors = CorsLayer::new()
        .allow_headers(asked)
        .allow_methods([Method::GET, Method::HEAD, Method::POST])
        .expose_headers([header::ETAG, header::RETRY_AFTER, header::WWW_AUTHENTICATE]);
    match allowed {
        Origins::Any => cors.allow_origin(Any),
        Origins::Only(_) => {
            let allowed = allowed.clone();
            let is_allowed = move |origin: &HeaderValue, _: &_| origin.to_str().is_ok_and(|it| allowed.allows(it));
            cors.allow_origin(AllowOrigin::predicate(is_allowed))
        }
    }
}
