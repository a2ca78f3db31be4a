//! What the stores cost: events taken in, a group's messages found among those of others, rosters.
//!
//! `cargo bench --bench storage_benchmark`. `RNOSTR_BENCH_MESSAGES` is how many messages of other groups lie in the store
//! that is queried (100,000 where it is not set; the growth target is measured with 1,000,000 and more). Criterion times
//! the wall, fsync included; the CPU time of an event is printed before, as the budget of one event is in CPU time.
#![allow(unused, missing_docs, reason = "criterion_main! writes no docs")]
#![allow(clippy::expect_used, reason = "a benchmark ends where its store fails")]

use std::{
    hint::black_box,
    sync::Arc,
    time::{Duration, Instant},
};

use nostr_extensions::{
    Admitted, GroupState, GroupStatus, NostrGroupId, Policy, Query, Reader, Scope, Writer,
    admit::{admit, group_of},
};
use nostr_protocol::{Filter, PublicKey, Unverified, Verified, auth::RelayNames, hex};
use nostr_store::{
    PageBounds, Saved, Store,
    embedded::{Durability, Embedded, Options},
    memory::Memory,
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::runtime::Runtime;
fn groups() -> u64 {
    std::env::var("G").unwrap().parse().unwrap()
}

const NOW: u64 = 1_795_370_771;
/// Groups that the messages of others are spread over.

const BATCHES: [usize; 4] = [1, 100, 500, 1_000];
const BOUNDS: PageBounds = PageBounds { events_max: 500, bytes_max: 8 << 20, entries_max: 100_000 };

fn main_key() -> PublicKey {
    PublicKey::from_bytes([7; 32])
}

/// An event as if it had been verified: its signature is no signature, which no store looks at.
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
    let state = group_of(event.event()).map(|id| GroupState { id, status });
    let writer = Writer { reader: &reader, names: &RelayNames::Loopback };
    admit(event, writer, &policy, state.as_ref(), NOW).expect("an event that is admitted")
}

/// A group message of about 480 bytes, by a key of its own.
fn message(n: u64, of: u64) -> Admitted {
    let author = PublicKey::from_bytes(Sha256::digest(n.to_be_bytes()).into());
    let tags = json!([["h", group(of).as_str()]]);
    let content = format!("{n:0>120}");
    admitted(event(445, &tags, &content, NOW - 10_000_000 + n, &author), GroupStatus::Unknown)
}

fn messages(from: u64, count: usize) -> Vec<Admitted> {
    // Spread so that neighbours in time are of different groups.
    (from..from + count as u64).map(|n| message(n, n.wrapping_mul(7_919) % groups())).collect()
}

/// The stores, each with what it is called and what must outlive it.
fn stores() -> Vec<(&'static str, Arc<dyn Store>, Option<tempfile::TempDir>)> {
    let open = |durability| {
        let directory = tempfile::tempdir_in("/root/.cache").expect("a directory");
        let options = Options { durability, ..Options::default() };
        let store: Arc<dyn Store> = Arc::new(Embedded::open(directory.path(), options).expect("a store"));
        (store, Some(directory))
    };
    let (commit, commit_directory) = open(Durability::Commit);
    let (interval, interval_directory) = open(Durability::Interval { ms: 200 });
    vec![
        ("embedded", commit, commit_directory),
        ("embedded, interval", interval, interval_directory),
        ("memory", Arc::new(Memory::new()), None),
    ]
}

async fn save(store: &dyn Store, batch: Vec<Admitted>) {
    for saved in store.save(batch).await {
        assert!(matches!(saved, Ok(Saved::New(_))), "{saved:?}");
    }
}

async fn fill(store: &dyn Store, from: u64, count: u64) {
    let mut next = from;
    while next < from + count {
        let batch = messages(next, (from + count - next).min(1_000) as usize);
        next += batch.len() as u64;
        save(store, batch).await;
    }
}

/// CPU time of this process in clock ticks of 10 ms; 0 where there is no /proc.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    eprintln!("user {} sys {}", fields[11], fields[12]);
    [11, 12].iter().filter_map(|field| fields.get(*field)?.parse::<u64>().ok()).sum()
}

/// Prints the CPU time of an event at each batch size, made beforehand.
fn ingest_cpu(runtime: &Runtime) {
    for (name, store, _directory) in stores() {
        let mut next = 0;
        runtime.block_on(fill(&*store, next, 100_000));
        next += 100_000;
        for size in BATCHES {
            let count = if size == 1 { 5_000 } else { 100_000 };
            let batches: Vec<_> = (0..count / size).map(|n| messages(next + (n * size) as u64, size)).collect();
            next += count as u64;
            let (ticks, began) = (cpu_ticks(), Instant::now());
            runtime.block_on(async {
                for batch in batches {
                    save(&*store, batch).await;
                }
            });
            let (ticks, wall) = (cpu_ticks() - ticks, began.elapsed());
            println!(
                "ingest, {name}, batches of {size}: {:.1} us CPU an event, {:.0} events/s",
                ticks as f64 * 10_000.0 / count as f64,
                count as f64 / wall.as_secs_f64()
            );
        }
        let stats = runtime.block_on(store.stats()).expect("stats");
        println!("ingest, {name}: {} bytes an event on disk", stats.bytes_used / stats.events.max(1));
    }
}

fn main() {
    let rt = Runtime::new().unwrap();
    ingest_cpu(&rt);
}
