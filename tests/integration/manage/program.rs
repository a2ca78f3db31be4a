//! The write policy's program.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use serde_json::{Value, json};

use crate::support::{Answer, Client, Event, Keys, TestRelay, gateway::wrap, rest::Rest};

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

pub(super) fn program(directory: &Path, text: &str) -> String {
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

/// A program as strfry's documents describe one, which a relay of strfry runs as it is: it accepts the keys of a list,
/// rejects others with a reason, and hides events with a word in them.
const STRFRY_PROGRAM: &str = r#"#!/bin/sh
while IFS= read -r line; do
    id=$(printf '%s' "$line" | sed -n 's/.*"id":"\([0-9a-f]*\)".*/\1/p')
    case "$line" in
        *'"type":"new"'*'"sourceType":"IP4"'*'"sourceInfo":"127.'*) ;;
        *) printf '{"id":"%s","action":"reject","msg":"error: unexpected question"}\n' "$id"; continue ;;
    esac
    case "$line" in
        *spam*) printf '{"id":"%s","action":"shadowReject"}\n' "$id" ;;
        *LISTED*) printf '{"id":"%s","action":"accept","msg":""}\n' "$id" ;;
        *) printf '{"id":"%s","action":"reject","msg":"blocked: not on white-list"}\n' "$id" ;;
    esac
done
"#;

#[tokio::test]
async fn a_program_for_strfry_runs_unchanged() {
    let (directory, [alice, bob]) = (tempfile::tempdir().expect("a directory"), Keys::some());
    let text = STRFRY_PROGRAM.replace("LISTED", &alice.hex());
    let relay = TestRelay::start(|config| config.write_policy.plugin = Some(program(directory.path(), &text))).await;
    let mut client = Client::connect(&relay).await;
    client.publish(&alice.event(1).content("hello").sign()).await.ok();
    let refused = client.publish(&bob.event(1).content("hello").sign()).await;
    assert_eq!(refused.refused("blocked"), "blocked: not on white-list");
    client.publish(&alice.event(1).content("spam").sign()).await.refused("blocked");
    assert_eq!(client.ids(json!({ "kinds": [1] })).await.expect("an answer").len(), 1);
}

