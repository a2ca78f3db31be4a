//! `GET messages` and `GET inbox`: catching up in the order of receipt.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::relay_of;
use crate::support::{
    Client, Event, Keys, TestRelay,
    gateway::{capability, deletion, message, noise, request, roster, wrap},
    http,
    rest::Rest,
};

fn ids(answer: &Value) -> Vec<String> {
    let events = answer["events"].as_array().expect("events").iter();
    events.map(|event| event["id"].as_str().expect("an id").to_owned()).collect()
}

/// All that is new behind a cursor, in pages, and the cursor behind it.
pub async fn catch_up(rest: &Rest, path: &str, mut cursor: Option<String>) -> (Vec<String>, String) {
    let mut all = Vec::new();
    loop {
        let since = cursor.map_or_else(String::new, |cursor| format!("since_cursor={cursor}"));
        let page = rest.get(&format!("{path}{since}")).ok().await;
        all.extend(ids(&page));
        let next = page["next_cursor"].as_str().expect("a cursor").to_owned();
        if page["has_more"] == false {
            return (all, next);
        }
        cursor = Some(next);
    }
}

#[tokio::test]
async fn a_member_catches_up_in_the_order_of_receipt() {
    let [admin, alice, bob] = Keys::some();
    let relay = relay_of(&admin).await;
    let mut writer = Client::of(&relay, &[&admin, &alice]).await;
    for id in ["grp", "other"] {
        writer.publish(&roster(&admin, id, 1, "bootstrap", &[&alice, &bob]).sign()).await.ok();
    }
    let rest = Rest::of(&relay, &bob);
    let mut sent = Vec::new();
    for n in 0..10_u64 {
        // Back-dated, and several of one second.
        let event = message("grp").created_at(relay.now() - n % 3 * 80_000).sign();
        writer.publish(&event).await.ok();
        writer.publish(&message("other").sign()).await.ok();
        sent.push(event.id().to_owned());
    }
    let whole = rest.get("/messages?group=grp").ok().await;
    assert_eq!((ids(&whole), &whole["has_more"]), (sent.clone(), &json!(false)));
    let (paged, cursor) = catch_up(&rest, "/messages?group=grp&limit=3&", None).await;
    assert_eq!(paged, sent);
    // Nothing new: the cursor stays, on every instance.
    let (none, same) = catch_up(&rest.at(relay.next_address()), "/messages?group=grp&", Some(cursor.clone())).await;
    assert_eq!((none, &same), (Vec::new(), &cursor));
    let late = message("grp").created_at(relay.now() - 172_800).sign();
    writer.publish(&late).await.ok();
    let (new, _) = catch_up(&rest.at(relay.next_address()), "/messages?group=grp&", Some(cursor)).await;
    assert_eq!(new, [late.id()], "a back-dated message is not missed");
}

