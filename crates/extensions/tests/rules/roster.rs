//! Rosters, rule by rule: the change that each makes of a group (docs/rules.md, "Rosters" and "Groups").
use crate::common::{managed, members, roster, view, wrap};
use nostr_extensions::{
    GroupStatus, ManagedGroup, Role,
    Role::{Admin, Member},
    Source,
    mls_gateway::group::{
        Changed, GROUP_MEMBERS_MAX, Refusal, RosterChange, RosterOp, SEQ_MAX, apply_roster, apply_wrap,
    },
};
use nostr_protocol::{PublicKey, Rejection, testing::key};
use proptest::prelude::*;

const ADA_ALICE_BOB: [(&str, Role); 3] = [("ada", Admin), ("alice", Member), ("bob", Member)];

fn grp() -> GroupStatus {
    managed(Source::Roster, 5, &ADA_ALICE_BOB)
}

fn apply(status: &GroupStatus, change: &RosterChange) -> Result<ManagedGroup, Refusal> {
    apply_roster(status, change, 100).map(|changed| {
        assert_delta(status, &changed);
        changed.view
    })
}

/// The delta is exactly the difference: a store that applies it to its index arrives at the members of the group.
fn assert_delta(status: &GroupStatus, changed: &Changed) {
    let mut replayed = match status {
        GroupStatus::Managed(view) => view.members.clone(),
        _ => members(&[]),
    };
    for (key, role) in &changed.delta {
        let before = match role {
            Some(role) => replayed.insert(*key, *role),
            None => replayed.remove(key),
        };
        assert_ne!(before, *role, "nothing is listed that did not change");
    }
    assert_eq!(replayed, changed.view.members);
}

fn words(refusal: Refusal) -> String {
    Rejection::from(refusal).to_string()
}

#[test]
fn seq_is_greater_than_the_groups_last_and_gaps_are_fine() {
    for seq in [6, 7, 1_005] {
        assert_eq!(apply(&grp(), &roster("ada", seq, RosterOp::Add, &["carol"])).unwrap().record.seq, seq);
    }
    for seq in [1, 4, 5] {
        let refused = apply(&grp(), &roster("ada", seq, RosterOp::Add, &["carol"])).unwrap_err();
        assert_eq!(refused, Refusal::StaleSeq { given: seq, current: 5 });
    }
}

#[test]
fn a_stale_seq_is_told_the_current_one() {
    assert_eq!(words(Refusal::StaleSeq { given: 17, current: 42 }), "invalid: roster seq 17 is not above 42");
}

#[test]
fn a_group_admin_steps_at_most_1000_ahead_and_an_admin_key_as_far_as_it_likes() {
    let step = |signer, seq| apply(&grp(), &roster(signer, seq, RosterOp::Add, &["carol"]));
    assert!(step("ada", 1_005).is_ok());
    assert_eq!(step("ada", 1_006).unwrap_err(), Refusal::SeqTooFar { current: 5 });
    assert!(step("operator", SEQ_MAX).is_ok());
    let leave = apply(&grp(), &roster("bob", 1_006, RosterOp::Remove, &["bob"]));
    assert_eq!(leave.unwrap_err(), Refusal::SeqTooFar { current: 5 }, "nor does a member who leaves");
}

#[test]
fn bootstrap_founds_a_group_with_role_for_all_of_its_keys() {
    for role in [Member, Admin] {
        let change = RosterChange { role, ..roster("operator", 3, RosterOp::Bootstrap, &["alice", "bob"]) };
        let view = apply(&GroupStatus::Unknown, &change).unwrap();
        assert_eq!(view.members, members(&[("alice", role), ("bob", role)]));
        assert_eq!((view.record.source, view.record.seq, view.record.created_at), (Source::Roster, 3, 100));
    }
}

#[test]
fn bootstrap_is_for_admin_keys_or_where_it_is_open_for_anyone_who_then_is_the_admin() {
    let change = roster("carol", 1, RosterOp::Bootstrap, &["bob"]);
    assert_eq!(apply(&GroupStatus::Unknown, &change).unwrap_err(), Refusal::NotAdmin);
    let open = RosterChange { open_bootstrap: true, ..change };
    assert_eq!(apply(&GroupStatus::Unknown, &open).unwrap().members, members(&[("carol", Admin), ("bob", Member)]));
    let listed_as_member = RosterChange { keys: vec![key("carol"), key("bob")], ..open };
    let view = apply(&GroupStatus::Unknown, &listed_as_member).unwrap();
    assert_eq!(view.members, members(&[("carol", Admin), ("bob", Member)]));
}

