//! An event acknowledged by one instance counts for every later request, on every instance.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::Pair;
use crate::support::{
    Client, Keys, empty_set,
    gateway::{key_package, message, roster, wrap},
};

const ROUNDS: u64 = 200;

/// Each of 200 notes is found at a door of the other instance, without a single notification.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_instance_acknowledged_is_found_on_another() {
    let pair = Pair::start().await;
    pair.link_b.loses_notifications.store(true, Ordering::Relaxed);
    let alice = Keys::random();
    let mut on_a = Client::connect(&pair.a).await;
    let mut on_b = Client::connect(&pair.b).await;
    for n in 1..=ROUNDS {
        let note = alice.event(1).content(n.to_string()).sign();
        on_a.publish(&note).await.ok();
        match n % 3 {
            0 => {
                let found = on_b.req_now("one", &[json!({"ids": [note.id()]})]).await.expect("served");
                assert_eq!(found.len(), 1, "REQ {n}");
            }
            1 => {
                let count = on_b.count_now("count", &[json!({"authors": [alice.hex()]})]).await;
                assert_eq!(count, Ok(n), "COUNT {n}");
            }
            _ => {
                let ids = on_b.neg_ids_now(json!({"authors": [alice.hex()], "limit": 1000})).await.expect("served");
                assert_eq!(ids.len() as u64, n, "NEG-OPEN {n}");
            }
        }
    }
    pair.stop().await;
}

/// Requests that wait at the same time share a pass.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_wait_share_a_pass() {
    const CLIENTS: usize = 40;
    let pair = Pair::start().await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(Client::connect(&pair.b).await);
    }
    pair.link_b.delay_ms.store(100, Ordering::Relaxed);
    let before = pair.link_b.after_calls.load(Ordering::Relaxed);
    let asking: Vec<_> = clients
        .into_iter()
        .map(|mut client| tokio::spawn(async move { client.req_now("none", &[json!({"kinds": [1]})]).await }))
        .collect();
    for request in asking {
        request.await.expect("no panic").expect("served");
    }
    let passes = pair.link_b.after_calls.load(Ordering::Relaxed) - before;
    assert!(passes < 10, "{passes} passes for {CLIENTS} requests");
    pair.stop().await;
}

/// A member just added through one instance may publish through another, even if that one has cached an older state.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_added_on_one_instance_may_publish_on_another_at_once() {
    let pair = Pair::start().await;
    pair.link_b.loses_notifications.store(true, Ordering::Relaxed);
    let alice = Keys::random();
    pair.found("grp_a", &[&alice]).await;
    let mut admins = pair.admin_on_a().await;
    for n in 0..100 {
        let carol = Keys::random();
        let mut carols = Client::of(&pair.b, &[&carol]).await;
        if n % 2 == 0 {
            carols.publish(&message("grp_a").sign()).await.refused("restricted");
        }
        admins.publish(&roster(&pair.admin, "grp_a", 2 + n, "add", &[&carol]).sign()).await.ok();
        carols.publish(&message("grp_a").sign()).await.ok();
        // Carol also reads the group's messages.
        let found = carols.req_now("all", &[json!({"kinds": [445]})]).await.expect("served");
        assert!(!found.is_empty(), "round {n}");
    }
    pair.stop().await;
}

/// A group founded on one instance is known at once on another that has cached its absence.
#[tokio::test]
async fn a_group_founded_on_one_instance_is_there_on_another() {
    let pair = Pair::start().await;
    pair.link_b.loses_notifications.store(true, Ordering::Relaxed);
    let alice = Keys::random();
    let mut alices = Client::of(&pair.b, &[&alice]).await;
    for n in 0..50 {
        let group = format!("grp_{n}");
        alices.publish(&message(&group).sign()).await.refused("restricted");
        pair.found(&group, &[&alice]).await;
        alices.publish(&message(&group).sign()).await.ok();
    }
    pair.stop().await;
}

