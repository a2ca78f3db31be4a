//! A real MLS group by openmls, through the relay in the specification's own shapes: KeyPackages (443), a roster (450),
//! Welcomes in gift wraps (1059), messages (445). Each test runs with AUTH on and with AUTH off.

mod commit_order;
mod nip44;
mod person;

use nostr_extensions::{GroupStatus, NostrGroupId};
use serde_json::json;

use self::person::{Heard, Person};
use crate::{
    hidden::{self, Expected},
    support::{Client, Event, Keys, TestRelay, gateway, rest::Rest},
};

#[tokio::test]
async fn three_people_talk_and_whoever_is_outside_sees_nothing_with_auth() {
    three_people_talk_and_whoever_is_outside_sees_nothing(true).await;
}

#[tokio::test]
async fn three_people_talk_and_whoever_is_outside_sees_nothing_without_auth() {
    three_people_talk_and_whoever_is_outside_sees_nothing(false).await;
}

async fn three_people_talk_and_whoever_is_outside_sees_nothing(auth: bool) {
    let mut scene = Scene::start(auth).await;
    let mut outside = Outside::arrive(&scene).await;
    let (mut alice, mut bob, mut carol) = (scene.arrive().await, scene.arrive().await, scene.arrive().await);
    found_group(&mut scene, &mut alice, &mut [&mut bob, &mut carol]).await;
    talk(&mut [&mut alice, &mut bob, &mut carol]).await;

    alice.expel(&carol).await;
    assert_eq!(bob.hear().await, Heard::Commit);
    assert_eq!(carol.hear().await, Heard::Commit);
    assert!(!carol.person.is_in_group() && bob.person.is_in_group());
    scene.roster("remove", &[&carol]).await;
    let before = alice.sent.len();
    talk(&mut [&mut alice, &mut bob]).await;
    assert_eq!(alice.person.epoch(), bob.person.epoch());

    // Carol's subscription has been open since before the group existed.
    assert_eq!(carol.client.received("group").await, [], "events sent after the removal");
    let mut hidden = scene.rosters.clone();
    for member in [&alice, &bob, &carol] {
        hidden.extend(member.sent.iter().cloned());
    }
    assert!(before > 0 && alice.sent.len() > before, "messages from before and after the removal are asked for");
    carol.expect_nothing_of(&hidden).await;
    outside.expect_nothing_of(&hidden, auth).await;
    carol.publish_refused(&scene).await;

    // A member gets answers to the same queries, so the empty answers above do not come from an empty store.
    let archive = bob.client.ids(json!({"kinds": [445]})).await.expect("a member reads");
    assert_eq!(archive.len(), hidden.iter().filter(|event| event.kind() == 445).count());
    assert_eq!(bob.client.count(&[json!({"kinds": [445], "#h": [&scene.group]})]).await, Ok(archive.len() as u64));
    assert_eq!(bob.client.ids(json!({"ids": [alice.sent[0].id()]})).await.expect("a member reads").len(), 1);
    scene.relay.stop().await;
}

#[tokio::test]
async fn a_late_joiner_reads_the_archive_and_talks_with_auth() {
    a_late_joiner_reads_the_archive_and_talks(true).await;
}

#[tokio::test]
async fn a_late_joiner_reads_the_archive_and_talks_without_auth() {
    a_late_joiner_reads_the_archive_and_talks(false).await;
}

async fn a_late_joiner_reads_the_archive_and_talks(auth: bool) {
    let mut scene = Scene::start(auth).await;
    let (mut alice, mut bob, mut dave) = (scene.arrive().await, scene.arrive().await, scene.arrive().await);
    found_group(&mut scene, &mut alice, &mut [&mut bob]).await;
    talk(&mut [&mut alice, &mut bob]).await;
    assert_eq!(dave.client.ids(json!({"kinds": [445]})).await.as_deref(), Ok(&[][..]));

    scene.roster("add", &[&dave]).await;
    alice.invite(&mut [&mut dave]).await;
    assert_eq!(bob.hear().await, Heard::Commit);
    let messages = alice.sent.iter().chain(&bob.sent).filter(|event| event.kind() == 445);
    let mut sent: Vec<&str> = messages.map(Event::id).collect();
    let archive = dave.client.req("archive", &[json!({"kinds": [445], "#h": [&scene.group]})]).await.expect("a member");
    let mut read: Vec<&str> = archive.iter().map(Event::id).collect();
    sent.sort_unstable();
    read.sort_unstable();
    assert_eq!(read, sent, "the whole archive, from before the invitation too");
    // The relay serves the bytes; MLS gives the keys of an epoch only to the members of that epoch.
    assert!(archive.iter().all(|event| dave.person.hear(event).is_err()));

    talk_from_now(&mut [&mut alice, &mut bob, &mut dave]).await;
    assert_eq!(dave.person.epoch(), alice.person.epoch());
    scene.relay.stop().await;
}

