//! `rnostr delete`.

use std::{collections::BTreeSet, fs, path::Path};

use nostr_protocol::testing::{EventBuilder, key, keypair};
use rnostr_test_services as services;
use serde_json::Value;

use super::{
    run::{rnostr, starting},
    server::Relay,
};

/// Ids of the events that a store holds.
pub(crate) fn ids(at: &Path, config: &[&str]) -> BTreeSet<String> {
    let exported = rnostr(at, &[&["export", "--events"], config].concat()).succeeds();
    let id = |line: &str| serde_json::from_str::<Value>(line).expect("JSON")["id"].as_str().expect("an id").to_owned();
    exported.lines().map(id).collect()
}

/// Twelve notes of alice, one of bob and a gift wrap, as lines.
fn lines() -> String {
    let notes = (0..12).map(|n| EventBuilder::new(1).content(format!("note {n}")).json(&keypair("alice")));
    let bobs = EventBuilder::new(1).content("by bob").json(&keypair("bob"));
    let wrap = EventBuilder::new(1059).tag(&["p", &key("bob").to_hex()]).json(&keypair("wrapper"));
    notes.chain([bobs, wrap]).map(|line| line + "\n").collect()
}

fn goes_through_delete(at: &Path, config: &[&str]) {
    let delete = |words: &[&str]| rnostr(at, &[&["delete"], config, words].concat());
    fs::write(at.join("events.jsonl"), lines()).expect("it is written");
    rnostr(at, &[&["import", "--from", "events.jsonl"], config].concat()).succeeds();
    let by_alice = format!(r#"{{"authors":["{}"]}}"#, key("alice").to_hex());

    let said = delete(&["--dry-run", "--filter", &by_alice]).succeeds();
    assert!(said.starts_with("12 of 14 events fit\n") && said.ends_with("  and 2 more\n"), "{said}");
    assert_eq!(said.lines().filter(|line| line.contains(" kind 1 of 2026-")).count(), 10, "{said}");
    assert!(!said.contains("note 3"), "no content is shown: {said}");
    assert!(delete(&["--filter", &by_alice]).fails().contains("nobody can be asked here"));
    assert_eq!(ids(at, config).len(), 14);

    let said = delete(&["--yes", "--filter", &by_alice]).succeeds();
    assert_eq!(said, "deleted 12 of 14 events\n");
    assert_eq!(delete(&["--yes", "--filter", r#"{"kinds":[1059]}"#]).succeeds(), "deleted 1 of 2 events\n");
    assert_eq!(ids(at, config).len(), 1);
    let said = rnostr(at, &[&["import", "--from", "events.jsonl"], config].concat()).succeeds();
    assert!(said.contains("  event: 1 unchanged, 13 deleted in this store\n"), "{said}");
}

#[test]
fn events_of_a_filter_are_shown_and_deleted_for_good() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = directory.path();
    goes_through_delete(at, &[]);
    for (filter, fault) in [
        ("{}", "at least one of \"ids\""),
        (r#"{"since":0}"#, "at least one of \"ids\""),
        (r#"{"until":99999999999}"#, "at least one of \"ids\""),
        (r#"{"kinds":[1],"limit":1}"#, "a limit"),
        ("kinds", "--filter"),
    ] {
        assert!(rnostr(at, &["delete", "--yes", "--filter", filter]).fails().contains(fault), "{filter}");
    }
    assert_eq!(ids(at, &[]).len(), 1);
    let said = rnostr(at, &["verify-store"]).succeeds();
    assert!(said.ends_with("nothing is wrong\n"), "{said}");
    let empty = tempfile::tempdir().expect("a directory");
    let error = rnostr(empty.path(), &["delete", "--yes", "--filter", r#"{"kinds":[1]}"#]).fails();
    assert!(error.contains("there is no store in ./data") && !empty.path().join("data").exists(), "{error}");
}

/// The store of a running relay is its own; a relay over PostgreSQL runs on, and serves the deleted events no more.
#[test]
fn a_running_relay_keeps_an_embedded_store_and_shares_any_other() {
    let relay = Relay::start("", "");
    let words = ["delete", "-c", "relay.toml", "--yes", "--filter", r#"{"kinds":[1]}"#];
    assert!(rnostr(relay.directory.path(), &words).fails().contains("is in use by another rnostr"));

    let Some(()) = services::require(services::Postgres::shared_available()) else { return };
    let url = starting(|| services::Postgres::shared().create_database());
    let gateway = format!("[extensions.mls_gateway]\nstorage_backend = \"postgres\"\ndatabase_url = \"{url}\"\n");
    let relay = Relay::start("", &gateway);
    goes_through_delete(relay.directory.path(), &["-c", "relay.toml"]);
    let elsewhere = tempfile::tempdir().expect("a directory");
    let said = rnostr(elsewhere.path(), &["sync", "--from", &relay.url]).succeeds();
    assert!(said.contains(": 1 events came\n"), "{said}");
    drop(relay);
    starting(|| services::Postgres::shared().drop_database(&url));
}