/// A removal acknowledged on one instance applies to all later requests and messages on the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_acknowledged_on_one_instance_holds_at_every_door_of_another() {
    let pair = Pair::start().await;
    pair.link_b.loses_notifications.store(true, Ordering::Relaxed);
    let [alice, bob] = Keys::some();
    pair.found("grp_a", &[&alice]).await;
    let mut admins = Client::of(&pair.a, &[&pair.admin, &alice]).await;
    admins.publish(&message("grp_a").sign()).await.ok();
    let mut bobs = Client::of(&pair.b, &[&bob]).await;
    for round in 0..50 {
        let seq = 2 + 2 * round;
        admins.publish(&roster(&pair.admin, "grp_a", seq, "add", &[&bob]).sign()).await.ok();
        let filter = json!({"kinds": [445], "#h": ["grp_a"]});
        assert!(!bobs.req_now(&format!("in {round}"), std::slice::from_ref(&filter)).await.expect("served").is_empty());
        bobs.publish(&message("grp_a").sign()).await.ok();
        admins.publish(&roster(&pair.admin, "grp_a", seq + 1, "remove", &[&bob]).sign()).await.ok();
        match round % 4 {
            0 => assert!(bobs.req_now(&format!("out {round}"), &[filter]).await.expect("served").is_empty()),
            1 => assert_eq!(bobs.count_now("out", &[filter]).await, Ok(0)),
            2 => assert!(bobs.neg_ids_now(filter).await.expect("served").is_empty()),
            _ => {
                bobs.publish(&message("grp_a").sign()).await.refused("restricted");
            }
        }
    }
    pair.stop().await;
}

/// A NIP-77 session ends when its reader is removed from the group, whichever filter opened it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_ends_with_the_membership_of_its_reader() {
    let pair = Pair::start().await;
    let [alice, bob] = Keys::some();
    pair.found("grp_a", &[&alice]).await;
    let mut admins = Client::of(&pair.a, &[&pair.admin, &alice]).await;
    let said = message("grp_a").sign();
    admins.publish(&said).await.ok();
    let mut bobs = Client::of(&pair.b, &[&bob]).await;
    let filters = [json!({"kinds": [445], "#h": ["grp_a"]}), json!({"ids": [said.id()]}), json!({})];
    for (round, filter) in (0..).zip(filters) {
        admins.publish(&roster(&pair.admin, "grp_a", 2 + 2 * round, "add", &[&bob]).sign()).await.ok();
        let is_answer = |frame: &Value| frame[1] == "neg" && (frame[0] == "NEG-MSG" || frame[0] == "NEG-ERR");
        let (_, first) = empty_set();
        bobs.send(&json!(["NEG-OPEN", "neg", filter, first])).await;
        assert_eq!(bobs.find(is_answer).await[0], "NEG-MSG", "{filter}");
        admins.publish(&roster(&pair.admin, "grp_a", 3 + 2 * round, "remove", &[&bob]).sign()).await.ok();
        bobs.send(&json!(["NEG-MSG", "neg", first])).await;
        assert_eq!(bobs.find(is_answer).await[0], "NEG-ERR", "{filter}");
    }
    pair.stop().await;
}

/// KeyPackages and Welcomes are found on the other instance as soon as they are acknowledged.
#[tokio::test]
async fn key_packages_and_welcomes_are_found_at_once() {
    use nostr_extensions::policy::KeyPackageConsumption;
    let pair = Pair::start_with(|config| {
        config.mls_gateway.keypackage_consumption = KeyPackageConsumption::OnRead;
    })
    .await;
    pair.link_b.loses_notifications.store(true, Ordering::Relaxed);
    let reader = Keys::random();
    let mut on_a = Client::connect(&pair.a).await;
    let mut on_b = Client::of(&pair.b, &[&reader]).await;
    for _ in 0..50 {
        let owner = Keys::random();
        let package = key_package(&owner).sign();
        on_a.publish(&package).await.ok();
        let found = on_b.req_now("package", &[json!({"kinds": [443], "authors": [owner.hex()]})]).await;
        assert_eq!(found.expect("served").len(), 1);
        let welcome = wrap(&reader).sign();
        on_a.publish(&welcome).await.ok();
        let found = on_b.req_now("welcome", &[json!({"kinds": [1059], "ids": [welcome.id()]})]).await;
        assert_eq!(found.expect("served").len(), 1);
    }
    pair.stop().await;
}
