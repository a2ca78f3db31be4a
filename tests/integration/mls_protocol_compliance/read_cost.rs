//! docs/rules.md, "Cost of reads": what a request costs is counted, paid for and bounded, and readers take turns. The
//! clock stands still unless a test moves it.

use std::sync::{Arc, atomic::Ordering};

use nostr_relay::config::{Config, RelayUrl};
use serde_json::{Value, json};

use super::World;
use crate::support::{
    Client, Event, Keys, TestRelay,
    backend::{self, embedded},
    empty_set,
    gateway::{capability, message},
    observed::{Observed, ObservedPage},
    shared::Shared,
};

fn units_per_minute(units: u32) -> impl FnOnce(&mut Config) {
    move |config| config.mls_gateway.rate_limits.max_read_cost_per_minute = units
}

/// Publishes notes of `kind`, and returns their ids.
async fn notes(relay: &TestRelay, kind: u16, count: usize) -> Vec<String> {
    let by = Keys::random();
    let events: Vec<Event> = (0..count).map(|n| by.event(kind).content(n.to_string()).sign()).collect();
    for answer in Client::connect(relay).await.publish_all(&events).await {
        answer.ok();
    }
    events.iter().map(|event| event.id().to_owned()).collect()
}

/// The seconds at the end of a refusal.
#[track_caller]
fn retry_secs(reason: &str) -> u64 {
    assert!(reason.starts_with("rate-limited: "), "{reason}");
    let secs = reason.rsplit_once("; retry in ").and_then(|(_, secs)| secs.strip_suffix(" s"));
    secs.and_then(|secs| secs.parse().ok()).unwrap_or_else(|| panic!("no seconds: {reason}"))
}

#[tokio::test]
async fn a_read_beyond_its_budget_is_told_when_to_retry() {
    let world = World::alone(units_per_minute(12_000)).await;
    notes(&world.relay, 1, 100).await;
    let mut client = world.client(&[]).await;
    let mut answered = 0;
    let reason = loop {
        match client.req_now("all", &[json!({"kinds": [1]})]).await {
            Ok(events) => assert_eq!(events.len(), 100),
            Err(reason) => break reason,
        }
        answered += 1;
        assert!(answered < 200, "nothing is refused");
    };
    assert!(answered >= 5, "the budget allows ordinary requests: {answered}");
    let secs = retry_secs(&reason);
    assert!(secs > 0 && secs <= 60, "{reason}");
    assert_eq!(world.relay.app().live.subscriptions(), 0, "a refused request opens no subscription");
    retry_secs(&client.count_now("count", &[json!({})]).await.expect_err("COUNT pays as well"));
    retry_secs(&client.neg_ids_now(json!({})).await.expect_err("NEG-OPEN pays as well"));
    let mut other = world.client(&[]).await;
    retry_secs(&other.req_now("all", &[json!({"kinds": [1]})]).await.expect_err("an address has one budget"));
    world.relay.advance(secs);
    assert_eq!(client.req_now("all", &[json!({"kinds": [1]})]).await.expect("it is paid for").len(), 100);
    // A request that costs more than the whole budget ends within its pages, and never with an EOSE.
    world.relay.advance(60);
    let filters: Vec<Value> = (0..90).map(|n| json!({"kinds": [1], "until": 4_000_000_000_u64 + n})).collect();
    let reason = client.req_now("long", &filters).await.expect_err("the budget is used up in between");
    assert!(retry_secs(&reason) > 10, "the time after which as much is left again: {reason}");
    assert_eq!(world.relay.app().live.subscriptions(), 1, "the subscription before it is still open");
}

/// The key that the operator named pays alone: its address is used up by others, and it reads on.
#[tokio::test]
async fn a_named_key_reads_beside_an_address_that_is_used_up() {
    let alice = Keys::random();
    let world = World::alone(|config| {
        units_per_minute(5_000)(config);
        config.auth.pubkey_whitelist = vec![alice.public()];
    })
    .await;
    let mut alices = world.client(&[&alice]).await;
    let mut eves = world.client(&[]).await;
    let groups: Vec<String> = (0..900).map(|_| capability()).collect();
    retry_secs(&eves.req_now("h", &[json!({"#h": groups})]).await.expect_err("values are paid for"));
    assert_eq!(alices.req_now("all", &[json!({"kinds": [1]})]).await, Ok(Vec::new()));
}

