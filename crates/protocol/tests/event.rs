//! Parsing an event: good ones keep every byte from the frame to the record, bad ones are refused.
#![allow(clippy::unwrap_used, missing_docs)]

use bytes::Bytes;
use nostr_protocol::{
    Event, EventError, Kind, Unverified,
    hex::to_hex,
    testing::{EventBuilder, keypair, random_keypair},
};
use proptest::prelude::*;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const GATEWAY: &str = include_str!("../../../tests/vectors/gateway-events.jsonl");
const MARMOT: &str = include_str!("../../../tests/vectors/marmot-events.jsonl");

fn parse(json: &str) -> Result<Event, String> {
    parse_bytes(json.as_bytes())
}

fn parse_bytes(json: &[u8]) -> Result<Event, String> {
    Unverified::parse(json).map(|event| event.event().clone()).map_err(|error| error.to_string())
}

/// A note in which one member is replaced by raw JSON.
fn with(member: &str, raw: &str) -> String {
    let value = EventBuilder::new(1).content("hello").value(&keypair("alice"));
    let original = value[member].to_string();
    value.to_string().replacen(&format!("\"{member}\":{original}"), &format!("\"{member}\":{raw}"), 1)
}

#[test]
fn every_vector_verifies_and_keeps_its_bytes() {
    let mut count = 0;
    for line in GATEWAY.lines().chain(MARMOT.lines()) {
        let value: Value = serde_json::from_str(line).unwrap();
        let json = value["event"].to_string();
        let event = Unverified::parse(json.as_bytes()).unwrap().verify().unwrap().into_event();
        assert_eq!(event.json(), json.as_bytes(), "{}", value["label"]);
        assert_eq!(event.content(), value["event"]["content"].as_str().unwrap());
        count += 1;
    }
    assert_eq!(count, 38);
}

/// The first sender of an event decides its bytes, so spaces between its members and needless escapes are dropped.
#[test]
fn an_event_takes_no_more_bytes_than_it_needs() {
    let built = EventBuilder::new(1).tag(&["t", "x"]).content("hello \u{1} \"world\"\n");
    let json = built.json(&keypair("alice"));
    let spaces = " ".repeat(250_000);
    for padded in [
        json.replacen("\"tags\"", &format!("{spaces}\"tags\""), 1),
        json.replacen("hello", "\\u0068\\u0065llo", 1),
        json.replacen('{', "{ ", 1),
    ] {
        let event = parse(&padded).unwrap();
        let stored: Value = serde_json::from_slice(&event.json()).unwrap();
        assert_eq!(event.json().len(), json.len(), "{} bytes came", padded.len());
        assert_eq!(stored, serde_json::from_str::<Value>(&json).unwrap());
    }
    let value = built.value(&keypair("alice"));
    let members = ["sig", "content", "tags", "kind", "created_at", "pubkey", "id"];
    let reversed = members.map(|member| format!("\"{member}\":{}", value[member])).join(",");
    let reversed = format!("{{{reversed}}}");
    assert_eq!(parse(&reversed).unwrap().json(), reversed.as_bytes(), "another order takes as many bytes");
}

#[test]
fn a_signature_by_another_key_or_over_another_id_is_refused() {
    let mut value = EventBuilder::new(1).value(&keypair("alice"));
    let other = EventBuilder::new(1).value(&keypair("bob"));
    for sig in [other["sig"].clone(), json!("00".repeat(64)), json!("ff".repeat(64))] {
        value["sig"] = sig;
        let unverified = Unverified::parse(value.to_string().as_bytes()).unwrap();
        assert_eq!(unverified.verify().err(), Some(EventError::BadSignature));
    }
}

#[test]
fn a_key_that_is_not_on_the_curve_verifies_nothing() {
    let mut value = EventBuilder::new(1).value(&keypair("alice"));
    let pubkey = "ff".repeat(32);
    let canonical = json!([0, pubkey, value["created_at"], 1, [], ""]).to_string();
    value["id"] = json!(to_hex(&Sha256::digest(canonical)));
    value["pubkey"] = json!(pubkey);
    let unverified = Unverified::parse(value.to_string().as_bytes()).unwrap();
    assert_eq!(unverified.verify().err(), Some(EventError::BadSignature));
}

#[test]
fn an_id_that_is_not_the_hash_is_refused_and_named() {
    for member in ["created_at", "kind", "tags", "content", "pubkey"] {
        let mut value = EventBuilder::new(1).tag(&["t", "x"]).content("hello").value(&keypair("alice"));
        value[member] = match member {
            "created_at" | "kind" => json!(7),
            "tags" => json!([["t", "y"]]),
            "content" => json!("hello "),
            _ => json!("00".repeat(32)),
        };
        match Unverified::parse(value.to_string().as_bytes()) {
            Err(EventError::WrongId { claimed }) => assert_eq!(json!(claimed.to_hex()), value["id"]),
            other => panic!("{member}: {:?}", other.map(|event| event.event().clone())),
        }
    }
}

