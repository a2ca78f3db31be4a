//! Requests that are valid but too large: subscriptions, their ids, filters, values, tags.

use serde_json::{Value, json};

use super::{bounded, served_beside};
use crate::support::{Keys, TestRelay, process::Process, wire::Wire};

/// A client opens 3,000 subscriptions: 300 stay open, the others are refused one by one; closing one makes room.
#[tokio::test]
async fn of_3000_subscriptions_300_are_opened() {
    let directory = tempfile::tempdir().expect("a directory");
    let process = Process::start(directory.path(), &[]);
    let before = process.memory_kib();
    let attack = async {
        let mut wire = Wire::connect(process.address).await;
        for n in 0..3_000 {
            let answer = wire.ask(&format!("[\"REQ\",\"sub{n}\",{{\"kinds\":[{}]}}]", 5_000 + n)).await;
            assert_eq!(answer[0], if n < 300 { "EOSE" } else { "CLOSED" }, "{answer}");
            assert_eq!(answer[1], format!("sub{n}"));
            if n >= 300 {
                assert!(answer[2].as_str().unwrap_or_default().starts_with("error: "), "{answer}");
            }
        }
        assert_eq!(wire.ask(r#"["REQ","sub7",{"kinds":[5007]}]"#).await[0], "EOSE", "an open one may be replaced");
        wire.writer.text(r#"["CLOSE","sub8"]"#).await.expect("a message is sent");
        assert_eq!(wire.ask(r#"["REQ","sub3000",{"kinds":[8000]}]"#).await[0], "EOSE", "a closed one makes room");
        wire
    };
    let _wire = served_beside(process.address, attack).await;
    bounded(&process, before, 8);
}

/// A subscription's id has 1 to 64 characters, of any script.
#[tokio::test]
async fn subscription_ids_are_bounded() {
    let relay = TestRelay::with_memory(|_| {}).await;
    let mut wire = Wire::connect(relay.address).await;
    let ids = [
        (String::new(), false),
        ("x".repeat(64), true),
        ("é".repeat(64), true),
        ("x".repeat(65), false),
        ("é".repeat(65), false),
    ];
    for (id, taken) in ids {
        for verb in ["REQ", "COUNT"] {
            let answer = wire.ask(&json!([verb, id, {"kinds": [1]}]).to_string()).await;
            assert_eq!(answer[0] != "CLOSED", taken, "{answer}");
            assert_eq!(answer[1], id);
        }
    }
    for id in ["\0", "\"]", "\\", "\u{7f}\n"] {
        assert_eq!(wire.ask(&json!(["COUNT", id, {"ids": []}]).to_string()).await[1], id, "ids come back unchanged");
    }
    assert!(wire.ask(&json!(["REQ", "x".repeat(400_000), {}]).to_string()).await[0] == "CLOSED");
    relay.stop().await;
}

/// A filter with 10,000 values is refused in REQ, COUNT and NEG-OPEN, and the answer names the bound.
#[tokio::test]
async fn filters_of_10000_values_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let process = Process::start(directory.path(), &[]);
    let before = process.memory_kib();
    let attack = async {
        let mut wire = Wire::connect(process.address).await;
        let keys = |n: usize| -> Vec<String> { (0..n).map(|n| format!("{n:064x}")).collect() };
        let values: Vec<String> = (0..10_000).map(|n| format!("v{n}")).collect();
        let kinds: Vec<u16> = (0..10_000).collect();
        let filters = [
            json!({"kinds": kinds}),
            json!({"#t": values}),
            json!({"ids": keys(10_001)}),
            json!({"authors": keys(10_001)}),
            json!({"#p": keys(7_000)}),
            json!({"kinds": [1], "#t": values}),
        ];
        for filter in filters {
            for message in
                [json!(["REQ", "a", filter]), json!(["COUNT", "a", filter]), json!(["NEG-OPEN", "a", filter, "61"])]
            {
                let answer = wire.ask(&message.to_string()).await;
                let expected = if message[0] == "NEG-OPEN" { "NEG-ERR" } else { "CLOSED" };
                assert_eq!((&answer[0], &answer[1]), (&json!(expected), &json!("a")), "{answer}");
                assert!(answer[2].as_str().unwrap_or_default().contains("1000"), "the bound is named: {answer}");
            }
        }
        let just_right = json!(["REQ", "a", {"#p": keys(1_000), "kinds": [1]}]);
        assert_eq!(wire.ask(&just_right.to_string()).await[0], "EOSE");
        wire
    };
    let _wire = served_beside(process.address, attack).await;
    bounded(&process, before, 24);
}

/// A request has at most 100 filters, and many large requests delay no other client.
#[tokio::test]
async fn too_many_filters_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let process = Process::start(directory.path(), &[]);
    let before = process.memory_kib();
    let attack = async {
        let mut wire = Wire::connect(process.address).await;
        let request = |verb: &str, n: usize| {
            let filters = (0..n).map(|n| json!({"kinds": [5_000 + n]}));
            Value::from_iter([json!(verb), json!("a")].into_iter().chain(filters)).to_string()
        };
        assert_eq!(wire.ask(&request("REQ", 100)).await[0], "EOSE");
        for verb in ["REQ", "COUNT"] {
            for n in [101, 10_000] {
                let answer = wire.ask(&request(verb, n)).await;
                assert_eq!((&answer[0], &answer[1]), (&json!("CLOSED"), &json!("a")), "{answer}");
            }
        }
        wire
    };
    let _wire = served_beside(process.address, attack).await;
    bounded(&process, before, 16);
}

/// All subscriptions of a connection share one bound for the bytes of their filters: 25 requests of 400 KB do not all
/// stay open, although the index needs only one value of each filter.
#[tokio::test]
async fn the_filters_of_a_connection_are_bounded_as_a_whole() {
    let directory = tempfile::tempdir().expect("a directory");
    let process = Process::start(directory.path(), &[]);
    let before = process.memory_kib();
    let attack = async {
        let mut wire = Wire::connect(process.address).await;
        let tags: Vec<String> = (0..1_000).map(|n| format!("{n}")).collect();
        let filters = (0..50).map(|n| json!({"kinds": [5_000 + n], "#t": tags, "limit": 0}).to_string());
        let filters = filters.collect::<Vec<_>>().join(",");
        let mut open = 0;
        for sub in 0..25 {
            let answer = wire.ask(&format!("[\"REQ\",\"s{sub}\",{filters}]")).await;
            open += usize::from(answer[0] == "EOSE");
            if answer[0] != "EOSE" {
                assert!(answer[2].as_str().unwrap_or_default().contains("CLOSE some first"), "{answer}");
            }
        }
        assert!((1..10).contains(&open), "{open} are open");
        wire.writer.text("[\"CLOSE\",\"s0\"]").await.expect("a message is sent");
        assert_eq!(wire.ask(&format!("[\"REQ\",\"again\",{filters}]")).await[0], "EOSE", "a closed one makes room");
        wire
    };
    let _wire = served_beside(process.address, attack).await;
    bounded(&process, before, 32);
}

/// A connection with 377 filters of 50 tag letters, and 100 events of 2,490 tags that meet all but the last letter:
/// clients elsewhere get their `OK`s and their events all the while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_filter_delays_no_delivery() {
    let directory = tempfile::tempdir().expect("a directory");
    let process = Process::start(directory.path(), &[("server", "trusted_proxies = [\"127.0.0.0/8\"]")]);
    let before = process.memory_kib();
    let letters: Vec<char> = ('a'..='z').chain('A'..='Z').filter(|letter| !matches!(letter, 'e' | 'p')).collect();
    let from = async |address: &str| {
        Wire::open(process.address, &format!("x-forwarded-for: {address}\r\n")).await.expect("it connects")
    };
    let attack = async {
        let mut watching = from("192.0.2.1").await;
        let mut filter = serde_json::Map::from_iter(letters.iter().map(|letter| (format!("#{letter}"), json!(["v"]))));
        for sub in 0..4 {
            let filters = (0..if sub < 3 { 100 } else { 77 }).map(|since| {
                filter.insert("since".to_owned(), json!(since));
                Value::Object(filter.clone())
            });
            let request = Value::from_iter([json!("REQ"), json!(format!("s{sub}"))].into_iter().chain(filters));
            assert_eq!(watching.ask(&request.to_string()).await[0], "EOSE");
        }
        let mut publishing = from("192.0.2.2").await;
        let mut listening = from("192.0.2.3").await;
        let keys = Keys::random();
        let request = json!(["REQ", "live", {"authors": [keys.hex()], "kinds": [1]}]);
        assert_eq!(listening.ask(&request.to_string()).await[0], "EOSE");
        for n in 0..100 {
            let mut event = keys.event(1).content(n.to_string());
            for tag in 0..2_490 {
                // The values that the filters name come last.
                let letter = letters[tag % 50];
                let value = if tag >= 2_440 && tag % 50 < 49 { "v".to_owned() } else { format!("x{tag}") };
                event = event.tag([letter.to_string(), value]);
            }
            assert_eq!(publishing.publish(&event.sign()).await[2], true);
        }
        for n in 0..100 {
            let frame = listening.reader.message().await.expect("every event is delivered");
            assert_eq!((&frame[0], &frame[2]["content"]), (&json!("EVENT"), &json!(n.to_string())));
        }
    };
    served_beside(process.address, attack).await;
    bounded(&process, before, 64);
}

/// An event has at most 2,500 tags and 256 KiB.
#[tokio::test]
async fn events_are_bounded() {
    let relay = TestRelay::with_memory(|_| {}).await;
    let mut wire = Wire::connect(relay.address).await;
    let tags = |n: usize| Keys::random().event(1).tags("t", (0..n).map(|n| n.to_string())).sign();
    assert_eq!(wire.publish(&tags(2_500)).await[2], true);
    let text = |n: usize| Keys::random().event(1).content("x".repeat(n)).sign();
    assert_eq!(wire.publish(&text(261_000)).await[2], true);
    for event in [tags(2_501), text(262_144)] {
        let answer = wire.publish(&event).await;
        assert_eq!((&answer[1], &answer[2]), (&event.0["id"], &json!(false)));
        assert!(answer[3].as_str().unwrap_or_default().starts_with("invalid: "), "{answer}");
    }
    relay.stop().await;
}
