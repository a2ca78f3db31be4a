//! Kinds 5 and 62: events that a key takes back (docs/rules.md, "Deletion"; NIP-09, NIP-62).

use nostr_extensions::{
    Effect, Policy,
    mls_gateway::deletion::{DELETION_TARGETS_MAX, Deletion, may_delete, vanishes},
};
use nostr_protocol::{
    EventId, Kind, Rejection,
    testing::{EventBuilder, key, keypair},
};

use crate::common::{NOW, letter, policy, send};

fn delete(event: EventBuilder) -> Result<Deletion, Rejection> {
    send(&[], "alice", event, &policy(), &[]).map(|admitted| match admitted.effect() {
        Effect::Delete(deletion) => deletion.clone(),
        other => panic!("{other:?}"),
    })
}

fn id(n: u32) -> EventId {
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&n.to_be_bytes());
    EventId::from_bytes(bytes)
}

fn of_ids(count: usize) -> EventBuilder {
    (0..count as u32).fold(EventBuilder::new(5), |event, n| event.tag(&["e", &id(n).to_hex()]))
}

#[test]
fn a_deletion_names_1_to_500_targets() {
    assert_eq!(letter(&delete(EventBuilder::new(5))), 'i');
    assert_eq!(delete(of_ids(DELETION_TARGETS_MAX)).unwrap().ids.len(), 500);
    assert_eq!(letter(&delete(of_ids(DELETION_TARGETS_MAX + 1))), 'i');
    let address = format!("30078:{}:x", key("alice"));
    assert_eq!(letter(&delete(of_ids(DELETION_TARGETS_MAX).tag(&["a", &address]))), 'i', "addresses count too");
}

#[test]
fn targets_are_read_and_named_once() {
    let deletion = delete(of_ids(2).tag(&["e", &id(1).to_hex()]).tag(&["k", "443"])).unwrap();
    assert_eq!((deletion.by, deletion.ids), (key("alice"), vec![id(0), id(1)]));
    for wrong in ["", "x", &id(1).to_hex().to_uppercase().replace('0', "A"), &id(1).to_hex()[1..]] {
        assert_eq!(letter(&delete(of_ids(1).tag(&["e", wrong]))), 'i', "{wrong}");
    }
}

#[test]
fn an_address_is_the_deleters_own() {
    let own = |kind: u16, d: &str| format!("{kind}:{}:{d}", key("alice"));
    let addresses = |address: &str| delete(of_ids(1).tag(&["a", address])).map(|deletion| deletion.addresses);
    assert_eq!(addresses(&own(30443, "a:b")), Ok(vec![(Kind(30443), "a:b".into())]));
    assert_eq!(addresses(&own(10002, "")), Ok(vec![(Kind(10002), "".into())]));
    assert_eq!(addresses(&format!("30443:{}:x", key("bob"))), Ok(vec![]), "another's is passed over");
    for wrong in [own(1, ""), "30443".into(), "30443:x:y".into(), format!("70000:{}:", key("alice")), String::new()] {
        assert_eq!(letter(&addresses(&wrong)), 'i', "{wrong}");
    }
}

#[test]
fn one_that_names_a_message_or_a_roster_is_blocked() {
    for kind in ["445", "450"] {
        assert_eq!(letter(&delete(of_ids(1).tag(&["k", "1"]).tag(&["k", kind]))), 'b');
        assert_eq!(letter(&delete(of_ids(1).tag(&["a", &format!("{kind}:{}:", key("alice"))]))), 'b');
    }
}

#[test]
fn an_author_deletes_its_own_and_a_recipient_what_was_sent_to_it() {
    let sent = |kind| EventBuilder::new(kind).tag(&["p", &key("bob").to_hex()]).event(&keypair("alice"));
    for (kind, by_author, by_recipient) in [
        (1, true, false),
        (4, true, false),
        (443, true, false),
        (446, true, true),
        (447, true, true),
        (1059, true, true),
        (30443, true, false),
        // A commit that some members have applied must reach the others, and the audit stays.
        (445, false, false),
        (450, false, false),
        // A deletion of a deletion, or of a request to vanish, has no effect (NIP-09, NIP-62).
        (5, false, false),
        (62, false, false),
    ] {
        let event = sent(kind);
        assert_eq!(may_delete(event.view(), &key("alice")), by_author, "{kind}");
        assert_eq!(may_delete(event.view(), &key("bob")), by_recipient, "{kind}");
        assert!(!may_delete(event.view(), &key("carol")), "{kind}");
    }
}

#[test]
fn a_vanishing_key_takes_its_events_and_what_was_sent_to_it_never_a_roster() {
    let sent = |kind| EventBuilder::new(kind).tag(&["p", &key("bob").to_hex()]).at(NOW).event(&keypair("alice"));
    for (kind, with_author, with_recipient) in [
        (1, true, false),
        (4, true, false),
        (5, true, false),
        (445, true, false),
        (446, true, true),
        (447, true, true),
        (1059, true, true),
        (450, false, false),
        (62, false, false),
    ] {
        let event = sent(kind);
        assert_eq!(vanishes(event.view(), &key("alice"), NOW), with_author, "{kind}");
        assert_eq!(vanishes(event.view(), &key("bob"), NOW), with_recipient, "{kind}");
        assert!(!vanishes(event.view(), &key("alice"), NOW - 1), "{kind}: later than the request");
        assert!(!vanishes(event.view(), &key("carol"), NOW), "{kind}");
    }
}

#[test]
fn a_request_to_vanish_names_this_relay_or_all() {
    let vanish = |relays: &[&str]| {
        let event = relays.iter().fold(EventBuilder::new(62), |event, relay| event.tag(&["relay", relay]));
        letter(&send(&[], "alice", event, &policy(), &[]))
    };
    assert_eq!(vanish(&["ALL_RELAYS"]), '+');
    assert_eq!(vanish(&["wss://other.example", "wss://relay.example/"]), '+');
    for wrong in [&[][..], &["wss://other.example"], &["all_relays"], &[""]] {
        assert_eq!(vanish(wrong), 'i', "{wrong:?}");
    }
}

#[test]
fn a_signature_is_enough_unless_auth_is_required() {
    let locked = Policy { auth_required: true, ..policy() };
    for event in [of_ids(1), EventBuilder::new(62).tag(&["relay", "ALL_RELAYS"])] {
        assert!(send(&[], "alice", event.clone(), &policy(), &[]).is_ok());
        assert_eq!(letter(&send(&[], "alice", event.clone(), &locked, &[])), 'a');
        assert_eq!(letter(&send(&["bob"], "alice", event.clone(), &locked, &[])), 'r');
        assert!(send(&["bob", "alice"], "alice", event, &locked, &[]).is_ok());
    }
}
