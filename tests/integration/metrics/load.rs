//! Clients that keep a relay busy in every way that a query looks at.

use serde_json::json;
use tokio::task::JoinHandle;

use crate::support::{
    Client, Keys, TestRelay,
    gateway::{capability, key_package, message, noise, roster, welcome, wrap},
    http, now,
};

/// Groups that gift wraps found. A key founds few in a while.
const FOUNDED: u64 = 3;
/// Age of the first KeyPackage, in seconds; each round publishes one that is a second younger.
const FIRST_AGE: u64 = 36_000;

/// Publishes, reads and is refused until the task is aborted.
pub(super) async fn start(relay: &TestRelay, admin: &Keys) -> JoinHandle<()> {
    let [alice, bob] = Keys::some();
    let (open, group) = (capability(), format!("grp_{}", &capability()[..16]));
    let of_groups = json!({"kinds": [445], "#h": [&group, &open]});
    let mut admins = Client::of(relay, &[admin]).await;
    admins.publish(&roster(admin, &group, 1, "bootstrap", &[&alice, &bob]).sign()).await.ok();
    let mut reader = Client::of(relay, &[&bob]).await;
    reader.req("live", std::slice::from_ref(&of_groups)).await.expect("a subscription");
    let (mut writer, mut stranger) = (Client::of(relay, &[&alice]).await, Client::connect(relay).await);
    let (address, admin) = (relay.next_address(), admin.clone());
    let first = now() - FIRST_AGE;
    tokio::spawn(async move {
        for round in 0_u64.. {
            for _ in 0..10 {
                writer.publish(&message(&group).sign()).await.ok();
                reader.next_event("live").await;
                stranger.publish(&message(&group).sign()).await.refused("auth-required");
            }
            stranger.publish(&message(&open).sign()).await.ok();
            reader.next_event("live").await;
            writer.publish(&noise(&alice, &bob).sign()).await.ok();
            writer.publish(&wrap(&bob).sign()).await.ok();
            if round < FOUNDED {
                writer.publish(&welcome(&bob, &format!("{group}_{round}")).sign()).await.ok();
            }
            // Each is newer than the one before, so that none is refused for the stock.
            writer.publish(&key_package(&alice).created_at(first + round).sign()).await.ok();
            admins.publish(&roster(&admin, &group, 2 + round, "add", &[&Keys::random()]).sign()).await.ok();
            writer.req_now("old", std::slice::from_ref(&of_groups)).await.expect("stored events");
            writer.count_now("count", std::slice::from_ref(&of_groups)).await.expect("a count");
            writer.neg_ids_now(of_groups.clone()).await.expect("a session");
            let path = format!("GET /api/v1/mls/keypackages?owner={}", alice.hex());
            assert_eq!(http(address, &path, &[]).await.status, 200);
        }
    })
}
