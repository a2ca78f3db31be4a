//! Shapes, sizes and times of events at admission, and how an admitted event is kept.

use nostr_extensions::{
    Admitted, Effect, GroupStatus, Policy,
    admit::{NEVER, Persistence, Publisher, group_of, precheck},
    mls_gateway::group::{ROSTER_KEYS_MAX, RosterOp},
};
use nostr_protocol::{
    PublicKey, Rejection,
    testing::{EventBuilder, key, keypair},
};

use crate::common::{CAPABILITY, NOW, admit_as, grp, letter, names, policy, reader, send, state};

const DAY: u64 = 86_400;

/// Publishes from a reader that passes every rule about publishers.
fn publish(event: EventBuilder, policy: &Policy) -> Result<Admitted, Rejection> {
    send(&["operator", "ada"], "operator", event, policy, &[grp()])
}

fn bob() -> String {
    key("bob").to_hex()
}

/// A well-shaped event of each kind that has a shape.
fn shaped(kind: u16) -> EventBuilder {
    let new = EventBuilder::new(kind);
    match kind {
        445 => new.tag(&["h", "grp"]),
        446 => new.tag(&["p", &bob()]).tag(&["v", "noise.1"]),
        450 => new.tag(&["h", "grp"]).tag(&["seq", "6"]).tag(&["op", "add"]).tag(&["p", &bob()]),
        _ => new.tag(&["p", &bob()]),
    }
}

fn without(mut event: EventBuilder, name: &str) -> EventBuilder {
    event.tags.retain(|tag| tag[0] != name);
    event
}

#[test]
fn each_kind_carries_its_tags_exactly_once() {
    for (kind, tags) in
        [(445, &["h"][..]), (446, &["p"]), (447, &["p"]), (450, &["h", "seq", "op"]), (1059, &["p"]), (21059, &["p"])]
    {
        assert!(publish(shaped(kind), &policy()).is_ok(), "{kind}");
        for tag in tags {
            let value = shaped(kind).tags.iter().find(|t| t[0] == *tag).unwrap()[1].clone();
            for wrong in [
                without(shaped(kind), tag),
                shaped(kind).tag(&[tag, &value]),
                without(shaped(kind), tag).tag(&[tag]),
                without(shaped(kind), tag).tag(&[tag, ""]),
            ] {
                assert_eq!(letter(&publish(wrong.clone(), &policy())), 'i', "{kind} {:?}", wrong.tags);
            }
        }
    }
}

#[test]
fn a_request_and_a_wrap_carry_at_most_one_h_and_a_wrong_one_is_invalid() {
    for kind in [447, 1059, 21059] {
        assert!(publish(shaped(kind).tag(&["h", "grp"]), &policy()).is_ok());
        for wrong in [
            shaped(kind).tag(&["h", "grp"]).tag(&["h", "grp"]),
            shaped(kind).tag(&["h"]),
            shaped(kind).tag(&["h", "no/slash"]),
        ] {
            assert_eq!(letter(&publish(wrong, &policy())), 'i', "{kind}");
        }
    }
}

#[test]
fn a_public_key_in_p_is_64_lower_case_hex_digits() {
    for kind in [446, 447, 450, 1059, 21059] {
        for wrong in [bob().to_uppercase(), bob()[1..].to_owned(), key("bob").to_npub(), "x".repeat(64)] {
            let event = without(shaped(kind), "p").tag(&["p", &wrong]);
            assert_eq!(letter(&publish(event, &policy())), 'i', "{kind} {wrong}");
        }
    }
}

#[test]
fn a_noise_message_says_its_version() {
    for wrong in [without(shaped(446), "v"), without(shaped(446), "v").tag(&["v", "noise.2"])] {
        assert_eq!(letter(&publish(wrong, &policy())), 'i');
    }
}

#[test]
fn seq_is_decimal_1_to_2_to_the_53_less_1_without_leading_zero() {
    let with = |seq: &str| publish(without(shaped(450), "seq").tag(&["seq", seq]), &policy());
    for good in ["1", "17", "9007199254740991"] {
        assert!(with(good).is_ok(), "{good}");
    }
    for bad in ["0", "01", "-1", "+1", "1.0", "1e3", "0x1", " 1", "９", "9007199254740992", "18446744073709551616"] {
        assert_eq!(letter(&with(bad)), 'i', "{bad}");
    }
}