#[tokio::test]
async fn a_count_that_costs_too_much_is_approximate() {
    let world = World::alone(|config| config.limitation.max_query_cost = 1_000).await;
    notes(&world.relay, 1, 600).await;
    notes(&world.relay, 7, 20).await;
    let mut client = world.client(&[]).await;
    client.send(&json!(["COUNT", "all", {"kinds": [1]}])).await;
    let frame = client.find(|frame| frame[1] == "all").await;
    assert_eq!(frame[0], "COUNT", "{frame}");
    assert_eq!(frame[2]["approximate"], true, "{frame}");
    let count = frame[2]["count"].as_u64().expect("a number");
    assert!((100..600).contains(&count), "a lower bound: {frame}");
    client.send(&json!(["COUNT", "few", {"kinds": [7]}])).await;
    let frame = client.find(|frame| frame[1] == "few").await;
    assert_eq!(frame, json!(["COUNT", "few", {"count": 20}]));
    let filters: Vec<Value> = (0..10).map(|n| json!({"kinds": [1], "until": 4_000_000_000_u64 + n})).collect();
    let reason = client.req_now("all", &filters).await.expect_err("a request is bounded as well");
    assert!(reason.starts_with("blocked: ") && reason.contains("narrow it by"), "{reason}");
    let (_, first) = empty_set();
    client.send(&json!(["NEG-OPEN", "neg", {"kinds": [1]}, first])).await;
    let frame = client.find(|frame| frame[1] == "neg").await;
    assert_eq!(frame[0], "NEG-ERR", "{frame}");
    assert!(frame[2].as_str().unwrap_or_default().contains("narrow it by"), "{frame}");
}

/// Bytes that are looked at and sent are paid for: a few answers of large events use up what hundreds of answers of
/// small ones leave, also where the client names the ids.
#[tokio::test]
async fn bytes_that_are_read_are_paid_for() {
    const UNITS: u32 = 60_000;
    let world = World::alone(units_per_minute(UNITS)).await;
    let by = Keys::random();
    let mut client = world.client(&[]).await;
    let mut ids = Vec::new();
    for n in 0..20 {
        let event = by.event(1).content(format!("{n}{}", "x".repeat(100_000))).sign();
        ids.push(event.id().to_owned());
        client.publish(&event).await.ok();
    }
    notes(&world.relay, 7, 20).await;
    for _ in 0..100 {
        assert_eq!(client.req_now("small", &[json!({"kinds": [7]})]).await.expect("it is paid for").len(), 20);
    }
    for filter in [json!({"kinds": [1]}), json!({"ids": ids})] {
        world.relay.advance(120);
        let mut answers = 0;
        let reason = loop {
            match client.req_now("large", std::slice::from_ref(&filter)).await {
                Ok(events) => assert_eq!(events.len(), 20),
                Err(reason) => break reason,
            }
            answers += 1;
            assert!(answers < 20, "nothing is refused");
        };
        assert!(retry_secs(&reason) > 0 && answers >= 5, "{answers} answers, then {reason}");
    }
}

/// A client's login, and the reading that follows, stay far below the built-in budget.
#[tokio::test]
async fn the_built_in_budget_lets_ordinary_clients_live() {
    let built_in = Config::default().mls_gateway.rate_limits.max_read_cost_per_minute;
    let world = World::alone(units_per_minute(built_in)).await;
    let ids = notes(&world.relay, 1, 300).await;
    let mut client = world.client(&[&Keys::random()]).await;
    // The emulator takes some hundred queries for a feed of 500 authors.
    let (logins, followed) = if backend::name() == "firestore" { (2, 20) } else { (50, 500) };
    let authors: Vec<String> = (0..followed).map(|_| Keys::random().hex()).collect();
    for n in 0..logins {
        let sub = format!("login{n}");
        client.req_now(&sub, &[json!({"kinds": [1]}), json!({"ids": ids, "limit": 10 + n})]).await.expect("a login");
        client
            .req_now("feed", &[json!({"authors": authors, "kinds": [1, 6, 7, 9_735, 30_023]})])
            .await
            .expect("a feed");
        client.req_now("feed", &[json!({"authors": authors})]).await.expect("a feed of every kind");
    }
}

