//! The relay as a process on one core, the load on another: rates and latencies as a client sees them, and the CPU time
//! of the relay.
//!
//! `cargo bench --bench relay_benchmark [-- ingest|query|member|rest|fanout|instances|idle|hostile …]`; without
//! a name all but `idle` and `hostile` run. `hostile` takes names of attacks beside it. Rates on a busy machine say
//! little, so each line also gives the relay's CPU time for one event, query or delivery. Beside the lines stand the
//! physical limits measured in the same run: one signature check, one fsync.
//!
//! The environment sets the sizes: `BENCH_EVENTS` (events to ingest, 40000), `BENCH_STORED` (events of other groups,
//! 1000000), `BENCH_QUERIES` (20000), `BENCH_CONNECTIONS` (idle connections, 10000).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    missing_docs,
    unreachable_pub,
    reason = "a benchmark fails by panicking"
)]

mod relay;

use relay::{hostile, instances, load, process::RelayProcess, report, rest, scenario};

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).collect();
    let asked = |name: &str| {
        wanted.iter().any(|arg| arg == name) || (wanted.is_empty() && !["idle", "hostile"].contains(&name))
    };
    load::pin_to_core(1);
    report::limits();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    if asked("ingest") {
        runtime.block_on(scenario::ingest(&RelayProcess::start()));
    }
    if asked("query") {
        runtime.block_on(scenario::query());
    }
    if asked("member") {
        runtime.block_on(scenario::member());
    }
    if asked("rest") {
        runtime.block_on(rest::rest());
    }
    if asked("fanout") {
        runtime.block_on(scenario::fanout(&RelayProcess::start()));
    }
    if asked("instances") {
        runtime.block_on(instances::latency());
    }
    if asked("idle") {
        runtime.block_on(scenario::idle(&RelayProcess::start()));
    }
    if asked("hostile") {
        runtime.block_on(hostile::hostile(&wanted));
    }
}
