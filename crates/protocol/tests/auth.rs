//! NIP-42: events that prove a key on this connection, and URLs that name this relay.
#![allow(clippy::unwrap_used, missing_docs)]

use nostr_protocol::{
    Rejection, Word,
    auth::{AUTH_AGE_SECS_MAX, RelayAddress, RelayNames, authenticate},
    testing::{EventBuilder, key, keypair},
};

const NOW: u64 = 1_795_370_771;

fn names(urls: &[&str]) -> RelayNames {
    RelayNames::Configured(urls.iter().map(|url| RelayAddress::parse(url).unwrap()).collect())
}

fn proof() -> EventBuilder {
    EventBuilder::new(22242).at(NOW).tag(&["relay", "wss://relay.example"]).tag(&["challenge", "c1"])
}

fn word(result: Result<impl std::fmt::Debug, Rejection>) -> Word {
    result.unwrap_err().word
}

#[test]
fn a_proof_for_this_connection_gives_its_author() {
    let alice = keypair("alice");
    let names = names(&["wss://relay.example"]);
    assert_eq!(authenticate(&proof().sign(&alice), "c1", &names, NOW).unwrap(), key("alice"));
}

#[test]
fn a_proof_is_good_for_600_seconds_either_way() {
    let names = names(&["wss://relay.example"]);
    let at = |created_at| authenticate(&proof().at(created_at).sign(&keypair("alice")), "c1", &names, NOW);
    assert_eq!(AUTH_AGE_SECS_MAX, 600);
    assert!(at(NOW - 600).is_ok() && at(NOW + 600).is_ok());
    for created_at in [NOW - 601, NOW + 601, 0, u64::MAX] {
        assert_eq!(word(at(created_at)), Word::Invalid);
    }
}

#[test]
fn a_proof_with_another_kind_challenge_or_relay_is_refused() {
    let names = names(&["wss://relay.example"]);
    let alice = keypair("alice");
    let bare = || EventBuilder::new(22242).at(NOW);
    let mut other_kind = proof();
    other_kind.kind = 27235;
    for wrong in [
        other_kind,
        bare().tag(&["relay", "wss://relay.example"]).tag(&["challenge", "c2"]),
        bare().tag(&["relay", "wss://relay.example"]).tag(&["challenge"]),
        bare().tag(&["relay", "wss://relay.example"]),
        bare().tag(&["challenge", "c1"]),
        bare().tag(&["relay", "wss://other.example"]).tag(&["challenge", "c1"]),
        bare().tag(&["relay", "relay.example"]).tag(&["challenge", "c1"]),
    ] {
        assert_eq!(word(authenticate(&wrong.sign(&alice), "c1", &names, NOW)), Word::Invalid, "{:?}", wrong.tags);
    }
}

/// A client that names another relay is told the URL that this one expects.
#[test]
fn a_refused_relay_tag_is_told_the_url_that_is_expected() {
    let told = |names: &RelayNames| names.check("wss://other.example").unwrap_err().to_string();
    for url in ["wss://relay.example", "ws://relay.example:8080", "wss://relay.example/path"] {
        let text = told(&names(&[url, "wss://alias.example"]));
        assert_eq!(text, format!("invalid: the relay tag names another relay; write {url} into it"));
    }
    let host = RelayNames::Host(RelayAddress::parse("wss://relay.a.run.app").unwrap());
    assert!(told(&host).contains("write wss://relay.a.run.app into it"));
    assert!(told(&RelayNames::Loopback).contains("write ws://127.0.0.1 or ws://localhost, and the port, into it"));
}

