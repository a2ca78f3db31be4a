//! Acknowledged events survive a killed process and a full disk.
//!
//! The tests run this binary again, as the process that is killed.
#![allow(clippy::expect_used, reason = "a test")]

use std::{
    env,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use nostr_extensions::GroupStatus;
use nostr_protocol::EventId;
use nostr_store::{
    Saved, StoreError,
    embedded::{Embedded, Options},
    suite::world::{Subject, World, event, everyone, id_of, new, roster},
};

const DIRECTORY: &str = "RNOSTR_TEST_CRASH_DIRECTORY";
const ROUND: &str = "RNOSTR_TEST_CRASH_ROUND";

fn at(directory: &Path) -> World {
    let store = Embedded::open(directory, Options::default()).expect("a store");
    World::new(Subject { store: Arc::new(store), keep: Box::new(()) })
}

fn child(test: &str, directory: &Path) -> Command {
    let mut command = Command::new(env::current_exe().expect("this binary"));
    command.args(["--exact", test, "--nocapture", "--test-threads", "1"]);
    command.env(DIRECTORY, directory).stdout(Stdio::piped());
    command
}

fn as_child() -> Option<PathBuf> {
    env::var_os(DIRECTORY).map(PathBuf::from)
}

/// Writes one line at once, so that every line that is read was written after its answer.
fn acknowledge(what: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "ACK {what}").and_then(|()| out.flush()).expect("a reader");
}

/// Run by the test below.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_until_it_is_killed() {
    let Some(directory) = as_child() else { return };
    let round: u64 = env::var(ROUND).expect("a round").parse().expect("a number");
    let w = Arc::new(at(&directory));
    for task in 0..4 {
        let w = Arc::clone(&w);
        tokio::spawn(async move {
            for n in 0.. {
                let note = w.admitted(&event(1, &format!("{round} {task} {n}")), "alice").await;
                acknowledge(&id_of(&new(w.save(vec![note]).await.remove(0))).to_hex());
            }
        });
    }
    let next = match w.group("grp").await.status {
        GroupStatus::Managed(view) => view.record.seq + 1,
        _ => 1,
    };
    for seq in next.. {
        // Each changes the group, because one that changes nothing is refused.
        let op = if seq == 1 { "bootstrap" } else { "add" };
        new(w.publish(&roster("grp", seq, op, &["alice"]).tag(&["name", &seq.to_string()]), "admin").await);
        acknowledge(&seq.to_string());
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_five_kills() {
    if as_child().is_some() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let mut ids: Vec<EventId> = Vec::new();
    let mut seq = 0;
    for round in 0..5 {
        let mut process = child("writes_until_it_is_killed", directory.path())
            .env(ROUND, round.to_string())
            .spawn()
            .expect("a child process");
        let mut lines = BufReader::new(process.stdout.take().expect("its output"));
        let before = ids.len();
        let mut killed_at = None;
        let began = Instant::now();
        let mut line = String::new();
        loop {
            line.clear();
            // A line without its end was cut by the kill.
            if lines.read_line(&mut line).expect("its output") == 0 || !line.ends_with('\n') {
                break;
            }
            // The first line stands after the test harness's "test … ".
            let Some((_, acknowledged)) = line.trim_end().rsplit_once("ACK ") else { continue };
            match EventId::from_hex(acknowledged) {
                Some(id) => ids.push(id),
                None => seq = acknowledged.parse().expect("a seq"),
            }
            let enough = ids.len() - before > 200 && began.elapsed() > Duration::from_millis(100 + 70 * round);
            if enough && killed_at.is_none() {
                process.kill().expect("SIGKILL");
                killed_at = Some(ids.len());
            }
        }
        process.wait().expect("its end");
        assert!(killed_at.is_some(), "it ended by itself");
        let w = at(directory.path());
        for id in &ids {
            assert!(w.holds(*id).await, "round {round}: an acknowledged event is gone");
        }
        let GroupStatus::Managed(view) = w.group("grp").await.status else { panic!("the group is gone") };
        assert!(seq > 0 && view.record.seq >= seq, "round {round}: seq {} is behind {seq}", view.record.seq);
        assert!(w.find(r#"{"kinds":[1]}"#, everyone()).await.len() >= ids.len());
    }
}

/// Run by the test below, under a limit on the size of files, which stands for a full disk.
#[tokio::test]
async fn fills_its_disk() {
    let Some(directory) = as_child() else { return };
    let w = at(&directory);
    let mut stored = Vec::new();
    let error = loop {
        let mut batch = Vec::new();
        for n in 0..8 {
            let text = format!("{} {n} {}", stored.len(), "x".repeat(8_000));
            batch.push(w.admitted(&event(1, &text), "alice").await);
        }
        let ids: Vec<EventId> = batch.iter().map(|admitted| admitted.event().id()).collect();
        let answers = w.store.save(batch).await;
        stored.extend(ids.iter().zip(&answers).filter(|(_, it)| matches!(it, Ok(Saved::New(_)))).map(|(id, _)| *id));
        if let Some(error) = answers.into_iter().find_map(Result::err) {
            break error;
        }
        assert!(stored.len() < 5_000, "the limit does not hold");
    };
    // LMDB takes the write that the limit cuts off for an error of the device.
    assert!(matches!(error, StoreError::Full(_) | StoreError::Unavailable(_)), "{error:?}");
    assert!(!stored.is_empty());
    for id in &stored {
        assert!(w.holds(*id).await, "reading goes on");
    }
    drop(w);
    let w = at(&directory);
    assert_eq!(w.find(r#"{"kinds":[1]}"#, everyone()).await.len(), stored.len());
    acknowledge("done");
}

#[test]
fn a_full_disk_loses_nothing_that_was_acknowledged() {
    if as_child().is_some() {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let command = child("fills_its_disk", directory.path());
    let mut shell = Command::new("sh");
    // Without SIGXFSZ, a write beyond 16 MiB fails like one on a full disk.
    shell.args(["-c", "trap '' XFSZ; ulimit -f 16384; exec \"$@\"", "sh"]);
    shell.arg(command.get_program()).args(command.get_args()).env(DIRECTORY, directory.path());
    let output = shell.output().expect("a child process");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("ACK done"), "{text}{}", String::from_utf8_lossy(&output.stderr));
}
