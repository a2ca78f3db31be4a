//! The specification's section "Roster/Policy Control (Kind 450)": form, order, and permission.

use serde_json::json;

use super::{World, sees};
use crate::support::{
    Event, Keys,
    gateway::{capability, message, roster, welcome},
};

const DAY: u64 = 86_400;

/// A roster has exactly one `h`, `seq` and `op`, and at least one `p`.
#[tokio::test]
async fn roster_has_one_group_one_seq_one_op_and_keys() {
    let world = World::new().await;
    let [alice] = Keys::some();
    let mut admin = world.admin().await;
    let good = || roster(&world.admin, "grp_a", 1, "bootstrap", &[&alice]);
    let bare = |tags: &[&str]| {
        let all = [("h", "grp_a"), ("seq", "1"), ("op", "bootstrap"), ("p", &alice.hex())];
        let kept = all.iter().filter(|(name, _)| tags.contains(name));
        kept.fold(world.admin.event(450), |draft, (name, value)| draft.tag([*name, *value])).sign()
    };
    for missing in [["seq", "op", "p"], ["h", "op", "p"], ["h", "seq", "p"], ["h", "seq", "op"]] {
        admin.publish(&bare(&missing)).await.refused("invalid");
    }
    for (name, value) in [("h", "grp_b"), ("seq", "2"), ("op", "add")] {
        admin.publish(&good().tag([name, value]).sign()).await.refused("invalid");
    }
    for (name, value) in [("p", "not a key"), ("p", &alice.hex().to_uppercase()), ("role", "owner")] {
        admin.publish(&good().tag([name, value]).sign()).await.refused("invalid");
    }
    admin.publish(&roster(&world.admin, "grp_a", 1, "destroy", &[&alice]).sign()).await.refused("invalid");
    admin.publish(&good().tag(["note", "Onboarding batch"]).content(r#"{"batch_id":"x"}"#).sign()).await.ok();
}

/// `seq` is decimal, 1 to 2^53-1, without leading zero.
#[tokio::test]
async fn seq_is_a_plain_decimal() {
    let world = World::new().await;
    let [alice] = Keys::some();
    let mut admin = world.admin().await;
    let with_seq = |seq: &str| {
        let draft = world.admin.event(450).tag(["h", "grp_a"]).tag(["seq", seq]).tag(["op", "bootstrap"]);
        draft.tag(["p", &alice.hex()]).sign()
    };
    for seq in ["0", "01", "-1", "+1", "1.0", "1e3", " 1", "", "x", "9007199254740992", "99999999999999999999999"] {
        admin.publish(&with_seq(seq)).await.refused("invalid");
    }
    admin.publish(&with_seq("9007199254740991")).await.ok();
}

/// `seq` must rise: the refusal of a stale one names the current one, and a gap is fine.
#[tokio::test]
async fn the_refusal_of_a_stale_seq_names_the_current_one() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    world.group("grp_a", &[&alice]).await;
    world.change("grp_a", 42, "add", &[&bob]).await;
    let mut admin = world.admin().await;
    for seq in [1, 17, 42] {
        let stale = roster(&world.admin, "grp_a", seq, "remove", &[&bob]).sign();
        let reason = admin.publish(&stale).await.reason;
        assert_eq!(reason, format!("invalid: roster seq {seq} is not above 42"));
    }
    assert_eq!(world.roles("grp_a").await.len(), 2, "a refused roster changes nothing");
    world.change("grp_a", 5_000, "remove", &[&bob]).await;
}

/// A group admin may step at most 1,000 ahead, an admin key any number.
#[tokio::test]
async fn group_admin_steps_at_most_a_thousand() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    world.group("grp_a", &[&alice]).await;
    world.change("grp_a", 2, "promote", &[&alice]).await;
    let mut alices = world.client(&[&alice]).await;
    alices.publish(&roster(&alice, "grp_a", 1_003, "add", &[&bob]).sign()).await.refused("invalid");
    alices.publish(&roster(&alice, "grp_a", 1_002, "add", &[&bob]).sign()).await.ok();
}

