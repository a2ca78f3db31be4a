//! Connections whose event waits for the write policy's program.

use std::{fs, time::Duration};

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::{ends, program::program};
use crate::support::{Client, Event, Keys, TestRelay, rest::Rest};

/// A program that answers events `wait` once a file `go` is there, and all others at once. It notes those that wait.
const ON_DEMAND: &str = r#"#!/usr/bin/env python3
import json, os, sys, threading, time
here = os.path.dirname(sys.argv[0])
lock = threading.Lock()
def answer(event):
    with lock:
        print(json.dumps({"id": event["id"], "action": "accept"}), flush=True)
def later(event):
    while not os.path.exists(os.path.join(here, "go")):
        time.sleep(0.01)
    answer(event)
for line in sys.stdin:
    event = json.loads(line)["event"]
    if event["content"].startswith("wait"):
        open(os.path.join(here, event["id"]), "w").close()
        threading.Thread(target=later, args=(event,), daemon=True).start()
    else:
        answer(event)
"#;

/// A relay with this program.
struct World {
    relay: TestRelay,
    admin: Keys,
    directory: tempfile::TempDir,
}

impl World {
    async fn new(configure: impl FnOnce(&mut nostr_relay::config::Config)) -> Self {
        let (directory, admin) = (tempfile::tempdir().expect("a directory"), Keys::random());
        let relay = TestRelay::start(|config| {
            config.write_policy.plugin = Some(program(directory.path(), ON_DEMAND));
            config.write_policy.timeout_ms = 60_000;
            config.mls_gateway.admin_pubkeys = vec![admin.public()];
            configure(config);
        })
        .await;
        Self { relay, admin, directory }
    }

    /// Sends an event, and waits until the program is asked about it.
    async fn wait(&self, client: &mut Client, event: &Event) {
        client.send(&json!(["EVENT", event.0])).await;
        self.is_asked(event).await;
    }

    async fn is_asked(&self, event: &Event) {
        let asked = async {
            while !self.directory.path().join(event.id()).exists() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(10), asked).await.expect("the program is asked");
    }

    /// Lets the program answer.
    fn go(&self) {
        fs::write(self.directory.path().join("go"), "").expect("it is written");
    }
}

/// The connection gets live events and answers pings while its event waits. Its further messages wait in their order.
#[tokio::test]
async fn a_connection_goes_on_while_its_event_waits() {
    let (world, [alice, bob]) = (World::new(|config| config.server.ping_interval_secs = 2).await, Keys::some());
    let mut bobs = Client::connect(&world.relay).await;
    // The program has started then.
    bobs.publish(&bob.event(1).sign()).await.ok();
    let mut alices = Client::connect(&world.relay).await;
    alices.req("news", &[json!({ "authors": [bob.hex()] })]).await.expect("a subscription");
    let waits = alice.event(1).content("wait").sign();
    world.wait(&mut alices, &waits).await;
    let news = bob.event(1).content("news").sign();
    bobs.publish(&news).await.ok();
    assert_eq!(alices.next_event("news").await.id(), news.id(), "events are delivered");
    // Two pings are answered, or the connections would end.
    let pinged = Duration::from_secs(5);
    let (alice_hears, bob_hears) = tokio::join!(timeout(pinged, alices.try_recv()), timeout(pinged, bobs.try_recv()));
    assert!(alice_hears.is_err() && bob_hears.is_err(), "nothing else comes: {alice_hears:?} {bob_hears:?}");
    let next = alice.event(1).content("next").sign();
    alices.send(&json!(["EVENT", next.0])).await;
    alices.send(&json!(["COUNT", "mine", { "authors": [alice.hex()] }])).await;
    let more = bob.event(1).content("more").sign();
    bobs.publish(&more).await.ok();
    assert_eq!(alices.next_event("news").await.id(), more.id(), "also while a message waits behind the event");
    world.go();
    let (mut oks, mut counted) = (Vec::new(), None);
    while oks.len() < 2 || counted.is_none() {
        let frame = alices.recv().await;
        match frame[0].as_str() {
            Some("OK") => oks.push((frame[1].clone(), frame[2].clone())),
            _ => counted = Some(frame),
        }
    }
    assert_eq!(oks, [&waits, &next].map(|event| (event.id().into(), Value::Bool(true))), "in their order");
    assert_eq!(counted, Some(json!(["COUNT", "mine", { "count": 2 }])), "a request counts the events before it");
}

/// An order that ends a connection does so at once while its event waits, and holds for the event.
#[tokio::test]
async fn an_order_ends_a_connection_whose_event_waits() {
    let (world, alice) = (World::new(|_| {}).await, Keys::random());
    let mut client = Client::of(&world.relay, &[&alice]).await;
    let waits = alice.event(1).content("wait").sign();
    world.wait(&mut client, &waits).await;
    let orders = Rest::of(&world.relay, &world.admin);
    assert_eq!(orders.ordered("banpubkey", json!([alice.hex()])).await, Value::Bool(true));
    ends(&mut client).await;
    world.go();
    sleep(Duration::from_millis(300)).await;
    let mut other = Client::connect(&world.relay).await;
    assert_eq!(other.ids(json!({ "kinds": [1] })).await, Ok(Vec::new()));
}

