//! Log lines: the specification's one, the id that ties lines together, and slow requests.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::support::{
    Client, Keys, WAIT,
    gateway::{key_package, message},
    process::Process,
    rest::Rest,
};

/// The lines of a log as JSON.
fn lines(log: &str) -> Vec<Value> {
    log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("a JSON line: {line}"))).collect()
}

/// The lines so far, once one has a message that begins like this.
async fn lines_with(relay: &Process, message: &str) -> (Vec<Value>, Value) {
    let until = Instant::now() + WAIT;
    loop {
        let lines = lines(&relay.log());
        let begins = |line: &&Value| line["message"].as_str().is_some_and(|text| text.starts_with(message));
        if let Some(found) = lines.iter().find(begins) {
            let found = found.clone();
            return (lines, found);
        }
        assert!(Instant::now() < until, "no {message:?} in\n{}", relay.log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn start(directory: &TempDir, level: &str, slow_ms: u64) -> Process {
    let (level, slow) = (format!("log_level = {level:?}"), format!("slow_request_ms = {slow_ms}"));
    let config = [("server", "log_format = \"json\""), ("server", &*level), ("server", &*slow)];
    Process::start(directory.path(), &config)
}

/// MLS Gateway specification, "Structured Logging (JSON)".
#[tokio::test]
async fn a_key_package_has_the_specifications_line_and_its_lines_share_an_id() {
    let (directory, alice) = (tempfile::tempdir().expect("a directory"), Keys::random());
    let relay = start(&directory, "info,nostr_relay=debug", 0);
    let mut client = Client::open(&relay.url, &[]).await.expect("a connection");
    let expires = 1_900_000_000_u64.min(crate::support::now() + 3_600);
    let event = key_package(&alice).tag(["exp", &expires.to_string()]).sign();
    client.publish(&event).await.ok();
    client.publish(&Keys::random().event(1).content("a note").sign()).await.ok();
    let (_, line) = lines_with(&relay, "Processing KeyPackage from owner: ").await;
    assert_eq!((line["level"].as_str(), line["target"].as_str()), (Some("INFO"), Some("mls_gateway::mod")));
    let fields = &line["fields"];
    let owner = fields["owner"].as_str().expect("an owner");
    assert_eq!(line["message"], format!("Processing KeyPackage from owner: {owner}"));
    assert!(owner.len() == 8 && owner.bytes().all(|byte| byte.is_ascii_hexdigit()), "{owner}");
    assert_ne!(owner, &alice.hex()[..8]);
    assert_eq!(fields["event_kind"], 443);
    let expiry = fields["expiry"].as_str().expect("an expiry");
    assert!(expiry.len() == 20 && expiry.starts_with("20") && expiry.ends_with('Z'), "{expiry}");
    let request = fields["request"].as_str().expect("an id").to_owned();
    let (lines, _) = lines_with(&relay, "event decided").await;
    let tied = lines.iter().filter(|line| line["fields"]["request"] == request.as_str());
    let tied: Vec<&str> = tied.map(|line| line["message"].as_str().expect("text")).collect();
    assert!(tied.contains(&"event arrived") && tied.contains(&"event decided"), "{tied:?}");
    // The content is no KeyPackage, which a line of the same id says.
    assert!(tied.iter().any(|text| text.starts_with("KeyPackage: ")), "{tied:?}");
    for secret in [alice.hex(), event.id().to_owned()] {
        let told = lines.iter().find(|line| line["level"] != "DEBUG" && line.to_string().contains(&secret));
        assert_eq!(told, None);
    }
}

/// An order is logged with the sort of its subject and a tag; nobody reads the subject itself above `debug`.
#[tokio::test]
async fn an_order_has_a_line_without_its_subject() {
    let (directory, [admin, alice]) = (tempfile::tempdir().expect("a directory"), Keys::some());
    let admins = format!("admin_pubkeys = [{:?}]", admin.hex());
    let config = [
        ("server", "log_format = \"json\""),
        ("server", "log_level = \"info,nostr_relay=debug\""),
        ("extensions.mls_gateway", &*admins),
    ];
    let relay = Process::start(directory.path(), &config);
    let address = relay.url.strip_prefix("ws://").and_then(|it| it.trim_end_matches('/').parse().ok());
    let orders = Rest::of_process(address.expect("an address"), &admin);
    orders.ordered("banpubkey", json!([alice.hex(), "spam"])).await;
    let (lines, line) = lines_with(&relay, "an admin key gave an order").await;
    let fields = &line["fields"];
    assert_eq!((&fields["method"], &fields["sort"]), (&json!("banpubkey"), &json!("key")));
    for tag in ["subject", "by"] {
        let tag = fields[tag].as_str().expect("a tag");
        assert!(tag.len() == 8 && tag.bytes().all(|byte| byte.is_ascii_hexdigit()), "{tag}");
        assert!(!alice.hex().starts_with(tag) && !admin.hex().starts_with(tag), "{tag}");
    }
    for secret in [alice.hex(), admin.hex()] {
        let told = lines.iter().find(|line| line["level"] != "DEBUG" && line.to_string().contains(&secret));
        assert_eq!(told, None);
    }
}

/// A slow event and a slow request are logged with their plan and without their content.
#[tokio::test]
async fn slow_requests_are_logged_with_their_plan_and_without_their_content() {
    let (directory, group) = (tempfile::tempdir().expect("a directory"), crate::support::gateway::capability());
    let relay = start(&directory, "info", 1);
    let mut client = Client::open(&relay.url, &[]).await.expect("a connection");
    let content = "c2VjcmV0".repeat(20_000);
    for _ in 0..8 {
        client.publish(&message(&group).content(content.clone()).sign()).await.ok();
    }
    let until = Instant::now() + WAIT;
    let of_door = |lines: &[Value], door: &str| {
        lines.iter().find(|line| line["message"] == "slow request" && line["fields"]["door"] == door).cloned()
    };
    let (event, read) = loop {
        // A fast machine may answer within the millisecond.
        client.req_now("s", &[json!({"kinds": [445], "#h": [group], "limit": 8})]).await.expect("stored events");
        let lines = lines(&relay.log());
        if let (Some(event), Some(read)) = (of_door(&lines, "event"), of_door(&lines, "req")) {
            break (event, read);
        }
        assert!(Instant::now() < until, "{}", relay.log());
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    assert_eq!((event["level"].as_str(), event["fields"]["event_kind"].as_u64()), (Some("WARN"), Some(445)));
    for part in ["took_ms", "admission_ms", "waiting_ms", "store_ms"] {
        assert!(event["fields"][part].is_u64(), "{event}");
    }
    assert_eq!(read["fields"]["plan"], "kind:445 #h:1 limit:8");
    assert_eq!(read["fields"]["events"], 8);
    assert!(read["fields"]["pages"].as_u64() >= Some(1) && read["fields"]["units"].as_u64() > Some(0), "{read}");
    let log = relay.log();
    assert!(!log.contains(&group) && !log.contains("c2VjcmV0"), "{log}");
}

/// A client that is slow on purpose writes no line: neither by its body, nor by its AUTH, nor by its reading.
#[tokio::test]
async fn slow_clients_write_no_lines_about_slow_requests() {
    const SLOW: Duration = Duration::from_secs(4);
    let (directory, alice) = (tempfile::tempdir().expect("a directory"), Keys::random());
    let config = [
        ("server", "log_format = \"json\""),
        ("server", "log_level = \"info\""),
        ("server", "slow_request_ms = 2500"),
        ("auth", "auth_grace_ms = 10000"),
    ];
    let relay = Process::start(directory.path(), &config);
    let mut publisher = Client::open(&relay.url, &[]).await.expect("a connection");
    let long = "c2VjcmV0".repeat(24_000);
    for n in 0..80 {
        publisher.publish(&alice.event(1).content(format!("{n}{long}")).sign()).await.ok();
    }
    let (mut waiting, mut reading) = (
        Client::open(&relay.url, &[]).await.expect("a connection"),
        Client::open(&relay.url, &[]).await.expect("a connection"),
    );
    // Only the author may publish an event with a `-` tag, so this one waits for the AUTH.
    let protected = alice.event(1).tag(["-"]).sign();
    waiting.send(&json!(["EVENT", protected.0])).await;
    reading.send(&json!(["REQ", "s", {"kinds": [1], "limit": 80}])).await;
    let body = Keys::random().event(1).content("by REST").sign().0.to_string();
    let mut posting = TcpStream::connect(relay.address).await.expect("the relay listens");
    let head = format!(
        "POST /api/v1/mls/events HTTP/1.1\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{}",
        relay.address,
        body.len(),
        &body[..9]
    );
    posting.write_all(head.as_bytes()).await.expect("the head is sent");
    tokio::time::sleep(SLOW).await;
    posting.write_all(&body.as_bytes()[9..]).await.expect("the rest is sent");
    let mut answer = String::new();
    posting.read_to_string(&mut answer).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    waiting.auth(&alice).await.ok();
    waiting.answer(protected.id()).await.ok();
    reading.find(|frame| frame[0] == "EOSE").await;
    // The relay answers in order, so the line of the request would stand before this one.
    reading.publish(&key_package(&alice).sign()).await.ok();
    let (lines, _) = lines_with(&relay, "Processing KeyPackage from owner: ").await;
    let slow: Vec<_> = lines.iter().filter(|line| line["message"] == "slow request").collect();
    assert!(slow.is_empty(), "{slow:?}");
}
