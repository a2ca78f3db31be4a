//! Costs of the stores: saving events, finding a group's messages among those of other groups, changing rosters.
//!
//! `cargo bench --bench storage_benchmark`; `--features mls_gateway_firestore` adds the Firestore emulator, whose
//! figures show the calls that the store makes and not the speed of Firestore. The benchmark starts PostgreSQL and the
//! emulator on this machine; PostgreSQL runs with fsync on, and the store has one connection to it.
//! `RNOSTR_BENCH_MESSAGES` is the number of messages of other groups in the store that is queried (default 100,000; the
//! growth target is measured with 1,000,000 and more; the emulator holds a twentieth). Criterion measures wall time,
//! fsync included. For stores of this process the benchmark also prints the CPU time of an event, because the budget of
//! one event is CPU time.
#![allow(missing_docs, reason = "criterion_main! writes no docs")]
#![allow(clippy::expect_used, reason = "a benchmark ends where its store fails")]

use std::{
    any::Any,
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use nostr_extensions::{
    Admitted, Group, GroupStatus, NostrGroupId, Policy, Publisher, Query, Reader, Scope,
    admit::{admit, group_of},
};
use nostr_protocol::{Filter, PublicKey, Unverified, Verified, auth::RelayNames, hex};
use nostr_store::{
    PageBounds, Part, Saved, Store,
    embedded::{Durability, Embedded, Options},
    memory::Memory,
    postgres::{self, Postgres},
};
use rnostr_test_services as services;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Runtime;

const NOW: u64 = 1_795_370_771;
/// Number of groups over which the messages of others are spread.
const OTHER_GROUPS: u64 = 10_000;
const BATCHES: [usize; 4] = [1, 100, 500, 1_000];
const BOUNDS: PageBounds = PageBounds { part: Part::WHOLE, events_max: 500, bytes_max: 8 << 20, entries_max: 100_000 };

fn main_key() -> PublicKey {
    PublicKey::from_bytes([7; 32])
}

/// An event that counts as verified. Its signature is not valid, and no store looks at signatures.
fn event(kind: u16, tags: &Value, content: &str, created_at: u64, author: &PublicKey) -> Verified {
    let canonical = json!([0, author.to_hex(), created_at, kind, tags, content]).to_string();
    let id = hex::to_hex(&Sha256::digest(canonical));
    let event = json!({
        "id": id, "pubkey": author.to_hex(), "created_at": created_at, "kind": kind, "tags": tags,
        "content": content, "sig": "5".repeat(128),
    });
    let event = Unverified::parse(event.to_string().as_bytes()).expect("an event");
    let id = event.event().id();
    event.same_as(&id).expect("its own id")
}

fn group(n: u64) -> NostrGroupId {
    NostrGroupId::parse(&hex::to_hex(&Sha256::digest(n.to_be_bytes()))).expect("a group id")
}

fn admitted(event: Verified, status: GroupStatus) -> Admitted {
    let reader = Reader::new(&[main_key()]);
    let policy = Policy { admin_keys: [main_key()].into(), ..Policy::default() };
    let state = group_of(event.event()).map(|id| Group { id, status });
    let writer = Publisher { reader: &reader, names: &RelayNames::Loopback };
    admit(event, writer, &policy, state.as_ref(), NOW).expect("an event that is admitted")
}

/// A group message of about 480 bytes to group number `of`, signed by a key of its own.
fn message(n: u64, of: u64) -> Admitted {
    let author = PublicKey::from_bytes(Sha256::digest(n.to_be_bytes()).into());
    let tags = json!([["h", group(of).as_str()]]);
    let content = format!("{n:0>120}");
    admitted(event(445, &tags, &content, NOW - 10_000_000 + n, &author), GroupStatus::Unknown)
}

fn messages(from: u64, count: usize, of_groups: u64) -> Vec<Admitted> {
    // Neighbours in time belong to different groups.
    (from..from + count as u64).map(|n| message(n, n.wrapping_mul(7_919) % of_groups)).collect()
}

/// A store under test.
struct Bench {
    name: &'static str,
    store: Arc<dyn Store>,
    /// Whether the store does all its work in this process.
    is_local: bool,
    /// Divisor of the number of messages that are stored beside the queried ones; above 1 for a slow store.
    messages_per: u64,
    /// The store's directory or server, kept alive with it.
    _keep: Box<dyn Any>,
}

fn embedded(name: &'static str, durability: Durability) -> Bench {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let options = Options { durability, ..Options::default() };
    let store = Arc::new(Embedded::open(directory.path(), options).expect("a store"));
    Bench { name, store, is_local: true, messages_per: 1, _keep: Box::new(directory) }
}

/// A PostgreSQL store on its own server, with one connection.
fn postgres(runtime: &Runtime) -> Option<Bench> {
    services::require(services::Postgres::available())?;
    let server = services::Postgres::start(services::Options::durable());
    let options = postgres::Options { connections_max: 1, notifies: true };
    let store = Arc::new(runtime.block_on(Postgres::open(&server.create_database(), options)).expect("a store"));
    Some(Bench { name: "postgres", store, is_local: false, messages_per: 1, _keep: Box::new(server) })
}

fn stores(runtime: &Runtime) -> Vec<Bench> {
    let mut stores = vec![
        embedded("embedded", Durability::Commit),
        embedded("embedded, interval", Durability::Interval { ms: 200 }),
        Bench { name: "memory", store: Arc::new(Memory::new()), is_local: true, messages_per: 1, _keep: Box::new(()) },
    ];
    stores.extend(postgres(runtime));
    #[cfg(feature = "mls_gateway_firestore")]
    stores.extend(firestore(runtime));
    stores
}

/// A Firestore store on its own emulator.
#[cfg(feature = "mls_gateway_firestore")]
fn firestore(runtime: &Runtime) -> Option<Bench> {
    use nostr_store::firestore::{Firestore, Options};
    services::require(services::FirestoreEmulator::available())?;
    let emulator = services::FirestoreEmulator::start();
    let mut options = Options::new(&emulator.project());
    options.emulator_host = Some(emulator.host());
    let store = Arc::new(runtime.block_on(Firestore::open(options)).expect("a store"));
    Some(Bench { name: "firestore emulator", store, is_local: false, messages_per: 20, _keep: Box::new(emulator) })
}

async fn save(store: &dyn Store, batch: Vec<Admitted>) {
    for saved in store.save(batch).await {
        assert!(matches!(saved, Ok(Saved::New(_))), "{saved:?}");
    }
}

async fn fill(store: &dyn Store, from: u64, count: u64) {
    let mut next = from;
    while next < from + count {
        let batch = messages(next, (from + count - next).min(1_000) as usize, OTHER_GROUPS);
        next += batch.len() as u64;
        save(store, batch).await;
    }
}

/// CPU time of this process in clock ticks of 10 ms; 0 where there is no /proc.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    [11, 12].iter().filter_map(|field| fields.get(*field)?.parse::<u64>().ok()).sum()
}