#[tokio::test]
async fn the_epoch_is_read_from_the_mls_header_whatever_k_says() {
    let mut scene = Scene::start(true).await;
    let (mut alice, mut bob) = (scene.arrive().await, scene.arrive().await);
    found_group(&mut scene, &mut alice, &mut [&mut bob]).await;
    assert_eq!(scene.last_epoch().await, Some(0), "the invitation is a commit of epoch 0");
    talk(&mut [&mut alice, &mut bob]).await;
    assert_eq!((alice.person.epoch(), scene.last_epoch().await), (1, Some(1)));
    let real = alice.person.say("the k beside this is made up");
    let lying = gateway::message(&scene.group).tag(["k", "700"]).content(real.content()).sign();
    alice.client.publish(&lying).await.ok();
    assert_eq!(bob.hear_one_of(&lying).await, said(&alice, "the k beside this is made up"));
    assert_eq!(scene.last_epoch().await, Some(1));
    scene.relay.stop().await;
}

/// Members are invited by KeyPackages that were claimed: each of them is another one, also for the same person.
#[tokio::test]
async fn a_group_is_built_from_claimed_packages() {
    let mut scene = Scene::start(true).await;
    let (mut alice, mut bob, mut carol) = (scene.arrive().await, scene.arrive().await, scene.arrive().await);
    scene.roster("bootstrap", &[&alice, &bob, &carol]).await;
    alice.person.found(&scene.group);
    let mut packages = Vec::new();
    for owner in [&mut bob, &mut carol] {
        let published = [owner.person.key_package(), owner.person.key_package()];
        for package in &published {
            owner.client.publish(package).await.ok();
        }
        let asked = json!({"owner": owner.person.keys.hex(), "ciphersuite": 1}).to_string();
        let answer = Rest::of(&scene.relay, &alice.person.keys).post("/keypackages/claim", asked).ok().await;
        let claimed = Event(answer["keypackages"][0]["event"].clone());
        assert_eq!((&claimed, &answer["keypackages"][0]["last_resort"]), (&published[0], &json!(false)));
        packages.push(claimed);
    }
    let invitation = alice.person.invite(&packages);
    alice.publish(&invitation.commit).await;
    alice.person.merge();
    for (member, welcome) in [&mut bob, &mut carol].into_iter().zip(&invitation.welcomes) {
        alice.publish(welcome).await;
        let wrap = member.client.next_event("wraps").await;
        member.person.join(&wrap);
        member.client.received("group").await;
    }
    talk(&mut [&mut alice, &mut bob, &mut carol]).await;
    scene.relay.stop().await;
}

/// The admin bootstraps the roster with all of them; alice founds the MLS group and invites the others.
async fn found_group(scene: &mut Scene, alice: &mut Member, others: &mut [&mut Member]) {
    let mut everyone: Vec<&Member> = vec![alice];
    everyone.extend(others.iter().map(|member| &**member));
    scene.roster("bootstrap", &everyone).await;
    alice.person.found(&scene.group);
    alice.invite(others).await;
}

/// Each member says something, and each of the others reads the text and its author.
async fn talk(members: &mut [&mut Member]) {
    for speaker in 0..members.len() {
        let text = format!("words of number {speaker}, in epoch {}", members[speaker].person.epoch());
        let sent = members[speaker].say(&text).await;
        let expected = said(members[speaker], &text);
        for listener in (0..members.len()).filter(|listener| *listener != speaker) {
            assert_eq!(members[listener].hear_one_of(&sent).await, expected);
        }
    }
}

/// Drops the events received so far, some of which a late joiner cannot decrypt, and then does as [`talk`].
async fn talk_from_now(members: &mut [&mut Member]) {
    for member in &mut *members {
        member.client.received("group").await;
    }
    talk(members).await;
}

