//! Answers of the access service: the members that a group has by them, in every store alike.

use std::collections::HashMap;

use nostr_extensions::{
    Admitted, GroupRecord, GroupStatus, Policy, Publisher, Reader, Role, Source,
    admit::admit,
    gate::Touches,
    mls_gateway::group::{MembershipBounds, Refusal, ServiceAnswer, Told},
};
use nostr_protocol::{
    auth::RelayNames,
    testing::{EventBuilder, keypair},
};

use super::world::{START, World, capability, group, key, message, new, roster, vanish, wrap};
use crate::{AppliedAnswer, Saved};

/// An answer to a question at this time, which names these members, the first of them as admin.
fn answer(id: &str, names: &[&str], asked_at_ms: u64) -> ServiceAnswer {
    let role = |n: usize| if n == 0 { Role::Admin } else { Role::Member };
    let members: HashMap<_, _> = names.iter().enumerate().map(|(n, name)| (key(name), role(n))).collect();
    let (told, bounds) = (Told::Members(members), MembershipBounds::default());
    ServiceAnswer { group: group(id), told, asked_at_ms, is_refresh: false, bounds }
}

fn unknown(id: &str, asked_at_ms: u64) -> ServiceAnswer {
    ServiceAnswer { told: Told::Unknown, ..answer(id, &[], asked_at_ms) }
}

/// The event of this builder, as a relay that asks the service admits it from a reader with the key of `by`.
#[allow(clippy::expect_used, reason = "for tests alone")]
async fn admitted(w: &World, event: &EventBuilder, by: &str) -> Admitted {
    let policy = Policy { sources: [Source::Acl, Source::Roster, Source::GiftWrap].into(), ..w.policy.clone() };
    let state = w.group("grp").await;
    let reader = Reader::new(&[key(by)]);
    let publisher = Publisher { reader: &reader, names: &RelayNames::Loopback };
    admit(event.sign(&keypair(by)), publisher, &policy, Some(&state), START).expect("an event that is admitted")
}

/// The same as the answer to a refresh.
fn refresh(answer: ServiceAnswer) -> ServiceAnswer {
    ServiceAnswer { is_refresh: true, ..answer }
}

/// A refresh at which the service gave no answer.
fn nothing(id: &str, asked_at_ms: u64) -> ServiceAnswer {
    refresh(ServiceAnswer { told: Told::Nothing, ..answer(id, &[], asked_at_ms) })
}

impl World {
    async fn apply(&self, answer: &ServiceAnswer) -> Option<AppliedAnswer> {
        self.store.apply_answer(answer, START).await.expect("a store that works")
    }

    async fn managed(&self, id: &str) -> (GroupRecord, Vec<(nostr_protocol::PublicKey, Role)>) {
        match self.group(id).await.status {
            GroupStatus::Managed(view) => {
                let mut members: Vec<_> = view.members.iter().map(|(key, role)| (*key, *role)).collect();
                members.sort_unstable_by_key(|(key, _)| *key);
                (view.record.clone(), members)
            }
            other => panic!("not managed: {other:?}"),
        }
    }
}

fn named(names: &[&str]) -> Vec<(nostr_protocol::PublicKey, Role)> {
    let Told::Members(members) = answer("grp", names, 0).told else { return Vec::new() };
    let mut members: Vec<_> = members.into_iter().collect();
    members.sort_unstable_by_key(|(key, _)| *key);
    members
}

pub async fn an_answer_makes_a_group_and_the_next_one_changes_it(w: &World) {
    assert!(w.apply(&unknown("grp", 1)).await.is_none(), "the service does not know it");
    assert_eq!(w.group("grp").await.status, GroupStatus::Unknown);
    let before = w.store.head();
    let applied = w.apply(&answer("grp", &["alice", "bob"], 2)).await.expect("a change");
    assert_eq!((applied.touches, applied.left_out), (Touches::Groups(vec![group("grp")]), 0));
    assert!(applied.cursor >= before && w.store.head() >= applied.cursor);
    let (record, members) = w.managed("grp").await;
    assert_eq!((record.source, record.seq, record.asked_at_ms), (Source::Acl, 0, Some(2)));
    assert_eq!(members, named(&["alice", "bob"]));
    assert!(w.apply(&answer("grp", &["alice", "bob"], 3)).await.is_none(), "the same again");
    new(w.publish(&message("grp", "hi"), "bob").await);

    w.apply(&answer("grp", &["carol", "alice"], 4)).await.expect("a change");
    assert_eq!(w.managed("grp").await.1, named(&["carol", "alice"]));
    let late = w.try_admit(message("grp", "late").sign(&nostr_protocol::testing::keypair("x")), &["bob"], START).await;
    assert!(late.is_err());
    assert!(w.store.groups_of(&[key("bob")]).await.expect("groups").is_empty());
    assert_eq!(w.store.groups_of(&[key("carol")]).await.expect("groups"), [group("grp")]);

    w.apply(&unknown("grp", 5)).await.expect("a change");
    assert_eq!(w.managed("grp").await.1, [], "a group that it once knew has no members");
    assert!(w.apply(&unknown("grp", 6)).await.is_none());
}

