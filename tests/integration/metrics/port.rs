//! The two texts, and the port of the metrics' own.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{TestRelay, WAIT, http};

const ELSEWHERE: (&str, &str) = ("x-forwarded-for", "203.0.113.9");

#[tokio::test]
async fn openmetrics_is_for_those_that_ask_for_it() {
    let relay = TestRelay::start_alone(|_| {}).await;
    let plain = http(relay.address, "GET /metrics", &[]).await;
    assert_eq!(plain.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(plain.body.contains("# TYPE mls_gateway_events_processed_total counter\n"), "{}", plain.body);
    let asked = [("accept", "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5")];
    let open = http(relay.address, "GET /metrics", &asked).await;
    assert_eq!(open.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(open.body.contains("# TYPE mls_gateway_events_processed counter\n"), "{}", open.body);
    assert!(open.body.ends_with("# EOF\n"), "{}", open.body);
    // The names and labels of series are the same.
    let series = |body: &str| {
        let lines = body.lines().filter(|line| !line.starts_with('#'));
        lines
            .map(|line| line.rsplit_once(' ').expect("a value").0.to_owned())
            .collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(series(&plain.body), series(&open.body));
}

#[tokio::test]
async fn a_port_of_its_own_has_the_metrics_and_nothing_else() {
    let relay = TestRelay::start_alone(|config| {
        config.metrics.listen = Some("127.0.0.1:0".parse().expect("an address"));
    })
    .await;
    let own = relay.metrics_address().expect("a port of its own");
    assert_ne!(own, relay.address);
    let shown = http(own, "GET /metrics", &[]).await;
    assert_eq!(shown.status, 200);
    assert!(shown.body.contains("mls_gateway_ready 1\n"), "{}", shown.body);
    assert_eq!(http(own, "GET /metrics", &[ELSEWHERE]).await.status, 401, "a proxy is no client on this machine");
    for path in ["/", "/health", "/ready", "/api/v1/mls/groups/x"] {
        assert_eq!(http(own, &format!("GET {path}"), &[]).await.status, 404, "{path}");
    }
    assert_eq!(http(relay.address, "GET /metrics", &[]).await.status, 404, "the relay's port has none then");
    assert_eq!(http(relay.address, "GET /health", &[]).await.status, 200);
    relay.stop().await;
}

async fn with_own_port() -> (TestRelay, SocketAddr) {
    let relay = TestRelay::start_alone(|config| {
        config.metrics.listen = Some("127.0.0.1:0".parse().expect("an address"));
    })
    .await;
    let own = relay.metrics_address().expect("a port of its own");
    (relay, own)
}

/// Sends bytes, and reads until the relay closes the connection.
async fn read_all(stream: &mut TcpStream, sent: &str) -> String {
    let _ = stream.write_all(sent.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = timeout(WAIT, stream.read_to_end(&mut answer)).await.expect("the relay closes the connection");
    String::from_utf8(answer).expect("text")
}

/// A stranger at the port of the metrics has two connections, for a moment, and each refusal closes one.
#[tokio::test]
async fn strangers_hold_no_places_at_the_port_of_the_metrics() {
    let (relay, own) = with_own_port().await;
    // These clients ask to keep the connection.
    for (target, header, status) in [("/metrics", "x-forwarded-for: 203.0.113.9\r\n", "401"), ("/x", "", "404")] {
        let mut stream = TcpStream::connect(own).await.expect("the port listens");
        let started = Instant::now();
        let answer = read_all(&mut stream, &format!("GET {target} HTTP/1.1\r\nhost: {own}\r\n{header}\r\n")).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
        assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    }
    relay.stop().await;
    let (relay, own) = with_own_port().await;
    let started = Instant::now();
    let mut silent = Vec::new();
    for _ in 0..2 {
        silent.push(TcpStream::connect(own).await.expect("the port listens"));
    }
    let third = read_all(&mut TcpStream::connect(own).await.expect("the port listens"), "").await;
    assert_eq!(third, "");
    assert!(started.elapsed() < Duration::from_secs(4), "the third is closed at once: {:?}", started.elapsed());
    for stream in &mut silent {
        read_all(stream, "").await;
    }
    let took = started.elapsed();
    assert!(Duration::from_secs(4) < took && took < Duration::from_secs(9), "a silent one lives 5 s: {took:?}");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(http(own, "GET /metrics", &[]).await.status, 200, "the places are free again");
    relay.stop().await;
}

/// Requests to the port of the metrics count in the HTTP requests of their address.
#[tokio::test]
async fn requests_to_the_port_of_the_metrics_have_a_rate() {
    let (relay, own) = with_own_port().await;
    let (until, mut asked) = (Instant::now() + 3 * WAIT, 0);
    loop {
        let mut stream = TcpStream::connect(own).await.expect("the port listens");
        let answer = read_all(&mut stream, &format!("GET /x HTTP/1.1\r\nhost: {own}\r\n\r\n")).await;
        if answer.starts_with("HTTP/1.1 429") {
            break;
        }
        // The places of the connections before may not be free yet.
        asked += usize::from(answer.starts_with("HTTP/1.1 404"));
        assert!(asked <= 3_000 && Instant::now() < until, "{asked} requests are answered");
    }
    assert!(asked >= 1_000, "{asked}");
    relay.stop().await;
}

/// A web page in a browser on this machine reads no metrics, on either port.
#[tokio::test]
async fn web_pages_read_no_metrics() {
    let (with_port, own) = with_own_port().await;
    let plain = TestRelay::start_alone(|_| {}).await;
    for address in [plain.address, own] {
        let page = http(address, "GET /metrics", &[("origin", "https://evil.example")]).await;
        assert_eq!(page.status, 401, "{address}");
        assert_eq!(page.header("access-control-allow-origin"), None, "{address}");
        let rebound = http(address, "GET /metrics", &[("host", "evil.example")]).await;
        assert!([400, 401].contains(&rebound.status), "{address}: {}", rebound.status);
        let program = http(address, "GET /metrics", &[]).await;
        assert_eq!((program.status, program.header("access-control-allow-origin")), (200, None), "{address}");
    }
    with_port.stop().await;
}
