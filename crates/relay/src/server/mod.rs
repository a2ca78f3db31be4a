//! One listener for everything: WebSocket, NIP-11, the page for people, health, metrics.

mod accept;
mod admission;
mod forwarding;
mod http;
mod linger;
pub(crate) mod metrics;
mod places;
pub(crate) mod tls;

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures_util::FutureExt as _;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket},
    sync::Semaphore,
    time::timeout,
};
use tower::ServiceExt as _;

pub(crate) use self::http::{WRITE_BYTES, client_of};
use self::{
    admission::{Admission, ConnectionRefused},
    forwarding::ForwardingWatch,
    http::ConnectionPermit,
};
use crate::{
    app::App,
    console,
    rate_limit::{AddressBlock, Payer, RetryAfter},
    rest::{self, Problem, Sheds},
    session::Silence,
    shares::Share,
};

/// Most bytes of a request's head.
const HEAD_BYTES_MAX: usize = 16 << 10;
/// Wait after the system refuses a new connection, for example because it has no descriptors left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Longest life of a connection that does not become a WebSocket, so that a client that does not read its answers goes.
const HTTP_MAX: Duration = Duration::from_secs(300);
/// Longest wait at the end for a request that is under way, or that has begun and may never come.
const SETTLE_MAX: Duration = Duration::from_secs(1);

/// Most bytes of one connection that the system holds before the relay reads them. The system's own bound is tens of
/// mebibytes, which each of an attacker's connections could fill while its payer waits for a turn.
const UNREAD_BYTES_MAX: u32 = 256 << 10;
/// Most connections that wait to be accepted.
const ACCEPT_BACKLOG_MAX: u32 = 1_024;

/// The service of the connections of one relay, by whichever way they come.
#[derive(Clone)]
pub(crate) struct Server {
    app: Arc<App>,
    admission: Arc<Admission>,
    router: axum::Router,
    /// The watch over the hops in front of the relay.
    watch: Arc<ForwardingWatch>,
    /// Places of connections.
    room: Arc<Semaphore>,
}

/// A new connection that is not served.
enum NotServed {
    /// No place is left.
    NoRoom,
    /// Its address has too many connections, or opens them too fast.
    Refused(ConnectionRefused),
}

impl Server {
    pub(crate) fn new(app: Arc<App>) -> Self {
        let admission = Arc::new(Admission::new(&app.config.server));
        let router = http::router(Arc::clone(&app), Arc::clone(&admission));
        let room = Arc::new(Semaphore::new(app.config.server.connections_max));
        Self { app, admission, router, watch: Arc::default(), room }
    }

    /// Accepts connections until the relay stops.
    pub(crate) async fn run(self, listener: TcpListener) {
        loop {
            let (stream, peer) = tokio::select! {
                () = self.app.stopping.cancelled() => return,
                accepted = listener.accept() => match accepted {
                    Ok(accepted) => accepted,
                    Err(error) => {
                        tracing::warn!(%error, "a connection was not accepted");
                        tokio::time::sleep(ACCEPT_RETRY).await;
                        continue;
                    }
                },
            };
            match self.place(peer) {
                Ok(permit) => {
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "TCP_NODELAY was not set");
                    }
                    self.serve(stream, peer, permit);
                }
                Err(NotServed::Refused(refused)) if self.app.certificates.is_none() => refused.write_to(stream),
                Err(_) => {}
            }
        }
    }

    /// Serves a connection that came by another way than the port, or drops it where the relay would refuse it.
    #[cfg(feature = "simulation")]
    pub(crate) fn take(&self, stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static, peer: SocketAddr) {
        if let Ok(permit) = self.place(peer) {
            self.serve(stream, peer, permit);
        }
    }

    /// Takes the places of a new connection.
    fn place(&self, peer: SocketAddr) -> Result<ConnectionPermit, NotServed> {
        let app = &self.app;
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
            app.metrics.error("connections_max");
            return Err(NotServed::NoRoom);
        };
        // The clients of a trusted peer are known, and counted, after the head of their request.
        let place = if forwarding::is_trusted(app, peer.ip()) {
            None
        } else {
            Some(self.admission.admit(app, AddressBlock::of(peer.ip())).map_err(NotServed::Refused)?)
        };
        Ok(ConnectionPermit::new(permit, place))
    }

    /// Serves a connection on a task of its own.
    fn serve(
        &self,
        stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        peer: SocketAddr,
        permit: ConnectionPermit,
    ) {
        let (app, router, watch) = (Arc::clone(&self.app), self.router.clone(), Arc::clone(&self.watch));
        let acceptor = app.certificates.as_ref().map(|certificates| certificates.acceptor());
        let tracker = app.connections.clone();
        // The peer pays until the head of a request names its client.
        let payer = Payer::Address(AddressBlock::of(peer.ip()));
        let share = app.shares.share(app.limits.payer_hash(payer));
        tracker.spawn(share.clone().run(async move {
            let handshake = Duration::from_secs(app.config.server.handshake_timeout_secs);
            let accepted = Accepted { peer, permit, share, watch };
            match acceptor {
                None => serve(app, router, stream, accepted, handshake).await,
                Some(acceptor) => {
                    let stream = tokio::select! {
                        stream = timeout(handshake, acceptor.accept(stream)) => stream,
                        () = app.stopping.cancelled() => return,
                    };
                    if let Ok(Ok(stream)) = stream {
                        serve(app, router, stream, accepted, handshake).await;
                    }
                }
            }
        }));
    }
}

