//! docs/rules.md, "Gift wraps": membership by gift wraps.

use nostr_extensions::Source;
use nostr_extensions::mls_gateway::group::Role;

use super::World;
use crate::support::{
    Keys,
    gateway::{capability, message, roster, welcome},
};

const DAY: u64 = 86_400;

/// The first wrap for a named id founds the group: its publisher is admin, its recipient a member.
#[tokio::test]
async fn first_wrap_founds_the_group() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    let mut alices = world.client(&[&alice]).await;
    alices.publish(&welcome(&bob, "grp_a").sign()).await.ok();
    let roles = world.roles("grp_a").await;
    assert_eq!((roles[&alice.hex()], roles[&bob.hex()]), (Role::Admin, Role::Member));
    alices.publish(&message("grp_a").sign()).await.ok();
    world.client(&[&bob]).await.publish(&message("grp_a").sign()).await.ok();
}

/// An authenticated author founds the group, even if another key of the connection came first.
#[tokio::test]
async fn an_authenticated_author_is_the_founder() {
    let world = World::new().await;
    let [alice, bob, carol] = Keys::some();
    let event = bob.event(1059).tag(["p", &carol.hex()]).tag(["h", "grp_a"]).sign();
    world.client(&[&alice, &bob]).await.publish(&event).await.ok();
    assert_eq!(world.roles("grp_a").await.get(&bob.hex()), Some(&Role::Admin));
    assert_eq!(world.roles("grp_a").await.get(&alice.hex()), None);
}

/// A wrap adds its recipient only if its publisher is a member already.
#[tokio::test]
async fn members_add_by_wraps_and_strangers_do_not() {
    let world = World::new().await;
    let [alice, bob, carol, eve] = Keys::some();
    world.client(&[&alice]).await.publish(&welcome(&bob, "grp_a").sign()).await.ok();
    world.client(&[&bob]).await.publish(&welcome(&carol, "grp_a").sign()).await.ok();
    assert_eq!(world.roles("grp_a").await.get(&carol.hex()), Some(&Role::Member));
    let stranger = welcome(&eve, "grp_a").sign();
    world.client(&[&eve]).await.publish(&stranger).await.refused("restricted");
    world.client(&[]).await.publish(&welcome(&eve, "grp_a").sign()).await.refused("auth-required");
    let forged = alice.event(1059).tag(["p", &eve.hex()]).tag(["h", "grp_a"]).sign();
    world.client(&[&eve]).await.publish(&forged).await.refused("restricted");
    assert_eq!(world.roles("grp_a").await.len(), 3);
    world.client(&[&eve]).await.publish(&message("grp_a").sign()).await.refused("restricted");
}

/// A wrap that has expired, or that says badly when it does, is refused alike whatever its group is, also while a
/// client has time for its AUTH. It would change nothing, so that the question would cost nothing.
#[tokio::test]
async fn an_expired_wrap_tells_nothing_about_its_group() {
    let world = World::with(|config| config.auth.grace_ms = 600_000).await;
    let [alice, bob, eve] = Keys::some();
    let [managed, unknown] = [capability(), capability()];
    world.group("grp_a", &[&alice]).await;
    world.group(&managed, &[&alice]).await;
    let past = world.relay.now().to_string();
    for end in [past.as_str(), "never"] {
        let mut reasons = std::collections::BTreeSet::new();
        for group in ["grp_a", "grp_unknown", &managed, &unknown] {
            for keys in [&[&eve][..], &[]] {
                let mut client = world.client(keys).await;
                let wrap = welcome(&bob, group).tag(["expiration", end]).sign();
                reasons.insert(client.publish(&wrap).await.refused("invalid").to_owned());
            }
        }
        assert_eq!(reasons.len(), 1, "{reasons:?}");
    }
}

/// An anonymous publisher founds nothing, and no key founds a group by a wrap to itself.
#[tokio::test]
async fn nobody_founds_anonymously_or_for_themselves() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    world.client(&[]).await.publish(&welcome(&bob, "grp_a").sign()).await.refused("auth-required");
    world.client(&[&alice]).await.publish(&welcome(&alice, "grp_b").sign()).await.refused("restricted");
    for group in ["grp_a", "grp_b"] {
        assert!(!world.state(group).await.is_managed());
        world.client(&[&bob]).await.publish(&message(group).sign()).await.refused("restricted");
    }
}

