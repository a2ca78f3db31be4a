//! `rnostr health` against relays that are well, and against other servers.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{check::certificate, run::rnostr, server::Relay};

/// Longest time for a command that waits 5 s for an answer.
const COMMAND_MAX: Duration = Duration::from_secs(8);

/// Runs `rnostr health` in the relay's directory, and reads its answer.
fn answer(relay: &Relay, words: &[&str]) -> Value {
    let words = [&["health", "-c", "relay.toml"], words].concat();
    serde_json::from_str(&rnostr(relay.directory.path(), &words).succeeds()).expect("JSON")
}

#[test]
fn a_relay_that_runs_is_healthy_and_ready() {
    // A list of residents, and an address that every client of this machine reaches.
    let relay = Relay::start("host = \"0.0.0.0\"", "[auth]\nenabled = true");
    assert_eq!(answer(&relay, &[])["status"], "healthy");
    assert_eq!(answer(&relay, &["--ready"])["status"], "ready");
}

#[test]
fn a_relay_with_a_certificate_of_another_name_is_healthy() {
    let directory = tempfile::tempdir().expect("a directory");
    certificate(directory.path(), "cert.pem", "key.pem");
    let relay = Relay::start_in(directory, "tls_cert = \"cert.pem\"\ntls_key = \"key.pem\"", "");
    assert_eq!(answer(&relay, &[])["status"], "healthy");
}

#[test]
fn a_relay_that_is_gone_is_not_healthy() {
    let mut relay = Relay::start("", "");
    relay.kill();
    let told = rnostr(relay.directory.path(), &["health", "-c", "relay.toml"]).fails();
    assert!(told.contains("/health"), "{told}");
}

/// Runs `rnostr health` against a server that sends `text` to the first request and then nothing.
fn against(text: &str, words: &[&str]) -> String {
    let text = text.to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        stream.set_read_timeout(Some(COMMAND_MAX)).expect("a time-out");
        let _ = stream.read(&mut [0; 4096]);
        let _ = stream.write_all(text.as_bytes());
        // The other side ends the connection.
        let _ = stream.read(&mut [0; 4096]);
    });
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("relay.toml"), format!("[server]\nport = {port}\n")).expect("it is written");
    let told = rnostr(directory.path(), &[&["health", "-c", "relay.toml"], words].concat()).fails();
    server.join().expect("the server does not panic");
    told
}

fn response(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn an_answer_of_another_sort_is_not_healthy() {
    let told = against(&response("503 no", "{\"status\":\"not ready\",\"reason\":\"no log\"}"), &["--ready"]);
    assert!(told.contains("503") && told.contains("no log"), "{told}");
    for (status, body) in [("200 OK", "ok"), ("200 OK", "{\"status\":\"ready\"}"), ("404 no", "{}")] {
        let told = against(&response(status, body), &[]);
        assert!(told.contains("not a relay's"), "{told}");
    }
}

#[test]
fn a_server_that_does_not_answer_is_not_waited_for() {
    let asked = Instant::now();
    let told = against("", &[]);
    assert!(told.contains("does not answer within 5 s"), "{told}");
    assert!(asked.elapsed() < COMMAND_MAX, "{:?}", asked.elapsed());
}

#[test]
fn a_port_that_the_system_chooses_is_unknown() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::write(directory.path().join("relay.toml"), "[server]\nport = 0\n").expect("it is written");
    let told = rnostr(directory.path(), &["health", "-c", "relay.toml"]).fails();
    assert!(told.contains("server.port is 0"), "{told}");
}
