//! The cost of matching: both ways to match agree with a plain reading of NIP-01, and neither looks at more than the
//! bytes of the filter and of the event pay for.
#![allow(clippy::unwrap_used, missing_docs)]

use nostr_protocol::{
    Event, Filter, Matcher,
    testing::{EventBuilder, keypair},
};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

/// Most conditions that one byte of a filter pays for: a list of one short value takes 8 bytes, is looked for among the
/// letters of 2,500 tags and then among their values, in 12 steps each.
const CONDITIONS_PER_FILTER_BYTE: usize = 4;

/// An event with these tags.
fn event(tags: &[(char, String)]) -> Event {
    let builder = EventBuilder::new(1);
    let tags = tags.iter().map(|(letter, value)| vec![letter.to_string(), value.clone()]).collect();
    EventBuilder { tags, ..builder }.event(&keypair("alice"))
}

/// A filter with these conditions on tags.
fn filter(conditions: &[(char, Vec<String>)]) -> (Filter, usize) {
    let map: Map<String, Value> =
        conditions.iter().map(|(letter, values)| (format!("#{letter}"), json!(values))).collect();
    let json = Value::Object(map).to_string();
    (serde_json::from_str(&json).unwrap(), json.len())
}

/// Each condition against each tag, in the plainest way.
fn oracle(conditions: &[(char, Vec<String>)], tags: &[(char, String)]) -> bool {
    conditions
        .iter()
        .all(|(letter, values)| tags.iter().any(|(carried, value)| carried == letter && values.contains(value)))
}

/// Matches in both ways, and holds the costs against the bytes that pay for them.
fn matched_within_its_price(conditions: &[(char, Vec<String>)], tags: &[(char, String)]) -> bool {
    let (filter, filter_bytes) = filter(conditions);
    let event = event(tags);
    let mut looked_at = 0;
    let prepared = Matcher::new(event.view()).matches(&filter, &mut looked_at);
    let paid = CONDITIONS_PER_FILTER_BYTE * (filter_bytes + 1);
    assert!(looked_at <= paid, "a sorted event: {looked_at} conditions for {filter_bytes} bytes of a filter");
    let longest = filter.list_lengths().other.max(1).ilog2() as usize + 1;
    let bytes: usize = tags.iter().map(|(_, value)| 2 + value.len() / 64).sum();
    let mut looked_at = 0;
    let in_place = filter.matches_counting(event.view(), &mut looked_at);
    assert!(
        looked_at <= 1 + bytes * longest,
        "an event in place: {looked_at} conditions for {} tags, the longest list takes {longest} steps",
        tags.len()
    );
    assert_eq!(prepared, in_place);
    prepared
}

fn letters() -> Vec<char> {
    ('a'..='z').chain('A'..='Z').filter(|letter| !matches!(letter, 'e' | 'p')).collect()
}

/// Filters and events that cost most where tags are read once a letter: 50 letters, 2,490 tags that meet all but the
/// last, lists of a thousand values on either side, and values that differ in their last byte alone.
#[test]
fn matching_costs_no_more_than_it_was_paid_for() {
    let letters = letters();
    let one_each: Vec<_> = letters.iter().map(|letter| (*letter, vec!["v".to_owned()])).collect();
    let fails_last: Vec<_> = (0..2_490)
        .map(|n| {
            // The values that the filter names come last.
            let letter = letters[n % letters.len()];
            (
                letter,
                if letter == letters[49] {
                    format!("w{n}")
                } else if n >= 2_440 {
                    "v".into()
                } else {
                    format!("x{n}")
                },
            )
        })
        .collect();
    assert!(!matched_within_its_price(&one_each, &fails_last));
    let all_of_one_letter: Vec<_> = (0..2_490).map(|n| ('t', format!("x{n}"))).collect();
    assert!(!matched_within_its_price(&one_each, &all_of_one_letter));
    let thousand = |prefix: &str| (0..1_000).map(|n| format!("{prefix}{n}")).collect::<Vec<_>>();
    assert!(!matched_within_its_price(&[('t', thousand("y"))], &all_of_one_letter));
    assert!(matched_within_its_price(&[('t', thousand("x"))], &all_of_one_letter));
    assert!(!matched_within_its_price(&[('t', thousand("x")), ('u', thousand("x"))], &all_of_one_letter));
    let long = "z".repeat(90);
    let alike: Vec<_> = (0..2_490).map(|n| ('t', format!("{long}{n}"))).collect();
    assert!(!matched_within_its_price(&[('t', thousand(&format!("{long}-")))], &alike));
    assert!(!matched_within_its_price(&[('t', vec!["z".repeat(200_000)])], &alike));
}

/// The conditions of a filter on tags.
type Conditions = Vec<(char, Vec<String>)>;

/// Tags and conditions over few letters and values, so that about half of the filters match.
fn case() -> impl Strategy<Value = (Conditions, Vec<(char, String)>)> {
    let letter = || prop::sample::select(vec!['t', 'h', 'T', 'Z', 'a', 'z']);
    let value = || prop::sample::select(vec!["a", "b", "", "a\0", "é"]).prop_map(str::to_owned);
    let tags = prop::collection::vec((letter(), value()), 0..40);
    let conditions = prop::collection::btree_map(letter(), prop::collection::vec(value(), 0..6), 0..5);
    (conditions.prop_map(|map| map.into_iter().collect()), tags)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn both_ways_to_match_agree_with_a_plain_reading((conditions, tags) in case()) {
        prop_assert_eq!(matched_within_its_price(&conditions, &tags), oracle(&conditions, &tags));
    }
}
