//! `POST keypackages/claim` (docs/rules.md, "Claims").

use nostr_relay::config::Config;
use serde_json::{Value, json};

use crate::support::{
    Client, Event, Keys, TestRelay,
    gateway::{key_package, message, roster},
    rest::{Rest, problem},
};

/// Takes the rates of claims away.
pub fn without_rates(config: &mut Config) {
    config.mls_gateway.claims_per_hour = 0;
    config.mls_gateway.claims_per_address_hour = 0;
    config.mls_gateway.claim_strangers_percent = 100;
}

/// Publishes so many KeyPackages, from the oldest to the newest.
async fn publish(relay: &TestRelay, owner: &Keys, count: usize) -> Vec<Event> {
    let mut client = Client::of(relay, &[owner]).await;
    let mut events = Vec::new();
    for n in 0..count as u64 {
        let event = key_package(owner).created_at(relay.now() - 100 + n).sign();
        client.publish(&event).await.ok();
        events.push(event);
    }
    relay.caught_up().await;
    events
}

fn body(owner: &Keys, count: u64) -> String {
    json!({"owner": owner.hex(), "count": count}).to_string()
}

/// The claimed events, each with whether it is of last resort, and the number that remains.
fn read(answer: &Value) -> (Vec<(Event, bool)>, u64) {
    let packages = answer["keypackages"].as_array().expect("a list").iter();
    let given = packages.map(|it| (Event(it["event"].clone()), it["last_resort"].as_bool().expect("a flag")));
    (given.collect(), answer["remaining"].as_u64().expect("a number"))
}

async fn claim(rest: &Rest, owner: &Keys, count: u64) -> (Vec<(Event, bool)>, u64) {
    read(&rest.post("/keypackages/claim", body(owner, count)).ok().await)
}

#[tokio::test]
async fn each_package_is_given_once_and_the_last_one_again_and_again() {
    let relay = TestRelay::start(without_rates).await;
    let [alice, bob, carol] = Keys::some();
    let events = publish(&relay, &alice, 4).await;
    let (bobs, carols) = (Rest::of(&relay, &bob), Rest::of(&relay, &carol));
    assert_eq!(claim(&bobs, &alice, 1).await, (vec![(events[0].clone(), false)], 3));
    let two = vec![(events[1].clone(), false), (events[2].clone(), false)];
    assert_eq!(claim(&carols, &alice, 2).await, (two, 1));
    for rest in [&bobs, &carols, &bobs] {
        assert_eq!(claim(rest, &alice, 10).await, (vec![(events[3].clone(), true)], 0));
    }
    // A door gives none that was used up.
    let mut reader = Client::of(&relay, &[&bob]).await;
    let shown = reader.ids(json!({"kinds": [443], "authors": [alice.hex()]})).await.expect("served");
    assert_eq!(shown, [events[3].id()]);
    bobs.get(&format!("/events/{}", events[0].id())).refused(404).await;
    assert_eq!(reader.count(&[json!({"kinds": [443], "authors": [alice.hex()]})]).await, Ok(1));
    Client::of(&relay, &[&alice]).await.publish(&events[0]).await.refused("blocked");
}

#[tokio::test]
async fn the_answer_has_the_form_of_the_specification() {
    let relay = TestRelay::start(without_rates).await;
    let [alice, bob] = Keys::some();
    let expires = relay.now() + 3_600;
    let event = key_package(&alice).tag(["cs", "0x0001"]).tag(["exp", &expires.to_string()]).sign();
    Client::of(&relay, &[&alice]).await.publish(&event).await.ok();
    let answer = Rest::of(&relay, &bob).post("/keypackages/claim", body(&alice, 1)).send().await;
    assert_eq!((answer.status, answer.header("cache-control")), (200, Some("no-store")));
    let answer = answer.json();
    let package = &answer["keypackages"][0];
    let reference = event.0["tags"][1][1].clone();
    assert_eq!(package["owner"], json!(alice.hex()));
    assert_eq!(package["key_reference"], reference);
    assert_eq!(package["ciphersuite"], json!("MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519"));
    assert_eq!(package["event"], event.0);
    let date = package["expires_at"].as_str().expect("a date");
    assert!(date.len() == 20 && date.ends_with('Z'), "{date}");
    assert_eq!(answer.as_object().expect("an object").len(), 2);
    assert_eq!(package.as_object().expect("an object").len(), 6);
}

