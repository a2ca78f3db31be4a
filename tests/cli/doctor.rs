//! `rnostr doctor` against relays that are well configured, and against such that are not.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

use super::run::{Ran, command, rnostr, spawn};

/// A relay process over a store of its own.
pub(crate) struct Relay {
    child: Child,
    pub(crate) directory: TempDir,
    pub(crate) url: String,
}

impl Relay {
    /// Starts a relay on a free port; `server` are lines of `[server]`, `more` further sections.
    pub(crate) fn start(server: &str, more: &str) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let at = directory.path();
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let text = format!("[server]\nport = {free}\n{server}\n{more}\n");
        fs::write(at.join("relay.toml"), text).expect("it is written");
        let mut relay = command(at, &["relay", "-c", "relay.toml"]);
        let mut child = spawn(relay.stdout(Stdio::null()).stderr(Stdio::piped()));
        let lines = BufReader::new(child.stderr.take().expect("its log")).lines();
        let mut lines = lines.map(|line| line.expect("text"));
        assert!(lines.any(|line| line.contains("listening on")), "the relay does not start");
        // The relay must never wait for a reader of its log.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, directory, url: format!("ws://127.0.0.1:{free}") }
    }

    fn examined(&self, words: &[&str]) -> Ran {
        rnostr(self.directory.path(), &[&["doctor", "--json"], words].concat())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The steps of a report with this outcome, each with its advice.
fn steps(ran: &Ran, outcome: &str) -> Vec<(String, String)> {
    let report: Value = serde_json::from_str(&ran.out).expect("JSON");
    assert_eq!(report["passed"], ran.code == 0, "{}{}", ran.out, ran.err);
    let steps = report["steps"].as_array().expect("steps");
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let with = |step: &&Value| step["outcome"] == outcome;
    steps.iter().filter(with).map(|step| (text(&step["step"]), text(&step["change"]))).collect()
}

#[test]
fn a_good_relay_passes_in_both_modes() {
    for (auth, off) in [("", 0), ("[auth]\nenabled = true", 1)] {
        let relay = Relay::start("", auth);
        for words in [["-c", "relay.toml"], ["--url", &relay.url]] {
            let ran = relay.examined(&words);
            assert_eq!((ran.code, steps(&ran, "off").len()), (0, off), "{}{}", ran.out, ran.err);
            assert!(steps(&ran, "ok").len() >= 14, "{}", ran.out);
        }
    }
}

#[test]
fn nothing_of_the_doctor_stays_but_the_groups_record() {
    let relay = Relay::start("", "");
    assert_eq!(relay.examined(&["-c", "relay.toml"]).code, 0);
    let mut relay = relay;
    relay.child.kill().and_then(|()| relay.child.wait()).expect("it ends");
    let export = rnostr(relay.directory.path(), &["export", "-c", "relay.toml"]).succeeds();
    let lines: Vec<Value> = export.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let kinds: Vec<u64> = lines.iter().filter_map(|line| find(line, "kind")?.as_u64()).collect();
    let lasting: Vec<&u64> = kinds.iter().filter(|kind| ![62, 445].contains(*kind)).collect();
    assert!(lasting.is_empty() && kinds.contains(&62), "{kinds:?}");
    // Nobody can delete a group message; it expires by itself.
    let messages = lines.iter().filter(|line| find(line, "kind").is_some_and(|kind| kind == 445));
    for message in messages {
        let tags = find(message, "tags").expect("tags").to_string();
        assert!(tags.contains("expiration"), "{tags}");
    }
}

/// The member of this name, wherever it is in the value.
fn find<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    let members = value.as_object()?;
    members.get(name).or_else(|| members.values().find_map(|member| find(member, name)))
}

#[test]
fn a_misconfigured_relay_is_told_the_line_to_change() {
    let stranger = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
    let listed = format!("[auth]\nenabled = true\npubkey_whitelist = [\"{stranger}\"]");
    let residents = format!("[auth]\npubkey_whitelist = [\"{stranger}\"]");
    let gateway = |line: &str| format!("[extensions.mls_gateway]\n{line}");
    let rates = |line: &str| format!("[extensions.mls_gateway.rate_limits]\n{line}");
    for (server, more, outcome, step, line) in [
        ("public_url = \"wss://relay.example\"", String::new(), "failed", "a client authenticates", "public_url"),
        ("connections_per_address_max = 1", String::new(), "failed", "the onboarding", "connections_per_address_max"),
        ("", listed, "failed", "a client authenticates", "[auth] pubkey_whitelist"),
        ("", residents, "failed", "Bob publishes a KeyPackage", "[auth] pubkey_whitelist"),
        (
            "",
            gateway("membership_sources = [\"roster\"]"),
            "failed",
            "Alice sends a group message",
            "membership_sources",
        ),
        ("", gateway("enable_api = false"), "off", "Alice claims", "enable_api = true"),
        ("", gateway("unlisted_groups = false"), "off", "a message to an unlisted group", "unlisted_groups = true"),
        ("", gateway("enable_message_archive = false"), "off", "a new connection", "enable_message_archive = true"),
        ("", "[auth]\nenabled = true".to_owned(), "off", "Carol publishes", "[auth] enabled = false"),
        ("", rates("max_read_cost_per_minute = 1"), "failed", "Alice finds", "max_read_cost_per_minute"),
    ] {
        let relay = Relay::start(server, &more);
        let ran = relay.examined(&["--url", &relay.url]);
        let found = steps(&ran, outcome);
        let told = |(name, change): &(String, String)| name.starts_with(step) && change.contains(line);
        assert!(found.iter().any(told), "{server}{more}: {}{}", ran.out, ran.err);
    }
    // Through a proxy the configured name is the right one.
    let relay = Relay::start("public_url = \"wss://relay.example\"", "");
    assert_eq!(relay.examined(&["-c", "relay.toml"]).code, 0);
    let elsewhere = rnostr(relay.directory.path(), &["doctor", "--url", "ws://127.0.0.1:9"]);
    assert!(elsewhere.code == 1 && elsewhere.out.contains("change: [server] host, port"), "{}", elsewhere.out);
}
