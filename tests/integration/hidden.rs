//! Checks that every door gives a reader the same answer about events that are hidden from it: REQ, COUNT and NIP-77,
//! and the REST doors.

use serde_json::{Value, json};

use crate::support::{Client, Event, rest::Rest};

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

/// Asks at every REST door that may show one of `hidden`, and panics if it is shown, or if the answer differs from that
/// for a thing that does not exist.
pub async fn expect_none_by_rest(rest: &Rest, hidden: &[Event]) {
    let absent = "0".repeat(64);
    let of_absent = rest.get(&format!("/events/{absent}")).send().await;
    assert_eq!(of_absent.status, 404);
    for event in hidden {
        let by_id = rest.get(&format!("/events/{}", event.id())).send().await;
        assert_eq!((by_id.status, &by_id.body), (of_absent.status, &of_absent.body), "events/{{id}}");
        let tags = event.0["tags"].as_array().expect("an event has tags").iter();
        let groups = tags.filter(|tag| tag[0] == "h").filter_map(|tag| tag[1].as_str());
        for group in groups {
            for part in ["", "/members", "/roster"] {
                let [asked, other] = [group, "absent"].map(|id| format!("/groups/{id}{part}"));
                let (asked, other) = (rest.get(&asked).send().await, rest.get(&other).send().await);
                assert_eq!((asked.status, &asked.body), (other.status, &other.body), "groups/{{id}}{part}");
            }
            let listed = rest.get(&format!("/messages?group={group}")).ok().await;
            assert_eq!(listed["events"], json!([]), "messages");
        }
    }
    let (inbox, groups) = (rest.get("/inbox").ok().await.to_string(), rest.get("/groups").ok().await.to_string());
    for event in hidden {
        assert!(!inbox.contains(event.id()), "inbox");
        for tag in event.0["tags"].as_array().expect("tags").iter().filter(|tag| tag[0] == "h") {
            assert!(!groups.contains(tag[1].as_str().expect("a group")), "groups");
        }
    }
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
