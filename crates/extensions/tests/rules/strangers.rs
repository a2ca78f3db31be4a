//! Proofs of strangers (docs/rules.md, "Strangers"): work and invitations for foundings and for inboxes.

use nostr_extensions::{Admitted, AskedProof, Group, Policy, StrangerRules};
use nostr_protocol::{
    Rejection,
    invitation::{Invitation, InvitedTo},
    testing::{EventBuilder, key, keypair},
};

use crate::common::{NOW, grp, keys, letter, policy, reader, send};

const WORK: AskedProof = AskedProof { pow_bits: 6, invitation: false };
const INVITED: AskedProof = AskedProof { pow_bits: 0, invitation: true };

fn asking(founding: AskedProof) -> Policy {
    let strangers = StrangerRules { founding, inviters: keys(&["host"]), ..StrangerRules::default() };
    Policy { strangers, open_bootstrap: true, ..policy() }
}

/// A wrap to bob that names a group, and a roster by which its signer founds one with bob.
fn foundings(h: &str) -> [EventBuilder; 2] {
    let bob = key("bob").to_hex();
    let wrap = EventBuilder::new(1059).tag(&["p", &bob]).tag(&["h", h]);
    let roster = EventBuilder::new(450).tag(&["h", h]).tag(&["seq", "1"]).tag(&["op", "bootstrap"]);
    [wrap, roster.tag(&["p", &bob])]
}

/// The event with a nonce that makes its id prove `bits` when its author signs it at [`NOW`].
fn mined(event: &EventBuilder, author: &str, bits: u32) -> EventBuilder {
    let with = |nonce: u32| event.clone().tag(&["nonce", &nonce.to_string(), &bits.to_string()]).at(NOW);
    let proves = |event: &EventBuilder| nostr_protocol::pow::proven_bits(&event.event(&keypair(author))) >= bits;
    (0..).map(with).find(proves).unwrap()
}

fn invited(event: EventBuilder, host: &str, to: InvitedTo, subject: &str, until: u64) -> EventBuilder {
    let tag = Invitation::new(&keypair(host).into(), to, &key(subject), until).tag();
    event.tag(&tag.each_ref().map(String::as_str))
}

fn found(readers: &[&str], event: EventBuilder, policy: &Policy, groups: &[Group]) -> Result<Admitted, Rejection> {
    send(readers, "carol", event, policy, groups)
}

#[test]
fn a_founding_of_a_stranger_needs_work_where_work_is_asked_for() {
    for event in foundings("new") {
        assert_eq!(letter(&found(&["carol"], event.clone(), &asking(AskedProof::default()), &[])), '+');
        let refused = found(&["carol"], event.clone(), &asking(WORK), &[]).unwrap_err();
        assert_eq!((refused.word.as_str(), refused.rule.unwrap().to_string()), ("pow", "Strangers 1".to_owned()));
        assert!(refused.text.starts_with("the id proves 0 bits of work, and 6 are wanted"), "{}", refused.text);
        assert_eq!(letter(&found(&["carol"], mined(&event, "carol", 5), &asking(WORK), &[])), 'p');
        assert_eq!(letter(&found(&["carol"], mined(&event, "carol", 6), &asking(WORK), &[])), '+');
    }
    let [_, roster] = foundings("new");
    assert_eq!(letter(&send(&["operator"], "operator", roster, &asking(WORK), &[])), '+', "the operator's own key");
}

/// The answer to a missing proof tells nothing of the group, and no member brings a proof.
#[test]
fn a_missing_proof_is_refused_before_the_group_counts() {
    for (new, old) in foundings("new").into_iter().zip(foundings("grp")) {
        let of_new = found(&["carol"], new, &asking(WORK), &[]).unwrap_err();
        let of_old = found(&["carol"], old.clone(), &asking(WORK), &[grp()]).unwrap_err();
        assert_eq!(of_new, of_old);
        let worked = found(&["carol"], mined(&old, "carol", 6), &asking(WORK), &[grp()]).unwrap_err();
        assert_eq!(worked.word.as_str(), "restricted", "{worked}");
    }
    let [wrap, _] = foundings("grp");
    assert_eq!(letter(&send(&["alice"], "throw-away", wrap.clone(), &asking(INVITED), &[grp()])), '+');
    assert_eq!(letter(&send(&[], "throw-away", wrap, &asking(WORK), &[])), 'a', "a key comes first");
}

