//! docs/rules.md, "Answers to clients": words, sentences and bounds of answers, and events that do not disturb each
//! other.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{World, ids, shown};
use crate::support::{
    Client, Event, Keys,
    gateway::{deletion, message, noise, request, roster, wrap},
};

const WORDS: [&str; 8] = [
    "duplicate: ",
    "invalid: ",
    "unsupported: ",
    "blocked: ",
    "restricted: ",
    "auth-required: ",
    "rate-limited: ",
    "error: ",
];

#[track_caller]
fn is_reason(reason: &str) {
    let word = WORDS.iter().find(|word| reason.starts_with(**word));
    let rest = word.map(|word| &reason[word.len()..]);
    assert!(rest.is_some_and(|rest| rest.len() > 10), "no word and sentence: {reason:?}");
}

/// Every reason starts with a word of NIP-01 or NIP-42 and goes on with a sentence.
#[tokio::test]
async fn every_reason_is_a_word_and_a_sentence() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    let mut client = world.client(&[&alice]).await;
    let mut bad_sig = alice.event(1).sign();
    bad_sig.0["sig"] = json!("11".repeat(64));
    let refused = [
        alice.event(444).sign(),
        alice.event(22242).sign(),
        alice.event(445).sign(),
        message("grp_a").sign(),
        alice.event(446).sign(),
        request(&alice, &bob).sign(),
        roster(&alice, "grp_a", 1, "bootstrap", &[&bob]).sign(),
        wrap(&bob).tag(["p", "x"]).sign(),
        alice.event(5).sign(),
        alice.event(62).sign(),
        alice.event(1).created_at(world.relay.now() + 5_000).sign(),
        bad_sig,
    ];
    for event in &refused {
        let answer = client.publish(event).await;
        assert!(!answer.accepted, "{event:?}");
        is_reason(&answer.reason);
    }
    let event = alice.event(1).sign();
    client.publish(&event).await.ok();
    is_reason(&client.publish(&event).await.reason);
    for filter in
        [json!({"nonsense": 1}), json!({"kinds": ["x"]}), json!({"ids": ["short"]}), json!({"limit": -1}), json!(7)]
    {
        is_reason(&client.req("x", std::slice::from_ref(&filter)).await.expect_err("refused"));
        is_reason(&client.count(std::slice::from_ref(&filter)).await.expect_err("refused"));
    }
    is_reason(&world.client(&[]).await.req("x", &[json!({"kinds": [4]})]).await.expect_err("refused"));
}

/// `OK true` has no reason.
#[tokio::test]
async fn what_is_taken_needs_no_reason() {
    let world = World::new().await;
    let answer = world.client(&[]).await.publish(&Keys::random().event(1).sign()).await;
    assert!(answer.accepted && answer.reason.is_empty(), "{answer:?}");
}

/// An event has at most 256 KiB and 2,500 tags.
#[tokio::test]
async fn events_are_bounded() {
    let world = World::new().await;
    let alice = Keys::random();
    let mut client = world.client(&[]).await;
    let of_bytes = |bytes: usize| {
        let empty = alice.event(1).sign().0.to_string().len();
        alice.event(1).content("x".repeat(bytes - empty)).sign()
    };
    client.publish(&of_bytes(256 << 10)).await.ok();
    client.publish(&of_bytes((256 << 10) + 1)).await.refused("invalid");
    let with_tags = |count: usize| alice.event(1).tags("t", (0..count).map(|n| n.to_string())).sign();
    client.publish(&with_tags(2_500)).await.ok();
    client.publish(&with_tags(2_501)).await.refused("invalid");
}

/// A message has at most 1 MiB; a longer one ends its connection with 1009, and no other connection.
#[tokio::test]
async fn messages_are_bounded() {
    let world = World::new().await;
    let mut bystander = world.client(&[]).await;
    let mut client = world.client(&[]).await;
    let padded = |bytes: usize| {
        let text = json!(["CLOSE", "x"]).to_string();
        Message::text(text.clone() + &" ".repeat(bytes - text.len()))
    };
    client.send_raw(padded(1 << 20)).await;
    client.expect_nothing().await;
    client.send_raw(padded((1 << 20) + 2)).await;
    match client.recv_raw().await {
        Some(Message::Close(Some(frame))) => assert_eq!(u16::from(frame.code), 1009),
        None => {}
        other => panic!("expected the end of the connection, got {other:?}"),
    }
    bystander.expect_nothing().await;
}

/// `created_at` may be at most 900 s ahead, and any time behind.
#[tokio::test]
async fn created_at_is_little_ahead_and_any_age_behind() {
    let world = World::new().await;
    let alice = Keys::random();
    let now = world.relay.now();
    let mut client = world.client(&[]).await;
    for at in [0, 1, now - 1_000_000_000, now, now + 900] {
        client.publish(&alice.event(1).created_at(at).sign()).await.ok();
    }
    client.publish(&alice.event(1).created_at(now + 901).sign()).await.refused("invalid");
}

/// A connection has at most 300 subscriptions; a new one of the same id replaces the old one.
#[tokio::test]
async fn a_connection_has_at_most_three_hundred_subscriptions() {
    let world = World::new().await;
    let mut client = world.client(&[]).await;
    let filter = [json!({"kinds": [1], "limit": 0})];
    for n in 0..300 {
        client.req(&n.to_string(), &filter).await.expect("served");
    }
    is_reason(&client.req("one more", &filter).await.expect_err("too many"));
    client.req("7", &filter).await.expect("the same id again");
    client.close("8").await;
    client.req("one more", &filter).await.expect("there is room");
}

