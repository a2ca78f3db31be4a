//! Publishing: the table of docs/rules.md, "Who may publish, who may read", written out by hand for each kind of
//! publisher. `+` accepted, `a` auth-required, `r` restricted, `b` blocked, `i` invalid.

use std::collections::BTreeSet;

use nostr_extensions::{
    Effect, Group, GroupStatus, KindRange, Policy, Retention, Role, Source,
    admit::Persistence,
    mls_gateway::group::{apply_roster, apply_wrap},
};
use nostr_protocol::{
    Rejection,
    testing::{EventBuilder, key},
};

use crate::common::{CAPABILITY, NOW, grp, keys, letter, policy, send, state};

/// The columns, each a reader. The first has no key, and signs with a key that no rule knows.
const WRITERS: [&[&str]; 6] = [&[], &["carol"], &["alice"], &["ada"], &["operator"], &["system"]];

/// No whitelist, AUTH not required. Alice is a member of the group, ada its admin.
const OPEN: &str = "
    #                     nobody stranger member group-admin admin-key system-key
    note                    +       +       +       +           +         +
    profile                 +       +       +       +           +         +
    app-data                +       +       +       +           +         +
    typing                  +       +       +       +           +         +
    others-note             +       +       +       +           +         +
    protected               a       +       +       +           +         +
    others-protected        a       r       r       r           r         r
    dm                      +       +       +       +           +         +
    deletion                +       +       +       +           +         +
    others-deletion         +       +       +       +           +         +
    vanish                  +       +       +       +           +         +
    others-vanish           +       +       +       +           +         +
    key-package             +       +       +       +           +         +
    key-package-30443       +       +       +       +           +         +
    others-key-package      +       +       +       +           +         +
    message                 a       r       +       +           r         r
    message-unlisted        +       +       +       +           +         +
    message-nowhere         a       r       r       r           r         r
    noise                   +       +       +       +           +         +
    request                 a       r       r       r           +         +
    operators-request       a       r       r       r           +         r
    roster-add              a       r       r       +           +         r
    operators-roster        a       r       r       r           +         r
    roster-found            a       r       r       r           +         r
    roster-leave            a       r       +       i           i         r
    wrap                    +       +       +       +           +         +
    wrap-group              a       r       +       +           +         r
    ephemeral-wrap          +       +       +       +           +         +
    seal                    b       b       b       b           b         b
    welcome                 b       b       b       b           b         b
    inner-448               b       b       b       b           b         b
    inner-449               b       b       b       b           b         b
    inner-451               b       b       b       b           b         b
    auth                    i       i       i       i           i         i
";

/// `auth.enabled`, unlisted groups off.
const LOCKED: &str = "
    #                     nobody stranger member group-admin admin-key system-key
    note                    a       +       +       +           +         +
    others-note             a       +       +       +           +         +
    protected               a       +       +       +           +         +
    others-protected        a       r       r       r           r         r
    dm                      a       +       +       +           +         +
    deletion                a       +       +       +           +         +
    others-deletion         a       r       r       r           r         r
    vanish                  a       +       +       +           +         +
    others-vanish           a       r       r       r           r         r
    key-package             a       +       +       +           +         +
    key-package-30443       a       +       +       +           +         +
    others-key-package      a       r       r       r           r         r
    message                 a       r       +       +           r         r
    message-unlisted        a       r       r       r           r         r
    message-nowhere         a       r       r       r           r         r
    noise                   a       +       +       +           +         +
    request                 a       r       r       r           +         +
    roster-add              a       r       r       +           +         r
    roster-found            a       r       r       r           +         r
    roster-leave            a       r       +       i           i         r
    wrap                    a       +       +       +           +         +
    ephemeral-wrap          a       +       +       +           +         +
    seal                    a       b       b       b           b         b
    welcome                 a       b       b       b           b         b
    auth                    a       i       i       i           i         i
";

