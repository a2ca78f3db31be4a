//! `/metrics`: on the relay's own port, or on the one of `[metrics] listen`, which answers nothing else.
//!
//! Source: docs/rules.md, "Elsewhere" 2.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::timeout,
};

use super::{ACCEPT_RETRY, HEAD_BYTES_MAX, accept, forwarding};
use crate::{app::App, observe::metrics::Format};

/// Most connections to the port of the metrics at one time. A further one is closed at once.
const SCRAPES_MAX: usize = 16;
/// Longest time for the head of a request to that port, in seconds.
const SCRAPE_HEAD_SECS: u64 = 10;
/// Longest life of a connection to that port, in seconds. Prometheus keeps one open between its scrapes.
const SCRAPE_SECS_MAX: u64 = 3_600;

/// Shows the metrics to a peer on this machine and to the bearer of the token: strangers may not see counts of hidden
/// messages.
pub(super) async fn show(app: &App, peer: SocketAddr, headers: &HeaderMap) -> Response {
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    let open = match &app.config.metrics.auth {
        Some(secret) if bearer.is_some() => bearer.is_some_and(|token| secret.matches(token)),
        _ => forwarding::is_local(peer.ip(), headers),
    };
    if !open {
        let challenge = [(header::WWW_AUTHENTICATE, "Bearer")];
        return (StatusCode::UNAUTHORIZED, challenge, "set [metrics] auth and send it as a bearer token\n")
            .into_response();
    }
    app.metrics.gauges.gather(app);
    let format = if accept::prefers_openmetrics(headers) { Format::OpenMetrics } else { Format::Prometheus };
    let about = [(header::CONTENT_TYPE, format.content_type()), (header::VARY, "Accept")];
    (about, app.metrics.render(format)).into_response()
}

/// Answers on the port of the metrics until the relay stops.
pub(crate) async fn run(app: Arc<App>, listener: TcpListener) {
    let room = Arc::new(Semaphore::new(SCRAPES_MAX));
    loop {
        let (stream, peer) = tokio::select! {
            () = app.stopping.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection to the port of the metrics was not accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            },
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
        let (app, tracker) = (Arc::clone(&app), app.connections.clone());
        tracker.spawn(async move {
            let stopping = app.stopping.clone();
            let serving = timeout(Duration::from_secs(SCRAPE_SECS_MAX), serve(app, stream, peer));
            let _ = stopping.run_until_cancelled(serving).await;
            drop(permit);
        });
    }
}

async fn serve(app: Arc<App>, stream: TcpStream, peer: SocketAddr) {
    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let app = Arc::clone(&app);
        async move {
            Ok::<_, std::convert::Infallible>(match request.uri().path() {
                "/metrics" => show(&app, peer, request.headers()).await,
                _ => (StatusCode::NOT_FOUND, "this port has /metrics and nothing else\n").into_response(),
            })
        }
    });
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(SCRAPE_HEAD_SECS))
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}
