//! NIP-98: events that authenticate one HTTP request.
#![allow(clippy::unwrap_used, missing_docs)]

use base64::{Engine as _, prelude::BASE64_STANDARD, prelude::BASE64_STANDARD_NO_PAD};
use nostr_protocol::{
    Rejection, Word,
    auth::{RelayAddress, RelayNames},
    http_auth::{HTTP_AUTH_AGE_SECS_MAX, HttpRequest, authenticate_request, read_header},
    testing::{EventBuilder, key, keypair},
};

const NOW: u64 = 1_795_370_771;
const TARGET: &str = "/api/v1/mls/groups?limit=2";
const URL: &str = "https://relay.example/api/v1/mls/groups?limit=2";
const GET: HttpRequest<'_> = HttpRequest { method: "GET", target: TARGET, body_sha256: None };
const POST: HttpRequest<'_> = HttpRequest { method: "POST", target: TARGET, body_sha256: Some("ab12") };

fn names(urls: &[&str]) -> RelayNames {
    RelayNames::Configured(urls.iter().map(|url| RelayAddress::parse(url).unwrap()).collect())
}

fn proof(url: &str, method: &str) -> EventBuilder {
    EventBuilder::new(27235).at(NOW).tag(&["u", url]).tag(&["method", method])
}

fn check(event: &EventBuilder, request: HttpRequest<'_>) -> Result<nostr_protocol::PublicKey, Rejection> {
    let names = names(&["wss://relay.example/path", "ws://alias.example:8080"]);
    authenticate_request(&event.sign(&keypair("alice")), request, &names, NOW)
}

#[test]
fn a_proof_of_this_request_gives_its_author() {
    assert_eq!(check(&proof(URL, "GET"), GET).unwrap(), key("alice"));
    let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(check(&proof(URL, "GET").tag(&["payload", empty]), GET).unwrap(), key("alice"));
    assert_eq!(check(&proof(URL, "POST").tag(&["payload", "ab12"]), POST).unwrap(), key("alice"));
}

#[test]
fn a_proof_is_good_for_60_seconds_either_way() {
    assert_eq!(HTTP_AUTH_AGE_SECS_MAX, 60);
    for (created_at, is_good) in [(NOW - 60, true), (NOW + 60, true), (NOW - 61, false), (NOW + 61, false), (0, false)]
    {
        assert_eq!(check(&proof(URL, "GET").at(created_at), GET).is_ok(), is_good, "{created_at}");
    }
}

#[test]
fn a_proof_of_another_request_is_refused() {
    let bare = || EventBuilder::new(27235).at(NOW);
    let mut other_kind = proof(URL, "GET");
    other_kind.kind = 22242;
    for wrong in [
        other_kind,
        proof(URL, "POST"),
        proof(URL, "get"),
        proof(URL, "GET").tag(&["u", URL]),
        proof(URL, "GET").tag(&["method", "GET"]),
        proof(URL, "GET").tag(&["payload", "ab12"]),
        bare().tag(&["u", URL]),
        bare().tag(&["method", "GET"]),
        bare().tag(&["u"]).tag(&["method", "GET"]),
    ] {
        assert_eq!(check(&wrong, GET).unwrap_err().word, Word::Invalid, "{:?}", wrong.tags);
    }
    for wrong in
        [proof(URL, "POST"), proof(URL, "POST").tag(&["payload", "AB12"]), proof(URL, "POST").tag(&["payload"])]
    {
        assert_eq!(check(&wrong, POST).unwrap_err().word, Word::Invalid, "{:?}", wrong.tags);
    }
}

#[test]
fn the_url_is_that_of_this_relay_with_exact_path_and_query() {
    for (url, is_good) in [
        (URL, true),
        ("http://relay.example:443/api/v1/mls/groups?limit=2", false),
        ("https://relay.example:443/api/v1/mls/groups?limit=2", true),
        ("https://RELAY.example/api/v1/mls/groups?limit=2", true),
        ("http://alias.example:8080/api/v1/mls/groups?limit=2", true),
        ("wss://relay.example/api/v1/mls/groups?limit=2", false),
        ("https://alias.example/api/v1/mls/groups?limit=2", false),
        ("https://other.example/api/v1/mls/groups?limit=2", false),
        ("https://relay.example/path/api/v1/mls/groups?limit=2", false),
        ("https://relay.example/api/v1/mls/groups", false),
        ("https://relay.example/api/v1/mls/groups?limit=2&", false),
        ("https://relay.example/api/v1/mls/groups?limit=2#f", false),
        ("https://relay.example/api/v1/mls/groups?limit=%32", false),
        ("https://relay.example/api/v1/mls/./groups?limit=2", false),
        ("https://a@relay.example/api/v1/mls/groups?limit=2", false),
        ("/api/v1/mls/groups?limit=2", false),
        ("", false),
    ] {
        assert_eq!(check(&proof(url, "GET"), GET).is_ok(), is_good, "{url}");
    }
    let told = check(&proof("https://other.example/", "GET"), GET).unwrap_err().to_string();
    assert_eq!(told, format!("invalid: the u tag is not the URL of this request; write {URL} into it"));
}

#[test]
fn without_a_name_nobody_authenticates_but_this_machine() {
    let ask = |names: &RelayNames, url: &str| {
        let request = HttpRequest { target: "/x", ..GET };
        authenticate_request(&proof(url, "GET").sign(&keypair("alice")), request, names, NOW)
    };
    assert!(ask(&RelayNames::Loopback, "http://127.0.0.1:4000/x").is_ok());
    assert!(ask(&RelayNames::Loopback, "http://localhost/x").is_ok());
    assert_eq!(ask(&RelayNames::Loopback, "http://relay.example/x").unwrap_err().word, Word::Invalid);
    assert_eq!(ask(&RelayNames::Unknown, "http://127.0.0.1/x").unwrap_err().word, Word::Error);
    let host = RelayNames::Host(RelayAddress::parse("wss://relay.a.run.app").unwrap());
    assert!(ask(&host, "https://relay.a.run.app/x").is_ok());
    assert_eq!(ask(&host, "https://relay.b.run.app/x").unwrap_err().word, Word::Invalid);
    assert_eq!(names(&["wss://relay.example"]).request_url("/"), Some("https://relay.example/".to_owned()));
}

#[test]
fn the_header_is_the_scheme_and_base64_of_an_event() {
    let event = proof(URL, "GET").sign(&keypair("alice"));
    let json = event.event().json();
    for value in
        [format!("Nostr {}", BASE64_STANDARD.encode(&json)), format!("nostr  {}", BASE64_STANDARD_NO_PAD.encode(&json))]
    {
        assert_eq!(read_header(&value).unwrap().event().id(), event.event().id());
    }
    let forged = String::from_utf8(json.to_vec()).unwrap().replace("GET", "PUT");
    for value in [
        String::new(),
        "Nostr".to_owned(),
        "Nostr ".to_owned(),
        "Nostr !".to_owned(),
        format!("Bearer {}", BASE64_STANDARD.encode(&json)),
        format!("Nostr {}", String::from_utf8(json.to_vec()).unwrap()),
        format!("Nostr {}", BASE64_STANDARD.encode("{}")),
        format!("Nostr {}", BASE64_STANDARD.encode(forged)),
        format!("Nostr {}", BASE64_STANDARD.encode([0; 9_000])),
    ] {
        assert_eq!(read_header(&value).err().map(|refused| refused.word), Some(Word::Invalid), "{value}");
    }
}