/// A client that leaves behind its event has published it.
#[tokio::test]
async fn an_event_is_taken_although_its_client_leaves() {
    let (world, alice) = (World::new(|_| {}).await, Keys::random());
    for is_closed in [true, false] {
        let mut client = Client::connect(&world.relay).await;
        let waits = alice.event(1).content(format!("wait {is_closed}")).sign();
        let _ = fs::remove_file(world.directory.path().join("go"));
        world.wait(&mut client, &waits).await;
        if is_closed {
            client.send_raw(tokio_tungstenite::tungstenite::Message::Close(None)).await;
            while client.recv_raw().await.is_some() {}
        }
        drop(client);
        sleep(Duration::from_millis(200)).await;
        world.go();
        let mut other = Client::connect(&world.relay).await;
        let stored = async {
            while other.ids(json!({ "ids": [waits.id()] })).await.expect("an answer").is_empty() {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(5), stored).await.expect("it is stored");
    }
}

/// A client that does not read keeps its event from no answer, and so from no turn at the program.
#[tokio::test]
async fn an_event_is_decided_while_its_client_does_not_read() {
    let (world, [alice, bob]) = (World::new(|_| {}).await, Keys::some());
    let (mut alices, mut bobs) = (Client::connect(&world.relay).await, Client::connect(&world.relay).await);
    alices.req("news", &[json!({ "authors": [bob.hex()] })]).await.expect("a subscription");
    let waits = alice.event(1).content("wait").sign();
    world.wait(&mut alices, &waits).await;
    // More than sockets and the outbox hold.
    let content = "a".repeat(200 << 10);
    for n in 0..100 {
        bobs.publish(&bob.event(1).content(&content).tag(["n", &n.to_string()]).sign()).await.ok();
    }
    world.go();
    let stored = async {
        while bobs.ids(json!({ "ids": [waits.id()] })).await.expect("an answer").is_empty() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(5), stored).await.expect("it is stored");
}

/// Events that waited for their client's AUTH are asked about one after the other, before the messages behind them.
#[tokio::test]
async fn events_that_waited_for_auth_keep_their_order() {
    let (world, alice) = (
        World::new(|config| {
            config.auth.enabled = true;
            config.auth.grace_ms = 3_600_000;
        })
        .await,
        Keys::random(),
    );
    let mut client = Client::connect(&world.relay).await;
    let events: Vec<Event> = (0..4).map(|n| alice.event(1).content(format!("wait {n}")).sign()).collect();
    let auth = client.auth_event(&alice);
    for event in &events[..3] {
        client.send(&json!(["EVENT", event.0])).await;
    }
    client.send(&json!(["AUTH", auth.0])).await;
    client.send(&json!(["EVENT", events[3].0])).await;
    client.answer(auth.id()).await.ok();
    world.is_asked(&events[0]).await;
    sleep(Duration::from_millis(300)).await;
    for event in &events[1..] {
        assert!(!world.directory.path().join(event.id()).exists(), "one event of a connection waits at one time");
    }
    world.go();
    for event in &events {
        let answer = client.recv().await;
        assert_eq!((&answer[1], &answer[2]), (&event.id().into(), &Value::Bool(true)), "{answer}");
    }
}

/// The end of the relay waits for no program, and the publisher is told.
#[tokio::test]
async fn the_end_of_the_relay_waits_for_no_program() {
    let (world, alice) = (World::new(|_| {}).await, Keys::random());
    let mut client = Client::connect(&world.relay).await;
    let waits = alice.event(1).content("wait").sign();
    world.wait(&mut client, &waits).await;
    let World { relay, .. } = world;
    let stopping = tokio::spawn(async move { relay.stop().await });
    timeout(Duration::from_secs(3), client.answer(waits.id())).await.expect("an answer").refused("error");
    timeout(Duration::from_secs(3), stopping).await.expect("it ends").expect("without a panic");
}

/// Events that wait count for their connections, which end when they hold the most and the memory is needed.
#[tokio::test]
async fn memory_of_events_that_wait_is_bounded() {
    const BYTES_MAX: usize = 16 << 20;
    let (world, alice) = (World::new(|config| config.server.memory_bytes_max = BYTES_MAX).await, Keys::random());
    let content = "wait".repeat(50 << 10);
    let mut clients = Vec::new();
    for n in 0..40 {
        let mut client = Client::connect(&world.relay).await;
        let event = alice.event(1).content(&content).tag(["n", &n.to_string()]).sign();
        client.try_send(&json!(["EVENT", event.0])).await;
        clients.push(client);
    }
    // Each holds 0.8 MB.
    let ended = clients.into_iter().map(|mut client| async move {
        timeout(Duration::from_secs(5), async { while client.try_recv().await.is_some() {} }).await.is_ok()
    });
    let ended = futures_util::future::join_all(ended).await.into_iter().filter(|is_ended| *is_ended).count();
    assert!((10..36).contains(&ended), "{ended} connections ended");
}