#[test]
fn open_bootstrap_opens_bootstrap_and_nothing_else() {
    for op in [RosterOp::Add, RosterOp::Remove, RosterOp::Promote, RosterOp::Demote, RosterOp::Replace] {
        let change = RosterChange { open_bootstrap: true, force: true, ..roster("carol", 6, op, &["carol"]) };
        assert_eq!(apply(&GroupStatus::Unknown, &change).unwrap_err(), Refusal::NotAdmin, "{op:?}");
        assert_eq!(apply(&grp(), &change).unwrap_err(), Refusal::NotAdmin, "{op:?}");
    }
    let again = RosterChange { open_bootstrap: true, ..roster("carol", 6, RosterOp::Bootstrap, &["carol"]) };
    assert_eq!(apply(&grp(), &again).unwrap_err(), Refusal::NotAdmin);
}

#[test]
fn bootstrap_is_refused_where_a_record_exists() {
    for signer in ["ada", "operator"] {
        let change = roster(signer, 6, RosterOp::Bootstrap, &["carol"]);
        assert_eq!(apply(&grp(), &change).unwrap_err(), Refusal::GroupExists);
    }
    let emptied = managed(Source::Roster, 5, &[]);
    let change = roster("operator", 6, RosterOp::Bootstrap, &["carol"]);
    assert_eq!(apply(&emptied, &change).unwrap_err(), Refusal::GroupExists);
}

#[test]
fn an_admin_keys_bootstrap_replaces_a_record_that_only_gift_wraps_made() {
    let wrapped = managed(Source::GiftWrap, 0, &ADA_ALICE_BOB);
    let view = apply(&wrapped, &roster("operator", 1, RosterOp::Bootstrap, &["carol"])).unwrap();
    assert_eq!(view.members, members(&[("carol", Member)]));
    assert_eq!(view.record.source, Source::Roster);
    let by_group_admin = roster("ada", 1, RosterOp::Bootstrap, &["carol"]);
    assert_eq!(apply(&wrapped, &by_group_admin).unwrap_err(), Refusal::GroupExists);
}

#[test]
fn add_takes_keys_in_with_role_and_never_changes_a_present_member() {
    let change = RosterChange { role: Admin, ..roster("ada", 6, RosterOp::Add, &["alice", "carol"]) };
    let view = apply(&grp(), &change).unwrap();
    assert_eq!(view.members, members(&[("ada", Admin), ("alice", Member), ("bob", Member), ("carol", Admin)]));
    let view = apply(&grp(), &roster("operator", 6, RosterOp::Add, &["ada", "carol"])).unwrap();
    assert_eq!(view.members[&key("ada")], Admin, "an admin stays one");
}

#[test]
fn a_roster_that_changes_nothing_it_names_is_refused() {
    let wrapped = managed(Source::GiftWrap, 5, &[("ada", Admin), ("alice", Member), ("bob", Member)]);
    for status in [grp(), wrapped] {
        for (op, names) in [
            (RosterOp::Add, &["alice", "bob"][..]),
            (RosterOp::Remove, &["carol", "eve"]),
            (RosterOp::Promote, &["ada"]),
            (RosterOp::Demote, &["alice"]),
            (RosterOp::Replace, &["ada", "alice", "bob"]),
        ] {
            for signer in ["ada", "operator"] {
                let change = roster(signer, 6, op, names);
                assert_eq!(apply(&status, &change).unwrap_err(), Refusal::ChangesNothing, "{op:?}");
                let named = RosterChange { name: Some("a new name".to_owned()), ..change };
                assert_eq!(apply(&status, &named).unwrap().record.seq, 6, "a name alone is a change");
            }
        }
        let some = roster("ada", 6, RosterOp::Add, &["alice", "carol"]);
        assert_eq!(apply(&status, &some).unwrap().members.len(), 4, "some of them are enough");
    }
    let name = |seq| RosterChange { name: Some("one".to_owned()), ..roster("ada", seq, RosterOp::Add, &["alice"]) };
    let view = apply(&grp(), &name(6)).unwrap();
    let again = apply(&GroupStatus::Managed(view.into()), &name(7));
    assert_eq!(again.unwrap_err(), Refusal::ChangesNothing, "it has that name");
    let forced = RosterChange { force: true, ..roster("operator", 3, RosterOp::Replace, &["ada", "alice", "bob"]) };
    assert_eq!(apply(&grp(), &forced).unwrap().record.seq, 3, "an admin key sets the seq");
    // A stranger learns nothing of it.
    assert_eq!(apply(&grp(), &roster("carol", 6, RosterOp::Add, &["alice"])).unwrap_err(), Refusal::NotAdmin);
}

