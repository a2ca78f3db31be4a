//! Messages that wait for the client's AUTH.
//!
//! Source: docs/rules.md, "Identity" 12.

use std::time::Duration;

use serde_json::{Value, json};

use super::{World, rate_limits::taken};
use crate::support::{
    Event, Keys, empty_set,
    gateway::{message, roster, wrap},
};

/// A relay whose clients have this time for their AUTH.
async fn with_grace(ms: u64, auth_required: bool) -> World {
    World::alone(|config| {
        config.auth.grace_ms = ms;
        config.auth.enabled = auth_required;
    })
    .await
}

/// A wait that no test outlives.
const LONG_MS: u64 = 3_600_000;

/// Requests and events that lack a key alone wait for the client's AUTH and are then handled in their order, whether
/// the relay needs AUTH for everything or for these alone: the client gets no refusal, and no empty answer.
#[tokio::test]
async fn messages_before_auth_are_handled_after_it() {
    for auth_required in [false, true] {
        let world = with_grace(LONG_MS, auth_required).await;
        let [alice, bob] = Keys::some();
        let mut admin = world.client(&[]).await;
        let founded = roster(&world.admin, "grp_a", 1, "bootstrap", &[&bob]).sign();
        let auth = admin.auth_event(&world.admin);
        // The roster waits for its sender's AUTH.
        admin.send(&json!(["EVENT", founded.0])).await;
        admin.send_auth(&auth).await.ok();
        admin.answer(founded.id()).await.ok();
        let letter = wrap(&bob).sign();
        let mut alices = world.client(&[&alice]).await;
        alices.publish(&letter).await.ok();
        let mut bobs = world.client(&[]).await;
        let (said, protected) = (message("grp_a").sign(), bob.event(1).tag(["-"]).sign());
        let filter = json!({"kinds": [1059]});
        let auth = bobs.auth_event(&bob);
        for frame in [
            json!(["REQ", "wraps", filter]),
            json!(["EVENT", said.0]),
            json!(["COUNT", "count", filter]),
            json!(["EVENT", protected.0]),
            json!(["NEG-OPEN", "sync", filter, empty_set().1]),
            json!(["AUTH", auth.0]),
        ] {
            bobs.send(&frame).await;
        }
        let mut heard = Vec::new();
        while heard.len() < 7 {
            heard.push(bobs.recv().await);
        }
        let answered: Vec<&Value> = heard.iter().filter(|frame| frame[0] != "OK").collect();
        assert_eq!(heard[0], json!(["OK", auth.id(), true, ""]), "{heard:?}");
        assert_eq!(*answered[0], json!(["EVENT", "wraps", letter.0]));
        assert_eq!(*answered[1], json!(["EOSE", "wraps", ["finish"]]));
        assert_eq!(*answered[2], json!(["COUNT", "count", {"count": 1}]));
        assert_eq!((&answered[3][0], &answered[3][1]), (&json!("NEG-MSG"), &json!("sync")));
        for event in [&said, &protected] {
            assert!(heard.contains(&json!(["OK", event.id(), true, ""])), "{heard:?}");
        }
        alices.publish(&wrap(&bob).sign()).await.ok();
        assert_eq!(bobs.recv().await[1], "wraps", "the subscription is live");
    }
}

/// A message that needs no key does not wait. CLOSE and NEG-CLOSE drop the requests that wait, a later request of the
/// same id takes their place, and a refused AUTH ends the wait: then each gets its `auth-required:`.
#[tokio::test]
async fn a_wait_for_auth_ends_with_close_and_with_a_refused_auth() {
    let world = with_grace(LONG_MS, false).await;
    let [alice, bob] = Keys::some();
    let mut client = world.client(&[]).await;
    let filter = json!({"kinds": [4]});
    for frame in [
        json!(["REQ", "closed", filter]),
        json!(["COUNT", "closed", filter]),
        json!(["NEG-OPEN", "closed", filter, "6100000200"]),
        json!(["REQ", "kept", filter]),
        json!(["REQ", "malformed", filter]),
        json!(["REQ", "malformed", {"kinds": ["x"]}]),
        json!(["REQ", "replaced", filter]),
        json!(["REQ", "replaced", {"kinds": [1]}]),
        json!(["CLOSE", "closed"]),
        json!(["NEG-CLOSE", "closed"]),
    ] {
        client.send(&frame).await;
    }
    assert_eq!(client.recv().await[1], "malformed", "a request that is answered waits no more");
    assert_eq!(client.recv().await, json!(["EOSE", "replaced", ["finish"]]), "it needs no key, and does not wait");
    client.expect_nothing().await;
    let note = alice.event(1).sign();
    client.publish(&note).await.ok();
    assert_eq!(client.recv().await[0], "EVENT");
    let mut wrong = client.auth_event(&bob);
    wrong.0["sig"] = json!("11".repeat(64));
    client.send(&json!(["AUTH", wrong.0])).await;
    assert_eq!(client.recv().await[2], false);
    assert_eq!(client.recv().await[0], "AUTH", "the challenge again");
    let closed = client.recv().await;
    assert_eq!((&closed[0], &closed[1]), (&json!("CLOSED"), &json!("kept")), "{closed}");
    assert!(closed[2].as_str().is_some_and(|reason| reason.starts_with("auth-required: ")), "{closed}");
    assert!(client.req("late", &[filter]).await.expect_err("nothing waits any more").starts_with("auth-required: "));
    client.auth(&bob).await.ok();
    client.expect_nothing().await;
}

