//! Relays over a real PostgreSQL: notifications, order and connections, which the store in memory only imitates.

use std::{sync::Arc, time::Duration};

use nostr_relay::config::Config;
use nostr_store::postgres::{Options, Postgres};
use rnostr_test_services::{Options as Server, Postgres as Engine, Proxy, require};
use serde_json::json;

use super::redis::taken_by;
use crate::support::{
    Client, Event, Keys, TestRelay,
    gateway::{message, roster},
    http,
};

/// A relay over the database at `url`.
pub(super) async fn relay(url: &str, admin: &Keys) -> TestRelay {
    relay_with(url, admin, |_| {}).await
}

async fn relay_with(url: &str, admin: &Keys, configure: impl Fn(&mut Config)) -> TestRelay {
    let store = Postgres::open(url, Options::default()).await.expect("the database opens");
    TestRelay::start_over(Arc::new(store), |config: &mut Config| {
        config.mls_gateway.admin_pubkeys = vec![admin.public()];
        configure(config);
    })
    .await
}

/// A cost charged on one instance counts on the other a moment later, with nothing but the database between them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_is_one_burst_over_all_instances() {
    let Some(()) = require(Engine::shared_available()) else { return };
    let url = Engine::shared().create_database();
    let admin = Keys::random();
    let rates = |config: &mut Config| config.mls_gateway.rate_limits.max_group_messages_per_minute = 50;
    let (a, b) = (relay_with(&url, &admin, rates).await, relay_with(&url, &admin, rates).await);
    let taken = taken_by([&a, &b], &admin, Duration::from_millis(8)).await;
    assert!((150..=185).contains(&taken), "{taken}");
    a.stop().await;
    b.stop().await;
}

fn ids(events: &[Event]) -> Vec<&str> {
    events.iter().map(Event::id).collect()
}

/// Sends messages, removals, requests and ephemeral events through two relays, and waits for nothing but answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_relays_over_one_database_are_as_one() {
    const ROUNDS: usize = 50;
    let Some(()) = require(Engine::shared_available()) else { return };
    let url = Engine::shared().create_database();
    let [admin, alice, bob] = Keys::some();
    let (a, b) = (relay(&url, &admin).await, relay(&url, &admin).await);
    let mut bobs = Client::of(&b, &[&bob]).await;
    bobs.req("live", &[json!({"kinds": [445, 20_001]})]).await.expect("served");
    let mut asking = Client::of(&b, &[&alice]).await;
    let mut both = Client::of(&a, &[&admin, &alice]).await;
    let mut expected = Vec::new();
    for round in 0..ROUNDS {
        let group = format!("grp_{round}");
        let events = [
            roster(&admin, &group, 1, "bootstrap", &[&alice, &bob]).sign(),
            message(&group).content("in").sign(),
            alice.event(20_001).content(round.to_string()).sign(),
            roster(&admin, &group, 2, "remove", &[&bob]).sign(),
            message(&group).content("out").sign(),
        ];
        for event in &events {
            both.publish(event).await.ok();
        }
        let filter = json!({"kinds": [445], "#h": [group]});
        let found = asking.req_now(&group, std::slice::from_ref(&filter)).await.expect("served");
        assert_eq!(found.len(), 2, "messages acknowledged on a are found on b");
        assert_eq!(bobs.count_now("stored", &[filter]).await, Ok(0), "a member removed on a reads nothing on b");
        // A member publishes through the other relay too.
        asking.publish(&message(&group).content("from b").sign()).await.ok();
        expected.push(events[2].clone());
    }
    let got = bobs.received("live").await;
    assert!(got.iter().all(|event| event.0["content"] != "out" && event.0["content"] != "from b"));
    let ephemeral: Vec<Event> = got.into_iter().filter(|event| event.0["kind"] == 20_001).collect();
    assert_eq!(ids(&ephemeral), ids(&expected), "each once, in the order of the log");
    a.stop().await;
    b.stop().await;
}

