//! The door of NIP-86: who may give orders, and the answers.

use serde_json::{Value, json};

use super::{in_force, managed};
use crate::support::{
    Client, Keys, TestRelay, http,
    rest::{Rest, header_of},
};

#[tokio::test]
async fn admin_keys_alone_give_orders() {
    let (relay, admin, keys) = managed().await;
    let eve = Keys::random();
    Rest::anonymous(&relay).order("supportedmethods", &json!([])).refused(401).await;
    Rest::of(&relay, &eve).order("supportedmethods", &json!([])).refused(403).await;
    let methods = admin.ordered("supportedmethods", json!([])).await;
    assert!(methods.as_array().expect("a list").contains(&json!("banpubkey")));
    // A proof without the hash of the body, and one that was used.
    let order = || admin.order("banpubkey", &json!([eve.hex()]));
    let url = admin.url("/");
    let bare = keys.event(27235).created_at(relay.now()).tag(["u", &url]).tag(["method", "POST"]).sign();
    let answer = order().header("authorization", &header_of(&bare)).send_bare().await;
    assert_eq!(answer.status, 401, "{}", answer.body);
    let proof = header_of(&order().proof(&keys));
    assert_eq!(order().header("authorization", &proof).send_bare().await.status, 200);
    assert_eq!(order().header("authorization", &proof).send_bare().await.status, 401);
    // Another media type is no order.
    assert_eq!(http(relay.address, "POST /", &[("content-length", "0")]).await.status, 405);
}

#[tokio::test]
async fn what_cannot_be_done_is_told() {
    let (_relay, admin, keys) = managed().await;
    for (method, parameters) in [
        ("banpubkey", json!([keys.hex()])),
        ("banpubkey", json!(["xyz"])),
        ("blockip", json!(["127.0.0.0/8"])),
        ("createrole", json!([])),
    ] {
        let answer: Value = admin.order(method, &parameters).ok().await;
        assert!(answer["error"].is_string() && answer["result"].is_null(), "{method}: {answer}");
    }
    let answer = admin.order("banpubkey", &json!({})).send().await;
    assert_eq!(answer.status, 400, "{}", answer.body);
}

#[tokio::test]
async fn an_allowed_key_is_a_resident_where_there_is_a_list() {
    let (relay, admin, _) = managed().await;
    let [alice, bob] = Keys::some();
    admin.ordered("allowpubkey", json!([alice.hex(), "a friend"])).await;
    in_force().await;
    Client::connect(&relay).await.publish(&bob.event(1).sign()).await.ok();
    let owner = Keys::random();
    let listed = TestRelay::start(|config| {
        config.mls_gateway.admin_pubkeys = vec![owner.public()];
        config.auth.pubkey_whitelist = vec![owner.public()];
    })
    .await;
    let orders = Rest::of(&listed, &owner);
    let mut client = Client::connect(&listed).await;
    client.publish(&alice.event(1).sign()).await.refused("auth-required");
    orders.ordered("allowpubkey", json!([alice.hex()])).await;
    in_force().await;
    client.publish(&alice.event(1).sign()).await.ok();
    client.publish(&bob.event(1).sign()).await.refused("auth-required");
    orders.ordered("unallowpubkey", json!([alice.hex()])).await;
    in_force().await;
    client.publish(&alice.event(1).content("2").sign()).await.refused("auth-required");
}

#[tokio::test]
async fn statements_show_in_the_information_document() {
    let (relay, admin, _) = managed().await;
    admin.ordered("changerelayname", json!(["A name"])).await;
    admin.ordered("changerelaydescription", json!(["A description"])).await;
    admin.ordered("changerelayicon", json!(["https://example.com/icon.png"])).await;
    in_force().await;
    let document = async || http(relay.next_address(), "GET /", &[("accept", "application/nostr+json")]).await.json();
    let shown = document().await;
    assert_eq!(
        [&shown["name"], &shown["description"], &shown["icon"]],
        ["A name", "A description", "https://example.com/icon.png"]
    );
    // Without a text the configuration's counts again.
    admin.ordered("changerelayname", json!([""])).await;
    in_force().await;
    assert_eq!(document().await["name"], "rnostr");
}

#[tokio::test]
async fn a_disallowed_kind_is_refused() {
    let (relay, admin, _) = managed().await;
    let alice = Keys::random();
    let mut client = Client::connect(&relay).await;
    admin.ordered("disallowkind", json!([7])).await;
    in_force().await;
    client.publish(&alice.event(7).sign()).await.refused("blocked");
    client.publish(&alice.event(1).sign()).await.ok();
    assert_eq!(admin.ordered("listdisallowedkinds", json!([])).await, json!([7]));
    // An allowed kind closes no other one where the configuration lists none.
    admin.ordered("allowkind", json!([7])).await;
    in_force().await;
    client.publish(&alice.event(7).sign()).await.ok();
    client.publish(&alice.event(1).content("2").sign()).await.ok();
    assert_eq!(admin.ordered("listallowedkinds", json!([])).await, json!([7]));
}