#[test]
fn op_and_role_are_words_of_the_specification() {
    for (word, op) in [
        ("bootstrap", RosterOp::Bootstrap),
        ("add", RosterOp::Add),
        ("remove", RosterOp::Remove),
        ("promote", RosterOp::Promote),
        ("demote", RosterOp::Demote),
        ("replace", RosterOp::Replace),
    ] {
        let admitted = publish(without(shaped(450), "op").tag(&["op", word]), &policy()).unwrap();
        assert!(matches!(admitted.effect(), Effect::Roster(change) if change.op == op));
    }
    for wrong in ["Add", "ADD", "merge", "add "] {
        assert_eq!(letter(&publish(without(shaped(450), "op").tag(&["op", wrong]), &policy())), 'i');
    }
    assert!(publish(shaped(450).tag(&["role", "admin"]), &policy()).is_ok());
    assert_eq!(letter(&publish(shaped(450).tag(&["role", "owner"]), &policy())), 'i');
}

#[test]
fn a_roster_has_1_to_2000_keys_and_says_each_once() {
    assert_eq!(letter(&publish(without(shaped(450), "p"), &policy())), 'i', "an empty list");
    let many = |count: usize| {
        let mut event = without(shaped(450), "p");
        for n in 0..count {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&(n as u64).to_be_bytes());
            event = event.tag(&["p", &PublicKey::from_bytes(bytes).to_hex()]);
        }
        publish(event, &policy())
    };
    assert!(many(ROSTER_KEYS_MAX).is_ok());
    assert_eq!(letter(&many(ROSTER_KEYS_MAX + 1)), 'i');
    let twice = publish(shaped(450).tag(&["p", &bob()]), &policy()).unwrap();
    assert!(matches!(twice.effect(), Effect::Roster(change) if change.keys == [key("bob")]));
}

#[test]
fn created_at_is_at_most_900_seconds_ahead_and_any_age_behind() {
    let at = |created_at| {
        let event = EventBuilder::new(1).at(created_at).sign(&keypair("alice"));
        admit_as(&reader(&[]), event, &policy(), None)
    };
    assert!(at(NOW + 900).is_ok() && at(0).is_ok());
    for ahead in [NOW + 901, NOW * 1_000, u64::MAX] {
        assert_eq!(letter(&at(ahead)), 'i', "{ahead}");
    }
}

#[test]
fn size_and_number_of_tags_are_bounded_before_the_signature_is_looked_at() {
    let policy = Policy { event_bytes_max: 1_000, event_tags_max: 3, ..policy() };
    let check = |event: EventBuilder| {
        let (reader, names) = (reader(&[]), names());
        let unverified = event.at(NOW).unverified(&keypair("alice"));
        precheck(unverified.event(), Publisher { reader: &reader, names: &names }, &policy, NOW)
    };
    assert!(check(EventBuilder::new(1).tag(&["t"]).tag(&["t"]).tag(&["t"])).is_ok());
    assert_eq!(letter(&check(EventBuilder::new(1).tag(&["t"]).tag(&["t"]).tag(&["t"]).tag(&["t"]))), 'i');
    assert_eq!(letter(&check(EventBuilder::new(1).content("x".repeat(1_000)))), 'i');
    assert_eq!(letter(&check(EventBuilder::new(444))), 'b');
}

#[test]
fn expiration_shortens_every_kind_but_is_invalid_on_5_62_and_450() {
    let soon = (NOW + 10).to_string();
    for kind in [0, 1, 4, 445, 446, 447, 1059, 20001, 21059, 30078] {
        let admitted = publish(shaped(kind).tag(&["expiration", &soon]), &policy()).unwrap();
        assert_eq!(admitted.expires_at(), NOW + 10, "{kind}");
    }
    let deletion = EventBuilder::new(5).tag(&["e", &"ab".repeat(32)]);
    let vanish = EventBuilder::new(62).tag(&["relay", "ALL_RELAYS"]);
    for event in [deletion, vanish, shaped(450)] {
        assert!(publish(event.clone(), &policy()).is_ok());
        assert_eq!(letter(&publish(event.tag(&["expiration", &soon]), &policy())), 'i');
    }
}

#[test]
fn expiration_that_is_past_or_in_milliseconds_or_no_number_is_refused_with_that_said() {
    let with =
        |value: &str| publish(EventBuilder::new(1).tag(&["expiration", value]), &policy()).map_err(|r| r.to_string());
    assert!(with(&NOW.to_string()).unwrap_err().contains("has expired"));
    assert!(with("0").unwrap_err().contains("has expired"));
    for milliseconds in ["1795370771000", "100000000001", "99999999999999999999999"] {
        assert!(with(milliseconds).unwrap_err().contains("milliseconds"));
    }
    for wrong in ["", "-1", "1.5", "tomorrow"] {
        assert!(with(wrong).unwrap_err().contains("no whole number"));
    }
    assert_eq!(with("100000000000").unwrap().expires_at(), 100_000_000_000);
}

