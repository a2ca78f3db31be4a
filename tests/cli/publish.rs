//! `rnostr publish` against relays with and without AUTH.

use std::{fs, io::Write as _, process::Stdio};

use nostr_protocol::testing::EventBuilder;

use super::{
    fake,
    person::{Person, admin_of, anonymous, contents, events},
    run::{LINE_MAX, command, lines, rnostr_reading, run, spawn},
    server::Relay,
};

/// Signed notes of a person, one a line.
fn notes(by: &Person, count: usize) -> Vec<String> {
    (0..count).map(|n| EventBuilder::new(1).content(format!("note {n}")).json(&by.keys)).collect()
}

#[test]
fn each_line_gets_the_relay_s_answer() {
    let relay = Relay::start("", "");
    let alice = Person::new("alice");
    let notes = notes(&alice, 3);
    let forged = with_another_signature(&notes[1]);
    let lines = [&notes[0], "", "{\"kind\":1}", &forged, &notes[2]].join("\n");
    fs::write(relay.directory.path().join("events.jsonl"), lines).expect("it is written");
    let ran = anonymous(&relay, &["publish", "events.jsonl"]);
    let started = |word: &str| ran.out.lines().filter(|line| line.starts_with(word)).count();
    assert_eq!((started("ok "), started("refused line 3: not sent: ")), (2, 1), "{}", ran.out);
    let refused = format!("refused {} invalid:", events(&notes[1])[0].id());
    assert_eq!(started(&refused), 1, "{}", ran.out);
    assert!(ran.fails().contains("2 of 4 events were refused"));
    let again = anonymous(&relay, &["publish", "events.jsonl"]);
    assert_eq!(again.out.lines().filter(|line| line.contains(" duplicate:")).count(), 2, "{}", again.out);
}

/// The event with another signature.
fn with_another_signature(json: &str) -> String {
    let mut event: serde_json::Value = serde_json::from_str(json).expect("JSON");
    let sig = event["sig"].as_str().expect("a signature").to_owned();
    let last = if sig.ends_with('0') { "1" } else { "0" };
    event["sig"] = format!("{}{last}", &sig[..127]).into();
    event.to_string()
}

#[test]
fn many_events_go_through_from_standard_input() {
    let relay = Relay::start("", "");
    let alice = Person::new("alice");
    let path = relay.directory.path().join("events.jsonl");
    fs::write(&path, notes(&alice, 150).join("\n")).expect("it is written");
    let words = ["publish", "-", "--relay", &relay.url];
    let out = rnostr_reading(relay.directory.path(), &words, &path).succeeds();
    assert_eq!(out.lines().filter(|line| line.starts_with("ok ")).count(), 150, "{out}");
    assert_eq!(events(&anonymous(&relay, &["req", "{\"kinds\":[1]}"]).succeeds()).len(), 150);
}

#[test]
fn an_answer_is_printed_before_the_input_ends() {
    let relay = Relay::start("", "");
    let alice = Person::new("alice");
    let mut publishing = command(relay.directory.path(), &["publish", "-", "--relay", &relay.url]);
    let mut publishing = spawn(publishing.stdin(Stdio::piped()).stdout(Stdio::piped()));
    let mut input = publishing.stdin.take().expect("its input");
    let answers = lines(publishing.stdout.take().expect("its output"));
    for note in notes(&alice, 2) {
        writeln!(input, "{note}").expect("it is written");
        let answer = answers.recv_timeout(LINE_MAX);
        assert!(answer.is_ok_and(|answer| answer.starts_with("ok ")), "the answer waits for more input");
    }
    drop(input);
    assert_eq!(publishing.wait().expect("it ends").code(), Some(0));
}

#[test]
fn an_event_is_made_and_signed() {
    let relay = Relay::start("", "");
    let [_, alice, ..] = Person::some();
    let words = ["publish", "--kind", "1", "--content", "good morning", "--tag", "t=a=b", "--tag", "client=rnostr"];
    let out = alice.runs(&relay, &words).succeeds();
    let event = events(&anonymous(&relay, &["req", "{\"kinds\":[1],\"#t\":[\"a=b\"]}"]).succeeds()).remove(0);
    assert_eq!(out, format!("ok {}\n", event.id()));
    assert_eq!((event.pubkey().to_hex(), event.content().as_str()), (alice.hex(), "good morning"));
    assert_eq!(event.tags().value("client"), Some("rnostr"));

    assert!(anonymous(&relay, &["publish", "--kind", "1"]).fails().contains("this needs your key"));
    for tag in ["t", "=t"] {
        assert!(alice.runs(&relay, &["publish", "--kind", "1", "--tag", tag]).fails().contains("write a name and a"));
    }
    let refused = alice.runs(&relay, &["publish", "--kind", "444"]);
    assert!(refused.out.starts_with("refused ") && refused.out.contains(" blocked: "), "{}", refused.out);
    assert!(refused.fails().contains("1 of 1 events were refused"));
}