#[tokio::test]
async fn claims_of_bad_form_are_refused_and_use_nothing_up() {
    let relay = TestRelay::start(without_rates).await;
    let [alice, bob] = Keys::some();
    publish(&relay, &alice, 2).await;
    let (rest, owner) = (Rest::of(&relay, &bob), alice.hex());
    for bad in [
        String::new(),
        "{}".to_owned(),
        "[]".to_owned(),
        format!(r#"{{"owner":"{owner}","count":0}}"#),
        format!(r#"{{"owner":"{owner}","count":11}}"#),
        format!(r#"{{"owner":"{owner}","count":-1}}"#),
        format!(r#"{{"owner":"{owner}","count":1.5}}"#),
        format!(r#"{{"owner":"{owner}","more":1}}"#),
        format!(r#"{{"owner":"{}"}}"#, owner.to_uppercase()),
        format!(r#"{{"owner":"{}"}}"#, "a".repeat(10_000)),
        format!(r#"{{"owner":"{owner}\u0000"}}"#),
        format!(r#"{{"owner":"{owner}","ciphersuite":"MLS_9"}}"#),
        format!(r#"{{"owner":"{owner}","ciphersuite":65536}}"#),
        format!(r#"{{"owner":"{owner}","ciphersuite":0}}"#),
        format!(r#"{{"owner":"{owner}","ciphersuite":[1]}}"#),
    ] {
        assert!(rest.post("/keypackages/claim", bad).refused(400).await.starts_with("invalid: "));
    }
    for name in ["", &"x".repeat(256)] {
        let ask = rest.post("/keypackages/claim", body(&alice, 1)).header("idempotency-key", name);
        ask.refused(400).await;
    }
    let anonymous = Rest::anonymous(&relay);
    anonymous.post("/keypackages/claim", body(&alice, 1)).refused(401).await;
    rest.when(relay.now() - 100).post("/keypackages/claim", body(&alice, 1)).refused(401).await;
    let npub = json!({"owner": alice.public().to_npub()}).to_string();
    assert_eq!(read(&rest.post("/keypackages/claim", npub).ok().await).1, 1, "nothing was used up before");
}

/// An owner that nobody knows, one whose KeyPackages are of another ciphersuite, and one of events of other kinds get
/// one answer.
#[tokio::test]
async fn an_owner_without_a_package_that_fits_is_unknown() {
    let relay = TestRelay::start(without_rates).await;
    let [alice, bob, nobody] = Keys::some();
    let event = key_package(&alice).tag(["cs", "MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519"]).sign();
    Client::of(&relay, &[&alice]).await.publish(&event).await.ok();
    let rest = Rest::of(&relay, &bob);
    let unknown = rest.post("/keypackages/claim", body(&nobody, 1)).refused(404).await;
    for suite in [json!("0x0002"), json!(61489), json!("MLS_128_DHKEMP256_AES128GCM_SHA256_P256")] {
        let body = json!({"owner": alice.hex(), "ciphersuite": suite}).to_string();
        assert_eq!(rest.post("/keypackages/claim", body).refused(404).await, unknown);
    }
    for suite in [json!(1), json!("1"), json!("0x0001"), json!("MLS_128_DHKEMX25519_AES128GCM_SHA256_Ed25519")] {
        let body = json!({"owner": alice.hex(), "ciphersuite": suite}).to_string();
        assert_eq!(read(&rest.post("/keypackages/claim", body).ok().await).0, [(event.clone(), true)]);
    }
}

#[tokio::test]
async fn an_idempotency_key_gives_its_reader_the_same_answer() {
    let relay = TestRelay::start(|config| {
        without_rates(config);
        config.mls_gateway.keypackage_ttl_secs = 1_000;
    })
    .await;
    let [alice, bob, carol] = Keys::some();
    let events = publish(&relay, &alice, 4).await;
    let ask = async |rest: &Rest, name: &str, count| {
        let ask = rest.post("/keypackages/claim", body(&alice, count)).header("idempotency-key", name);
        ask.send().await
    };
    let bobs = Rest::of(&relay, &bob);
    let first = ask(&bobs, "one", 2).await;
    assert_eq!(read(&first.json()), (vec![(events[0].clone(), false), (events[1].clone(), false)], 2));
    for _ in relay.apps() {
        assert_eq!(ask(&Rest::of(&relay, &bob), "one", 2).await.body, first.body, "at each instance");
    }
    let other = ask(&bobs, "one", 1).await;
    assert_eq!(other.status, 422, "another request under the same name: {}", other.body);
    let carols = ask(&Rest::of(&relay, &carol), "one", 2).await;
    assert_eq!(read(&carols.json()).0[0].0, events[2], "another reader's name");
    relay.advance(86_000);
    assert_eq!(ask(&Rest::of(&relay, &bob), "one", 2).await.body, first.body, "also after they have expired");
}

#[tokio::test]
async fn the_rates_of_claims_are_told_with_the_seconds() {
    let [alice, admin] = Keys::some();
    let relay = TestRelay::start(|config| {
        config.mls_gateway.admin_pubkeys = vec![admin.public()];
        config.mls_gateway.claims_per_hour = 2;
        config.mls_gateway.claims_per_address_hour = 5;
        config.mls_gateway.claim_strangers_percent = 100;
    })
    .await;
    publish(&relay, &alice, 10).await;
    let bob = Rest::of(&relay, &Keys::random());
    assert_eq!(claim(&bob, &alice, 3).await.0.len(), 2, "what the rate leaves");
    let refused = bob.post("/keypackages/claim", body(&alice, 1)).send().await;
    assert_eq!(refused.status, 429, "{}", refused.body);
    let secs: u64 = refused.header("retry-after").expect("a time").parse().expect("seconds");
    assert!((3_500..=3_600).contains(&secs), "{secs}");
    // Others come from the same address, which takes three more.
    assert_eq!(claim(&Rest::of(&relay, &Keys::random()), &alice, 2).await.0.len(), 2);
    assert_eq!(claim(&Rest::of(&relay, &Keys::random()), &alice, 2).await.0.len(), 1);
    Rest::of(&relay, &admin).post("/keypackages/claim", body(&alice, 1)).refused(429).await;
    relay.advance(3_601);
    let later = Rest::of(&relay, &Keys::random());
    assert_eq!(claim(&later, &alice, 1).await.0.len(), 1);
}

/// Strangers take half of the stock in an hour, and those of one address a quarter of that half. A key that the
/// operator named and one that shares a group with the owner take the rest; a group in which the owner never acted is
/// none that it shares.
#[tokio::test]
async fn strangers_leave_a_part_of_the_stock_to_others() {
    let [admin, alice, bob, eve] = Keys::some();
    let relay = TestRelay::start(|config| {
        config.mls_gateway.admin_pubkeys = vec![admin.public()];
        config.mls_gateway.open_bootstrap = true;
        config.mls_gateway.claims_per_address_hour = 0;
    })
    .await;
    let mut writer = Client::of(&relay, &[&admin, &alice, &eve]).await;
    writer.publish(&roster(&admin, "friends", 1, "bootstrap", &[&alice, &bob]).sign()).await.ok();
    writer.publish(&message("friends").sign()).await.ok();
    writer.publish(&roster(&eve, "trap", 1, "bootstrap", &[&eve, &alice]).sign()).await.ok();
    publish(&relay, &alice, 8).await;
    let eves = Rest::of(&relay, &eve);
    assert_eq!(claim(&eves, &alice, 10).await.0.len(), 1);
    for stranger in [&eves, &Rest::of(&relay, &Keys::random())] {
        stranger.post("/keypackages/claim", body(&alice, 1)).refused(429).await;
    }
    assert_eq!(claim(&Rest::of(&relay, &bob), &alice, 1).await.0.len(), 1);
    assert_eq!(claim(&Rest::of(&relay, &admin), &alice, 1).await.0.len(), 1);
}

/// Anyone who kept the signed events of an owner may publish them again.
#[tokio::test]
async fn what_is_sent_again_neither_comes_back_nor_pushes_out() {
    let relay = TestRelay::start(|config| {
        without_rates(config);
        config.mls_gateway.keypackages_per_owner_max = 3;
    })
    .await;
    let [alice, eve] = Keys::some();
    let events = publish(&relay, &alice, 6).await;
    let eves = Rest::of(&relay, &eve);
    let mut mallory = Client::of(&relay, &[&eve]).await;
    for old in &events[..3] {
        let answer = mallory.publish(old).await;
        answer.refused("duplicate");
        problem(&eves.publish(old).await, 409, "an old one");
    }
    let stock = async || Rest::of(&relay, &alice).get("/keypackages/stock").ok().await["unclaimed"].clone();
    assert_eq!(stock().await, json!(3));
    assert_eq!(claim(&eves, &alice, 1).await.0, [(events[3].clone(), false)]);
    mallory.publish(&events[3]).await.refused("blocked");
    problem(&eves.publish(&events[3]).await, 409, "a used-up one");
    assert_eq!(stock().await, json!(2));
}

/// The first KeyPackage is kept whatever its size, and the rest of its price is owed.
#[tokio::test]
async fn a_large_package_that_is_kept_is_paid_to_the_end() {
    let relay = TestRelay::start_alone(|config| {
        without_rates(config);
        config.mls_gateway.rate_limits.max_events_per_minute = 1;
    })
    .await;
    let [alice, bob, carol] = Keys::some();
    let large = key_package(&alice).content("a".repeat(200_000)).sign();
    Client::of(&relay, &[&alice]).await.publish(&large).await.ok();
    let mut client = Client::of(&relay, &[&carol]).await;
    let mut spent = 0;
    while client.publish(&carol.event(1).content(format!("note {spent}")).sign()).await.accepted {
        spent += 1;
        assert!(spent < 300, "no limit");
    }
    // The proof costs one, and the claim one and one for its KeyPackage. Two are left of these five.
    relay.advance(5 * 60 + 5);
    let claim = Rest::of(&relay, &bob).post("/keypackages/claim", body(&alice, 1)).header("idempotency-key", "one");
    assert_eq!(read(&claim.ok().await).0, [(large, true)]);
    let late = Keys::random();
    let note = late.event(1).content("after").sign();
    Client::of(&relay, &[&late]).await.publish(&note).await.refused("rate-limited");
}