/// Only an admin's roster changes the source of a group.
#[test]
fn a_plain_member_that_leaves_changes_no_source() {
    let wrapped = managed(Source::GiftWrap, 0, &[("ada", Admin), ("alice", Member)]);
    let left = apply(&wrapped, &roster("alice", 1, RosterOp::Remove, &["alice"])).unwrap();
    assert_eq!((left.record.source, left.record.seq), (Source::GiftWrap, 1));
    let invited = apply_wrap(&GroupStatus::Managed(left.into()), &wrap(&["ada"], "bob"), 0, 100).unwrap();
    assert!(invited.is_some_and(|changed| changed.view.members.contains_key(&key("bob"))), "wraps decide still");
    for signer in ["ada", "operator"] {
        let changed = apply(&wrapped, &roster(signer, 1, RosterOp::Remove, &["alice"])).unwrap();
        assert_eq!(changed.record.source, Source::Roster);
    }
}

#[test]
fn remove_takes_out_members_and_passes_over_others() {
    let view = apply(&grp(), &roster("ada", 6, RosterOp::Remove, &["bob", "carol"])).unwrap();
    assert_eq!(view.members, members(&[("ada", Admin), ("alice", Member)]));
}

#[test]
fn a_member_may_remove_itself_alone() {
    let view = apply(&grp(), &roster("bob", 6, RosterOp::Remove, &["bob"])).unwrap();
    assert_eq!(view.members, members(&[("ada", Admin), ("alice", Member)]));
    for keys in [&["alice"][..], &["bob", "alice"], &["bob", "carol"]] {
        let refused = apply(&grp(), &roster("bob", 6, RosterOp::Remove, keys)).unwrap_err();
        assert_eq!(refused, Refusal::NotAdmin, "{keys:?}");
    }
    let stranger = roster("carol", 6, RosterOp::Remove, &["carol"]);
    assert_eq!(apply(&grp(), &stranger).unwrap_err(), Refusal::NotAdmin);
}

#[test]
fn promote_makes_admins_and_demote_members() {
    let view = apply(&grp(), &roster("ada", 6, RosterOp::Promote, &["alice", "ada"])).unwrap();
    assert_eq!(view.members, members(&[("ada", Admin), ("alice", Admin), ("bob", Member)]));
    let two = managed(Source::Roster, 6, &[("ada", Admin), ("alice", Admin)]);
    let view = apply(&two, &roster("ada", 7, RosterOp::Demote, &["alice"])).unwrap();
    assert_eq!(view.members, members(&[("ada", Admin), ("alice", Member)]));
}

#[test]
fn promote_and_demote_refuse_a_key_that_is_no_member_by_name() {
    for op in [RosterOp::Promote, RosterOp::Demote] {
        let refused = apply(&grp(), &roster("ada", 6, op, &["alice", "carol"])).unwrap_err();
        assert_eq!(refused, Refusal::NoSuchMember(key("carol")));
        assert!(words(refused).contains(&key("carol").to_hex()));
    }
}

#[test]
fn replace_sets_the_list_and_those_who_stay_keep_their_role() {
    let change = RosterChange { role: Admin, ..roster("ada", 6, RosterOp::Replace, &["ada", "bob", "carol"]) };
    let view = apply(&grp(), &change).unwrap();
    assert_eq!(view.members, members(&[("ada", Admin), ("bob", Member), ("carol", Admin)]));
}

#[test]
fn after_a_group_admins_operation_the_signer_is_still_an_admin() {
    for status in [grp(), managed(Source::Roster, 5, &[("ada", Admin), ("eve", Admin), ("alice", Member)])] {
        for change in [
            roster("ada", 6, RosterOp::Remove, &["ada"]),
            roster("ada", 6, RosterOp::Demote, &["ada"]),
            roster("ada", 6, RosterOp::Demote, &["alice", "ada"]),
            roster("ada", 6, RosterOp::Replace, &["alice"]),
        ] {
            assert_eq!(apply(&status, &change).unwrap_err(), Refusal::LastAdmin, "{:?}", change.op);
        }
    }
}

