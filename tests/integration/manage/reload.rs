//! A configuration that is read again, and the write policy's program.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use nostr_relay::config::{Config, Reading};
use serde_json::json;

use super::ends;
use crate::support::{Client, Keys, TestRelay, http};

async fn name_of(relay: &TestRelay) -> String {
    let answer = http(relay.next_address(), "GET /", &[("accept", "application/nostr+json")]).await;
    answer.json()["name"].as_str().expect("a name").to_owned()
}

/// Keys that may change take effect at once, and no connection is dropped for them.
#[tokio::test]
async fn a_change_is_in_force_without_a_dropped_connection() {
    let [alice, bob] = Keys::some();
    let relay = TestRelay::start(|config| config.auth.pubkey_whitelist = vec![alice.public()]).await;
    let mut client = Client::connect(&relay).await;
    client.publish(&alice.event(1).sign()).await.ok();
    client.publish(&bob.event(1).sign()).await.refused("auth-required");
    let mut next = Config::clone(&relay.app().config);
    next.auth.pubkey_whitelist = vec![bob.public()];
    next.information.name = "another".to_owned();
    next.server.ping_interval_secs = 7;
    relay.reconfigure(&next.into());
    client.publish(&bob.event(1).content("2").sign()).await.ok();
    client.publish(&alice.event(1).content("2").sign()).await.refused("auth-required");
    assert_eq!(name_of(&relay).await, "another");
}

/// With `auth.enabled` a key that is no resident any more loses its connection.
#[tokio::test]
async fn a_key_that_is_no_resident_any_more_leaves() {
    let [alice, bob] = Keys::some();
    let relay = TestRelay::start(|config| {
        config.auth.enabled = true;
        config.auth.pubkey_whitelist = vec![alice.public(), bob.public()];
    })
    .await;
    let mut alices = Client::of(&relay, &[&alice]).await;
    let mut bobs = Client::of(&relay, &[&bob]).await;
    let mut next = Config::clone(&relay.app().config);
    next.auth.pubkey_whitelist = vec![bob.public()];
    relay.reconfigure(&next.into());
    ends(&mut alices).await;
    bobs.publish(&bob.event(1).sign()).await.ok();
}

#[tokio::test]
async fn a_reading_with_faults_changes_nothing() {
    let relay = TestRelay::start(|_| {}).await;
    let text = "[information]\nname = \"another\"\n[server]\nport = \"x\"\n";
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), text).expect("it is written");
    let faulty = Reading::of(Some(file.path()), []);
    assert_eq!((faulty.faults.len(), faulty.config.information.name.as_str()), (1, "another"));
    relay.reconfigure(&faulty);
    assert_eq!(name_of(&relay).await, "rnostr");
}

/// A file that was cut off, or is being written, opens no relay by the defaults.
#[tokio::test]
async fn a_file_that_sets_nothing_changes_nothing() {
    let [alice, bob] = Keys::some();
    let relay = TestRelay::start(|config| config.auth.pubkey_whitelist = vec![alice.public()]).await;
    let mut client = Client::connect(&relay).await;
    let file = tempfile::NamedTempFile::new().expect("a file");
    for text in ["", "# nothing\n", "[auth]\n"] {
        fs::write(file.path(), text).expect("it is written");
        assert!(Reading::of(Some(file.path()), []).faults.is_empty(), "a start takes it");
        relay.reconfigure(&Reading::again(Some(file.path()), []));
    }
    let path = file.path().to_owned();
    drop(file);
    relay.reconfigure(&Reading::again(Some(&path), []));
    client.publish(&bob.event(1).sign()).await.refused("auth-required");
    client.publish(&alice.event(1).sign()).await.ok();
}

/// A program that answers by the content of an event: `no` is refused, `hidden` is to be pretended, `silence` gets no
/// answer, `die` ends the program, and everything else passes.
const PROGRAM: &str = r#"#!/usr/bin/env python3
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    assert asked["type"] == "new" and asked["sourceType"] == "IP4", asked
    event = asked["event"]
    answer = {"id": event["id"], "action": "accept"}
    if event["content"] == "silence":
        continue
    if event["content"] == "die":
        sys.exit(1)
    if event["content"] == "no":
        answer = {"id": event["id"], "action": "reject", "msg": "blocked: not on white-list"}
    if event["content"] == "hidden":
        answer = {"id": event["id"], "action": "shadowReject"}
    print("no answer" if event["content"] == "noise" else json.dumps(answer), flush=True)
    if event["content"] == "noise":
        print(json.dumps(answer), flush=True)
"#;

fn program(directory: &Path, text: &str) -> String {
    let path = directory.join("policy.py");
    fs::write(&path, text).expect("it is written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is made a program");
    path.to_str().expect("text").to_owned()
}

#[tokio::test]
async fn a_program_refuses_events_and_admits_none_that_the_rules_refuse() {
    let (directory, alice) = (tempfile::tempdir().expect("a directory"), Keys::random());
    let relay = TestRelay::start(|config| {
        config.write_policy.plugin = Some(program(directory.path(), PROGRAM));
        config.write_policy.timeout_ms = 3_000;
    })
    .await;
    let mut client = Client::connect(&relay).await;
    let note = |content: &str| alice.event(1).content(content).sign();
    client.publish(&note("hello")).await.ok();
    assert_eq!(client.publish(&note("no")).await.refused("blocked"), "blocked: not on white-list");
    let hidden = note("hidden");
    client.publish(&hidden).await.refused("blocked");
    assert_eq!(client.ids(json!({ "ids": [hidden.id()] })).await, Ok(Vec::new()));
    client.publish(&note("noise")).await.ok();
    client.publish(&alice.event(22242).sign()).await.refused("invalid");
    client.publish(&note("silence")).await.refused("error");
    client.publish(&note("after silence")).await.ok();
    client.publish(&note("die")).await.refused("error");
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    client.publish(&note("after death")).await.ok();
    // Another text of the program is in force for the next event.
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    program(directory.path(), &PROGRAM.replace("\"no\"", "\"never\""));
    client.publish(&note("no")).await.ok();
}

/// Events of many connections are asked about at one time, and each gets its own answer.
#[tokio::test]
async fn each_event_gets_its_own_answer() {
    let (directory, alice) = (tempfile::tempdir().expect("a directory"), Keys::random());
    let relay = TestRelay::start(|config| {
        config.write_policy.plugin = Some(format!("exec {}", program(directory.path(), PROGRAM)));
        config.write_policy.timeout_ms = 20_000;
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(Client::connect(&relay).await);
    }
    let publishing = (0..).zip(clients).map(|(n, mut client)| {
        let content = if n % 2 == 0 { "no" } else { "yes" };
        let event = alice.event(1).content(content).tag(["n", &n.to_string()]).sign();
        async move { (n % 2 == 1, client.publish(&event).await.accepted) }
    });
    for (expected, accepted) in futures_util::future::join_all(publishing).await {
        assert_eq!(expected, accepted);
    }
}

/// A program that cannot be started refuses every event, and the relay goes on.
#[tokio::test]
async fn without_its_program_the_relay_takes_nothing() {
    let alice = Keys::random();
    let relay = TestRelay::start(|config| config.write_policy.plugin = Some("/nowhere/policy".to_owned())).await;
    let mut client = Client::connect(&relay).await;
    client.publish(&alice.event(1).sign()).await.refused("error");
    assert_eq!(client.ids(json!({ "kinds": [1] })).await, Ok(Vec::new()));
}
