//! Bounds on memberships: those in which a key has not acted give way, and no others.
//!
//! Source: docs/rules.md, "Memberships".

use nostr_extensions::{
    Role,
    gate::Touches,
    mls_gateway::group::{INVITED_MAX, MEMBERSHIPS_MAX, MembershipBounds, Refusal},
};
use nostr_protocol::testing::{EventBuilder, keypair};

use super::world::{START, World, capability, deletion, group, id_of, key, message, new, roster, vanish, wrap};
use crate::Saved;

/// The refusal of a wrap by a reader that has a key and may not send it.
const STRANGER: Refusal = Refusal::WrapByStranger { anonymous: false };

/// A wrap to `recipient` that names a group.
fn invitation(recipient: &str, group: &str) -> EventBuilder {
    wrap(recipient, group).tag(&["h", group])
}

/// Bounds so small that a test reaches them.
fn bound(w: &mut World, memberships_max: usize, invited_max: u32) {
    let default = MembershipBounds::default();
    assert_eq!((default.memberships_max, default.invited_max), (MEMBERSHIPS_MAX, INVITED_MAX));
    w.policy.membership_bounds = MembershipBounds { memberships_max, invited_max };
}

/// The groups of a key, in the order of their ids.
async fn groups_of(w: &World, name: &str) -> Vec<String> {
    let groups = w.store.groups_of(&[key(name)]).await.expect("groups");
    groups.iter().map(|id| id.as_str().to_owned()).collect()
}

async fn invited_groups(w: &World, name: &str) -> Vec<String> {
    let groups = w.store.invited_groups(&[key(name), key("nobody")]).await.expect("groups");
    groups.iter().map(|id| id.as_str().to_owned()).collect()
}

/// Saves one event of `by`, `secs` after the start.
async fn after(w: &World, secs: u64, event: &EventBuilder, by: &str) -> Saved {
    w.publish_at(START + secs, event, by).await
}

pub async fn strangers_never_take_a_membership_that_was_acted_in(w: &mut World) {
    bound(w, 4, 100);
    new(w.publish(&roster("a-talk", 1, "bootstrap", &["alice", "bob"]), "admin").await);
    new(w.publish(&invitation("bob", "b-club"), "alice").await);
    new(w.publish(&roster("c-team", 1, "bootstrap", &["bob"]).tag(&["role", "admin"]), "admin").await);
    // Bob acts: by a message, by a wrap and by a roster.
    w.send(&message("a-talk", "hi"), "throw-away", "bob").await;
    new(w.publish(&invitation("carol", "b-club"), "bob").await);
    new(w.publish(&roster("c-team", 2, "add", &["carol"]), "bob").await);
    assert_eq!(invited_groups(w, "bob").await, [""; 0], "by an admin key, or acted in");
    let own = ["a-talk", "b-club", "c-team"];
    let mut last = None;
    for n in 0..10_u64 {
        let name = format!("stranger {n}");
        let founded = format!("stranger{}", 9 - n);
        let sealed = new(after(w, n, &invitation("bob", &founded), &name).await);
        let changed = Touches::groups(last.iter().chain([&founded]).map(|id| group(id)));
        assert_eq!(sealed.touches(), changed, "a membership that gives way touches its group alone");
        let mut expected: Vec<&str> = own.to_vec();
        expected.push(&founded);
        assert_eq!(groups_of(w, "bob").await, expected, "the oldest gives way");
        assert_eq!(invited_groups(w, "bob").await, [founded.as_str()]);
        if let Some(before) = last.replace(founded) {
            let members = w.members(&before).await.expect("a group");
            assert_eq!(members, [(key(&format!("stranger {}", n - 1)), Role::Admin)]);
        }
    }
    let log = w.store.after(0, 100).await.expect("the log");
    let touched = log.entries.iter().filter(|entry| matches!(&entry.touches, Touches::Groups(ids) if ids.len() == 2));
    assert_eq!(touched.count(), 9);
    // The log may lose the wrap that made room, so the deletion that removes the wrap touches the same groups.
    let wrap = log.entries.last().and_then(|entry| entry.sealed.clone());
    let wrap = match wrap {
        Some(wrap) => wrap,
        None => w.store.events_at(&[w.store.head()]).await.expect("an event").remove(0),
    };
    let sealed = new(after(w, 15, &deletion(&[id_of(&wrap)]), "stranger 9").await);
    let log = w.store.after(sealed.cursor() - 1, 100).await.expect("the log");
    let both = Touches::groups([group("stranger0"), group("stranger1")]);
    assert_eq!(log.entries.last().map(|entry| &entry.touches), Some(&both));
    assert_eq!(sealed.touches(), Touches::Nothing, "this process knew of the wrap");
    // A friend's invitation takes the stranger's place.
    new(after(w, 20, &invitation("bob", "friend"), "dave").await);
    assert_eq!(groups_of(w, "bob").await, ["a-talk", "b-club", "c-team", "friend"]);
    let given_up = w.try_admit(message("stranger0", "spam").sign(&keypair("throw-away")), &["bob"], START).await;
    assert!(given_up.is_err(), "a membership that gave way is none");
}

