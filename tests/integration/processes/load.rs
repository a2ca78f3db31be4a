//! Publishers that retry until each event is acknowledged, and subscribers that record every id.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{task::JoinHandle, time::timeout};

use crate::support::{Client, Event, Keys};

/// Longest wait for an event that must come.
const WAIT: Duration = Duration::from_secs(40);
/// Longest wait for one answer before the publisher tries another relay.
const ANSWER: Duration = Duration::from_secs(12);
const UNAVAILABLE: &str = "error: storage unavailable, try again";

/// Record of a publisher.
#[derive(Default)]
pub(super) struct Published {
    /// Ids in the order in which they were acknowledged.
    pub(super) acknowledged: Vec<String>,
    /// Number of answers that asked to try again.
    pub(super) put_off: usize,
    /// Number of connections that broke.
    pub(super) broken: usize,
}

/// Publishes notes one after the other until `stop`. Repeats each until it is acknowledged, and moves to the next of
/// `urls` when a connection breaks.
pub(super) fn publish(
    urls: Vec<String>,
    topic: String,
    stop: Arc<AtomicBool>,
    count: Arc<AtomicUsize>,
) -> JoinHandle<Published> {
    tokio::spawn(async move {
        let author = Keys::random();
        let mut done = Published::default();
        let (mut at, mut client) = (0, None);
        'events: for n in 0.. {
            if stop.load(Ordering::Acquire) {
                break;
            }
            let event = author.event(1).tag(["t", &topic]).content(format!("{n}")).sign();
            let until = Instant::now() + WAIT;
            loop {
                assert!(Instant::now() < until, "no relay accepts an event");
                let Some(open) = &mut client else {
                    let url = &urls[at % urls.len()];
                    at += 1;
                    client = Client::open(url, &[]).await.ok();
                    if client.is_none() {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    continue;
                };
                match answer(open, &event).await {
                    Some((true, _)) => {
                        done.acknowledged.push(event.id().to_owned());
                        count.fetch_add(1, Ordering::AcqRel);
                        continue 'events;
                    }
                    Some((false, reason)) => {
                        assert_eq!(reason, UNAVAILABLE);
                        done.put_off += 1;
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                    None => {
                        done.broken += 1;
                        client = None;
                    }
                }
            }
        }
        done
    })
}

/// The answer to an event; `None` if the connection breaks.
async fn answer(client: &mut Client, event: &Event) -> Option<(bool, String)> {
    client.try_send(&json!(["EVENT", event.0])).await?;
    loop {
        let frame = timeout(ANSWER, client.try_recv()).await.ok()??;
        if frame[0] == "OK" && frame[1] == event.id() {
            return Some((frame[2] == true, frame[3].as_str().unwrap_or_default().to_owned()));
        }
    }
}

/// A subscriber that stays connected and records every id in the order of arrival.
pub(super) struct Subscriber {
    client: Client,
    pub(super) ids: Vec<String>,
}

impl Subscriber {
    pub(super) async fn new(url: &str, topic: &str) -> Self {
        let mut client = Client::open(url, &[]).await.expect("it connects");
        client.req_now("live", &[json!({"kinds": [1], "#t": [topic]})]).await.expect("it is served");
        Self { client, ids: Vec::new() }
    }

    /// Reads until it has seen all of `wanted`.
    pub(super) async fn read_all(&mut self, wanted: &BTreeSet<String>) {
        let until = Instant::now() + WAIT;
        let mut missing: BTreeSet<&String> = wanted.iter().filter(|id| !self.ids.contains(id)).collect();
        while !missing.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            let frame = timeout(left, self.client.try_recv()).await;
            let frame = frame.unwrap_or_else(|_| panic!("{} events do not come", missing.len()));
            let frame = frame.expect("it stays connected");
            assert_ne!(frame[0], "CLOSED", "{frame}");
            if frame[0] == "EVENT" {
                let id = frame[2]["id"].as_str().expect("an id").to_owned();
                missing.remove(&id);
                self.ids.push(id);
            }
        }
    }
}

/// Checks that each subscriber saw every acknowledged event once, with the events of each publisher in their order, and
/// that a later query returns each event once.
pub(super) async fn check(publishers: Vec<Published>, subscribers: &mut [Subscriber], url: &str, topic: &str) {
    let acknowledged: BTreeSet<String> = publishers.iter().flat_map(|it| it.acknowledged.iter().cloned()).collect();
    assert!(!acknowledged.is_empty());
    for subscriber in subscribers.iter_mut() {
        subscriber.read_all(&acknowledged).await;
        let places: BTreeMap<&String, usize> = subscriber.ids.iter().enumerate().map(|(n, id)| (id, n)).collect();
        assert_eq!(places.len(), subscriber.ids.len(), "nothing comes twice");
        for publisher in &publishers {
            let order: Vec<usize> = publisher.acknowledged.iter().map(|id| places[id]).collect();
            assert!(order.is_sorted(), "the events of one publisher come in their order");
        }
    }
    let mut client = Client::open(url, &[]).await.expect("it connects");
    let found = all_of(&mut client, topic).await;
    let unique: BTreeSet<String> = found.iter().cloned().collect();
    assert_eq!(unique.len(), found.len(), "nothing is stored twice");
    assert!(acknowledged.is_subset(&unique), "{} are lost", acknowledged.difference(&unique).count());
}

/// Ids of all notes of a topic.
async fn all_of(client: &mut Client, topic: &str) -> Vec<String> {
    client.neg_ids_now(json!({"kinds": [1], "#t": [topic]})).await.expect("it is served")
}
