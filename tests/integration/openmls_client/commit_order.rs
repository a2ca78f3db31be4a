//! Two members commit in one epoch: with `commit_ordering = "strict"` the relay accepts one commit, whatever instances
//! the members use.

use futures_util::future::join;

use super::{Heard, Member, Scene, found_group, talk};
use crate::support::{Event, Keys, TestRelay, gateway, shared::Shared};

/// Rounds in which both members commit at once.
const ROUNDS: u64 = 6;

/// Two instances with an order of commits, and the same admin and group on each.
async fn two_instances() -> [Scene; 2] {
    let (shared, admin) = (Shared::new(), Keys::random());
    let [a, b] = [shared.instance().0, shared.instance().0].map(|store| {
        TestRelay::start_over(store, |config| {
            config.mls_gateway.admin_pubkeys = vec![admin.public()];
            config.mls_gateway.commit_ordering = nostr_extensions::mls_gateway::group::CommitOrdering::Strict;
        })
    });
    let (a, b) = join(a, b).await;
    [Scene::of(a, admin.clone()).await, Scene::of(b, admin).await]
}

#[tokio::test]
async fn of_two_commits_of_one_epoch_one_is_accepted_and_the_loser_follows() {
    let [mut a, b] = two_instances().await;
    let (mut alice, mut bob) = (a.arrive().await, b.arrive().await);
    found_group(&mut a, &mut alice, &mut [&mut bob]).await;
    race(&mut alice, &mut bob).await;
    a.relay.stop().await;
    b.relay.stop().await;
}

/// The same over the store and the number of instances that the environment says.
#[tokio::test]
async fn a_race_of_commits_ends_alike_over_every_store() {
    let admin = Keys::random();
    let relay = TestRelay::start(|config| {
        config.mls_gateway.admin_pubkeys = vec![admin.public()];
        config.mls_gateway.commit_ordering = nostr_extensions::mls_gateway::group::CommitOrdering::Strict;
    });
    let mut scene = Scene::of(relay.await, admin).await;
    let (mut alice, mut bob) = (scene.arrive().await, scene.arrive().await);
    found_group(&mut scene, &mut alice, &mut [&mut bob]).await;
    race(&mut alice, &mut bob).await;
    scene.relay.stop().await;
}

async fn race(alice: &mut Member, bob: &mut Member) {
    for _ in 0..ROUNDS {
        let epoch = alice.person.epoch();
        let (of_alice, of_bob) = (alice.person.update(), bob.person.update());
        let (to_alice, to_bob) = join(alice.client.publish(&of_alice), bob.client.publish(&of_bob)).await;
        assert_ne!(to_alice.accepted, to_bob.accepted, "{to_alice:?} {to_bob:?}");
        let (winner, loser, counts, refused) = match to_alice.accepted {
            true => (&mut *alice, &mut *bob, of_alice, to_bob),
            false => (&mut *bob, &mut *alice, of_bob, to_alice),
        };
        let expected =
            format!("blocked: epoch {epoch} already has a commit {}; process it and send yours again", counts.id());
        assert_eq!(refused.reason, expected);
        winner.person.merge();
        winner.sent.push(counts);

        loser.person.abandon();
        assert_eq!(loser.hear().await, Heard::Commit);
        let again = loser.person.update();
        loser.publish(&again).await;
        loser.person.merge();
        assert_eq!(winner.hear().await, Heard::Commit);
        assert_eq!((winner.person.epoch(), loser.person.epoch()), (epoch + 2, epoch + 2));
        talk(&mut [&mut *alice, &mut *bob]).await;
    }
}

/// Marmot's contents show no header, so a group of Marmot's keeps all commits, and its clients choose one.
#[tokio::test]
async fn commits_of_marmot_are_accepted_whatever_order_the_relay_keeps() {
    let [mut a, b] = two_instances().await;
    let (alice, bob) = (a.arrive().await, b.arrive().await);
    a.roster("bootstrap", &[&alice, &bob]).await;
    let mut clients = [alice.client, bob.client];
    let vectors = include_str!("../../vectors/marmot-events.jsonl").lines().map(|line| {
        let vector: serde_json::Value = serde_json::from_str(line).expect("a vector is JSON");
        Event(vector["event"].clone())
    });
    let mut accepted = 0;
    for (n, marmot) in vectors.filter(|event| event.kind() == 445).enumerate() {
        let event = gateway::message(&a.group).content(marmot.content()).sign();
        let answer = clients[n % 2].publish(&event).await;
        assert_eq!((answer.accepted, answer.reason.as_str()), (true, ""));
        accepted += 1;
    }
    assert!(accepted >= 7, "commits, two of one epoch, and words: {accepted}");
    a.relay.stop().await;
    b.relay.stop().await;
}
