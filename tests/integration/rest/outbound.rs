//! Requests that are sent on to their recipients' relays (docs/rules.md, "Elsewhere" 5).

use serde_json::json;

use super::stock::{claim, publish, requests, with_system_key};
use crate::support::{Client, Event, Keys, TestRelay, WAIT};

/// A relay that asks the owner, and the other one where the owner reads. The owner's list of this kind names it.
async fn pair(allows_private: bool, list: impl Fn(&Keys, &str) -> Event) -> (TestRelay, TestRelay, Keys, Client) {
    let [system, alice] = Keys::some();
    let elsewhere = TestRelay::with_memory(|config| {
        config.auth.enabled = true;
        config.mls_gateway.system_pubkey = Some(system.public());
    })
    .await;
    let here = TestRelay::start(|config| {
        with_system_key(&system)(config);
        config.outbound.enabled = true;
        config.outbound.allow_private = allows_private;
    })
    .await;
    let mut reads = Client::of(&elsewhere, &[&alice]).await;
    reads.req("live", &[json!({"kinds": [447]})]).await.expect("a subscription");
    let mut client = Client::of(&here, &[&alice]).await;
    client.publish(&list(&alice, &elsewhere.url)).await.ok();
    publish(&mut client, &alice, 2).await;
    claim(&here, &alice, 1).await;
    (here, elsewhere, alice, reads)
}

#[tokio::test]
async fn a_request_reaches_the_relays_where_its_recipient_reads() {
    let inbox = |alice: &Keys, url: &str| alice.event(10_050).tag(["relay", url]).sign();
    let outbox = |alice: &Keys, url: &str| {
        let own = "wss://relay.invalid";
        alice.event(10_002).tag(["r", own, "write"]).tag(["r", url, "read"]).sign()
    };
    for list in [&inbox as &dyn Fn(&Keys, &str) -> Event, &outbox] {
        let (here, elsewhere, alice, mut reads) = pair(true, list).await;
        let sent = tokio::time::timeout(WAIT, reads.next_event("live")).await.expect("it is sent on");
        assert_eq!(requests(&here, &alice).await, [sent], "the same event");
        here.stop().await;
        elsewhere.stop().await;
    }
}

/// A list may name any address, and the relay does not connect to its own network.
#[tokio::test]
async fn a_private_address_is_not_dialled() {
    let inbox = |alice: &Keys, url: &str| {
        let by_name = url.replace("127.0.0.1", "localhost");
        alice.event(10_050).tag(["relay", url]).tag(["relay", &by_name]).tag(["relay", "ws://[::1]:1"]).sign()
    };
    let (here, elsewhere, alice, mut reads) = pair(false, inbox).await;
    assert_eq!(requests(&here, &alice).await.len(), 1, "it is kept here");
    assert_eq!(reads.received("live").await, []);
    assert_eq!(elsewhere.app().connections.len(), 1, "the reader alone has connected");
    here.stop().await;
    elsewhere.stop().await;
}