/// Clients of a blocked address are refused, and those that are connected leave.
#[tokio::test]
async fn a_blocked_address_is_shut_out() {
    let admin = Keys::random();
    let relay = TestRelay::start(|config| {
        config.mls_gateway.admin_pubkeys = vec![admin.public()];
        config.server.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a range")];
        let url = nostr_relay::config::RelayUrl::parse("ws://127.0.0.1").expect("a URL");
        config.server.public_url = Some(url);
    })
    .await;
    let from = |address| [("x-forwarded-for", address)];
    let mut blocked = Client::connect_with(&relay, &from("198.51.100.7")).await;
    let mut other = Client::connect_with(&relay, &from("198.51.100.8")).await;
    let orders = Rest::of(&relay, &admin);
    let block = orders.order("blockip", &json!(["198.51.100.7", "abuse"]));
    let proof = admin.event(27235).created_at(relay.now()).tag(["u", "http://127.0.0.1/"]).tag(["method", "POST"]);
    let body = json!({ "method": "blockip", "params": ["198.51.100.7", "abuse"] }).to_string();
    let proof = proof.tag(["payload", &crate::support::rest::sha256(body.as_bytes())]).sign();
    let answer = block.header("authorization", &header_of(&proof)).send_bare().await;
    assert_eq!((answer.status, answer.json()), (200, json!({ "result": true })), "{}", answer.body);
    super::ends(&mut blocked).await;
    in_force().await;
    let url = format!("ws://{}", relay.next_address());
    assert!(Client::open(&url, &from("198.51.100.7")).await.is_err());
    other.publish(&admin.event(1).sign()).await.ok();
    let refused = http(relay.next_address(), "GET /api/v1/mls/groups", &from("198.51.100.7")).await;
    assert_eq!(refused.status, 403, "{}", refused.body);
}

#[tokio::test]
async fn the_audit_trail_says_who_did_what() {
    let (relay, admin, keys) = managed().await;
    let alice = Keys::random();
    admin.ordered("banpubkey", json!([alice.hex(), "spam"])).await;
    admin.ordered("unbanpubkey", json!([alice.hex()])).await;
    let trail = admin.ordered("listauditlog", json!([])).await;
    let line = |method, reason: Option<&str>| {
        let mut line = json!({ "at": relay.now(), "by": keys.hex(), "method": method, "subject": alice.hex() });
        if let Some(reason) = reason {
            line["reason"] = json!(reason);
        }
        line
    };
    assert_eq!(trail, json!([line("unbanpubkey", None), line("banpubkey", Some("spam"))]));
}

/// An order whose client goes away is carried out to its end: it is in the store, and in force here.
#[tokio::test]
async fn an_order_is_carried_out_without_its_client() {
    use std::sync::atomic::Ordering;

    use crate::support::shared::Shared;
    let [admin, alice] = Keys::some();
    let (store, link) = Shared::new().instance();
    // Nobody looks at the record of a store that one process has.
    link.is_alone.store(true, Ordering::Relaxed);
    let relay = TestRelay::start_over(store, |config| config.mls_gateway.admin_pubkeys = vec![admin.public()]).await;
    let orders = Rest::of(&relay, &admin);
    let held = link.recording.write().await;
    let banned = json!([alice.hex(), "spam"]);
    let ban = tokio::spawn(async move { orders.ordered("banpubkey", banned).await });
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    ban.abort();
    assert!(ban.await.is_err());
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    drop(held);
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let mut client = Client::connect(&relay).await;
    client.publish(&alice.event(1).sign()).await.refused("blocked");
}

/// An instance whose read of the record gets no answer gives it up, and learns of the order within a second.
#[tokio::test]
async fn a_read_without_an_answer_delays_no_order() {
    use std::sync::atomic::Ordering;

    use crate::support::shared::Shared;
    let [admin, alice] = Keys::some();
    let shared = Shared::new();
    let configure = |config: &mut nostr_relay::config::Config| {
        config.mls_gateway.admin_pubkeys = vec![admin.public()];
    };
    let first = TestRelay::start_over(shared.instance().0, configure).await;
    let (store, link) = shared.instance();
    let second = TestRelay::start_over(store, configure).await;
    let mut client = Client::connect(&second).await;
    link.record_delay_ms.store(8_000, Ordering::Relaxed);
    while link.record_delay_ms.load(Ordering::Relaxed) > 0 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    Rest::of(&first, &admin).ordered("banpubkey", json!([alice.hex()])).await;
    in_force().await;
    client.publish(&alice.event(1).sign()).await.refused("blocked");
}

/// A stranger's call is refused before the store notes that its proof was used.
#[tokio::test]
async fn a_strangers_call_costs_the_store_nothing() {
    let [admin, eve] = Keys::some();
    for admins in [Vec::new(), vec![admin.public()]] {
        let relay = TestRelay::start(|config| config.mls_gateway.admin_pubkeys = admins.clone()).await;
        let call = || Rest::of(&relay, &eve).order("supportedmethods", &json!([]));
        let proof = header_of(&call().proof(&eve));
        for _ in 0..2 {
            // The second one would get 401 if the first one had used the proof.
            let answer = call().header("authorization", &proof).send_bare().await;
            assert_eq!(answer.status, 403, "{}", answer.body);
        }
    }
}
