//! Reading: the table of docs/rules.md, "Who may publish, who may read", written out by hand for each kind of reader
//! and each way of asking. `+` released, `-` not.

use nostr_extensions::{
    Asker, Gate, Group, GroupStatus, Policy,
    Role::{Admin, Member},
    Sealed, Source, Stamp,
    policy::KeyPackageConsumption,
};
use nostr_protocol::{
    Event, Filter,
    testing::{EventBuilder, key, keypair},
};

use crate::common::{CAPABILITY, NOW, managed, policy, reader, state};

/// The columns: nobody, a stranger (or former member), a member, the group's admin, an admin key, the recipient, the
/// author.
const READERS: [&[&str]; 7] = [&[], &["carol"], &["alice"], &["ada"], &["operator"], &["bob"], &["dora"]];

/// AUTH not required, unlisted groups on. ID is the event's id, CAP the capability of the unlisted group.
const OPEN: &str = r##"
    #                                                    nobody stranger member admin admin-key recipient author
    note              {}                                      + + + + + + +
    note              {"kinds":[2]}                           - - - - - - -
    key-package       {}                                      + + + + + + +
    dm                {}                                      - - - - - + +
    dm                {"ids":["ID"]}                          - - - - - + +
    message           {}                                      - - + + - - -
    message           {"kinds":[445]}                         - - + + - - -
    message           {"#h":["grp"]}                          - - + + - - -
    message           {"ids":["ID"]}                          - - + + - - -
    message           {"authors":["DORA"]}                    - - + + - - -
    message-hinted    {"#p":["BOB"]}                          - - + + - - -
    unlisted          {}                                      - - - - - - -
    unlisted          {"kinds":[445]}                         - - - - - - -
    unlisted          {"authors":["DORA"]}                    - - - - - - -
    unlisted          {"#h":["CAP"]}                          + + + + + + +
    unlisted          {"#h":["CAP","other"]}                  + + + + + + +
    unlisted          {"kinds":[445],"#h":["CAP"]}            + + + + + + +
    unlisted          {"#h":["other"]}                        - - - - - - -
    unlisted          {"ids":["ID"]}                          + + + + + + +
    unlisted          {"ids":["ID"],"#h":["CAP"]}             + + + + + + +
    unlisted          {"ids":["OTHER"]}                       - - - - - - -
    named-unknown     {"#h":["nowhere"]}                      - - - - - - -
    named-unknown     {"ids":["ID"]}                          - - - - - - -
    upper-case        {"#h":["CAPUPPER"]}                     - - - - - - -
    no-group          {}                                      - - - - - - -
    no-group          {"ids":["ID"]}                          - - - - - - -
    roster            {}                                      - - + + + - -
    roster            {"kinds":[450],"#h":["grp"]}            - - + + + - -
    roster            {"ids":["ID"]}                          - - + + + - -
    roster-imported   {"#h":["nowhere"]}                      - - - - + - -
    roster-unlisted   {"#h":["CAP"]}                          - - - - + - -
    noise             {}                                      - - - - - + -
    noise             {"ids":["ID"]}                          - - - - - + -
    noise             {"#p":["BOB"]}                          - - - - - + -
    request           {}                                      - - - - - + -
    wrap              {}                                      - - - - - + -
    wrap-group        {"#h":["grp"]}                          - - - - - + -
    ephemeral-wrap    {}                                      - - - - - + -
    deletion          {}                                      + + + + + + +
    deletion-hidden   {}                                      - - - - - - +
    deletion-hidden   {"ids":["ID"]}                          - - - - - - +
    vanish            {}                                      + + + + + + +
    seal              {"ids":["ID"]}                          - - - - - - -
    welcome           {"ids":["ID"]}                          - - - - - - -
    inner-448         {"ids":["ID"]}                          - - - - - - -
    inner-449         {"ids":["ID"]}                          - - - - - - -
    inner-451         {"ids":["ID"]}                          - - - - - - -
    auth              {"ids":["ID"]}                          - - - - - - -
"##;

/// `auth.enabled`, unlisted groups off.
const LOCKED: &str = r##"
    note              {}                                      - + + + + + +
    key-package       {}                                      - + + + + + +
    dm                {}                                      - - - - - + +
    message           {"#h":["grp"]}                          - - + + - - -
    unlisted          {"#h":["CAP"]}                          - - - - - - -
    unlisted          {"ids":["ID"]}                          - - - - - - -
    roster            {}                                      - - + + + - -
    wrap              {}                                      - - - - - + -
    deletion          {}                                      - + + + + + +
    deletion-hidden   {}                                      - - - - - - +
