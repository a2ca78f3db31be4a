//! Filters: matches, compared with a second matcher over the JSON of both, and refusals.
#![allow(clippy::unwrap_used, missing_docs)]

use nostr_protocol::{
    Filter, Kind, Matcher,
    filter::ListLengths,
    testing::{EventBuilder, key, keypair},
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Matches as NIP-01 says, over plain JSON.
fn oracle(filter: &Value, event: &Value) -> bool {
    let holds = |list: &Value, value: &Value| list.as_array().unwrap().contains(value);
    filter.as_object().unwrap().iter().all(|(name, condition)| match name.as_str() {
        "ids" => holds(condition, &event["id"]),
        "authors" => holds(condition, &event["pubkey"]),
        "kinds" => holds(condition, &event["kind"]),
        "since" => event["created_at"].as_u64() >= condition.as_u64(),
        "until" => event["created_at"].as_u64() <= condition.as_u64(),
        "limit" => true,
        tag => {
            event["tags"].as_array().unwrap().iter().any(|found| found[0] == tag[1..] && holds(condition, &found[1]))
        }
    })
}

fn event_strategy() -> impl Strategy<Value = Value> {
    let name = prop::sample::select(vec!["t", "h", "T", "tt", "", "-"]);
    let value = prop::sample::select(vec!["a", "b", "", "a\0"]);
    let tag = (name, prop::collection::vec(value, 0..3))
        .prop_map(|(name, values)| [vec![name], values].concat().into_iter().map(str::to_owned).collect::<Vec<_>>());
    let author = prop::sample::select(vec!["alice", "bob"]);
    (0_u16..3, 0_u64..4, prop::collection::vec(tag, 0..4), author).prop_map(|(kind, created_at, tags, author)| {
        EventBuilder { kind, created_at, tags, content: String::new() }.value(&keypair(author))
    })
}

/// Filters over the same few values, so that about half of them match. `id` is the event's.
fn filter_strategy(id: String) -> impl Strategy<Value = Value> {
    let ids = prop::collection::vec(prop::sample::select(vec![id, "00".repeat(32)]), 0..3);
    let authors = prop::collection::vec(prop::sample::select(vec![key("alice").to_hex(), key("bob").to_hex()]), 0..3);
    let values = || prop::collection::vec(prop::sample::select(vec!["a", "b", "", "a\0", "zz"]), 0..3);
    let list = |name: &'static str| move |list: Vec<String>| (name, json!(list));
    let tag = |name: &'static str| values().prop_map(move |values| (name, json!(values)));
    let condition = prop_oneof![
        ids.prop_map(list("ids")),
        authors.prop_map(list("authors")),
        prop::collection::vec(0_u16..3, 0..3).prop_map(|kinds| ("kinds", json!(kinds))),
        (0_u64..4).prop_map(|since| ("since", json!(since))),
        (0_u64..4).prop_map(|until| ("until", json!(until))),
        (0_u64..2).prop_map(|limit| ("limit", json!(limit))),
        tag("#t"),
        tag("#h"),
        tag("#T"),
    ];
    prop::collection::vec(condition, 0..4).prop_map(|conditions| {
        let map: Map<String, Value> = conditions.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Value::Object(map)
    })
}

fn case() -> impl Strategy<Value = (Value, Value)> {
    event_strategy().prop_flat_map(|event| {
        let filter = filter_strategy(event["id"].as_str().unwrap().to_owned());
        (Just(event), filter)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn a_filter_matches_as_nip_01_says((event, filter) in case()) {
        let parsed: Filter = serde_json::from_value(filter.clone()).unwrap();
        let read = nostr_protocol::Unverified::parse(event.to_string().as_bytes()).unwrap();
        let matches = parsed.matches(read.event().view());
        prop_assert_eq!(matches, oracle(&filter, &event));
        prop_assert_eq!(Matcher::new(read.event().view()).matches(&parsed, &mut 0), matches);
        prop_assert!(!(matches && parsed.is_impossible()));
    }
}

fn refusal(text: &str) -> String {
    serde_json::from_str::<Filter>(text).unwrap_err().to_string()
}

#[test]
fn an_unknown_condition_is_refused_and_not_passed_over() {
    for name in ["search", "#ab", "#", "#1", "&t", "kind", "#é"] {
        assert!(refusal(&json!({name: ["x"]}).to_string()).contains("is not supported"), "{name}");
    }
}

#[test]
fn a_condition_given_twice_is_refused() {
    for text in [r#"{"kinds":[1],"kinds":[2]}"#, r##"{"#t":["a"],"#t":["b"]}"##, r#"{"since":1,"since":1}"#] {
        assert!(refusal(text).contains("is given twice"), "{text}");
    }
}

#[test]
fn values_of_the_wrong_form_are_refused() {
    let hex = "ab".repeat(32);
    for filter in [
        json!({"ids": [&hex[..62]]}),
        json!({"ids": [hex.to_uppercase()]}),
        json!({"authors": ["npub1"]}),
        json!({"#p": ["x"]}),
        json!({"#e": [hex.to_uppercase()]}),
        json!({"ids": hex}),
        json!({"ids": null}),
        json!({"kinds": [-1]}),
        json!({"kinds": [65536]}),
        json!({"kinds": [1.5]}),
        json!({"kinds": ["1"]}),
        json!({"since": -1}),
        json!({"until": 1e300}),
        json!({"limit": "10"}),
        json!({"#t": [1]}),
        json!({"#t": [["a"]]}),
        json!([]),
        json!("{}"),
    ] {
        assert!(serde_json::from_value::<Filter>(filter.clone()).is_err(), "{filter}");
    }
}

#[test]
fn conditions_are_read_as_written() {
    let filter: Filter = serde_json::from_value(json!({
        "kinds": [445, 1, 445], "#h": ["b", "a"], "since": 3, "until": 2, "limit": 0,
    }))
    .unwrap();
    assert_eq!(filter.kinds, Some(vec![Kind(1), Kind(445)]));
    assert_eq!(filter.tag_values(b'h').iter().map(|h| &**h).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((filter.since, filter.until, filter.limit), (Some(3), Some(2), Some(0)));
    assert!(filter.is_impossible() && filter.asks_kind(Kind(1)) && !filter.asks_kind(Kind(2)));
    assert_eq!(filter.list_lengths(), ListLengths { ids: 0, authors: 0, other: 2 });
}

#[test]
fn ten_thousand_values_are_counted_so_that_a_limit_can_refuse_them() {
    let values: Vec<String> = (0..10_000).map(|n| n.to_string()).collect();
    let filter: Filter = serde_json::from_value(json!({ "#t": values })).unwrap();
    assert_eq!(filter.list_lengths().other, 10_000);
}

#[test]
fn a_tag_is_asked_for_by_its_one_letter_and_its_first_value() {
    let filter: Filter = serde_json::from_value(json!({"#t": ["a"]})).unwrap();
    let matches = |tag: &[&str]| filter.matches(EventBuilder::new(1).tag(tag).event(&keypair("alice")).view());
    assert!(matches(&["t", "a"]) && matches(&["t", "a", "b"]));
    for other in [&["tt", "a"][..], &["T", "a"], &["t", "b", "a"], &["t"], &["t", "A"], &["", "a"], &["t", "a "]] {
        assert!(!matches(other), "{other:?}");
    }
}

#[test]
fn an_empty_list_matches_nothing() {
    for name in ["ids", "authors", "kinds", "#t"] {
        let filter: Filter = serde_json::from_value(json!({name: []})).unwrap();
        assert!(filter.is_impossible(), "{name}");
        assert!(!filter.matches(EventBuilder::new(1).tag(&["t", "a"]).event(&keypair("alice")).view()), "{name}");
    }
}