pub async fn of_memberships_of_one_second_the_lowest_id_gives_way(w: &mut World) {
    bound(w, 3, 100);
    for founded in ["b", "c", "a"] {
        new(w.publish(&invitation("bob", founded), "alice").await);
    }
    let mut batch = Vec::new();
    for founded in ["d", "e"] {
        batch.push(w.admitted(&invitation("bob", founded), "carol").await);
    }
    for saved in w.save(batch).await {
        new(saved);
    }
    // The last of alice's three is given up first; among alice's two and carol's one it is alice's second, c.
    assert_eq!(groups_of(w, "bob").await, ["b", "d", "e"]);
    // Two of carol's: the second goes. Then each of the three is its key's first, and the lowest id goes.
    new(w.publish(&invitation("bob", "f"), "dave").await);
    new(w.publish(&invitation("bob", "a2"), "erin").await);
    assert_eq!(groups_of(w, "bob").await, ["a2", "d", "f"]);
}

pub async fn many_memberships_of_one_keys_making_give_way_before_anothers_one(w: &mut World) {
    bound(w, 8, 100);
    new(w.publish(&invitation("bob", "friends"), "friend").await);
    let mut refused = 0;
    for n in 0..6_u64 {
        let name = format!("stranger {n}");
        let invitation = |nth: u64| invitation("bob", &format!("x{n}-{nth}"));
        let mut batch = Vec::new();
        for nth in 0..4 {
            batch.push(w.admitted_at(START + 1 + n * 4 + nth, &invitation(nth), &name).await);
        }
        // In one batch, and one after the other.
        let batches = if n % 2 == 0 { vec![batch] } else { batch.into_iter().map(|one| vec![one]).collect() };
        for batch in batches {
            for saved in w.save(batch).await {
                match saved {
                    Saved::New(_) => {}
                    Saved::Refused(STRANGER) => refused += 1,
                    other => panic!("{other:?}"),
                }
            }
        }
        let groups = groups_of(w, "bob").await;
        assert!(groups.contains(&"friends".to_owned()) && groups.len() <= 8, "{groups:?}");
    }
    assert_eq!(refused, 7, "a key whose memberships are the most is refused another");
    // Another friend takes a stranger's second, and no stranger that has one takes another's one.
    new(after(w, 50, &invitation("bob", "late"), "friend 2").await);
    let saved = after(w, 51, &invitation("bob", "x5-9"), "stranger 5").await;
    assert!(matches!(saved, Saved::Refused(STRANGER)), "{saved:?}");
    let first = (0..6).map(|n| format!("x{n}-0"));
    let expected: Vec<String> = ["friends".to_owned(), "late".to_owned()].into_iter().chain(first).collect();
    assert_eq!(groups_of(w, "bob").await, expected);
}

pub async fn a_membership_that_an_admin_key_made_never_gives_way(w: &mut World) {
    bound(w, 2, 1);
    new(w.publish(&roster("team", 1, "bootstrap", &["bob", "carol"]), "admin").await);
    for n in 0..3_u64 {
        new(after(w, n, &invitation("bob", &format!("x{n}")), &format!("stranger {n}")).await);
        assert_eq!(groups_of(w, "bob").await, ["team".to_owned(), format!("x{n}")]);
    }
    new(after(w, 5, &roster("staff", 1, "bootstrap", &["bob", "carol"]), "admin").await);
    assert_eq!(groups_of(w, "bob").await, ["staff", "team"]);
    let saved = after(w, 6, &invitation("bob", "x9"), "stranger 9").await;
    assert!(matches!(saved, Saved::Refused(STRANGER)), "{saved:?}");
}

