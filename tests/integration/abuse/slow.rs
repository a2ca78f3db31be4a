//! Clients that do not read.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{bounded, served_beside};
use crate::support::{
    Keys,
    process::Process,
    wire::{TEXT, Wire},
};

const FLOOD_EVENTS: usize = 150;
const EVENT_BYTES: usize = 200_000;

/// Four clients subscribe to a flood of 30 MB and do not read. They cost the relay no more than their bounded outboxes,
/// and a client that reads gets the whole flood at the writer's pace. When the four read again, each finds the
/// beginning of the flood without a gap, and then `CLOSED` with "too slow".
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_do_not_read_are_closed_as_too_slow() {
    let directory = tempfile::tempdir().expect("a directory");
    let process = Process::start(directory.path(), &[]);
    let before = process.memory_kib();
    let mut deaf = Vec::new();
    for _ in 0..4 {
        let mut wire = Wire::connect(process.address).await;
        assert_eq!(wire.ask(r#"["REQ","flood",{"kinds":[7]}]"#).await[0], "EOSE");
        deaf.push(wire);
    }
    let mut reading = Wire::connect(process.address).await;
    assert_eq!(reading.ask(r#"["REQ","flood",{"kinds":[7]}]"#).await[0], "EOSE");
    let reading = tokio::spawn(async move {
        let mut got = Vec::new();
        while got.len() < FLOOD_EVENTS {
            let frame = reading.reader.message().await.expect("the flood goes on");
            assert_eq!(frame[0], "EVENT", "a client that reads is not cut off");
            got.push(number(&frame));
        }
        got
    });

    let mut writer = Wire::connect(process.address).await;
    let keys = Keys::random();
    let flood = async {
        let content = "x".repeat(EVENT_BYTES);
        for n in 0..FLOOD_EVENTS {
            let event = keys.event(7).tag(["n", &n.to_string()]).content(content.clone()).sign();
            let answer = writer.publish(&event).await;
            assert_eq!(answer[2], true, "{answer}");
        }
        // The reading client gets the whole flood before the four begin to read.
        reading.await.expect("the reader does not panic")
    };
    let started = Instant::now();
    let got = served_beside(process.address, flood).await;
    assert_eq!(got, (0..FLOOD_EVENTS).collect::<Vec<_>>());
    assert!(started.elapsed() < Duration::from_secs(25), "{:?}", started.elapsed());
    // Four outboxes of 4 MiB and the sockets' buffers; the events themselves are shared.
    bounded(&process, before, 48);

    for mut wire in deaf {
        let mut got = Vec::new();
        loop {
            let frame = wire.reader.message().await.expect("the relay sends the waiting frames");
            match frame[0].as_str() {
                Some("EVENT") => got.push(number(&frame)),
                _ => {
                    assert_eq!((&frame[0], &frame[1]), (&json!("CLOSED"), &json!("flood")));
                    let reason = frame[2].as_str().unwrap_or_default();
                    assert!(reason.starts_with("error: too slow"), "{frame}");
                    break;
                }
            }
        }
        assert!(!got.is_empty() && got.len() < FLOOD_EVENTS, "{} events", got.len());
        assert_eq!(got, (0..got.len()).collect::<Vec<_>>(), "no gap before the subscription was cut off");
        // The connection stays open, and the client may subscribe again.
        assert_eq!(wire.ask(r#"["REQ","flood",{"kinds":[7],"limit":0}]"#).await[0], "EOSE");
    }
}

fn number(frame: &Value) -> usize {
    frame[2]["tags"][0][1].as_str().and_then(|n| n.parse().ok()).expect("the tag n")
}

/// The relay stops reading from a client that asks for everything in a loop and reads nothing, so no answers pile up.
#[tokio::test]
async fn answers_that_nobody_reads_do_not_pile_up() {
    let directory = tempfile::tempdir().expect("a directory");
    let process = Process::start(directory.path(), &[]);
    let mut wire = Wire::connect(process.address).await;
    let keys = Keys::random();
    let content = "x".repeat(EVENT_BYTES);
    for n in 0..50 {
        let event = keys.event(1).content(format!("{n}{content}")).sign();
        assert_eq!(wire.publish(&event).await[2], true);
    }
    let before = process.memory_kib();
    let attack = async {
        let mut deaf = Vec::new();
        for _ in 0..10 {
            let mut wire = Wire::connect(process.address).await;
            let ask = json!(["REQ", "all", {"authors": [keys.hex()]}]);
            // Each of the 100 answers has 10 MB.
            for _ in 0..100 {
                wire.writer.message(&ask).await.expect("a message is sent");
            }
            deaf.push(wire);
        }
        // The relay has begun to answer each of them.
        for wire in &mut deaf {
            assert_eq!(wire.reader.frame().await.expect("the answer begins").opcode, TEXT);
        }
        deaf
    };
    let _deaf = served_beside(process.address, attack).await;
    bounded(&process, before, 48);
}

/// A client publishes without reading its answers: the relay reads only as many events as may be under way, and every
/// event is answered when the client reads.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_that_reads_no_answers_does_not_pile_up() {
    const EVENTS: usize = 2_000;
    let directory = tempfile::tempdir().expect("a directory");
    let process = Process::start(directory.path(), &[]);
    let before = process.memory_kib();
    let attack = async {
        let Wire { mut reader, mut writer, .. } = Wire::connect(process.address).await;
        let keys = Keys::random();
        for n in 0..EVENTS {
            // Every second event is refused, with a reason that takes room.
            let mut event = keys.event(1).content(n.to_string()).sign().0;
            if n % 2 == 1 {
                event["sig"] = json!("00".repeat(64));
            }
            writer.message(&json!(["EVENT", event])).await.expect("a message is sent");
        }
        let mut taken = 0;
        for _ in 0..EVENTS {
            let answer = reader.message().await.expect("every event is answered");
            taken += usize::from(answer[2] == true);
        }
        taken
    };
    assert_eq!(served_beside(process.address, attack).await, EVENTS / 2);
    bounded(&process, before, 24);
}
