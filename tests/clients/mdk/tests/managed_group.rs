//! A group that the relay keeps a roster of.

use mdk_clients::connection::Connection;
use mdk_clients::person::Person;
use mdk_clients::relay::{Relay, Settings};
use nostr::event::{Event, EventBuilder, Kind, Tag, TagKind};
use nostr::{Keys, PublicKey};

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
    let group = alice.nostr_group_id();
    let messages = alice.messages_filter();
    let peephole = dave.connection.subscribe(messages.clone()).await;

    alice.say("members only").await;
    bob.hear(&alice, "members only").await;
    carol.hear(&alice, "members only").await;
    carol.say("understood").await;
    bob.hear(&carol, "understood").await;
    alice.hear(&carol, "understood").await;
    let intrusion = outsiders_message(&bob);
    let refusal = dave.connection.try_publish(&intrusion).await;
    assert_restricted(refusal);

    let removal = alice
        .mdk
        .remove_members(alice.group_id(), &[carol.public_key()])
        .expect("an admin of the MLS group removes a member");
    let removal = alice.commit(removal).await.id;
    bob.read_until_delivered(&[removal]).await;
    carol.read_until_delivered(&[removal]).await;
    admin.states(&group, 2, "remove", &[carol.public_key()]).await;

    alice.say("she is gone").await;
    bob.hear(&alice, "she is gone").await;
    bob.say("so she is").await;
    alice.hear(&bob, "so she is").await;
    assert_eq!(alice.state(), bob.state());

    carol.connection.level_with(&admin.connection).await;
    assert_eq!(carol.unread(), 0, "on the old subscription");
    assert_eq!(carol.connection.fetch(messages.clone()).await, []);
    assert_restricted(carol.connection.try_publish(&outsiders_message(&bob)).await);
    assert_eq!(carol.words(), ["members only", "understood"]);

    dave.connection.level_with(&admin.connection).await;
    assert_eq!(dave.connection.waiting_events(&peephole), 0);
    assert_eq!(dave.connection.fetch(messages).await, []);
}

/// The roster stands before the first group message: an `h` that was ever used without one stays unlisted.
async fn found_by_roster(admin: &Admin, alice: &mut Person, others: &mut [&mut Person]) {
    let mut invited = Vec::new();
    for other in others.iter() {
        invited.push(alice.key_package_of(other.public_key()).await);
    }
    let welcomes = alice.found_group(&invited, &[alice.public_key()]);
    let mut members = vec![alice.public_key()];
    members.extend(others.iter().map(|other| other.public_key()));
    admin.states(&alice.nostr_group_id(), 1, "bootstrap", &members).await;
    alice.invite(&invited, welcomes).await;
    alice.listen().await;
    for other in others {
        let invitation = other.invitation(&other.connection).await;
        other.join(invitation);
        other.listen().await;
    }
}

/// A group message that would be valid, had it come from a member's connection.
fn outsiders_message(member: &Person) -> Event {
    member.message("carried in by someone else")
}

fn assert_restricted(refusal: Result<(), String>) {
    let reason = refusal.expect_err("only members publish to a managed group");
    assert!(reason.contains("restricted:"), "{reason}");
}

impl Admin {
    async fn new(keys: Keys, relay: &Relay) -> Self {
        let connection = Connection::open(&relay.url(), Some(&keys)).await;
        Self { keys, connection }
    }

    /// Publishes a roster event.
    async fn states(&self, group: &str, seq: u32, operation: &str, members: &[PublicKey]) {
        let tag = |name: &'static str, value: String| Tag::custom(TagKind::custom(name), [value]);
        let roster = EventBuilder::new(Kind::Custom(450), "")
            .tag(tag("h", group.to_owned()))
            .tag(tag("seq", seq.to_string()))
            .tag(tag("op", operation.to_owned()))
            .tags(members.iter().map(|key| Tag::public_key(*key)))
            .sign_with_keys(&self.keys)
            .expect("a roster event can be signed");
        self.connection.publish(&roster).await;
    }
}
