//! Storing, the log, expiry, and replacement by address.

use nostr_extensions::{gate::Touches, route::Condition};
use nostr_protocol::{Kind, testing::keypair};

use super::world::{
    START, World, capability, claim_of, deletion, event, everyone, for_keys, id_of, key, message, new, roster, wrap,
};
use crate::{Cursor, LogPage, Saved};

pub async fn what_is_stored_is_found_and_held(w: &World) {
    let sealed = new(w.publish(&event(1, "hello"), "alice").await);
    let id = id_of(&sealed);
    assert!(w.holds(id).await);
    assert_eq!(w.find(r#"{"kinds":[1]}"#, everyone()).await, [id]);
    assert_eq!(w.store.head(), sealed.cursor());
    assert_eq!(w.store.stats().await.expect("stats").events, 1);
    assert!(w.store.save(Vec::new()).await.is_empty());
}

pub async fn an_event_is_stored_once_in_one_batch_and_later(w: &World) {
    let hello = w.admitted(&event(1, "hello"), "alice").await;
    let saved = w.save(vec![hello.clone(), hello.clone()]).await;
    assert!(matches!(saved[..], [Saved::New(_), Saved::Duplicate]), "{saved:?}");
    assert!(matches!(w.save(vec![hello]).await[..], [Saved::Duplicate]));
    assert_eq!(w.find("{}", everyone()).await.len(), 1);
}

pub async fn cursors_rise_in_the_order_of_the_batch(w: &World) {
    let mut batch = Vec::new();
    for n in 0..20 {
        batch.push(w.admitted(&event(1, &n.to_string()).at(START - n), "alice").await);
    }
    let before = w.store.head();
    let cursors: Vec<_> = w.save(batch).await.into_iter().map(|saved| new(saved).cursor()).collect();
    assert!(cursors.is_sorted_by(|a, b| a < b) && cursors[0] > before, "{cursors:?}");
    let log = w.store.after(before, 100).await.expect("the log");
    assert_eq!(places(&log), cursors);
    assert!(log.through >= cursors[19] && log.is_head);
    let part = w.store.after(cursors[4], 3).await.expect("the log");
    assert_eq!(places(&part), cursors[5..8]);
    assert_eq!(part.through, cursors[7], "a full page goes as far as its last entry");
    assert!(!part.is_head);
    let mut read = before;
    for _ in 0..20 {
        let page = w.store.after(read, 4).await.expect("the log");
        assert!(page.is_head || page.through > read, "who reads on comes to an end");
        read = page.through;
        if page.is_head {
            break;
        }
    }
    assert!(read >= cursors[19], "what is said to be the head is the head");
    assert!(w.store.after(log.through, 10).await.expect("the log").entries.is_empty());
}

fn places(log: &LogPage) -> Vec<Cursor> {
    log.entries.iter().map(|entry| entry.cursor).collect()
}

pub async fn what_is_in_the_log_is_fetched_by_its_place(w: &World) {
    let stored = [new(w.publish(&event(1, "a"), "alice").await), new(w.publish(&event(1, "b"), "alice").await)];
    let [a, b] = [0, 1].map(|n| stored[n].cursor());
    let fetched = w.store.events_at(&[b, a]).await.expect("the events");
    assert_eq!(
        fetched.iter().map(|it| (it.cursor(), id_of(it))).collect::<Vec<_>>(),
        [(a, id_of(&stored[0])), (b, id_of(&stored[1]))]
    );
    new(w.publish(&deletion(&[id_of(&stored[0])]), "alice").await);
    let fetched = w.store.events_at(&[a, b]).await.expect("the events");
    assert_eq!(fetched.iter().map(id_of).collect::<Vec<_>>(), [id_of(&stored[1])]);
}

pub async fn the_log_leads_to_the_subscriptions_that_wait(w: &World) {
    let route_hasher = w.store.route_hasher();
    let routes = async |w: &World, sealed: &nostr_extensions::Sealed| {
        let log = w.store.after(0, 100).await.expect("the log");
        let entry = log.entries.into_iter().find(|entry| entry.cursor == sealed.cursor()).expect("its entry");
        assert_eq!(entry.group.as_ref(), sealed.group());
        assert_eq!(entry.kind, sealed.kind());
        entry.routes
    };
    let note = new(w.publish(&event(1, "note").tag(&["t", "topic"]), "alice").await);
    let found = routes(w, &note).await;
    let by = |condition| route_hasher.hash(condition);
    for condition in [
        Condition::Id(id_of(&note)),
        Condition::Author(key("alice")),
        Condition::Tag(b't', "topic"),
        Condition::Kind(nostr_protocol::Kind(1)),
        Condition::Everything,
    ] {
        assert!(found.contains(&by(condition)), "{condition:?}");
    }
    let wrapped = new(w.publish(&wrap("bob", "hello"), "alice").await);
    let found = routes(w, &wrapped).await;
    assert!(found.contains(&by(Condition::Inbox(key("bob")))));
    assert!(!found.contains(&by(Condition::Everything)) && !found.contains(&by(Condition::Kind(Kind::GIFT_WRAP))));
    assert_eq!(found, route_hasher.routes(&wrapped));
}

pub async fn an_ephemeral_event_gets_a_cursor_and_is_not_kept(w: &World) {
    let first = new(w.publish(&event(1, "kept"), "alice").await);
    let passing = new(w.publish(&event(20_001, "passing"), "alice").await);
    assert!(passing.cursor() > first.cursor());
    assert_eq!(w.store.head(), passing.cursor());
    assert!(!w.holds(id_of(&passing)).await);
    // Only a shared store has it in its log.
    let log = w.store.after(first.cursor(), 10).await.expect("the log");
    assert!(log.through >= passing.cursor());
    assert_eq!(log.entries.len(), usize::from(w.store.notifications().is_some()));
    let places: Vec<_> = log.entries.iter().map(|entry| entry.cursor).collect();
    let fetched = w.store.events_at(&places).await.expect("the events");
    assert!(fetched.iter().all(|sealed| id_of(sealed) == id_of(&passing)) && fetched.len() == places.len());
    assert!(new(w.publish(&event(1, "after"), "alice").await).cursor() > passing.cursor());
}

pub async fn what_is_for_the_log_alone_is_found_by_no_query_and_known_as_a_duplicate(w: &mut World) {
    w.policy.archive_secs = None;
    let h = capability("room");
    let sent = w.send(&message(&h, "hi"), "throw-away", "alice").await;
    let scope = super::world::for_groups(&[&h]);
    assert!(w.find(&format!(r##"{{"#h":["{h}"]}}"##), scope.clone()).await.is_empty());
    assert!(w.find(&format!(r#"{{"ids":["{sent}"]}}"#), scope).await.is_empty());
    assert!(w.holds(sent).await);
    assert_eq!(w.store.after(0, 10).await.expect("the log").entries.len(), 1);
    let again = w.try_admit(message(&h, "hi").sign(&keypair("throw-away")), &["alice"], START).await;
    assert!(matches!(w.save(vec![again.expect("admitted")]).await[..], [Saved::Duplicate]));
    assert_eq!(w.sweep(START + 3_600).await, 1, "the log is short-lived");
    assert!(!w.holds(sent).await);
}

pub async fn what_has_expired_is_not_found_and_then_swept(w: &World) {
    let expiration = (START + 100).to_string();
    let soon = id_of(&new(w.publish(&event(1, "soon").tag(&["expiration", &expiration]), "alice").await));
    let kept = id_of(&new(w.publish(&event(1, "kept"), "alice").await));
    let by_id = format!(r#"{{"ids":["{soon}"]}}"#);
    assert_eq!(w.find_at(START + 99, &by_id, everyone()).await, [soon]);
    assert_eq!(w.sweep(START + 99).await, 0);
    assert!(w.find_at(START + 100, &by_id, everyone()).await.is_empty());
    assert_eq!(w.find_at(START + 100, r#"{"kinds":[1]}"#, everyone()).await, [kept]);
    assert_eq!(w.sweep(START + 100).await, 1);
    assert!(!w.holds(soon).await && w.holds(kept).await);
    assert_eq!(w.store.stats().await.expect("stats").events, 1);
}

/// An event that has expired and is not swept yet is as good as absent: it is stored anew, and found again.
pub async fn an_expired_event_is_absent_for_admission(w: &World) {
    let day = 86_400;
    let later = START + 31 * day;
    let replaced = event(30_023, "text").tag(&["d", "slot"]);
    let package = super::world::key_package("one", "ref");
    // The relay itself ends these, so that the same event is admitted again.
    let wrapped = w.send(&wrap("bob", "hi"), "throw-away", "alice").await;
    let stored_package = id_of(&new(w.publish(&package, "alice").await));
    let kept = id_of(&new(w.publish(&replaced, "alice").await));
    let brief = event(1, "brief").tag(&["expiration", &(START + 5).to_string()]);
    let brief_id = id_of(&new(w.publish(&brief, "alice").await));
    for id in [wrapped, stored_package, brief_id] {
        assert!(w.holds(id).await && !w.store.holds(&id, later).await.expect("an answer"));
    }
    let wrap_again = || w.try_admit(wrap("bob", "hi").sign(&keypair("throw-away")), &["alice"], later);
    let first = wrap_again().await.expect("admitted");
    let saved = w.save(vec![first.clone(), first]).await;
    assert!(matches!(saved[..], [Saved::New(_), Saved::Duplicate]), "{saved:?}");
    assert_eq!(id_of(&new(w.publish_at(later, &package, "alice").await)), stored_package);
    let again = w.try_admit(brief.sign(&keypair("alice")), &["alice"], later).await;
    assert_eq!(again.expect_err("it has expired").word, nostr_protocol::Word::Invalid);
    assert!(matches!(w.publish_at(later, &replaced, "alice").await, Saved::Duplicate));
    for swept in [false, true] {
        if swept {
            let before = w.store.stats().await.expect("stats").events;
            w.sweep(later).await;
            assert_eq!(before - w.store.stats().await.expect("stats").events, 1, "the brief one alone");
        }
        assert_eq!(w.find_at(later, r#"{"kinds":[1059]}"#, for_keys(&["bob"])).await, [wrapped]);
        assert_eq!(w.find_at(later, r#"{"kinds":[443]}"#, everyone()).await, [stored_package]);
        assert_eq!(w.find_at(later, r#"{"kinds":[30023]}"#, everyone()).await, [kept]);
        for id in [wrapped, stored_package] {
            assert!(w.store.holds(&id, later).await.expect("an answer"));
        }
    }
    let claimed = w.store.claim_key_packages(&claim_of("alice", 1), later).await.expect("a claim");
    assert_eq!(claimed.given.iter().map(|it| id_of(&it.sealed)).collect::<Vec<_>>(), [stored_package]);
    assert_eq!(w.store.stats().await.expect("stats").events, 3);
    // Once more, for an address whose event has expired under it.
    let profile = |text: &str| event(0, text).tag(&["expiration", &(later + 5).to_string()]);
    new(w.publish_at(later, &profile("short"), "bob").await);
    new(w.publish_at(later + 5, &event(0, "long").at(START - 1), "bob").await);
    assert_eq!(w.find_at(later + 5, r#"{"kinds":[0]}"#, everyone()).await.len(), 1);
}

/// A version that is older than the stored one is refused, whether or not it was stored once.
pub async fn an_older_version_is_ok_false(w: &World) {
    for (kind, d) in [(0, None), (10_002, None), (30_023, Some("slot")), (30_443, Some("slot"))] {
        let version = |n: u64| {
            let event = event(kind, &n.to_string()).at(START + n);
            d.map_or(event.clone(), |d| event.tag(&["d", d]))
        };
        new(w.publish(&version(1), "alice").await);
        new(w.publish(&version(3), "alice").await);
        for older in [1, 2] {
            let answer = w.publish(&version(older), "alice").await.answer().expect_err("an older version");
            assert_eq!(answer.to_string(), "duplicate: a newer version is stored", "{kind} {older}");
        }
        assert_eq!(w.publish(&version(3), "alice").await.answer(), Ok(crate::DUPLICATE.into()));
    }
}

pub async fn a_sweep_removes_no_more_than_asked_for(w: &World) {
    let expiration = (START + 10).to_string();
    let mut batch = Vec::new();
    for n in 0..25 {
        batch.push(w.admitted(&event(1, &n.to_string()).tag(&["expiration", &expiration]), "alice").await);
    }
    w.save(batch).await;
    assert_eq!(w.store.sweep(START + 10, 10).await.expect("a sweep").removed, 10);
    assert_eq!(w.store.sweep(START + 10, 10).await.expect("a sweep").removed, 10);
    assert_eq!(w.store.sweep(START + 10, 10).await.expect("a sweep").removed, 5);
    assert_eq!(w.store.stats().await.expect("stats").events, 0);
}

pub async fn of_an_address_the_newest_stays(w: &World) {
    let profile = |content: &str, at| event(0, content).at(at);
    let first = id_of(&new(w.publish(&profile("first", START - 10), "alice").await));
    let second = id_of(&new(w.publish(&profile("second", START), "alice").await));
    assert!(!w.holds(first).await);
    assert!(matches!(w.publish(&profile("old", START - 5), "alice").await, Saved::Superseded));
    let bobs = id_of(&new(w.publish(&profile("bob", START - 20), "bob").await));
    assert_eq!(w.find(r#"{"kinds":[0]}"#, everyone()).await, [second, bobs]);
}

pub async fn of_one_second_the_lowest_id_stays(w: &World) {
    let mut versions: Vec<_> = (0..5).map(|n| event(10_002, &n.to_string())).collect();
    versions.sort_by_key(|version| version.event(&keypair("alice")).id());
    new(w.publish(&versions[2], "alice").await);
    assert!(matches!(w.publish(&versions[3], "alice").await, Saved::Superseded));
    let lowest = id_of(&new(w.publish(&versions[0], "alice").await));
    assert!(matches!(w.publish(&versions[1], "alice").await, Saved::Superseded));
    assert_eq!(w.find(r#"{"kinds":[10002]}"#, everyone()).await, [lowest]);
}

pub async fn identifiers_tell_addresses_apart(w: &World) {
    let article = |d: &str, content: &str, at| event(30_023, content).at(at).tag(&["d", d]);
    let batch = [article("a", "1", START - 3), article("b", "1", START - 2), article("a", "2", START - 1)];
    let mut admitted = Vec::new();
    for event in &batch {
        admitted.push(w.admitted(event, "alice").await);
    }
    let ids: Vec<_> = w.save(admitted).await.into_iter().map(|saved| id_of(&new(saved))).collect();
    assert_eq!(w.find(r#"{"kinds":[30023]}"#, everyone()).await, [ids[2], ids[1]]);
}

pub async fn an_expired_version_holds_no_address(w: &World) {
    let expiration = (START + 10).to_string();
    new(w.publish(&event(0, "short").tag(&["expiration", &expiration]), "alice").await);
    let older = event(0, "older").at(START - 5);
    assert!(matches!(w.publish(&older, "alice").await, Saved::Superseded));
    let older = id_of(&new(w.publish_at(START + 10, &older, "alice").await));
    assert_eq!(w.find_at(START + 10, r#"{"kinds":[0]}"#, everyone()).await, [older]);
}

pub async fn the_log_says_which_groups_an_event_touches(w: &World) {
    new(w.publish(&roster("grp", 1, "bootstrap", &["alice"]), "admin").await);
    new(w.publish(&event(1, "note"), "alice").await);
    let invited = new(w.publish(&wrap("bob", "welcome").tag(&["h", "club"]), "alice").await);
    let before = w.store.head();
    let touches = |log: LogPage| log.entries.into_iter().map(|entry| entry.touches).collect::<Vec<_>>();
    let group = |id| Touches::groups([super::world::group(id)]);
    let log = w.store.after(0, 10).await.expect("the log");
    assert_eq!(touches(log), [group("grp"), Touches::Nothing, group("club")]);
    // A follower from before the wrap must learn of its effect though the wrap is gone.
    new(w.publish(&deletion(&[id_of(&invited)]), "bob").await);
    let log = w.store.after(before, 10).await.expect("the log");
    assert_eq!(touches(log), [group("club")]);
    assert!(w.find("{}", for_keys(&["bob"])).await.len() == 1, "the deletion of a wrap is its author's alone");
    assert_eq!(w.find("{}", for_keys(&["alice"])).await, []);
}

pub async fn odd_tag_values_harm_nobody(w: &World) {
    let long = "x".repeat(200_000);
    let odd = event(1, "odd").tag(&["t", "nul\u{0}inside"]).tag(&["t", &long]).tag(&["t", ""]).tag(&["t"]);
    let odd = w.admitted(&odd, "alice").await;
    let plain = w.admitted(&event(1, "plain").at(START - 1), "bob").await;
    let ids: Vec<_> = w.save(vec![odd, plain]).await.into_iter().map(|saved| id_of(&new(saved))).collect();
    assert_eq!(w.find(r##"{"#t":["nul\u0000inside"]}"##, everyone()).await, ids[..1]);
    assert_eq!(w.find(&format!(r##"{{"#t":["{long}"]}}"##), everyone()).await, ids[..1]);
    assert_eq!(w.find(r##"{"#t":["", "no such"]}"##, everyone()).await, ids[..1]);
    assert_eq!(w.find("{}", everyone()).await, ids);
}

/// A public event with as many tags as the relay takes.
fn of_many_tags(n: usize) -> nostr_protocol::testing::EventBuilder {
    (0..2_499).fold(event(1, &format!("heavy {n}")), |event, tag| event.tag(&["t", &format!("{n} {tag}")]))
}

pub async fn events_of_many_tags_refuse_no_innocent(w: &World) {
    const HEAVY: usize = 12;
    let mut batch = Vec::new();
    for n in 0..HEAVY {
        batch.push(w.admitted(&of_many_tags(n).tag(&["expiration", &(START + 100).to_string()]), "mallory").await);
        batch.push(w.admitted(&event(1, &format!("innocent {n}")), "alice").await);
    }
    let cursors: Vec<_> = w.save(batch).await.into_iter().map(|saved| new(saved).cursor()).collect();
    assert!(cursors.is_sorted_by(|a, b| a < b), "{cursors:?}");
    assert_eq!(w.find(&format!(r#"{{"authors":["{}"]}}"#, key("alice").to_hex()), everyone()).await.len(), HEAVY);
    assert_eq!(w.find(r##"{"#t":["7 2498"]}"##, everyone()).await.len(), 1);
    let mut swept = 0;
    for _ in 0..HEAVY {
        swept += w.store.sweep(START + 100, 100).await.expect("a sweep").removed;
    }
    assert_eq!(swept, HEAVY);
    assert_eq!(w.store.stats().await.expect("stats").events, HEAVY as u64);
}
