//! The page and its files: headers, validators, compression.

use serde_json::json;

use super::{API, DOORS, login, relay_of, sealed};
use crate::support::{
    Keys, TestRelay,
    http::{exchange, http},
    rest::Rest,
};

#[tokio::test]
async fn the_page_and_its_files_are_served() {
    let relay = TestRelay::start(|_| {}).await;
    for (path, media_type) in [
        ("/console", "text/html; charset=utf-8"),
        ("/console/index.html", "text/html; charset=utf-8"),
        ("/console/console.js", "text/javascript; charset=utf-8"),
        ("/console/console.css", "text/css; charset=utf-8"),
    ] {
        let answer = http(relay.address, &format!("GET {path}"), &[]).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some(media_type)), "{path}");
        assert_eq!(answer.header("cache-control"), Some("no-cache"), "{path}");
        assert!(answer.header("content-encoding").is_none(), "{path}");
        sealed(&answer, path);
        // The head is in lower case, and so is the tag.
        let etag = answer.header("etag").expect("a validator").replace("w/", "W/");
        let again = http(relay.address, &format!("GET {path}"), &[("if-none-match", &etag)]).await;
        assert_eq!((again.status, again.body.as_str()), (304, ""), "{path}");
        sealed(&again, path);
        let zipped = exchange(relay.address, &format!("GET {path}"), &[("accept-encoding", "gzip")], &[]).await;
        let at = zipped.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head") + 4;
        assert!(String::from_utf8_lossy(&zipped[..at]).to_ascii_lowercase().contains("content-encoding: gzip"));
        assert_eq!(zipped[at..at + 2], [0x1f, 0x8b], "{path}");
    }
    let head = http(relay.address, "HEAD /console", &[]).await;
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    let slash = http(relay.address, "GET /console/", &[]).await;
    assert_eq!((slash.status, slash.header("location")), (308, Some("/console")));
    sealed(&slash, "the slash");
}

/// Whatever the outcome, no other page reads an answer or frames it, and no preflight is answered.
#[tokio::test]
async fn every_answer_has_the_headers() {
    let admin = Keys::random();
    let relay = relay_of(&admin).await;
    let origin = [("origin", "https://elsewhere.example"), ("access-control-request-method", "GET")];
    for path in ["/console", "/console/console.js", "/console/nothing", "/console/a/b", "/console/api", "/console/api/"]
    {
        for method in ["GET", "OPTIONS", "POST", "DELETE"] {
            let answer = http(relay.address, &format!("{method} {path}"), &origin).await;
            sealed(&answer, &format!("{method} {path}"));
            assert!(method == "GET" || answer.status == 405 || answer.status == 404, "{method} {path}");
        }
    }
    for (method, path, _) in DOORS {
        for method in [method, "OPTIONS", "DELETE"] {
            let answer = http(relay.address, &format!("{method} {API}{path}"), &origin).await;
            sealed(&answer, path);
            assert!(answer.status == 401 || answer.status == 405, "{method} {path}: {}", answer.status);
        }
    }
    let answer = login(&Rest::of(&relay, &admin)).header("origin", "https://elsewhere.example").send().await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
    sealed(&answer, "a login");
    let refused = login(&Rest::of(&relay, &Keys::random())).send().await;
    assert_eq!(refused.status, 403);
    sealed(&refused, "a refused login");
}

#[tokio::test]
async fn a_refusal_by_a_rate_has_the_headers_too() {
    let relay = TestRelay::start_alone(|config| config.mls_gateway.rate_limits.max_events_per_minute = 1).await;
    let mut refused = None;
    for _ in 0..5_000 {
        let answer = http(relay.address, "GET /console/api/access", &[]).await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("the address has a rate");
    sealed(&refused, "429");
    assert_eq!(refused.header("content-type"), Some("application/problem+json"));
}

#[tokio::test]
async fn a_console_that_is_off_is_not_there() {
    let admin = Keys::random();
    let key = admin.public();
    let configure = move |config: &mut nostr_relay::config::Config| {
        config.server.console = false;
        config.mls_gateway.admin_pubkeys = vec![key];
    };
    let relay = TestRelay::start(configure).await;
    for path in ["/console", "/console/console.js", "/console/api/access"] {
        assert_eq!(http(relay.address, &format!("GET {path}"), &[]).await.status, 404, "{path}");
    }
    assert_eq!(login(&Rest::of(&relay, &admin)).json(&json!({})).send().await.status, 404);
}
