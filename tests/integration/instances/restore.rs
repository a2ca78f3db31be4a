//! A database that is restored to an older copy under running relays.

use std::time::Duration;

use rnostr_test_services::{Postgres as Engine, Proxy, require};
use serde_json::json;

use super::postgres::relay;
use crate::support::{
    Client, Event, Keys, TestRelay, WAIT,
    gateway::{message, roster},
    http,
    restorable::Restorable,
};

fn note(by: &Keys, text: &str) -> Event {
    by.event(1).content(text).sign()
}

/// Publishes notes until each has its `OK`; a relay that reconnects refuses some.
async fn publish_all(client: &mut Client, by: &Keys, texts: impl Iterator<Item = String>) {
    for text in texts {
        let note = note(by, &text);
        let published = async {
            while !client.publish(&note).await.accepted {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(WAIT, published).await.expect("it is taken in the end");
    }
}

async fn until_not_ready(relay: &TestRelay, reason: &str) {
    let noticed = async {
        loop {
            let ready = http(relay.address, "GET /ready", &[]).await;
            if ready.status == 503 && ready.body.contains(reason) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(WAIT, noticed).await.expect("it is noticed");
}

const RESTORED: &str = "restored to an older state";

/// Relays `a` and `b` know ten events of a history that is lost. The database is put back to before them, and grows by
/// ninety others through a relay that starts afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_grew_past_the_cursor_is_noticed() {
    let Some(()) = require(Engine::shared_available()) else { return };
    let [admin, alice] = Keys::some();
    let mut database = Restorable::new();
    let first = relay(&database.url, &admin).await;
    publish_all(&mut Client::connect(&first).await, &alice, (0..5).map(|n| format!("kept {n}"))).await;
    first.stop().await;
    database.copy();

    let proxy = Proxy::start(&Engine::shared().address());
    let behind_proxy = Engine::shared().url_at(&proxy.address(), &database.name);
    let (a, b) = (relay(&behind_proxy, &admin).await, relay(&behind_proxy, &admin).await);
    let mut reader = Client::connect(&b).await;
    reader.req("live", &[json!({"kinds": [1]})]).await.expect("served");
    let mut on_a = Client::connect(&a).await;
    publish_all(&mut on_a, &alice, (0..10).map(|n| format!("lost {n}"))).await;
    reader.live("live", 10).await;

    // Neither sees the log while its head is before the place that they know.
    proxy.cut();
    database.restore();
    let third = relay(&database.url, &admin).await;
    publish_all(&mut Client::connect(&third).await, &alice, (0..90).map(|n| format!("new {n}"))).await;

    proxy.restore();
    for relay in [&a, &b] {
        until_not_ready(relay, RESTORED).await;
    }
    let closed = reader.find(|frame| frame[0] == "CLOSED").await;
    assert_eq!(closed[1], "live");
    assert!(closed[2].as_str().is_some_and(|it| it.starts_with("error: ") && it.contains("restored")), "{closed}");
    let asked = Client::connect(&b).await.req_now("any", &[json!({"kinds": [1]})]).await;
    assert_eq!(asked.err().as_deref(), Some("error: storage unavailable, try again"));
    // A relay that starts now serves all of the history that there is.
    let found = Client::connect(&third).await.req("all", &[json!({"kinds": [1]})]).await.expect("served");
    assert_eq!(found.len(), 95);
    assert_eq!(http(third.address, "GET /ready", &[]).await.status, 200);
    for relay in [a, b, third] {
        relay.stop().await;
    }
}

/// A relay that knows of lost commits gives no `OK` after the restore: neither after its follower has noticed it, nor
/// in the moment before, when the transaction itself notices it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_noticed_writes_nothing() {
    let Some(()) = require(Engine::shared_available()) else { return };
    let [admin, alice, bob] = Keys::some();
    let mut database = Restorable::new();
    relay(&database.url, &admin).await.stop().await;
    database.copy();
    let a = relay(&database.url, &admin).await;
    let mut on_a = Client::of(&a, &[&admin, &alice, &bob]).await;
    on_a.publish(&roster(&admin, "grp_a", 1, "bootstrap", &[&alice, &bob]).sign()).await.ok();
    publish_all(&mut on_a, &alice, (0..3).map(|n| format!("lost {n}"))).await;

    database.restore();
    // From the first moment on, while the relay reconnects, and until well after it has noticed.
    let mut refused = 0;
    while http(a.address, "GET /ready", &[]).await.status == 200 || refused < 20 {
        let answer = on_a.publish(&note(&alice, &format!("after {refused}"))).await;
        assert_eq!(answer.refused("error"), "error: storage unavailable, try again");
        refused += 1;
    }
    until_not_ready(&a, RESTORED).await;
    for event in [
        message("grp_a").sign(),
        roster(&admin, "grp_a", 2, "remove", &[&bob]).sign(),
        alice.event(20_001).sign(),
        alice.event(5).tag(["e", &"ab".repeat(32)]).sign(),
    ] {
        on_a.publish(&event).await.refused("error");
    }
    let sql = |sql: &str| Engine::shared().psql(&database.url, sql).expect("psql");
    assert_eq!(sql("select count(*) from rnostr.events"), "0");
    assert_eq!(sql("select head from rnostr.log"), "0");
    // A start anew is all that it needs.
    a.stop().await;
    let again = relay(&database.url, &admin).await;
    publish_all(&mut Client::connect(&again).await, &alice, std::iter::once("new".to_owned())).await;
    again.stop().await;
}
