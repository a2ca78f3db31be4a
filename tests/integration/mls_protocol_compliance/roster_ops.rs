//! docs/rules.md, "Rosters": the effect of each operation of a roster, and the signers that it is refused to.

use std::collections::BTreeMap;

use nostr_extensions::mls_gateway::group::Role;

use super::World;
use crate::support::{
    Keys, TestRelay,
    gateway::{message, roster, welcome},
};

fn roles(list: &[(&Keys, Role)]) -> BTreeMap<String, Role> {
    list.iter().map(|(keys, role)| (keys.hex(), *role)).collect()
}

use Role::{Admin, Member};

/// `bootstrap` founds a group with its `p`s, and `role` for all of them.
#[tokio::test]
async fn bootstrap_founds_a_group_with_one_role() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    world.group("grp_a", &[&alice, &bob]).await;
    assert_eq!(world.roles("grp_a").await, roles(&[(&alice, Member), (&bob, Member)]));
    let admins = roster(&world.admin, "grp_b", 1, "bootstrap", &[&alice, &bob]).tag(["role", "admin"]).sign();
    world.admin().await.publish(&admins).await.ok();
    assert_eq!(world.roles("grp_b").await, roles(&[(&alice, Admin), (&bob, Admin)]));
}

/// `bootstrap` is refused if a record exists.
#[tokio::test]
async fn bootstrap_is_refused_where_a_record_exists() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    world.group("grp_a", &[&alice]).await;
    let again = roster(&world.admin, "grp_a", 2, "bootstrap", &[&bob]).sign();
    world.admin().await.publish(&again).await.refused("invalid");
    assert_eq!(world.roles("grp_a").await, roles(&[(&alice, Member)]));
}

/// An admin key's `bootstrap` replaces a record that only gift wraps made.
#[tokio::test]
async fn bootstrap_by_an_admin_key_replaces_what_wraps_made() {
    let world = World::new().await;
    let [alice, bob, carol] = Keys::some();
    world.client(&[&alice]).await.publish(&welcome(&bob, "grp_a").sign()).await.ok();
    let by_founder = roster(&alice, "grp_a", 1, "bootstrap", &[&alice]).sign();
    world.client(&[&alice]).await.publish(&by_founder).await.refused("invalid");
    world.group("grp_a", &[&carol]).await;
    assert_eq!(world.roles("grp_a").await, roles(&[(&carol, Member)]));
}

/// With `open_bootstrap` anyone who may write founds a group, and is its admin.
#[tokio::test]
async fn open_bootstrap_lets_anyone_found_and_lead() {
    let world = World::with(|config| config.mls_gateway.open_bootstrap = true).await;
    let [alice, bob, eve] = Keys::some();
    let mut alices = world.client(&[&alice]).await;
    alices.publish(&roster(&alice, "grp_a", 1, "add", &[&bob]).sign()).await.refused("restricted");
    alices.publish(&roster(&alice, "grp_a", 1, "bootstrap", &[&bob]).sign()).await.ok();
    assert_eq!(world.roles("grp_a").await, roles(&[(&alice, Admin), (&bob, Member)]));
    world
        .client(&[&eve])
        .await
        .publish(&roster(&eve, "grp_a", 2, "bootstrap", &[&eve]).sign())
        .await
        .refused("restricted");

    let shut = World::new().await;
    shut.client(&[&alice])
        .await
        .publish(&roster(&alice, "grp_a", 1, "bootstrap", &[&bob]).sign())
        .await
        .refused("restricted");
}

/// `add` adds keys with `role`, and never changes a present member.
#[tokio::test]
async fn add_never_changes_a_present_member() {
    let world = World::new().await;
    let [alice, bob, carol] = Keys::some();
    world.group("grp_a", &[&alice]).await;
    let mut admin = world.admin().await;
    let add = roster(&world.admin, "grp_a", 2, "add", &[&alice, &bob]).tag(["role", "admin"]).sign();
    admin.publish(&add).await.ok();
    world.change("grp_a", 3, "add", &[&bob, &carol]).await;
    assert_eq!(world.roles("grp_a").await, roles(&[(&alice, Member), (&bob, Admin), (&carol, Member)]));
}

/// `remove` removes members, and passes over keys that are none.
#[tokio::test]
async fn remove_takes_out() {
    let world = World::new().await;
    let [alice, bob, carol] = Keys::some();
    world.group("grp_a", &[&alice, &bob]).await;
    world.change("grp_a", 2, "remove", &[&bob, &carol]).await;
    assert_eq!(world.roles("grp_a").await, roles(&[(&alice, Member)]));
}

/// A member may remove itself alone, and may do nothing else.
#[tokio::test]
async fn a_member_may_leave_alone() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    world.group("grp_a", &[&alice, &bob]).await;
    let mut bobs = world.client(&[&bob]).await;
    for (op, keys) in [
        ("remove", &[&alice][..]),
        ("remove", &[&alice, &bob]),
        ("add", &[&bob]),
        ("promote", &[&bob]),
        ("replace", &[&bob]),
    ] {
        bobs.publish(&roster(&bob, "grp_a", 2, op, keys).sign()).await.refused("restricted");
    }
    bobs.publish(&roster(&bob, "grp_a", 2, "remove", &[&bob]).sign()).await.ok();
    assert_eq!(world.roles("grp_a").await, roles(&[(&alice, Member)]));
    bobs.publish(&message("grp_a").sign()).await.refused("restricted");
}

