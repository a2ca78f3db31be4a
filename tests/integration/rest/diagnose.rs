//! `POST diagnose`: an admin key is told whether a reader may publish an event and is shown it, and by which rule.

use serde_json::{Value, json};

use super::relay_of;
use crate::support::{
    Client, Event, Keys, TestRelay,
    gateway::{capability, deletion, key_package, message, noise, request, roster, welcome, wrap},
    rest::Rest,
};

/// An event, a reader, and the verdicts about publishing and reading, each with its rule.
type Row<'r> = (&'static str, Event, Option<&'r Keys>, (bool, &'static str), (bool, &'static str));

/// The heading of the table.
const TABLE: &str = "Who may publish, who may read";

async fn ask(rest: &Rest, event: &Event, reader: Option<&Keys>) -> Value {
    let body = json!({"event": event.0, "reader": reader.map(Keys::hex)});
    rest.post("/diagnose", body.to_string()).ok().await
}

/// Whether the event may be published, and is shown, each with the rule.
fn verdicts(answer: &Value) -> ((bool, String), (bool, String)) {
    let of = |part: &str, yes: &str| {
        let rule = answer[part]["rule"].as_str().expect("a rule").to_owned();
        (answer[part][yes].as_bool().expect("a verdict"), rule)
    };
    (of("write", "allowed"), of("read", "visible"))
}

/// Each kind, for a reader that may publish and see it and for one that may not.
#[tokio::test]
async fn each_kind_is_decided_by_its_rule() {
    let [admin, alice, bob, eve] = Keys::some();
    let relay = relay_of(&admin).await;
    let mut admins = Client::of(&relay, &[&admin]).await;
    admins.publish(&roster(&admin, "grp", 1, "bootstrap", &[&alice, &bob]).sign()).await.ok();
    let (rest, h) = (Rest::of(&relay, &admin), capability());
    let protected = alice.event(1).tag(["-"]).sign();
    let hidden = wrap(&alice).sign();
    let (yes, table) = (true, TABLE);
    let rows: Vec<Row<'_>> = vec![
        ("note", alice.event(1).sign(), Some(&eve), (yes, table), (yes, table)),
        ("note, no key", alice.event(1).sign(), None, (yes, table), (yes, table)),
        ("protected", protected.clone(), Some(&alice), (yes, table), (yes, table)),
        ("protected, another", protected, Some(&eve), (false, "Identity 2"), (yes, table)),
        ("443", key_package(&alice).sign(), None, (yes, table), (yes, table)),
        (
            "443 of another p",
            alice.event(443).tag(["p", &bob.hex()]).sign(),
            None,
            (false, "KeyPackages 6"),
            (false, "KeyPackages 6"),
        ),
        ("445", message("grp").sign(), Some(&alice), (yes, table), (yes, table)),
        (
            "445, no member",
            message("grp").sign(),
            Some(&eve),
            (false, "Groups 3"),
            (false, "Who may publish, who may read 8"),
        ),
        ("445, no key", message("grp").sign(), None, (false, "Groups 3"), (false, "Who may publish, who may read 8")),
        ("445, no group", message("none").sign(), Some(&alice), (false, "Groups 3"), (false, "Unlisted groups 2")),
        ("445 unlisted", message(&h).sign(), None, (yes, table), (yes, table)),
        (
            "445 without h",
            alice.event(445).sign(),
            Some(&alice),
            (false, "Who may publish, who may read 3"),
            (false, "Who may publish, who may read 3"),
        ),
        ("446", noise(&alice, &bob).sign(), Some(&bob), (yes, table), (yes, table)),
        ("446, another", noise(&alice, &bob).sign(), Some(&eve), (yes, table), (false, table)),
        ("447", request(&admin, &bob).sign(), Some(&admin), (yes, table), (false, table)),
        ("447, recipient", request(&admin, &bob).sign(), Some(&bob), (false, "Identity 2"), (yes, table)),
        ("447 by a stranger", request(&eve, &bob).sign(), Some(&eve), (false, table), (false, table)),
        ("450", roster(&admin, "grp", 2, "promote", &[&alice]).sign(), Some(&admin), (yes, table), (yes, table)),
        (
            "450, stale",
            roster(&admin, "grp", 1, "promote", &[&alice]).sign(),
            Some(&admin),
            (false, "Rosters 4"),
            (false, "Rosters 4"),
        ),
        (
            "450, no change",
            roster(&admin, "grp", 2, "add", &[&alice]).sign(),
            Some(&admin),
            (false, "Rosters 10"),
            (false, "Rosters 10"),
        ),
        (
            "450, no admin",
            roster(&eve, "grp", 2, "add", &[&eve]).sign(),
            Some(&eve),
            (false, "Rosters 2"),
            (false, "Who may publish, who may read 8"),
        ),
        ("1059", wrap(&bob).sign(), Some(&bob), (yes, table), (yes, table)),
        ("1059, sender", wrap(&bob).sign(), Some(&alice), (yes, table), (false, table)),
        ("1059 to the group", welcome(&eve, "grp").sign(), Some(&eve), (false, "Gift wraps 4"), (yes, table)),
        (
            "1059 without p",
            alice.event(1059).sign(),
            Some(&alice),
            (false, "Who may publish, who may read 3"),
            (false, "Who may publish, who may read 3"),
        ),
        ("21059", Keys::random().event(21059).tag(["p", &bob.hex()]).sign(), Some(&bob), (yes, table), (yes, table)),
        ("4", alice.event(4).tag(["p", &bob.hex()]).sign(), Some(&eve), (yes, table), (false, table)),
        ("5", deletion(&alice, &[&hidden]).sign(), Some(&alice), (yes, table), (yes, table)),
        (
            "5 of the roster's kind",
            alice.event(5).tag(["e", hidden.id()]).tag(["k", "450"]).sign(),
            Some(&alice),
            (false, "Deletion 2"),
            (false, "Deletion 2"),
        ),
        (
            "62",
            alice.event(62).tag(["relay", "wss://elsewhere.example"]).sign(),
            None,
            (false, "Deletion 7"),
            (false, "Deletion 7"),
        ),
        ("444", alice.event(444).sign(), Some(&alice), (false, table), (false, table)),
        ("22242", alice.event(22242).sign(), Some(&alice), (false, "Identity 6"), (false, "Identity 6")),
        ("27235", alice.event(27235).sign(), Some(&alice), (yes, table), (false, table)),
        (
            "expired",
            alice.event(1).tag(["expiration", "1000000000"]).sign(),
            None,
            (false, "Archive 5"),
            (false, "Archive 5"),
        ),
        (
            "in milliseconds",
            alice.event(1).tag(["expiration", "1000000000000"]).sign(),
            None,
            (false, "Archive 4"),
            (false, "Archive 4"),
        ),
        (
            "too far ahead",
            alice.event(1).created_at(relay.now() + 10_000).sign(),
            None,
            (false, "Answers to clients 6"),
            (false, "Answers to clients 6"),
        ),
    ];
    for (row, event, reader, write, read) in rows {
        let answer = ask(&rest, &event, reader).await;
        let (got_write, got_read) = verdicts(&answer);
        assert_eq!((got_write.0, got_write.1.as_str()), write, "{row}: {answer}");
        assert_eq!((got_read.0, got_read.1.as_str()), read, "{row}: {answer}");
        assert_eq!(rest.get(&format!("/events/{}", event.id())).send().await.status, 404, "{row} is not stored");
    }
    assert_eq!(admins.ids(json!({"kinds": [450]})).await.map(|ids| ids.len()), Ok(1), "nothing was stored");
}