"##;

fn event(name: &str) -> Event {
    let new = EventBuilder::new;
    let to_bob = |kind| new(kind).tag(&["p", &key("bob").to_hex()]);
    let builder = match name {
        "note" => new(1),
        "key-package" => new(443),
        "dm" => to_bob(4),
        "message" => new(445).tag(&["h", "grp"]),
        "message-hinted" => to_bob(445).tag(&["h", "grp"]),
        "unlisted" => new(445).tag(&["h", CAPABILITY]),
        "named-unknown" => new(445).tag(&["h", "nowhere"]),
        "upper-case" => new(445).tag(&["h", &CAPABILITY.to_uppercase()]),
        "no-group" => new(445),
        "roster" => to_bob(450).tag(&["h", "grp"]),
        "roster-imported" => new(450).tag(&["h", "nowhere"]),
        "roster-unlisted" => new(450).tag(&["h", CAPABILITY]),
        "noise" => to_bob(446),
        "request" => to_bob(447),
        "wrap" => to_bob(1059),
        "wrap-group" => to_bob(1059).tag(&["h", "grp"]),
        "ephemeral-wrap" => to_bob(21059),
        "deletion" | "deletion-hidden" => new(5).tag(&["e", &"ab".repeat(32)]),
        "vanish" => new(62),
        "seal" => new(13),
        "welcome" => new(444),
        "auth" => new(22242),
        inner => new(inner.strip_prefix("inner-").unwrap().parse().unwrap()),
    };
    builder.event(&keypair("dora"))
}

fn seal(name: &str) -> Sealed {
    let author_only = name == "deletion-hidden";
    Sealed::new(event(name), Stamp { cursor: 1, received_at: NOW - 10, expires_at: NOW + 10, author_only })
}

fn groups() -> Vec<Group> {
    let grp = managed(Source::Roster, 5, &[("ada", Admin), ("alice", Member)]);
    vec![state("grp", grp), state(CAPABILITY, GroupStatus::Unlisted)]
}

/// The state of the sealed event's group, as a store gives it.
fn group_of(sealed: &Sealed, groups: &[Group]) -> Option<Group> {
    let id = sealed.group()?;
    let known = groups.iter().find(|group| group.id == *id).cloned();
    Some(known.unwrap_or(Group { id: id.clone(), status: GroupStatus::Unknown }))
}

