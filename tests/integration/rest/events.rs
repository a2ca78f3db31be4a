//! `POST events` and `GET events/{id}`.

use serde_json::json;

use super::relay_of;
use crate::support::{
    Client, Keys, TestRelay,
    gateway::{capability, deletion, key_package, message, roster, wrap},
    http,
    rest::{Rest, problem},
};

#[tokio::test]
async fn an_event_is_published_as_by_an_event_message() {
    let [admin, alice, bob, eve] = Keys::some();
    let relay = relay_of(&admin).await;
    let mut live = Client::of(&relay, &[&bob]).await;
    live.req("live", &[json!({"kinds": [445]})]).await.expect("a subscription");
    let founding = roster(&admin, "grp", 1, "bootstrap", &[&alice, &bob]).sign();
    assert_eq!(Rest::of(&relay, &admin).publish(&founding).await.status, 200);
    let sent = message("grp").sign();
    let accepted = Rest::of(&relay, &alice).publish(&sent).await;
    assert_eq!((accepted.status, accepted.json()), (200, json!({"accepted": true, "message": ""})));
    let again = Rest::of(&relay, &alice).publish(&sent).await;
    assert_eq!(again.json(), json!({"accepted": true, "message": "duplicate: this event is stored already"}));
    relay.caught_up().await;
    assert_eq!(live.received("live").await, std::slice::from_ref(&sent));
    // A duplicate is told to one that may publish the event alone, and a stranger to the group may not.
    let outside = problem(&Rest::of(&relay, &eve).publish(&sent).await, 403, "a stranger");
    assert!(outside.starts_with("restricted: this group is not founded here, or you are no member"), "{outside}");
    assert_eq!(Rest::of(&relay, &bob).get(&format!("/events/{}", sent.id())).ok().await, sent.0);
}

#[tokio::test]
async fn each_reason_has_its_status() {
    let [admin, alice, eve] = Keys::some();
    let relay = relay_of(&admin).await;
    let rest = Rest::of(&relay, &alice);
    let refused =
        async |event: crate::support::Event, status| problem(&rest.publish(&event).await, status, &event.0.to_string());
    let old = alice.event(10_002).created_at(relay.now() - 9).sign();
    let new = alice.event(10_002).sign();
    assert_eq!(rest.publish(&new).await.status, 200);
    assert!(refused(old, 409).await.starts_with("duplicate: a newer version is stored"));
    let note = alice.event(1).sign();
    assert_eq!(rest.publish(&note).await.status, 200);
    assert_eq!(rest.publish(&deletion(&alice, &[&note]).sign()).await.status, 200);
    assert!(refused(note, 409).await.starts_with("blocked: this event was deleted"));
    assert!(refused(alice.event(444).sign(), 403).await.starts_with("blocked: "));
    assert!(refused(eve.event(1).tag(["-"]).sign(), 403).await.starts_with("restricted: "));
    assert!(refused(alice.event(22242).sign(), 422).await.starts_with("invalid: "));
    assert!(refused(alice.event(446).sign(), 422).await.starts_with("invalid: "));
    let mut forged = alice.event(1).sign();
    forged.0["sig"] = "1".repeat(128).into();
    assert!(refused(forged, 422).await.starts_with("invalid: "));
    let mut wrong_id = alice.event(1).sign();
    wrong_id.0["id"] = "1".repeat(64).into();
    assert!(refused(wrong_id, 400).await.starts_with("invalid: "));
    for body in ["", "{}", "[]", "null", "{", "\u{0}", "{\"id\":1}", "[\"EVENT\",{}]"] {
        let detail = rest.post("/events", body).refused(400).await;
        assert!(detail.starts_with("invalid: "), "{body}: {detail}");
    }
    rest.post("/events", [0xff, 0xfe]).refused(400).await;
    // Without a proof it is an event of an anonymous connection.
    let anonymous = Rest::anonymous(&relay);
    assert_eq!(anonymous.publish(&message(&capability()).sign()).await.status, 200);
    assert_eq!(anonymous.publish(&key_package(&eve).sign()).await.status, 200);
    let founding = anonymous.publish(&roster(&admin, "grp", 1, "bootstrap", &[&alice]).sign()).await;
    assert!(problem(&founding, 401, "anonymous").starts_with("auth-required: "));
    assert!(founding.header("www-authenticate").is_some());
}