#[test]
fn an_admin_key_may_do_anything() {
    for (op, left) in [
        (RosterOp::Remove, members(&[("alice", Member), ("bob", Member)])),
        (RosterOp::Demote, members(&[("ada", Member), ("alice", Member), ("bob", Member)])),
        (RosterOp::Replace, members(&[("ada", Admin)])),
    ] {
        assert_eq!(apply(&grp(), &roster("operator", 6, op, &["ada"])).unwrap().members, left);
    }
    let own = managed(Source::Roster, 5, &[("operator", Admin)]);
    let view = apply(&own, &roster("operator", 6, RosterOp::Remove, &["operator"])).unwrap();
    assert_eq!(view.members, members(&[]), "even where it is a group admin too");
}

#[test]
fn an_admin_keys_forced_replace_is_taken_at_any_seq_and_sets_it() {
    for seq in [1, 5, 900_000] {
        let change = RosterChange { force: true, ..roster("operator", seq, RosterOp::Replace, &["carol"]) };
        let view = apply(&grp(), &change).unwrap();
        assert_eq!((view.record.seq, view.members), (seq, members(&[("carol", Member)])));
    }
}

#[test]
fn force_is_for_admin_keys_and_for_replace_alone() {
    let by_group_admin = RosterChange { force: true, ..roster("ada", 5, RosterOp::Replace, &["ada"]) };
    assert_eq!(apply(&grp(), &by_group_admin).unwrap_err(), Refusal::StaleSeq { given: 5, current: 5 });
    for op in [RosterOp::Add, RosterOp::Remove, RosterOp::Promote, RosterOp::Demote] {
        let change = RosterChange { force: true, ..roster("operator", 5, op, &["alice"]) };
        assert_eq!(apply(&grp(), &change).unwrap_err(), Refusal::StaleSeq { given: 5, current: 5 });
    }
}

#[test]
fn a_group_has_at_most_10_000_members() {
    let full: Vec<PublicKey> = (0..GROUP_MEMBERS_MAX as u64 - 1)
        .map(|n| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_be_bytes());
            PublicKey::from_bytes(bytes)
        })
        .collect();
    let mut view = view(Source::Roster, 5, &[]);
    view.members = full.into_iter().map(|key| (key, Member)).collect();
    let status = GroupStatus::Managed(view.into());
    assert!(apply(&status, &roster("operator", 6, RosterOp::Add, &["alice"])).is_ok());
    let refused = apply(&status, &roster("operator", 6, RosterOp::Add, &["alice", "bob"])).unwrap_err();
    assert_eq!(refused, Refusal::GroupFull);
}

#[test]
fn the_first_roster_on_a_group_that_gift_wraps_founded_makes_it_a_roster_group() {
    let wrapped = managed(Source::GiftWrap, 0, &ADA_ALICE_BOB);
    for signer in ["ada", "operator"] {
        let view = apply(&wrapped, &roster(signer, 1, RosterOp::Add, &["carol"])).unwrap();
        assert_eq!((view.record.source, view.record.seq), (Source::Roster, 1));
        assert_eq!(view.members.len(), 4);
    }
}

#[test]
fn only_bootstrap_or_a_forced_replace_founds_a_group() {
    for op in [RosterOp::Add, RosterOp::Remove, RosterOp::Promote, RosterOp::Demote, RosterOp::Replace] {
        let change = roster("operator", 1, op, &["alice"]);
        assert_eq!(apply(&GroupStatus::Unknown, &change).unwrap_err(), Refusal::NoGroup, "{op:?}");
    }
    let forced = RosterChange { force: true, ..roster("operator", 1, RosterOp::Replace, &["alice"]) };
    assert_eq!(apply(&GroupStatus::Unknown, &forced).unwrap().members, members(&[("alice", Member)]));
}

