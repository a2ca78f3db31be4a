//! A relay on a machine whose clock is wrong.

use rnostr_test_services::{Faketime, require};
use serde_json::json;

use super::{Cluster, StoreConfig, gateway};
use crate::support::{Client, Event, Keys, WAIT, gateway::message, http};

const EVENTS: usize = 10;
/// Longer than the time for which events without an archive lie in the log.
const SHIFT_SECS: i64 = 540;

fn ids(events: &[Event]) -> Vec<&str> {
    events.iter().map(Event::id).collect()
}

/// Two relays have the right clock; the clocks of the others are nine minutes ahead and nine minutes behind. All pass
/// on ephemeral events and messages without an archive, in every direction.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_with_a_wrong_clock_drops_nothing() {
    let Some(()) = require(Faketime::available()) else { return };
    let Some(store) = StoreConfig::new() else { return };
    let store = store.with([gateway("enable_message_archive = false")]);
    let cluster = Cluster::start_at(&[0, 0, SHIFT_SECS, -SHIFT_SECS], store);
    let alice = Keys::random();
    let group = "ab".repeat(32);
    for (n, status) in [200, 200, 503, 503].into_iter().enumerate() {
        let address = cluster.address(n);
        let answered = async {
            while http(address, "GET /ready", &[]).await.status != status {
                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(WAIT, answered).await.expect("a wrong clock is not ready, a right one is");
    }
    let mut clients = Vec::new();
    for n in 0..4 {
        let mut client = Client::open(&cluster.url(n), &[]).await.expect("it connects");
        let filters = [json!({"kinds": [445], "#h": [group]}), json!({"kinds": [20_001], "authors": [alice.hex()]})];
        client.req_now("live", &filters).await.expect("it is served");
        clients.push(client);
    }
    for from in 0..4 {
        let mut sent = Vec::new();
        for n in 0..EVENTS {
            sent.push(alice.event(20_001).content(format!("{from} {n}")).sign());
            sent.push(message(&group).content(format!("{from} {n}")).sign());
        }
        for event in &sent {
            clients[from].publish(event).await.ok();
        }
        for (n, client) in clients.iter_mut().enumerate() {
            let got = client.live("live", sent.len()).await;
            assert_eq!(ids(&got), ids(&sent), "from relay {from} to relay {n}");
        }
    }
}
