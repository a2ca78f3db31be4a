//! `/metrics`: on the relay's own port, or on the one of `[metrics] listen`, which answers nothing else.
//!
//! Source: docs/rules.md, "Elsewhere" 2.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header, uri::Authority},
    response::{IntoResponse as _, Response},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::sleep,
};

use super::{
    ACCEPT_RETRY, HEAD_BYTES_MAX, accept, forwarding,
    places::{Place, Places},
    too_many_requests,
};
use crate::{
    app::App,
    observe::metrics::Format,
    rate_limit::{AddressBlock, Payer},
    shares::Share,
};

/// Most connections of other machines to the port of the metrics at one time. A further one is closed at once.
const SCRAPES_MAX: usize = 64;
/// Most connections of one address to that port at one time: a pair of Prometheus servers behind one address fits.
const SCRAPES_OF_ADDRESS_MAX: u32 = 2;
/// Longest time for the head of a request to that port, in seconds. A connection that asks for nothing further ends
/// after it as well, so that a scraper with longer pauses connects anew for each scrape.
const SCRAPE_HEAD_SECS: u64 = 10;
/// Longest life of a connection to that port that has not been shown the metrics, in seconds.
const STRANGER_SECS_MAX: u64 = 5;
/// Longest life of a connection to that port that has, in seconds: a scraper that does not read its answer goes.
const SCRAPE_SECS_MAX: u64 = 3_600;

/// Shows the metrics to a peer on this machine and to the bearer of the token: strangers may not see counts of hidden
/// messages.
pub(super) fn show(app: &App, peer: SocketAddr, headers: &HeaderMap) -> Response {
    let bearer = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "));
    let open = match &app.config.metrics.auth {
        Some(secret) if bearer.is_some() => bearer.is_some_and(|token| secret.matches(token)),
        _ => is_own_program(peer.ip(), headers),
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

/// Returns whether a program on this machine asks, other than a browser for a web page. A page of another host sends an
/// `Origin`, or its own name as `Host` where that name leads to this machine.
fn is_own_program(peer: IpAddr, headers: &HeaderMap) -> bool {
    forwarding::is_local(peer, headers)
        && !headers.contains_key(header::ORIGIN)
        && headers.get_all(header::HOST).iter().all(is_loopback_host)
}

fn is_loopback_host(host: &HeaderValue) -> bool {
    let Some(authority) = host.to_str().ok().and_then(|host| host.parse::<Authority>().ok()) else { return false };
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Answers on the port of the metrics until the relay stops.
pub(crate) async fn run(app: Arc<App>, listener: TcpListener) {
    let (room, places) = (Arc::new(Semaphore::new(SCRAPES_MAX)), Places::new(SCRAPES_OF_ADDRESS_MAX));
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
        let Some(admitted) = admit(&room, &places, peer.ip()) else { continue };
        let (app, tracker) = (Arc::clone(&app), app.connections.clone());
        let payer = Payer::Address(AddressBlock::of(peer.ip()));
        let share = app.shares.share(app.limits.payer_hash(payer));
        tracker.spawn(share.clone().run(async move {
            let stopping = app.stopping.clone();
            stopping.run_until_cancelled(serve(app, stream, peer, share)).await;
            drop(admitted);
        }));
    }
}

/// Takes a place of the address and one of all. This machine has its places beside those of the others, so that they
/// cannot shut it out.
fn admit(room: &Arc<Semaphore>, places: &Arc<Places>, peer: IpAddr) -> Option<(Place, Option<OwnedSemaphorePermit>)> {
    let place = places.take(AddressBlock::of(peer))?;
    if peer.to_canonical().is_loopback() {
        return Some((place, None));
    }
    Some((place, Some(Arc::clone(room).try_acquire_owned().ok()?)))
}

async fn serve(app: Arc<App>, stream: TcpStream, peer: SocketAddr, share: Share) {
    let is_shown = Arc::new(AtomicBool::new(false));
    let shown = Arc::clone(&is_shown);
    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let (app, share, shown) = (Arc::clone(&app), share.clone(), Arc::clone(&shown));
        async move {
            share.pause().await;
            let mut answer = answer(&app, peer, &request);
            if answer.status() == StatusCode::OK {
                shown.store(true, Ordering::Relaxed);
            } else {
                answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_secs(SCRAPE_HEAD_SECS))
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let over = async {
        sleep(Duration::from_secs(STRANGER_SECS_MAX)).await;
        if is_shown.load(Ordering::Relaxed) {
            sleep(Duration::from_secs(SCRAPE_SECS_MAX)).await;
        }
    };
    tokio::select! {
        _ = connection => {}
        () = over => {}
    }
}

fn answer(app: &App, peer: SocketAddr, request: &hyper::Request<hyper::body::Incoming>) -> Response {
    if let Err(retry) = app.limits.request(AddressBlock::of(peer.ip()), app.clock.now_ms()) {
        app.metrics.error("http_requests");
        app.metrics.rate_limited("http");
        return too_many_requests(retry, false);
    }
    match request.uri().path() {
        "/metrics" => show(app, peer, request.headers()),
        _ => (StatusCode::NOT_FOUND, "this port has /metrics and nothing else\n").into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_own(name: header::HeaderName, value: &'static str) -> bool {
        let headers = [(name, HeaderValue::from_static(value))].into_iter().collect();
        is_own_program([127, 0, 0, 1].into(), &headers)
    }

    #[test]
    fn a_web_page_is_no_program_of_this_machine() {
        for host in ["127.0.0.1:9100", "127.0.0.1", "localhost", "LocalHost:80", "[::1]:9100", "[::ffff:127.0.0.1]"] {
            assert!(is_own(header::HOST, host), "{host}");
        }
        let others =
            ["evil.example", "evil.example:9100", "localhost.evil.example", "192.0.2.1:9100", "[2001:db8::1]", ""];
        for host in others {
            assert!(!is_own(header::HOST, host), "{host}");
        }
        for origin in ["https://evil.example", "http://localhost:3000", "null"] {
            assert!(!is_own(header::ORIGIN, origin), "{origin}");
        }
    }

    #[test]
    fn strangers_cannot_shut_this_machine_out() {
        let (room, places) = (Arc::new(Semaphore::new(SCRAPES_MAX)), Places::new(SCRAPES_OF_ADDRESS_MAX));
        let mut held = Vec::new();
        for n in 0..100 {
            held.extend((0..5).filter_map(|_| admit(&room, &places, [192, 0, 2, n].into())));
        }
        assert_eq!(held.len(), SCRAPES_MAX);
        let own: Vec<_> = (0..5).filter_map(|_| admit(&room, &places, [127, 0, 0, 1].into())).collect();
        assert_eq!(own.len(), 2);
        held.truncate(2);
        assert!(admit(&room, &places, [192, 0, 2, 0].into()).is_none(), "an address has two places");
        assert!(admit(&room, &places, [192, 0, 2, 9].into()).is_some());
    }
}
