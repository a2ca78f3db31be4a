//! Changes of a group by gift wraps, vanishing keys and messages (docs/rules.md, "Gift wraps" and "Registry"; NIP-62).
use crate::common::{CAPABILITY, group_id, keys, managed, members, policy, send, state, view, wrap};
use nostr_extensions::{
    Effect, Group, GroupStatus, Policy,
    Role::{Admin, Member},
    Source,
    mls_gateway::group::{
        Changed, GROUP_MEMBERS_MAX, GROUPS_FOUNDED_PER_DAY_MAX, Refusal, SeenEpoch, WrapChange, apply_vanish,
        apply_wrap, next_epoch,
    },
};
use nostr_protocol::{
    PublicKey, Rejection, Word,
    testing::{EventBuilder, key},
};

fn wrapped() -> GroupStatus {
    managed(Source::GiftWrap, 0, &[("ada", Admin), ("alice", Member)])
}

fn apply(status: &GroupStatus, change: &WrapChange) -> Option<Changed> {
    apply_wrap(status, change, 0, 100).unwrap()
}

/// The refusal of a wrap by a reader that has a key and may not send it.
const STRANGER: Refusal = Refusal::WrapByStranger { anonymous: false };

#[track_caller]
fn assert_refused(status: &GroupStatus, change: &WrapChange) {
    let anonymous = change.publishers.is_empty();
    assert_eq!(apply_wrap(status, change, 0, 100).unwrap_err(), Refusal::WrapByStranger { anonymous });
}

/// A wrap to bob that names `h`, as admitted, where `groups` are known.
fn send_wrap(
    readers: &[&str],
    author: &str,
    h: &str,
    policy: &Policy,
    groups: &[Group],
) -> Result<Option<WrapChange>, Rejection> {
    let event = EventBuilder::new(1059).tag(&["p", &key("bob").to_hex()]).tag(&["h", h]);
    send(readers, author, event, policy, groups).map(|admitted| match admitted.effect() {
        Effect::Wrap(change) => Some(change.clone()),
        Effect::None => None,
        other => panic!("{other:?}"),
    })
}

/// The change that a wrap asks for of a group that is not known.
fn admitted(readers: &[&str], author: &str, h: &str, policy: &Policy) -> Option<WrapChange> {
    send_wrap(readers, author, h, policy, &[]).unwrap()
}

#[test]
fn a_wrap_by_a_member_adds_its_recipient_as_a_member() {
    for publisher in ["ada", "alice"] {
        let changed = apply(&wrapped(), &wrap(&[publisher], "bob")).unwrap();
        assert_eq!(changed.view.members, members(&[("ada", Admin), ("alice", Member), ("bob", Member)]));
        assert_eq!(changed.delta, [(key("bob"), Some(Member))]);
        assert_eq!(changed.founder, None);
    }
    assert!(apply(&wrapped(), &wrap(&["carol", "alice"], "bob")).is_some(), "any key of the reader");
}

#[test]
fn a_wrap_by_anyone_else_is_refused() {
    for (publishers, recipient) in
        [(&["carol"][..], "bob"), (&["carol"], "carol"), (&["operator"], "bob"), (&[], "bob")]
    {
        assert_refused(&wrapped(), &wrap(publishers, recipient));
    }
}

#[test]
fn a_wrap_to_a_present_member_changes_no_role() {
    assert!(apply(&wrapped(), &wrap(&["alice"], "ada")).is_none());
    assert!(apply(&wrapped(), &wrap(&["ada"], "alice")).is_none());
}

#[test]
fn a_group_with_a_roster_or_an_acl_is_not_changed_by_wraps() {
    for source in [Source::Roster, Source::Acl] {
        let group = managed(source, 1, &[("ada", Admin)]);
        for publisher in ["ada", "operator"] {
            assert!(apply(&group, &wrap(&[publisher], "bob")).is_none());
        }
        assert_refused(&group, &wrap(&["carol"], "bob"));
    }
}

#[test]
fn a_wrap_founds_a_named_group_with_publisher_and_recipient() {
    let changed = apply(&GroupStatus::Unknown, &wrap(&["ada"], "bob")).unwrap();
    assert_eq!(changed.view.members, members(&[("ada", Admin), ("bob", Member)]));
    assert_eq!((changed.view.record.source, changed.view.record.seq), (Source::GiftWrap, 0));
    assert_eq!((changed.view.record.created_at, changed.founder), (100, Some(key("ada"))));
    assert_eq!(changed.delta.len(), 2);
    assert_refused(&GroupStatus::Unknown, &wrap(&["ada"], "ada"));
}

