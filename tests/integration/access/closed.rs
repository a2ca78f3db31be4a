//! Lists and hints while a group is closed: nothing says that they are whole, and no cursor passes a message.

use std::time::Duration;

use nostr_relay::config::Config;
use serde_json::{Value, json};

use super::{
    faults::members,
    service::{Fault, Faulty, ask},
};
use crate::support::{Client, Event, Keys, TestRelay, gateway::message, rest::Rest};

/// Events of one page of the store, and as many again.
const MESSAGES: usize = 400;

fn ask_each_time(config: &mut Config, service: &Faulty) {
    ask(config, service.address);
    config.mls_gateway.group_cache_ttl_secs = 0;
    config.mls_gateway.acl_stale_max_secs = 0;
}

async fn pause() {
    tokio::time::sleep(Duration::from_millis(1_200)).await;
}

fn ids(page: &Value) -> Vec<String> {
    let events = page["events"].as_array().expect("events").iter();
    events.map(|event| event["id"].as_str().expect("an id").to_owned()).collect()
}

/// The service goes away while a list is read: the cursor stays before the messages that were not given.
#[tokio::test]
async fn a_list_ends_before_the_messages_of_a_closed_group() {
    let alice = Keys::random();
    let service = Faulty::start(members(&[&alice])).await;
    let relay = TestRelay::start_alone(|config| ask_each_time(config, &service)).await;
    let mut client = Client::of(&relay, &[&alice]).await;
    let sent: Vec<Event> = (0..MESSAGES).map(|_| message("team").sign()).collect();
    for some in sent.chunks(100) {
        for answer in client.publish_all(some).await {
            answer.ok();
        }
    }
    let rest = Rest::of(&relay, &alice);
    let away = || Fault::answer("500 Internal Server Error", "", "");
    // One question opens the list, and one each page.
    service.now(Fault::UpTo(service.questions() + 2, Box::new((members(&[&alice]), away()))));
    let page = rest.get("/messages?group=team&limit=500").ok().await;
    let mut got = ids(&page);
    assert!((1..MESSAGES).contains(&got.len()), "{}", got.len());
    assert_eq!(page["has_more"], true);
    let next =
        format!("/messages?group=team&limit=500&since_cursor={}", page["next_cursor"].as_str().expect("a cursor"));
    for path in
        [next.as_str(), "/messages?group=team", "/messages?group=absent", "/groups/team", "/groups/absent/roster"]
    {
        let detail = rest.get(path).refused(503).await;
        assert!(detail.starts_with("error: the members of this group cannot be asked"), "{path}: {detail}");
    }
    let here = rest.get("/messages?group=team").send().await;
    let elsewhere = rest.get("/messages?group=absent").send().await;
    assert_eq!((here.body, here.status), (elsewhere.body, elsewhere.status), "no status tells that a group exists");
    service.now(members(&[&alice]));
    pause().await;
    let page = rest.get(&next).ok().await;
    got.extend(ids(&page));
    assert_eq!(page["has_more"], false);
    assert_eq!(got, sent.iter().map(|event| event.id().to_owned()).collect::<Vec<_>>(), "each once, in their order");
    relay.stop().await;
}

/// No hint says that an answer is complete while a group of it is closed, and no count that it is exact.
#[tokio::test]
async fn an_answer_without_a_closed_group_does_not_say_that_it_is_complete() {
    let alice = Keys::random();
    let service = Faulty::start(members(&[&alice])).await;
    let relay = TestRelay::start_alone(|config| ask_each_time(config, &service)).await;
    let mut client = Client::of(&relay, &[&alice]).await;
    let first = message("team").sign();
    client.publish(&first).await.ok();
    let filters = [
        json!({"kinds": [445], "#h": ["team"]}),
        json!({"kinds": [445], "#h": ["absent"]}),
        json!({"kinds": [445]}),
        json!({"ids": [first.id()]}),
    ];
    for filter in &filters {
        assert_eq!(eose(&mut client, filter).await.as_deref(), Some("finish"), "{filter}");
    }
    service.now(Fault::answer("500 Internal Server Error", "", ""));
    for filter in &filters {
        pause().await;
        assert_eq!(eose(&mut client, filter).await, None, "{filter}");
        pause().await;
        client.send(&json!(["COUNT", "count", filter])).await;
        assert_eq!(client.recv().await, json!(["COUNT", "count", {"count": 0, "approximate": true}]), "{filter}");
    }
    relay.stop().await;
}

/// The hint of the EOSE to a request.
pub async fn eose(client: &mut Client, filter: &Value) -> Option<String> {
    client.send(&json!(["REQ", "hint", filter])).await;
    loop {
        let frame = client.recv().await;
        match frame[0].as_str() {
            Some("EVENT") => {}
            Some("EOSE") => return frame[2][0].as_str().map(str::to_owned),
            _ => panic!("{frame}"),
        }
    }
}