fn said(by: &Member, text: &str) -> Heard {
    Heard::Said { by: by.person.keys.hex(), text: text.to_owned() }
}

/// A relay, its admin, and a group's id.
struct Scene {
    relay: TestRelay,
    admin: Keys,
    admin_client: Client,
    group: String,
    /// The 450s so far; the next `seq` is one above their number.
    rosters: Vec<Event>,
}

impl Scene {
    async fn start(auth: bool) -> Self {
        let admin = Keys::random();
        let relay = TestRelay::start(|config| {
            config.auth.enabled = auth;
            config.mls_gateway.unlisted_groups = !auth;
            config.mls_gateway.admin_pubkeys = vec![admin.public()];
            config.mls_gateway.verify_keypackages = nostr_extensions::policy::VerifyKeyPackages::Enforce;
        })
        .await;
        Self::of(relay, admin).await
    }

    /// A scene at a relay that has this admin key.
    async fn of(relay: TestRelay, admin: Keys) -> Self {
        let admin_client = Client::of(&relay, &[&admin]).await;
        Self { relay, admin, admin_client, group: "grp_abc123".to_owned(), rosters: Vec::new() }
    }

    async fn arrive(&self) -> Member {
        let person = Person::new();
        let mut client = Client::of(&self.relay, &[&person.keys]).await;
        client.req("group", &[json!({"kinds": [445]})]).await.expect("a reader may ask");
        client.req("wraps", &[json!({"kinds": [1059]})]).await.expect("a reader may ask");
        Member { person, client, sent: Vec::new() }
    }

    async fn roster(&mut self, op: &str, members: &[&Member]) {
        let keys: Vec<&Keys> = members.iter().map(|member| &member.person.keys).collect();
        let seq = self.rosters.len() as u64 + 1;
        let event = gateway::roster(&self.admin, &self.group, seq, op, &keys).sign();
        self.admin_client.publish(&event).await.ok();
        self.rosters.push(event);
    }

    /// The highest epoch that any instance knows; some stores write it a moment later.
    async fn last_epoch(&self) -> Option<u64> {
        let id = NostrGroupId::parse(&self.group).expect("a group id");
        let mut highest = None;
        for app in self.relay.apps() {
            let (state, _) = app.store.group(&id).await.expect("the store answers");
            highest = highest.max(match state.status {
                GroupStatus::Managed(view) => view.record.last_epoch,
                other => panic!("the group is managed, and not {other:?}"),
            });
        }
        highest
    }
}

/// A person with a connection, subscribed to group messages and wraps since it was opened.
struct Member {
    person: Person,
    client: Client,
    /// All 445s and 1059s by this person.
    sent: Vec<Event>,
}

impl Member {
    /// Invites these people: each publishes a KeyPackage, and this member fetches it.
    async fn invite(&mut self, others: &mut [&mut Member]) {
        let mut packages = Vec::new();
        for other in &mut *others {
            let package = other.person.key_package();
            other.client.publish(&package).await.ok();
            let filter = json!({"kinds": [443], "authors": [other.person.keys.hex()], "limit": 1});
            let found = self.client.req("packages", &[filter]).await.expect("KeyPackages are public");
            assert_eq!(found, [package], "as it was signed");
            packages.extend(found);
        }
        let invitation = self.person.invite(&packages);
        self.publish(&invitation.commit).await;
        // MLS clients apply a commit and send the Welcomes once the relay has accepted the commit.
        self.person.merge();
        for (other, welcome) in others.iter_mut().zip(&invitation.welcomes) {
            self.publish(welcome).await;
            let wrap = other.client.next_event("wraps").await;
            assert_eq!(wrap.id(), welcome.id());
            other.person.join(&wrap);
            // A new member cannot decrypt messages from before its Welcome, so they are dropped.
            other.client.received("group").await;
        }
    }

    async fn expel(&mut self, other: &Member) {
        let commit = self.person.expel(&other.person.keys);
        self.publish(&commit).await;
        self.person.merge();
    }

    async fn say(&mut self, text: &str) -> Event {
        let event = self.person.say(text);
        self.publish(&event).await;
        event
    }

    async fn publish(&mut self, event: &Event) {
        self.client.publish(event).await.ok();
        self.sent.push(event.clone());
    }

    /// Waits for the next message of another member and decrypts it.
    async fn hear(&mut self) -> Heard {
        loop {
            let event = self.client.next_event("group").await;
            if !self.sent.contains(&event) {
                return self.person.hear(&event).expect("a member reads it");
            }
        }
    }