/// `promote` makes admins, `demote` members; a key that is no member is refused by name.
#[tokio::test]
async fn promote_and_demote_change_roles() {
    let world = World::new().await;
    let [alice, bob, eve] = Keys::some();
    world.group("grp_a", &[&alice, &bob]).await;
    world.change("grp_a", 2, "promote", &[&alice, &bob]).await;
    assert_eq!(world.roles("grp_a").await, roles(&[(&alice, Admin), (&bob, Admin)]));
    world.change("grp_a", 3, "demote", &[&bob]).await;
    assert_eq!(world.roles("grp_a").await, roles(&[(&alice, Admin), (&bob, Member)]));
    for op in ["promote", "demote"] {
        let event = roster(&world.admin, "grp_a", 4, op, &[&bob, &eve]).sign();
        let reason = world.admin().await.publish(&event).await.refused("invalid").to_owned();
        assert!(reason.contains(&eve.hex()), "{reason}");
    }
    assert_eq!(world.roles("grp_a").await, roles(&[(&alice, Admin), (&bob, Member)]), "nothing changed");
}

/// `replace` sets the list: members that stay keep their role, and new ones take `role`.
#[tokio::test]
async fn replace_keeps_the_roles_of_those_who_stay() {
    let world = World::new().await;
    let [alice, bob, carol, dave] = Keys::some();
    world.group("grp_a", &[&alice, &bob, &carol]).await;
    world.change("grp_a", 2, "promote", &[&alice]).await;
    let replace = roster(&world.admin, "grp_a", 3, "replace", &[&alice, &bob, &dave]).tag(["role", "admin"]).sign();
    world.admin().await.publish(&replace).await.ok();
    assert_eq!(world.roles("grp_a").await, roles(&[(&alice, Admin), (&bob, Member), (&dave, Admin)]));
}

/// An operation on a group without a record is refused, unless it is `bootstrap`.
#[tokio::test]
async fn a_group_is_founded_before_it_is_changed() {
    let world = World::new().await;
    let alice = Keys::random();
    for op in ["add", "remove", "promote", "demote", "replace"] {
        world.admin().await.publish(&roster(&world.admin, "grp_a", 1, op, &[&alice]).sign()).await.refused("invalid");
    }
    assert!(!world.state("grp_a").await.is_managed());
}

/// A group admin changes its own group and no other.
#[tokio::test]
async fn group_admins_lead_their_own_group_alone() {
    let world = World::new().await;
    let [alice, bob, carol] = Keys::some();
    world.group("grp_a", &[&alice]).await;
    world.change("grp_a", 2, "promote", &[&alice]).await;
    world.group("grp_b", &[&bob]).await;
    let mut alices = world.client(&[&alice]).await;
    alices.publish(&roster(&alice, "grp_a", 3, "add", &[&carol]).sign()).await.ok();
    alices.publish(&roster(&alice, "grp_b", 2, "add", &[&carol]).sign()).await.refused("restricted");
    assert_eq!(world.roles("grp_b").await.len(), 1);
}

/// After any operation by a group admin the signer is still an admin; an admin key may do anything.
#[tokio::test]
async fn group_admins_cannot_leave_the_group_without_themselves() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    world.group("grp_a", &[&alice, &bob]).await;
    world.change("grp_a", 2, "promote", &[&alice, &bob]).await;
    let mut alices = world.client(&[&alice]).await;
    for (op, keys) in
        [("remove", &[&alice][..]), ("demote", &[&alice]), ("replace", &[&bob]), ("remove", &[&alice, &bob])]
    {
        alices.publish(&roster(&alice, "grp_a", 3, op, keys).sign()).await.refused("invalid");
    }
    world.change("grp_a", 3, "remove", &[&alice, &bob]).await;
    assert!(world.roles("grp_a").await.is_empty());
    assert!(world.state("grp_a").await.is_managed(), "a group without members is a group");
    alices.publish(&message("grp_a").sign()).await.refused("restricted");
}

/// An admin key's forced `replace` is accepted at any `seq`, and sets it; other keys and other operations cannot force.
#[tokio::test]
async fn forced_replace_sets_the_seq() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    world.group("grp_a", &[&alice]).await;
    world.change("grp_a", 100, "promote", &[&alice]).await;
    let forced = |by: &Keys, seq, op| roster(by, "grp_a", seq, op, &[&alice, &bob]).tag(["force", "true"]).sign();
    world.client(&[&alice]).await.publish(&forced(&alice, 5, "replace")).await.refused("invalid");
    world.admin().await.publish(&forced(&world.admin, 5, "add")).await.refused("invalid");
    world.admin().await.publish(&forced(&world.admin, 5, "replace")).await.ok();
    assert_eq!(world.record("grp_a").await.seq, 5);
    world.change("grp_a", 6, "remove", &[&bob]).await;
}

/// Nobody can publish a roster if rosters are no source of membership.
#[tokio::test]
async fn rosters_can_be_off() {
    use nostr_extensions::Source;
    let admin = Keys::random();
    let relay = TestRelay::start(|config| {
        config.mls_gateway.admin_pubkeys = vec![admin.public()];
        config.mls_gateway.membership_sources = vec![Source::GiftWrap];
    })
    .await;
    let mut client = crate::support::Client::of(&relay, &[&admin]).await;
    client.publish(&roster(&admin, "grp_a", 1, "bootstrap", &[&admin]).sign()).await.refused("blocked");
}