#[test]
fn nobody_takes_an_unlisted_group_over_but_an_admin_key_with_force() {
    let listed = RosterChange { open_bootstrap: true, ..roster("carol", 1, RosterOp::Bootstrap, &["carol"]) };
    let forced = RosterChange { force: true, ..listed.clone() };
    for change in [listed, forced] {
        assert_eq!(apply(&GroupStatus::Unlisted, &change).unwrap_err(), Refusal::NotAdmin);
    }
    let by_operator = roster("operator", 1, RosterOp::Bootstrap, &["carol"]);
    assert_eq!(apply(&GroupStatus::Unlisted, &by_operator).unwrap_err(), Refusal::Unlisted);
    for op in [RosterOp::Bootstrap, RosterOp::Replace] {
        let forced = RosterChange { force: true, op, ..by_operator.clone() };
        assert_eq!(apply(&GroupStatus::Unlisted, &forced).unwrap().members, members(&[("carol", Member)]));
    }
}

#[test]
fn whoever_is_no_admin_gets_one_answer_whatever_is_wrong() {
    let former = managed(Source::Roster, 5, &[("ada", Admin)]);
    for status in [&grp(), &former, &GroupStatus::Unknown, &GroupStatus::Unlisted] {
        for op in [RosterOp::Bootstrap, RosterOp::Add, RosterOp::Promote, RosterOp::Demote, RosterOp::Replace] {
            for seq in [1, 5, 6, SEQ_MAX] {
                for keys in [&["carol"][..], &["alice"], &["nobody"]] {
                    let refused = apply(status, &roster("carol", seq, op, keys)).unwrap_err();
                    assert_eq!(refused, Refusal::NotAdmin);
                }
            }
        }
    }
    assert_eq!(
        words(Refusal::NotAdmin),
        "restricted: only the group's admins change its roster, and admin_pubkeys found one"
    );
}

#[test]
fn the_name_is_that_of_the_highest_seq_that_had_one() {
    let named = |seq, name: Option<&str>, force| RosterChange {
        name: name.map(str::to_owned),
        force,
        // Each takes bob in or out, because one that changes nothing is refused.
        ..roster("operator", seq, RosterOp::Replace, if seq % 2 == 0 { &["ada"] } else { &["ada", "bob"] })
    };
    let next = |view: ManagedGroup, change: RosterChange| apply(&GroupStatus::Managed(view.into()), &change).unwrap();
    let view = apply(&grp(), &named(6, Some("six"), false)).unwrap();
    let view = next(view, named(7, None, false));
    assert_eq!(view.record.display_name, Some((6, "six".to_owned())));
    let view = next(view, named(2, Some("two"), true));
    assert_eq!(view.record.display_name, Some((6, "six".to_owned())), "an older number does not rename");
    let view = next(view, named(8, Some("eight"), false));
    assert_eq!(view.record.display_name, Some((8, "eight".to_owned())));
}

fn any_change() -> impl Strategy<Value = RosterChange> {
    let people = ["operator", "ada", "alice", "bob", "carol"];
    let op = prop::sample::select(vec![
        RosterOp::Bootstrap,
        RosterOp::Add,
        RosterOp::Remove,
        RosterOp::Promote,
        RosterOp::Demote,
        RosterOp::Replace,
    ]);
    let keys = prop::sample::subsequence(people.to_vec(), 1..4);
    (prop::sample::select(people.to_vec()), 1_u64..12, op, keys, any::<(bool, bool, bool)>()).prop_map(
        |(signer, seq, op, keys, (admin, force, open_bootstrap))| RosterChange {
            role: if admin { Admin } else { Member },
            force,
            open_bootstrap,
            ..roster(signer, seq, op, &keys)
        },
    )
}

proptest! {
    /// Any rosters in any order: seq rises unless an admin key forces it, a group admin's operation leaves the signer
    /// an admin, a group stays managed, and strangers change nothing.
    #[test]
    fn no_sequence_of_rosters_breaks_a_group(changes in prop::collection::vec(any_change(), 1..40)) {
        let mut status = GroupStatus::Unknown;
        for change in changes {
            let before = match &status {
                GroupStatus::Managed(view) => Some(view.clone()),
                _ => None,
            };
            let Ok(view) = apply(&status, &change) else { continue };
            prop_assert_eq!(view.record.seq, change.seq);
            if let Some(before) = &before {
                let forced = change.by_admin_key && change.force && change.op == RosterOp::Replace;
                prop_assert!(forced || change.seq > before.record.seq);
                let role = before.members.get(&change.signer);
                prop_assert!(change.by_admin_key || role.is_some());
                if !change.by_admin_key && role == Some(&Admin) {
                    prop_assert_eq!(view.members.get(&change.signer), Some(&Admin));
                }
            }
            status = GroupStatus::Managed(view.into());
        }
    }
}
