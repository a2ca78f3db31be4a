//! The routes: the endpoint (WebSocket, NIP-11, the page for people), `/health`, `/ready`, `/metrics`, `/favicon.ico`.
//!
//! The endpoint is `/` and the paths of `public_url` and its aliases (docs/rules.md, "Identity" 5).

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::{Extension, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use futures_util::future::OptionFuture;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use nostr_protocol::auth::{RelayAddress, RelayNames};
use tokio::sync::OwnedSemaphorePermit;
use tower_http::cors::{AllowOrigin, Any, CorsLayer};
use yawc::{DeflatePool, HttpWebSocket, Options, Role, WebSocket};

use super::{Admission, Connected, accept, forwarding, metrics, places::Place};
use crate::{
    app::App,
    config::{Origins, Server},
    console, manage,
    observe::{home, info},
    rate_limit::AddressBlock,
    rest,
    session::{
        Accepted, Client, Silence, connection,
        intake::{Intake, Received},
    },
};

/// One of `connections_max` permits and the place of the peer's address, given back when the connection is gone,
/// upgraded or not. A trusted peer has no place: its clients take theirs when they become known.
#[derive(Clone)]
pub(super) struct ConnectionPermit(Arc<(OwnedSemaphorePermit, Option<Place>)>);

impl ConnectionPermit {
    pub(super) fn new(permit: OwnedSemaphorePermit, place: Option<Place>) -> Self {
        Self(Arc::new((permit, place)))
    }

    fn has_place(&self) -> bool {
        self.0.1.is_some()
    }
}

/// Most compressors and decompressors that wait for work; more cannot be at work at one time.
const DEFLATE_IDLE_MAX: usize = 16;
/// Bytes from which on a message is compressed.
const DEFLATE_BYTES_MIN: usize = 512;
/// First size of a socket's read and write buffer; they grow with a message and shrink after it.
const SOCKET_BUFFER_BYTES: usize = 1 << 10;

/// Bytes that one write to the socket takes, about: one system call for many frames.
pub(crate) const WRITE_BYTES: usize = 64 << 10;

#[derive(Clone)]
struct RouterState {
    app: Arc<App>,
    options: Options,
    admission: Arc<Admission>,
    endpoint_paths: EndpointPaths,
}

pub(super) fn router(app: Arc<App>, admission: Arc<Admission>) -> Router {
    let message_bytes_max = app.config.limitation.max_message_length + 1;
    let options = Options::default()
        .with_limits(message_bytes_max, message_bytes_max)
        .with_low_latency_compression()
        .server_no_context_takeover()
        .client_no_context_takeover()
        .with_deflate_pool(DeflatePool::new(DEFLATE_IDLE_MAX))
        .with_compression_threshold(DEFLATE_BYTES_MIN)
        .with_read_buffer_capacity(SOCKET_BUFFER_BYTES)
        .with_write_buffer_capacity(SOCKET_BUFFER_BYTES)
        .with_backpressure_boundary(WRITE_BYTES);
    let cors = cors(&app.config.server.allowed_origins);
    let endpoint_paths = EndpointPaths::of(&app.config.server);
    let api = rest::router(&app).unwrap_or_default();
    let console = console::router(&app).unwrap_or_default();
    let router = Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/favicon.ico", get(favicon))
        .route_layer(cors)
        // No web page may read the metrics.
        .route("/metrics", get(show_metrics))
        .fallback(endpoint)
        .with_state(RouterState { app, options, admission, endpoint_paths });
    router.merge(api).merge(console)
}

/// Lets the pages of `allowed_origins` read health and readiness.
fn cors(allowed: &Origins) -> CorsLayer {
    let cors = CorsLayer::new().allow_headers(Any).allow_methods(Any);
    match allowed {
        Origins::Any => cors.allow_origin(Any),
        Origins::Only(_) => {
            let allowed = allowed.clone();
            let is_allowed = move |origin: &HeaderValue, _: &_| origin.to_str().is_ok_and(|it| allowed.allows(it));
            cors.allow_origin(AllowOrigin::predicate(is_allowed))
        }
    }
}

/// Paths at which the relay is reached, without slashes at their ends.
#[derive(Clone)]
struct EndpointPaths(Arc<[String]>);

impl EndpointPaths {
    fn of(server: &Server) -> Self {
        let named = server.relay_addresses().into_iter().map(|address| address.path().to_owned());
        Self(std::iter::once(String::new()).chain(named).collect())
    }

    fn holds(&self, path: &str) -> bool {
        let path = path.trim_start_matches('/').trim_end_matches('/');
        self.0.iter().any(|named| named == path)
    }
}

async fn health(State(shared): State<RouterState>) -> Response {
    let health = info::Health::healthy(shared.app.started.elapsed().as_secs());
    ([(header::CACHE_CONTROL, "no-store")], axum::Json(health)).into_response()
}

/// Tells load balancers whether to send clients here; `/health` says whether the process lives.
async fn ready(State(shared): State<RouterState>) -> Response {
    let ready = info::Ready::because_not(shared.app.not_ready());
    let status = if ready.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, [(header::CACHE_CONTROL, "no-store")], axum::Json(ready)).into_response()
}

