//! docs/rules.md, "Identity" 9 to 11: the whitelist lists residents.

use nostr_relay::config::Config;

use super::World;
use crate::support::{
    Keys,
    gateway::{capability, key_package, message, noise, request, roster, welcome, wrap},
};

fn listed<'a>(residents: &'a [&'a Keys]) -> impl FnOnce(&mut Config) + 'a {
    |config| config.auth.pubkey_whitelist = residents.iter().map(|keys| keys.public()).collect()
}

/// With `auth.enabled` a key that is no resident cannot AUTH; admin keys and the system key can, unlisted.
#[tokio::test]
async fn strangers_cannot_auth_where_auth_is_asked() {
    let [alice, system, eve] = Keys::some();
    let world = World::with(|config| {
        listed(&[&alice])(config);
        config.auth.enabled = true;
        config.mls_gateway.system_pubkey = Some(system.public());
    })
    .await;
    let mut client = world.client(&[&alice, &system, &world.admin]).await;
    client.auth(&eve).await.refused("restricted");
    let mut stranger = world.client(&[]).await;
    stranger.auth(&eve).await.refused("restricted");
    stranger.publish(&alice.event(1).sign()).await.refused("auth-required");
}

/// Without `auth.enabled` a write is accepted if a reader key or the author is a resident.
#[tokio::test]
async fn residents_write_by_key_or_by_signature() {
    let [alice, eve] = Keys::some();
    let world = World::with(listed(&[&alice])).await;
    world.client(&[]).await.publish(&alice.event(1).sign()).await.ok();
    world.client(&[&eve]).await.publish(&alice.event(1).content("2").sign()).await.ok();
    world.client(&[&alice]).await.publish(&eve.event(1).sign()).await.ok();
    world.client(&[&world.admin]).await.publish(&eve.event(1).content("2").sign()).await.ok();
    for event in [eve.event(1).content("3").sign(), key_package(&eve).sign(), noise(&eve, &alice).sign()] {
        world.client(&[]).await.publish(&event).await.refused("auth-required");
        world.client(&[&eve]).await.publish(&event).await.refused("restricted");
    }
}

/// A 1059 to a resident is accepted from anyone; a 1059 to a stranger is not.
#[tokio::test]
async fn wraps_to_residents_are_taken_from_anyone() {
    let [alice, eve] = Keys::some();
    let world = World::with(listed(&[&alice])).await;
    world.client(&[]).await.publish(&wrap(&alice).sign()).await.ok();
    world.client(&[]).await.publish(&wrap(&eve).sign()).await.refused("auth-required");
    world.client(&[&eve]).await.publish(&wrap(&eve).sign()).await.refused("restricted");
}

/// A member of a managed group writes there, resident or not; being on a roster makes no one a resident.
#[tokio::test]
async fn members_write_to_their_group_and_are_no_residents() {
    let [alice, bob] = Keys::some();
    let world = World::with(listed(&[&alice])).await;
    world.group("grp_a", &[&alice, &bob]).await;
    let mut bobs = world.client(&[&bob]).await;
    bobs.publish(&message("grp_a").sign()).await.ok();
    bobs.publish(&message("grp_b").sign()).await.refused("restricted");
    bobs.publish(&bob.event(1).sign()).await.refused("restricted");
    bobs.publish(&wrap(&bob).sign()).await.refused("restricted");
}

/// A 445 to an unlisted group is accepted from anyone while unlisted groups are on.
#[tokio::test]
async fn unlisted_groups_are_open_beside_a_whitelist() {
    let alice = Keys::random();
    let group = capability();
    let on = World::with(listed(&[&alice])).await;
    on.client(&[]).await.publish(&message(&group).sign()).await.ok();
    let off = World::with(|config| {
        listed(&[&alice])(config);
        config.mls_gateway.unlisted_groups = false;
    })
    .await;
    off.client(&[&Keys::random()]).await.publish(&message(&group).sign()).await.refused("restricted");
    off.client(&[&alice]).await.publish(&message(&group).sign()).await.refused("restricted");
}

/// With a whitelist the founder of a group must be a resident.
#[tokio::test]
async fn founders_are_residents() {
    let [alice, bob, eve] = Keys::some();
    let world = World::with(listed(&[&alice])).await;
    world.client(&[&eve]).await.publish(&welcome(&alice, "grp_eve").sign()).await.refused("restricted");
    assert!(!world.state("grp_eve").await.is_managed());
    world.client(&[&alice]).await.publish(&welcome(&bob, "grp_alice").sign()).await.ok();
    assert_eq!(world.roles("grp_alice").await.len(), 2);
}

/// A key off the list leaves its group, deletes its events and vanishes.
#[tokio::test]
async fn leaving_needs_no_residence() {
    let [alice, eve] = Keys::some();
    let world = World::with(listed(&[&alice])).await;
    world.group("grp_a", &[&alice, &eve]).await;
    let mut eves = world.client(&[&eve]).await;
    let said = message("grp_a").sign();
    eves.publish(&said).await.ok();
    eves.publish(&eve.event(1).sign()).await.refused("restricted");
    eves.publish(&roster(&eve, "grp_a", 2, "remove", &[&alice]).sign()).await.refused("restricted");
    eves.publish(&roster(&eve, "grp_a", 2, "remove", &[&eve]).sign()).await.ok();
    assert!(!world.roles("grp_a").await.contains_key(&eve.hex()));
    eves.publish(&eve.event(5).tag(["e", &"ab".repeat(32)]).sign()).await.ok();
    eves.publish(&eve.event(62).tag(["relay", "ALL_RELAYS"]).sign()).await.ok();
}

/// A resident is no admin.
#[tokio::test]
async fn residents_are_no_admins() {
    let alice = Keys::random();
    let world = World::with(listed(&[&alice])).await;
    world.client(&[&alice]).await.publish(&request(&alice, &alice).sign()).await.refused("restricted");
}
