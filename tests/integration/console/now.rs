//! `now` and `history`: samples of an instance, refusals, and the instances of a cluster.

use std::time::Duration;

use nostr_relay::config::{Config, Secret, WakeBy};
use rnostr_test_services::{Redis, require};
use serde_json::{Value, json};

use super::Console;
use crate::support::{Client, Keys, TestRelay, WAIT};

/// Asks until the answer passes.
async fn until(console: &Console, path: &str, passes: impl Fn(&Value) -> bool) -> Value {
    let asking = async {
        loop {
            let answer = console.get(path).await;
            if passes(&answer) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    tokio::time::timeout(WAIT, asking).await.expect("the answer comes")
}

fn with_admin(admin: &Keys) -> impl Fn(&mut Config) + use<> {
    let key = admin.public();
    move |config| config.mls_gateway.admin_pubkeys = vec![key]
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[tokio::test]
async fn a_sample_tells_what_the_instance_did() {
    let [admin, alice] = Keys::some();
    let relay = TestRelay::start_on("embedded", 1, with_admin(&admin)).await;
    let console = Console::login(&relay, &admin).await;
    let empty = console.get("/now").await;
    assert_eq!((&empty["last"], &empty["refusals"][0]), (&json!(null), &json!(null)));
    let mut reader = Client::connect(&relay).await;
    reader.req("live", &[json!({"kinds": [1]})]).await.expect("served");
    let mut client = Client::connect(&relay).await;
    for n in 0..20 {
        let note = alice.event(1).content(n.to_string()).sign();
        client.publish(&note).await.ok();
        assert_eq!(reader.next_event("live").await.id(), note.id());
    }
    for _ in 0..3 {
        client.publish(&alice.event(445).tag(["h", "unknown"]).sign()).await.refused("auth-required");
    }
    // A refusal counts at once, and a rate with the sample.
    let now = console.get("/now").await;
    assert_eq!(now["refusals"][0], json!({"reason": "auth-required", "count": 3}), "{now}");
    let sum = |history: &Value, field: &str| {
        let samples = history["samples"].as_array().expect("a list");
        samples.iter().map(|sample| 5.0 * sample[field].as_f64().unwrap_or_default()).sum::<f64>()
    };
    // An interval may end while the events are published, and none is exactly as long as it should be.
    let history = until(&console, "/history", |answer| sum(answer, "refused_per_second") > 2.0).await;
    assert_eq!(history["interval_ms"], 5_000);
    for (field, expected) in [("events_per_second", 20.0), ("refused_per_second", 3.0), ("deliveries_per_second", 20.0)]
    {
        let found = sum(&history, field);
        assert!((found - expected).abs() < expected / 3.0, "{field}: {found}");
    }
    let sample = history["samples"].as_array().and_then(|samples| samples.last()).expect("a sample");
    assert!(sum(&history, "requests_per_second") > 0.0, "{sample}");
    assert_eq!((&sample["connections"], &sample["subscriptions"]), (&json!(2), &json!(1)), "{sample}");
    for field in ["ok_p50_ms", "ok_p99_ms", "delivery_p99_ms", "memory_bytes", "memory_bytes_max"] {
        assert!(number(&sample[field]) > 0.0, "{field}: {sample}");
    }
    assert!(number(&sample["ok_p50_ms"]) <= number(&sample["ok_p99_ms"]), "{sample}");
    let since = format!("/history?since={}", sample["at"]);
    assert_eq!(console.get(&since).await["samples"], json!([]));
    console.refused("/history?since=yesterday", 400).await;
    let now = until(&console, "/now", |answer| answer["store"]["events"].is_u64()).await;
    assert_eq!(&now["last"]["at"], &sample["at"]);
    let own = &now["instances"][0];
    assert_eq!((&own["name"], &own["self"], &own["ready"]), (&history["instance"], &json!(true), &json!(true)));
    assert_eq!(own["version"], env!("CARGO_PKG_VERSION"));
}

/// Instances without messages to each other list themselves, and say so.
#[tokio::test]
async fn an_instance_without_messages_lists_itself() {
    let admin = Keys::random();
    let relay = TestRelay::start_on("memory", 2, with_admin(&admin)).await;
    let now = Console::login(&relay, &admin).await.get("/now").await;
    assert_eq!((&now["cluster"], now["instances"].as_array().map(Vec::len)), (&json!("unannounced"), Some(1)));
    let relay = TestRelay::start_on("embedded", 1, with_admin(&admin)).await;
    assert_eq!(Console::login(&relay, &admin).await.get("/now").await["cluster"], "single");
}

/// Two instances over Redis know each other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_announce_themselves() {
    let Some(()) = require(Redis::shared_available()) else { return };
    let admin = Keys::random();
    let (configure, url) = (with_admin(&admin), Redis::shared().url());
    let relay = TestRelay::start_on("memory", 2, move |config| {
        configure(config);
        config.mls_gateway.wake = WakeBy::Redis;
        config.mls_gateway.redis_url = Some(Secret::new(url));
    })
    .await;
    let console = Console::login(&relay, &admin).await;
    let both = |answer: &Value| answer["instances"].as_array().is_some_and(|instances| instances.len() == 2);
    let now = until(&console, "/now", both).await;
    assert_eq!(now["cluster"], "announced");
    let [own, other] = [0, 1].map(|n| &now["instances"][n]);
    assert_ne!(own["name"], other["name"]);
    assert_eq!((&own["self"], &other["self"], &other["ready"]), (&json!(true), &json!(false), &json!(true)));
    assert_eq!(other["version"], env!("CARGO_PKG_VERSION"));
}
