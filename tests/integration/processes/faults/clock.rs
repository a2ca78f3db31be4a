//! Relays on machines whose clocks are wrong at the start, or are set while they run.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use rnostr_test_services::{Faketime, require};
use serde_json::json;

use super::{Cluster, LOOK, READY_SECS_MAX, StoreConfig, gateway, ids, metric, until_ready_is};
use crate::support::{Client, Keys, event::now, gateway::message, rounds::Rounds};

/// Seconds of skew past which a relay is not ready.
const SKEW_SECS_MAX: u64 = 30;
/// Seconds around [`SKEW_SECS_MAX`] that rounds leave out, because a measurement is that exact.
const INEXACT_SECS: u64 = 3;
/// Longest wait for an event that must come.
const EVENT_MAX: Duration = Duration::from_secs(15);
/// Groups of sizes of a shift: those with which a relay is ready; then up to ten minutes, longer than events without an
/// archive lie in the log; then up to ten days.
const SIZES: [(u64, u64); 3] = [(3, 27), (33, 600), (601, 864_000)];

/// Two relays have the right clock; the clocks of two others are ahead and behind. All pass on ephemeral events and
/// messages without an archive, in every direction, also those that expire soon.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_with_a_wrong_clock_drops_nothing() {
    let Some(()) = require(Faketime::available()) else { return };
    let mut rounds = Rounds::of("a wrong clock");
    while let Some(mut round) = rounds.next() {
        let Some(store) = StoreConfig::new() else { return };
        let store = store.with([gateway("enable_message_archive = false")]);
        let (from, to) = round.turn(&SIZES);
        let wrong = [round.within(from..=to).cast_signed(), -round.within(from..=to).cast_signed()];
        let while_running = round.within(0..=1) == 1;
        let events = round.within(1..=20);
        // A clock that is set later is right at first.
        let at_start = if while_running { [1, -1] } else { wrong };
        let cluster = Cluster::start_at(&[0, 0, at_start[0], at_start[1]], store);
        for n in 0..4 {
            let shift = [0, 0].into_iter().chain(at_start).nth(n).expect("one of four");
            until_ready_is(cluster.address(n), status(shift)).await;
        }
        let alice = Keys::random();
        let group = "ab".repeat(32);
        let mut clients = Vec::new();
        for n in 0..4 {
            let mut client = Client::open(&cluster.url(n), &[]).await.expect("it connects");
            let filters =
                [json!({"kinds": [445], "#h": [group]}), json!({"kinds": [20_001], "authors": [alice.hex()]})];
            client.req_now("live", &filters).await.expect("it is served");
            clients.push(client);
        }
        let began = Instant::now();
        if while_running {
            for (n, secs) in (2..).zip(wrong) {
                cluster.set_clock(n, secs);
            }
        }
        for from in 0..4 {
            let mut sent = Vec::new();
            for n in 0..events {
                // It would be long over, or not begin for days, by a wrong clock.
                let soon = (now() + 60).to_string();
                let ephemeral = alice.event(20_001).content(format!("{from} {n}"));
                sent.push(if n % 2 == 0 { ephemeral } else { ephemeral.tag(["expiration", &soon]) }.sign());
                sent.push(message(&group).content(format!("{from} {n}")).sign());
            }
            for event in &sent {
                clients[from].publish(event).await.ok();
            }
            for (n, client) in clients.iter_mut().enumerate() {
                let mut got = Vec::new();
                while got.len() < sent.len() {
                    let next = tokio::time::timeout(EVENT_MAX, client.next_event("live")).await;
                    let missing =
                        || format!("from relay {from} to relay {n}, {wrong:?}: {} of {}", got.len(), sent.len());
                    got.push(next.unwrap_or_else(|_| panic!("{}", missing())));
                }
                assert_eq!(ids(&got), ids(&sent), "from relay {from} to relay {n}, {wrong:?}");
            }
        }
        for (n, secs) in [0, 0].into_iter().chain(wrong).enumerate() {
            until_skew_is(cluster.address(n), secs).await;
            let said = until_ready_is(cluster.address(n), status(secs)).await;
            assert_eq!(said.contains("clock is over 30 s off"), status(secs) == 503, "{secs}: {said}");
        }
        let when = if while_running { "while they ran" } else { "at the start" };
        rounds.ended(&round, &format!("{wrong:?} s {when}, {events} events"), began.elapsed());
    }
}

/// Waits until a relay has measured that its clock is so wrong.
async fn until_skew_is(address: SocketAddr, secs: i64) {
    let until = Instant::now() + Duration::from_secs(READY_SECS_MAX);
    loop {
        let skew = metric(address, "mls_gateway_clock_skew_seconds ").await;
        if (skew - secs as f64).abs() < INEXACT_SECS as f64 {
            return;
        }
        assert!(Instant::now() < until, "{skew} and not {secs}");
        tokio::time::sleep(LOOK).await;
    }
}

fn status(shift_secs: i64) -> u16 {
    if shift_secs.unsigned_abs() > SKEW_SECS_MAX { 503 } else { 200 }
}