/// The connection that a request came by.
#[derive(Clone)]
pub(crate) struct Connected {
    /// The address of the peer at the other end.
    pub(crate) peer: SocketAddr,
    /// The share that the connection's task runs on.
    pub(crate) share: Share,
    /// The end of the request under way for want of memory.
    pub(crate) sheds: Sheds,
}

/// A connection that was accepted.
struct Accepted {
    peer: SocketAddr,
    permit: ConnectionPermit,
    /// The share that its task runs on.
    share: Share,
    /// The watch over the hops in front of the relay.
    watch: Arc<ForwardingWatch>,
}

async fn serve(
    app: Arc<App>,
    router: axum::Router,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    Accepted { peer, permit, share, watch }: Accepted,
    handshake: Duration,
) {
    let parts = Arc::clone(&app);
    let silence = Silence::default();
    let lingers = share.clone();
    let connected = Connected { peer, share: share.clone(), sheds: Sheds::new() };
    let sheds = connected.sheds.clone();
    let ends = silence.clone();
    let is_first = AtomicBool::new(true);
    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let mut request = request.map(axum::body::Body::new);
        request.extensions_mut().insert(connected.clone());
        request.extensions_mut().insert(permit.clone());
        request.extensions_mut().insert(ends.clone());
        watch.look_at(&parts, peer.ip(), request.headers());
        let block = AddressBlock::of(forwarding::client_address(&parts, peer.ip(), request.headers()));
        share.change_payer(parts.limits.payer_hash(Payer::Address(block)));
        // The rate of new connections bounds the handshakes that come first on theirs.
        let is_handshake = is_first.swap(false, Ordering::Relaxed) && request.headers().contains_key(header::UPGRADE);
        let allowed = if is_handshake { Ok(()) } else { parts.limits.request(block, parts.clock.now_ms()) };
        let is_for_api = rest::is_for(&parts.config, request.uri());
        let is_for_console = console::is_for(&parts.config, request.uri());
        let (router, share, parts) = (router.clone(), share.clone(), Arc::clone(&parts));
        async move {
            share.pause().await;
            match allowed {
                Ok(()) => router.oneshot(request).await,
                Err(retry) => {
                    parts.metrics.error("http_requests");
                    parts.metrics.rate_limited(if is_for_api { "rest" } else { "http" });
                    let refusal = too_many_requests(retry, is_for_api || is_for_console);
                    Ok(if is_for_console { console::sealed(refusal) } else { refusal })
                }
            }
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(handshake)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(linger::Linger::new(stream, silence, lingers)), service)
        .with_upgrades();
    tokio::pin!(connection);
    let over = timeout(HTTP_MAX, app.stopping.cancelled()).map(drop);
    tokio::select! {
        _ = connection.as_mut() => {}
        () = sheds.shed() => {}
        () = over => {
            connection.as_mut().graceful_shutdown();
            let _ = timeout(SETTLE_MAX, connection).await;
        }
    }
}

/// The answer to a request beyond the rate of its address, after which the connection ends.
fn too_many_requests(retry: RetryAfter, is_for_api: bool) -> Response {
    let mut response = if is_for_api {
        Problem::from(retry).into_response()
    } else {
        let headers = [(header::RETRY_AFTER, retry.secs().to_string())];
        (StatusCode::TOO_MANY_REQUESTS, headers, format!("{retry}\n")).into_response()
    };
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Opens the listening socket. Connections inherit the size of its receive buffer.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A relay that was restarted takes its port again at once. On Windows this option would let two programs share it.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.set_recv_buffer_size(UNREAD_BYTES_MAX)?;
    socket.bind(address)?;
    socket.listen(ACCEPT_BACKLOG_MAX)
}

#[cfg(test)]
mod tests;