#[test]
fn the_escapes_of_nip_01_hash_to_the_same_id() {
    let content =
        "quote \" backslash \\ newline \n return \r tab \t backspace \u{8} feed \u{c} slash / umlaut ü \u{2028} 🦀";
    let event = EventBuilder::new(1).tag(&["t", content]).content(content).event(&keypair("alice"));
    assert_eq!(event.content(), content);
    assert_eq!(event.tags().value("t"), Some(content));
}

/// NIP-01 writes control characters verbatim in the hashed form; `JSON.stringify` escapes them.
#[test]
fn control_characters_hash_verbatim_or_escaped() {
    let content = "a\0b\u{1}c\u{1f}d\u{7f}";
    let key = keypair("alice");
    let escaped = EventBuilder::new(1).tag(&["t", "\0"]).content(content).value(&key);
    assert_eq!(parse(&escaped.to_string()).unwrap().content(), content);

    let head = format!("[0,{},{},1,", escaped["pubkey"], escaped["created_at"]);
    let verbatim = format!("{head}[[\"t\",\"\0\"]],\"{content}\"]");
    let id: [u8; 32] = Sha256::digest(&verbatim).into();
    assert_ne!(json!(to_hex(&id)), escaped["id"], "the two spellings differ");
    let mut value = escaped;
    value["id"] = json!(to_hex(&id));
    let event = parse(&value.to_string()).unwrap();
    assert_eq!((event.content().as_str(), event.tags().value("t")), (content, Some("\0")));
    assert_eq!(event.json(), value.to_string(), "the relay sends on the client's own escapes");
}

#[test]
fn tag_values_of_200_kb_and_tags_without_strings_are_kept() {
    let long = "x".repeat(200 * 1024);
    let event = EventBuilder::new(1).tag(&["h", &long]).tag(&[]).tag(&["p"]).tag(&["", ""]).event(&keypair("alice"));
    assert_eq!(event.tags().value("h"), Some(long.as_str()));
    assert_eq!(event.tags().len(), 4);
    assert_eq!(event.tags().indexed().count(), 1);
}

#[test]
fn members_beyond_the_seven_are_not_carried() {
    let mut value = EventBuilder::new(1).content("hello").value(&keypair("alice"));
    let plain = value.clone();
    value["smuggled"] = json!({"deep": [[[]], "and signed by nobody"]});
    let event = parse(&value.to_string()).unwrap();
    assert!(!String::from_utf8_lossy(&event.json()).contains("smuggled"));
    assert_eq!(serde_json::from_slice::<Value>(&event.json()).unwrap(), plain);
    assert_eq!(event.id().to_hex(), plain["id"]);
}

#[test]
fn line_breaks_between_members_are_not_carried() {
    let value = EventBuilder::new(1).content("two\nlines").value(&keypair("alice"));
    let event = parse(&serde_json::to_string_pretty(&value).unwrap()).unwrap();
    assert!(event.json().iter().all(|c| *c >= 0x20));
    assert_eq!(serde_json::from_slice::<Value>(&event.json()).unwrap(), value);
}

#[test]
fn a_member_given_twice_is_refused() {
    for member in ["id", "pubkey", "created_at", "kind", "tags", "content", "sig"] {
        let value = EventBuilder::new(1).value(&keypair("alice"));
        let twice = format!("{{\"{member}\":{},{}", value[member], &value.to_string()[1..]);
        assert_eq!(parse(&twice).unwrap_err(), format!("not an event: {member} is given twice"));
    }
}

#[test]
fn a_missing_member_is_named() {
    for member in ["id", "pubkey", "created_at", "kind", "tags", "content", "sig"] {
        let mut value = EventBuilder::new(1).value(&keypair("alice"));
        value.as_object_mut().unwrap().remove(member);
        assert_eq!(parse(&value.to_string()).unwrap_err(), format!("not an event: {member} is missing"));
    }
}

#[test]
fn upper_case_and_short_hex_is_refused() {
    let value = EventBuilder::new(1).content("hello").value(&keypair("alice"));
    for member in ["id", "pubkey", "sig"] {
        let text = value[member].as_str().unwrap();
        for wrong in [text.to_uppercase(), text[2..].to_owned(), format!("{text}00"), text.replace('a', "g")] {
            let error = parse(&with(member, &json!(wrong).to_string())).unwrap_err();
            assert!(error.contains(&format!("{member} is not")) && error.contains("lower-case hex"), "{error}");
        }
    }
}

#[test]
fn numbers_that_are_not_whole_or_out_of_range_are_refused() {
    for member in ["created_at", "kind"] {
        for raw in ["-1", "1.5", "1.0", "1e3", "-0", "18446744073709551616", "1e400", "\"1\"", "null", "true", "[]"] {
            assert!(parse(&with(member, raw)).is_err(), "{member}: {raw}");
        }
    }
    assert!(parse(&with("kind", "65536")).unwrap_err().contains("kind is over 65535"));
    let last = EventBuilder::new(u16::MAX).at(u64::MAX).event(&keypair("alice"));
    assert_eq!((last.kind(), last.created_at()), (Kind(u16::MAX), u64::MAX));
}

