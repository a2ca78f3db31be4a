//! Checks that every door gives a reader the same answer about events that are hidden from it.

use serde_json::{Value, json};

use crate::support::{Client, Event};

/// The answer that every door must give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// An empty answer.
    Nothing,
    /// `CLOSED` or `NEG-ERR`, with `auth-required:`.
    AuthRequired,
}

/// Asks by stored REQ, COUNT and NIP-77, and panics if one of the answers differs from `expected`.
pub async fn expect(client: &mut Client, filter: Value, expected: Expected) {
    let answers = [
        ("REQ", client.ids(filter.clone()).await.map(|ids| ids.len() as u64)),
        ("COUNT", client.count(std::slice::from_ref(&filter)).await),
        ("NIP-77", client.neg_ids(filter.clone()).await.map(|ids| ids.len() as u64)),
    ];
    for (door, answer) in answers {
        match (&answer, expected) {
            (Ok(0), Expected::Nothing) => {}
            (Err(reason), Expected::AuthRequired) if reason.starts_with("auth-required: ") => {}
            _ => panic!("{door} {filter}: expected {expected:?}, got {answer:?}"),
        }
    }
}

/// Asks for everything at every door, and panics if one of `hidden` is returned or counted.
pub async fn expect_none_of(client: &mut Client, hidden: &[Event]) {
    let is_hidden = |id: &String| hidden.iter().any(|event| event.id() == id);
    let stored = client.ids(json!({})).await.expect("this reader may ask for everything");
    assert!(!stored.iter().any(is_hidden), "REQ returned a hidden event");
    let synced = client.neg_ids(json!({})).await.expect("this reader may sync everything");
    assert!(!synced.iter().any(is_hidden), "NIP-77 returned a hidden event");
    assert_eq!(client.count(&[json!({})]).await, Ok(stored.len() as u64), "COUNT and REQ must agree");
}

/// Filters that find `event` by its id, its author and each of its tags; none asks by kind alone.
pub fn ways_to(event: &Event) -> Vec<Value> {
    let mut ways = vec![
        json!({"ids": [event.id()]}),
        json!({"authors": [event.0["pubkey"]]}),
        json!({"authors": [event.0["pubkey"]], "kinds": [event.kind()]}),
    ];
    for tag in event.0["tags"].as_array().expect("an event has tags") {
        let name = tag[0].as_str().expect("a tag has a name");
        if name.len() == 1 {
            let filter = json!({format!("#{name}"): [tag[1]]});
            let mut with_kind = filter.clone();
            with_kind["kinds"] = json!([event.kind()]);
            ways.extend([filter, with_kind]);
        }
    }
    ways
}
