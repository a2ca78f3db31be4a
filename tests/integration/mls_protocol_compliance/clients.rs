//! Requests and events as unchanged clients of other projects send them: long feeds, many ids, pages, reposts, faults.
//!
//! Source: docs/rules.md, "Answers to clients"; NIP-01, 18, 67, 70 and 77.

use serde_json::{Value, json};

use super::{World, rate_limits::taken};
use crate::support::{
    Client, Event, Keys,
    gateway::{message, wrap},
};

/// A repost that embeds an event with a `-` tag is refused, for both kinds of repost and whoever sends it. A repost of
/// any other event, or by an id alone, is stored.
#[tokio::test]
async fn a_repost_of_a_protected_event_is_refused() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    let mut client = world.client(&[&alice, &bob]).await;
    let protected = alice.event(1).tag(["t", "x"]).tag(["-"]).sign();
    let bare = alice.event(1).content("-").sign();
    let mut marked = bare.clone();
    marked.0["tags"] = json!([["t", "-"], ["-"]]);
    for kind in [6, 16] {
        for embedded in
            [protected.0.to_string(), marked.0.to_string(), marked.0.to_string().replace("-\"]]", "\\u002d\"]]")]
        {
            let repost = bob.event(kind).tag(["e", protected.id()]).content(&embedded).sign();
            let reason = client.publish(&repost).await.refused("blocked").to_owned();
            assert!(reason.contains("NIP-70"), "{reason}");
        }
        for content in [String::new(), bare.0.to_string(), "[[\"-\"]]".to_owned()] {
            client.publish(&bob.event(kind).tag(["e", bare.id()]).content(&content).sign()).await.ok();
        }
    }
    client.publish(&bob.event(1).content(marked.0.to_string()).sign()).await.ok();
}

/// A negentropy message that breaks off is answered with `NEG-ERR`, at the opening and later. It is never answered as
/// if both sets were equal.
#[tokio::test]
async fn a_cut_off_negentropy_message_gets_neg_err() {
    let world = World::new().await;
    let alice = Keys::random();
    let mut client = world.client(&[]).await;
    client.publish(&alice.event(1).sign()).await.ok();
    let filter = json!({"kinds": [1]});
    for broken in ["61ff", "6101", "610000", "", "61000002", "6100000201"] {
        client.send(&json!(["NEG-OPEN", "n", filter, broken])).await;
        let answer = client.recv().await;
        assert_eq!((&answer[0], &answer[1]), (&json!("NEG-ERR"), &json!("n")), "{broken}: {answer}");
        assert!(answer[2].as_str().is_some_and(|reason| reason.starts_with("invalid: ")), "{answer}");
    }
    client.send(&json!(["NEG-OPEN", "n", filter, "6100000200"])).await;
    assert_eq!(client.recv().await[0], "NEG-MSG");
    client.send(&json!(["NEG-MSG", "n", "61ff"])).await;
    assert_eq!(client.recv().await[0], "NEG-ERR");
    assert_eq!(client.neg_ids(filter).await.map(|ids| ids.len()), Ok(1));
}

/// The feed of a client that follows 2,076 authors, in 139 KB, is served in one filter, as is one of 8,000 authors.
#[tokio::test]
async fn a_feed_of_thousands_of_authors_is_served() {
    let world = World::new().await;
    let alice = Keys::random();
    let mut client = world.client(&[]).await;
    let note = alice.event(1).sign();
    client.publish(&note).await.ok();
    for followed in [2_076, 8_000, 10_000] {
        let mut authors: Vec<String> = (1..followed).map(|n| format!("{n:064x}")).collect();
        authors.push(alice.hex());
        let filter = json!({"kinds": [1, 6], "authors": authors, "limit": 100});
        assert_eq!(client.req("feed", std::slice::from_ref(&filter)).await, Ok(vec![note.clone()]), "{followed}");
        assert_eq!(client.count(&[filter]).await, Ok(1), "{followed}");
    }
}

/// A filter of 700 ids without a `limit` gets 700 events. With a `limit` it gets as many, and `max_limit` holds.
#[tokio::test]
async fn ids_without_a_limit_are_all_answered() {
    let world = World::new().await;
    let alice = Keys::random();
    let now = world.relay.now();
    let events: Vec<Event> = (0..700).map(|n| alice.event(1).created_at(now - n).sign()).collect();
    let mut client = world.client(&[]).await;
    for answer in client.publish_all(&events).await {
        answer.ok();
    }
    let ids: Vec<&str> = events.iter().map(Event::id).collect();
    assert_eq!(client.ids(json!({"ids": ids})).await.map(|found| found.len()), Ok(700));
    assert_eq!(client.ids(json!({"ids": ids, "limit": 3})).await.map(|found| found.len()), Ok(3));
    assert_eq!(client.ids(json!({"ids": ids, "limit": 700})).await.map(|found| found.len()), Ok(500));
}

