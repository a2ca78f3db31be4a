//! Stops by SIGTERM and by Ctrl-C.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::net::TcpStream;

use super::load::{found, messages, notes, pump, reaches};
use crate::support::{
    Keys,
    process::Process,
    wire::{FIN, PING, Wire, frame},
};

/// Longest time from the signal to the end of the process.
const STOP_MAX: Duration = Duration::from_secs(10);

async fn stops_in_order(signal: &str) {
    let directory = tempfile::tempdir().expect("a directory");
    let mut process = Process::start(directory.path(), &[]);
    let address = process.address;
    let acked = Arc::new(AtomicUsize::new(0));
    let mut idle = Wire::connect(address).await;
    let writers = [
        tokio::spawn(pump(address, None, notes("a".to_owned()), Arc::clone(&acked))),
        tokio::spawn(pump(address, None, notes("b".to_owned()), Arc::clone(&acked))),
        tokio::spawn(pump(address, None, messages(), Arc::clone(&acked))),
    ];
    reaches(&acked, 300).await;
    process.signal(signal);
    let status = process.exit(STOP_MAX).await;
    assert!(status.success(), "{status}: {}", process.log());
    assert!(!process.log().contains("not everything was finished"), "{}", process.log());
    assert_eq!(idle.reader.close_code().await, None);

    let (mut sent, mut acked) = (BTreeSet::new(), BTreeSet::new());
    for writer in writers {
        let load = writer.await.expect("a writer does not panic");
        assert_eq!(load.close_code, None, "each connection ends without a close frame");
        sent.extend(load.sent);
        acked.extend(load.acked);
    }
    let process = Process::start(directory.path(), &[]);
    let stored = found(&mut Wire::connect(process.address).await, &sent).await;
    assert_eq!(stored.difference(&acked).count(), 0, "each stored event was answered before the connection closed");
    assert_eq!(acked.difference(&stored).count(), 0, "each answered event is stored");
}

/// SIGTERM under load: accepted events are finished and answered, connections end without a close frame, and the
/// process exits with 0 within 10 s.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_finishes_what_was_accepted_and_sends_no_close_frame() {
    stops_in_order("TERM").await;
}

/// Ctrl-C stops the relay in the same way.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_finishes_what_was_accepted_and_sends_no_close_frame() {
    stops_in_order("INT").await;
}

/// SIGHUP ends neither the relay nor a connection: it asks for the certificate to be read again.
#[tokio::test]
async fn a_hang_up_never_ends_the_relay() {
    let directory = tempfile::tempdir().expect("a directory");
    let process = Process::start(directory.path(), &[]);
    let mut wire = Wire::connect(process.address).await;
    for round in 1..=2 {
        process.signal("HUP");
        let until = Instant::now() + STOP_MAX;
        while process.log().matches("SIGHUP").count() < round {
            assert!(Instant::now() < until, "{}", process.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert_eq!(wire.publish(&Keys::random().event(1).sign()).await[2], true);
    }
}

/// A client that reads nothing delays the stop by a bounded time, in which no new connection is accepted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_nothing_does_not_hold_up_the_stop() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut process = Process::start(directory.path(), &[]);
    let mut writer = Wire::connect(process.address).await;
    let keys = Keys::random();
    let content = "x".repeat(200_000);
    for n in 0..100 {
        let event = keys.event(1).content(format!("{n}{content}")).sign();
        assert_eq!(writer.publish(&event).await[2], true);
    }
    // The client asks for 20 MB, more than the system's buffers take, and does not read them.
    let mut deaf = Wire::connect(process.address).await;
    deaf.writer.message(&json!(["REQ", "all", {"authors": [keys.hex()]}])).await.expect("a message is sent");
    deaf.reader.frame().await.expect("the answer begins");

    let signalled = Instant::now();
    process.signal("TERM");
    assert_eq!(writer.reader.close_code().await, None, "other connections end at once");
    assert!(signalled.elapsed() < Duration::from_secs(3), "{:?}", signalled.elapsed());
    while TcpStream::connect(process.address).await.is_ok() {
        assert!(signalled.elapsed() < Duration::from_secs(3), "no new connection is accepted");
    }
    let status = process.exit(STOP_MAX.saturating_sub(signalled.elapsed())).await;
    assert!(status.success(), "{status}: {}", process.log());
}

/// Connections that never became WebSockets are dropped at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_handshakes_do_not_hold_up_the_stop() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut process = Process::start(directory.path(), &[]);
    let mut silent = Vec::new();
    for head in ["", "G", "GET / HTTP/1.1\r\nhost: x\r\n"] {
        let mut stream = TcpStream::connect(process.address).await.expect("the relay listens");
        tokio::io::AsyncWriteExt::write_all(&mut stream, head.as_bytes()).await.expect("bytes are sent");
        silent.push(stream);
    }
    // The relay has accepted the three connections when it answers on the fourth.
    let mut wire = Wire::connect(process.address).await;
    wire.writer.raw(&frame(FIN | PING, b"")).await.expect("a ping is sent");
    let signalled = Instant::now();
    process.signal("TERM");
    let status = process.exit(STOP_MAX).await;
    assert!(status.success(), "{status}: {}", process.log());
    assert!(signalled.elapsed() < Duration::from_secs(4), "{:?}: {}", signalled.elapsed(), process.log());
}

/// A second signal during a stop changes nothing.
#[tokio::test]
async fn a_second_signal_changes_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut process = Process::start(directory.path(), &[]);
    let mut wire = Wire::connect(process.address).await;
    process.signal("TERM");
    let _ = std::process::Command::new("kill").args(["-TERM", &process.pid().to_string()]).output();
    assert_eq!(wire.reader.close_code().await, None);
    assert!(process.exit(STOP_MAX).await.success());
}