#[tokio::test]
async fn a_list_that_is_shut_goes_on_like_an_empty_one() {
    let [admin, alice, bob, eve] = Keys::some();
    let relay = relay_of(&admin).await;
    let unlisted = capability();
    let mut writer = Client::of(&relay, &[&admin, &alice]).await;
    writer.publish(&roster(&admin, "grp", 1, "bootstrap", &[&alice, &bob]).sign()).await.ok();
    let hidden = message("grp").sign();
    writer.publish(&hidden).await.ok();
    let open = message(&unlisted).sign();
    writer.publish(&open).await.ok();
    let outside = Rest::of(&relay, &eve);
    let of_absent = outside.get("/messages?group=absent").ok().await;
    let of_hidden = outside.get("/messages?group=grp").ok().await;
    for answer in [&of_absent, &of_hidden] {
        assert_eq!((ids(answer), &answer["has_more"]), (Vec::new(), &json!(false)));
    }
    let length = |answer: &Value| answer["next_cursor"].as_str().expect("a cursor").len();
    assert_eq!(length(&of_absent), length(&of_hidden));
    // A key that becomes a member gets the whole archive behind that cursor.
    writer.publish(&roster(&admin, "grp", 2, "add", &[&eve]).sign()).await.ok();
    let cursor = of_hidden["next_cursor"].as_str().expect("a cursor").to_owned();
    let (joined, cursor) = catch_up(&outside, "/messages?group=grp&", Some(cursor)).await;
    assert_eq!(joined, [hidden.id()]);
    writer.publish(&roster(&admin, "grp", 3, "remove", &[&eve]).sign()).await.ok();
    writer.publish(&message("grp").sign()).await.ok();
    let (left, same) = catch_up(&outside.at(relay.next_address()), "/messages?group=grp&", Some(cursor.clone())).await;
    assert_eq!((left, same), (Vec::new(), cursor), "a former member gets nothing");
    // An unlisted group opens to a key that names it; nobody without a proof asks here.
    assert_eq!(ids(&outside.get(&format!("/messages?group={unlisted}")).ok().await), [open.id()]);
    Rest::anonymous(&relay).get(&format!("/messages?group={unlisted}")).refused(401).await;
    Rest::anonymous(&relay).get("/inbox").refused(401).await;
    for group in ["", "a%2fb", "%00", "..", "%ff", &"a".repeat(3_000)] {
        outside.get(&format!("/messages?group={group}")).refused(400).await;
    }
    outside.get("/messages").refused(400).await;
}

#[tokio::test]
async fn an_inbox_is_its_readers_alone() {
    let [admin, alice, bob, eve] = Keys::some();
    let relay = relay_of(&admin).await;
    let mut writer = Client::of(&relay, &[&admin, &alice, &bob]).await;
    let events: Vec<Event> = vec![
        wrap(&bob).created_at(relay.now() - 172_000).sign(),
        noise(&alice, &bob).sign(),
        request(&admin, &bob).sign(),
        wrap(&bob).sign(),
    ];
    for event in &events {
        writer.publish(event).await.ok();
        writer.publish(&wrap(&eve).sign()).await.ok();
        writer.publish(&alice.event(4).tag(["p", &bob.hex()]).sign()).await.ok();
    }
    let rest = Rest::of(&relay, &bob);
    let expected: Vec<&str> = events.iter().map(Event::id).collect();
    let (all, cursor) = catch_up(&rest, "/inbox?limit=1&", None).await;
    assert_eq!(all, expected);
    assert_eq!(rest.get("/inbox").ok().await["events"][0], events[0].0);
    assert_eq!(ids(&Rest::of(&relay, &admin).get("/inbox").ok().await).len(), 0, "an admin key reads no inbox");
    assert_eq!(ids(&Rest::of(&relay, &eve).get("/inbox").ok().await).len(), 4);
    writer.publish(&deletion(&bob, &[&events[1]]).sign()).await.ok();
    assert_eq!(ids(&rest.get("/inbox").ok().await).len(), 3);
    assert_eq!(catch_up(&rest, "/inbox?", Some(cursor)).await.0.len(), 0);
}

#[tokio::test]
async fn a_cursor_is_bound_to_its_readers_question() {
    let [admin, alice, bob] = Keys::some();
    let relay = relay_of(&admin).await;
    let mut writer = Client::of(&relay, &[&admin, &alice]).await;
    for id in ["grp", "other"] {
        writer.publish(&roster(&admin, id, 1, "bootstrap", &[&alice, &bob]).sign()).await.ok();
        writer.publish(&message(id).sign()).await.ok();
    }
    let rest = Rest::of(&relay, &bob);
    let cursor = catch_up(&rest, "/messages?group=grp&", None).await.1;
    let changed = format!("{}{}", if cursor.starts_with('A') { 'B' } else { 'A' }, &cursor[1..]);
    for (reader, path) in [
        (&alice, format!("/messages?group=grp&since_cursor={cursor}")),
        (&bob, format!("/messages?group=other&since_cursor={cursor}")),
        (&bob, format!("/inbox?since_cursor={cursor}")),
        (&bob, format!("/groups?cursor={cursor}")),
        (&bob, format!("/messages?group=grp&since_cursor={changed}")),
        (&bob, format!("/messages?group=grp&since_cursor={}", "A".repeat(3_000))),
        (&bob, "/messages?group=grp&since_cursor=12345".to_owned()),
        (&bob, "/messages?group=grp&since_cursor=".to_owned()),
    ] {
        let detail = Rest::of(&relay, reader).get(&path).refused(400).await;
        assert!(detail.contains("no cursor of this request"), "{path}: {detail}");
    }
}

