//! A group that the relay keeps a roster of.

use mdk_clients::connection::Connection;
use mdk_clients::group::{bring_in, key_packages_of};
use mdk_clients::person::Person;
use mdk_clients::relay::{Relay, Settings};
use nostr::event::{EventBuilder, Kind, Tag, TagKind};
use nostr::{Filter, Keys, PublicKey};

/// Kind 450: who is in a group, by an admin's word.
const ROSTER: Kind = Kind::Custom(450);

/// The relay's admin, who states who is in the group.
struct Admin {
    keys: Keys,
    connection: Connection,
}

/// With `[auth]` on and a roster (kind 450), the group's messages go to its members of now and to no one else, while MDK
/// and nostr-sdk notice nothing of it.
///
/// The messages are signed by throw-away keys: that a member wrote them the relay can only know by the connection. Carol's
/// subscription was opened while she was a member, and must fall silent with her removal. Unlisted groups are on as well,
/// so that it is the roster that closes this group and not the lack of another way in.
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
    let peephole = dave.connection.subscribe(alice.messages_filter()).await;

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
    assert_eq!(dave.connection.waiting_events(&peephole), 0);
    for outsider in [&mut carol, &mut dave] {
        assert_shut_out(outsider, &bob).await;
    }
    let rosters = Filter::new().kind(ROSTER);
    assert_eq!(bob.connection.fetch(rosters).await.len(), 2);
}

/// The roster stands before the first group message: an `h` that was ever used without one stays unlisted.
async fn found_by_roster(admin: &Admin, alice: &mut Person, others: &mut [&mut Person]) {
    let invited = key_packages_of(alice, others).await;
    let welcomes = alice.found_group(&invited, &[alice.public_key()]);
    let mut members = vec![alice.public_key()];
    members.extend(others.iter().map(|other| other.public_key()));
    admin.states(&alice.nostr_group_id(), 1, "bootstrap", &members).await;
    bring_in(alice, others, &invited, welcomes).await;
}

/// Carol leaves twice: by a commit, which she still gets, and off the roster.
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

/// Neither the messages nor the rosters are there for them, nor can they carry in a message, though a member encrypted it.
async fn assert_shut_out(outsider: &mut Person, member: &Person) {
    let connection = &mut outsider.connection;
    assert_eq!(connection.fetch(member.messages_filter()).await, []);
    assert_eq!(connection.fetch(Filter::new().kind(ROSTER)).await, []);
    let others_wraps = Filter::new().kind(Kind::GiftWrap).pubkey(member.public_key());
    assert_eq!(connection.fetch(others_wraps).await, []);
    let carried = member.message("carried in by someone else");
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