#[tokio::test]
async fn a_hidden_event_is_answered_as_an_absent_one() {
    let [admin, alice, bob, eve] = Keys::some();
    let relay = relay_of(&admin).await;
    let group = roster(&admin, "grp", 1, "bootstrap", &[&alice]).sign();
    let mut writer = Client::of(&relay, &[&admin, &alice]).await;
    writer.publish(&group).await.ok();
    let [sent, wrapped] = [message("grp").sign(), wrap(&bob).sign()];
    writer.publish(&sent).await.ok();
    writer.publish(&wrapped).await.ok();
    let absent = Keys::random().hex();
    let outside = Rest::of(&relay, &eve);
    let of_absent = outside.get(&format!("/events/{absent}")).send().await;
    problem(&of_absent, 404, "absent");
    for hidden in [&group, &sent, &wrapped] {
        let of_hidden = outside.get(&format!("/events/{}", hidden.id())).send().await;
        // The same to the byte, apart from the date.
        let undated = |head: &str| head.lines().filter(|line| !line.starts_with("date: ")).map(str::to_owned).collect();
        let heads: [Vec<String>; 2] = [undated(&of_hidden.head), undated(&of_absent.head)];
        assert_eq!((&heads[0], &of_hidden.body), (&heads[1], &of_absent.body));
        assert!(of_hidden.header("etag").is_none());
    }
    assert_eq!(Rest::of(&relay, &bob).get(&format!("/events/{}", wrapped.id())).ok().await, wrapped.0);
    for id in ["x", "%00", "%ff", "..%2f..", &"a".repeat(3_000), &sent.id().to_uppercase()] {
        outside.get(&format!("/events/{id}")).refused(404).await;
    }
    // The head of a request has 16 KiB, and a proof repeats the URL in it.
    let path = format!("/events/{}", "a".repeat(10_000));
    assert_eq!(outside.get(&path).send().await.status, 431);
    Rest::anonymous(&relay).get(&path).refused(401).await;
}

#[tokio::test]
async fn answers_carry_validators_and_what_is_private_is_not_stored() {
    let alice = Keys::random();
    let relay = TestRelay::start(|_| {}).await;
    let rest = Rest::of(&relay, &alice);
    let note = alice.event(1).content("x".repeat(4_000)).sign();
    rest.publish(&note).await;
    let path = format!("/events/{}", note.id());
    let first = rest.get(&path).send().await;
    assert_eq!(first.header("cache-control"), Some("no-store"));
    assert!(first.header("vary").is_some_and(|vary| vary.contains("authorization")));
    // The heads of answers are in lower case here.
    let etag = first.header("etag").expect("a validator").replace("w/", "W/");
    for list in [etag.clone(), format!("\"a\", {etag}"), "*".to_owned()] {
        let again = rest.get(&path).header("if-none-match", &list).send().await;
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{list}");
    }
    assert_eq!(rest.get(&path).header("if-none-match", "\"a\"").send().await.status, 200);
    let proof = crate::support::rest::header_of(&rest.get(&path).proof(&alice));
    let zipped = rest.get(&path).header("authorization", &proof).header("accept-encoding", "gzip").send_bytes().await;
    assert!(zipped.windows(22).any(|part| part.eq_ignore_ascii_case(b"content-encoding: gzip")));
    assert!(zipped.len() < 2_000, "{}", zipped.len());
    // HEAD is a request of its own.
    let head = rest.ask("HEAD", &path).send().await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[tokio::test]
async fn a_body_has_bounds_and_a_media_type() {
    let alice = Keys::random();
    let relay = TestRelay::start(|config| config.limitation.max_message_length = 5_000).await;
    let rest = Rest::of(&relay, &alice);
    let over = alice.event(1).content("x".repeat(5_000)).sign();
    let detail = problem(&rest.publish(&over).await, 413, "too long");
    assert!(detail.contains("5000 bytes"), "{detail}");
    assert_eq!(rest.publish(&alice.event(1).content("x".repeat(4_000)).sign()).await.status, 200);
    let body = alice.event(1).sign().0.to_string();
    for media_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp"] {
        let ask = rest.ask("POST", "/events").header("content-type", media_type);
        let ask = ask.header("content-length", &body.len().to_string());
        problem(&ask.send_bare().await, 415, media_type);
    }
    let chunked = rest.ask("POST", "/events").header("content-type", "application/json");
    let chunked = chunked.header("transfer-encoding", "chunked");
    let proof = crate::support::rest::header_of(&chunked.proof(&alice));
    let mut endless = chunked.header("authorization", &proof);
    endless = endless.chunk(&"x".repeat(6_000));
    problem(&endless.send_bare().await, 413, "chunks");
}