/// Shows the metrics, unless they have a port of their own.
async fn show_metrics(
    State(shared): State<RouterState>,
    Extension(Connected { peer, .. }): Extension<Connected>,
    headers: HeaderMap,
) -> Response {
    match shared.app.config.metrics.listen {
        None => metrics::show(&shared.app, peer, &headers),
        Some(_) => (StatusCode::NOT_FOUND, "the metrics are at the address of [metrics] listen\n").into_response(),
    }
}

/// Shows the icon that browsers ask for beside the page.
async fn favicon() -> Response {
    let headers = [(header::CONTENT_TYPE, "image/x-icon"), (header::CACHE_CONTROL, "public, max-age=86400")];
    (headers, info::ICON).into_response()
}

/// Methods that the endpoint answers.
const ENDPOINT_METHODS: &str = "GET, HEAD, OPTIONS, POST";

async fn endpoint(
    State(shared): State<RouterState>,
    Extension(Connected { peer, .. }): Extension<Connected>,
    Extension(permit): Extension<ConnectionPermit>,
    mut request: Request,
) -> Response {
    if !shared.endpoint_paths.holds(request.uri().path()) {
        let text = "nothing is here; the relay is at / and at the paths of its [server] public_url\n";
        return (StatusCode::NOT_FOUND, text).into_response();
    }
    let upgrade_to = request.headers().get(header::UPGRADE);
    let asks_upgrade = upgrade_to.is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if asks_upgrade && request.method() == Method::GET {
        return upgrade(&shared, peer, permit, &mut request);
    }
    let mut response = match *request.method() {
        _ if manage::is_order(request.method(), request.headers()) => manage::answer(&shared.app, request).await,
        Method::GET | Method::HEAD => document_or_page(&shared.app, request.headers()),
        Method::OPTIONS => [(header::ALLOW, ENDPOINT_METHODS)].into_response(),
        _ => {
            let allow = [(header::ALLOW, ENDPOINT_METHODS)];
            (StatusCode::METHOD_NOT_ALLOWED, allow, "use GET, or open a WebSocket here\n").into_response()
        }
    };
    response.headers_mut().extend(PUBLIC_HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value))));
    response
}

/// Headers by which every web page may read the endpoint's answers (NIP-11): they are the same for everyone. `Vary`
/// says that they depend on `Accept` (RFC 9110, 12.5.5).
const PUBLIC_HEADERS: [(HeaderName, &str); 4] = [
    (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
    // A wildcard stands for no `Authorization` (Fetch, "CORS protocol").
    (header::ACCESS_CONTROL_ALLOW_HEADERS, "*, Authorization"),
    (header::ACCESS_CONTROL_ALLOW_METHODS, ENDPOINT_METHODS),
    (header::VARY, "Accept"),
];

fn document_or_page(app: &App, headers: &HeaderMap) -> Response {
    if accept::prefers_document(headers) {
        let shown = app.management.shown();
        let document = axum::Json(info::document(&shown.config, &shown.retention));
        return ([(header::CONTENT_TYPE, "application/nostr+json")], document).into_response();
    }
    let html = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, home::PAGE_CSP),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    let shown = app.management.shown();
    (html, home::page(&shown.config, &shown.retention, &page_url(app, headers))).into_response()
}

