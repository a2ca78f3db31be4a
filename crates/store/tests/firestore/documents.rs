//! Documents that the service removes by itself, and the files that set up a database.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    time::{Duration, SystemTime},
};

use nostr_extensions::gate::Touches;
use nostr_protocol::EventId;
use nostr_store::{
    Saved, Store,
    firestore::{PREFIX, indexes_json, rules},
    suite::world::{START, claim_of, event, everyone, given, id_of, key_package, new},
};

use super::{Database, world};

/// The answer to a call of the emulator's REST interface.
pub(super) fn call(database: &Database, method: &str, path: &str, body: &str) -> serde_json::Value {
    let host = database.0.emulator_host.as_deref().expect("an emulator");
    let separator = if path.starts_with(':') { "" } else { "/" };
    let url = format!("/v1/projects/{}/databases/(default)/documents{separator}{path}", database.0.project_id);
    let mut stream = TcpStream::connect(host).expect("a connection");
    let head = format!("{method} {url} HTTP/1.0\r\nHost: {host}\r\nAuthorization: Bearer owner\r\n");
    let rest = format!("Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all((head + &rest).as_bytes()).expect("a request");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let (mut answer, mut part) = (Vec::new(), [0; 4_096]);
    // The emulator may leave the connection open.
    loop {
        let text = String::from_utf8_lossy(&answer).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && let Ok(body) = serde_json::from_str(body)
        {
            assert!(head.contains(" 200 "), "{text}");
            return body;
        }
        let count = stream.read(&mut part).expect("an answer");
        assert!(count > 0, "{text}");
        answer.extend_from_slice(&part[..count]);
    }
}

/// Removes an event like the service's lifetime policy.
fn remove(database: &Database, id: EventId) {
    call(database, "DELETE", &format!("{PREFIX}_events/{id}"), "");
}

#[tokio::test]
async fn an_event_that_the_service_removed_leaves_nothing_in_the_way() {
    let Some(database) = Database::new() else { return };
    let store = database.open().await;
    let world = world(&store);
    let profile = id_of(&new(world.publish(&event(0, "profile"), "alice").await));
    let packages = [1, 2, 3].map(|n| key_package(&n.to_string(), &format!("ref {n}")));
    let mut ids = Vec::new();
    for package in &packages {
        ids.push(id_of(&new(world.publish(package, "alice").await)));
    }
    remove(&database, profile);
    remove(&database, ids[0]);
    assert!(!world.holds(profile).await);
    let older = id_of(&new(world.publish(&event(0, "older").at(START - 5), "alice").await));
    assert_eq!(world.find(r#"{"kinds":[0]}"#, everyone()).await, [older]);
    let claim = async || -> Vec<EventId> {
        given(&store.claim_key_packages(&claim_of("alice", 1), START).await.expect("a claim"))
    };
    assert_eq!(claim().await, [ids[1]]);
    assert_eq!(claim().await, [ids[2]], "the last one left");
    assert_eq!(claim().await, [ids[2]]);
    assert!(matches!(world.publish(&packages[1], "alice").await, Saved::Deleted));
}

#[tokio::test]
async fn a_follower_from_before_the_log_forgets_its_groups() {
    let Some(database) = Database::new() else { return };
    let store = database.open().await;
    let world = world(&store);
    let old = new(world.publish(&event(1, "old"), "alice").await);
    tokio::time::sleep(Duration::from_millis(5)).await;
    let swept = format!(r#"{{"fields":{{"swept":{{"integerValue":"{}"}}}}}}"#, now_micros());
    call(&database, "PATCH", &format!("{PREFIX}_meta/log"), &swept);
    let later = new(world.publish(&event(1, "later"), "alice").await);
    let log = store.after(1, 10).await.expect("the log");
    assert_eq!(log.entries.len(), 2);
    assert_eq!(log.entries[0].touches, Touches::EveryGroup);
    assert!(log.entries[0].cursor > old.cursor() && log.entries[0].routes.is_empty());
    assert_eq!(log.entries[1].cursor, later.cursor());
    // A follower that is not so far back gets no such entry.
    let log = store.after(old.cursor(), 10).await.expect("the log");
    assert_eq!(log.entries.iter().map(|entry| entry.cursor).collect::<Vec<_>>(), [later.cursor()]);
}

#[tokio::test]
async fn a_slow_commit_is_not_passed_over() {
    let Some(database) = Database::new() else { return };
    let [store, other] = database.open_all().await;
    let here = world(&store);
    let mut through = 0;
    for n in 0..5 {
        new(here.publish(&event(1, &n.to_string()), "alice").await);
        through = other.after(through, 100).await.expect("the log").through;
    }
    // A commit that the service received some seconds before those, and that gets its time only now.
    let log = call(&database, "GET", &format!("{PREFIX}_log"), "");
    let mut fields = log["documents"][0]["fields"].clone();
    let ago = now_micros() / 1_000_000 - 8;
    let at = format!("{}Z", date(ago));
    fields["at"]["timestampValue"] = at.into();
    let late = serde_json::json!({ "fields": fields }).to_string();
    call(&database, "PATCH", &format!("{PREFIX}_log/late"), &late);
    let page = other.after(through, 100).await.expect("the log");
    assert_eq!(page.entries.len(), 1, "it is found among what was taken in before");
    assert!(page.entries[0].cursor > through && page.through >= page.entries[0].cursor);
    let last = new(here.publish(&event(1, "last"), "alice").await);
    let page = other.after(page.through, 100).await.expect("the log");
    assert_eq!(page.entries.iter().map(|entry| entry.cursor).collect::<Vec<_>>(), [last.cursor()]);
    // A first read of the whole log gives the same order.
    let all = store.after(0, 100).await.expect("the log").entries;
    assert!(all.len() == 7 && all.is_sorted_by(|a, b| a.cursor < b.cursor));
}

/// Two commits of one microsecond that chose the same place.
#[tokio::test]
async fn events_that_share_a_cursor_are_told_apart() {
    let Some(database) = Database::new() else { return };
    let [store, other] = database.open_all().await;
    let here = world(&store);
    let mut ids = Vec::new();
    for (text, by) in [("one", "alice"), ("two", "bob"), ("three", "carol")] {
        ids.push(id_of(&new(here.publish(&event(1, text), by).await)));
    }
    let mut writes = Vec::new();
    for collection in ["log", "events"] {
        let found = call(&database, "GET", &format!("{PREFIX}_{collection}"), "");
        for document in found["documents"].as_array().expect("documents") {
            let mut fields = document["fields"].clone();
            fields["place"] = serde_json::json!({ "integerValue": "7" });
            writes.push(serde_json::json!({ "update": { "name": document["name"], "fields": fields } }));
        }
    }
    assert_eq!(writes.len(), 6);
    call(&database, "POST", ":commit", &serde_json::json!({ "writes": writes }).to_string());
    let entries = other.after(0, 10).await.expect("the log").entries;
    assert!(entries.len() == 3 && entries.iter().all(|entry| entry.cursor == entries[0].cursor), "{entries:?}");
    let router = other.route_hasher();
    for entry in &entries {
        let sealed = entry.sealed.as_ref().expect("what shares a place is at hand");
        assert_eq!(entry.routes, router.routes(sealed), "each has its own event");
    }
    let mut found: Vec<EventId> = entries.iter().filter_map(|entry| entry.sealed.as_ref()).map(id_of).collect();
    found.sort_unstable();
    ids.sort_unstable();
    assert_eq!(found, ids);
    // The entry of an event that is gone by then stays, and concerns nobody.
    remove(&database, ids[0]);
    let entries = database.open().await.after(0, 10).await.expect("the log").entries;
    assert_eq!(entries.iter().filter(|entry| entry.sealed.is_none() && entry.routes.is_empty()).count(), 1);
    assert_eq!(entries.iter().filter(|entry| entry.sealed.is_some()).count(), 2);
}

/// A time in the form of the REST interface.
fn date(secs: u64) -> String {
    let output =
        std::process::Command::new("date").args(["-u", "-d", &format!("@{secs}"), "+%Y-%m-%dT%H:%M:%S"]).output();
    String::from_utf8(output.expect("a date").stdout).expect("text").trim().to_owned()
}

fn now_micros() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("it is later than 1970");
    u64::try_from(since.as_micros()).expect("it is not so late")
}

/// With `RNOSTR_UPDATE=1` the test writes the files.
#[test]
fn the_files_for_a_database_are_those_of_the_code() {
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    for (name, made) in [("firestore.indexes.json", indexes_json(PREFIX)), ("firestore.rules", rules())] {
        let path = deploy.join(name);
        if std::env::var("RNOSTR_UPDATE").is_ok_and(|set| set == "1") {
            std::fs::write(&path, &made).expect("the file is written");
        }
        let there = std::fs::read_to_string(&path).expect("the file");
        assert_eq!(there, made, "{name} is not as the code makes it: RNOSTR_UPDATE=1 writes it");
    }
    let made: serde_json::Value = serde_json::from_str(&indexes_json(PREFIX)).expect("it is JSON");
    assert_eq!(made["indexes"].as_array().map(Vec::len), Some(2));
}