#[tokio::test]
async fn other_paths_and_methods_are_problems_too() {
    let relay = TestRelay::start(|_| {}).await;
    let rest = Rest::anonymous(&relay);
    for path in ["", "/", "/nothing", "/events/", "/events/a/b", "/../metrics", "/events%2fa"] {
        rest.get(path).refused(404).await;
    }
    for (method, path) in [("PUT", "/events"), ("DELETE", "/events/a"), ("PATCH", "/openapi.json"), ("TRACE", "/docs")]
    {
        let answer = rest.ask(method, path).send().await;
        problem(&answer, 405, method);
        assert!(answer.header("allow").is_some(), "{method}");
    }
    // The same words as ever outside the prefix.
    assert_eq!(http(relay.address, "GET /api/v1/mlsx", &[]).await.status, 404);
}

#[tokio::test]
async fn pages_of_allowed_origins_may_send_a_proof() {
    for (origins, from, is_allowed) in [
        (vec!["*"], "https://any.example", true),
        (vec!["https://app.example"], "https://app.example", true),
        (vec!["https://app.example"], "https://other.example", false),
    ] {
        let origins: Vec<String> = origins.into_iter().map(str::to_owned).collect();
        let relay = TestRelay::start(|config| config.server.allowed_origins = origins.into()).await;
        let asked = [
            ("origin", from),
            ("access-control-request-method", "POST"),
            ("access-control-request-headers", "authorization,content-type"),
        ];
        let preflight = http(relay.address, "OPTIONS /api/v1/mls/events", &asked).await;
        assert_eq!(preflight.header("access-control-allow-origin").is_some(), is_allowed, "{from}");
        let headers = preflight.header("access-control-allow-headers").expect("headers");
        assert!(headers.split(',').any(|name| name.trim() == "authorization"), "{headers}");
        let answer = Rest::anonymous(&relay).get("/openapi.json").header("origin", from).send().await;
        assert_eq!(answer.header("access-control-allow-origin").is_some(), is_allowed);
    }
}

#[tokio::test]
async fn rates_answer_with_429_and_the_seconds() {
    let alice = Keys::random();
    let relay = TestRelay::start_alone(|config| {
        config.mls_gateway.rate_limits.max_events_per_minute = 1;
        config.mls_gateway.rate_limits.max_read_cost_per_minute = 600;
    })
    .await;
    let rest = Rest::of(&relay, &alice);
    let mut last = None;
    for n in 0..210 {
        let answer = rest.publish(&alice.event(1).content(n.to_string()).sign()).await;
        if answer.status != 200 {
            last = Some(answer);
            break;
        }
    }
    let limited = last.expect("a limit");
    assert!(problem(&limited, 429, "events").starts_with("rate-limited: too many events"));
    let secs: u64 = limited.header("retry-after").expect("seconds").parse().expect("a number");
    assert_eq!(limited.json()["retry_after"], secs);
    let mut last = None;
    for _ in 0..100 {
        let answer = rest.get(&format!("/events/{}", alice.hex())).send().await;
        if answer.status != 404 {
            last = Some(answer);
            break;
        }
    }
    assert!(problem(&last.expect("a budget"), 429, "reading").starts_with("rate-limited: too much reading"));
}