    /// Waits for the next message of another member, which must be `sent`, and decrypts it.
    async fn hear_one_of(&mut self, sent: &Event) -> Heard {
        loop {
            let event = self.client.next_event("group").await;
            if !self.sent.contains(&event) {
                assert_eq!(&event, sent, "the next event is the one that was sent, unchanged");
                return self.person.hear(&event).expect("a member reads it");
            }
        }
    }

    /// Checks that a removed member gets nothing at any door but the events addressed to it.
    async fn expect_nothing_of(&mut self, hidden: &[Event]) {
        let own = self.person.keys.hex();
        let is_own = |event: &Event| event.kind() == 1059 && event.0["tags"][0][1] == own.as_str();
        let others: Vec<Event> = hidden.iter().filter(|event| !is_own(event)).cloned().collect();
        for kind in [445, 450] {
            hidden::expect(&mut self.client, json!({"kinds": [kind]}), Expected::Nothing).await;
        }
        for event in others.iter().filter(|event| event.kind() != 1059) {
            for filter in hidden::ways_to(event).into_iter().filter(|filter| filter.get("#p").is_none()) {
                // A filter by `h` without a kind finds the member's own Welcome and nothing else.
                if filter.get("#h").is_none() || filter.get("kinds").is_some() {
                    hidden::expect(&mut self.client, filter, Expected::Nothing).await;
                }
            }
        }
        hidden::expect_none_of(&mut self.client, &others).await;
    }

    /// A former member's message is refused in the same words as a message to an unknown group.
    async fn publish_refused(&mut self, scene: &Scene) {
        let here = self.client.publish(&gateway::message(&scene.group).sign()).await;
        let elsewhere = self.client.publish(&gateway::message("grp_none").sign()).await;
        assert_eq!(here.refused("restricted"), elsewhere.refused("restricted"));
    }
}

/// A client whose key is in no group, and a client without a key; both have been subscribed to everything from the
/// start.
struct Outside {
    stranger: Client,
    anonymous: Client,
    /// The stranger at the REST doors.
    rest: Rest,
}

impl Outside {
    async fn arrive(scene: &Scene) -> Self {
        let keys = Keys::random();
        let rest = Rest::of(&scene.relay, &keys);
        let mut stranger = Client::of(&scene.relay, &[&keys]).await;
        stranger.req("all", &[json!({})]).await.expect("a reader may ask");
        stranger
            .req("group", &[json!({"kinds": [445, 450, 1059]}), json!({"#h": [scene.group]})])
            .await
            .expect("and this");
        let mut anonymous = Client::connect(&scene.relay).await;
        // With AUTH on, the relay answers CLOSED; with AUTH off, the subscription stays open for public events.
        let _ = anonymous.req("all", &[json!({}), json!({"#h": [scene.group]})]).await;
        Self { stranger, anonymous, rest }
    }

    async fn expect_nothing_of(&mut self, hidden: &[Event], auth: bool) {
        for client in [&mut self.stranger, &mut self.anonymous] {
            let live = client.received("all").await;
            assert!(!live.iter().any(|event| hidden.contains(event)), "a hidden event was delivered live");
        }
        assert_eq!(self.stranger.received("group").await, []);
        for kind in [445, 450, 1059] {
            hidden::expect(&mut self.stranger, json!({"kinds": [kind]}), Expected::Nothing).await;
            hidden::expect(&mut self.anonymous, json!({"kinds": [kind]}), Expected::AuthRequired).await;
        }
        for event in hidden {
            // A filter by `p` without a kind also finds public KeyPackages.
            for filter in hidden::ways_to(event) {
                let by_recipient = filter.get("#p").is_some();
                if by_recipient && filter.get("kinds").is_none() {
                    continue;
                }
                hidden::expect(&mut self.stranger, filter.clone(), Expected::Nothing).await;
                let expected =
                    if auth || filter.get("kinds").is_some() { Expected::AuthRequired } else { Expected::Nothing };
                hidden::expect(&mut self.anonymous, filter, expected).await;
            }
        }
        hidden::expect_none_of(&mut self.stranger, hidden).await;
        hidden::expect_none_by_rest(&self.rest, hidden).await;
        if !auth {
            hidden::expect_none_of(&mut self.anonymous, hidden).await;
        }
    }
}
