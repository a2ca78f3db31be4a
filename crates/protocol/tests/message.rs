//! Frames: each message of a client is parsed, and a wrong one is answered to the right subscription.
#![allow(clippy::unwrap_used, missing_docs)]

use nostr_protocol::{
    EventId, Kind, Rejection, Word,
    message::{self, ClientMessage, Completeness, MessageError, Verb, head},
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn parse(frame: &str) -> Result<ClientMessage<'_>, MessageError> {
    ClientMessage::parse(frame, 3)
}

#[test]
fn each_message_is_read() {
    assert!(matches!(parse(r#"["EVENT", {"id": 1} ]"#), Ok(ClientMessage::Event(raw)) if raw.get() == r#"{"id": 1}"#));
    assert!(matches!(parse(r#"["AUTH",{}]"#), Ok(ClientMessage::Auth(raw)) if raw.get() == "{}"));
    assert!(matches!(parse(r#"["CLOSE","a"]"#), Ok(ClientMessage::Close(id)) if id == "a"));
    assert!(matches!(parse(r#"["NEG-OPEN","n",{"kinds":[1]},"61"]"#),
        Ok(ClientMessage::NegOpen(id, filter, message))
            if id == "n" && filter.kinds == Some(vec![Kind(1)]) && message == "61"));
    assert!(matches!(parse(r#"["NEG-MSG","n","61"]"#), Ok(ClientMessage::NegMsg(id, m)) if id == "n" && m == "61"));
    assert!(matches!(parse(r#"["NEG-CLOSE","n"]"#), Ok(ClientMessage::NegClose(id)) if id == "n"));
    for verb in ["REQ", "COUNT"] {
        let frame = json!([verb, "quo\"te", {"kinds": [1]}, {}]).to_string();
        let (id, filters) = match parse(&frame) {
            Ok(ClientMessage::Req(id, filters)) if verb == "REQ" => (id, filters),
            Ok(ClientMessage::Count(id, filters)) if verb == "COUNT" => (id, filters),
            other => panic!("{other:?}"),
        };
        assert_eq!((&*id, filters.len()), ("quo\"te", 2));
    }
}

#[test]
fn a_request_that_is_wrong_names_its_subscription() {
    for (frame, text) in [
        (r#"["REQ","s"]"#, "a filter is missing"),
        (r#"["REQ","s",1]"#, "a filter object"),
        (r#"["REQ","s",{"kinds":["x"]}]"#, "a kind as a whole number"),
        (r#"["COUNT","s",{"search":"x"}]"#, "is not supported"),
        (r#"["REQ","s",{},{},{},{}]"#, "more than 3 filters"),
        (r#"["NEG-OPEN","s",{}]"#, "a message in hex is missing"),
        (r#"["NEG-OPEN","s",{},"61","62"]"#, "goes on after its last element"),
        (r#"["CLOSE","s","t"]"#, "goes on after its last element"),
    ] {
        let error = parse(frame).unwrap_err();
        assert_eq!(error.subscription.as_deref(), Some("s"), "{frame}");
        assert!(error.rejection.text.contains(text), "{frame}: {}", error.rejection.text);
        assert!(!error.rejection.text.contains(" at line "), "{}", error.rejection.text);
    }
}

#[test]
fn a_frame_that_is_no_message_is_refused_with_a_reason() {
    for frame in [
        "",
        "null",
        "{}",
        "[]",
        "[1]",
        "[[]]",
        r#"["event",{}]"#,
        r#"["HELLO"]"#,
        r#"["EVENT"]"#,
        r#"["EVENT",{},{}]"#,
        r#"["REQ"]"#,
        r#"["REQ",1,{}]"#,
        r#"["REQ",null,{}]"#,
        r#"["CLOSE"]"#,
        r#"["REQ","s",{}"#,
        r#"["REQ","s",{}]x"#,
        r#"["EVENT",{"a":}]"#,
    ] {
        assert!(!parse(frame).unwrap_err().rejection.text.is_empty(), "{frame}");
    }
    let error = parse(r#"["EVENT",{"a":}]"#).unwrap_err();
    assert_eq!((error.verb, error.subscription), (Some(Verb::Event), None));
}

#[test]
fn twenty_thousand_brackets_are_an_error_and_not_a_crash() {
    for open in ["[", "{\"a\":", "[\"REQ\",\"s\",{\"kinds\":[", "[\"EVENT\",[", "[\"REQ\",\"s\",{\"#t\":[["] {
        assert!(parse(&open.repeat(20_000)).is_err());
    }
    let balanced = format!("[\"REQ\",\"s\",{}{}]", "[".repeat(20_000), "]".repeat(20_000));
    assert!(parse(&balanced).is_err());
}

#[test]
fn an_error_does_not_repeat_long_input() {
    let long = "x".repeat(300_000);
    for frame in [
        json!([&long]),
        json!(["REQ", "s", { &long: [] }]),
        json!(["REQ", "s", &long]),
        json!(["REQ", "s", {"kinds": [&long]}]),
        json!(["REQ", &long]),
    ] {
        let error = parse(&frame.to_string()).map(|_| ()).unwrap_err();
        assert!(error.rejection.text.len() < 400 && error.subscription.is_none_or(|id| id.len() <= 64));
    }
}

#[test]
fn answers_are_json_whatever_they_carry() {
    let id = EventId::from_bytes([7; 32]);
    let nasty = "a\"b\\c\n\0ü";
    let refused = Rejection::invalid(nasty.to_owned());
    let frames = [
        (message::ok_frame(&id, true, nasty), json!(["OK", id.to_hex(), true, nasty])),
        (message::refused_frame(&id, &refused), json!(["OK", id.to_hex(), false, format!("invalid: {nasty}")])),
        (message::eose_frame(nasty, Completeness::Unknown), json!(["EOSE", nasty])),
        (message::eose_frame(nasty, Completeness::Finish), json!(["EOSE", nasty, ["finish"]])),
        (message::eose_frame(nasty, Completeness::More), json!(["EOSE", nasty, ["more"]])),
        (message::closed_frame(nasty, &refused), json!(["CLOSED", nasty, format!("invalid: {nasty}")])),
        (message::notice_frame(nasty), json!(["NOTICE", nasty])),
        (message::auth_frame(nasty), json!(["AUTH", nasty])),
        (message::count_frame(nasty, 3), json!(["COUNT", nasty, {"count": 3}])),
        (message::neg_msg_frame(nasty, "6100"), json!(["NEG-MSG", nasty, "6100"])),
        (message::neg_err_frame(nasty, "blocked: x"), json!(["NEG-ERR", nasty, "blocked: x"])),
        (message::neg_refused_frame(nasty, &refused), json!(["NEG-ERR", nasty, format!("invalid: {nasty}")])),
    ];
    for (frame, expected) in frames {
        assert_eq!(serde_json::from_str::<Value>(&frame).unwrap(), expected);
    }
}

/// A client that is refused for want of a key is sent the challenge again: the frame itself says that it asks for one.
#[test]
fn a_frame_says_whether_it_asks_for_auth() {
    let id = EventId::from_bytes([7; 32]);
    for (refused, asks) in [(Rejection::auth_required("x"), true), (Rejection::restricted("auth-required: x"), false)] {
        for frame in [
            message::refused_frame(&id, &refused),
            message::closed_frame("s", &refused),
            message::neg_refused_frame("s", &refused),
        ] {
            assert_eq!(frame.asks_for_auth(), asks, "{}", &*frame);
        }
    }
    assert!(!message::ok_frame(&id, true, "auth-required: x").asks_for_auth());
    assert!(!message::notice_frame("auth-required: x").asks_for_auth());
}

/// A filter's key that the relay does not know is answered with `unsupported:` (NIP-01), any other fault with
/// `invalid:`.
#[test]
fn an_unknown_filter_key_is_unsupported() {
    let word = |frame: &str| parse(frame).unwrap_err().rejection.word;
    for verb in ["REQ", "COUNT"] {
        for filter in [r#"{"search":"x"}"#, r##"{"#tt":["x"]}"##, r#"{"kinds":[1],"nonsense":{}}"#] {
            assert_eq!(word(&format!("[\"{verb}\",\"s\",{{}},{filter}]")), Word::Unsupported, "{verb} {filter}");
        }
    }
    assert_eq!(word(r#"["NEG-OPEN","s",{"search":"x"},"61"]"#), Word::Unsupported);
    for frame in [r#"["REQ","s",{"kinds":["x"]}]"#, r#"["REQ","s",7]"#, r#"["REQ","s"]"#, "[]", r#"["HELLO"]"#] {
        assert_eq!(word(frame), Word::Invalid, "{frame}");
    }
}

#[test]
fn the_head_of_a_request_is_read_alone() {
    for (frame, verb, id) in [
        (r##" ["REQ" , "id", {"#t": [nonsense"##, Some(Verb::Req), Some("id")),
        (r#"["NEG-OPEN","n","#, Some(Verb::NegOpen), Some("n")),
        (r#"["COUNT", 7]"#, Some(Verb::Count), None),
        (r#"["EVENT",{"id":"#, Some(Verb::Event), None),
        ("nonsense", None, None),
    ] {
        assert_eq!(head(frame), (verb, id.map(str::to_owned)), "{frame}");
    }
    let long = "x".repeat(1_000);
    assert_eq!(head(&format!(r#"["CLOSE","{long}"#)).1, None, "the id does not end");
    assert_eq!(head(&format!(r#"["CLOSE","{long}""#)).1.map(|id| id.len()), Some(64));
}

#[test]
fn reasons_start_with_the_protocols_words() {
    let said: Vec<String> = [
        Rejection::invalid("x"),
        Rejection::unsupported("x"),
        Rejection::blocked("x"),
        Rejection::restricted("x"),
        Rejection::auth_required("x"),
        Rejection::rate_limited("x"),
        Rejection::error("x"),
    ]
    .iter()
    .map(ToString::to_string)
    .collect();
    assert_eq!(said[..2], ["invalid: x", "unsupported: x"]);
    assert_eq!(said[2..], ["blocked: x", "restricted: x", "auth-required: x", "rate-limited: x", "error: x"]);
    assert_eq!(nostr_protocol::Word::Duplicate.as_str(), "duplicate");
}

proptest! {
    #[test]
    fn no_frame_makes_the_reader_panic(frame in "\\PC{0,60}", verb in "(EVENT|REQ|COUNT|CLOSE|NEG-OPEN|AUTH)") {
        let _ = parse(&frame);
        let _ = parse(&format!("[\"{verb}\",{frame}]"));
        let _ = parse(&format!("[\"{verb}\",\"s\",{{{frame}}}]"));
    }
}
