//! The answers to publishers: `OK true` says that the event is stored with the effect that its sender asked for.
//!
//! Source: docs/rules.md, "Outcomes", whose table stands here as calls and answers.

use nostr_protocol::{
    EventId, UnixSecs,
    testing::{EventBuilder, keypair},
};

use super::world::{
    START, World, capability, deletion, event, id_of, key, key_package, message, new, roster, vanish, wrap,
};

/// Situations with their answers, in the order in which the tests below bring them about.
const ANSWERS: &str = "
    note, new: true
    note, again: true duplicate: this event is stored already
    note, deleted by its author: false blocked: this event was deleted; what was deleted does not come back
    note, of a vanished key: false blocked: this event was deleted; what was deleted does not come back
    ephemeral, again: true
    profile, new: true
    profile, older than the stored one: false duplicate: a newer version is stored
    profile, newer: true
    profile, stored once: false duplicate: a newer version is stored
    profile, again: true duplicate: this event is stored already
    package, new: true
    package, twin: true
    package, reference of other bytes: false invalid: the KeyPackage reference names other bytes of this owner; use a \
        new reference
    message, by a member: true
    message, by a stranger: false restricted: this group is not founded here, or you are no member of it; found it \
        first, or authenticate with a member's key
    message, by nobody: false auth-required: this group is not founded here, or you are no member of it; found it \
        first, or authenticate with a member's key
    message, unlisted: true
    deletion, of an own event: true
    deletion, of the same again: true
    deletion, of an unknown event: true
    deletion, of an event of others: false restricted: a key deletes its own events alone, and no deletion; name an \
        event of yours
    deletion, of an own one and one of others: true
    deletion, of a wrap to others: true
    deletion, of a wrap to the author: true
    deletion, of an own deletion: false restricted: a key deletes its own events alone, and no deletion; name an \
        event of yours
    deletion, of a direct message to the author: false restricted: a key deletes its own events alone, and no \
        deletion; name an event of yours
    deletion, of an own message: false blocked: kinds 445 and 450 cannot be deleted; remove them from the request
    deletion, of an own address: true
    deletion, of an address of others: false restricted: a key deletes its own events alone, and no deletion; name an \
        event of yours
    vanish, new: true
    roster, founds: true
    roster, again: true duplicate: this event is stored already
    roster, stale: false invalid: roster seq 1 is not above 1
    roster, adds a present member: false invalid: the roster changes nothing: its keys have that state and the group \
        that name already; send a change
    roster, adds a present and a new member: true
    roster, names the group alone: true
    roster, removes nobody: false invalid: the roster changes nothing: its keys have that state and the group that \
        name already; send a change
    roster, promotes no member: false invalid: KEY is not a member of the group; add it first
    roster, by a stranger: false restricted: only the group's admins change its roster, and admin_pubkeys found one
    roster, a member leaves: true
    wrap, without h: true
    wrap, to a roster's group by a member: true
    wrap, to a roster's group by an admin key: true
    wrap, to a roster's group by a stranger: false restricted: STRANGER
    wrap, founds: true
    wrap, again: true duplicate: this event is stored already
    wrap, deleted by its recipient: true duplicate: this event is stored already
    wrap, by a member to a new member: true
    wrap, by a member to a member: true
    wrap, by a stranger: false restricted: STRANGER
    wrap, by nobody: false auth-required: STRANGER
    wrap, founds with itself: false restricted: STRANGER
    wrap, of an unlisted group: true
    wrap, founds the 21st group: false restricted: STRANGER
    wrap, by a stranger beyond that: false restricted: STRANGER
";

/// The words for a wrap by a stranger, whatever the cause.
const STRANGER: &str = "this gift wrap may neither found its group nor add to it; leave out the h tag, or send it with \
    a member's key";

/// Publishes events and notes the answers.
struct Publishing<'w> {
    w: &'w World,
    answers: Vec<String>,
}

