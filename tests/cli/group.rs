//! `rnostr group` for members, admin keys and outsiders.

use std::time::{SystemTime, UNIX_EPOCH};

use nostr_protocol::testing::{EventBuilder, keypair};

use super::{
    person::{Person, admin_of, anonymous},
    server::Relay,
};

/// A relay with the group `grp_club` of alice (group admin) and bob, in which a message was sent.
pub(crate) fn club(more: &str, needs_auth: bool) -> Relay {
    let relay = Relay::start("", &format!("{}{more}", admin_of(needs_auth)));
    let [admin, alice, bob, _] = Person::some();
    let found = ["roster", "grp_club", "bootstrap", &alice.npub(), "--role", "admin", "--name", "Book\u{9b}club"];
    admin.runs(&relay, &found).succeeds();
    alice.runs(&relay, &["roster", "grp_club", "add", &bob.hex()]).succeeds();
    // The newest event of the group, by the clock of its sender.
    let ahead = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() + 60;
    let message = EventBuilder::new(445).tag(&["h", "grp_club"]).tag(&["k", "42"]).at(ahead);
    let message = message.json(&keypair("ephemeral"));
    std::fs::write(relay.directory.path().join("message.jsonl"), message).expect("it is written");
    bob.runs(&relay, &["publish", "message.jsonl"]).succeeds();
    relay
}

#[test]
fn members_and_admin_keys_see_a_group() {
    for needs_auth in [false, true] {
        let relay = club("", needs_auth);
        let [admin, alice, bob, eve] = Person::some();
        for (reader, activity) in [(&admin, ", a roster"), (&alice, ", a message"), (&bob, ", a message")] {
            let shown = reader.runs(&relay, &["group", "grp_club"]).succeeds();
            for line in [
                "group     grp_club\n",
                "name      Book\\u{9b}club\n",
                "source    rosters\n",
                "sequence  2\n",
                "epoch     42\n",
                "members   2\n",
                &format!("  admin   {}\n", alice.hex()),
                &format!("  member  {}\n", bob.hex()),
            ] {
                assert!(shown.contains(line), "{line}{shown}");
            }
            let line = shown.lines().find(|line| line.starts_with("activity  20")).expect("an activity");
            assert!(line.ends_with(activity), "{line}");
        }
        let hidden = eve.runs(&relay, &["group", "grp_club"]).fails();
        let absent = eve.runs(&relay, &["group", "grp_none"]).fails();
        assert!(hidden.contains("shows no such group") && hidden == absent, "{hidden}{absent}");
        assert!(anonymous(&relay, &["group", "grp_club"]).fails().contains("this needs your key"));
        assert!(alice.runs(&relay, &["group", "grp/club"]).fails().contains("1 to 128 characters"));
    }
}

#[test]
fn without_the_api_the_rosters_tell() {
    let relay = club("enable_api = false", true);
    let [admin, alice, bob, eve] = Person::some();
    for reader in [&admin, &bob] {
        let shown = reader.runs(&relay, &["group", "grp_club"]).succeeds();
        for line in [
            "sequence  2\n",
            "members   2\n",
            &format!("  admin   {}\n", alice.hex()),
            &format!("  member  {}\n", bob.hex()),
            "no REST API",
        ] {
            assert!(shown.contains(line), "{line}{shown}");
        }
    }
    assert!(eve.runs(&relay, &["group", "grp_club"]).fails().contains("shows no such group"));
    // The next roster's number follows from them.
    let added = alice.runs(&relay, &["roster", "grp_club", "add", &eve.hex()]).succeeds();
    assert!(added.contains("roster 3 of grp_club is accepted") && added.contains(&eve.hex()), "{added}");
}

#[test]
fn a_part_of_the_rosters_does_not_tell_the_members() {
    let relay = Relay::start("", &format!("{}enable_api = false\n[limitation]\nmax_limit = 1", admin_of(false)));
    let [admin, alice, bob, _] = Person::some();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let roster = |seq: u64, op: &str, member: &Person| {
        let seq_text = seq.to_string();
        let roster = EventBuilder::new(450).tag(&["h", "grp_old"]).tag(&["seq", &seq_text]).tag(&["op", op]);
        roster.tag(&["p", &member.hex()]).at(now - 100 * seq).json(&admin.keys)
    };
    // By their dates the second roster is the older one.
    let rosters = [roster(1, "bootstrap", &alice), roster(2, "add", &bob)].join("\n");
    std::fs::write(relay.directory.path().join("rosters.jsonl"), rosters).expect("it is written");
    admin.runs(&relay, &["publish", "rosters.jsonl"]).succeeds();
    let shown = admin.runs(&relay, &["group", "grp_old"]).succeeds();
    assert!(shown.contains("members   unknown\n") && !shown.contains(&alice.hex()), "{shown}");
}

#[test]
fn a_group_of_many_members_is_shown_whole() {
    let relay = Relay::start("", &admin_of(false));
    let admin = Person::new("admin");
    let members: Vec<String> =
        (0..1_200).map(|n| nostr_protocol::testing::key(&format!("member {n}")).to_hex()).collect();
    let words: Vec<&str> =
        ["roster", "grp_many", "bootstrap"].into_iter().chain(members.iter().map(String::as_str)).collect();
    assert!(admin.runs(&relay, &words).succeeds().contains("The group has 1200 members."));
    let shown = admin.runs(&relay, &["group", "grp_many"]).succeeds();
    assert!(shown.contains("members   1200\n"), "{shown}");
    assert!(members.iter().all(|member| shown.contains(member)));
}
