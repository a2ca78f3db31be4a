//! The specification's section "KeyPackage Request (Kind 447)".

use serde_json::json;

use super::{World, sees, shown};
use crate::support::{Client, Keys, TestRelay, gateway::request};

const DAY: u64 = 86_400;

/// A 447 has exactly one `p`, and at most one `h`.
#[tokio::test]
async fn request_names_one_recipient_and_at_most_one_group() {
    let world = World::new().await;
    let [bob, carol] = Keys::some();
    let mut admin = world.admin().await;
    admin.publish(&world.admin.event(447).sign()).await.refused("invalid");
    admin.publish(&request(&world.admin, &bob).tag(["p", &carol.hex()]).sign()).await.refused("invalid");
    admin.publish(&request(&world.admin, &bob).tag(["h", "a"]).tag(["h", "b"]).sign()).await.refused("invalid");
    admin.publish(&request(&world.admin, &bob).tag(["h", "no group id"]).sign()).await.refused("invalid");
    let full = request(&world.admin, &bob)
        .tag(["h", "grp_abc123"])
        .tag(["cs", "MLS_128_DHKEMX25519"])
        .tag(["min", "5"])
        .tag(["ttl", "604800"])
        .sign();
    admin.publish(&full).await.ok();
    assert!(sees(&mut world.client(&[&bob]).await, &full).await);
}

/// The signer's key must be on the connection: a signature by an admin key is not enough.
#[tokio::test]
async fn request_needs_its_signer_on_the_connection() {
    let world = World::new().await;
    let [bob, eve] = Keys::some();
    let event = request(&world.admin, &bob).sign();
    world.client(&[]).await.publish(&event).await.refused("auth-required");
    world.client(&[&eve]).await.publish(&event).await.refused("restricted");
    world.client(&[&eve, &world.admin]).await.publish(&event).await.ok();
}

/// An admin of a group is no admin of the relay.
#[tokio::test]
async fn group_admins_cannot_request() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    world.group("grp_a", &[&alice]).await;
    world.change("grp_a", 2, "promote", &[&alice]).await;
    world
        .client(&[&alice])
        .await
        .publish(&request(&alice, &bob).tag(["h", "grp_a"]).sign())
        .await
        .refused("restricted");
}

/// A 447 is kept for its `ttl`, at most `keypackage_request_ttl`, at most 7 days.
#[tokio::test]
async fn request_ends_with_its_ttl() {
    let world = World::with(|config| config.mls_gateway.keypackage_request_ttl_secs = 3 * DAY).await;
    let [bob] = Keys::some();
    let mut admin = world.admin().await;
    let short = request(&world.admin, &bob).tag(["ttl", "60"]).sign();
    let long = request(&world.admin, &bob).tag(["ttl", "604800"]).sign();
    let none = request(&world.admin, &bob).sign();
    for event in [&short, &long, &none] {
        admin.publish(event).await.ok();
    }
    let mut bobs = world.client(&[&bob]).await;
    let filter = json!({"kinds": [447]});
    world.relay.advance(59);
    assert_eq!(shown(&mut bobs, filter.clone()).await.map(|ids| ids.len()), Ok(3));
    world.relay.advance(1);
    assert!(!sees(&mut bobs, &short).await);
    world.relay.advance(3 * DAY - 61);
    assert_eq!(shown(&mut bobs, filter.clone()).await.map(|ids| ids.len()), Ok(2));
    world.relay.advance(1);
    assert_eq!(shown(&mut bobs, filter).await, Ok(vec![]));
}

/// No configuration keeps a 447 longer than 7 days.
#[tokio::test]
async fn request_ends_after_seven_days() {
    let world = World::with(|config| config.mls_gateway.keypackage_request_ttl_secs = 30 * DAY).await;
    let bob = Keys::random();
    let event = request(&world.admin, &bob).tag(["ttl", "99999999"]).sign();
    world.admin().await.publish(&event).await.ok();
    let mut bobs = world.client(&[&bob]).await;
    world.relay.advance(7 * DAY - 1);
    assert!(sees(&mut bobs, &event).await);
    world.relay.advance(1);
    assert!(!sees(&mut bobs, &event).await);
}

/// A `ttl` is a whole number of seconds above 0.
#[tokio::test]
async fn malformed_ttl_is_refused() {
    let world = World::new().await;
    let bob = Keys::random();
    let mut admin = world.admin().await;
    for ttl in ["0", "-1", "1.5", "a week", ""] {
        admin.publish(&request(&world.admin, &bob).tag(["ttl", ttl]).sign()).await.refused("invalid");
    }
}

/// Without admin keys and without a system key nobody publishes requests.
#[tokio::test]
async fn without_admins_nobody_requests() {
    let relay = TestRelay::start(|_| {}).await;
    let [alice, bob] = Keys::some();
    let mut client = Client::of(&relay, &[&alice]).await;
    client.publish(&request(&alice, &bob).sign()).await.refused("restricted");
}
