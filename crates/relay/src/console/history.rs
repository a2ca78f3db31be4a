//! `GET history` and `GET now`: samples of this instance's metrics over the last 15 minutes, and the instances.
//!
//! One task takes a sample each [`SAMPLE_MS`] from totals that are counted anyway, whether or not anybody looks. It
//! also announces this instance to the others. An answer is made of the samples and reads nothing, apart from the wish
//! for the store's sizes, which another task asks for at most once in ten seconds.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::door::Operator;
use crate::{
    app::App,
    config::StorageBackend,
    observe::{
        info::VERSION,
        metrics::{Refusals, Totals},
    },
    peers::{Announcement, Seen},
    rest::{Answer, Problem},
};

/// Milliseconds from one sample to the next.
const SAMPLE_MS: u64 = 5_000;
/// Samples that are kept: those of 15 minutes.
const SAMPLES_MAX: usize = 180;

/// A sample: rates and times are those of the interval that ends with it.
#[derive(Clone, Debug, Default, Serialize)]
struct Sample {
    /// Time of its end, in milliseconds since 1970.
    at: u64,
    events_per_second: f64,
    refused_per_second: f64,
    requests_per_second: f64,
    deliveries_per_second: f64,
    connections: u64,
    subscriptions: usize,
    ok_p50_ms: Option<f64>,
    ok_p99_ms: Option<f64>,
    delivery_p99_ms: Option<f64>,
    /// How far this instance is behind the log of a shared store.
    lag_ms: Option<f64>,
    /// Bytes that the store told last; null until somebody wished to know.
    store_bytes: Option<u64>,
    memory_bytes: usize,
    memory_bytes_max: usize,
}

/// The samples of the last 15 minutes.
#[derive(Default)]
pub(super) struct History(Mutex<Ring>);

#[derive(Default)]
struct Ring {
    /// Each with the refusals before its interval, the oldest first.
    samples: VecDeque<(Refusals, Sample)>,
}

impl Ring {
    fn push(&mut self, refused_before: Refusals, sample: Sample) {
        if self.samples.len() == SAMPLES_MAX {
            self.samples.pop_front();
        }
        self.samples.push_back((refused_before, sample));
    }
}

/// Takes samples and announces this instance, until the relay stops.
pub(crate) async fn run(app: Arc<App>) {
    let stopping = app.stopping.clone();
    stopping.run_until_cancelled(take_samples(&app)).await;
}

async fn take_samples(app: &App) {
    let mut ticks = interval(Duration::from_millis(SAMPLE_MS));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick comes at once.
    ticks.tick().await;
    let (mut before, mut began) = (app.metrics.totals(), Instant::now());
    loop {
        announce(app);
        ticks.tick().await;
        if app.config.server.console {
            let (now, ended) = (app.metrics.totals(), Instant::now());
            let sample = sample(app, &before, &now, ended - began);
            app.console.history.0.lock().push(before.refusals, sample);
            (before, began) = (now, ended);
        }
    }
}

fn announce(app: &App) {
    if let Some(peers) = app.delivery.peers() {
        peers.announce(Announcement {
            uptime_secs: u32::try_from(app.started.elapsed().as_secs()).unwrap_or(u32::MAX),
            version: VERSION.to_owned(),
            not_ready: app.not_ready().map(str::to_owned),
        });
    }
}

fn sample(app: &App, before: &Totals, now: &Totals, took: Duration) -> Sample {
    let rate = |before: u64, now: u64| now.saturating_sub(before) as f64 / took.as_secs_f64().max(0.001);
    let (ok, delivery) = (now.ok.since(&before.ok), now.delivery.since(&before.delivery));
    Sample {
        at: app.clock.now_ms(),
        events_per_second: rate(before.events, now.events),
        refused_per_second: rate(before.refusals.sum(), now.refusals.sum()),
        requests_per_second: rate(before.requests, now.requests),
        deliveries_per_second: rate(before.deliveries, now.deliveries),
        connections: now.connections,
        subscriptions: app.live.subscriptions(),
        ok_p50_ms: ok.percentile_ms(50),
        ok_p99_ms: ok.percentile_ms(99),
        delivery_p99_ms: delivery.percentile_ms(99),
        lag_ms: app.delivery.lag().map(|lag| lag.as_secs_f64() * 1_000.0),
        store_bytes: app.metrics.gauges.sizes().map(|sizes| sizes.bytes_used).filter(|bytes| *bytes > 0),
        memory_bytes: app.memory_used(),
        memory_bytes_max: app.config.server.memory_bytes_max,
    }
}

/// The samples that a page lacks.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Since {
    /// The time of the newest sample that the page has, in milliseconds since 1970.
    #[serde(default)]
    since: u64,
}

#[derive(Serialize)]
struct HistoryAnswer {
    /// The instance whose samples these are.
    instance: String,
    interval_ms: u64,
    samples: Vec<Sample>,
}

