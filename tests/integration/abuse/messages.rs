//! Texts that are no messages, and JSON that is no event.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{bounded, served_beside};
use crate::support::{Event, Keys, TestRelay, now, process::Process, wire::Wire};

const ID: &str = "00000000000000000000000000000000000000000000000000000000000000aa";

/// The relay's answer to a malformed message.
#[derive(Clone, Copy, Debug)]
enum Says {
    /// `NOTICE`.
    Notice,
    /// `CLOSED` of subscription `a`.
    Closed,
    /// `NEG-ERR` of session `a`.
    NegErr,
    /// `OK false` for the event [`ID`].
    OkFalse,
}
use Says::{Closed, NegErr, Notice, OkFalse};

/// Sends each text on one connection, which stays open. Each answer is of the expected type, begins with `invalid:` and
/// gives a reason.
async fn answers(address: SocketAddr, cases: impl IntoIterator<Item = (String, Says)>) {
    let mut wire = Wire::connect(address).await;
    for (text, says) in cases {
        let shown: String = text.chars().take(120).collect();
        let answer = wire.ask(&text).await;
        let reason = match says {
            Notice => answer[0].as_str().filter(|verb| *verb == "NOTICE").and_then(|_| answer[1].as_str()),
            Closed => (answer[0] == "CLOSED" && answer[1] == "a").then(|| answer[2].as_str()).flatten(),
            NegErr => (answer[0] == "NEG-ERR" && answer[1] == "a").then(|| answer[2].as_str()).flatten(),
            OkFalse => {
                (answer[0] == "OK" && answer[1] == ID && answer[2] == false).then(|| answer[3].as_str()).flatten()
            }
        };
        let reason = reason.unwrap_or_else(|| panic!("{says:?} expected for {shown}: {answer}"));
        let is_fault = reason.starts_with("invalid: ") || reason.starts_with("unsupported: filter key ");
        assert!(is_fault && reason.len() > 15, "{shown}: {reason}");
        assert!(reason.len() < 400, "a reason is a sentence: {reason}");
    }
    assert_eq!(wire.ask(r#"["COUNT","c",{"ids":[]}]"#).await[0], "COUNT", "the connection stays open");
}

fn each(says: Says, texts: &[&str]) -> Vec<(String, Says)> {
    texts.iter().map(|text| ((*text).to_owned(), says)).collect()
}

/// Text that is not JSON, or not a message, gets a `NOTICE` with a reason; the connection stays open.
#[tokio::test]
async fn malformed_json_gets_a_notice() {
    let relay = TestRelay::with_memory(|_| {}).await;
    let texts = [
        "",
        " ",
        "{",
        "[",
        "]",
        "null",
        "true",
        "1",
        "\"REQ\"",
        "{}",
        "[]",
        "[1]",
        "[null]",
        "[[]]",
        "[\"NOPE\"]",
        "[\"req\",\"a\",{}]",
        "[\"REQ\"]",
        "[\"REQ\",1,{}]",
        "[\"REQ\",null,{}]",
        "[\"REQ\",[\"a\"],{}]",
        "[\"CLOSE\"]",
        "[\"CLOSE\",1]",
        "[\"CLOSE\",{}]",
        "[\"EVENT\"]",
        "[\"EVENT\",]",
        "[\"EVENT\",1]",
        "[\"EVENT\",null]",
        "[\"EVENT\",[]]",
        "[\"EVENT\",{}]",
        "[\"EVENT\",\"{}\"]",
        "[\"AUTH\"]",
        "[\"AUTH\",1]",
        "[\"AUTH\",\"challenge\"]",
        "[\"AUTH\",{}]",
        "[\"COUNT\"]",
        "[\"NEG-OPEN\"]",
        "[\"NEG-MSG\",1,\"\"]",
        "\u{feff}[\"CLOSE\",\"a\"]",
        "[\"CLOSE\",\"a\"",
        "[\"CLOSE\",\"\\ud800\"]",
        "[\"CLOSE\",\"\n\"]",
        "[\"CLOSE\",\"a\"]]",
        "[\"CLOSE\",\"a\",1]",
        "['CLOSE','a']",
        "hello",
    ];
    answers(relay.address, each(Notice, &texts)).await;
    relay.stop().await;
}

/// A malformed request with a readable id gets `CLOSED` with a reason; a malformed sync message gets `NEG-ERR`.
#[tokio::test]
async fn malformed_requests_get_closed() {
    let relay = TestRelay::with_memory(|_| {}).await;
    let closed = [
        "[\"REQ\",\"a\"]",
        "[\"REQ\",\"a\",1]",
        "[\"REQ\",\"a\",null]",
        "[\"REQ\",\"a\",[]]",
        "[\"REQ\",\"a\",\"{}\"]",
        "[\"REQ\",\"a\",{},1]",
        "[\"REQ\",\"a\",{\"kinds\":1}]",
        "[\"REQ\",\"a\",{\"kinds\":{}}]",
        "[\"REQ\",\"a\",{\"kinds\":[\"1\"]}]",
        "[\"REQ\",\"a\",{\"ids\":\"x\"}]",
        "[\"REQ\",\"a\",{\"ids\":[1]}]",
        "[\"REQ\",\"a\",{\"ids\":[\"\"]}]",
        "[\"REQ\",\"a\",{\"authors\":[null]}]",
        "[\"REQ\",\"a\",{\"#t\":\"x\"}]",
        "[\"REQ\",\"a\",{\"#t\":[1]}]",
        "[\"REQ\",\"a\",{\"#tt\":[\"x\"]}]",
        "[\"REQ\",\"a\",{\"search\":\"x\"}]",
        "[\"REQ\",\"a\",{\"since\":\"1\"}]",
        "[\"REQ\",\"a\",{\"limit\":null}]",
        "[\"REQ\",\"a\",{\"limit\":1,\"limit\":2}]",
        "[\"REQ\",\"a\",{}",
        "[\"COUNT\",\"a\"]",
        "[\"COUNT\",\"a\",1]",
        "[\"COUNT\",\"a\",{\"kinds\":1}]",
    ];
    answers(relay.address, each(Closed, &closed)).await;
    let sync = [
        "[\"NEG-OPEN\",\"a\"]",
        "[\"NEG-OPEN\",\"a\",1,\"\"]",
        "[\"NEG-OPEN\",\"a\",{}]",
        "[\"NEG-MSG\",\"a\"]",
        "[\"NEG-MSG\",\"a\",1]",
    ];
    answers(relay.address, each(NegErr, &sync)).await;
    relay.stop().await;
}

/// A subscription that is answered `CLOSED` is closed, also if it was open before.
#[tokio::test]
async fn a_malformed_request_closes_the_subscription_of_its_id() {
    let relay = TestRelay::with_memory(|_| {}).await;
    let mut wire = Wire::connect(relay.address).await;
    assert_eq!(wire.ask(r#"["REQ","a",{"kinds":[1]}]"#).await[0], "EOSE");
    assert_eq!(wire.ask(r#"["REQ","a",{"kinds":1}]"#).await[0], "CLOSED");
    assert_eq!(relay.app().live.subscriptions(), 0);
    relay.stop().await;
}

/// 20,000 brackets at any place in a message are refused without a deeper stack.
#[tokio::test]
async fn deep_nesting_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let process = Process::start(directory.path(), &[]);
    let before = process.memory_kib();
    let open = "[".repeat(20_000);
    let deep = format!("{open}{}", "]".repeat(20_000));
    let objects = format!("{}1{}", "{\"a\":".repeat(20_000), "}".repeat(20_000));
    let mut cases = vec![(open, Notice), (deep.clone(), Notice), (objects.clone(), Notice)];
    for deep in [deep, objects] {
        cases.extend([
            (format!("[\"EVENT\",{deep}]"), Notice),
            (format!("[\"AUTH\",{deep}]"), Notice),
            (format!("[\"EVENT\",{{\"id\":\"{ID}\",\"tags\":{deep}}}]"), OkFalse),
            (format!("[\"EVENT\",{{\"id\":\"{ID}\",\"tags\":[[{deep}]]}}]"), OkFalse),
            (format!("[\"EVENT\",{{\"id\":\"{ID}\",\"content\":{deep}}}]"), OkFalse),
            (format!("[\"EVENT\",{{\"id\":\"{ID}\",\"more\":{deep}}}]"), OkFalse),
            (format!("[\"AUTH\",{{\"id\":\"{ID}\",\"tags\":{deep}}}]"), OkFalse),
            (format!("[{deep}]"), Notice),
            (format!("[\"REQ\",{deep},{{}}]"), Notice),
            (format!("[\"REQ\",\"a\",{deep}]"), Closed),
            (format!("[\"REQ\",\"a\",{{\"kinds\":{deep}}}]"), Closed),
            (format!("[\"REQ\",\"a\",{{\"#t\":[{deep}]}}]"), Closed),
            (format!("[\"REQ\",\"a\",{{\"more\":{deep}}}]"), Closed),
            (format!("[\"COUNT\",\"a\",{{\"ids\":{deep}}}]"), Closed),
            (format!("[\"NEG-OPEN\",\"a\",{{\"ids\":{deep}}},\"\"]"), NegErr),
            (format!("[\"CLOSE\",\"a\",{deep}]"), Notice),
        ]);
    }
    served_beside(process.address, answers(process.address, cases)).await;
    bounded(&process, before, 8);
}

/// An event is refused if its content, author, time, kind, tags, id or signature was changed after signing.
#[tokio::test]
async fn forged_events_are_refused() {
    let relay = TestRelay::with_memory(|_| {}).await;
    let mut wire = Wire::connect(relay.address).await;
    let honest = Keys::random().event(1).content("honest").sign();
    let other = Keys::random().event(1).content("other").sign();
    let forged = |member: &str, value: Value| {
        let mut event = honest.0.clone();
        event[member] = value;
        event
    };
    let changed = [
        ("content", json!("changed")),
        ("pubkey", other.0["pubkey"].clone()),
        ("created_at", json!(honest.0["created_at"].as_u64().expect("a time") - 1)),
        ("kind", json!(7)),
        ("tags", json!([["t", "x"]])),
        ("id", other.0["id"].clone()),
    ];
    for (member, value) in changed {
        let event = forged(member, value);
        let answer = wire.publish(&Event(event)).await;
        assert_eq!(answer[2], false, "{member}: {answer}");
        assert!(answer[3].as_str().unwrap_or_default().starts_with("invalid: id does not match"), "{answer}");
    }
    let signature = honest.0["sig"].as_str().expect("a signature");
    let flipped = format!("{}{}", &signature[..127], if signature.ends_with('0') { '1' } else { '0' });
    for sig in [json!(flipped), other.0["sig"].clone(), json!("00".repeat(64)), json!("ff".repeat(64))] {
        let answer = wire.publish(&Event(forged("sig", sig))).await;
        assert_eq!((&answer[1], &answer[2]), (&honest.0["id"], &json!(false)), "{answer}");
        assert!(answer[3].as_str().unwrap_or_default().starts_with("invalid: signature"), "{answer}");
    }
    // This key is no point of the curve; the id fits the event.
    let mut event = forged("pubkey", json!("ff".repeat(32)));
    event["id"] = json!(id_of(&event));
    let answer = wire.publish(&Event(event)).await;
    assert_eq!(answer[2], false, "{answer}");
    // The same forgeries do not authenticate a key.
    for event in [forged("sig", json!(flipped)), forged("content", json!("changed"))] {
        let answer = wire.ask(&json!(["AUTH", event]).to_string()).await;
        assert_eq!(answer[2], false, "{answer}");
    }
    // The honest event is still accepted.
    assert_eq!(wire.publish(&honest).await[2], true);
    relay.stop().await;
}

fn id_of(event: &Value) -> String {
    use sha2::{Digest as _, Sha256};
    let signed = json!([0, event["pubkey"], event["created_at"], event["kind"], event["tags"], event["content"]]);
    nostr_protocol::hex::to_hex(&Sha256::digest(signed.to_string()))
}

/// Keys, ids and signatures must be lower-case hex; upper case is refused and not converted.
#[tokio::test]
async fn upper_case_hex_is_refused() {
    let relay = TestRelay::with_memory(|_| {}).await;
    let mut wire = Wire::connect(relay.address).await;
    for member in ["id", "pubkey", "sig"] {
        let mut event = Keys::random().event(1).sign().0;
        let upper = event[member].as_str().expect("hex").to_ascii_uppercase();
        event[member] = json!(upper);
        let answer = wire.publish(&Event(event.clone())).await;
        let reason = if member == "id" { &answer[1] } else { &answer[3] };
        assert!(answer[0] == if member == "id" { "NOTICE" } else { "OK" }, "{answer}");
        assert!(reason.as_str().unwrap_or_default().contains("lower-case hex"), "{answer}");
    }
    let upper = Keys::random().hex().to_ascii_uppercase();
    let cases = ["ids", "authors", "#e", "#p"].map(|name| (json!(["REQ", "a", {name: [upper]}]).to_string(), Closed));
    answers(relay.address, cases).await;
    relay.stop().await;
}

/// Negative, huge and fractional numbers, and strings, are refused by name; no number wraps around.
#[tokio::test]
async fn numbers_out_of_range_are_refused() {
    let relay = TestRelay::with_memory(|_| {}).await;
    let numbers =
        ["-1", "-9223372036854775808", "18446744073709551616", "1e30", "1e999", "1.5", "\"1\"", "null", "NaN"];
    let mut cases = Vec::new();
    for number in numbers {
        for member in ["created_at", "kind"] {
            cases.push((format!("[\"EVENT\",{{\"id\":\"{ID}\",\"{member}\":{number}}}]"), OkFalse));
        }
        for member in ["since", "until", "limit"] {
            cases.push((format!("[\"REQ\",\"a\",{{\"{member}\":{number}}}]"), Closed));
        }
        cases.push((format!("[\"REQ\",\"a\",{{\"kinds\":[{number}]}}]"), Closed));
    }
    cases.push((format!("[\"EVENT\",{{\"id\":\"{ID}\",\"kind\":65536}}]"), OkFalse));
    cases.push(("[\"REQ\",\"a\",{\"kinds\":[65536]}]".to_owned(), Closed));
    // `NaN` is no JSON: such an EVENT has no id that the relay could answer to.
    cases.retain(|(text, _)| !(text.starts_with("[\"EVENT") && text.contains("NaN")));
    answers(relay.address, cases).await;

    let mut wire = Wire::connect(relay.address).await;
    for filter in [
        json!({"since": u64::MAX}),
        json!({"until": u64::MAX, "limit": u64::MAX}),
        json!({"until": 0}),
        json!({"limit": 0}),
        json!({"since": u64::MAX, "until": 0}),
        json!({"since": i64::MAX}),
        json!({"kinds": [65535]}),
    ] {
        let answer = wire.ask(&json!(["REQ", "a", filter]).to_string()).await;
        assert_eq!((&answer[0], &answer[1]), (&json!("EOSE"), &json!("a")), "{filter}");
    }
    for (created_at, taken) in
        [(0, true), (1, true), (now() + 600, true), (now() + 2_000, false), (u64::MAX, false), (1 << 53, false)]
    {
        let answer = wire.publish(&Keys::random().event(1).created_at(created_at).sign()).await;
        let heard = loop_to_ok(&mut wire, answer).await;
        assert_eq!(heard[2], taken, "{created_at}: {heard}");
    }
    relay.stop().await;
}

/// Skips events of the open subscription, up to the next `OK`.
async fn loop_to_ok(wire: &mut Wire, mut frame: Value) -> Value {
    while frame[0] != "OK" {
        frame = wire.reader.message().await.expect("the relay answers");
    }
    frame
}