/// The WebSocket URL that the page shows: the configured one, else the one that the visitor came by. It is never
/// trusted.
fn page_url(app: &App, headers: &HeaderMap) -> String {
    if let Some(url) = &app.config.server.public_url {
        return url.to_string();
    }
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    let scheme = if app.config.server.tls().is_some() || app.config.on_cloud_run { "wss" } else { "ws" };
    format!("{scheme}://{host}")
}

fn upgrade(shared: &RouterState, peer: SocketAddr, permit: ConnectionPermit, request: &mut Request) -> Response {
    let app = &shared.app;
    let client = client_of(app, peer, request.headers());
    if let Some(origin) = request.headers().get(header::ORIGIN)
        && !is_origin_allowed(app, &client.names, origin, request.headers())
    {
        let text = "the Origin of this request is not allowed; list it in [server] allowed_origins of the relay\n";
        return (StatusCode::FORBIDDEN, text).into_response();
    }
    if app.management.blocks(client.address) {
        return (StatusCode::FORBIDDEN, "this address is blocked at this relay\n").into_response();
    }
    let silence = request.extensions().get::<Silence>().cloned().unwrap_or_default();
    let place = if permit.has_place() {
        None
    } else {
        match shared.admission.admit(app, AddressBlock::of(client.address)) {
            Ok(place) => Some(place),
            Err(refused) => return refused.into_response(),
        }
    };
    let upgraded = request.extensions().get::<OnUpgrade>().cloned();
    let (response, _) = match HttpWebSocket::upgrade_with_options(&mut *request, shared.options.clone()) {
        Ok(parts) => parts,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("no WebSocket handshake: {error}\n")).into_response(),
    };
    let extensions = response.headers().get(header::SEC_WEBSOCKET_EXTENSIONS);
    let extensions = extensions.and_then(|value| value.to_str().ok()).map(str::to_owned);
    let options = shared.options.clone();
    let message_bytes_max = app.config.limitation.max_message_length + 1;
    let app = Arc::clone(app);
    let tracker = app.connections.clone();
    let opened = async move {
        let Some(Ok(upgraded)) = OptionFuture::from(upgraded).await else { return None };
        let received = Received::default();
        let stream = Intake::new(TokioIo::new(upgraded), received.clone());
        let socket = WebSocket::from_stream_with_extensions(stream, Role::Server, extensions.as_deref(), options);
        // A message is put together where its memory is counted.
        let socket = socket.ok()?.into_streaming();
        Some(connection::serve(app, client, Accepted { socket, received, silence, message_bytes_max }))
    };
    // Boxed, so that the task keeps no room for it afterwards.
    let opened = Box::pin(opened);
    tracker.spawn(async move {
        let _held = (permit, place);
        if let Some(served) = opened.await {
            served.await;
        }
    });
    response.map(axum::body::Body::new)
}

/// Returns whether a page of this origin may open a WebSocket: a listed one, or one of the relay's own.
fn is_origin_allowed(app: &App, names: &RelayNames, origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    origin
        .to_str()
        .is_ok_and(|origin| app.config.server.allowed_origins.allows(origin) || names.is_own_origin(origin, host))
}

/// The client of a request: its address, and the names by which it may call the relay.
pub(crate) fn client_of(app: &App, peer: SocketAddr, headers: &HeaderMap) -> Client {
    let address = forwarding::client_address(app, peer.ip(), headers);
    Client { address, names: Arc::new(names(app, peer, headers)) }
}

/// The names by which this connection may call the relay (docs/rules.md, "Identity" 5).
fn names(app: &App, peer: SocketAddr, headers: &HeaderMap) -> RelayNames {
    let configured = app.config.server.relay_addresses();
    if !configured.is_empty() {
        return RelayNames::Configured(configured);
    }
    if app.config.on_cloud_run {
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
        return host
            .and_then(|host| RelayAddress::parse(&format!("wss://{host}")))
            .map_or(RelayNames::Unknown, RelayNames::Host);
    }
    if forwarding::is_local(peer.ip(), headers) { RelayNames::Loopback } else { RelayNames::Unknown }
}