/// PostgreSQL crashes and comes back: readers stay connected and get each acknowledged event once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_crashes_costs_no_event() {
    let Some(()) = require(Engine::available()) else { return };
    let mut engine = Engine::start(Server::durable());
    let url = engine.create_database();
    let [admin, alice] = Keys::some();
    let (a, b) = (relay(&url, &admin).await, relay(&url, &admin).await);
    let mut reader = Client::connect(&b).await;
    reader.req("live", &[json!({"kinds": [1]})]).await.expect("served");
    let mut writer = Client::connect(&a).await;
    let note = |n: usize| alice.event(1).content(n.to_string()).sign();
    let mut sent: Vec<Event> = (0..20).map(note).collect();
    for answer in writer.publish_all(&sent).await {
        answer.ok();
    }
    engine.stop_immediate();
    let refused = writer.publish(&note(20)).await;
    assert_eq!(refused.refused("error"), "error: storage unavailable, try again");
    let asked = Client::connect(&b).await.req_now("any", &[json!({"kinds": [1]})]).await;
    assert_eq!(asked.err().as_deref(), Some("error: storage unavailable, try again"));
    assert_eq!(http(b.address, "GET /ready", &[]).await.status, 503);
    engine.restart();
    for relay in [&a, &b] {
        while http(relay.address, "GET /ready", &[]).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    let after: Vec<Event> = (20..40).map(note).collect();
    for answer in writer.publish_all(&after).await {
        answer.ok();
    }
    sent.extend(after);
    assert_eq!(ids(&reader.live("live", sent.len()).await), ids(&sent));
    reader.expect_nothing().await;
    a.stop().await;
    b.stop().await;
}

/// A relay that does not get the lock of the log is not ready, and is ready again when the lock is free, without an
/// event of a client.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readiness_is_false_where_writes_fail() {
    let Some(()) = require(Engine::shared_available()) else { return };
    let url = Engine::shared().create_database();
    let [admin, alice] = Keys::some();
    let a = relay(&url, &admin).await;
    let ready = async || http(a.address, "GET /ready", &[]).await.status;
    let mut client = Client::connect(&a).await;
    client.publish(&alice.event(1).sign()).await.ok();
    // A pass of the follower may take long on a busy machine.
    while ready().await != 200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let holder = {
        let url = url.clone();
        std::thread::spawn(move || {
            // It works and waits for nobody, so nobody ends it.
            Engine::shared().psql(&url, "begin; select head from rnostr.log for update; select pg_sleep(60)")
        })
    };
    let sleeps = "select count(*) from pg_stat_activity where wait_event = 'PgSleep' and datname = current_database()";
    while Engine::shared().psql(&url, sleeps).expect("psql") == "0" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let refused = client.publish(&alice.event(1).content("refused").sign()).await;
    assert_eq!(refused.refused("error"), "error: storage unavailable, try again");
    assert_eq!(ready().await, 503);
    let ends = "select pg_terminate_backend(pid) from pg_stat_activity where wait_event = 'PgSleep' \
        and datname = current_database()";
    Engine::shared().psql(&url, ends).expect("psql");
    assert!(holder.join().expect("it ends").is_err());
    while ready().await != 200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    client.publish(&alice.event(1).content("again").sign()).await.ok();
    a.stop().await;
}

/// All connections of a relay to the database fall silent, while new ones pass: it is ready again soon, and stays so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_are_replaced_within_twenty_seconds() {
    let Some(()) = require(Engine::shared_available()) else { return };
    let server = Engine::shared();
    let database = server.create_database();
    let name = database.rsplit('/').next().expect("a name");
    let proxy = Proxy::start(&server.address());
    let [admin, alice] = Keys::some();
    let (a, b) = (relay(&server.url_at(&proxy.address(), name), &admin).await, relay(&database, &admin).await);
    let ready = async || http(a.address, "GET /ready", &[]).await.status;
    let mut reader = Client::connect(&a).await;
    reader.req("live", &[json!({"kinds": [1]})]).await.expect("served");
    let mut writer = Client::connect(&b).await;
    proxy.silence();
    let note = alice.event(1).content("behind the silence").sign();
    writer.publish(&note).await.ok();
    let silent = std::time::Instant::now();
    assert_eq!(reader.next_event("live").await.id(), note.id());
    while ready().await != 200 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(silent.elapsed() < Duration::from_secs(20), "{:?}", silent.elapsed());
    for _ in 0..60 {
        assert_eq!(ready().await, 200, "it stays ready");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    a.stop().await;
    b.stop().await;
}
