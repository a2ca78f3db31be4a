//! Time that a message takes from one relay to a subscriber of another: printed, not judged.

use std::time::{Duration, Instant};

use serde_json::json;

use rnostr_test_services as services;

use super::{Cluster, StoreConfig};
use crate::support::{
    Client,
    gateway::{capability, message},
};

const MESSAGES: usize = 300;

async fn measure(cluster: &Cluster, name: &str) {
    let group = capability();
    let mut writer = Client::open(&cluster.url(0), &[]).await.expect("it connects");
    let mut reader = Client::open(&cluster.url(1), &[]).await.expect("it connects");
    reader.req_now("live", &[json!({"kinds": [445], "#h": [group]})]).await.expect("it is served");
    let mut times: Vec<Duration> = Vec::new();
    for n in 0..MESSAGES {
        let event = message(&group).content(format!("{n}")).sign();
        let sent = Instant::now();
        let (answer, received) = tokio::join!(writer.publish(&event), reader.next_event("live"));
        times.push(sent.elapsed());
        answer.ok();
        assert_eq!(received.id(), event.id());
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    println!(
        "{name}: from one relay to a subscriber of another p50 {:?}, p99 {:?}, longest {:?}",
        at(0.5),
        at(0.99),
        at(1.0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_reaches_a_subscriber_of_another_relay_by_the_store() {
    let Some(store) = StoreConfig::new() else { return };
    measure(&Cluster::start(2, store), "woken by the store").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_reaches_a_subscriber_of_another_relay_by_redis() {
    let Some(store) = StoreConfig::new() else { return };
    let Some(()) = services::require(services::Redis::shared_available()) else { return };
    let store = store.with_redis(&services::Redis::shared().url());
    measure(&Cluster::start(2, store), "woken by Redis").await;
}