/// A whitelist of ada and rita (and the admin and system keys), AUTH not required.
const LISTED: &str = "
    #                     nobody stranger member group-admin admin-key system-key
    note                    a       r       r       +           +         +
    others-note             a       r       r       +           +         +
    ritas-note              +       +       +       +           +         +
    protected               a       r       r       +           +         +
    dm                      a       r       r       +           +         +
    deletion                +       +       +       +           +         +
    vanish                  +       +       +       +           +         +
    key-package             a       r       r       +           +         +
    ritas-key-package       +       +       +       +           +         +
    message                 a       r       +       +           r         r
    message-unlisted        +       +       +       +           +         +
    message-nowhere         a       r       r       r           r         r
    noise                   a       r       r       +           +         +
    noise-to-rita           a       r       r       +           +         +
    request                 a       r       r       r           +         +
    roster-add              a       r       r       +           +         r
    roster-leave            a       r       +       i           i         r
    wrap                    a       r       r       +           +         +
    wrap-to-rita            +       +       +       +           +         +
    wrap-group              a       r       r       +           +         r
    ephemeral-wrap          a       r       r       +           +         +
    ephemeral-wrap-to-rita  +       +       +       +           +         +
    welcome                 b       b       b       b           b         b
";

/// An event by its name in the tables, with the signer; `None` for the writer itself.
fn event(name: &str, writer: &str) -> (EventBuilder, Option<&'static str>) {
    let new = EventBuilder::new;
    let to = |kind, name: &str| new(kind).tag(&["p", &key(name).to_hex()]);
    let key_package = |kind| new(kind).content("?");
    let deletion = || new(5).tag(&["e", &"ab".repeat(32)]);
    let vanish = || new(62).tag(&["relay", "ALL_RELAYS"]);
    let message = |h: &str| (new(445).tag(&["h", h]), Some("throw-away"));
    let roster =
        |h: &str, seq: &str, op: &str, name: &str| to(450, name).tag(&["h", h]).tag(&["seq", seq]).tag(&["op", op]);
    match name {
        "note" => (new(1), None),
        "profile" => (new(0), None),
        "app-data" => (new(30078).tag(&["d", "x"]), None),
        "typing" => (new(20001), None),
        "others-note" => (new(1), Some("dora")),
        "ritas-note" => (new(1), Some("rita")),
        "protected" => (new(1).tag(&["-"]), None),
        "others-protected" => (new(1).tag(&["-"]), Some("dora")),
        "dm" => (to(4, "bob"), None),
        "deletion" => (deletion(), None),
        "others-deletion" => (deletion(), Some("dora")),
        "vanish" => (vanish(), None),
        "others-vanish" => (vanish(), Some("dora")),
        "key-package" => (key_package(443), None),
        "key-package-30443" => (key_package(30443), None),
        "others-key-package" => (key_package(443), Some("dora")),
        "ritas-key-package" => (key_package(443), Some("rita")),
        "message" => message("grp"),
        "message-unlisted" => message(CAPABILITY),
        "message-nowhere" => message("nowhere"),
        "noise" => (to(446, "bob").tag(&["v", "noise.1"]), None),
        "noise-to-rita" => (to(446, "rita").tag(&["v", "noise.1"]), Some("throw-away")),
        "request" => (to(447, "bob"), None),
        "operators-request" => (to(447, "bob"), Some("operator")),
        "roster-add" => (roster("grp", "6", "add", "dora"), None),
        "operators-roster" => (roster("grp", "6", "add", "dora"), Some("operator")),
        "roster-found" => (roster("new", "1", "bootstrap", "dora"), None),
        "roster-found-unlisted" => (roster(CAPABILITY, "1", "bootstrap", "dora"), None),
        "roster-leave" => (roster("grp", "6", "remove", writer), None),
        "wrap" => (to(1059, "bob"), Some("throw-away")),
        "wrap-to-rita" => (to(1059, "rita"), Some("throw-away")),
        "wrap-group" => (to(1059, "dora").tag(&["h", "grp"]), Some("throw-away")),
        "ephemeral-wrap" => (to(21059, "bob"), Some("throw-away")),
        "ephemeral-wrap-to-rita" => (to(21059, "rita"), Some("throw-away")),
        "seal" => (new(13), None),
        "welcome" => (new(444), None),
        "auth" => (new(22242), None),
        inner => (new(inner.strip_prefix("inner-").unwrap().parse().unwrap()), None),
    }
}

