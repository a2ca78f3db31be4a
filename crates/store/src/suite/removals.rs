//! Deletions, vanishing and claims.

use nostr_extensions::{Role, Scope, gate::Touches, mls_gateway::group::Refusal};
use nostr_protocol::{EventId, testing::keypair};

use super::world::{
    START, World, capability, claim_by, claim_of, deletion, event, everyone, for_groups, for_keys, given, id_of, key,
    key_package, message, new, roster, vanish, wrap,
};
use crate::{DUPLICATE, Saved};

async fn stored(w: &World, event: &nostr_protocol::testing::EventBuilder, by: &str) -> EventId {
    id_of(&new(w.publish(event, by).await))
}

pub async fn a_deletion_removes_its_authors_events_for_good(w: &World) {
    let note = event(1, "note");
    let mine = stored(w, &note, "alice").await;
    let others = stored(w, &note, "bob").await;
    new(w.publish(&deletion(&[mine, others]), "alice").await);
    assert!(!w.holds(mine).await && w.holds(others).await);
    assert!(matches!(w.publish(&note, "alice").await, Saved::Deleted));
    assert_eq!(w.find(r#"{"kinds":[1]}"#, everyone()).await, [others]);
}

pub async fn what_is_large_is_deleted_like_the_rest(w: &World) {
    let fields = "x".repeat(300);
    for tags in [1, 200, 400] {
        let content = "y".repeat(60_000);
        let mut note = event(1, &content).tag(&["n", &tags.to_string()]);
        for _ in 0..tags {
            note = note.tag(&["z", &fields]);
        }
        let id = stored(w, &note, "alice").await;
        assert!(matches!(w.publish(&deletion(&[id]), "bob").await, Saved::Refused(Refusal::NothingToDelete)));
        assert!(w.holds(id).await);
        new(w.publish(&deletion(&[id]), "alice").await);
        assert!(!w.holds(id).await, "{tags}");
        let recipient = format!("recipient {tags}");
        let wrapped = wrap(&recipient, &content).tag(&["n", &tags.to_string()]);
        let wrapped = (0..tags).fold(wrapped, |wrapped, _| wrapped.tag(&["z", &fields]));
        let kept = w.send(&wrapped, "throw-away", "carol").await;
        new(w.publish(&vanish(START), &recipient).await);
        assert!(!w.holds(kept).await, "{tags}");
    }
}

pub async fn a_deletion_that_comes_first_holds(w: &World) {
    let note = event(1, "note");
    let id = note.event(&keypair("alice")).id();
    new(w.publish(&deletion(&[id]), "mallory").await);
    stored(w, &note, "alice").await;
    let other = event(1, "other");
    new(w.publish(&deletion(&[other.event(&keypair("alice")).id()]), "alice").await);
    assert!(matches!(w.publish(&other, "alice").await, Saved::Deleted));
}

pub async fn a_recipient_deletes_what_was_sent_to_it(w: &World) {
    let noise = event(446, "noise").tag(&["p", &key("bob").to_hex()]).tag(&["v", "noise.1"]);
    let kept = w.send(&wrap("carol", "hers"), "throw-away", "alice").await;
    let wrapped = w.send(&wrap("bob", "his"), "throw-away", "alice").await;
    let noise = w.send(&noise, "throw-away", "alice").await;
    new(w.publish(&deletion(&[kept, wrapped, noise]), "bob").await);
    assert!(w.holds(kept).await && !w.holds(wrapped).await && !w.holds(noise).await);
    let later = wrap("bob", "later");
    let later_id = later.event(&keypair("throw-away")).id();
    new(w.publish(&deletion(&[later_id]), "bob").await);
    for sent in [wrap("bob", "his"), later] {
        let sent = w.try_admit(sent.sign(&keypair("throw-away")), &["alice"], START).await;
        assert!(matches!(w.save(vec![sent.expect("admitted")]).await[..], [Saved::DeletedByRecipient]));
    }
    assert!(!w.holds(wrapped).await && !w.holds(later_id).await);
}

/// The sender of a wrap does not learn from the relay whether its recipient deleted it.
pub async fn a_wrap_sent_again_is_a_duplicate_deleted_or_not(w: &World) {
    let wrapped = wrap("bob", "his");
    let id = w.send(&wrapped, "throw-away", "alice").await;
    let again = async || {
        let sent = w.try_admit(wrapped.sign(&keypair("throw-away")), &["alice"], START).await.expect("admitted");
        w.save(vec![sent]).await.remove(0).answer()
    };
    let kept = again().await;
    new(w.publish(&deletion(&[id]), "bob").await);
    assert!(!w.holds(id).await);
    assert_eq!((kept.clone(), again().await), (Ok(DUPLICATE.into()), kept));
    // The author, who deletes it, is told.
    let own = w.send(&wrap("bob", "taken back"), "throw-away", "alice").await;
    new(w.publish(&deletion(&[own]), "throw-away").await);
    let own = w.try_admit(wrap("bob", "taken back").sign(&keypair("throw-away")), &["alice"], START).await;
    assert!(matches!(w.save(vec![own.expect("admitted")]).await[..], [Saved::Deleted]));
}

pub async fn group_messages_and_rosters_are_deleted_by_nobody(w: &World) {
    let h = capability("room");
    let said = w.send(&message(&h, "commit"), "throw-away", "alice").await;
    let roster = stored(w, &roster("grp", 1, "bootstrap", &["alice"]), "admin").await;
    let note = stored(w, &event(1, "note"), "throw-away").await;
    for (ids, by) in [(vec![note, said], "throw-away"), (vec![roster], "admin")] {
        let saved = w.publish(&deletion(&ids), by).await;
        assert!(matches!(saved, Saved::Refused(Refusal::Undeletable)), "{saved:?}");
    }
    assert!(w.holds(said).await && w.holds(roster).await && w.holds(note).await, "nothing of a refused one is done");
    // A deletion before the message, or by another key, does not touch it either.
    let next = message(&h, "next");
    new(w.publish(&deletion(&[next.event(&keypair("throw-away")).id()]), "throw-away").await);
    w.send(&next, "throw-away", "alice").await;
    new(w.publish(&deletion(&[said]), "alice").await);
    assert!(w.holds(said).await);
}

pub async fn a_deletion_is_not_deleted(w: &World) {
    let note = event(1, "note");
    let note_id = stored(w, &note, "alice").await;
    let first = stored(w, &deletion(&[note_id]), "alice").await;
    let undo = w.publish(&deletion(&[first]).content("undo"), "alice").await;
    assert!(matches!(undo, Saved::Refused(Refusal::NothingToDelete)), "{undo:?}");
    new(w.publish(&deletion(&[first, note_id]).content("undo"), "alice").await);
    assert!(w.holds(first).await);
    assert!(matches!(w.publish(&note, "alice").await, Saved::Deleted));
    let second = deletion(&[note_id]).content("again");
    new(w.publish(&deletion(&[second.event(&keypair("alice")).id()]).content("beforehand"), "alice").await);
    stored(w, &second, "alice").await;
}

pub async fn a_deletion_is_public_unless_it_names_what_is_private_to_its_author(w: &World) {
    let note = stored(w, &event(1, "note"), "alice").await;
    let [wrapped, brief] = ["secret", "brief"].map(|text| wrap("alice", text));
    let wrapped = w.send(&wrapped, "throw-away", "bob").await;
    let brief = w.send(&brief.tag(&["expiration", &(START + 1).to_string()]), "throw-away", "bob").await;
    let direct = event(4, "psst").tag(&["p", &key("alice").to_hex()]);
    let direct = w.send(&direct, "bob", "bob").await;
    let unknown = event(1, "never sent").event(&keypair("alice")).id();
    // To alice these are as unknown as the one before.
    let hidden = w.send(&wrap("carol", "hers"), "throw-away", "bob").await;
    let message = w.send(&message(&capability("room"), "hi"), "throw-away", "bob").await;
    let later = |n: u64, ids: &[EventId]| deletion(ids).at(START - n);
    let address = format!("30023:{}:x", key("alice"));
    let mut public = Vec::new();
    for event in [
        later(0, &[note]),
        later(1, &[note]),
        later(2, &[unknown]),
        later(3, &[unknown]),
        later(4, &[hidden]),
        later(5, &[message, hidden]),
        event(5, "").at(START - 6).tag(&["a", &address]).tag(&["k", "30023"]),
    ] {
        public.push(stored(w, &event, "alice").await);
    }
    let mut private = Vec::new();
    for event in [
        later(10, &[wrapped]),
        later(11, &[wrapped]),
        later(12, &[note, wrapped]),
        later(13, &[note, direct]),
        later(14, &[unknown]).tag(&["k", "1"]).tag(&["k", "1059"]),
        later(15, &[unknown]).tag(&["k", "21059"]),
    ] {
        private.push(stored(w, &event, "alice").await);
    }
    // An expired one is unknown.
    public.push(id_of(&new(w.publish_at(START + 1, &later(20, &[brief]), "alice").await)));
    assert_eq!(w.find(r#"{"kinds":[5]}"#, everyone()).await, public);
    assert_eq!(w.find(r#"{"kinds":[5]}"#, for_keys(&["alice"])).await, private);
    assert_eq!(w.find(r#"{"kinds":[5]}"#, for_keys(&["bob"])).await, []);
}

pub async fn an_address_is_deleted_up_to_the_deletions_time(w: &World) {
    let article = |content: &str, at| event(30_023, content).at(at).tag(&["d", "x"]);
    let address = format!("30023:{}:x", key("alice"));
    let delete = |at: u64| event(5, &at.to_string()).at(at).tag(&["a", &address]);
    let first = stored(w, &article("1", START - 10), "alice").await;
    new(w.publish(&delete(START - 20), "alice").await);
    assert!(w.holds(first).await, "it is newer than the deletion");
    let public = stored(w, &delete(START - 5), "alice").await;
    assert!(!w.holds(first).await);
    assert!(matches!(w.publish(&article("1", START - 10), "alice").await, Saved::Deleted));
    assert!(matches!(w.publish(&article("2", START - 5), "alice").await, Saved::Deleted));
    let after = stored(w, &article("3", START - 4), "alice").await;
    new(w.publish(&delete(START - 8), "alice").await);
    assert!(matches!(w.publish(&article("4", START - 5), "alice").await, Saved::Deleted), "the latest deletion counts");
    assert_eq!(w.find(r#"{"kinds":[30023]}"#, everyone()).await, [after]);
    let untouched = event(30_023, "bob").at(START - 30).tag(&["d", "x"]);
    stored(w, &untouched, "bob").await;
    assert!(w.find(r#"{"kinds":[5]}"#, everyone()).await.contains(&public));
}

pub async fn a_key_that_vanishes_takes_its_events_at_once_and_for_good(w: &World) {
    let note = event(1, "note").at(START - 10);
    let gone = [
        stored(w, &note, "alice").await,
        stored(w, &event(0, "profile").at(START - 9), "alice").await,
        w.send(&wrap("alice", "to her"), "throw-away", "bob").await,
        w.send(&wrap("bob", "from her").at(START - 1), "alice", "alice").await,
        w.send(&message(&capability("room"), "hers"), "alice", "alice").await,
    ];
    let later = stored(w, &event(1, "later").at(START + 5), "alice").await;
    let others = stored(w, &event(1, "bob's"), "bob").await;
    let request = stored(w, &vanish(START), "alice").await;
    for id in gone {
        assert!(!w.holds(id).await);
        assert!(w.find(&format!(r#"{{"ids":["{id}"]}}"#), everyone()).await.is_empty());
    }
    let scope = Scope { everyone: true, ..for_keys(&["alice", "bob"]) };
    let left = [later, others, request];
    let found = w.find("{}", scope.clone()).await;
    assert!(found.len() == 3 && left.iter().all(|id| found.contains(id)), "{found:?}");
    let log = w.store.after(0, 100).await.expect("the log");
    let places: Vec<_> = log.entries.iter().map(|entry| entry.cursor).collect();
    assert_eq!(w.store.events_at(&places).await.expect("the events").len(), 3);
    assert!(matches!(w.publish(&note, "alice").await, Saved::Deleted));
    let to_her = w.try_admit(wrap("alice", "again").sign(&keypair("throw-away")), &["bob"], START).await;
    assert!(matches!(w.save(vec![to_her.expect("admitted")]).await[..], [Saved::Deleted]));
    w.sweep(START).await;
    assert_eq!(w.store.stats().await.expect("stats").events, 3);
    assert_eq!(w.find("{}", scope).await, found);
    assert!(matches!(w.publish(&note, "alice").await, Saved::Deleted));
    stored(w, &event(1, "back").at(START + 6), "alice").await;
}

pub async fn events_of_a_vanished_key_hold_no_address_and_no_reference(w: &World) {
    stored(w, &event(0, "profile").at(START - 9), "alice").await;
    let slot = event(30_023, "slot").tag(&["d", "slot"]);
    stored(w, &slot.clone().at(START - 9), "alice").await;
    let note = stored(w, &event(1, "note").at(START - 9), "alice").await;
    stored(w, &key_package("old", "1").at(START - 9), "alice").await;
    stored(w, &vanish(START), "alice").await;
    let address = format!("30023:{}:slot", key("alice").to_hex());
    // The targets of these are unknown, so they are public.
    let named = event(5, "").at(START + 1).tag(&["e", &note.to_hex()]);
    let placed = event(5, "").at(START + 1).tag(&["a", &address]);
    stored(w, &named, "alice").await;
    stored(w, &placed, "alice").await;
    assert_eq!(w.find(r#"{"kinds":[5]}"#, everyone()).await.len(), 2);
    let back = [
        stored(w, &event(0, "profile").at(START + 1), "alice").await,
        stored(w, &slot.at(START + 2), "alice").await,
        stored(w, &key_package("new", "1").at(START + 1), "alice").await,
    ];
    for swept in [false, true] {
        if swept {
            w.sweep(START).await;
        }
        let found = w.find(r#"{"kinds":[0,1,443,30023]}"#, everyone()).await;
        assert!(found.len() == 3 && back.iter().all(|id| found.contains(id)), "{found:?}, {swept}");
        let claimed = w.store.claim_key_packages(&claim_of("alice", 2), START).await.expect("a claim");
        assert_eq!(given(&claimed), back[2..], "{swept}");
    }
    assert_eq!(w.store.stats().await.expect("stats").events, 6);
}

pub async fn a_key_that_vanishes_leaves_its_groups_but_not_without_an_admin(w: &World) {
    let roster_id = stored(w, &roster("grp", 1, "bootstrap", &["alice", "bob"]), "admin").await;
    new(w.publish(&wrap("bob", "1").tag(&["h", "hers"]), "alice").await);
    let stranger = new(w.publish(&vanish(START), "stranger").await);
    let leaver = new(w.publish(&vanish(START), "alice").await);
    let log = w.store.after(stranger.cursor() - 1, 10).await.expect("the log");
    let touches: Vec<Touches> = log.entries.into_iter().map(|entry| entry.touches).collect();
    assert_eq!(touches, [Touches::Nothing, Touches::EveryGroup], "a key without a group changes none");
    assert_eq!([stranger.touches(), leaver.touches()], [Touches::Nothing, Touches::EveryGroup]);
    assert_eq!(w.members("grp").await, Some(vec![(key("bob"), Role::Member)]));
    assert_eq!(w.members("hers").await.map(|members| members.len()), Some(2), "she was its only admin");
    new(w.publish(&vanish(START), "admin").await);
    assert!(w.holds(roster_id).await, "the audit stays");
    assert_eq!(w.find("{}", for_groups(&["grp"])).await, [roster_id]);
}

pub async fn a_reference_names_one_key_package(w: &World) {
    new(w.publish(&key_package("one", "ref"), "alice").await);
    let twin = key_package("one", "ref").at(START - 1);
    new(w.publish(&twin, "alice").await);
    let other = w.publish(&key_package("two", "ref"), "alice").await;
    assert!(matches!(other, Saved::Refused(Refusal::ReferenceTaken)), "{other:?}");
    new(w.publish(&key_package("two", "ref"), "bob").await);
    new(w.publish(&key_package("two", "ref 2"), "alice").await);
    // An expired KeyPackage holds no reference.
    let brief = key_package("brief", "ref 3").tag(&["exp", &(START + 10).to_string()]);
    new(w.publish(&brief, "alice").await);
    assert!(matches!(w.publish(&key_package("long", "ref 3"), "alice").await, Saved::Refused(_)));
    new(w.publish_at(START + 10, &key_package("long", "ref 3"), "alice").await);
}

pub async fn deleting_a_key_package_leaves_its_twin(w: &World) {
    let one = stored(w, &key_package("one", "ref"), "alice").await;
    let twin = event(30_443, "one").tag(&["i", "ref"]).tag(&["d", "slot"]);
    let twin = stored(w, &twin, "alice").await;
    new(w.publish(&deletion(&[one]), "alice").await);
    assert!(!w.holds(one).await && w.holds(twin).await);
    let next = event(30_443, "next").tag(&["i", "ref 2"]).tag(&["d", "slot"]).at(START + 1);
    new(w.publish(&next, "alice").await);
    assert!(!w.holds(twin).await, "a 30443 replaces by d");
    new(w.publish(&key_package("new", "ref"), "alice").await);
}

pub async fn a_claim_takes_the_oldest_with_its_twins_and_leaves_the_last(w: &World) {
    let first = stored(w, &key_package("one", "1"), "alice").await;
    let second = stored(w, &key_package("two", "2"), "alice").await;
    let twin = stored(w, &event(30_443, "one").tag(&["i", "1"]).tag(&["d", "slot"]), "alice").await;
    let third = stored(w, &key_package("three", "3"), "alice").await;
    stored(w, &key_package("bob's", "1"), "bob").await;
    let claim = async |owner: &str, most: usize| -> Vec<EventId> {
        given(&w.store.claim_key_packages(&claim_of(owner, most), START).await.expect("a claim"))
    };
    assert_eq!(claim("nobody", 5).await, []);
    assert_eq!(claim("alice", 1).await, [first]);
    assert!(!w.holds(first).await && !w.holds(twin).await);
    assert_eq!(claim("alice", 2).await, [second, third]);
    assert!(!w.holds(second).await && w.holds(third).await, "the last one is given and stays");
    assert_eq!(claim("alice", 2).await, [third]);
    for again in [key_package("one", "1"), key_package("two", "other").at(START + 1)] {
        assert!(matches!(w.publish(&again, "alice").await, Saved::Deleted), "what was claimed never comes back");
    }
    assert_eq!(w.find_at(START, r#"{"kinds":[443,30443]}"#, everyone()).await.len(), 2);
    let late = w.store.claim_key_packages(&claim_of("alice", 2), START + 100 * 86_400).await.expect("a claim");
    assert!(late.given.is_empty());
}

pub async fn a_package_that_is_not_sent_is_not_used_up(w: &World) {
    let early = stored(w, &key_package("one", "1"), "alice").await;
    let twin = event(30_443, "one").at(START + 5).tag(&["i", "1"]).tag(&["d", "slot"]);
    let twin = stored(w, &twin, "alice").await;
    let late = stored(w, &key_package("two", "2").at(START + 10).tag(&["t", "topic"]), "alice").await;
    let last = stored(w, &key_package("three", "3").at(START + 20), "alice").await;
    let alice = key("alice").to_hex();
    let asking = |kinds: &str, more: &str| format!(r#"{{"kinds":{kinds},"authors":["{alice}"]{more}}}"#);
    let claim = async |filter: String| {
        let claim = claim_by("alice", &[&filter], 2, 2);
        w.store.claim_key_packages(&claim, START + 30).await.expect("a claim")
    };
    // Each of these fits no KeyPackage, or asks for none.
    for filter in [
        asking("[443,30443]", &format!(r#","since":{}"#, START + 21)),
        asking("[443,30443]", &format!(r#","until":{}"#, START - 1)),
        asking("[443,30443]", r##","#t":["another"]"##),
        asking("[443,30443]", &format!(r#","ids":["{}"]"#, "00".repeat(32))),
        asking("[443,30443]", r#","limit":0"#),
        asking("[1]", ""),
        format!(r#"{{"kinds":[443],"authors":["{}"]}}"#, key("bob").to_hex()),
    ] {
        let claimed = claim(filter.clone()).await;
        assert_eq!((given(&claimed), claimed.used, claimed.withheld), (vec![], 0, false), "{filter}");
    }
    for id in [early, twin, late, last] {
        assert!(w.holds(id).await);
    }
    // The twin of the other kind is the one that fits.
    let claimed = claim(asking("[30443]", "")).await;
    assert_eq!((given(&claimed), claimed.used), (vec![twin], 1));
    assert!(!w.holds(early).await && !w.holds(twin).await);
    let claimed = claim(asking("[443,30443]", r##","#t":["topic"]"##)).await;
    assert_eq!((given(&claimed), claimed.used), (vec![late], 1));
    assert!(!w.holds(late).await && w.holds(last).await);
}

pub async fn a_limit_bounds_what_is_used_up(w: &World) {
    let mut ids = Vec::new();
    for n in 0..6_u64 {
        ids.push(stored(w, &key_package(&n.to_string(), &n.to_string()).at(START + n), "alice").await);
    }
    let alice = key("alice").to_hex();
    let one = format!(r#"{{"kinds":[443],"authors":["{alice}"],"limit":1}}"#);
    let late = format!(r#"{{"kinds":[443],"authors":["{alice}"],"since":{},"limit":1}}"#, START + 5);
    for (filters, expected) in [
        (vec![&*one], vec![ids[0]]),
        // The filters are looked at together: the one that fits the last KeyPackage alone is given that.
        (vec![&*one, &*late], vec![ids[1], ids[5]]),
    ] {
        let claim = claim_by("alice", &filters, 2, 2);
        let claimed = w.store.claim_key_packages(&claim, START + 30).await.expect("a claim");
        assert_eq!((given(&claimed), claimed.used), (expected.clone(), expected.len()), "{filters:?}");
    }
}

pub async fn a_claim_that_may_use_nothing_up_gives_what_stays(w: &World) {
    let first = stored(w, &key_package("one", "1"), "alice").await;
    let second = stored(w, &key_package("two", "2"), "alice").await;
    let all = format!(r#"{{"kinds":[443],"authors":["{}"]}}"#, key("alice").to_hex());
    let claim = async |used_max: usize| {
        let claim = claim_by("alice", &[&all], 2, used_max);
        w.store.claim_key_packages(&claim, START).await.expect("a claim")
    };
    let claimed = claim(0).await;
    assert_eq!((given(&claimed), claimed.used, claimed.withheld), (vec![], 0, true));
    assert!(w.holds(first).await && w.holds(second).await);
    let claimed = claim(1).await;
    assert_eq!((given(&claimed), claimed.used), (vec![first, second], 1), "the last one is given and stays");
    for used_max in [0, 2] {
        let claimed = claim(used_max).await;
        assert_eq!((given(&claimed), claimed.used, claimed.withheld), (vec![second], 0, false));
    }
}

pub async fn a_deletion_removes_a_bounded_number_of_tags(w: &World) {
    let mut heavy = Vec::new();
    for n in 0..9 {
        let tags = (0..2_500).fold(event(1, &n.to_string()), |event, tag| event.tag(&["t", &format!("{n} {tag}")]));
        heavy.push(stored(w, &tags, "alice").await);
    }
    let note = stored(w, &event(1, "note"), "bob").await;
    let saved = w.publish(&deletion(&heavy), "alice").await;
    assert!(matches!(saved, Saved::Refused(Refusal::DeletesTooMuch)), "{saved:?}");
    assert!(w.holds(heavy[0]).await, "nothing of a refused one is done");
    // Events of others are no targets, and count for nothing.
    let mut named = heavy.clone();
    named.push(note);
    new(w.publish(&deletion(&named), "bob").await);
    assert!(w.holds(heavy[0]).await && !w.holds(note).await);
    for part in heavy.chunks(7) {
        new(w.publish(&deletion(part), "alice").await);
    }
    assert!(!w.holds(heavy[0]).await && !w.holds(heavy[8]).await);
}

/// An event with many rows in the indexes: one for each tag.
fn heavy(event: nostr_protocol::testing::EventBuilder, name: &str) -> nostr_protocol::testing::EventBuilder {
    (0..2_400).fold(event, |event, tag| event.tag(&["t", &format!("{name} {tag}")]))
}

/// Whether a query finds the event by one of its many rows.
async fn is_found_by_tag(w: &World, name: &str) -> bool {
    !w.find(&format!(r##"{{"#t":["{name} 7"]}}"##), everyone()).await.is_empty()
}

pub async fn what_is_removed_is_gone_at_once_however_many_rows_it_has(w: &World) {
    let mut notes = Vec::new();
    for n in 0..6 {
        let note = stored(w, &heavy(event(1, "note"), &format!("note {n}")), "alice").await;
        let slot = heavy(event(30_001, "old").tag(&["d", &n.to_string()]), &format!("slot {n}"));
        notes.push((note, stored(w, &slot, "alice").await));
    }
    let bystander = stored(w, &event(1, "bystander"), "bob").await;
    let head = w.store.head();
    let mut batch = Vec::new();
    for n in 0..6 {
        let event = event(30_001, "new").at(START + 1).tag(&["d", &n.to_string()]);
        batch.push(w.admitted(&event, "alice").await);
    }
    batch.push(w.admitted(&deletion(&notes.iter().map(|(note, _)| *note).collect::<Vec<_>>()), "alice").await);
    let stored: Vec<EventId> = w.save(batch).await.into_iter().map(|saved| id_of(&new(saved))).collect();
    for swept in [false, true] {
        for (n, (note, slot)) in notes.iter().enumerate() {
            assert!(!w.holds(*note).await && !w.holds(*slot).await, "{n} {swept}");
            assert!(!is_found_by_tag(w, &format!("note {n}")).await, "{n} {swept}");
            assert!(!is_found_by_tag(w, &format!("slot {n}")).await, "{n} {swept}");
            let again = heavy(event(1, "note"), &format!("note {n}"));
            assert!(matches!(w.publish(&again, "alice").await, Saved::Deleted), "{n} {swept}");
            let again = heavy(event(30_001, "old").tag(&["d", &n.to_string()]), &format!("slot {n}"));
            assert!(!matches!(w.publish(&again, "alice").await, Saved::New(_)), "{n} {swept}");
        }
        let found = w.find("{}", everyone()).await;
        assert_eq!(found.len(), stored.len() + 1, "{swept}");
        assert!(found.contains(&bystander) && stored.iter().all(|id| found.contains(id)), "{swept}");
        let logged = w.store.after(0, 1_000).await.expect("the log");
        let at: Vec<_> = logged.entries.iter().map(|entry| entry.cursor).collect();
        assert_eq!(w.store.events_at(&at).await.expect("events").len(), stored.len() + 1, "{swept}");
        // The cursors of a store that does not count its events are too many to ask for.
        let old: Vec<_> = if head < 1_000 { (1..=head).collect() } else { Vec::new() };
        assert!(w.store.events_at(&old).await.expect("events").len() <= 1, "{swept}");
        assert_eq!(w.store.stats().await.expect("stats").events, stored.len() as u64 + 1, "{swept}");
        w.sweep(START).await;
    }
}

pub async fn a_removed_event_that_comes_again_is_found_by_all_its_rows(w: &World) {
    let old = |n: usize| heavy(event(30_001, "old").tag(&["d", &n.to_string()]), &format!("slot {n}"));
    let mut batch = Vec::new();
    for n in 0..4 {
        stored(w, &old(n), "alice").await;
        batch.push(w.admitted(&event(30_001, "new").at(START + 1).tag(&["d", &n.to_string()]), "alice").await);
    }
    let newer: Vec<EventId> = w.save(batch).await.into_iter().map(|saved| id_of(&new(saved))).collect();
    new(w.publish(&deletion(&newer), "alice").await);
    // Nothing holds the addresses now.
    for n in 0..4 {
        new(w.publish(&old(n), "alice").await);
        assert!(is_found_by_tag(w, &format!("slot {n}")).await, "{n}");
    }
    w.sweep(START).await;
    for n in 0..4 {
        assert!(is_found_by_tag(w, &format!("slot {n}")).await, "{n} after a sweep");
    }
    assert_eq!(w.find(r#"{"kinds":[30001]}"#, everyone()).await.len(), 4);
}
