//! `rnostr reload`.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use super::{
    run::{command, run},
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