/// Events that fill the pipe keep no program from answering, and it is not started anew for them.
#[tokio::test]
async fn large_events_are_written_while_the_program_answers() {
    const COUNTING: &str = r#"#!/usr/bin/env python3
import json, os, sys, time
open(os.path.join(os.path.dirname(sys.argv[0]), "starts"), "a").write("1")
for line in sys.stdin:
    time.sleep(0.05)
    print(json.dumps({"id": json.loads(line)["event"]["id"], "action": "accept", "msg": "x" * 3000}), flush=True)
"#;
    let (directory, alice) = (tempfile::tempdir().expect("a directory"), Keys::random());
    let relay = TestRelay::start(|config| {
        config.write_policy.plugin = Some(program(directory.path(), COUNTING));
        config.write_policy.timeout_ms = 400;
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..24 {
        clients.push(Client::connect(&relay).await);
    }
    let content = "a".repeat(200 << 10);
    let publishing = (0..).zip(clients).map(|(n, mut client)| {
        let event = alice.event(1).content(&content).tag(["n", &n.to_string()]).sign();
        async move { client.publish(&event).await.ok() }
    });
    // Each takes 50 ms, so that the last one waits for three times the limit.
    futures_util::future::join_all(publishing).await;
    assert_eq!(fs::read_to_string(directory.path().join("starts")).expect("a file"), "1");
}

/// The events of one client take turns with those of others, however many connections it has.
#[tokio::test]
async fn one_client_makes_no_other_wait_for_all_of_its_events() {
    const SLOW: &str = r#"#!/usr/bin/env python3
import json, sys, time
for line in sys.stdin:
    time.sleep(0.05)
    print(json.dumps({"id": json.loads(line)["event"]["id"], "action": "accept"}), flush=True)
"#;
    let (directory, [alice, bob]) = (tempfile::tempdir().expect("a directory"), Keys::some());
    let relay = TestRelay::start(|config| {
        config.write_policy.plugin = Some(program(directory.path(), SLOW));
        config.server.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a range")];
        config.auth.pubkey_whitelist = vec![alice.public(), bob.public()];
    })
    .await;
    let mut crowd = Vec::new();
    for _ in 0..120 {
        crowd.push(Client::connect_with(&relay, &[("x-forwarded-for", "198.51.100.7")]).await);
    }
    let mut guest = Client::connect_with(&relay, &[("x-forwarded-for", "198.51.100.8")]).await;
    let crowded = (0..).zip(crowd).map(|(n, mut client)| {
        let event = alice.event(1).tag(["n", &n.to_string()]).sign();
        async move { client.publish(&event).await.ok() }
    });
    let crowded = tokio::spawn(futures_util::future::join_all(crowded.collect::<Vec<_>>()));
    tokio::time::sleep(Duration::from_millis(500)).await;
    let asked = std::time::Instant::now();
    guest.publish(&bob.event(1).sign()).await.ok();
    // The crowd's events take 6 s in all; 16 of them are before the guest's at most, of which 8 are the crowd's.
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    assert!(!crowded.is_finished());
    crowded.await.expect("each event is taken");
}

/// The program runs before the first event comes, and has longer for its first answer.
#[tokio::test]
async fn the_program_is_started_with_the_relay() {
    const LATE: &str = r#"#!/usr/bin/env python3
import json, os, sys, time
open(os.path.join(os.path.dirname(sys.argv[0]), "started"), "w").close()
time.sleep(2)
for line in sys.stdin:
    print(json.dumps({"id": json.loads(line)["event"]["id"], "action": "accept"}), flush=True)
"#;
    let (directory, alice) = (tempfile::tempdir().expect("a directory"), Keys::random());
    let relay = TestRelay::start(|config| {
        config.write_policy.plugin = Some(program(directory.path(), LATE));
        config.write_policy.timeout_ms = 100;
    })
    .await;
    let started = async {
        while !directory.path().join("started").exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), started).await.expect("nobody has sent an event");
    Client::connect(&relay).await.publish(&alice.event(1).sign()).await.ok();
}

/// The end of a command's shell is the end of the program that it runs.
#[tokio::test]
async fn a_command_leaves_no_process_behind() {
    let directory = tempfile::tempdir().expect("a directory");
    let pids = directory.path().join("pids");
    let relay = TestRelay::start(|config| {
        let command = format!("echo $$ >>{0}; sh -c 'echo $$ >>{0}; exec sleep 600'; true", pids.display());
        config.write_policy.plugin = Some(command);
    })
    .await;
    let running = || -> Vec<String> {
        let pids = fs::read_to_string(&pids).unwrap_or_default();
        pids.lines().filter(|pid| is_alive(pid)).map(str::to_owned).collect()
    };
    let until = async |count: usize| {
        while running().len() != count {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), until(2)).await.expect("both run");
    relay.stop().await;
    tokio::time::timeout(Duration::from_secs(5), until(0)).await.expect("both end");
}

/// Whether a process is there and no zombie.
fn is_alive(pid: &str) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// A program that says in the file `asked` that it was asked, and answers once there is the file `go`.
const ON_DEMAND: &str = r#"#!/usr/bin/env python3
import json, os, sys, time
here = os.path.dirname(sys.argv[0])
for line in sys.stdin:
    event = json.loads(line)["event"]
    open(os.path.join(here, "asked"), "w").write(event["id"])
    while event["content"] == "wait" and not os.path.exists(os.path.join(here, "go")):
        time.sleep(0.01)
    print(json.dumps({"id": event["id"], "action": "accept"}), flush=True)
"#;

/// Publishes an event whose content is `wait`, and lets the program answer after `meanwhile`.
async fn publish_beside(
    relay: &TestRelay,
    directory: &Path,
    event: Event,
    meanwhile: impl Future<Output = ()>,
) -> Answer {
    let _ = fs::remove_file(directory.join("go"));
    let _ = fs::remove_file(directory.join("asked"));
    let mut client = Client::connect(relay).await;
    let publishing = tokio::spawn(async move { client.publish(&event).await });
    let asked = async {
        while !directory.join("asked").exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), asked).await.expect("the program is asked");
    meanwhile.await;
    fs::write(directory.join("go"), "").expect("it is written");
    publishing.await.expect("an answer")
}