/// The answer of admission and, for an admitted event, of the committing transaction.
fn decide(
    readers: &[&str],
    author: &str,
    event: EventBuilder,
    policy: &Policy,
    groups: &[Group],
) -> Result<(), Rejection> {
    let admitted = send(readers, author, event, policy, groups)?;
    let status = |id| groups.iter().find(|group| group.id == id).map_or(GroupStatus::Unknown, |g| g.status.clone());
    match admitted.effect() {
        Effect::Roster(change) => apply_roster(&status(change.group.clone()), change, 0).map(|_| ())?,
        Effect::Wrap(change) => apply_wrap(&status(change.group.clone()), change, 0, 0).map(|_| ())?,
        _ => {}
    }
    Ok(())
}

fn assert_table(table: &str, policy: &Policy, groups: &[Group]) {
    let mut wrong = Vec::new();
    for row in table.lines().map(str::trim).filter(|row| !row.is_empty() && !row.starts_with('#')) {
        let mut words = row.split_whitespace();
        let name = words.next().unwrap();
        let expected: String = words.collect();
        assert_eq!(expected.len(), WRITERS.len(), "{row}");
        let got: String = WRITERS
            .iter()
            .map(|readers| {
                let writer = readers.first().copied().unwrap_or("ghost");
                let (event, author) = event(name, writer);
                letter(&decide(readers, author.unwrap_or(writer), event, policy, groups))
            })
            .collect();
        if got != expected {
            wrong.push(format!("{name}: {got}, not {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn who_may_publish_where_auth_is_not_required() {
    assert_table(OPEN, &policy(), &[grp()]);
}

#[test]
fn who_may_publish_where_auth_is_required() {
    let policy = Policy { auth_required: true, unlisted_groups: false, ..policy() };
    assert_table(LOCKED, &policy, &[grp()]);
}

/// NIP-11 tells of the kinds alone whose events a rule of `[retention]` ends.
#[test]
fn the_retention_that_is_told_is_that_of_admitted_events() {
    const SECS: u64 = 77_777;
    let every_kind = KindRange { first: 0, last: u16::MAX };
    let policy = Policy { retention: vec![Retention { kinds: every_kind, secs: SECS }], ..policy() };
    let told = policy.retention_told();
    let rows = OPEN.lines().map(str::trim).filter(|row| !row.is_empty() && !row.starts_with('#'));
    let mut seen = BTreeSet::new();
    for name in rows.filter_map(|row| row.split_whitespace().next()) {
        for readers in WRITERS {
            let writer = readers.first().copied().unwrap_or("ghost");
            let (event, author) = event(name, writer);
            let Ok(admitted) = send(readers, author.unwrap_or(writer), event, &policy, &[grp()]) else { continue };
            let kind = admitted.event().kind();
            let is_ended = admitted.expires_at() == NOW + SECS && admitted.persistence() == Persistence::Stored;
            let is_told = told.iter().any(|rule| rule.secs == SECS && rule.kinds.iter().any(|it| it.holds(kind)));
            assert_eq!(is_told, is_ended, "{name}");
            seen.insert(kind.0);
        }
    }
    // Every kind with rules of its own that is published, but for reposts and AUTH.
    assert!(
        [0, 1, 4, 5, 62, 443, 445, 446, 447, 450, 1059, 21059, 30443].iter().all(|it| seen.contains(it)),
        "{seen:?}"
    );
}

/// A member off the list leaves its group, and does nothing else with a roster.
#[test]
fn leaving_needs_no_residence() {
    let residents = keys(&["ada", "operator"]);
    let policy = Policy { residents: Some(residents.into_iter().collect()), ..policy() };
    let roster = |op: &str, names: &[&str]| {
        let start = EventBuilder::new(450).tag(&["h", "grp"]).tag(&["seq", "6"]).tag(&["op", op]);
        let event = names.iter().fold(start, |event, name| event.tag(&["p", &key(name).to_hex()]));
        letter(&decide(&["alice"], "alice", event, &policy, &[grp()]))
    };
    assert_eq!(roster("remove", &["alice"]), '+');
    for (op, names) in
        [("remove", &["alice", "bob"][..]), ("remove", &["bob"]), ("add", &["alice"]), ("demote", &["alice"])]
    {
        assert_eq!(roster(op, names), 'r', "{op} {names:?}");
    }
}

#[test]
fn who_may_publish_where_residents_are_listed() {
    let residents = keys(&["ada", "rita", "operator", "system"]);
    let policy = Policy { residents: Some(residents.into_iter().collect()), ..policy() };
    assert_table(LISTED, &policy, &[grp()]);
}

#[test]
fn with_open_bootstrap_anyone_who_may_write_founds_a_group_but_not_over_an_unlisted_one() {
    let policy = Policy { open_bootstrap: true, ..policy() };
    let unlisted = state(CAPABILITY, GroupStatus::Unlisted);
    let table = "
        roster-found            a + + + + +
        roster-found-unlisted   a r r r i r
        roster-add              a r r + + r
    ";
    assert_table(table, &policy, &[grp(), unlisted]);
    let listed = Policy { residents: Some(keys(&["ada", "operator"]).into_iter().collect()), ..policy };
    assert_table("roster-found a r r + + r", &listed, &[]);
}

#[test]
fn where_rosters_are_no_source_nobody_changes_one() {
    let policy = Policy { sources: [Source::GiftWrap].into(), ..policy() };
    assert_table("roster-add a r b b b r", &policy, &[grp()]);
}

#[test]
fn without_a_system_key_only_admin_keys_request_key_packages() {
    assert_table("request a r r r + r", &Policy { system_key: None, ..policy() }, &[]);
}

#[test]
fn a_managed_capability_takes_messages_from_members_alone() {
    let managed = state(CAPABILITY, grp().status);
    assert_table("message-unlisted a r + + r r", &policy(), &[managed]);
}

#[test]
fn where_unlisted_groups_are_off_nobody_publishes_to_one() {
    let policy = Policy { unlisted_groups: false, ..policy() };
    assert_table("message-unlisted a r r r r r", &policy, &[state(CAPABILITY, GroupStatus::Unlisted)]);
}

#[test]
fn any_of_the_readers_keys_may_be_the_member_and_the_author_counts_for_nothing() {
    let message = || EventBuilder::new(445).tag(&["h", "grp"]);
    assert!(send(&["carol", "alice"], "throw-away", message(), &policy(), &[grp()]).is_ok());
    assert!(send(&["carol"], "alice", message(), &policy(), &[grp()]).is_err(), "a member signed, a stranger sent");
    assert!(send(&[], "alice", message(), &policy(), &[grp()]).is_err());
    let hinted = message().tag(&["p", &key("carol").to_hex()]);
    assert!(send(&["carol"], "carol", hinted, &policy(), &[grp()]).is_err(), "a p grants nothing");
}

/// A writer gets one answer for every group, so that it does not learn which groups there are.
#[test]
fn a_refused_message_has_the_same_words_whatever_the_group() {
    let emptied = state("emptied", crate::common::managed(Source::Roster, 3, &[]));
    for readers in [&["carol"][..], &[]] {
        let words = |h: &str| {
            let event = EventBuilder::new(445).tag(&["h", h]);
            send(readers, "throw-away", event, &policy(), &[grp(), emptied.clone()]).unwrap_err().to_string()
        };
        assert_eq!(words("grp"), words("nowhere"));
        assert_eq!(words("grp"), words("emptied"));
    }
}

#[test]
fn a_refused_roster_has_the_same_words_whatever_the_group_seq_or_p() {
    let unlisted = state(CAPABILITY, GroupStatus::Unlisted);
    let former = state("former", crate::common::managed(Source::Roster, 3, &[("ada", Role::Admin)]));
    let mut answers = std::collections::HashSet::new();
    for writer in ["carol", "system", "alice"] {
        for h in ["grp", "nowhere", "former", CAPABILITY] {
            for seq in ["1", "5", "6", "9007199254740991", "0", "x"] {
                for op in ["add", "remove", "bootstrap", "dance"] {
                    for p in [key("alice").to_hex(), key("dora").to_hex(), "x".to_owned()] {
                        if (writer, op, p == key("alice").to_hex()) == ("alice", "remove", true) {
                            continue;
                        }
                        let event = EventBuilder::new(450).tag(&["h", h]).tag(&["seq", seq]).tag(&["op", op]);
                        let groups = [grp(), unlisted.clone(), former.clone()];
                        let answer = decide(&[writer], writer, event.tag(&["p", &p]), &policy(), &groups);
                        answers.insert(answer.unwrap_err().to_string());
                    }
                }
            }
        }
    }
    assert_eq!(
        answers.into_iter().collect::<Vec<_>>(),
        ["restricted: only an admin of this group may change its roster"]
    );
}
