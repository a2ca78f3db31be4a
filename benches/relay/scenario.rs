//! The scenarios that the benchmark measures.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use nostr_extensions::{Group, GroupStatus, Policy, Publisher, Reader, admit};
use nostr_protocol::{
    auth::RelayNames,
    testing::{EventBuilder, public_key, random_keypair},
};
use nostr_store::{
    Store as _,
    embedded::{Durability, Embedded, Options},
};
use tempfile::TempDir;

use super::{
    load::{Client, frame, group, group_message, unsigned},
    process::{RelayProcess, scratch},
    report::{line, micros, percentiles, rate},
};

fn size(variable: &str, default: usize) -> usize {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

const INGEST_CONNECTIONS: usize = 64;
const INGEST_IN_FLIGHT: usize = 32;

/// Publishes signed group messages over 64 connections, 32 in flight on each, and then over one connection with one in
/// flight.
pub async fn ingest(relay: &RelayProcess) {
    let events = size("BENCH_EVENTS", 40_000);
    let now = now();
    let mut frames: Vec<Vec<u8>> = (0..events)
        .map(|n| frame(&format!("[\"EVENT\",{}]", group_message(&group(n % 200), now - (n % 1_000) as u64))))
        .collect();
    let single: Vec<Vec<u8>> = frames.split_off(events - events / 50);
    let mut clients = Vec::new();
    for chunk in frames.chunks(frames.len().div_ceil(INGEST_CONNECTIONS)) {
        clients.push((Client::connect(relay.port).await, chunk));
    }
    let (started, cpu) = (Instant::now(), relay.cpu());
    join_all(clients.iter_mut().map(|(client, frames)| publish(client, frames, INGEST_IN_FLIGHT))).await;
    let (time, cpu) = (started.elapsed(), relay.cpu() - cpu);
    line(
        "ingest 445, 64 x 32 in flight",
        &[("rate", rate(frames.len(), time)), ("CPU/event", micros(cpu, frames.len()))],
    );
    let mut client = Client::connect(relay.port).await;
    let mut times = Vec::new();
    for frame in single {
        let started = Instant::now();
        publish(&mut client, &[frame], 1).await;
        times.push(started.elapsed());
    }
    line("ingest 445, 1 x 1 in flight", &percentiles(times));
}

/// Publishes with a window; each event must be accepted.
async fn publish(client: &mut Client, frames: &[Vec<u8>], in_flight: usize) {
    let mut sent = in_flight.min(frames.len());
    client.send(&frames[..sent].concat()).await;
    let mut answered = 0;
    while answered < frames.len() {
        let mut got = 0;
        client
            .drain(|message| {
                assert!(message.windows(6).any(|w| w == b",true,"), "{}", String::from_utf8_lossy(message));
                got += 1;
            })
            .await;
        answered += got;
        let next = (sent + got).min(frames.len());
        if next > sent {
            client.send(&frames[sent..next].concat()).await;
            sent = next;
        }
    }
}

fn open(dir: &TempDir) -> Embedded {
    let options = Options { durability: Durability::Interval { ms: 1_000 }, map_bytes_max: 64 << 30 };
    Embedded::open(dir.path().join("data"), options).unwrap()
}

/// Fills a store with messages of `groups` unlisted groups.
async fn fill(store: &Embedded, events: usize, groups: usize) {
    let (policy, reader, names) = (Policy::default(), Reader::default(), RelayNames::Loopback);
    let writer = Publisher { reader: &reader, names: &names };
    let now = now();
    let keypair = random_keypair();
    let content = "A".repeat(120);
    for from in (0..events).step_by(1_000) {
        let batch = (from..(from + 1_000).min(events)).map(|n| {
            let group = group(n % groups);
            let created_at = now - 86_400 + (n * 86_400 / events) as u64;
            let event = EventBuilder::new(445).tag(&["h", &group]).content(format!("{content}{n}")).at(created_at);
            let state =
                Group { id: nostr_extensions::NostrGroupId::parse(&group).unwrap(), status: GroupStatus::Unlisted };
            admit::admit(unsigned(&event.json(&keypair)), writer, &policy, Some(&state), now).unwrap()
        });
        for saved in store.save(batch.collect()).await {
            saved.unwrap();
        }
    }
}

/// Asks `#h` queries of 100 events each in a store of 100,000.
pub async fn query() {
    let (groups, queries) = (1_000, size("BENCH_QUERIES", 20_000));
    let dir = TempDir::new_in(scratch()).unwrap();
    let store = open(&dir);
    fill(&store, groups * 100, groups).await;
    drop(store);
    let relay = RelayProcess::over(dir);
    let connections = 16;
    let mut clients = Vec::new();
    for _ in 0..connections {
        clients.push(Client::connect(relay.port).await);
    }
    for measured in [false, true] {
        let (started, cpu) = (Instant::now(), relay.cpu());
        let each = if measured { queries / connections } else { 200 };
        join_all(clients.iter_mut().enumerate().map(async |(c, client)| {
            for n in 0..each {
                let group = group((n * 7 + c * 61) % groups);
                client.send(&frame(&format!("[\"REQ\",\"q\",{{\"#h\":[\"{group}\"],\"limit\":100}}]"))).await;
                assert_eq!(until_eose(client).await, 100);
            }
        }))
        .await;
        let (time, cpu) = (started.elapsed(), relay.cpu() - cpu);
        if measured {
            let count = each * connections;
            line("#h query, 100 of 100,000", &[("rate", rate(count, time)), ("CPU/query", micros(cpu, count))]);
        }
    }
}

async fn until_eose(client: &mut Client) -> usize {
    let (mut events, mut done) = (0, false);
    while !done {
        client
            .drain(|message| match message.get(2..6) {
                Some(b"EVEN") => events += 1,
                Some(b"EOSE") => done = true,
                _ => panic!("{}", String::from_utf8_lossy(message)),
            })
            .await;
    }
    events
}

/// A member of one managed group of 20 messages asks for its newest group messages without naming the group.
pub async fn member() {
    let stored = size("BENCH_STORED", 1_000_000);
    let dir = TempDir::new_in(scratch()).unwrap();
    let store = open(&dir);
    fill(&store, stored, 10_000).await;
    let alice = random_keypair();
    managed_group(&store, &alice).await;
    drop(store);
    let relay = RelayProcess::over(dir);
    let mut client = Client::connect_as(relay.port, &alice).await;
    let mut times = Vec::new();
    let request = frame("[\"REQ\",\"q\",{\"kinds\":[445],\"limit\":20}]");
    for _ in 0..100 {
        client.send(&request).await;
        assert_eq!(until_eose(&mut client).await, 20);
    }
    let cpu = relay.cpu();
    for _ in 0..2_000 {
        let started = Instant::now();
        client.send(&request).await;
        assert_eq!(until_eose(&mut client).await, 20);
        times.push(started.elapsed());
    }
    let cpu = relay.cpu() - cpu;
    let [p50, p99] = percentiles(times);
    line(&format!("kinds:[445], 20 beside {stored}"), &[p50, p99, ("CPU/query", micros(cpu, 2_000))]);
}

/// Stores a group with 20 messages and `member` as its only member.
async fn managed_group(store: &Embedded, member: &secp256k1::Keypair) {
    let admin = random_keypair();
    let policy = Policy { admin_keys: [public_key(&admin)].into(), ..Policy::default() };
    let names = RelayNames::Loopback;
    let id = nostr_extensions::NostrGroupId::parse("grp_bench").unwrap();
    let now = now();
    let save = async |event: EventBuilder, by: &secp256k1::Keypair, reader: &secp256k1::Keypair| {
        let (state, _) = store.group(&id).await.unwrap();
        let reader = Reader::new(&[public_key(reader)]);
        let writer = Publisher { reader: &reader, names: &names };
        let event = admit::admit(event.at(now).sign(by), writer, &policy, Some(&state), now).unwrap();
        assert!(matches!(store.save(vec![event]).await[0], Ok(nostr_store::Saved::New(_))));
    };
    let key = public_key(member).to_hex();
    let roster = EventBuilder::new(450).tag(&["h", id.as_str()]).tag(&["seq", "1"]).tag(&["op", "bootstrap"]);
    save(roster.tag(&["p", &key]), &admin, &admin).await;
    for n in 0..20 {
        let message = EventBuilder::new(445).tag(&["h", id.as_str()]).content(format!("message {n}"));
        save(message, &random_keypair(), member).await;
    }
}

/// One publisher sends to 1,000 subscribers of one group; first eight events are in flight, then one.
pub async fn fanout(relay: &RelayProcess) {
    let (subscribers, events) = (1_000, 400);
    let group = group(1);
    let mut readers = Vec::new();
    for _ in 0..subscribers {
        let mut client = Client::connect(relay.port).await;
        client.send(&frame(&format!("[\"REQ\",\"q\",{{\"kinds\":[445],\"#h\":[\"{group}\"]}}]"))).await;
        assert_eq!(until_eose(&mut client).await, 0);
        readers.push(client);
    }
    let mut publisher = Client::connect(relay.port).await;
    let now = now();
    for in_flight in [8, 1] {
        let frames: Vec<Vec<u8>> =
            (0..events).map(|_| frame(&format!("[\"EVENT\",{}]", group_message(&group, now)))).collect();
        let (started, cpu) = (Instant::now(), relay.cpu());
        let reading = join_all(readers.iter_mut().map(async |client| {
            let mut got = 0;
            while got < events {
                client.drain(|_| got += 1).await;
            }
        }));
        tokio::join!(publish(&mut publisher, &frames, in_flight), reading);
        let (time, cpu) = (started.elapsed(), relay.cpu() - cpu);
        let deliveries = events * subscribers;
        line(
            &format!("fan-out to 1,000, {in_flight} in flight"),
            &[("rate", rate(deliveries, time)), ("CPU/delivery", micros(cpu, deliveries))],
        );
    }
}

/// Opens idle connections with one subscription each, and prints the memory of one.
pub async fn idle(relay: &RelayProcess) {
    let connections = size("BENCH_CONNECTIONS", 10_000);
    let before = relay.resident();
    let mut clients = Vec::new();
    for n in 0..connections {
        let mut client = Client::connect(relay.port).await;
        client.send(&frame(&format!("[\"REQ\",\"q\",{{\"kinds\":[445],\"#h\":[\"{}\"]}}]", group(n)))).await;
        assert_eq!(until_eose(&mut client).await, 0);
        clients.push(client);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let each = (relay.resident() - before) / connections as u64;
    line(&format!("{connections} idle, one subscription"), &[("resident/connection", format!("{each} B"))]);
}
