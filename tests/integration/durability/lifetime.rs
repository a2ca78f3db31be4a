//! Connections that have lasted for `connection_lifetime_secs`.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use super::load::{found, messages, notes, pump};
use crate::support::{process::Process, wire::Wire};

/// The shortest and the longest life of a connection that may last 2 s, with time for a busy machine.
const LIFE: std::ops::RangeInclusive<Duration> = Duration::from_millis(700)..=Duration::from_secs(6);

/// A connection under load ends within its time and without a close frame, after all of its answers, and the client
/// can come back. An idle one ends as well.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_connection_ends_after_its_answers() {
    let directory = tempfile::tempdir().expect("a directory");
    let process = Process::start(directory.path(), &[("server", "connection_lifetime_secs = 2")]);
    let address = process.address;
    let acked = Arc::new(AtomicUsize::new(0));
    let started = Instant::now();
    let mut idle = Wire::connect(address).await;
    let writers = [
        tokio::spawn(pump(address, None, notes("a".to_owned()), Arc::clone(&acked))),
        tokio::spawn(pump(address, None, messages(), Arc::clone(&acked))),
    ];
    let closed = tokio::time::timeout(*LIFE.end(), idle.reader.close_code()).await.expect("it ends");
    assert_eq!(closed, None, "an idle connection ends without a close frame");
    assert!(LIFE.contains(&started.elapsed()), "{:?}", started.elapsed());

    let (mut sent, mut acked) = (BTreeSet::new(), BTreeSet::new());
    for writer in writers {
        let load = writer.await.expect("a writer does not panic");
        assert_eq!(load.close_code, None, "a busy connection ends without a close frame");
        sent.extend(load.sent);
        acked.extend(load.acked);
    }
    assert!(LIFE.contains(&started.elapsed()), "{:?}", started.elapsed());
    assert!(!acked.is_empty(), "events were taken");
    Wire::connect(address).await;
    // The answer to a long list may take longer than a connection lasts here.
    process.kill();
    let process = Process::start(directory.path(), &[]);
    let stored = found(&mut Wire::connect(process.address).await, &sent).await;
    assert_eq!(stored, acked, "each stored event was answered before its connection ended");
}
