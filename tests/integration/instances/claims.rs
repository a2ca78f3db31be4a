//! Claims of KeyPackages over four instances (docs/rules.md, "Claims").

use std::collections::BTreeMap;

use futures_util::future::join_all;
use rnostr_test_services::{FirestoreEmulator, Postgres, require};
use serde_json::json;

use crate::support::{Client, Keys, TestRelay, gateway::key_package, rest::Rest, rounds::Rounds};

const INSTANCES: usize = 4;
const CLAIMANTS: usize = 64;
const PACKAGES: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_sixty_four_claimants_over_postgres_each_package_goes_to_one() {
    let Some(()) = require(Postgres::shared_available()) else { return };
    each_package_goes_to_one("postgres").await;
}

#[cfg(feature = "mls_gateway_firestore")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_sixty_four_claimants_over_firestore_each_package_goes_to_one() {
    let Some(()) = require(FirestoreEmulator::shared_available()) else { return };
    each_package_goes_to_one("firestore").await;
}

/// The last one is given to all the others, as one of last resort.
async fn each_package_goes_to_one(backend: &str) {
    let relay = TestRelay::start_on(backend, INSTANCES, |config| {
        config.mls_gateway.keypackages_per_owner_max = PACKAGES;
        config.mls_gateway.claims_per_hour = 0;
        config.mls_gateway.claims_per_address_hour = 0;
        config.mls_gateway.claim_strangers_percent = 100;
    })
    .await;
    let mut rounds = Rounds::of("of_sixty_four_claimants_each_package_goes_to_one");
    while let Some(round) = rounds.next() {
        let began = std::time::Instant::now();
        race(&relay).await;
        rounds.ended(&round, backend, began.elapsed());
    }
    relay.stop().await;
}

async fn race(relay: &TestRelay) {
    let owner = Keys::random();
    let mut client = Client::of(relay, &[&owner]).await;
    let mut last = String::new();
    for _ in 0..PACKAGES {
        let event = key_package(&owner).sign();
        client.publish(&event).await.ok();
        last = event.id().to_owned();
    }
    let body = json!({"owner": owner.hex()}).to_string();
    let claiming = (0..CLAIMANTS).map(|_| {
        let ask = Rest::of(relay, &Keys::random()).post("/keypackages/claim", body.clone());
        tokio::spawn(ask.ok())
    });
    // Ids with how often each was given for good, and as one of last resort.
    let mut given: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for answer in join_all(claiming).await {
        let answer = answer.expect("no panic");
        let packages = answer["keypackages"].as_array().expect("a list");
        assert_eq!(packages.len(), 1);
        let counts = given.entry(packages[0]["event"]["id"].as_str().expect("an id").to_owned()).or_default();
        match packages[0]["last_resort"].as_bool().expect("a flag") {
            false => counts.0 += 1,
            true => counts.1 += 1,
        }
    }
    assert_eq!(given.len(), PACKAGES);
    let others = CLAIMANTS - (PACKAGES - 1);
    assert_eq!(given.remove(&last), Some((0, others)), "the newest is the last one");
    assert!(given.values().all(|counts| *counts == (1, 0)), "{given:?}");
}
