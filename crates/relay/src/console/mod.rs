//! The console: a page for the operator and for group admins at `/console`, and its API under `/console/api`.
//!
//! Source: docs/http.md, "The console"; docs/rules.md, "Console". The page is a few files in the binary (`bundle`). A
//! key logs in once (`login`) and gets a token (`token`), which gives reads alone. Each further door takes a caller of
//! [`door`], which asks anew whether the key is an admin. Changes are events and calls of NIP-86, each signed by the
//! page: the console has no door that changes anything.
//!
//! No other page may read an answer or frame one: there are no CORS headers, and every answer under `/console` has the
//! headers of [`HEADERS`].

mod access;
mod bundle;
mod configuration;
mod diagnose;
mod door;
mod groups;
mod history;
mod key_packages;
mod login;
mod refused;
mod token;

use std::sync::Arc;

use axum::{
    Router,
    http::{HeaderName, HeaderValue, StatusCode, Uri, header},
    middleware::{from_fn_with_state, map_response},
    response::Response,
    routing::{get, post},
};
use tower_http::compression::{CompressionLayer, predicate::SizeAbove};

pub(crate) use self::history::run;
use self::{bundle::Bundle, history::History, refused::RefusedPackages, token::Tokens};
use crate::{
    app::App,
    config::Config,
    rest::{GZIP_BYTES_MIN, Problem, finish},
    system::random,
};

/// The path of the page.
const PATH: &str = "/console";

/// The headers of every answer under `/console`.
const HEADERS: [(HeaderName, HeaderValue); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
    ),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    (HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin")),
];

/// The parts of the console that outlive a request.
pub(crate) struct Console {
    bundle: Bundle,
    tokens: Tokens,
    history: History,
    /// KeyPackages of late that were at fault.
    pub(crate) refused: RefusedPackages,
    /// The name of this instance where it has no channel to others.
    instance: [u8; 16],
}

impl Console {
    /// The console of a relay over the store with this secret.
    pub(crate) fn new(secret: &[u8; 32]) -> Self {
        let mut instance = [0; 16];
        instance.copy_from_slice(&random::bytes32()[..16]);
        Self {
            bundle: Bundle::default(),
            tokens: Tokens::new(secret),
            history: History::default(),
            refused: RefusedPackages::default(),
            instance,
        }
    }
}

/// The routes at `/console` and below; `None` where the console is off.
pub(crate) fn router(app: &Arc<App>) -> Option<Router> {
    if !app.config.server.console {
        return None;
    }
    let no_method = async || Problem::new(StatusCode::METHOD_NOT_ALLOWED, "invalid: this path has other methods");
    let gzip = CompressionLayer::new().gzip(true).compress_when(SizeAbove::new(GZIP_BYTES_MIN));
    let doors = Router::new()
        .route("/login", post(login::login))
        .route("/now", get(history::now))
        .route("/history", get(history::history))
        .route("/groups", get(groups::all))
        .route("/groups/{group_id}", get(groups::one))
        .route("/keypackages", get(key_packages::stock))
        .route("/keypackages/refused", get(refused::refused))
        .route("/diagnose", post(diagnose::diagnose))
        .route("/access", get(access::access))
        .route("/configuration", get(configuration::configuration))
        .method_not_allowed_fallback(no_method)
        .fallback(async || Problem::not_found())
        .layer(from_fn_with_state(Arc::clone(app), finish))
        .layer(gzip);
    let console = Router::new()
        .route("/", get(bundle::page))
        .route("/{file}", get(bundle::file))
        .nest("/api", doors)
        .fallback(async || bundle::absent())
        .with_state(Arc::clone(app));
    let console = Router::new().nest(PATH, console).route("/console/", get(bundle::slash));
    Some(console.layer(map_response(async |response: Response| sealed(response))))
}

/// Whether a request is for the console.
pub(crate) fn is_for(config: &Config, uri: &Uri) -> bool {
    let rest = uri.path().strip_prefix(PATH);
    config.server.console && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The answer with the headers of the console.
pub(crate) fn sealed(mut response: Response) -> Response {
    response.headers_mut().extend(HEADERS);
    response
}