#[test]
fn the_spellings_of_one_url_are_one_name() {
    let names = names(&["wss://Relay.Example/"]);
    for same in [
        "wss://relay.example",
        "wss://relay.example/",
        "WSS://RELAY.EXAMPLE",
        "wss://relay.example:443",
        "wss://relay.example:443/",
        "ws://relay.example",
        "ws://relay.example:80",
        "https://relay.example",
        " wss://relay.example ",
        "wss://relay.example?x=1",
        "wss://relay.example/#x",
    ] {
        assert!(names.check(same).is_ok(), "{same}");
    }
    for other in [
        "wss://relay.example:8080",
        "wss://relay.example/path",
        "wss://sub.relay.example",
        "wss://relay.example.evil.example",
        "wss://relay.example@evil.example",
        "wss://evil.example/relay.example",
        "wss://evil.example?relay.example",
        "ftp://relay.example",
        "relay.example",
        "wss://",
        "wss:///",
        "://relay.example",
        "",
    ] {
        assert_eq!(word(names.check(other)), Word::Invalid, "{other}");
    }
}

#[test]
fn host_and_port_are_compared_and_the_path_is_the_one_given_or_none() {
    let names = names(&["ws://10.0.0.1:8080/nostr/", "wss://alias.example"]);
    for same in [
        "ws://10.0.0.1:8080/nostr",
        "ws://10.0.0.1:8080/nostr/",
        "ws://10.0.0.1:8080",
        "ws://10.0.0.1:8080/",
        "wss://alias.example",
    ] {
        assert!(names.check(same).is_ok(), "{same}");
    }
    for other in ["ws://10.0.0.1/nostr", "ws://10.0.0.1", "ws://10.0.0.1:8080/Nostr", "wss://alias.example/nostr"] {
        assert!(names.check(other).is_err(), "{other}");
    }
}

#[test]
fn without_a_name_a_peer_on_this_machine_may_name_any_loopback_host() {
    let names = RelayNames::Loopback;
    for host in ["ws://127.0.0.1:8080", "ws://localhost", "ws://LOCALHOST:1/x", "ws://[::1]:8080", "ws://127.9.9.9"] {
        assert!(names.check(host).is_ok(), "{host}");
    }
    for host in [
        "wss://relay.example",
        "ws://localhost.evil.example",
        "ws://127.0.0.1.evil.example",
        "ws://10.0.0.1",
        "ws://[::2]",
        "ws://0.0.0.0",
        "ws://localhost@evil.example",
        "ws://localhost:1@evil.example",
    ] {
        assert!(names.check(host).is_err(), "{host}");
    }
}

#[test]
fn a_relay_that_does_not_know_its_name_says_so() {
    let refused = RelayNames::Unknown.check("wss://relay.example").unwrap_err();
    assert_eq!(refused.to_string(), "error: this relay needs [server] public_url to be set");
}

#[test]
fn behind_a_front_end_the_requests_host_is_the_name() {
    let names = RelayNames::Host(RelayAddress::parse("wss://relay.a.run.app").unwrap());
    assert!(names.check("wss://relay.a.run.app/").is_ok());
    assert_eq!(word(names.check("wss://relay.b.run.app")), Word::Invalid);
}

#[test]
fn the_relays_own_url_is_its_own_origin_in_every_scheme() {
    let configured = names(&["wss://relay.example/nostr"]);
    for own in ["https://relay.example", "wss://relay.example", "ws://RELAY.example:80", "wss://relay.example/nostr"] {
        assert!(configured.is_own_origin(own, None), "{own}");
    }
    for other in ["https://relay.example:8443", "https://evil.example", "null", "capacitor://relay.example", ""] {
        assert!(!configured.is_own_origin(other, Some("evil.example")), "{other}");
    }
    let host = Some("localhost:8080");
    assert!(RelayNames::Loopback.is_own_origin("ws://localhost:8080", host));
    for other in ["http://localhost:3000", "http://127.0.0.1:8080", "capacitor://localhost"] {
        assert!(!RelayNames::Loopback.is_own_origin(other, host), "{other}");
    }
    assert!(
        !RelayNames::Loopback.is_own_origin("http://evil.example", Some("evil.example")),
        "a name that was rebound"
    );
    assert!(!RelayNames::Unknown.is_own_origin("http://relay.example", Some("relay.example")));
}