/// Rosters race with one `seq`: one of them wins, and its change is the group's.
#[tokio::test]
async fn one_racer_wins_a_seq() {
    let world = World::new().await;
    let [alice] = Keys::some();
    world.group("grp_a", &[&alice]).await;
    for seq in 2..5 {
        let racers = (0..20).map(|_| async {
            let newcomer = Keys::random();
            let mut admin = world.admin().await;
            let answer = admin.publish(&roster(&world.admin, "grp_a", seq, "add", &[&newcomer]).sign()).await;
            (newcomer.hex(), answer)
        });
        let outcomes = futures_util::future::join_all(racers).await;
        let winners: Vec<_> = outcomes.iter().filter(|(_, answer)| answer.accepted).collect();
        assert_eq!(winners.len(), 1);
        let roles = world.roles("grp_a").await;
        assert_eq!(roles.len() as u64, seq);
        assert!(roles.contains_key(&winners[0].0));
        for (_, answer) in outcomes.iter().filter(|(_, answer)| !answer.accepted) {
            assert_eq!(answer.reason, format!("invalid: roster seq {seq} is not above {seq}"));
        }
    }
}

/// The same event again is `duplicate:`, and true.
#[tokio::test]
async fn same_roster_again_is_a_duplicate() {
    let world = World::new().await;
    let [alice] = Keys::some();
    let event = roster(&world.admin, "grp_a", 1, "bootstrap", &[&alice]).sign();
    let mut admin = world.admin().await;
    admin.publish(&event).await.ok();
    let again = admin.publish(&event).await;
    assert!(again.accepted && again.reason.starts_with("duplicate: "), "{again:?}");
    let twice = roster(&world.admin, "grp_a", 2, "add", &[&Keys::random()]).sign();
    let answers = admin.publish_all(&[twice.clone(), twice]).await;
    assert!(answers.iter().all(|answer| answer.accepted), "{answers:?}");
}

/// A reader that is no admin of the group gets one fixed refusal, for every group, `seq` and `p`.
#[tokio::test]
async fn strangers_learn_nothing_from_a_refusal() {
    let world = World::new().await;
    let [alice, mallory] = Keys::some();
    world.group("grp_a", &[&alice]).await;
    let unlisted = capability();
    world.client(&[]).await.publish(&message(&unlisted).sign()).await.ok();
    let mut client = world.client(&[&mallory]).await;
    let mut reasons = Vec::new();
    for group in ["grp_a", "grp_none", &unlisted] {
        for (seq, op) in [(1, "bootstrap"), (2, "add"), (1, "add"), (9_999, "replace"), (2, "destroy")] {
            for keys in [&[&alice][..], &[&mallory], &[]] {
                let event = roster(&mallory, group, seq, op, keys).sign();
                reasons.push(client.publish(&event).await.refused("restricted").to_owned());
            }
        }
    }
    reasons.dedup();
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    // A member that is no admin gets the same answer.
    let by_member = roster(&alice, "grp_a", 1, "add", &[&mallory]).sign();
    assert_eq!(world.client(&[&alice]).await.publish(&by_member).await.reason, reasons[0]);
}

/// The signer's key must be on the connection: no other reader can publish its roster.
#[tokio::test]
async fn roster_needs_its_signer_on_the_connection() {
    let world = World::new().await;
    let [alice] = Keys::some();
    let event = roster(&world.admin, "grp_a", 1, "bootstrap", &[&alice]).sign();
    world.client(&[]).await.publish(&event).await.refused("auth-required");
    world.client(&[&alice]).await.publish(&event).await.refused("restricted");
    world.admin().await.publish(&event).await.ok();
}

