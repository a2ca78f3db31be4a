//! HTTP on the same port (docs/rules.md, "Elsewhere"): health, NIP-11, the page, metrics, origins, and the end of
//! connections.

use nostr_relay::config::{Config, Origins, RelayUrl, Secret};
use serde_json::json;

use super::World;
use crate::support::{Client, Keys, TestRelay, gateway::wrap, http, http_bytes};

/// `GET /health` answers as specified.
#[tokio::test]
async fn health_is_as_specified() {
    let world = World::new().await;
    let answer = http(world.relay.address, "GET /health", &[]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    let body = answer.json();
    assert_eq!(body["status"], "healthy");
    assert!(body["uptime_seconds"].is_u64() && body["version"].is_string());
    assert_eq!(body.as_object().map(serde_json::Map::len), Some(3));
}

/// `/` is the NIP-11 document for a client that asks for it, and a page for people.
#[tokio::test]
async fn the_root_serves_nip_11_to_programs_and_a_page_to_people() {
    let world = World::with(|config| {
        config.information.name = "A relay <of> tests".to_owned();
        config.limitation.max_subscriptions = 7;
    })
    .await;
    let accept = ("accept", "application/nostr+json");
    let answer = http(world.relay.address, "GET /", &[accept, ("origin", "https://client.example")]).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/nostr+json")));
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    let document = answer.json();
    assert_eq!(document["name"], "A relay <of> tests");
    assert_eq!(document["limitation"]["max_subscriptions"], 7);
    for nip in [1, 9, 11, 40, 42, 45, 59, 62, 67, 70, 77, 86] {
        assert!(document["supported_nips"].as_array().expect("a list").contains(&json!(nip)), "NIP-{nip}");
    }
    for kind in [443, 445, 446, 447, 450, 1059, 30443] {
        assert!(document["mls_gateway"]["kinds"].as_array().expect("a list").contains(&json!(kind)), "{kind}");
    }
    assert_eq!(document["mls_gateway"]["membership_sources"], json!(["roster", "giftwrap"]));

    let page = http(world.relay.address, "GET /", &[("accept", "text/html")]).await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.body.contains("A relay &lt;of&gt; tests") && !page.body.contains("<of>"));
    assert_eq!(http(world.relay.address, "GET /nothing", &[]).await.status, 404);
}

/// NIP-11: `software` is a URL, every page may read the document whatever `allowed_origins` says, and `Accept` is read
/// as RFC 9110 says.
#[tokio::test]
async fn nip_11_is_public_and_keeps_its_musts() {
    let world = World::with(only_app).await;
    let evil = ("origin", "https://evil.example");
    for accept in ["application/nostr+json", "Application/Nostr+Json", "application/nostr+json, */*;q=0.1"] {
        let answer = http(world.relay.address, "GET /", &[("accept", accept), evil]).await;
        assert_eq!(answer.header("content-type"), Some("application/nostr+json"), "{accept}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
        assert_eq!(answer.header("access-control-allow-headers"), Some("*, authorization"));
        assert_eq!(answer.header("access-control-allow-methods"), Some("get, head, options, post"));
        assert!(answer.json()["software"].as_str().is_some_and(|url| url.starts_with("https://")), "{}", answer.body);
    }
    let refused =
        http(world.relay.address, "GET /", &[("accept", "application/nostr+json;q=0, text/html"), evil]).await;
    assert_eq!(refused.header("content-type"), Some("text/html; charset=utf-8"));
}

/// RFC 9110: the answers at `/` vary by `Accept`. Methods other than those in `Allow` get 405, as does a POST that is
/// no call of NIP-86.
#[tokio::test]
async fn the_root_varies_by_accept_and_takes_no_post() {
    let world = World::new().await;
    for accept in ["application/nostr+json", "text/html"] {
        let answer = http(world.relay.address, "GET /", &[("accept", accept)]).await;
        assert_eq!((answer.status, answer.header("vary")), (200, Some("accept")));
    }
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        let answer = http(world.relay.address, &format!("{method} /"), &[("content-length", "0")]).await;
        assert_eq!((answer.status, answer.header("allow")), (405, Some("get, head, options, post")), "{method}");
    }
    let head = http(world.relay.address, "HEAD /", &[("accept", "application/nostr+json")]).await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let icon = http_bytes(world.relay.address, "GET /favicon.ico").await;
    assert!(icon.starts_with(b"HTTP/1.1 200") && icon.windows(4).any(|it| it == b"\0\0\x01\0"), "an icon");
}

/// NIP-01 has one endpoint: `/` and the paths of `public_url` and its aliases, each with NIP-11.
#[tokio::test]
async fn the_endpoint_is_the_root_and_the_paths_of_the_relays_urls() {
    let world = World::with(|config| {
        config.server.public_url = Some(RelayUrl::parse("wss://relay.example.com/nostr/").expect("a URL"));
        config.server.public_url_aliases = vec![RelayUrl::parse("wss://other.example/a/b").expect("a URL")];
    })
    .await;
    let opens = async |path: &str| Client::open(&format!("{}{path}", world.relay.url), &[]).await.is_ok();
    let accept = ("accept", "application/nostr+json");
    for path in ["/", "/nostr", "/nostr/", "/a/b", "/nostr?x=1"] {
        assert!(opens(path).await, "{path}");
        let answer = http(world.relay.address, &format!("GET {path}"), &[accept]).await;
        assert_eq!(answer.header("content-type"), Some("application/nostr+json"), "{path}");
    }
    for path in ["/nothing", "/nostr/x", "/Nostr", "/a", "/health/x"] {
        assert!(!opens(path).await, "{path}");
        assert_eq!(http(world.relay.address, &format!("GET {path}"), &[accept]).await.status, 404, "{path}");
    }
}