pub async fn members_do_not_use_up_the_invitations_of_the_groups_founder(w: &mut World) {
    bound(w, 100, 3);
    new(w.publish(&invitation("ben", "club"), "eve").await);
    new(w.publish(&invitation("dan", "club"), "ben").await);
    for (inviter, names) in [("ben", ["i1", "i2"]), ("dan", ["i3", "i4"])] {
        for name in names {
            new(w.publish(&invitation(name, "club"), inviter).await);
        }
    }
    new(w.publish(&invitation("i5", "club"), "ben").await);
    new(w.publish(&invitation("i6", "club"), "dan").await);
    for inviter in ["ben", "dan"] {
        let saved = w.publish(&invitation("i7", "club"), inviter).await;
        assert!(matches!(saved, Saved::Refused(Refusal::InvitedFull)), "{saved:?}");
    }
    // The founder has all its own, by wraps and by rosters.
    new(w.publish(&invitation("i7", "club"), "eve").await);
    new(w.publish(&invitation("i8", "club2"), "eve").await);
    new(w.publish(&roster("club", 1, "add", &["i9"]), "eve").await);
    let saved = w.publish(&roster("club", 2, "add", &["i10"]), "eve").await;
    assert!(matches!(saved, Saved::Refused(Refusal::InvitedFull)), "{saved:?}");
    // So has an admin of the group's who did not found it.
    new(w.publish(&roster("club", 2, "promote", &["i9"]), "eve").await);
    new(w.publish(&roster("club", 3, "add", &["i10", "i11", "i12"]), "i9").await);
}

pub async fn a_membership_that_a_bound_forbids_is_ok_false(w: &mut World) {
    bound(w, 2, 100);
    for talk in ["one", "two"] {
        new(w.publish(&invitation("bob", talk), "alice").await);
        w.send(&message(talk, "hi"), "throw-away", "bob").await;
    }
    let founding = invitation("bob", "three");
    let saved = w.publish(&founding, "dave").await;
    assert!(matches!(saved, Saved::Refused(STRANGER)), "{saved:?}");
    assert!(w.members("three").await.is_none() && !w.holds(founding.event(&keypair("dave")).id()).await);
    new(w.publish(&invitation("carol", "four"), "dave").await);
    let adding = invitation("bob", "four");
    let saved = w.publish(&adding, "dave").await;
    assert!(matches!(&saved, Saved::Refused(Refusal::MembershipsFull(None))), "{saved:?}");
    let answer = saved.answer().expect_err("refused").to_string();
    assert!(answer.starts_with("invalid: ") && answer.ends_with("add others without it"), "{answer}");
    assert_eq!(groups_of(w, "bob").await, ["one", "two"]);
    // The founder needs room as well.
    let own = w.publish(&invitation("erin", "five"), "bob").await;
    assert!(matches!(own, Saved::Refused(STRANGER)), "{own:?}");
    new(w.publish(&roster("one", 1, "remove", &["bob"]), "bob").await);
    new(w.publish(&adding, "dave").await);
    assert_eq!(groups_of(w, "bob").await, ["four", "two"]);
}

pub async fn rosters_obey_the_bound_on_memberships(w: &mut World) {
    bound(w, 2, 100);
    new(w.publish(&roster("group0", 1, "bootstrap", &["carol"]), "admin").await);
    for n in 1..5_u64 {
        let (name, founder) = (format!("group{n}"), format!("frank {n}"));
        new(after(w, n, &invitation("carol", &name), &founder).await);
        new(after(w, n, &roster(&name, 1, "add", &["bob"]), &founder).await);
    }
    assert_eq!(groups_of(w, "bob").await, ["group3", "group4"]);
    for talk in ["group3", "group4"] {
        w.send(&message(talk, "hi"), "throw-away", "bob").await;
    }
    // An admin key's roster and a group admin's are refused as a whole. Only an admin key is told the key.
    new(w.publish(&invitation("dave", "club"), "ada").await);
    for (signer, event) in [
        ("admin", roster("group0", 2, "add", &["erin", "bob"])),
        ("admin", roster("group9", 1, "bootstrap", &["erin", "bob"])),
        ("admin", roster("group0", 2, "replace", &["erin", "bob"])),
        ("ada", roster("club", 1, "add", &["erin", "bob"])),
    ] {
        let saved = w.publish(&event, signer).await;
        let told = (signer == "admin").then(|| key("bob"));
        assert!(matches!(&saved, Saved::Refused(Refusal::MembershipsFull(full)) if *full == told), "{saved:?}");
        let answer = saved.answer().expect_err("refused").to_string();
        assert!(answer.starts_with("invalid: ") && answer.contains(&key("bob").to_hex()) == told.is_some(), "{answer}");
    }
    assert!(groups_of(w, "erin").await.is_empty() && w.members("group9").await.is_none());
    new(w.publish(&roster("group4", 2, "remove", &["bob"]), "frank 4").await);
    new(w.publish(&roster("club", 1, "add", &["erin", "bob"]), "ada").await);
    assert_eq!(groups_of(w, "bob").await, ["club", "group3"]);
    // A member that takes another role keeps its standing.
    new(w.publish(&roster("club", 2, "promote", &["bob"]), "ada").await);
    new(after(w, 100, &invitation("bob", "later"), "grace").await);
    assert_eq!(groups_of(w, "bob").await, ["group3", "later"]);
}

