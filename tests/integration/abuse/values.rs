//! Values that trip other stores are stored, found and returned unchanged.

use serde_json::{Value, json};

use crate::support::{Client, Event, Keys, TestRelay};

const LARGE: usize = 200_000;

fn odd_values() -> Vec<String> {
    let mut values: Vec<String> = [
        "\0",
        "a\0",
        "a\0b",
        "\0\0",
        "",
        " ",
        "\u{7f}",
        "\u{1}\u{1f}",
        "\r\n\t\u{8}\u{c}",
        "\"\\/",
        "\u{2028}",
        "🦀",
        "\u{feff}x",
    ]
    .map(str::to_owned)
    .into();
    // Long values, two of which differ only after more bytes than an index key can hold.
    values.extend([
        "x".repeat(64),
        "x".repeat(65),
        "x".repeat(LARGE),
        format!("{}y", "x".repeat(LARGE)),
        "\0".repeat(30_000),
    ]);
    values
}

async fn found(client: &mut Client, value: &str) -> Vec<Event> {
    let found = client.req("value", &[json!({"#t": [value]})]).await.expect("public events may be read");
    client.close("value").await;
    found
}

/// Control characters, NUL and 200 KB in a tag value: the event is stored, found by exactly that value and returned as
/// signed, by the suite's store and by the store in memory.
#[tokio::test]
async fn odd_tag_values_are_found_and_given_back() {
    for relay in [TestRelay::start(|_| {}).await, TestRelay::with_memory(|_| {}).await] {
        let mut client = Client::connect(&relay).await;
        let mut stored = Vec::new();
        for value in odd_values() {
            let event = Keys::random().event(1).tag(["t", &value]).sign();
            client.publish(&event).await.ok();
            stored.push((value, event));
        }
        for (value, event) in &stored {
            let shown: String = value.chars().take(20).collect();
            assert_eq!(
                found(&mut client, value).await,
                std::slice::from_ref(event),
                "{shown:?} of {} bytes",
                value.len()
            );
        }
        assert_eq!(found(&mut client, &"x".repeat(LARGE - 1)).await, []);
        relay.stop().await;
    }
}

/// The same values as contents are returned unchanged.
#[tokio::test]
async fn odd_contents_are_given_back() {
    let relay = TestRelay::start(|_| {}).await;
    let mut client = Client::connect(&relay).await;
    for content in odd_values() {
        let event = Keys::random().event(1).content(content).sign();
        client.publish(&event).await.ok();
        assert_eq!(client.req("id", &[json!({"ids": [event.id()]})]).await.expect("served"), [event]);
    }
    relay.stop().await;
}

/// Live subscribers get events with these tag values.
#[tokio::test]
async fn odd_values_are_delivered_live() {
    let relay = TestRelay::start(|_| {}).await;
    let mut client = Client::connect(&relay).await;
    let mut live = Client::connect(&relay).await;
    let values = odd_values();
    live.req("live", &[json!({"kinds": [1], "#t": values[..10]}), json!({"kinds": [2], "#t": [values[15]]})])
        .await
        .expect("open");
    let mut expected = Vec::new();
    for (n, value) in values.iter().enumerate() {
        let event = Keys::random().event(if n == 15 { 2 } else { 1 }).tag(["t", value]).sign();
        client.publish(&event).await.ok();
        if n < 10 || n == 15 {
            expected.push(event);
        }
    }
    assert_eq!(live.live("live", expected.len()).await, expected);
    live.expect_nothing().await;
    relay.stop().await;
}

/// An addressable event whose `d` holds NUL, a quote or 200 KB is replaced and deleted like any other.
#[tokio::test]
async fn odd_addresses_replace_each_other() {
    let relay = TestRelay::start(|_| {}).await;
    let mut client = Client::connect(&relay).await;
    let keys = Keys::random();
    for name in ["a\0b".to_owned(), "\0".to_owned(), "x".repeat(LARGE), "a:b\"".to_owned()] {
        let draft = keys.event(30_000).tag(["d", &name]);
        let (old, new) = (draft.clone().created_at(1_000).sign(), draft.created_at(2_000).sign());
        client.publish(&old).await.ok();
        client.publish(&new).await.ok();
        let filter = json!({"kinds": [30_000], "#d": [name]});
        assert_eq!(client.ids(filter.clone()).await, Ok(vec![new.id().to_owned()]));
        let address = format!("30000:{}:{name}", keys.hex());
        client.publish(&keys.event(5).tag(["a", &address]).sign()).await.ok();
        assert_eq!(client.ids(filter).await, Ok(vec![]));
    }
    relay.stop().await;
}

/// Odd and forged events harm no other event of their batch: each gets its own answer.
#[tokio::test]
async fn odd_events_harm_no_other_of_their_batch() {
    let relay = TestRelay::start(|_| {}).await;
    let mut client = Client::connect(&relay).await;
    let mut events = Vec::new();
    for value in odd_values() {
        events.push(Keys::random().event(1).content("plain").sign());
        events.push(
            Keys::random()
                .event(1)
                .tag(["t", &value])
                .tag([value.chars().take(1).collect::<String>().as_str(), "x"])
                .sign(),
        );
        let mut forged = Keys::random().event(1).sign();
        forged.0["sig"] = Value::from("00".repeat(64));
        events.push(forged);
    }
    let answers = client.publish_all(&events).await;
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!(answer.accepted, n % 3 != 2, "{n}: {answer:?}");
    }
    relay.stop().await;
}
