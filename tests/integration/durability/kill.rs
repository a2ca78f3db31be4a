//! SIGKILL while clients write.

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::AtomicUsize},
};

use serde_json::Value;

use super::load::{found, messages, notes, pump, reaches, reader};
use crate::support::{
    Keys, gateway,
    process::{Line, Process},
};

const ROUNDS: usize = 5;
/// Events and rosters that are acknowledged before the process is killed.
const EVENTS_MIN: usize = 300;
const ROSTERS_MIN: usize = 20;
const GROUP: &str = "grp_killed";

/// After each of five kills the relay serves every event and every roster that had `OK true`. The group's last `seq` is
/// at least the last acknowledged one: the refusal of a stale roster names it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_five_kills() {
    survives_kills(ROUNDS, &[]).await;
}

/// `durability = "interval"` may lose acknowledged events in a power cut, but loses none when the process is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_interval_durability_what_was_acknowledged_survives_a_kill() {
    survives_kills(2, &[("data", "durability = \"interval\""), ("data", "sync_interval_ms = 5000")]).await;
}

async fn survives_kills(rounds: usize, config: &[Line<'_>]) {
    let directory = tempfile::tempdir().expect("a directory");
    let admin = Keys::random();
    let admins = format!("admin_pubkeys = [\"{}\"]", admin.hex());
    let mut config = config.to_vec();
    config.push(("extensions.mls_gateway", &admins));

    let mut process = Process::start(directory.path(), &config);
    let mut everything = BTreeSet::new();
    let mut seq = 1;
    let founding = gateway::roster(&admin, GROUP, seq, "bootstrap", &[&admin]).sign();
    let answer = reader(&process, &admin).await.publish(&founding).await;
    assert_eq!(answer[2], true, "{answer}");

    for round in 0..rounds {
        let (events, rosters) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let address = process.address;
        let writers = [
            tokio::spawn(pump(address, None, notes(format!("{round} a")), Arc::clone(&events))),
            tokio::spawn(pump(address, None, notes(format!("{round} b")), Arc::clone(&events))),
            tokio::spawn(pump(address, None, messages(), Arc::clone(&events))),
        ];
        let (by, first) = (admin.clone(), seq);
        let mut next = seq;
        let adding = move || {
            next += 1;
            gateway::roster(&by, GROUP, next, "add", &[&Keys::random()]).sign()
        };
        let changes = tokio::spawn(pump(address, Some(admin.clone()), adding, Arc::clone(&rosters)));
        reaches(&events, EVENTS_MIN).await;
        reaches(&rosters, ROSTERS_MIN).await;
        process.kill();

        let (mut sent, mut acked) = (0, BTreeSet::new());
        for writer in writers {
            let load = writer.await.expect("a writer does not panic");
            assert_eq!(load.refused, Vec::<String>::new());
            sent += load.sent.len();
            acked.extend(load.acked);
        }
        let changes = changes.await.expect("a writer does not panic");
        // Rosters were sent in the order of their `seq`.
        let last = changes.sent.iter().rposition(|id| changes.acked.contains(id)).expect("some were acknowledged");
        let (last_acked, last_sent) = (first + 1 + last as u64, first + changes.sent.len() as u64);
        assert!(sent + changes.sent.len() > acked.len() + changes.acked.len(), "it was killed while it wrote");
        acked.extend(changes.acked);

        process = Process::start(directory.path(), &config);
        let mut wire = reader(&process, &admin).await;
        let there = found(&mut wire, &acked).await;
        let lost: Vec<_> = acked.difference(&there).collect();
        assert_eq!(lost, Vec::<&String>::new(), "round {round}: {} acknowledged and not there", lost.len());
        everything.extend(acked);

        let stale = gateway::roster(&admin, GROUP, last_acked, "add", &[&Keys::random()]).sign();
        let answer = wire.publish(&stale).await;
        seq = current_seq(&answer, last_acked);
        assert!((last_acked..=last_sent).contains(&seq), "{last_acked} <= {seq} <= {last_sent}");
    }
    let mut wire = reader(&process, &admin).await;
    assert_eq!(found(&mut wire, &everything).await, everything, "events of earlier rounds are there at the end");
}

/// The current `seq` that the refusal of a stale roster names.
fn current_seq(answer: &Value, stale: u64) -> u64 {
    let reason = answer[3].as_str().unwrap_or_default();
    let current = reason.strip_prefix(&format!("invalid: roster seq {stale} is not above "));
    assert_eq!(answer[2], false, "{answer}");
    current.and_then(|seq| seq.parse().ok()).unwrap_or_else(|| panic!("the current seq is named: {answer}"))
}
