//! Queries: order, pages, scope and the ranges of the index.

use nostr_extensions::{Query, Scope};
use nostr_protocol::EventId;

use super::world::{
    START, WIDE, World, capability, event, everyone, filter, for_groups, for_keys, group, id_of, key, message, new,
    roster, wrap,
};
use crate::{Cursor, PageBounds, parts};

async fn many(w: &World, count: u64) -> Vec<EventId> {
    let mut batch = Vec::new();
    for n in 0..count {
        let by = ["alice", "bob", "carol"][n as usize % 3];
        let kind = [1, 7, 30_023][n as usize % 3];
        // Three events share a second, so that ids decide. The tags put one event into several ranges.
        let event = event(kind, &n.to_string()).at(START - n / 3).tag(&["d", &n.to_string()]);
        batch.push(w.admitted(&event.tag(&["t", "all"]).tag(&["t", &format!("t{}", n % 4)]), by).await);
    }
    let mut sealed: Vec<_> = w.save(batch).await.into_iter().map(new).collect();
    sealed.sort_by_key(nostr_extensions::Sealed::position);
    sealed.iter().map(id_of).collect()
}

pub async fn answers_come_newest_first_then_by_lowest_id(w: &World) {
    let all = many(w, 40).await;
    for query in ["{}", r##"{"#t":["all"]}"##, r#"{"kinds":[1,7,30023]}"#, r#"{"since":0}"#] {
        assert_eq!(w.find(query, everyone()).await, all, "{query}");
    }
    let by_ids = serde_json::json!({ "ids": all.iter().map(EventId::to_hex).collect::<Vec<_>>() }).to_string();
    assert_eq!(w.find(&by_ids, Scope::default()).await, all);
}

