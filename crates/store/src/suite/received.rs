//! Lists in the order of receipt.

use nostr_extensions::Sealed;
use nostr_protocol::{EventId, Kind, testing::EventBuilder};

use super::world::{START, World, capability, event, group, id_of, key, message, new, roster, wrap};
use crate::{Cursor, Receipt, Received, ReceivedBounds, Recipient};

/// Bounds that no test's answer reaches.
const WIDE: ReceivedBounds = ReceivedBounds { events_max: 10_000, bytes_max: 64 << 20, entries_max: 100_000 };

fn of_group(id: &str) -> Received {
    Received { to: Recipient::Group(group(id)), kinds: vec![Kind::GROUP_MESSAGE] }
}

fn inbox(name: &str) -> Received {
    let kinds = vec![Kind::NOISE_DM, Kind::KEY_PACKAGE_REQUEST, Kind::GIFT_WRAP];
    Received { to: Recipient::Key(key(name)), kinds }
}

/// The whole list behind a place, in pages under `bounds`, and the place behind it.
async fn list(world: &World, query: &Received, from: Receipt, bounds: ReceivedBounds) -> (Vec<EventId>, Receipt) {
    list_at(world, query, from, bounds, START).await
}

async fn list_at(
    world: &World,
    query: &Received,
    mut from: Receipt,
    bounds: ReceivedBounds,
    now: u64,
) -> (Vec<EventId>, Receipt) {
    let mut all = Vec::new();
    let up_to = head(world).await;
    for _ in 0..10_000 {
        let page = world.store.received(query, from, up_to, bounds, now).await.expect("a page");
        assert!(page.events.len() <= bounds.events_max);
        assert!(page.events.is_sorted_by_key(Sealed::cursor));
        assert!(page.cost.units > 0 || page.events.is_empty());
        all.extend(page.events.iter().map(id_of));
        from = page.next;
        if !page.has_more {
            return (all, from);
        }
    }
    panic!("a list without an end");
}

/// A cursor that lies behind everything that was saved.
async fn head(world: &World) -> Cursor {
    world.store.after(0, 100_000).await.expect("the log").through
}

async fn say(world: &World, id: &str, text: &str, back: u64) -> EventId {
    let said = EventBuilder::new(445).tag(&["h", id]).content(text).at(START - back);
    world.send(&said, &format!("thrown away {text}"), "alice").await
}

pub async fn a_list_is_in_the_order_of_receipt(world: &mut World) {
    world.publish(&roster("grp", 1, "bootstrap", &["alice"]), "admin").await;
    world.publish(&roster("other", 1, "bootstrap", &["alice"]), "admin").await;
    let mut sent = Vec::new();
    for n in 0..12_u64 {
        // Back-dated by two days, in no order; and each second event is of another group, or public.
        sent.push(say(world, "grp", &format!("{n}"), n * 7_919 % 172_800).await);
        say(world, "other", &format!("other {n}"), 0).await;
        world.publish(&event(1, &format!("note {n}")), "bob").await;
    }
    for events_max in [1, 2, 5, 12, 100] {
        for bytes_max in [1, 1_000, 1 << 20] {
            let bounds = ReceivedBounds { events_max, bytes_max, entries_max: 3 };
            assert_eq!(list(world, &of_group("grp"), Receipt::default(), bounds).await.0, sent, "{bounds:?}");
        }
    }
    assert_eq!(list(world, &of_group("nothing"), Receipt::default(), WIDE).await.0, []);
}

pub async fn a_list_goes_on_behind_its_place(world: &mut World) {
    world.publish(&roster("grp", 1, "bootstrap", &["alice"]), "admin").await;
    let [a, b] = [say(world, "grp", "a", 0).await, say(world, "grp", "b", 5_000).await];
    let (first, place) = list(world, &of_group("grp"), Receipt::default(), WIDE).await;
    assert_eq!(first, [a, b]);
    assert_eq!(list(world, &of_group("grp"), place, WIDE).await.0, []);
    // An event that is dated before everything that was given comes behind it.
    let c = say(world, "grp", "c", 172_000).await;
    let d = say(world, "grp", "d", 0).await;
    let (more, place) = list(world, &of_group("grp"), place, WIDE).await;
    assert_eq!(more, [c, d]);
    assert_eq!(list(world, &of_group("grp"), place, WIDE).await.0, []);
}