pub async fn the_answer_to_an_earlier_question_comes_too_late(w: &World) {
    w.apply(&answer("grp", &["alice"], 50)).await.expect("a change");
    for late in [answer("grp", &["bob"], 49), unknown("grp", 1)] {
        assert!(w.apply(&late).await.is_none());
        assert_eq!(w.managed("grp").await.1, named(&["alice"]));
    }
    w.apply(&answer("grp", &["bob"], 50)).await.expect("a change of the same moment");
}

pub async fn no_answer_to_a_question_before_a_refresh_counts(w: &World) {
    w.apply(&answer("grp", &["alice"], 10)).await.expect("a change");
    w.apply(&refresh(answer("grp", &["alice"], 50))).await.expect("the time is written though nothing else changes");
    for late in [answer("grp", &["alice", "bob"], 49), unknown("grp", 20), refresh(answer("grp", &["bob"], 40))] {
        assert!(w.apply(&late).await.is_none(), "{late:?}");
    }
    let (record, members) = w.managed("grp").await;
    assert_eq!((record.asked_at_ms, members), (Some(50), named(&["alice"])));
    assert!(w.apply(&answer("grp", &["alice"], 60)).await.is_none(), "a question of no refresh writes no time");
    // A group that rosters run, and one that nobody knows.
    new(w.publish(&roster("other", 3, "bootstrap", &["alice"]), "admin").await);
    w.apply(&refresh(unknown("other", 50))).await.expect("the time is written");
    assert!(w.apply(&answer("other", &["bob"], 49)).await.is_none());
    let (record, members) = w.managed("other").await;
    assert_eq!((record.source, members), (Source::Roster, vec![(key("alice"), Role::Member)]));
    assert!(w.apply(&refresh(unknown("absent", 50))).await.is_none());
    assert_eq!(w.group("absent").await.status, GroupStatus::Unknown);
    // A key without room stays out by each refresh, whose time counts all the same.
    let bounds = MembershipBounds { memberships_max: 2, ..MembershipBounds::default() };
    w.apply(&ServiceAnswer { bounds, ..answer("full", &["alice", "bob"], 10) }).await.expect("a change");
    w.apply(&refresh(ServiceAnswer { bounds, ..answer("full", &["alice", "bob"], 50) })).await.expect("the time");
    assert_eq!(w.managed("full").await.0.asked_at_ms, Some(50));
}

pub async fn a_refresh_without_an_answer_closes_the_group_until_there_is_one(w: &World) {
    w.apply(&answer("grp", &["alice", "bob"], 10)).await.expect("a change");
    w.apply(&nothing("grp", 50)).await.expect("a change");
    let (record, members) = w.managed("grp").await;
    assert_eq!((record.awaits_since_ms, members), (Some(50), named(&["alice", "bob"])));
    assert!(w.group("grp").await.awaits_answer());
    assert!(w.apply(&answer("grp", &["alice", "bob"], 49)).await.is_none(), "an answer to a question before it");
    w.apply(&nothing("grp", 60)).await.expect("a later one");
    assert!(w.apply(&nothing("grp", 55)).await.is_none());
    assert!(w.apply(&answer("grp", &["alice"], 59)).await.is_none());
    new(w.publish(&roster("grp", 1, "add", &["alice"]).tag(&["name", "Crew"]), "alice").await);
    assert!(w.group("grp").await.awaits_answer(), "a roster opens nothing");
    w.apply(&answer("grp", &["alice", "bob"], 60)).await.expect("the same members, and the group is open");
    let (record, members) = w.managed("grp").await;
    assert_eq!((record.awaits_since_ms, record.asked_at_ms), (None, Some(60)));
    assert_eq!(members, named(&["alice", "bob"]));
    // A group that the service does not know opens by that answer.
    new(w.publish(&roster("other", 3, "bootstrap", &["alice"]), "admin").await);
    w.apply(&nothing("other", 50)).await.expect("a change");
    w.apply(&unknown("other", 51)).await.expect("a change");
    let (record, members) = w.managed("other").await;
    assert_eq!((record.awaits_since_ms, record.source, members.len()), (None, Source::Roster, 1));
    assert!(w.apply(&nothing("absent", 50)).await.is_none(), "nothing is there to close");
}

