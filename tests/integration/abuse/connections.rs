//! Connections that never finish their handshake, that end in every possible way, or that are too many.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{sleep, timeout},
};

use super::{bounded, served_beside};
use crate::support::{
    Keys, TestRelay, http,
    process::Process,
    shared::Shared,
    wire::{CLOSE, FIN, PING, PONG, TEXT, Wire, frame, head},
};

/// Reads until the relay ends the connection. Returns the time since `since`.
async fn ended(mut stream: TcpStream, since: Instant) -> Duration {
    let mut rest = Vec::new();
    let end = timeout(Duration::from_secs(15), stream.read_to_end(&mut rest)).await;
    assert!(end.is_ok(), "the relay ends the connection");
    since.elapsed()
}

/// Handshakes that trickle or stay silent are dropped when the time for a handshake is over; 300 of them harm nobody.
#[tokio::test]
async fn slow_handshakes_are_dropped() {
    let directory = tempfile::tempdir().expect("a directory");
    let process = Process::start(directory.path(), &[("server", "handshake_timeout_secs = 1")]);
    let before = process.memory_kib();
    let attack = async {
        let since = Instant::now();
        let mut ends = Vec::new();
        for n in 0..300 {
            let mut stream = TcpStream::connect(process.address).await.expect("the relay listens");
            ends.push(tokio::spawn(async move {
                if n % 3 == 0 {
                    return ended(stream, since).await;
                }
                // One byte every 100 ms: no timeout between two bytes would end this handshake.
                let head = format!("GET / HTTP/1.1\r\nhost: x\r\nx-{}: y", "long".repeat(100));
                for byte in head.bytes() {
                    if stream.write_all(&[byte]).await.is_err() {
                        break;
                    }
                    sleep(Duration::from_millis(100)).await;
                    if since.elapsed() > Duration::from_secs(6) {
                        break;
                    }
                }
                ended(stream, since).await
            }));
        }
        for end in ends {
            let took = end.await.expect("no panic");
            assert!(took < Duration::from_secs(5), "dropped after {took:?}");
        }
    };
    served_beside(process.address, attack).await;
    bounded(&process, before, 24);
}

/// An endless request head is refused at its bound.
#[tokio::test]
async fn a_head_without_end_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let process = Process::start(directory.path(), &[]);
    let before = process.memory_kib();
    let attack = async {
        let mut stream = TcpStream::connect(process.address).await.expect("the relay listens");
        let mut sent = 0;
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nx: ").await.expect("bytes are sent");
        while sent < 64 << 20 && stream.write_all(&[b'x'; 65_536]).await.is_ok() {
            sent += 65_536;
        }
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        (sent, String::from_utf8_lossy(&answer).into_owned())
    };
    let (sent, answer) = served_beside(process.address, attack).await;
    assert!(sent < 64 << 20 || answer.starts_with("HTTP/1.1 4"), "{sent} bytes were taken: {answer}");
    bounded(&process, before, 16);
}

