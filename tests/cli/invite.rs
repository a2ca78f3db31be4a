//! `rnostr invite`.

use std::fs;

use nostr_protocol::{
    Event,
    invitation::{Invitation, InvitedTo},
    testing::{EventBuilder, key, keypair},
};

use crate::run::{command, rnostr, run};

/// The printed tag on an event.
fn carried(printed: &str) -> Event {
    let tag: Vec<String> = serde_json::from_str(printed).expect("a JSON array");
    let texts: Vec<&str> = tag.iter().map(String::as_str).collect();
    EventBuilder::new(1059).tag(&texts).event(&keypair("anyone"))
}

#[test]
fn an_invitation_is_made_by_the_key_of_a_file_or_of_a_variable() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    rnostr(at, &["keygen", "--out", "host.key"]).succeeds();
    let text = fs::read_to_string(at.join("host.key")).expect("text");
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).expect("a line").trim().to_owned();
    let (alice, now) = (key("alice"), std::time::UNIX_EPOCH.elapsed().expect("a clock after 1970").as_secs());
    let printed = rnostr(at, &["invite", "--to", "group", "--for", &alice.to_npub(), "--key-file", "host.key"]);
    let made = Invitation::of(&carried(&printed.succeeds()), InvitedTo::FoundGroups).expect("an invitation");
    assert_eq!(made.by.to_hex(), value("public_key"));
    assert!(made.holds_for(&alice, now + 6 * 86_400) && !made.holds_for(&alice, now + 8 * 86_400));
    let words = ["invite", "--to", "inbox", "--for", &alice.to_hex(), "--days", "1"];
    let printed = run(command(at, &words).env("INVITATION_KEY", value("nsec"))).succeeds();
    let made = Invitation::of(&carried(&printed), InvitedTo::WriteToInbox).expect("an invitation");
    assert!(made.holds_for(&alice, now + 80_000) && !made.holds_for(&alice, now + 2 * 86_400));
}

#[test]
fn a_missing_key_is_named_and_a_wrong_one_is_not_shown() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    let words = ["invite", "--to", "inbox", "--for", &key("alice").to_hex()];
    let error = rnostr(at, &words).fails();
    assert!(error.contains("--key-file FILE, or INVITATION_KEY"), "{error}");
    let error = run(command(at, &words).env("INVITATION_KEY", "s3cr3t")).fails();
    assert!(error.contains("INVITATION_KEY: no secret key") && !error.contains("s3cr3t"), "{error}");
}