/// `limit` is 500 by default and at most; COUNT counts all events.
#[tokio::test]
async fn an_answer_has_at_most_five_hundred_events() {
    let world = World::new().await;
    let alice = Keys::random();
    let now = world.relay.now();
    let events: Vec<Event> = (0..510).map(|n| alice.event(1).created_at(now - n).sign()).collect();
    let mut client = world.client(&[]).await;
    for answer in client.publish_all(&events).await {
        answer.ok();
    }
    for filter in [json!({"kinds": [1]}), json!({"kinds": [1], "limit": 5_000})] {
        assert_eq!(client.req("x", &[filter]).await.expect("served"), events[..500]);
    }
    assert_eq!(client.count(&[json!({"kinds": [1]})]).await, Ok(510));
    assert_eq!(client.req("x", &[json!({"kinds": [1], "limit": 0})]).await, Ok(vec![]));
}

/// A list in a filter has at most 1,000 values, or 10,000 authors or ids.
#[tokio::test]
async fn a_list_has_at_most_a_thousand_values() {
    let world = World::new().await;
    let mut client = world.client(&[]).await;
    let of = |count: usize| (0..count).map(|n| n.to_string()).collect::<Vec<_>>();
    assert_eq!(client.req("x", &[json!({"#t": of(1_000)})]).await, Ok(vec![]));
    is_reason(&client.req("x", &[json!({"#t": of(1_001)})]).await.expect_err("too many"));
    is_reason(&client.count(&[json!({"kinds": (0..1_001).collect::<Vec<_>>()})]).await.expect_err("too many"));
    let hex = |count: usize| (0..count).map(|n| format!("{n:064x}")).collect::<Vec<_>>();
    for list in ["authors", "ids"] {
        assert_eq!(client.req("x", &[json!({ list: hex(10_000) })]).await, Ok(vec![]), "{list}");
        is_reason(&client.req("x", &[json!({ list: hex(10_001) })]).await.expect_err("too many"));
    }
}

/// NUL, values of 200 KB and values around 64 bytes are stored unchanged, and found by exactly that value.
#[tokio::test]
async fn odd_tag_values_are_stored_and_found() {
    let world = World::new().await;
    let alice = Keys::random();
    let mut client = world.client(&[]).await;
    let shared = "y".repeat(64);
    let values = [
        "\0".to_owned(),
        "a\0b".to_owned(),
        "a".to_owned(),
        String::new(),
        "x".repeat(200_000),
        shared.clone(),
        format!("{shared}1"),
        format!("{shared}2"),
        "ü\u{1f600}".repeat(40),
    ];
    let events: Vec<Event> = values.iter().map(|value| alice.event(1).tag(["t", value]).sign()).collect();
    for answer in client.publish_all(&events).await {
        answer.ok();
    }
    for (value, event) in values.iter().zip(&events) {
        let found = client.req("x", &[json!({"#t": [value]})]).await;
        assert_eq!(found, Ok(vec![event.clone()]), "{} bytes", value.len());
    }
}

/// A refused event does not keep the other events of its batch from being stored.
#[tokio::test]
async fn a_refused_event_harms_no_other() {
    let world = World::new().await;
    let alice = Keys::random();
    world.group("grp_a", &[&alice]).await;
    let mut client = world.client(&[&alice, &world.admin]).await;
    let said = alice.event(445).tag(["h", "grp_a"]).sign();
    let good: Vec<Event> = (0..20).map(|n| alice.event(1).content(n.to_string()).sign()).collect();
    let stale = roster(&world.admin, "grp_a", 1, "add", &[&alice]).sign();
    let bad = deletion(&alice, &[&said]).sign();
    let mut all = vec![said];
    for (n, event) in good.iter().enumerate() {
        all.push(event.clone());
        all.extend([&stale, &bad].into_iter().filter(|_| n % 5 == 0).cloned());
    }
    let answers = client.publish_all(&all).await;
    for (event, answer) in all.iter().zip(answers) {
        assert_eq!(answer.accepted, *event != stale && *event != bad, "{}", answer.reason);
    }
    assert_eq!(shown(&mut client, json!({"kinds": [1]})).await, Ok(ids(&good.iter().collect::<Vec<_>>())));
}

/// Events are served exactly as they were signed.
#[tokio::test]
async fn events_are_served_as_signed() {
    let world = World::new().await;
    let alice = Keys::random();
    let event = alice.event(1).tag(["t", "\u{8}\u{c}\u{7f}\u{2028}"]).content("\"\\\n\r\t\u{1}/é\u{1f600}").sign();
    let mut client = world.client(&[]).await;
    client.publish(&event).await.ok();
    let mut extended = alice.event(1).content("more members").sign();
    let plain = extended.clone();
    extended.0["seen_on"] = json!(["elsewhere"]);
    client.publish(&extended).await.ok();
    let served = client.req("x", &[json!({"authors": [alice.hex()]})]).await.expect("served");
    assert_eq!(served.len(), 2);
    assert!(served.contains(&event) && served.contains(&plain), "members that were not signed are dropped");
}

/// A malformed message gets a `NOTICE` with a reason, and the connection stays open.
#[tokio::test]
async fn malformed_messages_get_a_reason() {
    let world = World::new().await;
    let mut client = world.client(&[]).await;
    for text in
        ["", "hello", "{}", "[]", "[1]", "[\"HELLO\"]", "[\"EVENT\"]", "[\"EVENT\",{}]", "[\"AUTH\",7]", "[\"CLOSE\"]"]
    {
        client.send_raw(Message::text(text)).await;
        let frame: Value = client.recv().await;
        assert_eq!(frame[0], "NOTICE", "{text}");
        is_reason(frame[1].as_str().expect("a text"));
    }
    let mut noted = Client::connect(&world.relay).await;
    noted.publish(&noise(&Keys::random(), &Keys::random()).sign()).await.ok();
    client.expect_nothing().await;
}
