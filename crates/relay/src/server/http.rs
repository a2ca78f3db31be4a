//! The routes: `/` (WebSocket, NIP-11, the page for people), `/health`, `/ready`, `/metrics`.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    extract::{Extension, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use nostr_protocol::auth::{RelayAddress, RelayNames};
use tokio::sync::OwnedSemaphorePermit;
use tower_http::cors::{Any, CorsLayer};
use yawc::{DeflatePool, Options, WebSocket};

use super::{Admission, forwarding, forwarding::ForwardingWatch, places::Place};
use crate::{
    app::App,
    config::Origins,
    observe::info,
    rate_limit::AddressBlock,
    session::{Client, connection},
};

/// The address of the peer at the other end of the TCP connection.
#[derive(Clone, Copy)]
pub(super) struct PeerAddr(pub(super) SocketAddr);

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
const WRITE_BYTES: usize = 64 << 10;

#[derive(Clone)]
struct RouterState {
    app: Arc<App>,
    options: Options,
    admission: Arc<Admission>,
    watch: Arc<ForwardingWatch>,
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
        .with_backpressure_boundary(WRITE_BYTES)
        .with_utf8();
    let cors = match &app.config.server.allowed_origins {
        Origins::Any => CorsLayer::new().allow_origin(Any),
        Origins::Only(origins) => {
            let origins = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
            CorsLayer::new().allow_origin(origins.collect::<Vec<_>>())
        }
    };
    let cors = cors.allow_headers(Any).allow_methods(Any);
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .fallback(root)
        .layer(cors)
        .with_state(RouterState { app, options, admission, watch: Arc::default() })
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

/// Shows the metrics to a peer on this machine and to the bearer of the token: strangers may not see counts of hidden
/// messages.
async fn metrics(
    State(shared): State<RouterState>,
    Extension(PeerAddr(peer)): Extension<PeerAddr>,
    headers: HeaderMap,
) -> Response {
    let app = &shared.app;
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    let open = match &app.config.metrics.auth {
        Some(secret) if bearer.is_some() => bearer.is_some_and(|token| secret.matches(token)),
        _ => forwarding::is_local(peer.ip(), &headers),
    };
    if !open {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        return (StatusCode::UNAUTHORIZED, challenge, "set [metrics] auth and send it as a bearer token\n")
            .into_response();
    }
    app.metrics.readiness(app.not_ready().is_none(), app.delivery.lag());
    if let Some(documents) = app.store.documents_read() {
        app.metrics.documents_read(documents);
    }
    let text = app.metrics.render(app.live.subscriptions(), app.live.cursor());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

async fn root(
    State(shared): State<RouterState>,
    Extension(PeerAddr(peer)): Extension<PeerAddr>,
    Extension(permit): Extension<ConnectionPermit>,
    mut request: Request,
) -> Response {
    let headers = request.headers();
    let asks_upgrade =
        headers.get(header::UPGRADE).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"websocket"));
    if asks_upgrade {
        return upgrade(&shared, peer, permit, &mut request);
    }
    if request.uri().path() != "/" {
        return (StatusCode::NOT_FOUND, "nothing is here\n").into_response();
    }
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or("");
    if accept.contains("application/nostr+json") {
        let document = axum::Json(info::document(&shared.app.config));
        return ([(header::CONTENT_TYPE, "application/nostr+json")], document).into_response();
    }
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, info::LANDING_PAGE_CSP),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    let url = page_url(&shared.app, request.headers());
    (headers, info::landing_page(&shared.app.config, &url)).into_response()
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
    if let Some(origin) = request.headers().get(header::ORIGIN) {
        let allowed = origin.to_str().is_ok_and(|origin| app.config.server.allowed_origins.allows(origin));
        if !allowed {
            return (StatusCode::FORBIDDEN, "this origin is not in server.allowed_origins\n").into_response();
        }
    }
    shared.watch.look_at(app, peer.ip(), request.headers());
    let client = Client {
        address: forwarding::client_address(app, peer.ip(), request.headers()),
        names: Arc::new(names(app, peer, request.headers())),
    };
    let place = if permit.has_place() {
        None
    } else {
        match shared.admission.admit(app, AddressBlock::of(client.address)) {
            Ok(place) => Some(place),
            Err(refused) => return refused.into_response(),
        }
    };
    let (response, upgraded) = match WebSocket::upgrade_with_options(&mut *request, shared.options.clone()) {
        Ok(parts) => parts,
        Err(error) => return (StatusCode::BAD_REQUEST, format!("no WebSocket handshake: {error}\n")).into_response(),
    };
    let app = Arc::clone(app);
    let tracker = app.connections.clone();
    tracker.spawn(async move {
        let _held = (permit, place);
        if let Ok(socket) = upgraded.await {
            connection::serve(app, client, socket).await;
        }
    });
    response.map(axum::body::Body::new)
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
