//! `rnostr roster`: each change, refused and accepted.

use std::fs;

use super::{
    group::club,
    person::{Person, admin_of, events},
    server::Relay,
};

#[test]
fn each_change_is_told_in_words() {
    for needs_auth in [false, true] {
        let relay = club("", needs_auth);
        let [admin, alice, bob, eve] = Person::some();
        let by = |person: &Person, words: &[&str]| person.runs(&relay, &[&["roster", "grp_club"], words].concat());
        for (person, words, told) in [
            (
                &alice,
                vec!["add", &eve.npub(), &bob.npub()],
                vec![format!("joins as member  {}", eve.hex()), "has 3 members.".into()],
            ),
            (&alice, vec!["promote", &eve.hex()], vec![format!("is now admin     {}", eve.hex())]),
            (&eve, vec!["demote", &alice.hex()], vec![format!("is now member    {}", alice.hex())]),
            (
                &eve,
                vec!["remove", &bob.hex(), &alice.hex()],
                vec![format!("leaves           {}", bob.hex()), "has 1 member.".into()],
            ),
            (
                &admin,
                vec!["replace", &bob.hex(), &eve.hex()],
                vec![format!("joins as member  {}", bob.hex()), "has 2".into()],
            ),
            (&admin, vec!["reset-epoch", "--epoch", "7"], vec!["no member changes".into()]),
            (&bob, vec!["remove", &bob.hex()], vec!["no longer sees the group".into()]),
        ] {
            let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
            let out = by(person, &words).succeeds();
            assert!(told.iter().all(|told: &String| out.contains(told.as_str())), "{words:?}: {out}");
            assert!(out.contains(" of grp_club is accepted: event "), "{out}");
            let changed = out.lines().filter(|line| line.starts_with("  ")).count();
            assert!(
                changed == told.iter().filter(|it| !it.starts_with("has ")).count() || words[0] == "remove",
                "{out}"
            );
        }
        let shown = admin.runs(&relay, &["group", "grp_club"]).succeeds();
        assert!(shown.contains("sequence  9\n"), "{shown}");
    }
}

#[test]
fn the_words_of_a_refusal_are_shown() {
    for needs_auth in [false, true] {
        let relay = club("", needs_auth);
        let [admin, alice, bob, eve] = Person::some();
        for (person, words, told) in [
            (&bob, ["promote", &bob.hex()], "refuses roster 3: restricted: only the group's admins"),
            (&eve, ["add", &eve.hex()], "shows no such group"),
            (&alice, ["add", &bob.hex()], "refuses roster 3: invalid:"),
            (&alice, ["promote", &eve.hex()], "refuses roster 3: invalid:"),
            (&alice, ["bootstrap", &eve.hex()], "refuses roster 3: invalid:"),
            (&admin, ["add", &eve.nsec()], "PUBKEY: this is a secret key"),
            (&admin, ["add", "eve"], "PUBKEY: not a public key"),
        ] {
            let ran = eve.keeps_secret(person.runs(&relay, &[&["roster", "grp_club"], &words[..]].concat()));
            let refused = ran.fails();
            assert!(refused.contains(told), "{words:?}: {refused}");
        }
        for (words, told) in [
            (vec!["add"], "names at least one key"),
            (vec!["reset-epoch"], "--epoch belongs to reset-epoch"),
            (vec!["remove", "--role", "admin"], "names at least one key"),
            (vec!["remove", &bob.hex(), "--role", "admin"], "--role is for bootstrap, add and replace"),
            (vec!["add", &eve.hex(), "--epoch", "1"], "--epoch belongs to reset-epoch"),
            (vec!["reset-epoch", &eve.hex(), "--epoch", "1"], "changes no member"),
            (vec!["add", &eve.hex(), "--force"], "--force is for replace"),
        ] {
            let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
            let refused = admin.runs(&relay, &[&["roster", "grp_club"], &words[..]].concat()).fails();
            assert!(refused.contains(told), "{words:?}: {refused}");
        }
        assert!(admin.runs(&relay, &["group", "grp_club"]).succeeds().contains("sequence  2\n"), "nothing was changed");
    }
}

#[test]
fn a_dry_run_sends_nothing() {
    let relay = club("", true);
    let [admin, alice, bob, eve] = Person::some();
    let add = ["roster", "grp_club", "add", &eve.hex(), "--dry-run"];
    let printed = alice.runs(&relay, &add).succeeds();
    let roster = events(&printed).remove(0);
    let value = |name: &str| roster.tags().value(name).map(str::to_owned);
    assert_eq!((roster.kind().0, roster.pubkey().to_hex()), (450, alice.hex()));
    assert_eq!(
        (value("h"), value("seq"), value("op"), value("p")),
        (Some("grp_club".into()), Some("3".into()), Some("add".into()), Some(eve.hex()),)
    );
    assert!(admin.runs(&relay, &["group", "grp_club"]).succeeds().contains("sequence  2\n"));

    // Another change takes its number, and it is refused with the relay's own.
    fs::write(relay.directory.path().join("roster.jsonl"), printed).expect("it is written");
    admin.runs(&relay, &["roster", "grp_club", "remove", &bob.hex()]).succeeds();
    let late = alice.runs(&relay, &["publish", "roster.jsonl"]);
    assert!(late.out.contains("roster seq 3 is not above 3"), "{}", late.out);
    late.fails();
    fs::write(relay.directory.path().join("roster.jsonl"), alice.runs(&relay, &add).succeeds()).expect("it is written");
    alice.runs(&relay, &["publish", "roster.jsonl"]).succeeds();
    assert!(eve.runs(&relay, &["group", "grp_club"]).succeeds().contains("members   2\n"));
}

#[test]
fn an_admin_key_founds_and_takes_over() {
    let relay = Relay::start("", &admin_of(false));
    let [admin, alice, bob, eve] = Person::some();
    let founded = admin.runs(&relay, &["roster", "grp_new", "bootstrap", &alice.npub(), &bob.npub()]).succeeds();
    assert!(founded.contains("roster 1 of grp_new") && founded.matches("joins as member").count() == 2, "{founded}");
    let refused = eve.runs(&relay, &["roster", "grp_eve", "bootstrap", &eve.npub()]).fails();
    assert!(refused.contains("refuses roster 1: restricted:"), "{refused}");
    let unlisted = "ab".repeat(32);
    let take = ["roster", &unlisted, "replace", &bob.npub(), "--force", "--role", "admin"];
    assert!(admin.runs(&relay, &take[..4]).fails().contains("shows no such group"));
    let taken = admin.runs(&relay, &take).succeeds();
    assert!(taken.contains(&format!("joins as admin   {}", bob.hex())), "{taken}");
}
