//! `rnostr req` against relays that answer, refuse, or are none.

use std::{
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use nostr_protocol::testing::EventBuilder;

use super::{
    check::certificate,
    fake,
    group::club,
    person::{Person, admin_of, anonymous, contents, events},
    run::{LINE_MAX, Ran, command, lines, run, spawn},
    server::Relay,
};

const NOTES: &str = r#"{"kinds":[1]}"#;

fn note(person: &Person, relay: &Relay, content: &str) {
    person.runs(relay, &["publish", "--kind", "1", "--content", content]).succeeds();
}

#[test]
fn events_are_printed_as_lines_of_json() {
    let relay = Relay::start("", "");
    let alice = Person::new("alice");
    for content in ["one", "tw\u{7f}o\u{9b}31m"] {
        note(&alice, &relay, content);
    }
    let out = anonymous(&relay, &["req", NOTES]).succeeds();
    assert!(!out.chars().any(|c| c.is_control() && c != '\n'), "{out:?}");
    let mut found = contents(&out);
    found.sort();
    assert_eq!(found, ["one", "tw\u{7f}o\u{9b}31m"]);
    let limited = anonymous(&relay, &["req", "{\"kinds\":[1],\"limit\":2}", "--limit", "1"]);
    assert!(limited.err.contains("holds more events"), "{}", limited.err);
    assert_eq!(events(&limited.succeeds()).len(), 1);
    let several = ["req", NOTES, "{\"kinds\":[443]}"];
    assert_eq!(events(&anonymous(&relay, &several).succeeds()).len(), 2);
    assert_eq!(events(&anonymous(&relay, &["req"]).succeeds()).len(), 2);
    assert_eq!(anonymous(&relay, &["req", "{\"kinds\":[7]}"]).succeeds(), "");
}

#[test]
fn a_relay_that_asks_for_auth_gets_it() {
    let relay = Relay::start("", &admin_of(true));
    let alice = Person::new("alice");
    note(&alice, &relay, "in private");
    let refused = anonymous(&relay, &["req", NOTES]).fails();
    assert!(refused.contains("auth-required:") && refused.contains("--key-file"), "{refused}");
    assert_eq!(contents(&alice.runs(&relay, &["req", NOTES]).succeeds()), ["in private"]);
    for key in [alice.secret_hex(), alice.nsec()] {
        let words = ["req", NOTES, "--relay", &relay.url];
        let ran = run(command(relay.directory.path(), &words).env("RNOSTR_KEY", &key));
        assert_eq!(contents(&alice.keeps_secret(ran).succeeds()), ["in private"]);
    }
}

#[test]
fn a_key_is_proven_before_the_request() {
    // The relay refuses no such request without a key; it leaves out what the reader may not see.
    let relay = club("", false);
    let [_, _, bob, eve] = Person::some();
    let asks = ["req", "{\"#h\":[\"grp_club\"]}"];
    let kinds = |out: &str| -> Vec<u16> { events(out).iter().map(|event| event.kind().0).collect() };
    assert_eq!(kinds(&bob.runs(&relay, &asks).succeeds()), [445, 450, 450]);
    assert_eq!(eve.runs(&relay, &asks).succeeds(), "");
    assert_eq!(anonymous(&relay, &asks).succeeds(), "");
}

#[test]
fn the_words_of_a_refusal_are_shown() {
    let relay =
        Relay::start("", &format!("[auth]\nenabled = true\npubkey_whitelist = [\"{}\"]", Person::new("bob").hex()));
    let refused = Person::new("eve").runs(&relay, &["req", NOTES]).fails();
    assert!(refused.contains("refuses this key: restricted:"), "{refused}");
    let relay = Relay::start("", "");
    let closed = anonymous(&relay, &["req", "{\"kinds\":[\"one\"]}"]).fails();
    assert!(closed.contains("closed the request: invalid:"), "{closed}");
    let closed = anonymous(&relay, &["req", "{\"kinds\":[1059]}"]).fails();
    assert!(closed.contains("auth-required:"), "{closed}");
    for wrong in ["[1]", "{", "kinds=1", "7"] {
        assert!(anonymous(&relay, &["req", wrong]).fails().contains("a filter is one JSON object"), "{wrong}");
    }
}

#[test]
fn a_stream_goes_on_with_new_events() {
    let relay = Relay::start("", "");
    let alice = Person::new("alice");
    note(&alice, &relay, "stored");
    let mut stream = command(relay.directory.path(), &["req", NOTES, "--stream", "--relay", &relay.url]);
    let mut stream = Stopped(spawn(stream.stdout(Stdio::piped()).stderr(Stdio::null())));
    let lines = lines(stream.0.stdout.take().expect("its output"));
    let next = || contents(&lines.recv_timeout(LINE_MAX).expect("a line"));
    assert_eq!(next(), ["stored"]);
    note(&alice, &relay, "live");
    assert_eq!(next(), ["live"]);
    assert!(stream.0.try_wait().expect("a process").is_none(), "it goes on");
}

/// A process that is killed at the end of its test.
struct Stopped(Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_stream_ends_with_its_relay() {
    let mut relay = Relay::start("", "");
    note(&Person::new("alice"), &relay, "stored");
    let mut stream = command(relay.directory.path(), &["req", NOTES, "--stream", "--relay", &relay.url]);
    let mut stream = spawn(stream.stdout(Stdio::piped()).stderr(Stdio::piped()));
    lines(stream.stdout.take().expect("its output")).recv_timeout(LINE_MAX).expect("a line");
    relay.kill();
    let output = stream.wait_with_output().expect("it ends");
    let told = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(told.contains("error: the connection broke") || told.contains("closed the connection"), "{told}");
}

fn asks(url: &str, words: &[&str]) -> Ran {
    let directory = tempfile::tempdir().expect("a directory");
    run(&mut command(directory.path(), &[&["req", NOTES, "--relay", url], words].concat()))
}

#[test]
fn events_that_are_none_are_not_printed() {
    let event = EventBuilder::new(1).content("true").json(&Person::new("alice").keys);
    let forged = event.replace("\"true\"", "\"forged\"");
    let unsigned = event.replace("\"sig\":\"", "\"sig\":\"00");
    let answers = [&event, &forged, &unsigned].map(|it| format!("[\"EVENT\",\"rnostr\",{it}]"));
    let answers = [&answers[..], &["[\"EOSE\",\"rnostr\"]".to_owned()]].concat();
    let ran = asks(&fake::server(&[], vec![answers]), &[]);
    assert_eq!(contents(&ran.out), ["true"]);
    assert!(ran.fails().contains("2 events"));
}

#[test]
fn a_notice_is_shown_and_counts_as_a_failure() {
    let notice = "[\"NOTICE\",\"come \\u001b[2Jback later\"]".to_owned();
    let eose = "[\"EOSE\",\"rnostr\"]".to_owned();
    for answers in [vec![notice.clone(), eose], vec![notice]] {
        let asked = Instant::now();
        let told = asks(&fake::server(&[], vec![answers]), &[]);
        assert!(!told.err.contains('\u{1b}'), "{:?}", told.err);
        assert!(told.fails().contains("says: come \\u{1b}[2Jback later"));
        assert!(asked.elapsed() < Duration::from_secs(8), "it does not wait long");
    }
}

#[test]
fn a_challenge_that_comes_with_the_refusal_is_answered() {
    let alice = Person::new("alice");
    let refusal = ["[\"AUTH\",\"prove it\"]", "[\"CLOSED\",\"rnostr\",\"auth-required: prove it\"]"];
    let answers = vec![
        refusal.map(str::to_owned).to_vec(),
        vec!["[\"OK\",\"ID\",true,\"\"]".to_owned()],
        vec!["[\"EOSE\",\"rnostr\"]".to_owned()],
    ];
    let directory = tempfile::tempdir().expect("a directory");
    let url = fake::server(&[], answers);
    let ran = run(command(directory.path(), &["req", NOTES, "--relay", &url]).env("RNOSTR_KEY", alice.secret_hex()));
    assert_eq!(alice.keeps_secret(ran).succeeds(), "");
}

#[test]
fn a_server_that_does_not_answer_is_not_waited_for() {
    let asked = Instant::now();
    assert!(asks(&fake::server(&[], vec![]), &[]).fails().contains("does not answer within 10 s"));
    assert!(asked.elapsed() < Duration::from_secs(15), "{:?}", asked.elapsed());
    assert!(asks("ws://127.0.0.1:9", &[]).fails().contains("no WebSocket opens at ws://127.0.0.1:9"));
    assert!(asks("127.0.0.1:9", &[]).fails().contains("wss://relay.example.com"));
}

#[test]
fn a_key_that_is_none_stops_the_command_and_is_not_shown() {
    let alice = Person::new("alice");
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    let to_nowhere = |more: &[&str]| command(at, &[&["req", "--relay", "ws://127.0.0.1:9"], more].concat());
    let with = |key: &str| run(to_nowhere(&[]).env("RNOSTR_KEY", key));
    let half = &alice.secret_hex()[2..];
    let told = with(half).fails();
    assert!(told.contains("RNOSTR_KEY holds no secret key") && !told.contains(half), "{told}");
    for secret in [alice.secret_hex(), alice.nsec()] {
        let ran = alice.keeps_secret(run(&mut to_nowhere(&["--key-file", &secret])));
        assert!(ran.fails().contains("takes the name of a file"));
        let ran = alice.keeps_secret(run(&mut to_nowhere(&["--key", &secret])));
        assert_eq!(ran.code, 2, "{}", ran.err);
    }
}

#[test]
fn tls_goes_by_the_certificates_of_the_machine() {
    let directory = tempfile::tempdir().expect("a directory");
    certificate(directory.path(), "cert.pem", "key.pem");
    let relay = Relay::start_in(directory, "tls_cert = \"cert.pem\"\ntls_key = \"key.pem\"", &admin_of(true));
    let url = relay.url.replace("ws://127.0.0.1", "wss://localhost");
    let [admin, alice, ..] = Person::some();
    let asks = |trusts: bool, words: &[&str]| {
        let mut command = command(relay.directory.path(), &[words, &["--relay", &url]].concat());
        command.env("RNOSTR_KEY", admin.nsec());
        if trusts {
            command.env("SSL_CERT_FILE", relay.directory.path().join("cert.pem"));
        }
        admin.keeps_secret(run(&mut command))
    };
    assert!(asks(false, &["req", NOTES]).fails().contains("no WebSocket opens"));
    assert_eq!(asks(true, &["req", NOTES]).succeeds(), "");
    // REST goes the same way.
    asks(true, &["roster", "grp_tls", "bootstrap", &alice.npub()]).succeeds();
    assert!(asks(true, &["group", "grp_tls"]).succeeds().contains(&alice.hex()));
}