/// The words and the outcome are those of the socket, also where the store alone decides.
#[tokio::test]
async fn a_diagnosis_is_what_the_socket_answers_then() {
    let [admin, alice, bob, eve] = Keys::some();
    let relay = relay_of(&admin).await;
    let mut admins = Client::of(&relay, &[&admin]).await;
    admins.publish(&roster(&admin, "grp", 1, "bootstrap", &[&alice]).sign()).await.ok();
    let rest = Rest::of(&relay, &admin);
    let mut client = Client::of(&relay, &[&alice]).await;
    let (note, old) = (alice.event(1).sign(), alice.event(30023).tag(["d", "x"]).created_at(relay.now() - 10).sign());
    let said = message("grp").sign();
    let events = [
        note.clone(),
        note.clone(),
        deletion(&alice, &[&note]).sign(),
        note.clone(),
        alice.event(30023).tag(["d", "x"]).created_at(relay.now()).sign(),
        old,
        said.clone(),
        said.clone(),
        deletion(&alice, &[&admins_note(&mut admins, &admin).await]).sign(),
        roster(&alice, "grp", 2, "add", &[&bob]).sign(),
        roster(&alice, "grp", 2, "remove", &[&alice]).sign(),
        message("grp").sign(),
        welcome(&bob, "new").sign(),
        welcome(&alice, "newer").sign(),
        key_package(&alice).sign(),
        noise(&alice, &eve).sign(),
    ];
    for (n, event) in events.iter().enumerate() {
        let told = ask(&rest, event, Some(&alice)).await;
        let answer = client.publish(event).await;
        let expected = (&json!(answer.accepted), &json!(answer.reason));
        assert_eq!((&told["write"]["allowed"], &told["write"]["reason"]), expected, "{n}: {told}");
        // A reader that names the event by its id gets it or not, as told afterwards.
        for reader in [&alice, &bob, &eve] {
            let told = ask(&rest, event, Some(reader)).await;
            let is_stored = told["read"]["reason"] != "the event is not stored; the reader would be shown it";
            let shown = Client::of(&relay, &[reader]).await.ids(json!({"ids": [event.id()]})).await;
            let visible = told["read"]["visible"] == true && is_stored;
            assert_eq!(visible, shown.expect("served") == [event.id()], "{n}: {told}");
        }
    }
    // A commit by which a member leaves: she reads nothing of the group any more, and the rule says so.
    let (_, read) = verdicts(&ask(&rest, &said, Some(&alice)).await);
    assert_eq!(read, (false, "Who may publish, who may read 8".to_owned()));
}