/// A client that answers no ping is closed with 1008; a client that answers stays connected.
#[tokio::test]
async fn a_silent_client_is_pinged_and_closed() {
    let relay = TestRelay::with_memory(|config| config.server.ping_interval_secs = 1).await;
    let mut silent = Wire::connect(relay.address).await;
    let mut polite = Wire::connect(relay.address).await;
    let answering = async {
        for _ in 0..3 {
            let ping = polite.reader.frame().await.expect("a ping");
            assert_eq!(ping.opcode, PING);
            polite.writer.raw(&frame(FIN | PONG, &ping.payload)).await.expect("a pong is sent");
        }
    };
    let (code, ()) = tokio::join!(silent.reader.close_code(), answering);
    assert_eq!(code, Some(1008));
    assert_eq!(polite.ask(r#"["COUNT","c",{"ids":[]}]"#).await[0], "COUNT");
    relay.stop().await;
}

/// A client for which the store has not taken as many events as may be under way is pinged all the same. It stays
/// connected while it answers, and every event gets its answer; a client that answers no ping is closed.
#[tokio::test]
async fn a_client_with_all_its_events_in_flight_is_pinged() {
    const EVENTS: usize = 256;
    let (store, link) = Shared::new().instance();
    let relay = TestRelay::start_over(store, |config| config.server.ping_interval_secs = 1).await;
    let mut silent = Wire::connect(relay.address).await;
    let mut polite = Wire::connect(relay.address).await;
    // Longer than a few intervals of pings; the calls of the store after the pings take no longer than ever.
    link.delay_ms.store(6_000, Ordering::Relaxed);
    for wire in [&mut silent, &mut polite] {
        let keys = Keys::random();
        for n in 0..EVENTS {
            let event = keys.event(1).content(n.to_string()).sign();
            wire.writer.message(&json!(["EVENT", event.0])).await.expect("a message is sent");
        }
    }
    for n in 0..2 {
        let ping = polite.reader.frame().await.expect("a frame");
        assert_eq!(ping.opcode, PING, "ping {n} comes before any answer");
        polite.writer.raw(&frame(FIN | PONG, &ping.payload)).await.expect("a pong is sent");
    }
    link.delay_ms.store(0, Ordering::Relaxed);
    assert_eq!(silent.reader.frame().await.expect("a frame").opcode, PING);
    assert_eq!(silent.reader.close_code().await, Some(1008));
    let mut answers = 0;
    while answers < EVENTS {
        let next = polite.reader.frame().await.expect("a frame");
        if next.opcode == PING {
            polite.writer.raw(&frame(FIN | PONG, &next.payload)).await.expect("a pong is sent");
        } else {
            assert_eq!(next.opcode, TEXT, "{next:?}");
            answers += 1;
        }
    }
    relay.stop().await;
}

/// Connections over the bound are closed at once; when another client leaves, there is room again.
#[tokio::test]
async fn connections_over_the_bound_are_closed() {
    let directory = tempfile::tempdir().expect("a directory");
    let process = Process::start(directory.path(), &[("server", "connections_max = 8")]);
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(Wire::connect(process.address).await);
    }
    assert!(Wire::open(process.address, "").await.is_err());
    assert_eq!(open[0].ask(r#"["COUNT","c",{"ids":[]}]"#).await[0], "COUNT", "connections within the bound are served");
    open.pop();
    let until = Instant::now() + Duration::from_secs(10);
    while Wire::open(process.address, "").await.is_err() {
        assert!(Instant::now() < until, "a place is free again");
        sleep(Duration::from_millis(10)).await;
    }
}

/// A client that closes its sending side has left: the relay ends the connection and stores the events sent before.
#[tokio::test]
async fn half_closed_connections_end() {
    let relay = TestRelay::with_memory(|_| {}).await;
    let mut wire = Wire::connect(relay.address).await;
    assert_eq!(wire.ask(r#"["REQ","a",{"kinds":[1]}]"#).await[0], "EOSE");
    let event = Keys::random().event(7).sign();
    wire.writer.message(&json!(["EVENT", event.0])).await.expect("a message is sent");
    wire.writer.0.shutdown().await.expect("the sending side closes");
    while wire.reader.frame().await.is_ok() {}
    gone(&relay).await;
    let mut wire = Wire::connect(relay.address).await;
    let found = wire.ask(&json!(["REQ", "a", {"ids": [event.id()]}]).to_string()).await;
    assert_eq!(found[2], event.0);
    relay.stop().await;
}

/// After 2,400 connections that end in every way no subscription, task or count is left.
#[tokio::test]
async fn connections_that_end_in_any_way_leave_nothing_behind() {
    const ROUNDS: usize = 60;
    const AT_ONCE: usize = 40;
    let relay = TestRelay::with_memory(|_| {}).await;
    let address = relay.address;
    let attack = async {
        for _ in 0..ROUNDS {
            let ending: Vec<_> = (0..AT_ONCE).map(|n| tokio::spawn(connect_and_leave(address, n))).collect();
            for ending in ending {
                ending.await.expect("no panic");
            }
        }
    };
    served_beside(address, attack).await;
    gone(&relay).await;
    let metrics = http(address, "GET /metrics", &[]).await.body;
    assert!(metrics.lines().any(|line| line == "mls_gateway_connections 0"), "{metrics}");
    assert!(metrics.lines().any(|line| line == "mls_gateway_subscriptions 0"), "{metrics}");
    relay.stop().await;
}

async fn connect_and_leave(address: std::net::SocketAddr, way: usize) {
    if way.is_multiple_of(8) {
        // Leaves in the middle of the handshake.
        let mut stream = TcpStream::connect(address).await.expect("the relay listens");
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nupgrade: webs").await;
        return;
    }
    let mut wire = Wire::connect(address).await;
    let _ = wire.writer.text(r##"["REQ","a",{"kinds":[1]},{"#t":["x","y"]}]"##).await;
    let _ = wire.writer.text(r#"["REQ","b",{"authors":[]}]"#).await;
    match way % 8 {
        // Leaves with unread answers, which resets the connection.
        1 => {}
        2 => {
            let _ = wire.reader.message().await;
        }
        // Leaves in the middle of a frame.
        3 => {
            let _ = wire.writer.raw(&head(FIN | TEXT, 1_000)).await;
        }
        4 => {
            let _ = wire.writer.raw(&frame(TEXT, b"[\"EVENT\",")).await;
        }
        5 => {
            let _ = wire.writer.raw(&frame(FIN | CLOSE, &1000_u16.to_be_bytes())).await;
            wire.reader.close_code().await;
        }
        // Leaves with unanswered events.
        6 => {
            let keys = Keys::random();
            for n in 0..5 {
                let _ = wire.writer.message(&json!(["EVENT", keys.event(1).content(n.to_string()).sign().0])).await;
            }
        }
        _ => {
            let _ = wire.writer.0.shutdown().await;
        }
    }
}

/// Waits until every connection, task and subscription is gone.
async fn gone(relay: &TestRelay) {
    let app = relay.app();
    let until = Instant::now() + Duration::from_secs(15);
    while !app.connections.is_empty() || app.live.subscriptions() > 0 {
        assert!(
            Instant::now() < until,
            "{} connections and {} subscriptions are left",
            app.connections.len(),
            app.live.subscriptions()
        );
        sleep(Duration::from_millis(5)).await;
    }
}
