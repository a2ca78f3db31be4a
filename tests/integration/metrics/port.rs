//! The two texts, and the port of the metrics' own.

use crate::support::{TestRelay, http};

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
