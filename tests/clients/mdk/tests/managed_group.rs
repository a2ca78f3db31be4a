//! Managed group: the relay has its roster.

use mdk_clients::connection::Connection;
use mdk_clients::group::{bring_in, key_packages_of};
use mdk_clients::person::Person;
use mdk_clients::relay::{Relay, Settings};
use mdk_core::prelude::NostrGroupDataUpdate;
use nostr::event::{EventBuilder, Kind, Tag, TagKind};
use nostr::{Filter, Keys, PublicKey};

/// Kind of a roster, by which an admin states the members of a group.
const ROSTER: Kind = Kind::Custom(450);

/// Admin of the relay, which publishes the rosters.
struct Admin {
    keys: Keys,
    connection: Connection,
}

/// With `[auth]` on and a roster (kind 450), only the group's present members get its messages. MDK and nostr-sdk work
/// as without a roster.
///
/// The messages are signed by throw-away keys, so only the connection shows the relay that a member wrote them. Carol
/// opens her subscription while she is a member, and gets nothing on it after her removal. Unlisted groups are on as
/// well, to show that the roster alone closes the group to others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn managed_group_with_auth() {
    let keys = Keys::generate();
    let settings = Settings { auth: true, admin: Some(keys.public_key()) };
    let relay = Relay::start(settings).await;
    let admin = Admin::new(keys, &relay).await;
    let mut alice = Person::with_signer("Alice", &relay).await;
    let mut bob = Person::with_signer("Bob", &relay).await;
    let mut carol = Person::with_signer("Carol", &relay).await;
    let mut dave = Person::with_signer("Dave, an outsider,", &relay).await;
    for person in [&mut alice, &mut bob, &mut carol, &mut dave] {
        person.introduce().await;
        person.connection.authenticated().await;
    }
    found_by_roster(&admin, &mut alice, &mut [&mut bob, &mut carol]).await;
    let outsiders = dave.connection.subscribe(alice.messages_filter()).await;

    let words = alice.say("members only").await;
    bob.hear(&words).await;
    carol.hear(&words).await;
    let words = carol.say("understood").await;
    bob.hear(&words).await;
    alice.hear(&words).await;

    remove(&admin, &mut alice, &mut bob, &mut carol).await;
    let words = alice.say("she is gone").await;
    bob.hear(&words).await;
    let words = bob.say("so she is").await;
    alice.hear(&words).await;
    assert_eq!(alice.state(), bob.state());

    carol.connection.level_with(&admin.connection).await;
    assert_eq!(carol.unread(), 0, "on the old subscription");
    assert_eq!(carol.words(), ["members only", "understood"]);
    dave.connection.level_with(&admin.connection).await;
    assert_eq!(dave.connection.waiting_events(&outsiders), 0);
    for outsider in [&mut carol, &mut dave] {
        assert_shut_out(outsider, &bob).await;
    }
    let rosters = Filter::new().kind(ROSTER);
    assert_eq!(bob.connection.fetch(rosters).await.len(), 2);
}

/// A relay with a strict order of commits keeps both of two commits of one epoch of a Marmot group: they show no MLS
/// header, and the clients choose between them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strict_order_lets_both_of_two_commits_through() {
    let keys = Keys::generate();
    let relay = Relay::start(Settings { auth: true, admin: Some(keys.public_key()) }).await;
    let admin = Admin::new(keys, &relay).await;
    let mut alice = Person::with_signer("Alice", &relay).await;
    let mut bob = Person::with_signer("Bob", &relay).await;
    for person in [&mut alice, &mut bob] {
        person.introduce().await;
        person.connection.authenticated().await;
    }
    let invited = key_packages_of(&mut alice, &[&mut bob]).await;
    let welcomes = alice.found_group(&invited, &[alice.public_key(), bob.public_key()]);
    admin.states(&alice.nostr_group_id(), 1, "bootstrap", &[alice.public_key(), bob.public_key()]).await;
    bring_in(&mut alice, &mut [&mut bob], &invited, welcomes).await;

    let rename = |person: &Person, name: &str| {
        let update = NostrGroupDataUpdate::new().name(name);
        let change = person.mdk.update_group_data(person.group_id(), update).expect("an admin renames the group");
        change.evolution_event
    };
    let commits = [rename(&alice, "of Alice"), rename(&bob, "of Bob")];
    alice.connection.publish(&commits[0]).await;
    bob.connection.publish(&commits[1]).await;
    let ids = commits.map(|commit| commit.id);
    alice.read_until_delivered(&ids).await;
    bob.read_until_delivered(&ids).await;
    assert_eq!(alice.state(), bob.state());
    let words = alice.say("we agree").await;
    bob.hear(&words).await;
}

/// Founds the group, and publishes its roster before its first message: a group whose `h` carried messages without a
/// roster would stay unlisted.
async fn found_by_roster(admin: &Admin, alice: &mut Person, others: &mut [&mut Person]) {
    let invited = key_packages_of(alice, others).await;
    let welcomes = alice.found_group(&invited, &[alice.public_key()]);
    let mut members = vec![alice.public_key()];
    members.extend(others.iter().map(|other| other.public_key()));
    admin.states(&alice.nostr_group_id(), 1, "bootstrap", &members).await;
    bring_in(alice, others, &invited, welcomes).await;
}

/// Removes Carol twice: by a commit, which she still gets, and from the roster.
async fn remove(admin: &Admin, alice: &mut Person, bob: &mut Person, carol: &mut Person) {
    let removal = alice
        .mdk
        .remove_members(alice.group_id(), &[carol.public_key()])
        .expect("an admin of the MLS group removes a member");
    let removal = alice.commit(removal).await.id;
    bob.read_until_delivered(&[removal]).await;
    carol.read_until_delivered(&[removal]).await;
    admin.states(&alice.nostr_group_id(), 2, "remove", &[carol.public_key()]).await;
}

/// Asserts that an outsider gets neither messages nor rosters nor others' gift wraps, and cannot publish a message,
/// even one that a member has encrypted.
async fn assert_shut_out(outsider: &mut Person, member: &Person) {
    let connection = &mut outsider.connection;
    assert_eq!(connection.fetch(member.messages_filter()).await, []);
    assert_eq!(connection.fetch(Filter::new().kind(ROSTER)).await, []);
    let others_wraps = Filter::new().kind(Kind::GiftWrap).pubkey(member.public_key());
    assert_eq!(connection.fetch(others_wraps).await, []);
    let carried = member.message("published by an outsider");
    let reason = connection.try_publish(&carried).await.expect_err("only members publish");
    assert!(reason.starts_with("restricted:"), "{reason}");
}

impl Admin {
    async fn new(keys: Keys, relay: &Relay) -> Self {
        let connection = Connection::open(&relay.url(), Some(&keys)).await;
        Self { keys, connection }
    }

    /// Publishes a roster event.
    async fn states(&self, group: &str, seq: u32, operation: &str, members: &[PublicKey]) {
        let tag = |name: &'static str, value: String| Tag::custom(TagKind::custom(name), [value]);
        let roster = EventBuilder::new(ROSTER, "")
            .tag(tag("h", group.to_owned()))
            .tag(tag("seq", seq.to_string()))
            .tag(tag("op", operation.to_owned()))
            .tags(members.iter().map(|key| Tag::public_key(*key)))
            .sign_with_keys(&self.keys)
            .expect("a roster event can be signed");
        self.connection.publish(&roster).await;
    }
}