#[test]
fn each_kind_is_kept_as_the_table_says() {
    let on = policy();
    let off = Policy { archive_secs: None, ..policy() };
    let kept = |kind, policy: &Policy| {
        let admitted = publish(shaped(kind), policy).unwrap();
        (admitted.persistence(), admitted.expires_at())
    };
    for kind in [445, 446] {
        assert_eq!(kept(kind, &on), (Persistence::Stored, NOW + 30 * DAY));
        let (keep, expires_at) = kept(kind, &off);
        assert_eq!(keep, Persistence::LogOnly, "fed to every instance and not kept");
        assert!((NOW + 1..=NOW + 600).contains(&expires_at));
    }
    assert_eq!(kept(1059, &on), (Persistence::Stored, NOW + 30 * DAY));
    assert_eq!(kept(1059, &off), (Persistence::Stored, NOW + 3_600));
    assert_eq!(kept(450, &on), (Persistence::Stored, NOW + 365 * DAY));
    for kind in [20001, 21059] {
        assert_eq!(kept(kind, &on).0, Persistence::Ephemeral);
    }
    for kind in [0, 1, 4, 30078] {
        assert_eq!(kept(kind, &on), (Persistence::Stored, NEVER), "without end");
    }
}

#[test]
fn a_request_is_kept_for_its_ttl_at_most_the_configured_one_at_most_7_days() {
    let kept = |ttl: Option<&str>, longest| {
        let policy = Policy { keypackage_request_ttl_secs: longest, ..policy() };
        let event = ttl.map_or_else(|| shaped(447), |ttl| shaped(447).tag(&["ttl", ttl]));
        publish(event, &policy).map(|admitted| admitted.expires_at() - NOW)
    };
    assert_eq!(kept(Some("60"), 7 * DAY), Ok(60));
    assert_eq!(kept(None, DAY), Ok(DAY));
    assert_eq!(kept(Some("604800"), DAY), Ok(DAY));
    assert_eq!(kept(Some("9999999"), 30 * DAY), Ok(7 * DAY));
    assert_eq!(kept(None, 30 * DAY), Ok(7 * DAY));
    for wrong in ["0", "-1", "", "1.5", "a week"] {
        assert_eq!(letter(&kept(Some(wrong), DAY)), 'i', "{wrong}");
    }
}

#[test]
fn replaceable_and_addressable_events_take_the_place_of_their_address() {
    let identifier = |event| match publish(event, &policy()).unwrap().effect() {
        Effect::Replace { identifier } => Some(identifier.to_string()),
        _ => None,
    };
    let d = |kind| EventBuilder::new(kind).tag(&["d", "x"]).tag(&["d", "y"]);
    assert_eq!(identifier(d(0)).as_deref(), Some(""));
    assert_eq!(identifier(d(10002)).as_deref(), Some(""));
    assert_eq!(identifier(d(30078)).as_deref(), Some("x"));
    assert_eq!(identifier(EventBuilder::new(30078)).as_deref(), Some(""));
    assert_eq!(identifier(d(1)), None);
}

#[test]
fn a_message_carries_the_precondition_that_the_transaction_checks_again() {
    let effect = |h: &str| {
        let event = EventBuilder::new(445).tag(&["h", h]).tag(&["k", "7"]);
        match send(&["carol", "alice"], "throw-away", event, &policy(), &[grp()]).unwrap().effect() {
            Effect::GroupMessage { keys, unlisted, .. } => (keys.clone(), *unlisted),
            other => panic!("{other:?}"),
        }
    };
    let keys = vec![key("carol"), key("alice")];
    assert_eq!(effect("grp"), (keys.clone(), false), "one of them must be a member then");
    assert_eq!(effect(CAPABILITY), (keys, true), "or the group must then not be managed");
}

#[test]
fn without_the_groups_state_a_message_is_an_error_and_not_let_through() {
    let event = || EventBuilder::new(445).tag(&["h", "grp"]).at(NOW).sign(&keypair("alice"));
    assert_eq!(letter(&admit_as(&reader(&["alice"]), event(), &policy(), None)), 'e');
    let other = state("other", grp().status);
    assert_eq!(letter(&admit_as(&reader(&["alice"]), event(), &policy(), Some(&other))), 'e');
    let roster = shaped(450).at(NOW).sign(&keypair("ada"));
    assert_eq!(letter(&admit_as(&reader(&["ada"]), roster, &policy(), Some(&other))), 'r');
}

#[test]
fn the_groups_whose_state_admission_needs_are_named() {
    for (kind, expected) in [(445, true), (450, true), (1059, true), (21059, false), (447, false), (1, false)] {
        let event = EventBuilder::new(kind).tag(&["h", "grp"]).event(&keypair("alice"));
        assert_eq!(group_of(&event).is_some(), expected, "{kind}");
    }
    assert!(!matches!(grp().status, GroupStatus::Unlisted));
}
