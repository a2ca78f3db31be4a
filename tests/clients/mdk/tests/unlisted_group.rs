//! Unlisted group: the relay has no roster of it.

use mdk_clients::group::found_together;
use mdk_clients::person::Person;
use mdk_clients::relay::{Relay, Settings};
use mdk_core::prelude::group_types::GroupState;

/// A relay with `[auth]` off and unlisted groups on serves a group from its KeyPackages to the removal of a member,
/// although nobody has announced the group to it.
///
/// Every Marmot client relies on this. The removed member still gets the ciphertexts, because anyone who knows an
/// unlisted group's id may read them. MLS keeps them undecryptable for that member, as this test checks too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_people_talk_in_an_unlisted_group() {
    let relay = Relay::start(Settings::default()).await;
    let mut alice = Person::with_signer("Alice", &relay).await;
    let mut bob = Person::with_signer("Bob", &relay).await;
    let mut carol = Person::with_signer("Carol", &relay).await;
    for person in [&alice, &bob, &carol] {
        person.introduce().await;
    }
    let admins = [alice.public_key()];
    found_together(&mut alice, &mut [&mut bob, &mut carol], &admins).await;

    let words = alice.say("welcome, both").await;
    bob.hear(&words).await;
    carol.hear(&words).await;
    let words = bob.say("good to be here").await;
    alice.hear(&words).await;
    carol.hear(&words).await;
    let words = carol.say("so it is").await;
    alice.hear(&words).await;
    bob.hear(&words).await;

    let removal = alice.mdk.remove_members(alice.group_id(), &[carol.public_key()]).expect("an admin removes a member");
    let removal = alice.commit(removal).await.id;
    bob.read_until_delivered(&[removal]).await;
    carol.read_until_delivered(&[removal]).await;
    assert_eq!(carol.group().state, GroupState::Inactive);
    assert_eq!(alice.state(), bob.state());

    let words = alice.message("now we are two");
    alice.connection.publish(&words).await;
    for person in [&mut alice, &mut bob, &mut carol] {
        person.read_until_delivered(&[words.id]).await;
    }
    let words = bob.message("we are");
    bob.connection.publish(&words).await;
    for person in [&mut alice, &mut bob, &mut carol] {
        person.read_until_delivered(&[words.id]).await;
    }

    let before = ["welcome, both", "good to be here", "so it is"];
    let all = [&before[..], &["now we are two", "we are"]].concat();
    assert_eq!(alice.words(), all);
    assert_eq!(bob.words(), all);
    assert_eq!(carol.words(), before);
}
