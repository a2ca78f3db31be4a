//! Machines whose clocks are wrong.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use nostr_relay::system::clock::{Clock, SystemClock};
use nostr_store::postgres::{Options, Postgres};
use rnostr_test_services::{Postgres as Engine, require};
use serde_json::json;

use crate::support::{
    Client, Event, Keys, TestRelay, WAIT,
    gateway::{message, roster},
    http,
};

/// The clock of a machine that is ahead of this one, or behind.
#[derive(Default)]
struct Shifted {
    secs: AtomicI64,
}

impl Clock for Shifted {
    fn now_ms(&self) -> u64 {
        SystemClock.now_ms().saturating_add_signed(self.secs.load(Ordering::Relaxed) * 1_000)
    }
}

/// A relay without an archive, on a machine whose clock is `secs` ahead.
async fn relay(url: &str, admin: &Keys, secs: i64) -> TestRelay {
    relay_by(url, admin, Arc::new(Shifted { secs: secs.into() })).await
}

async fn relay_by(url: &str, admin: &Keys, clock: Arc<Shifted>) -> TestRelay {
    let store = Postgres::open(url, Options::default()).await.expect("the database opens");
    TestRelay::start_by(Arc::new(store), clock, |config| {
        config.mls_gateway.admin_pubkeys = vec![admin.public()];
        config.mls_gateway.enable_message_archive = false;
    })
    .await
}

/// Waits until `/ready` has this status, and returns its text.
async fn until_ready_is(relay: &TestRelay, status: u16) -> String {
    let answered = async {
        loop {
            let ready = http(relay.address, "GET /ready", &[]).await;
            if ready.status == status {
                return ready.body;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(WAIT, answered).await.expect("the status comes")
}

fn ids(events: &[Event]) -> Vec<&str> {
    events.iter().map(Event::id).collect()
}

/// Nine minutes are longer than the two for which events without an archive lie in the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_with_a_wrong_clock_drops_nothing() {
    let Some(()) = require(Engine::shared_available()) else { return };
    let [admin, alice, bob] = Keys::some();
    for secs in [540, -540] {
        let url = Engine::shared().create_database();
        let (right, wrong) = (relay(&url, &admin, 0).await, relay(&url, &admin, secs).await);
        until_ready_is(&wrong, 503).await;
        let mut both = Client::of(&right, &[&admin, &alice]).await;
        both.publish(&roster(&admin, "grp_a", 1, "bootstrap", &[&alice, &bob]).sign()).await.ok();
        let mut bobs = Client::of(&wrong, &[&bob]).await;
        bobs.req("live", &[json!({"kinds": [445, 20_001]})]).await.expect("served");
        let mut sent = Vec::new();
        for n in 0..10 {
            sent.push(alice.event(20_001).content(n.to_string()).sign());
            sent.push(message("grp_a").content(n.to_string()).sign());
        }
        // The wrong instance sweeps between an event's commit and its delivery on a third one.
        let third = relay(&url, &admin, 0).await;
        let mut on_third = Client::of(&third, &[&bob]).await;
        on_third.req("live", &[json!({"kinds": [445, 20_001]})]).await.expect("served");
        for event in &sent {
            both.publish(event).await.ok();
            let app = wrong.app();
            app.store.sweep(app.clock.now(), 500).await.expect("it sweeps");
        }
        assert_eq!(ids(&bobs.live("live", sent.len()).await), ids(&sent), "{secs}");
        assert_eq!(ids(&on_third.live("live", sent.len()).await), ids(&sent), "{secs}");
        // Events that the wrong instance accepts are served by the right one.
        let mut back = Client::of(&right, &[&bob]).await;
        back.req("live", &[json!({"kinds": [445, 20_001]})]).await.expect("served");
        let mut on_wrong = Client::of(&wrong, &[&alice]).await;
        let events = [alice.event(20_001).content("back").sign(), message("grp_a").content("back").sign()];
        for event in &events {
            on_wrong.publish(event).await.ok();
        }
        assert_eq!(ids(&back.live("live", 2).await), ids(&events), "{secs}");
        for relay in [right, wrong, third] {
            relay.stop().await;
        }
        Engine::shared().drop_database(&url);
    }
}

/// A machine whose clock is set while the relay runs was not cut off from its store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_ends_no_subscription() {
    let Some(()) = require(Engine::shared_available()) else { return };
    let [admin, alice] = Keys::some();
    let url = Engine::shared().create_database();
    let clock = Arc::<Shifted>::default();
    let relay = relay_by(&url, &admin, Arc::clone(&clock)).await;
    let mut client = Client::connect(&relay).await;
    client.req("live", &[json!({"kinds": [20_001]})]).await.expect("served");
    for (n, (secs, status)) in [(0, 200), (540, 503), (0, 200), (-540, 503), (0, 200)].into_iter().enumerate() {
        clock.secs.store(secs, Ordering::Relaxed);
        until_ready_is(&relay, status).await;
        let event = alice.event(20_001).content(n.to_string()).sign();
        client.publish(&event).await.ok();
        let frame = client.find(|frame| frame[0] == "EVENT" || frame[0] == "CLOSED").await;
        assert_eq!(frame[2]["id"], event.id(), "{secs}: {frame}");
    }
    relay.stop().await;
    Engine::shared().drop_database(&url);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn skew_is_measured_and_past_thirty_seconds_not_ready() {
    let Some(()) = require(Engine::shared_available()) else { return };
    let admin = Keys::random();
    let url = Engine::shared().create_database();
    for (secs, status) in [(0, 200), (5, 200), (-25, 200), (35, 503), (-540, 503), (540, 503)] {
        let relay = relay(&url, &admin, secs).await;
        // The first pass measures it.
        until_ready_is(&relay, status).await;
        let measured = async {
            loop {
                let page = http(relay.address, "GET /metrics", &[]).await.body;
                let line = page.lines().find_map(|line| line.strip_prefix("mls_gateway_clock_skew_seconds "));
                let skew: f64 = line.expect("the metric is there").parse().expect("a number");
                if (skew - secs as f64).abs() < 1.0 {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(WAIT, measured).await.expect("the skew is measured");
        let body = until_ready_is(&relay, status).await;
        assert_eq!(body.contains("clock is over 30 s off"), status == 503, "{secs}: {body}");
        let ours = relay.app().clock.now();
        assert!(ours.abs_diff(SystemClock.now()) <= 1, "the relay goes by the store's time");
        relay.stop().await;
    }
    Engine::shared().drop_database(&url);
}