/// Hostile filters over stored events of many tags: no page costs more than a page may, the request pays for each of
/// them, and ends at the bound of one request.
#[tokio::test]
async fn hostile_filters_over_stored_events_cost_what_was_paid() {
    /// Entries of a page, and what its last event and its ranges add.
    const PAGE_UNITS_MAX: u64 = 2_000 + 2_500 / 32 + EVENT_KIB_MAX + 2 + 256;
    /// KiB of an event of 2,400 tags, at most.
    const EVENT_KIB_MAX: u64 = 40;
    let directory = tempfile::tempdir().expect("a directory");
    let store = Observed::new(embedded(directory.path()));
    let relay =
        TestRelay::start_over(Arc::clone(&store) as _, |config| config.limitation.max_query_cost = 100_000).await;
    let letters: Vec<char> = ('a'..='z').chain('A'..='Z').filter(|letter| !"ephd".contains(*letter)).collect();
    let by = Keys::random();
    let mut client = Client::connect(&relay).await;
    for n in 0..40 {
        let tags = (0..2_400).map(|tag| (letters[tag % (letters.len() - 1)].to_string(), format!("{}", tag % 7)));
        let event = tags.fold(by.event(1).content(n.to_string()), |event, (name, value)| event.tag([name, value]));
        client.publish(&event.sign()).await.ok();
    }
    // Every letter is there but the last, so each event is walked and none fits.
    let hostile = |n: usize| {
        let mut filter: serde_json::Map<String, Value> =
            letters.iter().map(|letter| (format!("#{letter}"), json!(["0", "1", format!("x{n}")]))).collect();
        filter.insert("kinds".to_owned(), json!([1]));
        Value::Object(filter)
    };
    let filters: Vec<Value> = (0..100).map(hostile).collect();
    let request = Value::Array([json!("REQ"), json!("a")].into_iter().chain(filters.clone()).collect()).to_string();
    let reason = client.req_now("a", &filters).await.expect_err("the request costs too much");
    assert!(reason.starts_with("blocked: "), "{reason}");
    let pages = store.pages();
    let paid: u64 = pages.iter().map(|page| page.cost.units).sum();
    assert!((90_000..100_000 + PAGE_UNITS_MAX).contains(&paid), "{paid} units for {} bytes", request.len());
    // Each event that is walked costs 75 units for its tags: fewer than 100,000 units / 75 were.
    assert!(paid >= 75 * 40, "the tags are paid for");
    for page in &pages {
        assert!(page.cost.units <= PAGE_UNITS_MAX, "{page:?}");
    }
    // Other shapes: many values, many authors, many ids, many kinds; each page stays bounded.
    let hex: Vec<String> = (0..1_000).map(|n| format!("{n:064x}")).collect();
    let kinds: Vec<u16> = (5_000..6_000).collect();
    for filter in [
        json!({"#t": hex, "limit": 1}),
        json!({"authors": hex}),
        json!({"authors": hex, "kinds": kinds}),
        json!({"authors": &hex[..100], "kinds": &kinds[..100]}),
        json!({"ids": hex}),
        json!({"#h": hex}),
        json!({"kinds": kinds, "#p": hex}),
    ] {
        let before = store.pages().len();
        let answer = client.count_now("b", std::slice::from_ref(&filter)).await;
        assert!(answer.is_ok(), "{answer:?}");
        let pages = store.pages().split_off(before);
        assert!(pages.iter().all(|page| page.cost.units <= PAGE_UNITS_MAX), "{pages:?}");
        assert!(pages.len() >= 2, "a filter of many values is read in several pieces: {pages:?}");
    }
}

/// Values of `#h` that name no group are paid for, and no state is loaded for them.
#[tokio::test]
async fn unknown_groups_are_not_read_one_by_one() {
    let shared = Shared::new();
    let (store, link) = shared.instance();
    let relay = TestRelay::start_over(store, |_| {}).await;
    let mut client = Client::connect(&relay).await;
    let mut groups: Vec<String> = (0..900).map(|_| capability()).collect();
    client.publish(&message(&groups[7]).sign()).await.ok();
    groups.push("named".to_owned());
    let before = link.group_reads.load(Ordering::Relaxed);
    assert_eq!(client.count(&[json!({"#h": groups, "kinds": [445]})]).await, Ok(1));
    let loaded = link.group_reads.load(Ordering::Relaxed) - before;
    assert!(loaded <= 2, "{loaded} states were loaded for one group that is known");
}

/// Thirty connections of one address that read without end hold up a reader elsewhere by a turn or two a page.
#[tokio::test]
async fn thirty_readers_at_one_address_take_turns_with_one_elsewhere() {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Observed::new(embedded(directory.path()));
    let relay = TestRelay::start_over(Arc::clone(&store) as _, |config| {
        config.server.workers = 1;
        config.server.trusted_proxies = vec!["127.0.0.0/8".parse().expect("a range")];
        config.server.public_url = RelayUrl::parse("ws://127.0.0.1").ok();
    })
    .await;
    let long: Vec<Value> = (0..20).map(|n| json!({"kinds": [1], "until": 4_000_000_000_u64 + n})).collect();
    notes(&relay, 1, 520).await;
    notes(&relay, 7, 1_300).await;
    let mut crowd = Vec::new();
    for _ in 0..30 {
        let mut client = Client::connect_with(&relay, &[("x-forwarded-for", "203.0.113.1")]).await;
        let mut request = vec![json!("COUNT"), json!("crowd")];
        request.extend_from_slice(&long);
        client.send(&Value::Array(request)).await;
        crowd.push(client);
    }
    let mut guest = Client::connect_with(&relay, &[("x-forwarded-for", "203.0.113.2")]).await;
    while store.pages().len() < 100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(guest.count_now("guest", &[json!({"kinds": [7]})]).await, Ok(1_300));
    let pages = store.pages();
    let of_guest = |page: &ObservedPage| page.kind == Some(7);
    let first = pages.iter().position(of_guest).expect("the guest has read");
    let last = pages.iter().rposition(of_guest).expect("the guest has read");
    let own = pages.iter().filter(|page| of_guest(page)).count();
    let between = last - first + 1 - own;
    assert!(own >= 5, "the guest reads several pages: {own}");
    assert!(between > 0, "the crowd reads meanwhile");
    assert!(between <= 6 * own, "{between} pages of the crowd between {own} of the guest");
    for mut client in crowd {
        let frame = client.find(|frame| frame[1] == "crowd").await;
        assert_eq!(frame[2]["count"], 520, "{frame}");
    }
}