/// A filter with a key that the relay does not know is answered with `unsupported:`, as NIP-01 says, by each request.
#[tokio::test]
async fn an_unknown_filter_key_is_answered_as_unsupported() {
    let world = World::new().await;
    let mut client = world.client(&[]).await;
    for filter in [json!({"search": "x"}), json!({"kinds": [1], "&t": ["x"]})] {
        let filters = std::slice::from_ref(&filter);
        for reason in [
            client.req("x", filters).await.expect_err("refused"),
            client.count(filters).await.expect_err("refused"),
            client.neg_ids(filter.clone()).await.expect_err("refused"),
        ] {
            assert!(reason.starts_with("unsupported: filter key"), "{reason}");
        }
    }
    let reason = client.req("x", &[json!({"kinds": ["1"]})]).await.expect_err("refused");
    assert!(reason.starts_with("invalid: "), "{reason}");
}

/// A 445 to a group that was never founded is refused by a text that names both causes, the same as for a group whose
/// member the reader is not.
#[tokio::test]
async fn a_message_to_a_group_never_founded_is_told_both_causes() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    world.group("grp_a", &[&alice]).await;
    let mut client = world.client(&[&bob]).await;
    let reason = client.publish(&message("grp_never").sign()).await.refused("restricted").to_owned();
    assert!(reason.contains("not founded") && reason.contains("no member"), "{reason}");
    assert_eq!(client.publish(&message("grp_a").sign()).await.refused("restricted"), reason);
}

/// The stored events of a REQ, and the hint of its EOSE.
async fn page(client: &mut Client, filters: &[Value]) -> (Vec<Event>, Option<String>) {
    let mut request = vec![json!("REQ"), json!("page")];
    request.extend_from_slice(filters);
    client.send(&Value::Array(request)).await;
    let mut events = Vec::new();
    loop {
        let frame = client.recv().await;
        assert_eq!(frame[1], "page", "{frame}");
        if frame[0] == "EVENT" {
            events.push(Event(frame[2].clone()));
            continue;
        }
        assert_eq!(frame[0], "EOSE", "{frame}");
        assert!(frame.as_array().is_some_and(|frame| frame.len() < 4));
        return (events, frame[2][0].as_str().map(str::to_owned));
    }
}

/// Pages by `until` give each of 620 events of one second, and those before and after it. The relay's own bound does
/// not end an answer inside a second; the client's `limit` does. Each EOSE tells whether the answer is complete
/// (NIP-67).
#[tokio::test]
async fn pages_by_until_give_every_event_of_a_second() {
    let world = World::new().await;
    let alice = Keys::random();
    let now = world.relay.now();
    let at = |at: u64, count: usize| {
        let alice = &alice;
        (0..count).map(move |n| alice.event(1).created_at(at).content(format!("{at} {n}")).sign())
    };
    let events: Vec<Event> = at(now, 30).chain(at(now - 1, 620)).chain(at(now - 2, 3)).collect();
    let mut client = world.client(&[]).await;
    for answer in client.publish_all(&events).await {
        answer.ok();
    }
    world.relay.caught_up().await;
    let (mut found, mut until, mut hints) = (Vec::new(), now, Vec::new());
    while until > 0 {
        let (events, hint) = page(&mut client, &[json!({"kinds": [1], "until": until})]).await;
        until = events.last().and_then(|event| event.0["created_at"].as_u64()).unwrap_or(0).saturating_sub(1);
        hints.extend(hint.clone());
        found.extend(events.iter().map(|event| event.id().to_owned()));
        if hint.as_deref() == Some("finish") {
            break;
        }
    }
    assert_eq!(hints, ["more", "finish"]);
    found.sort_unstable();
    let mut all: Vec<&str> = events.iter().map(Event::id).collect();
    all.sort_unstable();
    assert_eq!(found, all);
    for (limit, given, hint) in [(560, 560, "more"), (5_000, 650, "more"), (30, 30, "more"), (1, 1, "more")] {
        let (events, told) = page(&mut client, &[json!({"kinds": [1], "limit": limit})]).await;
        assert_eq!((events.len(), told.as_deref()), (given, Some(hint)), "limit {limit}");
    }
}