/// Prints the CPU time of an event at each batch size; batches are built before the clock starts. With few groups,
/// messages fall into index pages that are in use; with many, each message falls into another part of the index.
fn ingest_cpu(runtime: &Runtime, of_groups: u64) {
    for Bench { name, store, .. } in stores(runtime).iter().filter(|bench| bench.is_local) {
        let mut next = 0;
        runtime.block_on(fill(&**store, next, 300_000));
        next += 300_000;
        for size in BATCHES {
            let count = if size == 1 { 5_000 } else { 100_000 };
            let batches: Vec<_> =
                (0..count / size).map(|n| messages(next + (n * size) as u64, size, of_groups)).collect();
            next += count as u64;
            let (ticks, began) = (cpu_ticks(), Instant::now());
            runtime.block_on(async {
                for batch in batches {
                    save(&**store, batch).await;
                }
            });
            let (ticks, wall) = (cpu_ticks() - ticks, began.elapsed());
            println!(
                "ingest into {of_groups} groups, {name}, batches of {size}: {:.1} us CPU an event, {:.0} events/s",
                ticks as f64 * 10_000.0 / count as f64,
                count as f64 / wall.as_secs_f64()
            );
        }
        let stats = runtime.block_on(store.stats()).expect("stats");
        println!(
            "ingest into {of_groups} groups, {name}: {} bytes an event on disk",
            stats.bytes_used / stats.events.max(1)
        );
    }
}