#[test]
fn a_group_that_lost_its_members_is_not_founded_anew() {
    assert_refused(&managed(Source::GiftWrap, 0, &[]), &wrap(&["carol"], "bob"));
}

#[test]
fn the_founder_is_the_primary_key_or_the_author_where_it_is_authenticated() {
    let policy = policy();
    let founder = |readers: &[&str], author| admitted(readers, author, "grp", &policy).unwrap().founder;
    assert_eq!(founder(&["ada", "carol"], "throw-away"), Some(key("ada")));
    assert_eq!(founder(&["ada", "carol"], "carol"), Some(key("carol")));
}

#[test]
fn where_a_whitelist_is_set_the_founder_is_a_resident() {
    let policy = Policy { residents: Some(keys(&["carol", "bob"]).into_iter().collect()), ..policy() };
    assert_eq!(send_wrap(&["ada"], "throw-away", "grp", &policy, &[]), Err(STRANGER.into()));
    assert_eq!(admitted(&["carol"], "throw-away", "grp", &policy).unwrap().founder, Some(key("carol")));
}

#[test]
fn an_anonymous_publisher_founds_nothing_and_adds_nobody() {
    let refused = send_wrap(&[], "ada", "grp", &policy(), &[]).unwrap_err();
    assert_eq!(refused, Refusal::WrapByStranger { anonymous: true }.into());
    assert_eq!(refused.word, Word::AuthRequired);
}

/// A group that exists and a founding that is refused are one answer.
#[test]
fn a_refused_founding_has_one_text() {
    let listed = Policy { residents: Some(keys(&["bob"]).into_iter().collect()), ..policy() };
    let off = Policy { unlisted_groups: false, ..policy() };
    let known = |status| [state("grp", status)];
    let roster = managed(Source::Roster, 1, &[("ada", Admin)]);
    for (h, policy, groups) in [
        ("grp", &policy(), known(wrapped())),
        ("grp", &policy(), known(roster)),
        ("grp", &listed, known(GroupStatus::Unknown)),
        (CAPABILITY, &off, [state(CAPABILITY, GroupStatus::Unlisted)]),
    ] {
        assert_eq!(send_wrap(&["carol"], "carol", h, policy, &groups), Err(STRANGER.into()));
    }
    assert_eq!(send_wrap(&["bob"], "bob", "grp", &policy(), &[]), Err(STRANGER.into()), "to itself");
    let change = wrap(&["ada"], "bob");
    assert_eq!(apply_wrap(&GroupStatus::Unknown, &change, 20, 100).unwrap_err(), STRANGER);
}

#[test]
fn a_capability_is_never_founded_while_unlisted_groups_are_on() {
    let on = policy();
    for readers in [&["ada"][..], &[]] {
        let change = admitted(readers, "ada", CAPABILITY, &on).unwrap();
        assert_eq!((change.founder, change.unlisted), (None, true));
        for status in [GroupStatus::Unknown, GroupStatus::Unlisted] {
            assert!(apply(&status, &change).is_none(), "the id of an unlisted group asks for nothing");
        }
        assert_refused(&wrapped(), &WrapChange { publishers: keys(&["carol"]), ..change });
    }
    let off = Policy { unlisted_groups: false, ..policy() };
    assert_eq!(admitted(&["ada"], "ada", CAPABILITY, &off).unwrap().founder, Some(key("ada")));
    // Nor ever once it carried messages.
    assert_refused(&GroupStatus::Unlisted, &wrap(&["ada"], "bob"));
}

#[test]
fn a_key_founds_at_most_20_groups_a_day() {
    assert_eq!(GROUPS_FOUNDED_PER_DAY_MAX, 20);
    let change = wrap(&["ada"], "bob");
    assert!(apply_wrap(&GroupStatus::Unknown, &change, 19, 100).unwrap().is_some());
    assert_eq!(apply_wrap(&GroupStatus::Unknown, &change, 20, 100).unwrap_err(), STRANGER);
    assert!(apply_wrap(&wrapped(), &change, 20, 100).unwrap().is_some(), "adding to a group founds none");
}