/// A roster is kept for `roster_policy_ttl_days`; the group's state and its last `seq` outlive it.
#[tokio::test]
async fn group_outlives_its_rosters() {
    let world = World::with(|config| config.mls_gateway.roster_policy_ttl_days = 2).await;
    let [alice] = Keys::some();
    let event = roster(&world.admin, "grp_a", 7, "bootstrap", &[&alice]).sign();
    let mut admin = world.admin().await;
    admin.publish(&event).await.ok();
    world.relay.advance(2 * DAY - 1);
    assert!(sees(&mut admin, &event).await);
    world.relay.advance(1);
    assert!(!sees(&mut admin, &event).await);
    world.sweep().await;
    assert_eq!(world.roles("grp_a").await.len(), 1);
    let stale = roster(&world.admin, "grp_a", 7, "add", &[&Keys::random()]).sign();
    admin.publish(&stale).await.refused("invalid");
    let mut alices = world.client(&[&alice]).await;
    alices.publish(&message("grp_a").created_at(world.relay.now()).sign()).await.ok();
}

/// An `expiration` on a roster is refused.
#[tokio::test]
async fn roster_carries_no_expiration() {
    let world = World::new().await;
    let until = (world.relay.now() + DAY).to_string();
    let event = roster(&world.admin, "grp_a", 1, "bootstrap", &[&Keys::random()]).tag(["expiration", &until]).sign();
    world.admin().await.publish(&event).await.refused("invalid");
}

/// A roster has at most 2,000 `p` tags, and a group at most 10,000 members.
#[tokio::test]
async fn rosters_and_groups_are_bounded() {
    let world = World::new().await;
    let mut admin = world.admin().await;
    let keys = |from: usize, count: usize| (from..from + count).map(|n| format!("{n:064x}"));
    let of = |seq: u64, op: &str, from: usize, count: usize| -> Event {
        roster(&world.admin, "grp_a", seq, op, &[]).tags("p", keys(from, count)).sign()
    };
    admin.publish(&of(1, "bootstrap", 0, 2_001)).await.refused("invalid");
    admin.publish(&of(1, "bootstrap", 0, 2_000)).await.ok();
    for n in 1..5_usize {
        admin.publish(&of(1 + n as u64, "add", n * 2_000, 2_000)).await.ok();
    }
    assert_eq!(world.roles("grp_a").await.len(), 10_000);
    admin.publish(&of(6, "add", 10_000, 1)).await.refused("invalid");
    admin.publish(&of(6, "add", 9_999, 1)).await.refused("invalid");
    admin.publish(&of(6, "promote", 9_999, 1)).await.ok();
}

/// A group's display name is the one of the highest `seq` that has a name.
#[tokio::test]
async fn group_is_named_by_the_last_roster_with_a_name() {
    let world = World::new().await;
    let [alice] = Keys::some();
    let mut admin = world.admin().await;
    let named = |seq, op, name| roster(&world.admin, "grp_a", seq, op, &[&alice]).tag(["name", name]).sign();
    admin.publish(&named(1, "bootstrap", "Team Chat")).await.ok();
    world.change("grp_a", 2, "promote", &[&alice]).await;
    assert_eq!(world.record("grp_a").await.display_name, Some((1, "Team Chat".to_owned())));
    admin.publish(&named(3, "demote", "Crew")).await.ok();
    assert_eq!(world.record("grp_a").await.display_name, Some((3, "Crew".to_owned())));
}

/// The first roster makes a group that gift wraps founded a roster group, which wraps no longer change.
#[tokio::test]
async fn first_roster_makes_a_wrapped_group_a_roster_group() {
    let world = World::new().await;
    let [alice, bob, carol, dave] = Keys::some();
    let mut alices = world.client(&[&alice]).await;
    alices.publish(&welcome(&bob, "grp_a").sign()).await.ok();
    alices.publish(&roster(&alice, "grp_a", 1, "add", &[&carol]).sign()).await.ok();
    alices.publish(&welcome(&dave, "grp_a").sign()).await.ok();
    let roles = world.roles("grp_a").await;
    assert_eq!(roles.len(), 3);
    assert!(!roles.contains_key(&dave.hex()));
    assert_eq!(world.client(&[&dave]).await.count(&[json!({"kinds": [1059]})]).await, Ok(1), "the wrap itself arrives");
}