/// `/metrics` answers peers on this machine, in the Prometheus format and under the specification's names.
#[tokio::test]
async fn metrics_count_under_the_specifications_names() {
    let world = World::alone(|_| {}).await;
    let [alice, bob] = Keys::some();
    world.group("grp_a", &[&alice]).await;
    world.client(&[]).await.publish(&wrap(&bob).sign()).await.ok();
    world.client(&[]).await.publish(&alice.event(444).sign()).await.refused("blocked");
    let answer = http(world.relay.address, "GET /metrics", &[]).await;
    assert_eq!(answer.status, 200);
    for line in [
        "mls_gateway_events_processed_total{kind=\"1059\"} 1",
        "mls_gateway_events_processed_total{kind=\"450\"} 1",
        "mls_gateway_groups_updated_total 1",
        "mls_gateway_membership_updates_total 1",
        "mls_gateway_keypackages_stored_total 0",
        "mls_gateway_errors_total{kind=\"444\"} 1",
        "mls_gateway_errors_total{kind=\"1059\"} 0",
        "mls_gateway_refusals_total{reason=\"blocked\"} 1",
    ] {
        assert!(answer.body.lines().any(|found| found == line), "{line} in\n{}", answer.body);
    }
    assert!(answer.body.contains("mls_gateway_db_operation_duration_seconds_bucket{operation=\"save\",le=\"0.1\"}"));
    for secret in [alice.hex(), bob.hex(), world.admin.hex(), "grp_a".to_owned(), "127.0.0.1".to_owned()] {
        assert!(!answer.body.contains(&secret));
    }
}

/// Strangers need the bearer token; where none is set they are refused.
#[tokio::test]
async fn metrics_are_not_for_strangers() {
    let elsewhere = ("x-forwarded-for", "203.0.113.9");
    let plain = World::new().await;
    assert_eq!(http(plain.relay.address, "GET /metrics", &[elsewhere]).await.status, 401);
    assert_eq!(http(plain.relay.address, "GET /metrics", &[elsewhere, ("authorization", "Bearer ")]).await.status, 401);
    let world = World::with(|config| config.metrics.auth = Some(Secret::new("token".to_owned()))).await;
    for (token, status) in [("Bearer token", 200), ("Bearer toke", 401), ("Bearer tokens", 401), ("Basic token", 401)] {
        let answer = http(world.relay.address, "GET /metrics", &[elsewhere, ("authorization", token)]).await;
        assert_eq!(answer.status, status, "{token}");
    }
}

fn only_app(config: &mut Config) {
    config.server.allowed_origins = Origins::Only(vec!["https://app.example".to_owned()]);
}

/// A page of a foreign origin can open no WebSocket and read no answer; a program sends no origin and is served.
#[tokio::test]
async fn origins_are_asked() {
    let world = World::with(only_app).await;
    let open = async |headers: &[(&'static str, &str)]| Client::open(&world.relay.url, headers).await.is_ok();
    assert!(open(&[]).await);
    assert!(open(&[("origin", "https://app.example")]).await);
    assert!(!open(&[("origin", "https://evil.example")]).await);
    assert!(!open(&[("origin", "http://app.example")]).await);
    assert!(!open(&[("origin", "null")]).await);
    let cors = async |origin: &str| http(world.relay.address, "GET /health", &[("origin", origin)]).await;
    assert_eq!(cors("https://app.example").await.header("access-control-allow-origin"), Some("https://app.example"));
    assert_eq!(cors("https://evil.example").await.header("access-control-allow-origin"), None);
    let preflight = [
        ("origin", "https://app.example"),
        ("access-control-request-method", "GET"),
        ("access-control-request-headers", "accept"),
    ];
    let answer = http(world.relay.address, "OPTIONS /", &preflight).await;
    assert_eq!(answer.status, 200);
    assert!(
        answer.header("access-control-allow-headers").is_some()
            && answer.header("access-control-allow-methods").is_some()
    );
}

/// With `allowed_origins` the relay's own URL passes, an origin of any scheme can be listed, and the 403 names the key.
#[tokio::test]
async fn the_relays_own_origin_passes_and_the_refusal_names_the_key() {
    let world = World::with(|config| {
        config.server.public_url = Some(RelayUrl::parse("wss://relay.example.com").expect("a URL"));
        config.server.allowed_origins = Origins::Only(vec!["capacitor://localhost".to_owned()]);
    })
    .await;
    let open = async |origin: &str| Client::open(&world.relay.url, &[("origin", origin)]).await.is_ok();
    for passes in ["capacitor://localhost", "wss://relay.example.com", "https://relay.example.com"] {
        assert!(open(passes).await, "{passes}");
    }
    for refused in ["https://app.example", "https://relay.example.com:8443", "capacitor://other"] {
        assert!(!open(refused).await, "{refused}");
    }
    let upgrade = [("upgrade", "websocket"), ("origin", "https://app.example")];
    let answer = http(world.relay.address, "GET /", &upgrade).await;
    assert_eq!(answer.status, 403);
    assert!(answer.body.contains("[server] allowed_origins"), "{}", answer.body);
}

/// A stop accepts no new connections and ends each one without a close frame: after one, some clients end their
/// subscriptions for good, and others spin.
#[tokio::test]
async fn a_stop_ends_each_connection_without_a_close_frame() {
    let relay = TestRelay::start(|_| {}).await;
    let mut client = Client::connect(&relay).await;
    client.publish(&Keys::random().event(1).sign()).await.ok();
    let (url, address) = (relay.url.clone(), relay.address);
    let (end, ()) = tokio::join!(client.recv_raw(), relay.stop());
    assert_eq!(end, None, "no frame, and no close frame");
    assert!(Client::open(&url, &[]).await.is_err());
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
