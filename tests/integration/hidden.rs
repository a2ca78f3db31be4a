//! What the doors say to a reader for whom something is hidden: the same at each of them.

use serde_json::{Value, json};

use crate::support::{Client, Event};

/// What a question gets at every door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// An answer with nothing in it.
    Nothing,
    /// `CLOSED` or `NEG-ERR`, with `auth-required:`.
    AuthRequired,
}

/// Asks by stored REQ, COUNT and NIP-77, and panics where one of them says anything else.
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
            _ => panic!("{door} {filter}: {expected:?} was to come, and there came {answer:?}"),
        }
    }
}

/// Asks for everything there is, at every door, and panics where one of `hidden` is in the answer, or counted.
pub async fn expect_none_of(client: &mut Client, hidden: &[Event]) {
    let is_hidden = |id: &String| hidden.iter().any(|event| event.id() == id);
    let stored = client.ids(json!({})).await.expect("whoever has authenticated may ask for everything");
    assert!(!stored.iter().any(is_hidden), "REQ gave what is hidden");
    let synced = client.neg_ids(json!({})).await.expect("and sync everything");
    assert!(!synced.iter().any(is_hidden), "NIP-77 gave what is hidden");
    assert_eq!(client.count(&[json!({})]).await, Ok(stored.len() as u64), "COUNT counted what REQ does not give");
}

/// Filters that lead to `event` in every way but its kind alone.
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