/// The samples of this instance that are newer than a time.
pub(super) async fn history(Operator(visit): Operator) -> Result<Answer, Problem> {
    let Since { since } = visit.parameters()?;
    let app = visit.app();
    app.metrics.gauges.scraped.notify_one();
    let samples: Vec<Sample> = {
        let ring = app.console.history.0.lock();
        ring.samples.iter().map(|(_, sample)| sample).filter(|sample| sample.at > since).cloned().collect()
    };
    visit.holding().grow(samples.len() * size_of::<Sample>());
    Answer::json(&visit, &HistoryAnswer { instance: own_name(app), interval_ms: SAMPLE_MS, samples }).await
}

#[derive(Serialize)]
struct NowAnswer {
    /// The relay's time, in milliseconds since 1970.
    now: u64,
    /// `single`: this process alone serves its store; `announced`: `instances` lists all; `unannounced`: others may
    /// share the store and have no messages to each other, so `instances` lists this one alone.
    cluster: &'static str,
    instances: Vec<Instance>,
    store: StoreNow,
    /// Refusals of the last 15 minutes on this instance, the most frequent reasons first.
    refusals: Vec<RefusalCount>,
    /// The newest sample; null in the first seconds.
    last: Option<Sample>,
}

#[derive(Serialize)]
struct Instance {
    /// 8 hex digits, drawn at the instance's start.
    name: String,
    #[serde(rename = "self")]
    is_self: bool,
    ready: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    version: String,
    uptime_seconds: u64,
    seen_seconds_ago: u64,
}

#[derive(Serialize)]
struct StoreNow {
    backend: &'static str,
    bytes: Option<u64>,
    bytes_max: Option<u64>,
    events: Option<u64>,
    groups: Option<u64>,
}

#[derive(Serialize)]
struct RefusalCount {
    reason: &'static str,
    count: u64,
}

/// The state of this instance, and that of the others by their announcements.
pub(super) async fn now(Operator(visit): Operator) -> Result<Answer, Problem> {
    let app = visit.app();
    app.metrics.gauges.scraped.notify_one();
    let refusals = app.metrics.totals().refusals;
    let (refusals, last) = {
        let ring = app.console.history.0.lock();
        let before = ring.samples.front().map(|(before, _)| before.clone()).unwrap_or_default();
        (refusals.since(&before), ring.samples.back().map(|(_, sample)| sample.clone()))
    };
    let now = app.clock.now_ms();
    let answer = NowAnswer {
        now,
        cluster: match app.delivery.peers() {
            Some(_) => "announced",
            None if app.delivery.is_followed() => "unannounced",
            None => "single",
        },
        instances: instances(app, now),
        store: store(app),
        refusals: refusals.by_reason().into_iter().map(|(reason, count)| RefusalCount { reason, count }).collect(),
        last,
    };
    Answer::json(&visit, &answer).await
}

/// This instance, and the others that announced themselves of late.
fn instances(app: &App, now_ms: u64) -> Vec<Instance> {
    let reason = app.not_ready().map(str::to_owned);
    let own = Instance {
        name: own_name(app),
        is_self: true,
        ready: reason.is_none(),
        reason,
        version: VERSION.to_owned(),
        uptime_seconds: app.started.elapsed().as_secs(),
        seen_seconds_ago: 0,
    };
    let others = app.delivery.peers().map(|peers| peers.seen()).unwrap_or_default();
    let other = |Seen { instance, at_ms, announcement }: Seen| Instance {
        name: name(&instance),
        is_self: false,
        ready: announcement.not_ready.is_none(),
        reason: announcement.not_ready,
        version: announcement.version,
        uptime_seconds: u64::from(announcement.uptime_secs),
        seen_seconds_ago: now_ms.saturating_sub(at_ms) / 1_000,
    };
    std::iter::once(own).chain(others.into_iter().map(other)).collect()
}

fn own_name(app: &App) -> String {
    name(&app.delivery.peers().map_or(app.console.instance, |peers| peers.instance()))
}

fn name(instance: &[u8; 16]) -> String {
    nostr_protocol::hex::to_hex(&instance[..4])
}

fn store(app: &App) -> StoreNow {
    let sizes = app.metrics.gauges.sizes();
    let told = |number: u64| Some(number).filter(|number| *number > 0);
    StoreNow {
        backend: match app.config.mls_gateway.storage_backend {
            StorageBackend::Embedded => "embedded",
            StorageBackend::Postgres => "postgres",
            StorageBackend::Firestore => "firestore",
        },
        bytes: sizes.and_then(|sizes| told(sizes.bytes_used)),
        bytes_max: sizes.and_then(|sizes| told(sizes.bytes_max)),
        events: sizes.map(|sizes| sizes.events),
        groups: sizes.map(|sizes| sizes.groups),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_keeps_the_newest_samples() {
        let mut ring = Ring::default();
        for at in 0..SAMPLES_MAX as u64 + 7 {
            ring.push(Refusals::default(), Sample { at, ..Sample::default() });
        }
        assert_eq!((ring.samples.len(), ring.samples[0].1.at), (SAMPLES_MAX, 7));
    }
}