pub async fn the_service_takes_over_what_other_sources_ran(w: &World) {
    let h = capability("room");
    w.send(&message(&h, "hi"), "throw-away", "alice").await;
    new(w.publish(&roster("grp", 3, "bootstrap", &["alice", "bob"]).tag(&["name", "Team"]), "admin").await);
    for id in ["grp", &h] {
        w.apply(&answer(id, &["alice", "carol"], 1)).await.expect("a change");
        let (record, members) = w.managed(id).await;
        assert_eq!((record.source, members), (Source::Acl, named(&["alice", "carol"])));
    }
    let (record, _) = w.managed("grp").await;
    assert_eq!((record.seq, record.display_name), (3, Some((3, "Team".to_owned()))));
    // Rosters change no member any more, and all else.
    for change in [roster("grp", 4, "add", &["bob"]), roster("grp", 4, "remove", &["carol"])] {
        let saved = w.publish(&change, "alice").await;
        assert!(matches!(saved, Saved::Refused(Refusal::ServiceDecides)), "{saved:?}");
    }
    let leaving = w.publish(&roster("grp", 4, "remove", &["carol"]), "carol").await;
    assert!(matches!(leaving, Saved::Refused(Refusal::ServiceDecides)), "{leaving:?}");
    new(w.publish(&roster("grp", 4, "add", &["carol"]).tag(&["name", "Crew"]), "alice").await);
    new(w.publish(&vanish(START), "carol").await);
    assert_eq!(w.managed("grp").await.1, named(&["alice", "carol"]), "a request to vanish takes nobody out");
}

pub async fn a_key_without_room_stays_out(w: &World) {
    let bounds = MembershipBounds { memberships_max: 2, ..MembershipBounds::default() };
    let bounded = |id: &str, names: &[&str]| ServiceAnswer { bounds, ..answer(id, names, 1) };
    for id in ["one", "two"] {
        w.apply(&bounded(id, &["alice", "bob"])).await.expect("a change");
    }
    let applied = w.apply(&bounded("three", &["alice", "carol"])).await.expect("a change");
    assert_eq!(applied.left_out, 1);
    assert_eq!(w.managed("three").await.1, [(key("carol"), Role::Member)]);
    assert!(w.apply(&bounded("three", &["alice", "carol"])).await.is_none(), "it changes nothing more");
    let mut groups = w.store.groups_of(&[key("alice")]).await.expect("groups");
    groups.sort_unstable();
    assert_eq!(groups, [group("one"), group("two")]);
}

pub async fn a_shared_store_tells_followers_of_an_answer(w: &World) {
    let before = w.store.head();
    w.apply(&answer("grp", &["alice"], 1)).await.expect("a change");
    if w.store.notifications().is_some() {
        let log = w.store.after(before, 10).await.expect("the log");
        let touches: Vec<&Touches> = log.entries.iter().map(|entry| &entry.touches).collect();
        assert_eq!(touches, [&Touches::Groups(vec![group("grp")])]);
        assert!(w.store.events_at(&[log.entries[0].cursor]).await.expect("the events").is_empty());
    }
}

/// A refresh fails between admission and the transaction, which refuses what would go by the members of before. A
/// sender that is no member by them learns nothing of it.
pub async fn a_group_that_awaits_an_answer_takes_no_event(w: &World) {
    w.apply(&answer("grp", &["alice", "bob"], 10)).await.expect("a change");
    let named = roster("grp", 1, "add", &["alice"]).tag(&["name", "Crew"]);
    let by_bob = admitted(w, &message("grp", "out"), "bob").await;
    let mut waiting = Vec::new();
    for event in [message("grp", "hi"), named, wrap("carol", "in").tag(&["h", "grp"])] {
        waiting.push(admitted(w, &event, "alice").await);
    }
    w.apply(&answer("grp", &["alice"], 20)).await.expect("a change");
    w.apply(&nothing("grp", 50)).await.expect("a change");
    for admitted in &waiting {
        let saved = w.save(vec![admitted.clone()]).await.remove(0);
        assert_eq!(refusal(saved), Some(Refusal::Closed), "{:?}", admitted.effect());
    }
    assert_eq!(refusal(w.save(vec![by_bob]).await.remove(0)), Some(Refusal::NotMember));
    w.apply(&answer("grp", &["alice"], 60)).await.expect("the group is open");
    for admitted in waiting {
        new(w.save(vec![admitted]).await.remove(0));
    }
}

fn refusal(saved: Saved) -> Option<Refusal> {
    match saved {
        Saved::Refused(refusal) => Some(refusal),
        _ => None,
    }
}
