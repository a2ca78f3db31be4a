//! Requests that end before the service answers: the answer is in force and its age is known all the same.

use std::time::Duration;

use serde_json::json;

use super::{
    comes_to_have,
    faults::members,
    refresh::refresh,
    service::{Fault, Faulty, TOKEN, ask},
};
use crate::support::{Client, Keys, TestRelay, gateway::message, rest::Rest};

/// Time that the service takes to answer, in milliseconds.
const LATE_MS: u64 = 1_000;
/// Time after which a request is dropped.
const DROPPED: Duration = Duration::from_millis(400);

#[tokio::test]
async fn the_answer_to_a_dropped_request_is_in_force_and_is_not_asked_for_again() {
    let (alice, bob) = (Keys::random(), Keys::random());
    let service = Faulty::start(Fault::Late(LATE_MS, Box::new(members(&[&alice, &bob])))).await;
    let relay = TestRelay::start_alone(|config| {
        ask(config, service.address);
        config.mls_gateway.group_cache_ttl_secs = 600;
    })
    .await;
    let rest = Rest::of(&relay, &alice);
    let dropped = tokio::time::timeout(DROPPED, rest.get("/messages?group=team").send()).await;
    assert!(dropped.is_err(), "it waits for the service");
    assert_eq!(service.questions(), 1);
    comes_to_have(&relay, "team", &alice, true).await;
    let mut of_alice = Client::of(&relay, &[&alice]).await;
    of_alice.publish(&message("team").sign()).await.ok();
    assert_eq!(of_alice.ids(json!({"#h": ["team"]})).await.map(|ids| ids.len()), Ok(1));
    assert_eq!(service.questions(), 1, "the age of the answer is known");

    // The same holds for a refresh.
    service.now(Fault::Late(LATE_MS, Box::new(members(&[&alice]))));
    let dropped = tokio::time::timeout(DROPPED, refresh(&relay, "team", TOKEN)).await;
    assert!(dropped.is_err(), "it waits for the service");
    comes_to_have(&relay, "team", &bob, false).await;
    assert_eq!(Client::of(&relay, &[&alice]).await.ids(json!({"#h": ["team"]})).await.map(|ids| ids.len()), Ok(1));
    assert_eq!(service.questions(), 2);
    relay.stop().await;
}
