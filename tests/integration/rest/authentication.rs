//! NIP-98: which proofs count, and the answer to the others.

use std::sync::Arc;

use futures_util::future::join_all;
use serde_json::json;

use super::relay_of;
use crate::support::{
    Client, Event, Keys, Response, TestRelay,
    rest::{Ask, Rest, header_of, problem, sha256},
};

/// Sends a request with this proof.
async fn with(ask: Ask, proof: &Event) -> Response {
    ask.header("authorization", &header_of(proof)).send_bare().await
}

#[tokio::test]
async fn a_refused_proof_is_told_what_is_wrong_and_the_url_that_is_expected() {
    let [admin, alice] = Keys::some();
    let relay = relay_of(&admin).await;
    let rest = Rest::of(&relay, &alice);
    let note = alice.event(1).sign();
    Client::of(&relay, &[&alice]).await.publish(&note).await.ok();
    let path = format!("/events/{}", note.id());
    let url = rest.url(&format!("/api/v1/mls{path}"));
    let now = relay.now();
    let proof = |url: &str, method: &str| alice.event(27235).created_at(now).tag(["u", url]).tag(["method", method]);
    let good = proof(&url, "GET").sign();
    let answer = with(rest.get(&path), &good).await;
    assert_eq!((answer.status, answer.json()), (200, note.0.clone()));
    let other_kind = alice.event(22242).created_at(now).tag(["u", &url]).tag(["method", "GET"]).sign();
    let mut forged = good.clone();
    forged.0["pubkey"] = admin.hex().into();
    let mut unsigned = good.clone();
    unsigned.0["sig"] = "0".repeat(128).into();
    for (wrong, told) in [
        (proof(&url, "POST").sign(), "the method tag is not the request's; write GET"),
        (proof(&format!("{url}?a=1"), "GET").sign(), "the u tag is not the URL of this request"),
        (proof("http://relay.example/", "GET").sign(), "the u tag is not the URL of this request"),
        (proof(&url, "GET").created_at(now - 61).sign(), "created_at is more than 60 s"),
        (proof(&url, "GET").created_at(now + 61).sign(), "created_at is more than 60 s"),
        (proof(&url, "GET").tag(["payload", &sha256(b"{}")]).sign(), "the request has none"),
        (other_kind, "kind 27235"),
        (forged, "holds no event"),
        (unsigned, "signature"),
    ] {
        let answer = with(rest.get(&path), &wrong).await;
        let detail = problem(&answer, 401, told);
        assert!(detail.starts_with("invalid: ") && detail.contains(told), "{detail}");
        assert_eq!(answer.header("www-authenticate"), Some("nostr"));
        let port = url.rsplit_once(':').expect("a port").1.split_once('/').expect("a path").1;
        assert_eq!(answer.json()["url"], format!("http://127.0.0.1:PORT/{port}"));
    }
    for value in ["Nostr", "Nostr !!", "Bearer x", "Nostr e30=", "nostr"] {
        problem(&rest.get(&path).header("authorization", value).send_bare().await, 401, value);
    }
    let twice = rest.get(&path).header("authorization", &header_of(&good)).header("authorization", &header_of(&good));
    problem(&twice.send_bare().await, 401, "two headers");
    let none = rest.get(&path).send_bare().await;
    assert!(problem(&none, 401, "none").starts_with("auth-required: "));
    assert_eq!(none.header("www-authenticate"), Some("nostr"));
}

#[tokio::test]
async fn the_body_is_the_one_that_the_proof_names() {
    let alice = Keys::random();
    let relay = TestRelay::start(|_| {}).await;
    let rest = Rest::of(&relay, &alice);
    let [note, other] = [1, 2].map(|n| alice.event(1).content(n.to_string()).sign());
    let ask = || rest.post("/events", note.0.to_string());
    let stolen = ask().proof(&alice);
    let refused = with(rest.post("/events", other.0.to_string()), &stolen).await;
    assert!(problem(&refused, 401, "another body").contains("payload tag"));
    let bare = alice.event(27235).created_at(relay.now());
    let bare = bare.tag(["u", &rest.url("/api/v1/mls/events")]).tag(["method", "POST"]).sign();
    assert!(problem(&with(ask(), &bare).await, 401, "no payload").contains("payload tag is missing"));
    let accepted = with(ask(), &stolen).await;
    assert_eq!((accepted.status, accepted.json()), (200, json!({"accepted": true, "message": ""})));
}

