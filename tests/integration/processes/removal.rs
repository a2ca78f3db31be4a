//! A removal through one relay applies on the others, in the order of the log.

use std::collections::HashSet;

use serde_json::json;

use super::{Cluster, StoreConfig, gateway};
use crate::support::{
    Client, Event, Keys,
    gateway::{message, roster},
};

const ROUNDS: usize = 200;
const GROUP: &str = "grp_removed";
/// Messages of each round, sent at once while the removal is under way.
const MESSAGES: usize = 6;

async fn client(url: &str, keys: &Keys) -> Client {
    let mut client = Client::open(url, &[]).await.expect("it connects");
    client.auth(keys).await.ok();
    client
}

/// Bob is connected to the third relay. In each round he is added; then alice sends messages through the second relay
/// while he is removed through the first. He must get no message that follows his removal in the log, and no message
/// twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_elsewhere_holds_for_the_next_message_two_hundred_times() {
    let Some(store) = StoreConfig::new() else { return };
    let [admin, alice, bob] = Keys::some();
    let admins = format!("admin_pubkeys = [\"{}\"]", admin.hex());
    let cluster = Cluster::start(4, store.with([gateway(admins)]));
    let mut admins = client(&cluster.url(0), &admin).await;
    let mut alices = client(&cluster.url(1), &alice).await;
    let mut bobs = client(&cluster.url(2), &bob).await;
    let mut watcher = client(&cluster.url(3), &admin).await;
    admins.publish(&roster(&admin, GROUP, 1, "bootstrap", &[&admin, &alice]).sign()).await.ok();
    bobs.req_now("live", &[json!({"kinds": [445]})]).await.expect("it is served");
    // The watcher's subscription shows the log as a fourth instance delivers it: rosters and messages together.
    watcher.req_now("log", &[json!({"kinds": [445, 450], "#h": [GROUP]})]).await.expect("it is served");
    // Ids of the messages that precede a removal in the log. A live event may arrive after the answer to a later
    // request, so a message that an earlier round allowed stays allowed; a message that follows a removal never is.
    let mut before = Vec::new();
    let mut seen = HashSet::new();
    for round in 0..ROUNDS as u64 {
        let seq = 2 + round * 2;
        let add = roster(&admin, GROUP, seq, "add", &[&bob]).sign();
        let remove = roster(&admin, GROUP, seq + 1, "remove", &[&bob]).sign();
        let messages: Vec<Event> =
            (0..MESSAGES).map(|n| message(GROUP).content(format!("{round} {n}")).sign()).collect();
        admins.publish(&add).await.ok();
        let (said, removed) = tokio::join!(alices.publish_all(&messages), admins.publish(&remove));
        removed.ok();
        said.iter().for_each(crate::support::Answer::ok);
        let after = message(GROUP).content(format!("{round} after")).sign();
        alices.publish(&after).await.ok();
        let mut open = true;
        loop {
            let event = watcher.next_event("log").await;
            open &= event.id() != remove.id();
            if event.id() == after.id() {
                break;
            }
            if open && event.kind() == 445 {
                before.push(event.id().to_owned());
            }
        }
        assert!(!open, "the removal precedes a message sent after it");
        // When bob's relay answers from the archive it has processed the last message, and it returns nothing to him.
        assert_eq!(bobs.req_now("now", &[json!({"kinds": [445], "#h": [GROUP]})]).await, Ok(vec![]), "round {round}");
        bobs.send(&json!(["CLOSE", "now"])).await;
        let got: Vec<String> = bobs.received("live").await.iter().map(|event| event.id().to_owned()).collect();
        let behind: Vec<&String> = got.iter().filter(|id| !before.contains(id)).collect();
        assert!(behind.is_empty(), "round {round}: {behind:?} of {got:?} lay behind a removal");
        assert!(got.into_iter().all(|id| seen.insert(id)), "round {round}: each message comes once");
    }
}