async fn admins_note(client: &mut Client, admin: &Keys) -> Event {
    let note = admin.event(1).sign();
    client.publish(&note).await.ok();
    note
}

#[tokio::test]
async fn readers_that_the_relay_does_not_let_in_are_told_so() {
    let [admin, alice, eve] = Keys::some();
    let relay = TestRelay::start(|config| {
        config.auth.enabled = true;
        config.auth.pubkey_whitelist = vec![alice.public()];
        config.mls_gateway.admin_pubkeys = vec![admin.public()];
    })
    .await;
    let rest = Rest::of(&relay, &admin);
    let note = alice.event(1).sign();
    for (reader, rule) in [(Some(&eve), "Identity 10"), (None, "Identity 7")] {
        let verdict = (false, rule.to_owned());
        assert_eq!(verdicts(&ask(&rest, &note, reader).await), (verdict.clone(), verdict));
    }
    let all = (true, TABLE.to_owned());
    assert_eq!(verdicts(&ask(&rest, &note, Some(&alice)).await), (all.clone(), all));
}

#[tokio::test]
async fn a_body_that_is_no_question_is_refused() {
    let [admin, alice] = Keys::some();
    let relay = relay_of(&admin).await;
    let rest = Rest::of(&relay, &admin);
    let note = alice.event(1).sign().0;
    let mut forged = note.clone();
    forged["sig"] = "0".repeat(128).into();
    let mut changed = note.clone();
    changed["content"] = "changed".into();
    for body in [
        json!({}),
        json!([]),
        json!({"event": {}}),
        json!({"event": "x", "reader": null}),
        json!({"event": forged, "reader": null}),
        json!({"event": changed}),
        json!({"event": note, "reader": "x"}),
        json!({"event": note, "reader": 7}),
        json!({"event": note, "reader": [alice.hex()]}),
        json!({"event": note, "writer": alice.hex()}),
    ] {
        let detail = rest.post("/diagnose", body.to_string()).refused(400).await;
        assert!(detail.starts_with("invalid: "), "{body}: {detail}");
    }
    rest.post("/diagnose", "{").refused(400).await;
    rest.post("/diagnose", [0xff_u8, 0xfe]).refused(400).await;
    rest.get("/diagnose").refused(405).await;
    let body = json!({"event": note}).to_string();
    Rest::anonymous(&relay).post("/diagnose", body.clone()).refused(401).await;
    let detail = Rest::of(&relay, &alice).post("/diagnose", body).refused(403).await;
    assert!(detail.starts_with("restricted: "), "{detail}");
}