impl Publishing<'_> {
    async fn at(&mut self, now: UnixSecs, situation: &str, event: &EventBuilder, signer: &str, readers: &[&str]) {
        let answer = match self.w.try_admit(event.sign(&keypair(signer)), readers, now).await {
            Ok(admitted) => self.w.save(vec![admitted]).await.remove(0).answer(),
            Err(rejection) => Err(rejection),
        };
        self.answers.push(match answer {
            Ok(text) if text.is_empty() => format!("{situation}: true"),
            Ok(reason) => format!("{situation}: true {reason}"),
            Err(rejection) => format!("{situation}: false {rejection}"),
        });
    }

    async fn by(&mut self, name: &str, situation: &str, event: &EventBuilder) {
        self.at(START, situation, event, name, &[name]).await;
    }
}

pub async fn every_ok_true_had_its_effect(w: &World) {
    let mut publishing = Publishing { w, answers: Vec::new() };
    notes_and_packages(&mut publishing).await;
    removals(&mut publishing).await;
    rosters(&mut publishing).await;
    wraps(&mut publishing).await;
    let expected = ANSWERS
        .trim()
        .replace("\\\n        ", "")
        .replace("STRANGER", STRANGER)
        .replace("KEY", &key("nobody").to_hex());
    let expected: Vec<&str> = expected.lines().map(str::trim).collect();
    assert_eq!(publishing.answers, expected);
}

async fn notes_and_packages(p: &mut Publishing<'_>) {
    let note = event(1, "note");
    p.by("alice", "note, new", &note).await;
    p.by("alice", "note, again", &note).await;
    new(p.w.publish(&deletion(&[note.event(&keypair("alice")).id()]), "alice").await);
    p.by("alice", "note, deleted by its author", &note).await;
    new(p.w.publish(&vanish(START), "gone").await);
    p.by("gone", "note, of a vanished key", &note).await;
    new(p.w.publish(&event(20_001, "now"), "alice").await);
    p.by("alice", "ephemeral, again", &event(20_001, "now")).await;
    let profile = |n: u64| event(0, &n.to_string()).at(START + n);
    p.by("alice", "profile, new", &profile(2)).await;
    p.by("alice", "profile, older than the stored one", &profile(1)).await;
    p.by("alice", "profile, newer", &profile(3)).await;
    p.by("alice", "profile, stored once", &profile(2)).await;
    p.by("alice", "profile, again", &profile(3)).await;
    p.by("alice", "package, new", &key_package("one", "ref")).await;
    p.by("alice", "package, twin", &key_package("one", "ref").at(START + 1)).await;
    p.by("alice", "package, reference of other bytes", &key_package("two", "ref")).await;
    new(p.w.publish(&roster("talk", 1, "bootstrap", &["alice"]), "admin").await);
    p.at(START, "message, by a member", &message("talk", "1"), "throw-away", &["alice"]).await;
    p.at(START, "message, by a stranger", &message("talk", "2"), "throw-away", &["bob"]).await;
    p.at(START, "message, by nobody", &message("talk", "3"), "throw-away", &[]).await;
    p.at(START, "message, unlisted", &message(&capability("room"), "4"), "throw-away", &[]).await;
}

async fn removals(p: &mut Publishing<'_>) {
    let stored = async |event: &EventBuilder, by: &str| -> EventId { id_of(&new(p.w.publish(event, by).await)) };
    let mine = stored(&event(1, "mine"), "bob").await;
    let more = stored(&event(1, "more"), "bob").await;
    let others = stored(&event(1, "theirs"), "alice").await;
    let direct = stored(&event(4, "psst").tag(&["p", &key("bob").to_hex()]), "alice").await;
    let to_others = p.w.send(&wrap("carol", "hers"), "throw-away", "alice").await;
    let to_bob = p.w.send(&wrap("bob", "his"), "throw-away", "alice").await;
    let said = p.w.send(&message(&capability("room"), "bob's"), "bob", "bob").await;
    let unknown = event(1, "unknown").event(&keypair("bob")).id();
    let first = deletion(&[mine]);
    p.by("bob", "deletion, of an own event", &first).await;
    p.by("bob", "deletion, of the same again", &deletion(&[mine]).content("again")).await;
    p.by("bob", "deletion, of an unknown event", &deletion(&[unknown])).await;
    p.by("bob", "deletion, of an event of others", &deletion(&[others])).await;
    p.by("bob", "deletion, of an own one and one of others", &deletion(&[others, more])).await;
    p.by("bob", "deletion, of a wrap to others", &deletion(&[to_others])).await;
    p.by("bob", "deletion, of a wrap to the author", &deletion(&[to_bob])).await;
    p.by("bob", "deletion, of an own deletion", &deletion(&[first.event(&keypair("bob")).id()])).await;
    p.by("bob", "deletion, of a direct message to the author", &deletion(&[direct])).await;
    p.by("bob", "deletion, of an own message", &deletion(&[said])).await;
    let address = |name: &str| event(5, "").tag(&["a", &format!("30023:{}:x", key(name))]);
    p.by("bob", "deletion, of an own address", &address("bob")).await;
    p.by("bob", "deletion, of an address of others", &address("alice")).await;
    for (id, is_kept) in [(mine, false), (more, false), (others, true), (direct, true), (to_others, true)] {
        assert_eq!(p.w.holds(id).await, is_kept);
    }
    assert!(!p.w.holds(to_bob).await && p.w.holds(said).await);
    p.by("bob", "vanish, new", &vanish(START - 100)).await;
}