pub async fn an_event_comes_once_though_several_ranges_hold_it(w: &World) {
    let all = many(w, 40).await;
    assert_eq!(w.find(r##"{"#t":["all","t0","t1","t2","t3"]}"##, everyone()).await, all);
}

pub async fn pages_of_any_size_add_up_to_the_whole(w: &World) {
    let all = many(w, 40).await;
    let narrow = r##"{"#t":["t1"],"#d":["1","5","9","13","17","39"]}"##;
    let some = w.find(narrow, everyone()).await;
    assert!(some.len() == 5, "{}", some.len());
    for (events_max, bytes_max, entries_max) in
        [(1, WIDE.bytes_max, 1), (3, 1_000, 7), (7, 1, 1_000), (100, WIDE.bytes_max, 2), (100, 2_000, 1)]
    {
        let bounds = PageBounds { events_max, bytes_max, entries_max, ..WIDE };
        for (query, whole) in [("{}", &all), (r##"{"#t":["all","t0"]}"##, &all), (narrow, &some)] {
            let query = Query { filter: filter(query), scope: everyone() };
            assert_eq!(w.pages(&query, bounds, START).await, *whole, "{bounds:?}");
        }
        let ids = serde_json::json!({ "ids": all.iter().map(EventId::to_hex).collect::<Vec<_>>() }).to_string();
        let query = Query { filter: filter(&ids), scope: everyone() };
        assert_eq!(w.pages(&query, bounds, START).await, all, "{bounds:?}");
    }
}

pub async fn a_page_stays_within_its_bounds(w: &World) {
    let all = many(w, 12).await;
    let query = Query { filter: filter("{}"), scope: everyone() };
    let (events, next) = w.page(&query, None, Cursor::MAX, PageBounds { events_max: 5, ..WIDE }, START).await;
    assert_eq!(events, all[..5]);
    assert_eq!(next.map(|next| next.id), Some(all[4]));
    let (events, _) = w.page(&query, next, Cursor::MAX, PageBounds { bytes_max: 1, ..WIDE }, START).await;
    assert_eq!(events, all[5..6], "the event that reaches the bound is the last");
    let (events, next) = w.page(&query, None, Cursor::MAX, WIDE, START).await;
    assert_eq!((events.len(), next), (12, None));
}

pub async fn nothing_committed_after_the_given_cursor_is_found(w: &World) {
    let first = new(w.publish(&event(1, "one"), "alice").await);
    let second = new(w.publish(&event(1, "two").at(START - 1), "alice").await);
    for json in ["{}".to_owned(), format!(r#"{{"ids":["{}","{}"]}}"#, id_of(&first), id_of(&second))] {
        let query = Query { filter: filter(&json), scope: everyone() };
        let (events, _) = w.page(&query, None, first.cursor(), WIDE, START).await;
        assert_eq!(events, [id_of(&first)]);
        let (events, _) = w.page(&query, None, first.cursor() - 1, WIDE, START).await;
        assert_eq!(events, []);
    }
}

pub async fn since_and_until_are_inclusive(w: &World) {
    let mut ids = Vec::new();
    for n in 0..5 {
        ids.push(id_of(&new(w.publish(&event(1, &n.to_string()).at(START - n), "alice").await)));
    }
    let query = format!(r#"{{"since":{},"until":{}}}"#, START - 3, START - 1);
    assert_eq!(w.find(&query, everyone()).await, ids[1..4]);
    assert_eq!(w.find(&query.replace('{', r#"{"kinds":[1],"#), everyone()).await, ids[1..4]);
    let author = key("alice");
    let query = query.replace('{', &format!(r#"{{"authors":["{author}"],"#));
    assert_eq!(w.find(&query, everyone()).await, ids[1..4]);
    assert_eq!(w.find(&format!(r#"{{"since":{START},"until":0}}"#), everyone()).await, []);
}

pub async fn authors_are_found_with_and_without_kinds(w: &World) {
    let mut by_alice = Vec::new();
    for (n, kind) in [1, 6, 7, 1_984, 0, 30_023, 40_000, 1].into_iter().enumerate() {
        let at = START - n as u64;
        by_alice.push(id_of(&new(w.publish(&event(kind, &n.to_string()).at(at), "alice").await)));
        new(w.publish(&event(kind, &n.to_string()).at(at), "bob").await);
    }
    let alice = key("alice");
    assert_eq!(w.find(&format!(r#"{{"authors":["{alice}"]}}"#), everyone()).await, by_alice);
    let ones = w.find(&format!(r#"{{"authors":["{alice}"],"kinds":[1]}}"#), everyone()).await;
    assert_eq!(ones, [by_alice[0], by_alice[7]]);
    let both = format!(r#"{{"authors":["{alice}","{}"],"kinds":[7]}}"#, key("bob"));
    assert_eq!(w.find(&both, everyone()).await.len(), 2);
    assert_eq!(w.find(r#"{"authors":[]}"#, everyone()).await, []);
}

pub async fn every_condition_of_a_filter_counts(w: &World) {
    let target = key("bob").to_hex();
    let both = event(1, "both").tag(&["p", &target]).tag(&["t", "x"]);
    let both = id_of(&new(w.publish(&both, "alice").await));
    new(w.publish(&event(1, "p alone").tag(&["p", &target]), "alice").await);
    new(w.publish(&event(1, "t alone").tag(&["t", "x"]), "alice").await);
    assert_eq!(w.find(&format!(r##"{{"#p":["{target}"],"#t":["x","y"]}}"##), everyone()).await, [both]);
    assert_eq!(w.find(&format!(r##"{{"#p":["{target}"],"#T":["x"]}}"##), everyone()).await, []);
}

pub async fn private_events_are_found_under_their_audience_alone(w: &World) {
    let to_bob = w.send(&wrap("bob", "secret"), "throw-away", "alice").await;
    let dm = event(4, "dm").tag(&["p", &key("bob").to_hex()]).at(START - 1);
    let dm = id_of(&new(w.publish(&dm, "alice").await));
    new(w.publish(&roster("grp", 1, "bootstrap", &["alice"]), "admin").await);
    let talk = w.send(&message("grp", "talk").at(START - 2), "throw-away", "alice").await;
    assert_eq!(w.find("{}", everyone()).await, []);
    assert_eq!(w.find(&format!(r##"{{"#p":["{}"]}}"##, key("bob")), everyone()).await, []);
    assert_eq!(w.find("{}", for_keys(&["bob"])).await, [to_bob, dm]);
    assert_eq!(w.find("{}", for_keys(&["alice"])).await, [dm], "a kind 4 is its author's as well");
    assert_eq!(w.find(r#"{"kinds":[445]}"#, for_groups(&["grp"])).await, [talk]);
    assert_eq!(w.find(r#"{"kinds":[445]}"#, for_groups(&["other"])).await, []);
    let whole = Scope { everyone: true, keys: vec![key("bob")], groups: vec![group("grp")], all_rosters: false };
    assert_eq!(w.find("{}", whole).await.len(), 4);
    assert_eq!(w.find(&format!(r#"{{"ids":["{talk}"]}}"#), Scope::default()).await, [talk], "an id needs no scope");
}

pub async fn all_rosters_are_found_without_naming_groups(w: &World) {
    let one = id_of(&new(w.publish(&roster("one", 1, "bootstrap", &["alice"]), "admin").await));
    let two = id_of(&new(w.publish(&roster("two", 1, "bootstrap", &["alice"]).at(START - 1), "admin").await));
    w.send(&message("one", "talk"), "throw-away", "alice").await;
    let scope = Scope { all_rosters: true, ..Scope::default() };
    assert_eq!(w.find("{}", scope.clone()).await, [one, two]);
    assert_eq!(w.find(r#"{"kinds":[450]}"#, scope.clone()).await, [one, two]);
    assert_eq!(w.find(r##"{"#h":["two"]}"##, scope.clone()).await, [two]);
    assert_eq!(w.find(r#"{"kinds":[445]}"#, scope.clone()).await, []);
    let admin_and_member = Scope { groups: vec![group("one")], ..scope };
    assert_eq!(w.find(r#"{"kinds":[450]}"#, admin_and_member.clone()).await, [one, two]);
    assert_eq!(w.find("{}", admin_and_member).await.len(), 3);
}

pub async fn a_reader_of_many_groups_finds_them_merged(w: &World) {
    let mut batch = Vec::new();
    let ids: Vec<String> = (0..200).map(|n| capability(&format!("room {n}"))).collect();
    for (n, id) in ids.iter().enumerate() {
        for at in [n, 500 - n] {
            let event = message(id, &at.to_string()).at(START - at as u64);
            batch.push(w.admitted(&event, "alice").await);
        }
    }
    let mut sealed: Vec<_> = w.save(batch).await.into_iter().map(new).collect();
    sealed.sort_by_key(nostr_extensions::Sealed::position);
    let all: Vec<EventId> = sealed.iter().map(id_of).collect();
    let groups: Vec<&str> = ids.iter().map(String::as_str).collect();
    let query = Query { filter: filter(r#"{"kinds":[445]}"#), scope: for_groups(&groups) };
    assert_eq!(w.pages(&query, PageBounds { events_max: 70, ..WIDE }, START).await, all);
    let named = Query { filter: filter(&format!(r##"{{"#h":["{}"]}}"##, ids[7])), scope: for_groups(&groups) };
    assert_eq!(w.pages(&named, WIDE, START).await.len(), 2);
}

/// Every part of a query costs a bounded number of units, however many values the query has, and the parts together
/// find what the whole query finds.
pub async fn a_request_of_many_values_is_read_in_bounded_pieces(w: &World) {
    const RANGES_MAX: usize = 32;
    let all = many(w, 12).await;
    new(w.publish(&roster("grp", 1, "bootstrap", &["alice"]), "admin").await);
    let talk = w.send(&message("grp", "talk").at(START - 9), "throw-away", "alice").await;
    let values = |n: usize| (0..n).map(|n| format!("{n:064x}")).collect::<Vec<_>>();
    let with = |n: usize, real: &[String]| [values(n), real.to_vec()].concat();
    let authors = ["alice", "bob", "carol"].map(|name| key(name).to_hex());
    let ids: Vec<String> = all.iter().map(EventId::to_hex).collect();
    let groups: Vec<String> = (0..300).map(|n| format!("group-{n}")).collect();
    let named = [&groups[..], &["grp".to_owned()]].concat();
    let of_groups = Scope {
        groups: groups.iter().map(|id| group(id)).chain([group("grp")]).collect(),
        keys: ["alice", "bob"].map(key).to_vec(),
        ..Scope::default()
    };
    let rosters = Scope { all_rosters: true, ..Scope::default() };
    let cases = [
        (serde_json::json!({"#t": with(300, &["t1".into(), "t2".into()])}), everyone(), 6),
        (serde_json::json!({"authors": with(300, &authors)}), everyone(), 12),
        (serde_json::json!({"authors": with(300, &authors), "kinds": [1, 7, 30_023, 6, 8]}), everyone(), 12),
        (serde_json::json!({"authors": with(300, &authors), "kinds": (0..100).collect::<Vec<_>>()}), everyone(), 8),
        (serde_json::json!({"kinds": (0..300).collect::<Vec<_>>()}), everyone(), 8),
        (serde_json::json!({"ids": with(300, &ids)}), Scope::default(), 12),
        (serde_json::json!({}), of_groups.clone(), 1),
        (serde_json::json!({"#h": named}), of_groups, 1),
        (serde_json::json!({"#h": named, "kinds": [450]}), rosters, 1),
    ];
    for (case, (json, scope, found)) in cases.into_iter().enumerate() {
        let query = Query { filter: filter(&json.to_string()), scope };
        let whole = w.pages(&query, WIDE, START).await;
        assert!(whole.len() >= found, "case {case}: {}", whole.len());
        let parts = parts(&query, RANGES_MAX);
        assert!(parts.len() > 1, "case {case}");
        let mut merged = Vec::new();
        for part in parts {
            let bounds = PageBounds { part, ..WIDE };
            let page = w.store.scan(&query, None, Cursor::MAX, bounds, START).await.expect("a page");
            // Each range costs its opening, and each of the few events an entry in some ranges, itself, a document.
            assert!(page.cost.units <= (RANGES_MAX + 15 * 12) as u64, "case {case}: {:?}", page.cost);
            assert!(page.next.is_none());
            merged.extend(page.events.iter().map(nostr_extensions::Sealed::position));
        }
        merged.sort_unstable();
        merged.dedup();
        assert_eq!(merged.iter().map(|position| position.id).collect::<Vec<_>>(), whole, "case {case}");
    }
    let few = Query { filter: filter(r##"{"#t":["t1","t2"]}"##), scope: everyone() };
    assert_eq!(parts(&few, RANGES_MAX).len(), 1, "a query of few ranges is read as one");
    assert_eq!(w.find(r#"{"kinds":[445]}"#, for_groups(&["grp"])).await, [talk]);
}

pub async fn groups_that_are_known_are_told_from_those_that_are_not(w: &World) {
    let (unlisted, unknown) = (capability("unlisted"), capability("unknown"));
    new(w.publish(&roster("managed", 1, "bootstrap", &["alice"]), "admin").await);
    w.send(&message(&unlisted, "talk"), "throw-away", "alice").await;
    let mut asked: Vec<_> = (0..70).map(|n| group(&format!("none-{n}"))).collect();
    asked.extend([&unlisted, &unknown].map(|id| group(id)));
    asked.push(group("managed"));
    let known = w.store.known_groups(&asked).await.expect("an answer");
    assert_eq!(known, [group(&unlisted), group("managed")]);
    assert_eq!(w.store.known_groups(&[]).await.expect("an answer"), []);
}
