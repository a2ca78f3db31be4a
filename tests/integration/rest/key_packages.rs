//! `GET keypackages`.

use nostr_extensions::policy::KeyPackageConsumption;
use serde_json::{Value, json};

use crate::support::{
    Client, Keys, TestRelay,
    gateway::{deletion, key_package},
    rest::Rest,
};

const SUITE: &str = "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519";

fn references(list: &Value) -> Vec<String> {
    let packages = list["keypackages"].as_array().expect("KeyPackages").iter();
    packages.map(|package| package["key_reference"].as_str().expect("a reference").to_owned()).collect()
}

#[tokio::test]
async fn the_key_packages_of_an_owner_are_shown_as_the_specification_has_it() {
    let [alice, bob] = Keys::some();
    let relay = TestRelay::start(|_| {}).await;
    let exp = relay.now() + 3_600;
    let [a, b] = ["kpr_a", "kpr_b"].map(|kpr| {
        alice.event(443).tag(["kpr", kpr]).tag(["cs", "0x0001"]).tag(["exp", &exp.to_string()]).content(kpr).sign()
    });
    let other = alice.event(30443).tag(["d", "x"]).tag(["i", "c"]).tag(["mls_ciphersuite", "0xf0f0"]);
    let other = other.content("c").sign();
    let mut writer = Client::of(&relay, &[&alice]).await;
    for event in [&a, &b, &other] {
        writer.publish(event).await.ok();
    }
    // Without a proof, as a REQ needs none.
    for rest in [Rest::anonymous(&relay), Rest::of(&relay, &bob)] {
        let list = rest.get(&format!("/keypackages?owner={}", alice.hex())).ok().await;
        let mut got = references(&list);
        got.sort();
        assert_eq!(got, ["c", "kpr_a", "kpr_b"]);
        assert_eq!(list.as_object().expect("an object").len(), 1, "the specification's answer");
        let packages = list["keypackages"].as_array().expect("a list");
        let shown = packages.iter().find(|package| package["key_reference"] == "kpr_a").expect("the first");
        let expires_at = shown["expires_at"].as_str().expect("a time");
        assert!(expires_at.ends_with('Z'), "{expires_at}");
        assert_eq!(
            *shown,
            json!({"owner": alice.hex(), "key_reference": "kpr_a", "ciphersuite": SUITE,
            "expires_at": expires_at})
        );
        for suite in [SUITE, "1", "0x0001"] {
            let path = format!("/keypackages?owner={}&ciphersuite={suite}", alice.public().to_npub());
            assert_eq!(references(&rest.get(&path).ok().await).len(), 2, "{suite}");
        }
        let unknown = format!("/keypackages?owner={}&ciphersuite=0xf0f0&include=event", alice.hex());
        let unknown = rest.get(&unknown).ok().await;
        assert_eq!(unknown["keypackages"][0]["ciphersuite"], "0xf0f0");
        assert_eq!(unknown["keypackages"][0]["event"], other.0);
        assert_eq!(rest.get(&format!("/keypackages?owner={}", bob.hex())).ok().await, json!({"keypackages": []}));
    }
    let open = Rest::anonymous(&relay).get(&format!("/keypackages?owner={}", alice.hex())).send().await;
    assert_eq!(open.header("cache-control"), Some("no-cache"));
    let private = Rest::of(&relay, &bob).get(&format!("/keypackages?owner={}", alice.hex())).send().await;
    assert_eq!(private.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn parameters_are_read_strictly() {
    let relay = TestRelay::start(|_| {}).await;
    let rest = Rest::anonymous(&relay);
    let owner = Keys::random().hex();
    for query in [
        String::new(),
        "?owner=".to_owned(),
        "?owner=x".to_owned(),
        format!("?owner={}", owner.to_uppercase()),
        format!("?owner={owner}&ciphersuite=none"),
        format!("?owner={owner}&ciphersuite=0x10001"),
        format!("?owner={owner}&include=everything"),
        format!("?owner={owner}&limit=0"),
        format!("?owner={owner}&limit=99999999999999999999"),
        format!("?owner={owner}&cursor=x"),
        format!("?owner={owner}&owner={owner}"),
        format!("?owner={owner}&unknown=1"),
        format!("?owner={owner}%00"),
        "?owner=%ff".to_owned(),
    ] {
        let detail = rest.get(&format!("/keypackages{query}")).refused(400).await;
        assert!(detail.starts_with("invalid: "), "{detail}");
    }
    // A secret key is not repeated.
    let secret = "nsec1vl029mgpspedva04g90vltkh6fvh240zqtv9k0t9af8935ke9laqsnlfe5";
    assert!(!rest.get(&format!("/keypackages?owner={secret}")).refused(400).await.contains("nsec1"));
}

#[tokio::test]
async fn twins_are_listed_once_and_pages_give_each_once() {
    let alice = Keys::random();
    let relay = TestRelay::start(|_| {}).await;
    let mut writer = Client::of(&relay, &[&alice]).await;
    let mut events = Vec::new();
    for n in 0..6 {
        // The reference of twins is one, and so are their bytes.
        let content = format!("package {}", n / 2);
        let event = alice.event(443).tag(["kpr", &content.replace(' ', "")]).tag(["n", &n.to_string()]);
        events.push(event.content(content).sign());
        writer.publish(&events[n]).await.ok();
    }
    let rest = Rest::anonymous(&relay);
    let path = format!("/keypackages?owner={}", alice.hex());
    let whole = references(&rest.get(&path).ok().await);
    let mut sorted = whole.clone();
    sorted.sort();
    assert_eq!(sorted, ["package0", "package1", "package2"]);
    let mut paged = Vec::new();
    let mut query = "&limit=1".to_owned();
    loop {
        let page = rest.get(&format!("{path}{query}")).ok().await;
        paged.extend(references(&page));
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        query = format!("&limit=1&cursor={cursor}");
    }
    assert_eq!(paged, whole);
    writer.publish(&deletion(&alice, &[&events[0], &events[1]]).sign()).await.ok();
    assert_eq!(references(&rest.get(&path).ok().await).len(), 2, "a deletion passes no cache");
}

#[tokio::test]
async fn under_on_read_and_under_auth_enabled_it_is_a_reqs_rule() {
    let [alice, bob] = Keys::some();
    let relay =
        TestRelay::start(|config| config.mls_gateway.keypackage_consumption = KeyPackageConsumption::OnRead).await;
    let event = key_package(&alice).sign();
    Client::of(&relay, &[&alice]).await.publish(&event).await.ok();
    let path = format!("/keypackages?owner={}&include=event", alice.hex());
    let by_id = format!("/events/{}", event.id());
    Rest::anonymous(&relay).get(&path).refused(401).await;
    assert_eq!(Rest::of(&relay, &bob).get(&path).ok().await, json!({"keypackages": []}));
    Rest::of(&relay, &bob).get(&by_id).refused(404).await;
    for _ in 0..3 {
        let own = Rest::of(&relay, &alice).get(&path).ok().await;
        assert_eq!(own["keypackages"][0]["event"], event.0, "a read consumes nothing");
        assert_eq!(Rest::of(&relay, &alice).get(&by_id).ok().await, event.0);
    }
    let relay = TestRelay::start(|config| config.auth.enabled = true).await;
    Client::of(&relay, &[&alice]).await.publish(&event).await.ok();
    Rest::anonymous(&relay).get(&path).refused(401).await;
    assert_eq!(Rest::of(&relay, &bob).get(&path).ok().await["keypackages"][0]["event"], event.0);
}