#[test]
fn a_relay_that_asks_for_auth_gets_it() {
    let relay = Relay::start("", &admin_of(true));
    let [_, alice, bob, _] = Person::some();
    fs::write(relay.directory.path().join("events.jsonl"), notes(&alice, 1)[0].as_bytes()).expect("it is written");
    let refused = anonymous(&relay, &["publish", "events.jsonl"]);
    assert!(refused.out.contains(" auth-required:") && refused.out.contains("--key-file"), "{}", refused.out);
    refused.fails();
    // Another key than the author's is enough for a note.
    assert!(bob.runs(&relay, &["publish", "events.jsonl"]).succeeds().starts_with("ok "));
    assert_eq!(contents(&bob.runs(&relay, &["req", "{\"kinds\":[1]}"]).succeeds()), ["note 0"]);
}

#[test]
fn input_without_events_is_a_failure() {
    let relay = Relay::start("", "");
    fs::write(relay.directory.path().join("empty.jsonl"), "\n\n").expect("it is written");
    assert!(anonymous(&relay, &["publish", "empty.jsonl"]).fails().contains("the input has no events"));
    assert!(anonymous(&relay, &["publish", "none.jsonl"]).fails().contains("none.jsonl: No such file"));
    let long = format!("{}\n{}", notes(&Person::new("alice"), 1)[0], "x".repeat(9 << 20));
    fs::write(relay.directory.path().join("long.jsonl"), long).expect("it is written");
    let ran = anonymous(&relay, &["publish", "long.jsonl"]);
    assert!(ran.out.starts_with("ok "), "{}", ran.out);
    assert!(ran.fails().contains("a line is longer than"));
}

#[test]
fn events_without_an_answer_are_listed() {
    let event = notes(&Person::new("alice"), 1).remove(0);
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("events.jsonl"), &event).expect("it is written");
    let url = fake::server(&[], vec![vec!["[\"OK\",\"another\",true,\"\"]".to_owned()]]);
    let ran = run(&mut command(directory.path(), &["publish", "events.jsonl", "--relay", &url]));
    assert_eq!(ran.out, format!("unanswered {}\n", events(&event)[0].id()));
    assert!(ran.fails().contains("without an answer: 1 event"));
}

#[test]
fn an_event_that_needs_auth_is_sent_again() {
    let alice = Person::new("alice");
    let directory = tempfile::tempdir().expect("a directory");
    let event = notes(&alice, 1).remove(0);
    fs::write(directory.path().join("events.jsonl"), &event).expect("it is written");
    let refusal = ["[\"AUTH\",\"prove it\"]", "[\"OK\",\"ID\",false,\"auth-required: prove it\"]"];
    let accepted = vec!["[\"OK\",\"ID\",true,\"\"]".to_owned()];
    let answers = vec![refusal.map(str::to_owned).to_vec(), accepted.clone(), accepted];
    let words = ["publish", "events.jsonl", "--relay", &fake::server(&[], answers)];
    let ran = run(command(directory.path(), &words).env("RNOSTR_KEY", alice.nsec()));
    assert_eq!(alice.keeps_secret(ran).succeeds(), format!("ok {}\n", events(&event)[0].id()));
}

#[test]
fn a_connection_that_ends_says_how_far_it_came() {
    let mut relay = Relay::start("", "");
    let alice = Person::new("alice");
    let mut publishing = command(relay.directory.path(), &["publish", "-", "--relay", &relay.url]);
    let publishing = publishing.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut publishing = spawn(publishing);
    let mut input = publishing.stdin.take().expect("its input");
    writeln!(input, "{}", notes(&alice, 1)[0]).expect("it is written");
    lines(publishing.stdout.take().expect("its output")).recv_timeout(LINE_MAX).expect("a line");
    relay.kill();
    let output = publishing.wait_with_output().expect("it ends");
    let told = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("nothing behind line 1 of the input was sent"), "{told}");
}