/// An event that waits at the program is held by an order that is given meanwhile, and by another configuration.
#[tokio::test]
async fn an_order_and_a_configuration_hold_for_an_event_that_waits() {
    let (directory, admin, [alice, bob]) = (tempfile::tempdir().expect("a directory"), Keys::random(), Keys::some());
    let relay = TestRelay::start(|config| {
        config.write_policy.plugin = Some(program(directory.path(), ON_DEMAND));
        config.write_policy.timeout_ms = 20_000;
        config.mls_gateway.admin_pubkeys = vec![admin.public()];
    })
    .await;
    let orders = Rest::of(&relay, &admin);
    for (method, parameter) in [("banpubkey", json!(alice.hex())), ("disallowkind", json!(7))] {
        let sender = if method == "banpubkey" { &alice } else { &bob };
        let event = sender.event(7).content("wait").sign();
        let order = async {
            assert_eq!(orders.ordered(method, json!([parameter])).await, Value::Bool(true));
        };
        publish_beside(&relay, directory.path(), event, order).await.refused("blocked");
    }
    let mut next = nostr_relay::config::Config::clone(&relay.app().config);
    next.strangers.inbox_min_pow = 40;
    let reload = async { relay.reconfigure(&next.into()) };
    let wrapped = wrap(&bob).content("wait").sign();
    publish_beside(&relay, directory.path(), wrapped, reload).await.refused("error");
}

/// A program that the configuration names no more ends.
#[tokio::test]
async fn a_program_ends_with_its_key() {
    let directory = tempfile::tempdir().expect("a directory");
    let pid = directory.path().join("pid");
    let relay = TestRelay::start(|config| {
        config.write_policy.plugin = Some(format!("echo $$ >{}; exec sleep 600", pid.display()));
    })
    .await;
    let is_running = || fs::read_to_string(&pid).is_ok_and(|pid| is_alive(pid.trim()));
    let until = async |wanted: bool| {
        while is_running() != wanted {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), until(true)).await.expect("it runs");
    let mut next = nostr_relay::config::Config::clone(&relay.app().config);
    next.write_policy.plugin = None;
    relay.reconfigure(&next.into());
    tokio::time::timeout(Duration::from_secs(5), until(false)).await.expect("it ends");
}

/// A program that never answers keeps no event waiting for its turn: all are refused when it ends.
#[tokio::test]
async fn a_program_that_never_answers_is_not_waited_for_twice() {
    const MUTE: &str = "#!/bin/sh\nexec sleep 600\n";
    let (directory, alice) = (tempfile::tempdir().expect("a directory"), Keys::random());
    let relay = TestRelay::start(|config| {
        config.write_policy.plugin = Some(program(directory.path(), MUTE));
        config.write_policy.timeout_ms = 500;
    })
    .await;
    let mut clients = Vec::new();
    for _ in 0..40 {
        clients.push(Client::connect(&relay).await);
    }
    let publishing = (0..).zip(clients).map(|(n, mut client)| {
        let event = alice.event(1).tag(["n", &n.to_string()]).sign();
        async move { client.publish(&event).await.refused("error").to_owned() }
    });
    let asked = std::time::Instant::now();
    futures_util::future::join_all(publishing).await;
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
}

/// An event that the program passes over is refused in the end, and takes no place from others for ever.
#[tokio::test]
async fn a_program_that_passes_events_over_answers_the_others() {
    const FORGETFUL: &str = r#"#!/usr/bin/env python3
import json, sys
for line in sys.stdin:
    event = json.loads(line)["event"]
    if event["content"] != "forget":
        print(json.dumps({"id": event["id"], "action": "accept"}), flush=True)
"#;
    let (directory, alice) = (tempfile::tempdir().expect("a directory"), Keys::random());
    let relay = TestRelay::start(|config| {
        config.write_policy.plugin = Some(program(directory.path(), FORGETFUL));
        config.write_policy.timeout_ms = 5_000;
    })
    .await;
    let mut forgotten = Client::connect(&relay).await;
    let event = alice.event(1).content("forget").sign();
    let waiting = tokio::spawn(async move { forgotten.publish(&event).await });
    let mut client = Client::connect(&relay).await;
    for n in 0..30 {
        client.publish(&alice.event(1).content(n.to_string()).sign()).await.ok();
    }
    assert!(!waiting.is_finished());
    waiting.abort();
}