/// A wrap founds no 64-hex `h` while unlisted groups are on, and does when they are off.
#[tokio::test]
async fn wraps_never_found_an_unlisted_id() {
    let [alice, bob] = Keys::some();
    let group = capability();
    let on = World::new().await;
    on.client(&[&alice]).await.publish(&welcome(&bob, &group).sign()).await.ok();
    assert!(!on.state(&group).await.is_managed());
    let off = World::with(|config| config.mls_gateway.unlisted_groups = false).await;
    off.client(&[&alice]).await.publish(&welcome(&bob, &group).sign()).await.ok();
    assert!(off.state(&group).await.is_managed());
}

/// A key founds at most 20 groups a day.
#[tokio::test]
async fn a_key_founds_twenty_groups_a_day() {
    let world = World::new().await;
    let [alice, bob, carol] = Keys::some();
    let mut alices = world.client(&[&alice]).await;
    for n in 0..20 {
        alices.publish(&welcome(&bob, &format!("grp_{n}")).sign()).await.ok();
    }
    // The answer is the one for a group that exists.
    let reason = alices.publish(&welcome(&bob, "grp_20").sign()).await.refused("restricted").to_owned();
    let [dave] = Keys::some();
    world.client(&[&dave]).await.publish(&welcome(&bob, "grp_dave").sign()).await.ok();
    assert_eq!(alices.publish(&welcome(&bob, "grp_dave").sign()).await.refused("restricted"), reason);
    assert!(!world.state("grp_20").await.is_managed());
    alices.publish(&welcome(&carol, "grp_0").sign()).await.ok();
    world.client(&[&carol]).await.publish(&welcome(&bob, "grp_20").sign()).await.ok();
    world.relay.advance(DAY + 1);
    alices.publish(&welcome(&bob, "grp_21").sign()).await.ok();
    assert!(world.state("grp_21").await.is_managed());
}

/// A group that has a roster is not changed by wraps.
#[tokio::test]
async fn wraps_do_not_change_a_roster_group() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    world.group("grp_a", &[&alice]).await;
    world.client(&[&alice]).await.publish(&welcome(&bob, "grp_a").sign()).await.ok();
    assert_eq!(world.roles("grp_a").await.len(), 1);
}

/// Wraps found nothing and add nobody if they are no source of membership.
#[tokio::test]
async fn wraps_can_be_off() {
    let world = World::with(|config| config.mls_gateway.membership_sources = vec![Source::Roster]).await;
    let [alice, bob] = Keys::some();
    world.client(&[&alice]).await.publish(&welcome(&bob, "grp_a").sign()).await.ok();
    assert!(!world.state("grp_a").await.is_managed());
}

/// The founder is a group admin, whose rosters are accepted.
#[tokio::test]
async fn founder_may_change_the_roster() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    let mut alices = world.client(&[&alice]).await;
    alices.publish(&welcome(&bob, "grp_a").sign()).await.ok();
    world
        .client(&[&bob])
        .await
        .publish(&roster(&bob, "grp_a", 1, "remove", &[&alice]).sign())
        .await
        .refused("restricted");
    alices.publish(&roster(&alice, "grp_a", 1, "remove", &[&bob]).sign()).await.ok();
    assert_eq!(world.roles("grp_a").await.len(), 1);
}

/// Wraps of strangers race and found one group, with one admin.
#[tokio::test]
async fn one_racer_founds() {
    let world = World::new().await;
    let recipient = Keys::random();
    let racers = (0..10).map(|_| async {
        let founder = Keys::random();
        world.client(&[&founder]).await.publish(&welcome(&recipient, "grp_a").sign()).await.accepted
    });
    let accepted = futures_util::future::join_all(racers).await;
    assert_eq!(accepted.into_iter().filter(|accepted| *accepted).count(), 1, "the others are told");
    let roles = world.roles("grp_a").await;
    assert_eq!(roles.values().filter(|role| **role == Role::Admin).count(), 1);
    assert_eq!(roles.len(), 2);
}