async fn rosters(p: &mut Publishing<'_>) {
    let founding = roster("team", 1, "bootstrap", &["alice", "bob"]);
    p.by("admin", "roster, founds", &founding).await;
    p.by("admin", "roster, again", &founding).await;
    p.by("admin", "roster, stale", &roster("team", 1, "add", &["carol"])).await;
    p.by("admin", "roster, adds a present member", &roster("team", 2, "add", &["bob"])).await;
    p.by("admin", "roster, adds a present and a new member", &roster("team", 2, "add", &["bob", "carol"])).await;
    let named = roster("team", 3, "add", &["bob"]).tag(&["name", "Team"]);
    p.by("admin", "roster, names the group alone", &named).await;
    p.by("admin", "roster, removes nobody", &roster("team", 4, "remove", &["nobody"])).await;
    p.by("admin", "roster, promotes no member", &roster("team", 4, "promote", &["nobody"])).await;
    p.by("dave", "roster, by a stranger", &roster("team", 4, "add", &["dave"])).await;
    p.by("carol", "roster, a member leaves", &roster("team", 4, "remove", &["carol"])).await;
    let members = p.w.members("team").await.expect("a group");
    assert_eq!(members.len(), 2);
}

async fn wraps(p: &mut Publishing<'_>) {
    let to = |name: &str, group: &str, text: &str| wrap(name, text).tag(&["h", group]);
    p.at(START, "wrap, without h", &wrap("bob", "1"), "throw-away", &[]).await;
    for (by, name) in [("a member", "alice"), ("an admin key", "admin"), ("a stranger", "dave")] {
        let situation = format!("wrap, to a roster's group by {by}");
        p.at(START, &situation, &to("dave", "team", name), "throw-away", &[name]).await;
    }
    assert_eq!(p.w.members("team").await.map(|members| members.len()), Some(2));
    let founding = to("bob", "club", "2");
    p.by("alice", "wrap, founds", &founding).await;
    p.by("alice", "wrap, again", &founding).await;
    new(p.w.publish(&deletion(&[founding.event(&keypair("alice")).id()]), "bob").await);
    p.by("alice", "wrap, deleted by its recipient", &founding).await;
    p.by("bob", "wrap, by a member to a new member", &to("carol", "club", "3")).await;
    p.by("bob", "wrap, by a member to a member", &to("alice", "club", "4")).await;
    p.by("dave", "wrap, by a stranger", &to("dave", "club", "5")).await;
    p.at(START, "wrap, by nobody", &to("dave", "club", "6"), "throw-away", &[]).await;
    p.by("dave", "wrap, founds with itself", &to("dave", "own", "7")).await;
    p.by("dave", "wrap, of an unlisted group", &to("bob", &capability("room"), "8")).await;
    assert_eq!(p.w.members("club").await.map(|members| members.len()), Some(3));
    assert!(p.w.members("own").await.is_none());
    for n in 0..20 {
        new(p.w.publish(&to("carol", &format!("club{n}"), "9"), "eve").await);
    }
    p.by("eve", "wrap, founds the 21st group", &to("carol", "another", "10")).await;
    p.by("eve", "wrap, by a stranger beyond that", &to("carol", "club", "11")).await;
}
