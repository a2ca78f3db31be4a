//! Memory that clients together make grow.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::sleep;

use super::{bounded, served_beside};
use crate::support::{
    Keys, TestRelay,
    process::Process,
    wire::{CLOSE, Wire},
};

/// The least `memory_bytes_max` that can be configured.
const BYTES_MAX: usize = 16 << 20;
/// WebSocket's code for "try again later" (RFC 6455's registry).
const AGAIN: u16 = 1013;

/// Clients at many addresses hold as many filters as one connection may. Those that hold the most are closed with the
/// reason, the small one beside them is served all the while, and what they held is given back.
#[tokio::test]
async fn memory_of_all_clients_is_bounded_and_falls_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let bytes_max = format!("trusted_proxies = [\"127.0.0.0/8\"]\nmemory_bytes_max = {BYTES_MAX}");
    let process = Process::start(directory.path(), &[("server", &bytes_max)]);
    let before = process.memory_kib();
    let attack = async {
        let tags: Vec<String> = (0..1_000).map(|n| format!("{n}")).collect();
        let filters = (0..50).map(|n| json!({"kinds": [5_000 + n], "#t": tags, "limit": 0}).to_string());
        let filters = filters.collect::<Vec<_>>().join(",");
        let mut codes = Vec::new();
        let mut wires = Vec::new();
        for client in 0..12 {
            let address = format!("x-forwarded-for: 192.0.2.{client}\r\n");
            let mut wire = Wire::open(process.address, &address).await.expect("it connects");
            let request = |n: usize| format!("[\"REQ\",\"s{n}\",{filters}]");
            for n in 0..2 {
                if wire.writer.text(&request(n)).await.is_err() {
                    break;
                }
                let frame = wire.reader.frame().await.expect("an answer");
                if frame.opcode == CLOSE {
                    let (code, reason) = frame.payload.split_at(2);
                    codes.push(u16::from_be_bytes([code[0], code[1]]));
                    assert!(String::from_utf8_lossy(reason).contains("short of memory"), "{frame:?}");
                    break;
                }
            }
            wires.push(wire);
        }
        assert!(!codes.is_empty(), "some connection is closed");
        assert!(codes.iter().all(|code| *code == AGAIN), "{codes:?}");
    };
    served_beside(process.address, attack).await;
    bounded(&process, before, (BYTES_MAX >> 20) as u64 * 2);
}

/// Waits until the memory that clients hold fits the test.
async fn memory_becomes(relay: &TestRelay, fits: impl Fn(usize) -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !fits(relay.app().memory_used()) {
        assert!(Instant::now() < until, "clients hold {} bytes", relay.app().memory_used());
        sleep(Duration::from_millis(5)).await;
    }
}

/// The events of an answer that the client does not read wait in the memory of its connection, also those that were
/// read ahead of their turn, and are given back with the connection.
#[tokio::test]
async fn an_answer_that_nobody_reads_counts_for_its_connection() {
    const EVENTS: usize = 400;
    let relay = TestRelay::with_memory(|_| {}).await;
    let mut writer = Wire::connect(relay.address).await;
    let keys = Keys::random();
    let content = "x".repeat(60_000);
    for n in 0..EVENTS {
        // Neighbours of one part lie far apart, so that each part reads ahead of the others.
        let event =
            keys.event(1).created_at(relay.now() - n as u64).tag(["t", &(n * 2).to_string()]).content(content.clone());
        assert_eq!(writer.publish(&event.sign()).await[2], true);
    }
    let before = relay.app().memory_used();
    let tags: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
    let mut deaf = Wire::connect(relay.address).await;
    let request = json!(["REQ", "all", {"kinds": [1], "#t": tags, "limit": EVENTS}]);
    deaf.writer.message(&request).await.expect("a message is sent");
    // The filter, the text of the message, and the part of the answer that waits.
    memory_becomes(&relay, |used| used > before + (512 << 10)).await;
    drop(deaf);
    memory_becomes(&relay, |used| used <= before).await;
    relay.stop().await;
}