/// The proof of a request that changes something counts once over all instances; a GET may repeat its own.
#[tokio::test]
async fn a_proof_of_a_change_is_used_once() {
    let alice = Keys::random();
    let relay = Arc::new(TestRelay::start(|_| {}).await);
    let note = alice.event(1).sign();
    // A proof names one URL, so that one instance alone takes it here; the store is asked all the same.
    let rest = Rest::of(&relay, &alice);
    let proof = rest.post("/events", note.0.to_string()).proof(&alice);
    let racing = (0..8).map(|_| with(rest.post("/events", note.0.to_string()), &proof));
    let answers = join_all(racing).await;
    let (taken, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!((taken.len(), refused.len()), (1, 7));
    assert!(refused.iter().all(|answer| problem(answer, 401, "used").contains("this proof was used")));
    let again = rest.get(&format!("/events/{}", note.id()));
    let proof = again.proof(&alice);
    for _ in 0..3 {
        assert_eq!(with(rest.get(&format!("/events/{}", note.id())), &proof).await.status, 200);
    }
}

/// A proof goes to one name of the relay, which all instances share, and is used once over all of them.
#[tokio::test]
async fn a_proof_that_one_instance_took_is_refused_by_another() {
    let alice = Keys::random();
    let relay = TestRelay::start(|config| {
        config.server.public_url = Some(nostr_relay::config::RelayUrl::parse("wss://relay.example").expect("a URL"));
    })
    .await;
    let note = alice.event(1).sign();
    let rest = Rest::anonymous(&relay);
    let body = note.0.to_string();
    let proof = alice.event(27235).created_at(relay.now()).tag(["method", "POST"]);
    let proof = proof.tag(["u", "https://relay.example/api/v1/mls/events"]).tag(["payload", &sha256(body.as_bytes())]);
    let proof = proof.sign();
    let mut taken = 0;
    for _ in 0..6 {
        let answer = with(rest.at(relay.next_address()).post("/events", body.clone()), &proof).await;
        taken += usize::from(answer.status == 200);
    }
    assert_eq!(taken, 1);
    let elsewhere = with(rest.post("/events", "{}"), &alice.event(27235).created_at(relay.now()).sign()).await;
    problem(&elsewhere, 401, "no u");
    assert_eq!(elsewhere.json()["url"], "https://relay.example/api/v1/mls/events");
}

#[tokio::test]
async fn with_auth_enabled_nothing_but_the_document_is_answered_without_a_proof() {
    let [alice, eve] = Keys::some();
    let relay = TestRelay::start(|config| {
        config.auth.enabled = true;
        config.auth.pubkey_whitelist = vec![alice.public()];
    })
    .await;
    let note = alice.event(1).sign();
    let anonymous = Rest::anonymous(&relay);
    let id = note.id().to_owned();
    for path in ["/events", &format!("/events/{id}")] {
        let method = if path == "/events" { "POST" } else { "GET" };
        assert!(anonymous.ask(method, path).refused(401).await.starts_with("auth-required: "), "{path}");
    }
    let listed = Rest::of(&relay, &eve).get(&format!("/events/{id}")).refused(403).await;
    assert!(listed.starts_with("restricted: this key is not on this relay's list"), "{listed}");
    assert_eq!(Rest::of(&relay, &alice).publish(&note).await.status, 200);
    assert_eq!(Rest::of(&relay, &alice).get(&format!("/events/{id}")).ok().await, note.0);
    assert_eq!(anonymous.get("/openapi.json").send().await.status, 200);
    assert_eq!(anonymous.get("/docs").send().await.status, 200);
}

#[tokio::test]
async fn the_api_is_off_where_the_operator_says_so_and_under_the_prefix_that_he_chose() {
    let relay = TestRelay::start(|config| config.mls_gateway.enable_api = false).await;
    let off = Rest::anonymous(&relay).get("/openapi.json").send().await;
    assert_eq!(off.status, 404);
    assert_ne!(off.header("content-type"), Some("application/problem+json"));
    let relay = TestRelay::start(|config| config.mls_gateway.api_prefix = "/mls".to_owned()).await;
    assert_eq!(Rest::anonymous(&relay).get("/openapi.json").send().await.status, 404);
    let moved = crate::support::http(relay.address, "GET /mls/openapi.json", &[]).await;
    assert_eq!(moved.json()["servers"][0]["url"], "/mls");
}

/// The store writes a proof down that is used once, so it costs its address an event, whatever the request gives.
#[tokio::test]
async fn a_proof_of_a_change_costs_an_event() {
    let alice = Keys::random();
    let relay = TestRelay::start_alone(|config| config.mls_gateway.rate_limits.max_events_per_minute = 60).await;
    let rest = Rest::of(&relay, &alice);
    let mut refused = 0;
    let limited = loop {
        let answer = rest.post("/keypackages/claim", "{}").send().await;
        if answer.status != 400 {
            break answer;
        }
        refused += 1;
        assert!(refused <= 260, "malformed claims go on for nothing");
    };
    assert!(problem(&limited, 429, "beyond the rate").starts_with("rate-limited: "));
    assert!(limited.header("retry-after").is_some());
    assert!(refused >= 150, "{refused} at once");
    // A note of the same address waits as well, and a proof that changes nothing costs none.
    assert_eq!(rest.publish(&alice.event(1).sign()).await.status, 429);
    rest.get("/groups").ok().await;
}
