//! Memory that clients together make grow.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::sleep;

use super::{bounded, frames::bomb, served_beside};
use crate::support::{
    Keys, TestRelay,
    process::Process,
    wire::{CLOSE, CONTINUATION, FIN, PONG, RSV1, TEXT, Wire, frame},
};

/// The least `memory_bytes_max` that can be configured.
const BYTES_MAX: usize = 16 << 20;
/// WebSocket's code for a client that broke a rule.
const POLICY: u16 = 1008;
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

/// A first fragment of a few KB that holds half a MiB counts in the memory of its connection, and so do the
/// unfinished messages of many connections: those of one address end at a bound.
#[tokio::test]
async fn a_message_that_is_not_complete_counts_for_its_payer() {
    const INFLATED: usize = 524_000;
    let relay = TestRelay::with_memory(|_| {}).await;
    let before = relay.app().memory_used();
    let (compressed, plain) = (frame(TEXT | RSV1, &bomb(INFLATED)), frame(TEXT, &[b' '; INFLATED]));
    assert!(compressed.len() < 4_000, "{} bytes", compressed.len());
    for (first, at_least) in [(&compressed[..], INFLATED), (&plain[..], INFLATED), (&plain[..400_000], 400_000)] {
        let mut wire = Wire::compressed(relay.address).await;
        wire.writer.raw(first).await.expect("bytes are sent");
        memory_becomes(&relay, |used| used >= before + at_least).await;
        drop(wire);
        memory_becomes(&relay, |used| used <= before).await;
    }
    // An unfinished message, completed, is an ordinary one.
    let mut wire = Wire::compressed(relay.address).await;
    wire.writer.raw(&compressed).await.expect("bytes are sent");
    memory_becomes(&relay, |used| used >= before + INFLATED).await;
    wire.writer.raw(&frame(FIN | CONTINUATION, b"")).await.expect("bytes are sent");
    assert_eq!(wire.reader.message().await.expect("an answer")[0], "NOTICE");
    let mut wires = Vec::new();
    for _ in 0..80 {
        let mut wire = Wire::compressed(relay.address).await;
        wire.writer.raw(&compressed).await.expect("bytes are sent");
        wires.push(wire);
    }
    let last = wires.last_mut().expect("a connection");
    assert_eq!(last.reader.close_code().await, Some(AGAIN));
    // Those beyond the bound have given back what they held.
    memory_becomes(&relay, |used| used < before + (40 << 20)).await;
    relay.stop().await;
}

/// A client whose message does not come to its end is closed with the reason, however many pongs it sends.
#[tokio::test]
async fn a_message_that_never_ends_is_closed_in_time() {
    let relay = TestRelay::with_memory(|_| {}).await;
    let mut wire = Wire::connect(relay.address).await;
    wire.writer.raw(&frame(TEXT, b"[\"REQ\",")).await.expect("bytes are sent");
    let began = Instant::now();
    let closed = loop {
        wire.writer.raw(&frame(FIN | PONG, b"")).await.expect("bytes are sent");
        match tokio::time::timeout(Duration::from_secs(1), wire.reader.frame()).await {
            Ok(frame) if frame.as_ref().is_ok_and(|frame| frame.opcode == CLOSE) => break frame.expect("a frame"),
            Ok(frame) => drop(frame.expect("it is open")),
            Err(_) => {}
        }
        assert!(began.elapsed() < Duration::from_secs(40), "it is still open");
    };
    assert!(began.elapsed() >= Duration::from_secs(19), "it had its time: {:?}", began.elapsed());
    let (code, reason) = closed.payload.split_at(2);
    assert_eq!(code, POLICY.to_be_bytes());
    assert!(String::from_utf8_lossy(reason).contains("arrives whole within 20 s"), "{closed:?}");
    relay.stop().await;
}