pub async fn a_list_ends_at_the_cursor_that_it_is_given(world: &mut World) {
    world.publish(&roster("grp", 1, "bootstrap", &["alice"]), "admin").await;
    let a = say(world, "grp", "a", 0).await;
    let middle = head(world).await;
    let b = say(world, "grp", "b", 0).await;
    let page = world.store.received(&of_group("grp"), Receipt::default(), middle, WIDE, START).await.expect("a page");
    assert_eq!(page.events.iter().map(id_of).collect::<Vec<_>>(), [a]);
    assert!(page.next.cursor <= middle);
    assert_eq!(list(world, &of_group("grp"), page.next, WIDE).await.0, [b], "the rest follows");
}

pub async fn an_inbox_merges_its_kinds(world: &mut World) {
    let noise =
        |text: &str| EventBuilder::new(446).tag(&["p", &key("bob").to_hex()]).tag(&["v", "noise.1"]).content(text);
    let request = |text: &str| EventBuilder::new(447).tag(&["p", &key("bob").to_hex()]).content(text);
    let mut sent = Vec::new();
    for n in 0..4 {
        sent.push(id_of(&new(world.publish(&noise(&format!("n{n}")), "alice").await)));
        sent.push(id_of(&new(world.publish(&wrap("bob", &format!("w{n}")), "alice").await)));
        sent.push(id_of(&new(world.publish(&request(&format!("r{n}")), "admin").await)));
        world.publish(&wrap("carol", &format!("c{n}")), "alice").await;
    }
    for events_max in [1, 3, 100] {
        let bounds = ReceivedBounds { events_max, ..WIDE };
        assert_eq!(list(world, &inbox("bob"), Receipt::default(), bounds).await.0, sent);
    }
    let wraps = Received { kinds: vec![Kind::GIFT_WRAP], ..inbox("bob") };
    assert_eq!(list(world, &wraps, Receipt::default(), WIDE).await.0.len(), 4);
    let public = Received { kinds: vec![Kind(1)], ..inbox("bob") };
    assert_eq!(list(world, &public, Receipt::default(), WIDE).await.0, [], "a kind without such a list");
}

pub async fn what_is_gone_is_in_no_list(world: &mut World) {
    let bob = key("bob").to_hex();
    let [a, b, c] = ["a", "b", "c"].map(|text| wrap("bob", text));
    let a = id_of(&new(world.publish(&a, "alice").await));
    let b = id_of(&new(world.publish(&b, "alice").await));
    let c = id_of(&new(world.publish(&c, "carol").await));
    let end = (START + 60).to_string();
    let short = EventBuilder::new(446).tag(&["p", &bob]).tag(&["v", "noise.1"]).tag(&["expiration", &end]);
    let short = id_of(&new(world.publish(&short, "alice").await));
    assert_eq!(list(world, &inbox("bob"), Receipt::default(), WIDE).await.0, [a, b, c, short]);
    let later = list_at(world, &inbox("bob"), Receipt::default(), WIDE, START + 60).await.0;
    assert_eq!(later, [a, b, c], "expired");
    world.publish(&EventBuilder::new(5).tag(&["e", &b.to_hex()]), "bob").await;
    assert_eq!(list(world, &inbox("bob"), Receipt::default(), WIDE).await.0, [a, c, short], "deleted");
    world.publish(&EventBuilder::new(62).tag(&["relay", "ALL_RELAYS"]), "carol").await;
    assert_eq!(list(world, &inbox("bob"), Receipt::default(), WIDE).await.0, [a, short], "vanished");
    world.store.sweep(START + 60, 1_000).await.expect("a sweep");
    let swept = list_at(world, &inbox("bob"), Receipt::default(), WIDE, START + 60).await.0;
    assert_eq!(swept, [a]);
}

/// An event that an archive which is off lets through for live delivery alone is in no list.
pub async fn what_no_query_finds_is_in_no_list(world: &mut World) {
    world.policy.archive_secs = None;
    let id = capability("grp");
    world.send(&message(&id, "live"), "thrown away", "alice").await;
    assert_eq!(list(world, &of_group(&id), Receipt::default(), WIDE).await.0, []);
}
