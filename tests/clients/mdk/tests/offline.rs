//! Offline member.

use mdk_clients::group::{found_together, later_second_than};
use mdk_clients::person::Person;
use mdk_clients::relay::{Relay, Settings};
use mdk_core::prelude::NostrGroupDataUpdate;

/// A member that returns gets all messages and commits of its time offline, in an order in which MDK can read them.
///
/// Without a commit, MDK can never decrypt later messages. A relay that loses one event thus excludes the member from
/// the group.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn returning_member_catches_up() {
    let relay = Relay::start(Settings::default()).await;
    let mut alice = Person::with_signer("Alice", &relay).await;
    let mut bob = Person::with_signer("Bob", &relay).await;
    let mut carol = Person::with_signer("Carol", &relay).await;
    for person in [&alice, &bob, &carol] {
        person.introduce().await;
    }
    let admins = [alice.public_key()];
    found_together(&mut alice, &mut [&mut bob, &mut carol], &admins).await;
    let words = alice.say("while all are here").await;
    bob.hear(&words).await;

    bob.disconnect().await;
    alice.say("before the commit").await;
    let update = NostrGroupDataUpdate::new().name("Renamed");
    let renaming = alice.mdk.update_group_data(alice.group_id(), update).expect("an admin renames the group");
    let renaming = alice.commit(renaming).await;
    carol.read_until_delivered(&[renaming.id]).await;
    later_second_than(&renaming).await;
    let words = alice.say("after the commit").await;
    carol.hear(&words).await;
    let words = carol.say("he will read this").await;
    alice.hear(&words).await;

    bob.reconnect().await;
    bob.catch_up().await;
    assert_eq!(bob.state(), alice.state());
    let mut words = bob.words();
    words.sort_unstable();
    let mut sent = alice.words();
    sent.sort_unstable();
    assert_eq!(words, sent);

    bob.listen().await;
    let words = bob.say("here again").await;
    alice.hear(&words).await;
    carol.hear(&words).await;
}
