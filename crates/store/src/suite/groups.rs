//! Groups: the effects of rosters, wraps and messages, and the checks of the transaction that commits.

use nostr_extensions::{GroupStatus, Role, Source, mls_gateway::group::Refusal};
use nostr_protocol::testing::keypair;

use super::world::{START, World, capability, group, key, message, new, roster, wrap};
use crate::Saved;

fn sorted(mut members: Vec<(&str, Role)>) -> Option<Vec<(nostr_protocol::PublicKey, Role)>> {
    members.sort_unstable_by_key(|(name, _)| key(name));
    Some(members.into_iter().map(|(name, role)| (key(name), role)).collect())
}

/// The refusal of a wrap by a reader that has a key and may not send it.
const STRANGER: Refusal = Refusal::WrapByStranger { anonymous: false };

#[track_caller]
fn refused(saved: &Saved) -> &Refusal {
    match saved {
        Saved::Refused(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

pub async fn a_roster_changes_its_group_as_it_is_stored(w: &World) {
    let founding = roster("grp", 1, "bootstrap", &["alice", "bob"]).tag(&["name", "Team"]);
    new(w.publish(&founding, "admin").await);
    new(w.publish(&roster("grp", 2, "promote", &["alice"]), "admin").await);
    new(w.publish(&roster("grp", 5, "remove", &["bob"]), "alice").await);
    let changed = new(w.publish(&roster("grp", 6, "add", &["carol"]), "alice").await);
    assert_eq!(w.members("grp").await, sorted(vec![("alice", Role::Admin), ("carol", Role::Member)]));
    let (state, cursor) = w.store.group(&group("grp")).await.expect("a state");
    assert!(cursor >= changed.cursor());
    let GroupStatus::Managed(view) = state.status else { panic!("not managed") };
    assert_eq!((view.record.seq, view.record.source, view.record.created_at), (6, Source::Roster, START));
    assert_eq!(view.record.display_name, Some((1, "Team".to_owned())));
    let groups = w.store.groups_of(&[key("alice"), key("bob"), key("carol")]).await.expect("groups");
    assert_eq!(groups, [group("grp")]);
    assert!(w.store.groups_of(&[key("bob")]).await.expect("groups").is_empty());
    assert_eq!(w.store.stats().await.expect("stats").groups, 1);
}

pub async fn of_rosters_with_one_seq_one_wins(w: &World) {
    new(w.publish(&roster("grp", 1, "bootstrap", &["alice"]), "admin").await);
    let mut racers = Vec::new();
    for name in ["bob", "carol", "dave"] {
        racers.push(w.admitted(&roster("grp", 2, "add", &[name]), "admin").await);
    }
    let saved = w.save(racers).await;
    assert!(matches!(saved[0], Saved::New(_)));
    for late in &saved[1..] {
        assert_eq!(*refused(late), Refusal::StaleSeq { given: 2, current: 2 });
    }
    assert_eq!(w.members("grp").await, sorted(vec![("alice", Role::Member), ("bob", Role::Member)]));
}

pub async fn a_repeated_roster_is_a_duplicate_and_not_stale(w: &World) {
    let founding = roster("grp", 1, "bootstrap", &["alice"]);
    let first = w.admitted(&founding, "admin").await;
    new(w.save(vec![first.clone()]).await.remove(0));
    new(w.publish(&roster("grp", 2, "add", &["bob"]), "admin").await);
    assert!(matches!(w.save(vec![first]).await[..], [Saved::Duplicate]));
}

pub async fn events_of_a_batch_see_each_other(w: &World) {
    new(w.publish(&roster("grp", 1, "bootstrap", &["alice", "bob"]), "admin").await);
    let removal = w.admitted(&roster("grp", 2, "remove", &["bob"]), "admin").await;
    let by_bob = w.admitted(&message("grp", "late"), "bob").await;
    let by_alice = w.admitted(&message("grp", "fine"), "alice").await;
    let saved = w.save(vec![removal, by_bob, by_alice]).await;
    assert!(matches!(saved[..], [Saved::New(_), Saved::Refused(Refusal::NotMember), Saved::New(_)]), "{saved:?}");
}

pub async fn a_message_needs_a_member_when_it_is_committed(w: &World) {
    new(w.publish(&roster("grp", 1, "bootstrap", &["alice", "bob"]), "admin").await);
    let by_bob = w.admitted(&message("grp", "hi"), "bob").await;
    new(w.publish(&roster("grp", 2, "remove", &["bob"]), "admin").await);
    let id = by_bob.event().id();
    let saved = w.save(vec![by_bob]).await.remove(0);
    assert_eq!(*refused(&saved), Refusal::NotMember);
    assert!(!w.holds(id).await);
    // One member among the reader's keys is enough.
    let mixed = w.try_admit(message("grp", "two keys").sign(&keypair("x")), &["bob", "alice"], START).await;
    assert!(matches!(w.save(vec![mixed.expect("admitted")]).await[..], [Saved::New(_)]));
}

pub async fn a_former_member_does_not_hear_that_its_message_is_stored(w: &World) {
    new(w.publish(&roster("grp", 1, "bootstrap", &["alice", "bob"]), "admin").await);
    let said = message("grp", "hi").sign(&keypair("throw-away"));
    let said = w.try_admit(said, &["bob"], START).await.expect("bob is a member");
    assert!(matches!(w.save(vec![said.clone(), said.clone()]).await[..], [Saved::New(_), Saved::Duplicate]));
    new(w.publish(&roster("grp", 2, "remove", &["bob"]), "admin").await);
    assert!(matches!(w.save(vec![said]).await[..], [Saved::Refused(Refusal::NotMember)]));
}

pub async fn an_unlisted_message_is_refused_once_the_group_is_managed(w: &World) {
    let h = capability("room");
    let early = w.admitted(&message(&h, "early"), "alice").await;
    new(w.publish(&roster(&h, 1, "bootstrap", &["bob"]), "admin").await);
    assert_eq!(*refused(&w.save(vec![early]).await.remove(0)), Refusal::NotMember);
    assert!(w.group(&h).await.is_managed());
    // A sender without keys is told that one is asked for.
    let h = capability("another room");
    let early = w.try_admit(message(&h, "early").sign(&keypair("throw-away")), &[], START).await.expect("admitted");
    new(w.publish(&roster(&h, 1, "bootstrap", &["bob"]), "admin").await);
    assert_eq!(*refused(&w.save(vec![early]).await.remove(0)), Refusal::Anonymous);
}

pub async fn a_group_that_carried_unlisted_messages_is_marked_for_ever(w: &World) {
    let h = capability("room");
    assert_eq!(w.group(&h).await.status, GroupStatus::Unknown);
    w.send(&message(&h, "hi"), "throw-away", "alice").await;
    assert_eq!(w.group(&h).await.status, GroupStatus::Unlisted);
    assert_eq!(w.sweep(START + 400 * 86_400).await, 1);
    assert_eq!(w.group(&h).await.status, GroupStatus::Unlisted, "whether or not a message is left");
    let taking = roster(&h, 1, "bootstrap", &["bob"]);
    assert_eq!(*refused(&w.publish(&taking, "admin").await), Refusal::Unlisted);
    let forced = roster(&h, 1, "bootstrap", &["bob"]).tag(&["force", "true"]);
    new(w.publish(&forced, "admin").await);
    assert_eq!(w.members(&h).await, sorted(vec![("bob", Role::Member)]));
    assert_eq!(w.store.stats().await.expect("stats").groups, 1);
}

pub async fn a_wrap_founds_a_group_and_invites(w: &World) {
    new(w.publish(&wrap("bob", "1").tag(&["h", "grp"]), "alice").await);
    assert_eq!(w.members("grp").await, sorted(vec![("alice", Role::Admin), ("bob", Role::Member)]));
    new(w.publish(&wrap("carol", "2").tag(&["h", "grp"]), "bob").await);
    let strangers = w.try_admit(wrap("mallory", "3").tag(&["h", "grp"]).sign(&keypair("mallory")), &["mallory"], START);
    assert_eq!(strangers.await.expect_err("a stranger's"), STRANGER.into());
    let members = vec![("alice", Role::Admin), ("bob", Role::Member), ("carol", Role::Member)];
    assert_eq!(w.members("grp").await, sorted(members), "only a member takes another in");
    // With a roster, wraps change nothing more.
    new(w.publish(&roster("grp", 1, "remove", &["carol"]), "admin").await);
    new(w.publish(&wrap("carol", "4").tag(&["h", "grp"]), "alice").await);
    assert_eq!(w.members("grp").await, sorted(vec![("alice", Role::Admin), ("bob", Role::Member)]));
}

pub async fn of_two_founders_in_a_race_the_first_wins(w: &World) {
    let by_alice = w.admitted(&wrap("bob", "1").tag(&["h", "grp"]), "alice").await;
    let by_mallory = w.admitted(&wrap("eve", "2").tag(&["h", "grp"]), "mallory").await;
    let saved = w.save(vec![by_alice, by_mallory]).await;
    assert!(matches!(&saved[..], [Saved::New(_), Saved::Refused(STRANGER)]), "{saved:?}");
    assert_eq!(w.members("grp").await, sorted(vec![("alice", Role::Admin), ("bob", Role::Member)]));
}

pub async fn a_key_founds_twenty_groups_in_a_day(w: &World) {
    let invite = |n: u64| wrap("bob", &n.to_string()).tag(&["h", &format!("grp{n}")]);
    for n in 0..20 {
        new(w.publish_at(START + n * 60, &invite(n), "alice").await);
    }
    let last = START + 20 * 60;
    assert_eq!(*refused(&w.publish_at(last, &invite(20), "alice").await), STRANGER);
    new(w.publish_at(last, &invite(21), "carol").await);
    let day_later = START + 86_400;
    assert_eq!(
        *refused(&w.publish_at(day_later - 1, &invite(22), "alice").await),
        Refusal::WrapByStranger { anonymous: false }
    );
    new(w.publish_at(day_later, &invite(23), "alice").await);
    assert_eq!(
        *refused(&w.publish_at(day_later, &invite(24), "alice").await),
        Refusal::WrapByStranger { anonymous: false }
    );
}

pub async fn the_last_epoch_is_that_of_the_messages(w: &World) {
    new(w.publish(&roster("grp", 1, "bootstrap", &["alice"]), "admin").await);
    for (n, k) in ["3", "900", "5000", "7"].into_iter().enumerate() {
        w.send(&message("grp", &n.to_string()).tag(&["k", k]), "throw-away", "alice").await;
    }
    let epoch = |state: nostr_extensions::Group| match state.status {
        GroupStatus::Managed(view) => view.record.last_epoch,
        _ => None,
    };
    assert_eq!(epoch(w.group("grp").await), Some(900), "a k far above the one before does not count");
    // The header of a PrivateMessage of epoch 2^64-1 does not pin it either.
    w.send(&message("grp", "AAEAAgFn//////////8="), "throw-away", "alice").await;
    assert_eq!(epoch(w.group("grp").await), Some(900));
    new(w.publish(&roster("grp", 2, "add", &["bob"]), "admin").await);
    assert_eq!(epoch(w.group("grp").await), Some(900));
}

pub async fn a_refused_event_leaves_nothing_behind(w: &World) {
    new(w.publish(&roster("grp", 4, "bootstrap", &["alice"]), "admin").await);
    let before = w.store.head();
    let stale = roster("grp", 4, "add", &["bob"]);
    assert!(matches!(w.publish(&stale, "admin").await, Saved::Refused(_)));
    assert_eq!(w.store.after(before, 10).await.expect("the log").entries.len(), 0);
    assert_eq!(w.members("grp").await, sorted(vec![("alice", Role::Member)]));
    assert!(w.store.groups_of(&[key("bob")]).await.expect("groups").is_empty());
    let id = stale.event(&keypair("admin")).id();
    assert!(!w.holds(id).await);
}