/// EOSE says `finish` where every event that matches was sent, `more` where another one is held, and nothing where the
/// relay did not look. Events that the reader may not see are neither sent nor hinted at.
#[tokio::test]
async fn eose_says_whether_the_answer_is_complete() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    let now = world.relay.now();
    let notes: Vec<Event> = (0..3).map(|n| alice.event(1).created_at(now - n).sign()).collect();
    let hidden = (0..5).map(|n| alice.event(4).tag(["p", &bob.hex()]).created_at(now - 10 - n).sign());
    let mut client = world.client(&[]).await;
    for answer in client.publish_all(&notes.iter().cloned().chain(hidden).collect::<Vec<_>>()).await {
        answer.ok();
    }
    world.relay.caught_up().await;
    let of = |limit: u64| json!({"authors": [alice.hex()], "limit": limit});
    let ids: Vec<&str> = notes.iter().map(Event::id).collect();
    for (filters, given, hint) in [
        (vec![json!({"authors": [alice.hex()]})], 3, Some("finish")),
        (vec![of(3)], 3, Some("finish")),
        (vec![of(2)], 2, Some("more")),
        (vec![of(0)], 0, None),
        (vec![json!({"authors": [bob.hex()]})], 0, Some("finish")),
        (vec![json!({"ids": ids})], 3, Some("finish")),
        (vec![json!({"ids": ids, "limit": 1})], 1, Some("more")),
        (vec![json!({"ids": []})], 0, Some("finish")),
        (vec![of(1), of(2)], 3, None),
        (vec![of(1), of(1)], 2, Some("more")),
        (vec![of(1), json!({"ids": [ids[1], ids[2]]})], 3, None),
    ] {
        let (events, told) = page(&mut client, &filters).await;
        assert_eq!((events.len(), told.as_deref()), (given, hint), "{filters:?}");
    }
    let mut bobs = world.client(&[&bob]).await;
    assert_eq!(page(&mut bobs, &[of(3)]).await.1.as_deref(), Some("more"), "the reader sees the direct messages");
}

/// The challenge goes out again before each `auth-required:`, the same each time, while the connection has no key, and
/// never after AUTH.
#[tokio::test]
async fn the_challenge_comes_again_before_each_auth_required() {
    let world = World::new().await;
    let [alice, bob] = Keys::some();
    world.group("grp_a", &[&alice]).await;
    let mut client = world.client(&[]).await;
    let challenge = json!(["AUTH", client.challenge]);
    let filter = json!({"kinds": [1059]});
    let protected = bob.event(1).tag(["-"]).sign();
    let refused = [
        (json!(["REQ", "a", filter]), "CLOSED"),
        (json!(["COUNT", "a", filter]), "CLOSED"),
        (json!(["NEG-OPEN", "a", filter, "6100000200"]), "NEG-ERR"),
        (json!(["EVENT", protected.0]), "OK"),
        (json!(["EVENT", message("grp_a").sign().0]), "OK"),
    ];
    for (frame, answer) in &refused {
        client.send(frame).await;
        assert_eq!(client.recv().await, challenge, "{frame}");
        let said = client.recv().await;
        assert_eq!(said[0], *answer, "{said}");
        assert!(said.to_string().contains("\"auth-required: "), "{said}");
    }
    client.send(&json!(["REQ", "a", {"kinds": ["x"]}])).await;
    assert_eq!(client.recv().await[0], "CLOSED", "no AUTH helps a malformed request");
    client.auth(&alice).await.ok();
    client.publish(&protected).await.refused("restricted");
    client.send(&refused[0].0).await;
    assert_eq!(client.recv().await[0], "EOSE");
    client.expect_nothing().await;
}

/// A login and one message to 80 members: 95 events, then a gift wrap to each member and one to the sender itself. None
/// is refused, since the burst holds them, and NIP-11 tells the burst.
#[tokio::test]
async fn a_login_and_a_message_to_eighty_members_fit_into_the_burst() {
    let world = World::alone(|config| {
        let rates = nostr_relay::config::Config::default().mls_gateway.rate_limits;
        config.mls_gateway.rate_limits = rates;
    })
    .await;
    let alice = Keys::random();
    let mut client = world.client(&[&alice]).await;
    let login: Vec<Event> = (0..95).map(|n| alice.event(1).content(n.to_string()).sign()).collect();
    let wraps: Vec<Event> = (0..81).map(|_| wrap(&Keys::random()).sign()).collect();
    assert_eq!(taken(&client.publish_all(&[login, wraps].concat()).await), 95 + 81);
    let document = crate::support::http(world.relay.address, "GET /", &[("accept", "application/nostr+json")]).await;
    let document: Value = serde_json::from_str(&document.body).expect("JSON");
    let rates = &document["limitation"]["rate_limits"];
    assert_eq!(rates["events"], json!({"number": 100, "period_secs": 60, "burst": 200}), "{rates}");
}