/// Without AUTH the wait ends by itself, and the client hears `auth-required:`.
#[tokio::test]
async fn a_wait_for_auth_ends_by_itself() {
    let world = with_grace(500, false).await;
    let mut client = world.client(&[]).await;
    let protected = Keys::random().event(1).tag(["-"]).sign();
    client.send(&json!(["EVENT", protected.0])).await;
    client.send(&json!(["REQ", "wraps", {"kinds": [1059]}])).await;
    client.send(&json!(["REQ", "notes", {"kinds": [1]}])).await;
    let challenge = json!(["AUTH", client.challenge]);
    assert_eq!(client.recv().await, json!(["EOSE", "notes", ["finish"]]), "the others wait");
    for (verb, name) in [("OK", protected.id()), ("CLOSED", "wraps")] {
        assert_eq!(client.find(|frame| frame[0] == "AUTH").await, challenge);
        let refused = client.find(|frame| frame[0] == verb && frame[1] == name).await;
        assert!(refused.to_string().contains("\"auth-required: "), "{refused}");
    }
    client.publish(&protected).await.refused("auth-required");
}

/// At most 32 messages and 256 KiB of a connection wait; the next one is refused at once. An event that waits is paid
/// for when it comes, once, and its signature is checked after AUTH alone.
#[tokio::test]
async fn waiting_messages_are_bounded_and_paid_for_on_arrival() {
    let world = World::alone(|config| {
        config.auth.grace_ms = LONG_MS;
        config.mls_gateway.rate_limits.max_events_per_minute = 60;
    })
    .await;
    let [alice, bob] = Keys::some();
    let signatures = async || {
        let metrics = crate::support::http(world.relay.address, "GET /metrics", &[]).await.body;
        let line = metrics.lines().find_map(|line| line.strip_prefix("mls_gateway_signatures_checked_total "));
        line.expect("the counter").parse::<usize>().expect("a number")
    };
    let mut client = world.client(&[]).await;
    let protected: Vec<Event> = (0..33).map(|n| alice.event(1).tag(["-"]).content(n.to_string()).sign()).collect();
    for event in &protected {
        client.send(&json!(["EVENT", event.0])).await;
    }
    client.answer(protected[32].id()).await.refused("auth-required");
    let before = signatures().await;
    assert_eq!(before, 1, "that of the event that found no room");
    let mut other = world.client(&[]).await;
    let notes: Vec<Event> = (0..200).map(|n| bob.event(1).content(n.to_string()).sign()).collect();
    assert_eq!(taken(&other.publish_all(&notes).await), 200 - 33, "the address has paid for 33 events");
    client.auth(&alice).await.ok();
    for event in &protected[..32] {
        client.answer(event.id()).await.ok();
    }
    assert_eq!(signatures().await, before + 167 + 1 + 32);

    let mut client = world.client(&[]).await;
    let long = "x".repeat(200_000);
    let ask = |id: &str| json!(["REQ", id, {"kinds": [4], "#t": [long]}]);
    client.send(&ask("first")).await;
    client.send(&ask("second")).await;
    assert_eq!(client.find(|frame| frame[0] == "CLOSED").await[1], "second");
    client.expect_nothing().await;
}

/// An AUTH that has come within the time, and that the relay has not read by its end, is handled before the wait ends,
/// also behind another message.
#[tokio::test]
async fn an_auth_that_came_in_time_is_handled_before_the_wait_ends() {
    let world = with_grace(1_000, false).await;
    let [alice, bob] = Keys::some();
    let letter = wrap(&bob).sign();
    world.client(&[&alice]).await.publish(&letter).await.ok();
    let mut client = world.client(&[]).await;
    let filter = json!({"kinds": [1059]});
    client.send(&json!(["REQ", "first", filter])).await;
    client.send(&json!(["COUNT", "notes", {"kinds": [1]}])).await;
    assert_eq!(client.recv().await[0], "COUNT", "the relay has read all, and the first request waits");
    let auth = client.auth_event(&bob);
    client.send(&json!(["REQ", "second", filter])).await;
    client.send(&json!(["AUTH", auth.0])).await;
    // The relay runs on this thread, and reads nothing until the time is over.
    std::thread::sleep(Duration::from_millis(1_100));
    let mut heard = Vec::new();
    while heard.len() < 5 {
        heard.push(client.recv().await);
    }
    let expected = [
        json!(["OK", auth.id(), true, ""]),
        json!(["EVENT", "first", letter.0]),
        json!(["EOSE", "first", ["finish"]]),
        json!(["EVENT", "second", letter.0]),
        json!(["EOSE", "second", ["finish"]]),
    ];
    assert_eq!(heard, expected);
}

/// A client that sends without a pause does not keep its messages waiting: the wait ends behind its time after a number
/// of further messages.
#[tokio::test]
async fn messages_behind_the_time_of_a_wait_do_not_prolong_it() {
    let world = with_grace(300, false).await;
    let mut client = world.client(&[]).await;
    client.send(&json!(["REQ", "wraps", {"kinds": [1059]}])).await;
    client.send(&json!(["COUNT", "notes", {"kinds": [1]}])).await;
    assert_eq!(client.recv().await[0], "COUNT");
    for n in 0..2_000 {
        client.send(&json!(["COUNT", n.to_string(), {"kinds": [1]}])).await;
    }
    std::thread::sleep(Duration::from_millis(400));
    let mut counted = 0;
    while client.recv().await[0] == "COUNT" {
        counted += 1;
    }
    assert!(counted < 1_500, "the wait ends in the middle of the client's messages: {counted}");
    let closed = client.recv().await;
    assert_eq!((&closed[0], &closed[1]), (&json!("CLOSED"), &json!("wraps")), "{closed}");
}
