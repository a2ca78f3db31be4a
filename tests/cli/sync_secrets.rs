//! `rnostr sync` beside private events: a stranger's relay learns the ids of public events alone, and brings no message
//! of a group that the operator did not ask for.

use std::{
    fs,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use nostr_protocol::testing::{EventBuilder, key, keypair};
use serde_json::{Value, json};

use super::{
    delete::ids,
    run::rnostr,
    sync::{id, lying, sync},
};

const AT: u64 = 1_795_000_000;

/// An unlisted group.
fn group() -> String {
    "ab".repeat(32)
}

fn message(content: &str) -> String {
    EventBuilder::new(445).tag(&["h", &group()]).content(content).at(AT).json(&keypair("anyone"))
}

/// Imports these events.
fn holding(at: &Path, events: &[String]) {
    fs::write(at.join("events.jsonl"), events.join("\n")).expect("it is written");
    let said = rnostr(at, &["import", "--from", "events.jsonl"]).succeeds();
    assert!(said.contains(&format!("  event: {} new\n", events.len())), "{said}");
}

/// The command compares the time behind now in a session of its own.
fn is_about_the_future(asked: &Value) -> bool {
    !asked[2]["since"].is_null()
}

/// A relay that offers one event and gives it.
fn offering(event: String) -> String {
    lying(move |text| {
        let asked: Value = serde_json::from_str(text).expect("JSON");
        match asked[0].as_str() {
            Some("NEG-OPEN") if is_about_the_future(&asked) => vec![json!(["NEG-MSG", asked[1], "61"]).to_string()],
            Some("NEG-OPEN") => {
                // One range to the end of time, with a list of one id.
                vec![json!(["NEG-MSG", asked[1], format!("6100000201{}", id(&event))]).to_string()]
            }
            Some("REQ") => {
                vec![format!("[\"EVENT\",{},{event}]", asked[1]), json!(["EOSE", asked[1]]).to_string()]
            }
            _ => Vec::new(),
        }
    })
}

/// The other relay answers with a wrong fingerprint, so that this side lists its ids: those of public events.
#[test]
fn a_relay_that_differs_learns_the_ids_of_public_events_alone() {
    let at = |kind: u16| EventBuilder::new(kind).at(AT);
    let bob = key("bob").to_hex();
    let wrap = at(1059).tag(&["p", &bob]).json(&keypair("anyone"));
    let private = [
        wrap.clone(),
        at(446).tag(&["p", &bob]).tag(&["v", "noise.1"]).json(&keypair("alice")),
        at(4).tag(&["p", &bob]).json(&keypair("alice")),
        message("in a group"),
        at(5).tag(&["e", &id(&wrap)]).json(&keypair("bob")),
    ];
    let package = at(443).content("Zmlyc3Q=").tag(&["i", "ref"]).json(&keypair("alice"));
    let note = at(1).content("to everyone").json(&keypair("alice"));
    let heard = Arc::new(Mutex::new(String::new()));
    let listening = Arc::clone(&heard);
    let url = lying(move |text| {
        let mut heard = listening.lock().unwrap_or_else(PoisonError::into_inner);
        heard.push_str(text);
        let asked: Value = serde_json::from_str(text).expect("JSON");
        vec![match asked[0].as_str() {
            Some("NEG-OPEN") if is_about_the_future(&asked) => json!(["NEG-MSG", asked[1], "61"]).to_string(),
            Some("NEG-OPEN" | "NEG-MSG") if heard.matches("NEG-MSG").count() < 3 => {
                json!(["NEG-MSG", asked[1], format!("61000001{}", "ab".repeat(16))]).to_string()
            }
            _ => json!(["NEG-ERR", asked[1], "enough"]).to_string(),
        }]
    });
    for (config, public) in [
        ("", vec![&note, &package]),
        ("[extensions.mls_gateway]\nkeypackage_consumption = \"on_read\"\n", vec![&note]),
        ("[auth]\nenabled = true\n", vec![]),
    ] {
        let target = tempfile::tempdir().expect("a directory");
        let (at, events) = (target.path(), [&private[..4], &[note.clone(), package.clone()], &private[4..]].concat());
        fs::write(at.join("relay.toml"), config).expect("it is written");
        holding(at, &events[..6]);
        fs::write(at.join("deletion"), &events[6]).expect("it is written");
        rnostr(at, &["import", "--from", "deletion"]).succeeds();
        heard.lock().unwrap_or_else(PoisonError::into_inner).clear();
        sync(at, &url, &["-c", "relay.toml"]).fails();
        let heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        for event in &events {
            assert_eq!(heard.contains(&id(event)), public.contains(&event), "{config}{event}");
        }
    }
}

/// A private event that the other relay offers is fetched again, and changes nothing.
#[test]
fn a_private_event_that_is_offered_again_is_unchanged() {
    let target = tempfile::tempdir().expect("a directory");
    let wrap = EventBuilder::new(1059).tag(&["p", &key("bob").to_hex()]).at(AT).json(&keypair("anyone"));
    holding(target.path(), std::slice::from_ref(&wrap));
    let said = sync(target.path(), &offering(wrap), &[]).succeeds();
    assert!(said.contains("1 unchanged\n") && !said.contains("not given"), "{said}");
    assert_eq!(ids(target.path(), &[]).len(), 1);
}

/// Messages of groups come only where the filter names their kind, and none to an unlisted group where those are off.
#[test]
fn messages_of_groups_come_only_where_they_are_asked_for() {
    let url = offering(message("from elsewhere"));
    let target = tempfile::tempdir().expect("a directory");
    let at = target.path();
    fs::write(at.join("off.toml"), "[extensions.mls_gateway]\nunlisted_groups = false\n").expect("it is written");
    fs::write(at.join("on.toml"), "").expect("it is written");
    let said = sync(at, &url, &["-c", "on.toml"]).succeeds();
    assert!(said.contains("group messages, for which --filter does not ask by \"kinds\":[445]\n"), "{said}");
    let asked = ["-c", "off.toml", "--filter", r#"{"kinds":[445]}"#];
    let said = sync(at, &url, &asked).succeeds();
    assert!(said.contains(" refused, as ") && !said.contains(" new"), "{said}");
    // No id was marked as one that carried unlisted messages.
    let exported = rnostr(at, &["export"]).succeeds();
    assert!(!exported.contains(&group()), "{exported}");
    let said = sync(at, &url, &["-c", "on.toml", "--filter", r#"{"kinds":[445]}"#]).succeeds();
    assert!(said.contains("  event: 1 new"), "{said}");
}