#[test]
fn a_full_group_takes_nobody_in() {
    let mut full = view(Source::GiftWrap, 0, &[("ada", Admin)]);
    for n in 1..GROUP_MEMBERS_MAX as u64 {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        full.members.insert(PublicKey::from_bytes(bytes), Member);
    }
    let status = GroupStatus::Managed(full.into());
    assert_eq!(apply_wrap(&status, &wrap(&["ada"], "bob"), 0, 100).unwrap_err(), Refusal::GroupFull);
    // A stranger is not told.
    assert_refused(&status, &wrap(&["carol"], "bob"));
}

#[test]
fn wraps_do_nothing_where_giftwrap_is_no_source() {
    let policy = Policy { sources: [Source::Roster].into(), ..policy() };
    assert!(admitted(&["ada"], "ada", "grp", &policy).is_none());
}

#[test]
fn an_ephemeral_wrap_has_no_effect_on_groups() {
    let event = EventBuilder::new(21059).tag(&["p", &key("bob").to_hex()]).tag(&["h", "grp"]);
    let admitted = send(&["ada"], "ada", event, &policy(), &[]).unwrap();
    assert!(matches!(admitted.effect(), Effect::None));
}

#[test]
fn a_vanishing_key_leaves_its_groups_but_the_last_admin_stays() {
    let group = view(Source::Roster, 5, &[("ada", Admin), ("alice", Member)]);
    let changed = apply_vanish(&group, &key("alice")).unwrap();
    assert_eq!(changed.view.members, members(&[("ada", Admin)]));
    assert_eq!(changed.delta, [(key("alice"), None)]);
    assert_eq!(changed.view.record, group.record, "the group's state is not touched");
    assert!(apply_vanish(&group, &key("ada")).is_none());
    assert!(apply_vanish(&group, &key("carol")).is_none());
    let two = view(Source::Roster, 5, &[("ada", Admin), ("eve", Admin)]);
    assert_eq!(apply_vanish(&two, &key("ada")).unwrap().view.members, members(&[("eve", Admin)]));
}

#[test]
fn an_epoch_header_steps_within_the_bound() {
    assert_eq!(next_epoch(None, SeenEpoch::Nowhere), None);
    assert_eq!(next_epoch(Some(7), SeenEpoch::Nowhere), Some(7));
    for seen in [SeenEpoch::Header, SeenEpoch::Tag] {
        assert_eq!(next_epoch(Some(7), seen(1_007)), Some(1_007));
        assert_eq!(next_epoch(Some(7), seen(1_008)), Some(7));
        assert_eq!(next_epoch(Some(7), seen(3)), Some(7), "a late message does not set it back");
        assert_eq!(next_epoch(None, seen(1_000)), Some(1_000));
        assert_eq!(next_epoch(None, seen(1_001)), None);
        assert_eq!(next_epoch(Some(7), seen(u64::MAX)), Some(7), "no single message pins it");
        assert_eq!(next_epoch(Some(u64::MAX), seen(u64::MAX)), Some(u64::MAX));
    }
}

#[test]
fn a_group_id_is_1_to_128_of_its_characters_the_first_a_letter_or_digit() {
    use nostr_extensions::NostrGroupId as Id;
    let longest = "a".repeat(128);
    for good in ["a", "0", "grp_abc123", "A.b:c-d_e", CAPABILITY, &longest] {
        assert_eq!(Id::parse(good).unwrap().as_str(), good);
    }
    for bad in ["", "_a", "-a", ".a", ":a", "a b", "a/b", "ä", "aä", "a\0", "a%20", &"a".repeat(129)] {
        assert!(Id::parse(bad).is_none(), "{bad}");
    }
    assert_ne!(group_id("GRP"), group_id("grp"), "compared byte for byte");
}

#[test]
fn a_capability_is_64_lower_case_hex_digits() {
    assert!(group_id(CAPABILITY).is_capability());
    for other in [&CAPABILITY[1..], &CAPABILITY.to_uppercase(), &CAPABILITY.replace('d', "g"), "grp"] {
        assert!(!group_id(other).is_capability(), "{other}");
    }
}

#[test]
fn debug_output_of_a_group_does_not_show_its_id() {
    let state: Group = state(CAPABILITY, GroupStatus::Unlisted);
    assert!(!format!("{state:?}").contains(&CAPABILITY[..8]));
}
