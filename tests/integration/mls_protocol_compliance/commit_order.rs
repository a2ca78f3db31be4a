//! "Commit order" of docs/rules.md, as clients meet it.

use nostr_extensions::mls_gateway::group::CommitOrdering;
use serde_json::json;

use super::World;
use crate::support::{
    Client, Event, Keys, TestRelay,
    gateway::{capability, message, roster},
    http,
};

/// A message that shows the header of a PrivateMessage: each character of its content is one byte.
fn mls(group: &str, epoch: u8, content: u8, text: &str) -> Event {
    let zeros = "\0".repeat(7);
    let (epoch, content) = (char::from(epoch), char::from(content));
    message(group).content(format!("\0\u{1}\0\u{2}\u{3}mls{zeros}{epoch}{content}{text}")).sign()
}

fn commit(epoch: u8, text: &str) -> Event {
    mls("grp", epoch, 3, text)
}

/// A world with the group `grp` of alice, its admin, and bob, who are connected.
async fn group(configure: impl FnOnce(&mut nostr_relay::config::Config)) -> (World, Keys, Client, Client) {
    let world = World::with(configure).await;
    let (alice, bob) = (Keys::random(), Keys::random());
    world.group("grp", &[&alice, &bob]).await;
    world.change("grp", 2, "promote", &[&alice]).await;
    let clients = (world.client(&[&alice]).await, world.client(&[&bob]).await);
    (world, alice, clients.0, clients.1)
}

fn taken(epoch: u8, commit: &Event) -> String {
    format!("epoch {epoch} already has a commit {}; process it and send yours again", commit.id())
}

#[tokio::test]
async fn by_default_the_relay_keeps_no_order() {
    let (world, _, mut alice, mut bob) = group(|_| {}).await;
    for text in ["one", "two"] {
        assert_eq!(alice.publish(&commit(7, text)).await.reason, "");
        bob.publish(&commit(7, &format!("{text} of bob"))).await.ok();
    }
    assert_eq!(world.record("grp").await.commits, None);
}

#[tokio::test]
async fn strict_refuses_the_second_commit_of_an_epoch() {
    let strict = |config: &mut nostr_relay::config::Config| {
        config.mls_gateway.commit_ordering = CommitOrdering::Strict;
    };
    let (world, _, mut alice, mut bob) = group(strict).await;
    let first = commit(7, "first");
    assert_eq!(alice.publish(&first).await.reason, "");
    let second = commit(7, "second");
    assert_eq!(bob.publish(&second).await.refused("blocked"), format!("blocked: {}", taken(7, &first)));
    assert_eq!(bob.ids(json!({"ids": [second.id()]})).await, Ok(vec![]));
    alice.publish(&first).await.ok();
    bob.publish(&commit(9, "jumps")).await.refused("blocked");
    bob.publish(&mls("grp", 7, 1, "words of the epoch before")).await.ok();
    bob.publish(&commit(8, "second, again")).await.ok();
    // A stranger learns nothing of the order.
    let mut eve = world.client(&[&Keys::random()]).await;
    let here = eve.publish(&commit(8, "by a stranger")).await;
    let elsewhere = eve.publish(&mls("none", 8, 3, "by a stranger")).await;
    assert_eq!(here.refused("restricted"), elsewhere.refused("restricted"));
    // The id of an unlisted group has no order: anyone may write there.
    let h = capability();
    for text in ["one", "two"] {
        eve.publish(&mls(&h, 7, 3, text)).await.ok();
    }
}

#[tokio::test]
async fn a_roster_chooses_advisory_and_the_ok_says_what_does_not_fit() {
    let (world, admin, mut alice, mut bob) = group(|_| {}).await;
    let choice = roster(&admin, "grp", 3, "promote", &[&admin]).tag(["commit_ordering", "advisory"]).sign();
    alice.publish(&choice).await.ok();
    let first = commit(7, "first");
    assert_eq!(alice.publish(&first).await.reason, "");
    let second = commit(7, "second");
    let answer = bob.publish(&second).await;
    assert_eq!((answer.accepted, answer.reason), (true, taken(7, &first)));
    assert_eq!(alice.ids(json!({"ids": [second.id()]})).await, Ok(vec![second.id().to_owned()]));
    assert_eq!(world.record("grp").await.commit_ordering, Some(CommitOrdering::Advisory));
}

#[tokio::test]
async fn a_group_admin_frees_an_epoch_that_a_bad_commit_took() {
    let (_world, admin, mut alice, mut bob) = group(|config| {
        config.mls_gateway.commit_ordering = CommitOrdering::Strict;
    })
    .await;
    bob.publish(&commit(7, "bad")).await.ok();
    alice.publish(&commit(7, "good")).await.refused("blocked");
    let reset = |seq| roster(&admin, "grp", seq, "reset-epoch", &[]).tag(["epoch", "7"]).sign();
    bob.publish(&reset(3)).await.refused("restricted");
    alice.publish(&reset(3)).await.ok();
    alice.publish(&commit(7, "good, again")).await.ok();
    bob.publish(&commit(7, "late")).await.refused("blocked");
    alice.publish(&reset(2)).await.refused("invalid");
    let rosters = bob.ids(json!({"kinds": [450], "#h": ["grp"]})).await.expect("a member reads");
    assert_eq!(rosters.len(), 3, "members read that an epoch was freed");
}

#[tokio::test]
async fn messages_of_an_epoch_that_was_left_are_refused_after_the_grace() {
    let (world, _, mut alice, mut bob) = group(|config| {
        config.mls_gateway.commit_ordering = CommitOrdering::Strict;
        config.mls_gateway.commit_grace_secs = 30;
    })
    .await;
    alice.publish(&commit(7, "commit")).await.ok();
    world.relay.advance(29);
    bob.publish(&mls("grp", 7, 1, "in time")).await.ok();
    world.relay.advance(1);
    bob.publish(&mls("grp", 7, 1, "late")).await.refused("blocked");
    bob.publish(&mls("grp", 8, 1, "of the present epoch")).await.ok();
}

#[tokio::test]
async fn nip_11_tells_the_order() {
    let relay = TestRelay::start(|config| config.mls_gateway.commit_ordering = CommitOrdering::Strict).await;
    let page = http(relay.address, "GET /", &[("accept", "application/nostr+json")]).await;
    assert_eq!(page.json()["mls_gateway"]["commit_ordering"], "strict");
}