/// Cursors survive a restart. Those of another store are refused with what to do.
#[tokio::test]
async fn a_cursor_outlives_the_process_and_not_the_store() {
    let [admin, alice] = Keys::some();
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("data");
    let admins = |config: &mut nostr_relay::config::Config| config.mls_gateway.admin_pubkeys = vec![admin.public()];
    let relay = TestRelay::start_in(&path, admins).await;
    let mut writer = Client::of(&relay, &[&admin, &alice]).await;
    writer.publish(&roster(&admin, "grp", 1, "bootstrap", &[&alice]).sign()).await.ok();
    let [first, second] = [message("grp").sign(), message("grp").sign()];
    writer.publish(&first).await.ok();
    let cursor = catch_up(&Rest::of(&relay, &alice), "/messages?group=grp&", None).await.1;
    drop(writer);
    relay.stop().await;
    let relay = TestRelay::start_in(&path, admins).await;
    Client::of(&relay, &[&alice]).await.publish(&second).await.ok();
    let rest = Rest::of(&relay, &alice);
    assert_eq!(catch_up(&rest, "/messages?group=grp&", Some(cursor.clone())).await.0, [second.id()]);
    let elsewhere = TestRelay::start_in(&directory.path().join("other"), admins).await;
    let path = format!("/messages?group=grp&since_cursor={cursor}");
    let detail = Rest::of(&elsewhere, &alice).get(&path).refused(410).await;
    assert!(detail.contains("begin again without a cursor"), "{detail}");
}

/// A client that was away gets the same messages by NIP-77, by paging a REQ and by REST.
#[tokio::test]
async fn three_ways_of_catching_up_give_the_same_messages() {
    const MESSAGES: usize = 10_000;
    const BACK_DATED_SECS: u64 = 172_000;
    let count = if crate::support::backend::name() == "firestore" { 1_500 } else { MESSAGES };
    let [admin, alice, bob] = Keys::some();
    let relay = TestRelay::start(|config| {
        config.mls_gateway.admin_pubkeys = vec![admin.public()];
        config.limitation.max_query_cost = 100_000_000;
    })
    .await;
    let mut writer = Client::of(&relay, &[&admin, &alice]).await;
    writer.publish(&roster(&admin, "grp", 1, "bootstrap", &[&alice, &bob]).sign()).await.ok();
    let rest = Rest::of(&relay, &bob);
    let cursor = catch_up(&rest, "/messages?group=grp&", None).await.1;
    let author = Keys::random();
    let mut sent = Vec::new();
    for n in 0..count as u64 {
        // Many share a second, and each seventh is back-dated up to two days.
        let back = if n % 7 == 0 { n * 7_919 % BACK_DATED_SECS } else { n % 50 };
        let event = author.event(445).tag(["h", "grp"]).content(n.to_string()).created_at(relay.now() - back).sign();
        sent.push(event);
    }
    let mut expected: BTreeSet<String> = BTreeSet::new();
    for some in sent.chunks(100) {
        for answer in writer.publish_all(some).await {
            answer.ok();
        }
        expected.extend(some.iter().map(|event| event.id().to_owned()));
    }
    assert_eq!(expected.len(), count);
    let mut reader = Client::of(&relay, &[&bob]).await;
    let synced: BTreeSet<String> =
        reader.neg_ids(json!({"kinds": [445], "#h": ["grp"]})).await.expect("a session").into_iter().collect();
    let mut paged = BTreeSet::new();
    let mut until = relay.now() + 1;
    loop {
        let filter = json!({"kinds": [445], "#h": ["grp"], "until": until});
        let page = reader.req("page", &[filter]).await.expect("a page");
        let before = paged.len();
        paged.extend(page.iter().map(|event| event.id().to_owned()));
        let Some(oldest) = page.iter().map(|event| event.0["created_at"].as_u64().expect("a time")).min() else {
            break;
        };
        if paged.len() == before {
            break;
        }
        until = if oldest == until { oldest - 1 } else { oldest };
    }
    let (caught, _) = catch_up(&rest, "/messages?group=grp&limit=500&", Some(cursor)).await;
    assert_eq!(caught.len(), count, "REST gives each once");
    let caught: BTreeSet<String> = caught.into_iter().collect();
    println!("NIP-77: {}, paging: {}, REST: {}, sent: {}", synced.len(), paged.len(), caught.len(), expected.len());
    assert!(synced == expected, "NIP-77: {}", synced.len());
    assert!(paged == expected, "paging: {}", paged.len());
    assert!(caught == expected, "REST: {}", caught.len());
}