fn assert_table(table: &str, policy: Policy, groups: &[Group]) {
    let gate = Gate::new(policy.into());
    let mut wrong = Vec::new();
    for row in table.lines().map(str::trim).filter(|row| !row.is_empty() && !row.starts_with('#')) {
        let mut words = row.split_whitespace();
        let (name, filter) = (words.next().unwrap(), words.next().unwrap());
        let expected: String = words.collect();
        assert_eq!(expected.len(), READERS.len(), "{row}");
        let sealed = seal(name);
        let filter = filter
            .replace("OTHER", &"00".repeat(32))
            .replace("ID", &event(name).id().to_hex())
            .replace("CAPUPPER", &CAPABILITY.to_uppercase())
            .replace("CAP", CAPABILITY)
            .replace("DORA", &key("dora").to_hex())
            .replace("BOB", &key("bob").to_hex());
        let filter: Filter = serde_json::from_str(&filter).unwrap();
        let group = group_of(&sealed, groups);
        let got: String = READERS
            .iter()
            .map(|names| {
                let reader = reader(names);
                let asker = Asker::new(&reader, &filter);
                let released = gate.release(&sealed, asker, group.as_ref(), NOW);
                let prepared = gate.release_prepared(&sealed.prepare(), asker, group.as_ref(), NOW, &mut 0);
                assert_eq!(prepared.is_some(), released.is_some(), "{row}: live delivery decides alike");
                match released {
                    Some(released) => {
                        assert_eq!(released.json(), event(name).json());
                        '+'
                    }
                    None => '-',
                }
            })
            .collect();
        if got != expected {
            wrong.push(format!("{row}: {got}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn who_may_read_where_auth_is_not_required() {
    assert_table(OPEN, policy(), &groups());
}

#[test]
fn who_may_read_where_auth_is_required() {
    let policy = Policy { auth_required: true, unlisted_groups: false, ..policy() };
    assert_table(LOCKED, policy, &groups());
}

#[test]
fn a_capability_that_nobody_wrote_to_yet_opens_the_same() {
    assert_table(r##"unlisted {"#h":["CAP"]} +++++++"##, policy(), &[]);
}

#[test]
fn an_unlisted_group_that_becomes_managed_shows_its_old_messages_to_members_alone() {
    let members = managed(Source::Roster, 1, &[("ada", Admin), ("alice", Member)]);
    let table = r##"
        unlisted {"#h":["CAP"]}   --++---
        unlisted {"ids":["ID"]}   --++---
        unlisted {}               --++---
    "##;
    assert_table(table, policy(), &[state(CAPABILITY, members)]);
}

#[test]
fn a_group_without_members_shows_nothing_to_anyone() {
    let empty = managed(Source::Roster, 9, &[]);
    let table = r##"
        unlisted {"#h":["CAP"]}   -------
        message  {"#h":["grp"]}   -------
        roster   {}               ----+--
    "##;
    assert_table(table, policy(), &[state(CAPABILITY, empty.clone()), state("grp", empty)]);
}

#[test]
fn expired_is_served_to_nobody() {
    let gate = Gate::new(policy().into());
    let filter = Filter::default();
    let everyone = reader(&["alice", "ada", "operator", "bob", "dora"]);
    for name in ["note", "dm", "message", "roster", "noise", "request", "wrap", "deletion", "key-package"] {
        let sealed = seal(name);
        let group = group_of(&sealed, &groups());
        let at = |now| gate.release(&sealed, Asker::new(&everyone, &filter), group.as_ref(), now).is_some();
        assert!(at(sealed.expires_at() - 1), "{name}");
        assert!(!at(sealed.expires_at()) && !at(u64::MAX - 1), "{name}");
    }
}

#[test]
fn without_its_groups_state_a_message_stays_sealed() {
    let gate = Gate::new(policy().into());
    let (sealed, filter) = (seal("message"), Filter::default());
    let alice = reader(&["alice", "operator"]);
    let asker = Asker::new(&alice, &filter);
    let other = state("other", managed(Source::Roster, 1, &[("alice", Member)]));
    assert!(gate.release(&sealed, asker, None, NOW).is_none());
    assert!(gate.release(&sealed, asker, Some(&other), NOW).is_none());
    assert!(gate.release(&seal("roster"), asker, Some(&other), NOW).is_none());
}

#[test]
fn a_removal_is_in_force_for_the_next_message_whoever_subscribed_before() {
    let gate = Gate::new(policy().into());
    let (sealed, filter) = (seal("message"), Filter::default());
    let alice = reader(&["alice"]);
    let asker = Asker::new(&alice, &filter);
    let before = state("grp", managed(Source::Roster, 1, &[("ada", Admin), ("alice", Member)]));
    let after = state("grp", managed(Source::Roster, 2, &[("ada", Admin)]));
    assert!(gate.release(&sealed, asker, Some(&before), NOW).is_some());
    assert!(gate.release(&sealed, asker, Some(&after), NOW).is_none());
}

#[test]
fn any_of_the_readers_keys_opens() {
    let gate = Gate::new(policy().into());
    let filter = Filter::default();
    let many = reader(&["carol", "bob", "alice"]);
    for name in ["wrap", "message", "roster", "dm"] {
        let sealed = seal(name);
        let group = group_of(&sealed, &groups());
        assert!(gate.release(&sealed, Asker::new(&many, &filter), group.as_ref(), NOW).is_some(), "{name}");
    }
}

#[test]
fn where_reading_consumes_a_key_package_goes_to_its_owner_and_to_who_claimed_it() {
    let policy = Policy { keypackage_consumption: KeyPackageConsumption::OnRead, ..policy() };
    assert_table("key-package {} ------+\n note {} +++++++", policy.clone(), &[]);
    let gate = Gate::new(policy.into());
    let (sealed, filter, claimed) = (seal("key-package"), Filter::default(), [event("key-package").id()]);
    for (names, released) in [(&["carol"][..], true), (&[], false)] {
        let reader = reader(names);
        let asker = Asker { reader: &reader, filter: &filter, claimed: &claimed };
        assert_eq!(gate.release(&sealed, asker, None, NOW).is_some(), released);
    }
}

#[test]
fn a_sealed_event_does_not_print() {
    let text = format!("{:?}", seal("message"));
    assert_eq!(text, "Sealed { cursor: 1, .. }");
}
