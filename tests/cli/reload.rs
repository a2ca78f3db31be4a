//! `rnostr reload`.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Stdio,
    time::{Duration, Instant},
};

use super::{
    run::{LINE_MAX, command, lines, run, spawn},
    server::Relay,
};

/// The relay's information document (NIP-11), as text.
fn document(relay: &Relay) -> String {
    let address = relay.url.strip_prefix("ws://").expect("a URL");
    let mut stream = TcpStream::connect(address).expect("it listens");
    let request = "GET / HTTP/1.1\r\nhost: x\r\naccept: application/nostr+json\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("text");
    answer
}

/// A relay that is told reads its file again, and one with faults is not told.
#[test]
fn a_relay_reads_its_configuration_again() {
    let mut relay = Relay::start("", "[information]\nname = \"before\"");
    let at = relay.directory.path().to_owned();
    let file = at.join("relay.toml");
    let reload = || run(&mut command(&at, &["reload", "-c", "relay.toml"]));
    assert!(document(&relay).contains("\"name\":\"before\""));
    let text = fs::read_to_string(&file).expect("text");
    fs::write(&file, text.replace("before", "after").replace("[server]", "[sevrer]")).expect("it is written");
    assert!(reload().fails().contains("did you mean [server]"));
    assert!(document(&relay).contains("\"name\":\"before\""));
    fs::write(&file, text.replace("before", "after")).expect("it is written");
    assert!(reload().succeeds().contains("reads its configuration again"));
    let until = Instant::now() + Duration::from_secs(1);
    while !document(&relay).contains("\"name\":\"after\"") {
        assert!(Instant::now() < until, "{}", document(&relay));
        std::thread::sleep(Duration::from_millis(10));
    }
    // The number that a killed relay left behind is not taken for a process.
    relay.kill();
    assert!(at.join("data/rnostr.pid").exists());
    assert!(reload().fails().contains("no relay runs by this configuration"));
}

/// Four relays that are told take a kind no more within a second, and no connection is dropped for it.
#[test]
fn four_relays_follow_a_change_within_a_second() {
    let relays: [Relay; 4] = std::array::from_fn(|_| Relay::start("", "[kinds]\nallowed = [\"1\", \"7\"]"));
    let key = relays[0].directory.path().join("user.key");
    fs::write(&key, format!("{:064x}\n", 7)).expect("it is written");
    let publish = |relay: &Relay, kind: &str, content: &str| {
        let mut publish = command(relay.directory.path(), &["publish", "--kind", kind, "--content", content]);
        run(publish.args(["--relay", &relay.url, "--key-file"]).arg(&key))
    };
    let streams: Vec<_> = relays
        .iter()
        .map(|relay| {
            publish(relay, "7", "before").succeeds();
            let args = ["req", r#"{"kinds":[1,7]}"#, "--stream", "--relay", &relay.url];
            let mut stream = command(relay.directory.path(), &args);
            let mut stream = spawn(stream.stdout(Stdio::piped()).stderr(Stdio::null()));
            let seen = lines(stream.stdout.take().expect("its output"));
            assert!(seen.recv_timeout(LINE_MAX).expect("a line").contains("before"));
            (stream, seen)
        })
        .collect();
    for relay in &relays {
        let file = relay.directory.path().join("relay.toml");
        let text = fs::read_to_string(&file).expect("text").replace(", \"7\"", "");
        fs::write(&file, text).expect("it is written");
    }
    for relay in &relays {
        run(&mut command(relay.directory.path(), &["reload", "-c", "relay.toml"])).succeeds();
    }
    let told = Instant::now();
    for relay in &relays {
        while publish(relay, "7", "after").code == 0 {
            assert!(told.elapsed() < Duration::from_secs(1), "the kind is still taken");
        }
    }
    for (relay, (mut stream, seen)) in relays.iter().zip(streams) {
        publish(relay, "1", "on the same connection").succeeds();
        let behind = std::iter::from_fn(|| seen.recv_timeout(LINE_MAX).ok());
        assert!(behind.into_iter().any(|line| line.contains("on the same connection")), "the stream goes on");
        stream.kill().and_then(|()| stream.wait()).expect("it ends");
    }
}