/// A store that was put back to an older copy grows past the places that it had given, by other events.
#[tokio::test]
async fn a_cursor_does_not_survive_a_restore_that_grew_past_it() {
    let [admin, alice, bob] = Keys::some();
    let (directory, copy) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let start =
        async || TestRelay::start_in(directory.path(), |it| it.mls_gateway.admin_pubkeys = vec![admin.public()]).await;
    let write = async |relay: &TestRelay, count: usize| {
        let mut writer = Client::of(relay, &[&alice]).await;
        let mut sent = Vec::new();
        for _ in 0..count {
            let event = message("grp").sign();
            writer.publish(&event).await.ok();
            sent.push(event.id().to_owned());
        }
        sent
    };
    let transfer = |from: &std::path::Path, to: &std::path::Path| {
        std::fs::copy(from.join("data.mdb"), to.join("data.mdb")).expect("a copy");
    };
    let behind = async |relay: &TestRelay, cursor: Option<&str>| {
        catch_up(&Rest::of(relay, &bob), "/messages?group=grp&", cursor.map(str::to_owned)).await
    };
    let relay = start().await;
    let roster = roster(&admin, "grp", 1, "bootstrap", &[&alice, &bob]).sign();
    Client::of(&relay, &[&admin]).await.publish(&roster).await.ok();
    write(&relay, 3).await;
    let (_, early) = behind(&relay, None).await;
    relay.stop().await;
    transfer(directory.path(), copy.path());
    let relay = start().await;
    let more = write(&relay, 4).await;
    let (new, late) = behind(&relay, Some(&early)).await;
    assert_eq!(new, more, "a cursor survives a restart");
    relay.stop().await;
    transfer(copy.path(), directory.path());
    let relay = start().await;
    let other = write(&relay, 10).await;
    let gone = Rest::of(&relay, &bob).get(&format!("/messages?group=grp&since_cursor={late}")).refused(410).await;
    assert!(gone.contains("begin again"), "{gone}");
    assert_eq!(behind(&relay, Some(&early)).await.0, other, "a place that the copy has holds");
}

/// The marks of the log's history are paid for, as much where nothing is found.
#[tokio::test]
async fn a_request_pays_for_the_marks_of_its_places() {
    let [admin, bob] = Keys::some();
    let relay = TestRelay::start_alone(|config| config.mls_gateway.admin_pubkeys = vec![admin.public()]).await;
    let spent = async || -> u64 {
        let page = http(relay.address, "GET /metrics", &[]).await.body;
        let units = page.lines().find_map(|line| line.strip_prefix("mls_gateway_read_cost_total "));
        units.map_or(0, |units| units.parse().expect("a number"))
    };
    let before = spent().await;
    Rest::of(&relay, &bob).get("/messages?group=absent").ok().await;
    // 2 for the filter, 8 for the group and 1 for each of two marks.
    assert_eq!(spent().await - before, 12);
}