fn ingest(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    // `ingest_cpu` is not a Criterion benchmark, so the names on the command line are compared here.
    if std::env::args().skip(1).filter(|arg| !arg.starts_with('-')).all(|asked| asked.contains("ingest")) {
        for of_groups in [100, OTHER_GROUPS] {
            ingest_cpu(&runtime, of_groups);
        }
    }
    let mut bench = c.benchmark_group("ingest");
    bench.sample_size(10).measurement_time(Duration::from_secs(3));
    for Bench { name, store, is_local, .. } in &stores(&runtime) {
        let mut next = 0;
        for size in BATCHES.into_iter().filter(|size| *is_local || *size <= 500) {
            bench.throughput(Throughput::Elements(size as u64));
            bench.bench_function(BenchmarkId::new(*name, size), |b| {
                b.iter_custom(|rounds| {
                    let mut spent = Duration::ZERO;
                    for _ in 0..rounds {
                        let batch = messages(next, size, 100);
                        next += size as u64;
                        let began = Instant::now();
                        runtime.block_on(save(&**store, batch));
                        spent += began.elapsed();
                    }
                    spent
                });
            });
        }
    }
    bench.finish();
}

fn queries(c: &mut Criterion) {
    let others: u64 =
        std::env::var("RNOSTR_BENCH_MESSAGES").ok().and_then(|count| count.parse().ok()).unwrap_or(100_000);
    let runtime = Runtime::new().expect("a runtime");
    let mut bench = c.benchmark_group(format!("group query beside {others} messages of others"));
    bench.sample_size(20).measurement_time(Duration::from_secs(2));
    for Bench { name, store, messages_per, .. } in
        stores(&runtime).iter().filter(|bench| !bench.name.contains("interval"))
    {
        let others = others / messages_per;
        runtime.block_on(fill(&**store, 0, others));
        let small = OTHER_GROUPS + 1;
        let large = OTHER_GROUPS + 2;
        let ours = (0..20).map(|n| message(others + n, small)).chain((20..120).map(|n| message(others + n, large)));
        runtime.block_on(save(&**store, ours.collect()));
        let all: Vec<NostrGroupId> = (0..OTHER_GROUPS).map(group).collect();
        for (what, groups, named, limit) in [
            ("20 of a group, by kind", vec![group(small)], None, 20),
            ("100 of a group, by h", vec![group(large)], Some(group(large)), 100),
            ("20 of a reader of 100 groups", all[..100].to_vec(), None, 20),
            ("20 of a reader of 10000 groups", all, None, 20),
        ] {
            // The emulator reads everything once for each value of a query, and would answer none of these in time.
            if *messages_per > 1 && groups.len() > 1 {
                continue;
            }
            let mut filter: Filter = serde_json::from_str(r#"{"kinds":[445]}"#).expect("a filter");
            if let Some(named) = named {
                filter.tags.insert(b'h', vec![named.as_str().into()]);
            }
            let query = Query { filter, scope: Scope { groups, ..Scope::default() } };
            let bounds = PageBounds { events_max: limit, ..BOUNDS };
            bench.bench_function(BenchmarkId::new(*name, what), |b| {
                b.iter(|| {
                    let page = runtime.block_on(store.scan(&query, None, u64::MAX, bounds, NOW)).expect("a page");
                    assert_eq!(black_box(page).events.len(), limit);
                });
            });
        }
    }
    bench.finish();
}

fn rosters(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let mut bench = c.benchmark_group("roster");
    bench.sample_size(20).measurement_time(Duration::from_secs(3));
    for Bench { name, store, .. } in &stores(&runtime) {
        for members in [20_u64, 1_000] {
            let id = format!("grp{members}");
            let key = |n: u64| PublicKey::from_bytes(Sha256::digest(n.to_be_bytes()).into());
            let roster = |seq: u64, op: &str, keys: Vec<PublicKey>| {
                let mut tags = vec![json!(["h", id]), json!(["seq", seq.to_string()]), json!(["op", op])];
                tags.extend(keys.into_iter().map(|key| json!(["p", key.to_hex()])));
                admitted(event(450, &Value::Array(tags), "", NOW, &main_key()), GroupStatus::Unknown)
            };
            runtime.block_on(save(&**store, vec![roster(1, "bootstrap", (0..members).map(key).collect())]));
            let mut seq = 1;
            bench.bench_function(BenchmarkId::new(*name, format!("a change of a group of {members}")), |b| {
                b.iter_custom(|rounds| {
                    let mut spent = Duration::ZERO;
                    for _ in 0..rounds {
                        seq += 1;
                        let change = roster(seq, if seq % 2 == 0 { "add" } else { "remove" }, vec![key(members)]);
                        let began = Instant::now();
                        runtime.block_on(save(&**store, vec![change]));
                        spent += began.elapsed();
                    }
                    spent
                });
            });
        }
    }
    bench.finish();
}

criterion_group!(benches, ingest, queries, rosters);
criterion_main!(benches);