pub async fn memberships_that_nobody_acted_in_count_against_the_key_that_made_them(w: &mut World) {
    bound(w, 100, 3);
    for (n, name) in ["one", "two", "three"].into_iter().enumerate() {
        new(w.publish(&invitation(name, &format!("club{n}")), "eve").await);
    }
    let refused = async |event: EventBuilder, by: &str, refusal: Refusal| {
        let saved = w.publish(&event, by).await;
        assert!(matches!(&saved, Saved::Refused(it) if *it == refusal), "{saved:?}");
    };
    refused(invitation("four", "club3"), "eve", STRANGER).await;
    refused(invitation("four", "club0"), "eve", Refusal::InvitedFull).await;
    refused(roster("club0", 1, "add", &["four"]), "eve", Refusal::InvitedFull).await;
    new(w.publish(&invitation("four", "other"), "frank").await);
    // Acting, leaving, removal and vanishing each make room.
    w.send(&message("club0", "hi"), "throw-away", "one").await;
    new(w.publish(&invitation("four", "club0"), "eve").await);
    refused(invitation("five", "club0"), "eve", Refusal::InvitedFull).await;
    new(w.publish(&roster("club0", 1, "remove", &["four"]), "four").await);
    new(w.publish(&invitation("five", "club0"), "eve").await);
    new(w.publish(&vanish(START), "five").await);
    new(w.publish(&invitation("six", "club0"), "eve").await);
    new(w.publish(&roster("club0", 2, "remove", &["six"]), "eve").await);
    new(w.publish(&roster("club0", 3, "add", &["seven"]), "eve").await);
    refused(roster("club0", 4, "add", &["eight"]), "eve", Refusal::InvitedFull).await;
    // No bound of the founder's holds up an admin key.
    new(w.publish(&roster("club0", 4, "add", &["eight", "nine"]), "admin").await);
    assert_eq!(w.members("club0").await.map(|members| members.len()), Some(5));
}

pub async fn a_membership_that_gave_way_may_be_made_again(w: &mut World) {
    bound(w, 1, 100);
    new(w.publish(&invitation("bob", "one"), "alice").await);
    new(after(w, 1, &invitation("bob", "two"), "carol").await);
    let again = wrap("bob", "again").tag(&["h", "one"]);
    new(after(w, 2, &again, "alice").await);
    assert_eq!(groups_of(w, "bob").await, ["one"]);
    assert!(w.group("two").await.is_managed());
    let said = w.send(&message("one", "hi"), "throw-away", "bob").await;
    assert!(w.holds(said).await);
    let saved = after(w, 3, &invitation("bob", "three"), "dave").await;
    assert!(matches!(saved, Saved::Refused(STRANGER)), "{saved:?}");
    assert!(w.store.group(&group("one")).await.expect("a state").0.has_member(&[key("bob")]));
}

pub async fn a_wrap_that_changes_nothing_touches_no_group(w: &World) {
    let of = |id: &str| Touches::groups([group(id)]);
    let founding = new(w.publish(&invitation("bob", "club"), "alice").await);
    assert_eq!(founding.touches(), of("club"));
    let again = new(w.publish(&wrap("bob", "again").tag(&["h", "club"]), "alice").await);
    assert_eq!(again.touches(), Touches::Nothing, "its recipient is a member");
    new(w.publish(&roster("team", 1, "bootstrap", &["alice"]), "admin").await);
    let beside = new(w.publish(&invitation("carol", "team"), "alice").await);
    assert_eq!(beside.touches(), Touches::Nothing, "a roster decides about the group");
    let unlisted = new(w.publish(&wrap("carol", "unlisted").tag(&["h", &capability("any")]), "alice").await);
    assert_eq!(unlisted.touches(), Touches::Nothing, "it asks for nothing");
    // So says the log to a follower, and so say the deletions of these wraps.
    let before = w.store.head();
    let log = w.store.after(0, 10).await.expect("the log");
    let touches: Vec<Touches> = log.entries.into_iter().map(|entry| entry.touches).collect();
    assert_eq!(touches, [of("club"), Touches::Nothing, of("team"), Touches::Nothing, Touches::Nothing]);
    for (wrap, by) in [(&again, "bob"), (&beside, "carol"), (&unlisted, "carol"), (&founding, "bob")] {
        new(w.publish(&deletion(&[id_of(wrap)]), by).await);
    }
    let log = w.store.after(before, 10).await.expect("the log");
    let touches: Vec<Touches> = log.entries.into_iter().map(|entry| entry.touches).collect();
    assert_eq!(touches, [Touches::Nothing, Touches::Nothing, Touches::Nothing, of("club")]);
}
