//! `GET keypackages/stock`, and requests for more (docs/rules.md, "Stock").

use std::{sync::atomic::Ordering, time::Duration};

use nostr_protocol::sign::SecretKey;
use nostr_relay::config::Config;
use serde_json::json;

use super::claims::without_rates;
use crate::support::{
    Client, Event, Keys, TestRelay, WAIT,
    event::now,
    gateway::{deletion, key_package},
    rest::Rest,
    shared::Shared,
};

pub fn with_system_key(keys: &Keys) -> impl Fn(&mut Config) {
    let secret = nostr_protocol::hex::to_hex(&keys.pair().to_secret_bytes());
    let public = keys.public();
    move |config| {
        without_rates(config);
        config.mls_gateway.system_pubkey = Some(public);
        config.mls_gateway.system_key = SecretKey::from_hex_or_nsec(&secret);
    }
}

pub async fn publish(client: &mut Client, owner: &Keys, count: usize) {
    // The ids decide which events of one second are the oldest.
    let first = now() - 100;
    for n in 0..count as u64 {
        client.publish(&key_package(owner).created_at(first + n).tag(["cs", "0x0001"]).sign()).await.ok();
    }
}

pub async fn claim(relay: &TestRelay, owner: &Keys, count: u64) {
    let body = json!({"owner": owner.hex(), "count": count}).to_string();
    Rest::of(relay, &Keys::random()).post("/keypackages/claim", body).ok().await;
}

/// The 447s to a key, after a moment in which one may come.
pub async fn requests(relay: &TestRelay, owner: &Keys) -> Vec<Event> {
    tokio::time::sleep(Duration::from_millis(400)).await;
    let mut client = Client::of(relay, &[owner]).await;
    client.req("stored", &[json!({"kinds": [447]})]).await.expect("a recipient reads")
}

#[tokio::test]
async fn an_owner_reads_its_own_numbers() {
    let relay = TestRelay::start(without_rates).await;
    let [alice, bob] = Keys::some();
    let mut client = Client::of(&relay, &[&alice]).await;
    publish(&mut client, &alice, 17).await;
    let rest = Rest::of(&relay, &alice);
    let expected = json!({"owner": alice.hex(), "unclaimed": 15, "last_resort": 0, "low_watermark": 3});
    assert_eq!(rest.get("/keypackages/stock").ok().await, expected, "the oldest two gave way");
    claim(&relay, &alice, 10).await;
    claim(&relay, &alice, 10).await;
    let expected = json!({"owner": alice.hex(), "unclaimed": 0, "last_resort": 1, "low_watermark": 3});
    assert_eq!(Rest::of(&relay, &alice).get("/keypackages/stock").ok().await, expected);
    let expected = json!({"owner": bob.hex(), "unclaimed": 0, "last_resort": 0, "low_watermark": 3});
    assert_eq!(Rest::of(&relay, &bob).get("/keypackages/stock").ok().await, expected);
    Rest::anonymous(&relay).get("/keypackages/stock").refused(401).await;
}

#[tokio::test]
async fn the_relay_asks_an_owner_whose_stock_is_low() {
    let [system, alice] = Keys::some();
    let relay = TestRelay::start(with_system_key(&system)).await;
    let mut client = Client::of(&relay, &[&alice]).await;
    client.req("live", &[json!({"kinds": [447]})]).await.expect("a subscription");
    publish(&mut client, &alice, 4).await;
    claim(&relay, &alice, 1).await;
    assert_eq!(requests(&relay, &alice).await, [], "three are left");
    claim(&relay, &alice, 1).await;
    let asked = tokio::time::timeout(WAIT, client.next_event("live")).await.expect("a request");
    assert_eq!(asked.0["pubkey"], json!(system.hex()));
    let tag = |name: &str| {
        let tags = asked.0["tags"].as_array().expect("tags");
        tags.iter().find(|tag| tag[0] == name).map(|tag| tag[1].clone())
    };
    assert_eq!(tag("cs"), Some(json!("MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519")));
    assert_eq!((tag("p"), tag("min"), tag("ttl")), (Some(json!(alice.hex())), Some(json!("3")), Some(json!("604800"))));
    let content: serde_json::Value = serde_json::from_str(asked.content()).expect("JSON");
    assert_eq!(content["reason"], json!("stock_low"));
    // Not again within the hour, nor later while it stands unanswered.
    claim(&relay, &alice, 1).await;
    assert_eq!(requests(&relay, &alice).await, std::slice::from_ref(&asked));
    relay.advance(3_700);
    let mut client = Client::of(&relay, &[&alice]).await;
    client.publish(&deletion(&alice, &[&asked]).sign()).await.ok();
    publish(&mut client, &alice, 1).await;
    claim(&relay, &alice, 1).await;
    assert_eq!(requests(&relay, &alice).await.len(), 1, "a new request, after it was answered");
}

/// A client that goes away does not undo the commit of its claim, and not what must follow it either.
#[tokio::test]
async fn a_claim_is_settled_without_its_client() {
    let [system, alice] = Keys::some();
    let (store, link) = Shared::new().instance();
    let relay = TestRelay::start_over(store, with_system_key(&system)).await;
    let mut client = Client::of(&relay, &[&alice]).await;
    client.req("live", &[json!({"kinds": [447]})]).await.expect("a subscription");
    publish(&mut client, &alice, 2).await;
    let answers = link.claiming.write().await;
    let body = json!({"owner": alice.hex()}).to_string();
    let claiming = Rest::of(&relay, &Keys::random()).post("/keypackages/claim", body);
    let claiming = tokio::spawn(claiming.send());
    while link.claims.load(Ordering::Relaxed) == 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    claiming.abort();
    assert!(claiming.await.expect_err("it was given up").is_cancelled());
    // The relay notices that the connection is gone.
    tokio::time::sleep(Duration::from_millis(200)).await;
    drop(answers);
    let asked = tokio::time::timeout(WAIT, client.next_event("live")).await.expect("a request");
    assert_eq!(asked.0["pubkey"], json!(system.hex()));
}

#[tokio::test]
async fn an_expiry_is_noticed_and_a_marmot_owner_is_left_alone() {
    let [system, alice, marmot] = Keys::some();
    let relay = TestRelay::start(with_system_key(&system)).await;
    let mut client = Client::of(&relay, &[&alice, &marmot]).await;
    let expires = (relay.now() + 100).to_string();
    client.publish(&key_package(&alice).tag(["exp", &expires]).sign()).await.ok();
    let addressable = marmot.event(30443).tag(["d", "slot"]).tag(["i", "a"]).tag(["exp", &expires]);
    client.publish(&addressable.content("a").sign()).await.ok();
    relay.advance(200);
    for app in relay.apps() {
        nostr_relay::sweep(app).await;
    }
    assert_eq!(requests(&relay, &alice).await.len(), 1);
    assert_eq!(requests(&relay, &marmot).await, []);
}

/// Without a system key nobody is asked, and a key that is not that of `system_pubkey` stops the start.
#[tokio::test]
async fn a_system_key_is_that_of_the_configuration() {
    let [system, alice] = Keys::some();
    let relay = TestRelay::start(|config| {
        without_rates(config);
        config.mls_gateway.system_pubkey = Some(system.public());
    })
    .await;
    let mut client = Client::of(&relay, &[&alice]).await;
    publish(&mut client, &alice, 2).await;
    claim(&relay, &alice, 1).await;
    assert_eq!(requests(&relay, &alice).await, []);
}