#[test]
fn an_invitation_is_the_founders_own() {
    let (group, inbox) = (InvitedTo::FoundGroups, InvitedTo::WriteToInbox);
    for event in foundings("new") {
        for asked in [INVITED, WORK] {
            let by = |host, to, subject, until| {
                letter(&found(&["carol"], invited(event.clone(), host, to, subject, until), &asking(asked), &[]))
            };
            let refused = if asked == INVITED { 'r' } else { 'p' };
            assert_eq!(by("host", group, "carol", NOW + 1), '+');
            assert_eq!(by("host", group, "carol", NOW), refused, "its time is over");
            assert_eq!(by("host", group, "dave", NOW + 1), refused, "it is another key's");
            assert_eq!(by("host", inbox, "carol", NOW + 1), refused, "it is for an inbox");
            assert_eq!(by("carol", group, "carol", NOW + 1), refused, "nobody invites itself");
        }
    }
}

/// A founder that is no listed resident is admitted by an invitation, and not by work.
#[test]
fn an_invited_key_founds_a_group_beside_a_list_of_residents() {
    let listed = |founding| Policy { residents: Some(keys(&["bob"]).into_iter().collect()), ..asking(founding) };
    for event in foundings("new") {
        let invitation = invited(event.clone(), "host", InvitedTo::FoundGroups, "carol", NOW + 1);
        for asked in [AskedProof::default(), INVITED, WORK] {
            assert_eq!(letter(&found(&["carol"], invitation.clone(), &listed(asked), &[])), '+');
            assert_eq!(letter(&found(&["carol"], mined(&event, "carol", 6), &listed(asked), &[])), 'r');
        }
    }
}

fn to_bob() -> EventBuilder {
    EventBuilder::new(1059).tag(&["p", &key("bob").to_hex()])
}

fn write(readers: &[&str], event: &EventBuilder, asked: AskedProof) -> char {
    let event = event.clone().at(NOW).event(&keypair("throw-away"));
    letter(&asking(WORK).require_inbox_proof(&event, &key("bob"), asked, &reader(readers), NOW))
}

#[test]
fn an_inbox_that_asks_takes_one_of_the_proofs() {
    assert_eq!(write(&[], &to_bob(), AskedProof::default()), '+');
    assert_eq!((write(&[], &to_bob(), WORK), write(&["eve"], &to_bob(), WORK)), ('p', 'p'));
    assert_eq!((write(&[], &to_bob(), INVITED), write(&["eve"], &to_bob(), INVITED)), ('a', 'r'));
    let worked = mined(&to_bob(), "throw-away", 6);
    assert_eq!((write(&[], &worked, WORK), write(&[], &worked, INVITED)), ('+', 'a'));
    for host in ["host", "bob"] {
        let invitation = invited(to_bob(), host, InvitedTo::WriteToInbox, "bob", NOW + 1);
        for asked in [WORK, INVITED, WORK.and(INVITED)] {
            assert_eq!(write(&[], &invitation, asked), '+', "{host} invites");
        }
    }
    let theirs = invited(to_bob(), "eve", InvitedTo::WriteToInbox, "bob", NOW + 1);
    let other = invited(to_bob(), "host", InvitedTo::WriteToInbox, "alice", NOW + 1);
    assert_eq!((write(&[], &theirs, WORK), write(&[], &other, WORK)), ('p', 'p'));
}

#[test]
fn an_owner_asks_by_tags_of_its_list() {
    let asked = |tags: &[&[&str]]| {
        let list = tags.iter().fold(EventBuilder::new(10_050), |list, tag| list.tag(tag));
        AskedProof::of_inbox_list(&list.event(&keypair("bob")))
    };
    assert_eq!(asked(&[&["relay", "wss://relay.example"]]), AskedProof::default());
    assert_eq!(asked(&[&["pow", "6"]]), WORK);
    assert_eq!(asked(&[&["invitation"]]), INVITED);
    assert_eq!(asked(&[&["pow", "999"], &["invitation"]]), AskedProof { pow_bits: 256, invitation: true });
    for odd in ["", "-1", "x", "99999999"] {
        assert!(asked(&[&["pow", odd]]).is_nothing(), "{odd}");
    }
    let harder = AskedProof { pow_bits: 9, invitation: true };
    assert_eq!((WORK.and(harder), harder.and(WORK)), (harder, harder));
}
