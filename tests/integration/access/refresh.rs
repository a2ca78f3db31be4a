//! `POST groups/{id}/refresh`: the service tells of a change, which is in force at once on every instance.

use serde_json::json;

use super::{
    closed::eose,
    faults::members,
    service::{Fault, Faulty, Reference, TOKEN, ask},
};
use crate::support::{
    Client, Keys, Response, TestRelay,
    gateway::{message, roster},
    http,
    shared::Shared,
};

/// POSTs to the door that has a group asked about, with this token.
pub async fn refresh(relay: &TestRelay, group: &str, token: &str) -> Response {
    let line = format!("POST /api/v1/mls/groups/{group}/refresh");
    let bearer = format!("Bearer {token}");
    http(relay.address, &line, &[("authorization", &bearer), ("content-length", "0")]).await
}

#[tokio::test]
async fn a_refresh_puts_a_change_in_force_at_once_on_every_instance() {
    let (service, shared) = (Reference::start().await, Shared::new());
    let [a, b] = [shared.instance().0, shared.instance().0].map(|store| {
        TestRelay::start_over(store, |config| {
            ask(config, service.address);
            config.mls_gateway.group_cache_ttl_secs = 600;
        })
    });
    let (a, b) = (a.await, b.await);
    let [alice, bob] = [(); 2].map(|()| Keys::random());
    service.set("team", &[&alice, &bob]);
    let (mut of_alice, mut of_bob) = (Client::of(&a, &[&alice]).await, Client::of(&b, &[&bob]).await);
    of_alice.publish(&message("team").sign()).await.ok();
    of_bob.publish(&message("team").sign()).await.ok();
    service.set("team", &[&alice]);
    of_bob.publish(&message("team").sign()).await.ok();

    for (group, token, status) in [("team", "another token", 401), ("team", "", 401), ("-", TOKEN, 404)] {
        assert_eq!(refresh(&a, group, token).await.status, status, "{group} {token}");
    }
    let asked = service.directory.questions();
    let answer = refresh(&a, "team", TOKEN).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, r#"{"refreshed":true}"#));
    assert_eq!(service.directory.questions(), asked + 1);
    of_bob.publish(&message("team").sign()).await.refused("restricted");
    assert_eq!(of_bob.ids(json!({"#h": ["team"]})).await, Ok(vec![]));
    a.stop().await;
    b.stop().await;

    let without = TestRelay::start(|_| {}).await;
    assert_eq!(refresh(&without, "team", TOKEN).await.status, 404, "a relay without the source has no such door");
    without.stop().await;
}

/// A refresh that the service does not answer closes the group on every instance, until it answers one of them.
#[tokio::test]
async fn a_failed_refresh_closes_the_group_on_every_instance() {
    let (alice, admin) = (Keys::random(), Keys::random());
    let (service, shared) = (Faulty::start(members(&[&alice])).await, Shared::new());
    let [a, b] = [shared.instance().0, shared.instance().0].map(|store| {
        TestRelay::start_over(store, |config| {
            ask(config, service.address);
            config.mls_gateway.group_cache_ttl_secs = 600;
            config.mls_gateway.acl_stale_max_secs = 3_600;
            config.mls_gateway.admin_pubkeys = vec![admin.public()];
        })
    });
    let (a, b) = (a.await, b.await);
    let (mut at_a, mut at_b) = (Client::of(&a, &[&alice]).await, Client::of(&b, &[&alice]).await);
    let named = roster(&alice, "team", 1, "add", &[&alice]).tag(["name", "Team"]);
    let everybodys =
        Fault::answer("200 OK", "", &json!({"members": [{"pubkey": alice.hex(), "role": "admin"}]}).to_string());
    service.now(everybodys.clone());
    let first = message("team").sign();
    at_a.publish(&first).await.ok();
    at_b.publish(&named.sign()).await.ok();
    at_b.req("live", &[json!({"kinds": [445], "#h": ["team"], "limit": 0})]).await.expect("a member");
    let mut admins = Client::of(&b, &[&admin]).await;
    assert_eq!(admins.ids(json!({"kinds": [450]})).await.map(|ids| ids.len()), Ok(1));

    service.now(Fault::answer("500 Internal Server Error", "", ""));
    assert_eq!(refresh(&a, "team", TOKEN).await.status, 503);
    for client in [&mut at_a, &mut at_b] {
        client.publish(&message("team").sign()).await.refused("error");
        for filter in [json!({"#h": ["team"]}), json!({"kinds": [445]}), json!({"ids": [first.id()]})] {
            assert_eq!(client.ids(filter.clone()).await, Ok(vec![]), "{filter}");
            assert_eq!(client.neg_ids(filter.clone()).await, Ok(vec![]), "{filter}");
        }
    }
    let rosters = json!({"kinds": [450]});
    assert_eq!(admins.ids(rosters.clone()).await, Ok(vec![]), "nobody reads of a closed group");
    assert_eq!(eose(&mut admins, &rosters).await, None, "an admin key is not told that this is all");

    service.now(everybodys);
    tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
    let asked = service.questions();
    assert_eq!(at_b.ids(json!({"ids": [first.id()]})).await, Ok(vec![first.id().to_owned()]), "a reader has it asked");
    assert_eq!(service.questions(), asked + 1);
    let second = message("team").sign();
    at_a.publish(&second).await.ok();
    assert_eq!(at_b.next_event("live").await, second);
    assert_eq!(service.questions(), asked + 1, "the answer opens the group on the other instance too");
    a.stop().await;
    b.stop().await;
}

/// The answer to a question that another instance asked before a refresh comes after it, and counts for nothing.
#[tokio::test]
async fn a_late_answer_undoes_no_refresh() {
    let (alice, bob) = (Keys::random(), Keys::random());
    let (fast, slow) = (Faulty::start(members(&[&alice])).await, Faulty::start(members(&[&alice])).await);
    let shared = Shared::new();
    let [a, b] = [(shared.instance().0, &fast), (shared.instance().0, &slow)].map(|(store, service)| {
        TestRelay::start_over(store, |config| {
            ask(config, service.address);
            config.mls_gateway.group_cache_ttl_secs = 600;
        })
    });
    let (a, b) = (a.await, b.await);
    let (mut at_a, mut at_b) = (Client::of(&a, &[&alice]).await, Client::of(&b, &[&bob]).await);
    at_a.publish(&message("team").sign()).await.ok();
    // Bob is a member while this instance asks, and none any more when the other one does.
    let both: Vec<_> = [&alice, &bob].map(|keys| json!({"pubkey": keys.hex(), "role": "member"})).into();
    let body = json!({"members": both}).to_string();
    slow.now(Fault::Late(1_500, Box::new(Fault::answer("200 OK", "", &body))));
    let asked = slow.questions();
    let event = message("team").sign();
    let late = at_b.publish(&event);
    let refreshed = async {
        while slow.questions() == asked {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        // The clocks of tests stand still.
        a.advance(1);
        refresh(&a, "team", TOKEN).await.status
    };
    let (late, refreshed) = tokio::join!(late, refreshed);
    assert_eq!(refreshed, 200);
    late.refused("restricted");
    at_a.publish(&message("team").sign()).await.ok();
    assert_eq!(at_b.ids(json!({"#h": ["team"]})).await, Ok(vec![]), "Bob is no member");
    a.stop().await;
    b.stop().await;
}
