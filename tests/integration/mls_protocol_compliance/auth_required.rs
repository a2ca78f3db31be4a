//! docs/rules.md, "Who may publish, who may read" 9: requests of a reader without keys that are CLOSED with
//! `auth-required:`, and requests that are served.

use serde_json::json;

use super::{World, ids, shown};
use crate::support::{
    Keys,
    gateway::{capability, message, wrap},
};

/// A filter that names one of the kinds 4, 446, 447, 450, 1059 and 21059 needs a key, alone or among other filters.
#[tokio::test]
async fn naming_a_kind_for_keys_needs_a_key() {
    let world = World::new().await;
    let mut client = world.client(&[]).await;
    for kind in [4, 446, 447, 450, 1059, 21059] {
        let id = "ab".repeat(32);
        for filter in [json!({"kinds": [kind]}), json!({"kinds": [1, kind]}), json!({"kinds": [kind], "ids": [id]})] {
            let reason = shown(&mut client, filter.clone()).await.expect_err("no keys");
            assert!(reason.starts_with("auth-required: "), "{filter}: {reason}");
        }
        let several = [json!({"kinds": [1]}), json!({"kinds": [kind]})];
        assert!(client.req("several", &several).await.expect_err("no keys").starts_with("auth-required: "));
        assert!(client.count(&several).await.expect_err("no keys").starts_with("auth-required: "));
    }
}

/// A filter for 445 needs a key unless an `#h` value has 64 lower-case hex digits.
#[tokio::test]
async fn naming_messages_without_a_capability_needs_a_key() {
    let world = World::new().await;
    let mut client = world.client(&[]).await;
    let (group, upper) = (capability(), capability().to_uppercase());
    for filter in [
        json!({"kinds": [445]}),
        json!({"kinds": [445], "#h": ["grp_a"]}),
        json!({"kinds": [445], "#h": [group[..63]]}),
        json!({"kinds": [445], "#h": [upper]}),
        json!({"kinds": [1, 445]}),
    ] {
        let reason = shown(&mut client, filter.clone()).await.expect_err("no keys");
        assert!(reason.starts_with("auth-required: "), "{filter}: {reason}");
    }
    assert_eq!(shown(&mut client, json!({"kinds": [445], "#h": [group]})).await, Ok(vec![]));
    assert_eq!(shown(&mut client, json!({"kinds": [445], "#h": ["grp_a", group]})).await, Ok(vec![]));
}

/// Filters that name no kinds are served with the events that this reader may read.
#[tokio::test]
async fn filters_without_kinds_are_served_with_what_is_visible() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    world.group("grp_a", &[&alice]).await;
    let note = alice.event(1).sign();
    let hidden = [wrap(&bob).sign(), message("grp_a").sign(), alice.event(4).tag(["p", &bob.hex()]).sign()];
    let mut writer = world.client(&[&alice]).await;
    for event in hidden.iter().chain([&note]) {
        writer.publish(event).await.ok();
    }
    let mut client = world.client(&[]).await;
    assert_eq!(shown(&mut client, json!({})).await, Ok(ids(&[&note])));
    assert_eq!(shown(&mut client, json!({"authors": [alice.hex()]})).await, Ok(ids(&[&note])));
    assert_eq!(shown(&mut client, json!({"#p": [bob.hex()]})).await, Ok(vec![]));
    assert_eq!(shown(&mut client, json!({"#h": ["grp_a"]})).await, Ok(vec![]));
}

/// A reader with any key is served, with an empty answer if no event is for it.
#[tokio::test]
async fn a_reader_with_a_key_is_served() {
    let world = World::new().await;
    let mut client = world.client(&[&Keys::random()]).await;
    for kind in [4, 445, 446, 447, 450, 1059, 21059] {
        assert_eq!(shown(&mut client, json!({"kinds": [kind]})).await, Ok(vec![]));
    }
}

/// A CLOSED request is no subscription; the client repeats it after AUTH and gets all events.
#[tokio::test]
async fn what_was_closed_is_repeated_after_auth() {
    let world = World::new().await;
    let bob = Keys::random();
    let first = wrap(&bob).sign();
    let mut writer = world.client(&[]).await;
    writer.publish(&first).await.ok();
    let mut client = world.client(&[]).await;
    let filter = json!({"kinds": [1059]});
    assert!(client.req("inbox", std::slice::from_ref(&filter)).await.is_err());
    client.auth(&bob).await.ok();
    let second = wrap(&bob).sign();
    writer.publish(&second).await.ok();
    client.expect_nothing().await;
    let events = client.req("inbox", &[filter]).await.expect("served");
    assert_eq!(ids(&events.iter().collect::<Vec<_>>()), ids(&[&first, &second]));
    let third = wrap(&bob).sign();
    writer.publish(&third).await.ok();
    assert_eq!(client.received("inbox").await, [third]);
}

/// A refused REQ ends the open subscription of the same id.
#[tokio::test]
async fn a_refused_request_ends_the_one_before() {
    let world = World::new().await;
    let alice = Keys::random();
    let mut client = world.client(&[]).await;
    client.req("sub", &[json!({"kinds": [1]})]).await.expect("served");
    assert!(client.req("sub", &[json!({"kinds": [1059]})]).await.is_err());
    world.client(&[]).await.publish(&alice.event(1).sign()).await.ok();
    client.expect_nothing().await;
}
