//! Reads of the states of groups: an instance reads a state anew after a change of that group, and after nothing else.

use std::sync::atomic::Ordering;

use serde_json::json;

use super::{Pair, contents};
use crate::support::{
    Client, Event, Keys, TestRelay,
    gateway::{capability, message, roster, welcome},
    shared::{Link, Shared},
};

/// Reads of groups' states, and questions which groups are known, so far.
fn reads(link: &Link) -> (u64, u64) {
    (link.group_reads.load(Ordering::Relaxed), link.group_questions.load(Ordering::Relaxed))
}

/// A gift wrap that names a group and changes nothing costs no instance a read of the group: not the one that takes it,
/// and not one that delivers the next message.
#[tokio::test]
async fn a_wrap_that_changes_nothing_reloads_no_group() {
    let pair = Pair::start().await;
    let [alice, bob] = Keys::some();
    let mut bobs = Client::of(&pair.b, &[&bob]).await;
    bobs.req("live", &[json!({"kinds": [445]})]).await.expect("served");
    let mut alices = Client::of(&pair.a, &[&alice]).await;
    // The first wrap founds the group.
    alices.publish(&welcome(&bob, "club").sign()).await.ok();
    alices.publish(&message("club").content("first").sign()).await.ok();
    assert_eq!(contents(&[bobs.next_event("live").await]), ["first"]);
    let before = (reads(&pair.link_a), reads(&pair.link_b));
    for n in 0..20 {
        alices.publish(&welcome(&bob, "club").content(format!("{n}")).sign()).await.ok();
        alices.publish(&message("club").content(n.to_string()).sign()).await.ok();
        assert_eq!(contents(&[bobs.next_event("live").await]), [n.to_string()]);
    }
    assert_eq!((reads(&pair.link_a), reads(&pair.link_b)), before);
    // One that adds a member is followed by a read.
    let [carol] = Keys::some();
    let mut carols = Client::of(&pair.b, &[&carol]).await;
    carols.req("live", &[json!({"kinds": [445]})]).await.expect("served");
    alices.publish(&welcome(&carol, "club").sign()).await.ok();
    alices.publish(&message("club").content("last").sign()).await.ok();
    assert_eq!(contents(&[carols.next_event("live").await]), ["last"]);
    assert!(reads(&pair.link_b).0 > before.1.0);
    pair.stop().await;
}

/// The answer to an event that changed a group waits for no read of the group's new state.
#[tokio::test]
async fn an_answer_waits_for_no_read_of_a_group() {
    let [admin, alice, bob] = Keys::some();
    let (store, link) = Shared::new().instance();
    link.is_alone.store(true, Ordering::Relaxed);
    let relay = TestRelay::start_over(store, |config| config.mls_gateway.admin_pubkeys = vec![admin.public()]).await;
    let mut admins = Client::of(&relay, &[&admin]).await;
    let mut alices = Client::of(&relay, &[&alice]).await;
    alices.req("live", &[json!({"kinds": [445]})]).await.expect("served");
    admins.publish(&roster(&admin, "grp", 1, "bootstrap", &[&alice]).sign()).await.ok();
    // Its state is in memory from here on, so that the next roster is admitted by it.
    alices.publish(&message("grp").content("one").sign()).await.ok();
    let held = link.reading_groups.write().await;
    admins.publish(&roster(&admin, "grp", 2, "add", &[&bob]).sign()).await.ok();
    drop(held);
    let mut bobs = Client::of(&relay, &[&bob]).await;
    bobs.publish(&message("grp").content("two").sign()).await.ok();
    assert_eq!(contents(&alices.live("live", 2).await), ["one", "two"]);
    relay.stop().await;
}

/// The calls of the store that each of `asks` questions for one group costs, on a connection of its own.
async fn cost_of_asking(client: &mut Client, link: &Link, group: &str) -> Vec<(u64, u64)> {
    let mut costs = Vec::new();
    for _ in 0..3 {
        let before = reads(link);
        assert_eq!(client.count(&[json!({"#h": [group], "kinds": [445]})]).await, Ok(0));
        let after = reads(link);
        costs.push((after.0 - before.0, after.1 - before.1));
    }
    costs
}

/// A reader that is no member cannot tell by the calls of the store whether a group exists: the first question on its
/// connection is asked of the store, the later ones are not.
#[tokio::test]
async fn asking_for_a_group_costs_the_same_known_or_not() {
    let pair = Pair::start().await;
    let [alice, mallory] = Keys::some();
    let (managed, unknown) = (capability(), capability());
    pair.found(&managed, &[&alice]).await;
    let mut alices = Client::of(&pair.b, &[&alice]).await;
    alices.publish(&message(&managed).content("secret").sign()).await.ok();
    assert_eq!(alices.ids(json!({"#h": [&managed], "kinds": [445]})).await.map(|ids| ids.len()), Ok(1));
    for keys in [&[][..], &[&mallory]] {
        for connection in 0..2 {
            let mut client = Client::of(&pair.b, keys).await;
            for group in [&managed, &unknown] {
                let costs = cost_of_asking(&mut client, &pair.link_b, group).await;
                assert_eq!(costs, [(0, 1), (0, 0), (0, 0)], "{connection}: {}", group == &managed);
            }
        }
    }
    // A member costs no question.
    let before = reads(&pair.link_b);
    assert_eq!(alices.ids(json!({"#h": [&managed], "kinds": [445]})).await.map(|ids| ids.len()), Ok(1));
    assert_eq!(reads(&pair.link_b), before);
    pair.stop().await;
}

/// A group that was remembered as one that does not exist is found once it does, whichever instance founded it, and its
/// messages are hidden from everyone who is no member.
#[tokio::test]
async fn a_group_that_comes_to_be_is_found_and_guarded() {
    let pair = Pair::start().await;
    let [alice, mallory] = Keys::some();
    let mut bystander = Client::of(&pair.b, &[&mallory]).await;
    let mut alices = Client::of(&pair.b, &[&alice]).await;
    for n in 0..10 {
        let group = if n % 2 == 0 { capability() } else { format!("grp_{n}") };
        let filter = json!({"#h": [&group], "kinds": [445]});
        for client in [&mut bystander, &mut alices] {
            assert_eq!(client.ids(filter.clone()).await, Ok(vec![]));
            assert_eq!(client.ids(filter.clone()).await, Ok(vec![]));
        }
        pair.found(&group, &[&alice]).await;
        let sent: Vec<Event> = vec![message(&group).content("secret").sign()];
        alices.publish(&sent[0]).await.ok();
        assert_eq!(alices.ids(filter.clone()).await, Ok(vec![sent[0].id().to_owned()]));
        assert_eq!(bystander.ids(filter).await, Ok(vec![]));
    }
    pair.stop().await;
}