#[test]
fn wrong_types_are_refused() {
    for raw in ["null", "{}", "[\"p\"]", "[[1]]", "[[null]]", "[[[\"p\"]]]", "\"p\"", "[{}]"] {
        assert!(parse(&with("tags", raw)).is_err(), "{raw}");
    }
    for raw in ["null", "1", "[]", "{}"] {
        assert!(parse(&with("content", raw)).is_err(), "{raw}");
    }
    for whole in ["", "null", "[]", "1", "\"event\"", "{}", "{", "[["] {
        assert!(parse(whole).is_err(), "{whole}");
    }
}

#[test]
fn deep_nesting_is_refused_or_passed_over_without_recursion() {
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    assert!(parse(&deep).is_err());
    assert!(parse(&"[".repeat(20_000)).is_err());
    assert!(parse(&with("tags", &deep)).is_err());
    assert!(parse(&with("content", &"{\"a\":".repeat(20_000))).is_err());
    // The parser drops a member beyond the seven, however deep it is.
    let _ = parse(&format!("{{\"extra\":{deep},{}", &with("kind", "1")[1..]));
}

#[test]
fn every_truncation_and_any_trailing_byte_is_refused() {
    let json = EventBuilder::new(1).tag(&["t", "ü"]).content("hello").json(&keypair("alice"));
    for end in 0..json.len() {
        assert!(parse_bytes(&json.as_bytes()[..end]).is_err(), "{end}");
    }
    assert!(parse(&format!("{json}}}")).is_err());
    assert!(parse(&format!("{json}{json}")).is_err());
}

#[test]
fn invalid_utf8_and_lone_surrogates_are_refused() {
    let json = EventBuilder::new(1).content("XX").json(&keypair("alice"));
    for wrong in [&b"\xff\xfe"[..], b"\xc0\x80", b"\xed\xa0"] {
        let mut bytes = json.clone().into_bytes();
        let at = json.find("XX").unwrap();
        bytes[at..at + 2].copy_from_slice(wrong);
        assert!(parse_bytes(&bytes).is_err());
    }
    assert!(parse(&with("content", "\"\\ud800\"")).is_err());
}

#[test]
fn an_error_does_not_repeat_long_input() {
    let long = json!("x".repeat(200 * 1024)).to_string();
    for member in ["created_at", "kind", "tags"] {
        assert!(parse(&with(member, &long)).unwrap_err().len() < 400, "{member}");
    }
}

#[test]
fn an_event_counts_as_verified_when_its_id_is_the_stored_one() {
    let (one, two) = (EventBuilder::new(1), EventBuilder::new(2));
    let (key, stored) = (random_keypair(), EventBuilder::new(1).at(one.created_at));
    let stored = stored.event(&key);
    assert!(one.unverified(&key).same_as(&stored.id()).is_some());
    assert!(two.unverified(&key).same_as(&stored.id()).is_none());
}

#[test]
fn bytes_that_are_too_short_are_no_record() {
    let event = EventBuilder::new(1).tag(&["t", "x"]).event(&keypair("alice"));
    let record = event.record();
    let tags_end = record.len() - event.json().len();
    for end in 0..=tags_end {
        assert!(Event::from_record(record.slice(..end)).is_none(), "{end}");
    }
    assert!(Event::from_record(Bytes::new()).is_none());
}

proptest! {
    /// The record gives back every field that the client signed, and the JSON as the client sent it.
    #[test]
    fn an_event_survives_its_record(
        kind in any::<u16>(),
        created_at in any::<u64>(),
        content in any::<String>(),
        tags in prop::collection::vec(prop::collection::vec(any::<String>(), 0..4), 0..6),
    ) {
        let builder = EventBuilder { kind, created_at, content, tags };
        let json = builder.json(&keypair("alice"));
        let event = parse(&json).unwrap();
        let back = Event::from_record(event.record().clone()).unwrap();
        prop_assert_eq!(&back, &event);
        prop_assert_eq!(back.kind(), Kind(kind));
        prop_assert_eq!(back.created_at(), created_at);
        prop_assert_eq!(back.content(), builder.content);
        let tags: Vec<Vec<String>> =
            back.tags().iter().map(|tag| tag.strings().map(str::to_owned).collect()).collect();
        prop_assert_eq!(tags, builder.tags);
        prop_assert_eq!(back.json(), json.into_bytes());
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse_bytes(&bytes);
        if let Some(event) = Event::from_record(bytes.into()) {
            let _ = (event.id(), event.json(), event.content());
        }
    }

    #[test]
    fn no_damage_to_an_event_goes_unnoticed(at in 0_usize..400, byte in any::<u8>()) {
        let json = EventBuilder::new(1).tag(&["t", "tag"]).content("hello").json(&keypair("alice"));
        let mut bytes = json.clone().into_bytes();
        let at = at % bytes.len();
        bytes[at] = byte;
        if let Ok(unverified) = Unverified::parse(&bytes) {
            // The id covers everything but the signature.
            let same = unverified.event().id().to_hex() == serde_json::from_str::<Value>(&json).unwrap()["id"];
            prop_assert!(same);
            prop_assert!(bytes == json.as_bytes() || unverified.verify().is_err());
        }
    }
}
