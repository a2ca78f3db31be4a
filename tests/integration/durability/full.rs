//! Writes without space: in the store's map, and on the disk.

use std::{collections::BTreeSet, path::Path, sync::Arc};

use nostr_extensions::{GroupStatus, NostrGroupId};
use nostr_store::embedded::{Embedded, Options};
use serde_json::json;

use super::load::found;
use crate::support::{Client, Event, Keys, Response, TestRelay, gateway, http, now, process::Process, wire::Wire};

const CONTENT_BYTES: usize = 8_000;
/// Far more events than fit.
const EVENTS_MAX: usize = 4_000;

async fn small(directory: &Path) -> TestRelay {
    let options = Options { map_bytes_max: 4 << 20, ..Options::default() };
    let store = Embedded::open(directory, options).expect("the store opens");
    TestRelay::start_over(Arc::new(store), |_| {}).await
}

fn note(keys: &Keys, n: usize) -> crate::support::Draft {
    keys.event(1).content(format!("{n} {}", "x".repeat(CONTENT_BYTES)))
}

/// Publishes until the relay answers that there is no room. Returns the accepted events.
async fn fill(client: &mut Client, mut next: impl FnMut(usize) -> Event) -> Vec<Event> {
    let mut taken = Vec::new();
    for n in 0..EVENTS_MAX {
        let event = next(n);
        let answer = client.publish(&event).await;
        if !answer.accepted {
            answer.refused("error");
            return taken;
        }
        taken.push(event);
    }
    panic!("the store does not fill up");
}

async fn all_there(client: &mut Client, events: &[Event]) {
    let ids: Vec<&str> = events.iter().map(Event::id).collect();
    for ids in ids.chunks(500) {
        assert_eq!(client.ids(json!({"ids": ids})).await.expect("reading goes on").len(), ids.len());
    }
}

/// A full map refuses writes with `error:` and serves reads. No acknowledged event is lost, and deletions make room
/// again.
#[tokio::test]
async fn a_full_map_refuses_writes_and_deletions_make_room() {
    let directory = tempfile::tempdir().expect("a directory");
    let relay = small(directory.path()).await;
    let keys = Keys::random();
    let mut client = Client::connect(&relay).await;
    let taken = fill(&mut client, |n| note(&keys, n).sign()).await;
    assert!(taken.len() > 100, "{}", taken.len());
    all_there(&mut client, &taken).await;
    client.publish(&note(&keys, EVENTS_MAX).sign()).await.refused("error");

    let (gone, kept) = taken.split_at(taken.len() / 2);
    for gone in gone.chunks(50) {
        let gone: Vec<&Event> = gone.iter().collect();
        client.publish(&gateway::deletion(&keys, &gone).sign()).await.ok();
    }
    let again = fill(&mut client, |n| note(&keys, EVENTS_MAX + n).sign()).await;
    assert!(again.len() > gone.len() / 2, "{} of {}", again.len(), gone.len());
    all_there(&mut client, kept).await;
    all_there(&mut client, &again).await;
    relay.stop().await;

    let relay = small(directory.path()).await;
    let mut client = Client::connect(&relay).await;
    all_there(&mut client, kept).await;
    all_there(&mut client, &again).await;
    relay.stop().await;
}

async fn until_ready_is(relay: &TestRelay, status: u16) -> Response {
    for _ in 0..1_000 {
        let answer = http(relay.address, "GET /ready", &[]).await;
        if answer.status == status {
            return answer;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("it is not {status}");
}

/// A relay whose store is full is not ready. It is ready again when there is room, by a deletion or by a sweep, without
/// an event of a client.
#[tokio::test]
async fn readiness_is_false_where_writes_fail() {
    let directory = tempfile::tempdir().expect("a directory");
    let relay = small(directory.path()).await;
    let keys = Keys::random();
    let mut client = Client::connect(&relay).await;
    until_ready_is(&relay, 200).await;
    let expiration = (now() + 1_000).to_string();
    let passing = fill(&mut client, |n| note(&keys, n).tag(["expiration", &expiration]).sign()).await;
    let answer = until_ready_is(&relay, 503).await;
    assert_eq!(answer.body, r#"{"status":"not ready","reason":"the store takes no events"}"#);
    relay.advance(2_000);
    relay.app().store.sweep(relay.now(), EVENTS_MAX).await.expect("sweeping needs no room");
    until_ready_is(&relay, 200).await;
    assert!(fill(&mut client, |n| note(&keys, EVENTS_MAX + n).sign()).await.len() > passing.len() / 2);
    until_ready_is(&relay, 503).await;
    relay.stop().await;
}

/// In a full map the sweep removes expired events, which makes room again.
#[tokio::test]
async fn a_full_map_has_room_again_when_events_expire() {
    let directory = tempfile::tempdir().expect("a directory");
    let relay = small(directory.path()).await;
    let keys = Keys::random();
    let mut client = Client::connect(&relay).await;
    let expiration = (now() + 1_000).to_string();
    let passing = fill(&mut client, |n| note(&keys, n).tag(["expiration", &expiration]).sign()).await;
    relay.advance(2_000);
    let swept = relay.app().store.sweep(relay.now(), EVENTS_MAX).await.expect("sweeping needs no room");
    assert_eq!(swept.removed, passing.len());
    let again = fill(&mut client, |n| note(&keys, EVENTS_MAX + n).sign()).await;
    assert!(again.len() > passing.len() / 2, "{} of {}", again.len(), passing.len());
    relay.stop().await;
}

/// In a full map a roster is applied or refused as a whole, and the group keeps its last `seq`.
#[tokio::test]
async fn a_full_map_forgets_no_seq() {
    let directory = tempfile::tempdir().expect("a directory");
    let (admin, keys) = (Keys::random(), Keys::random());
    let options = Options { map_bytes_max: 4 << 20, ..Options::default() };
    let store = Embedded::open(directory.path(), options).expect("the store opens");
    let relay = TestRelay::start_over(Arc::new(store), |config| {
        config.mls_gateway.admin_pubkeys = vec![admin.public()];
    })
    .await;
    let mut client = Client::of(&relay, &[&admin]).await;
    client.publish(&gateway::roster(&admin, "grp_full", 7, "bootstrap", &[&admin]).sign()).await.ok();
    fill(&mut client, |n| note(&keys, n).sign()).await;
    let next = gateway::roster(&admin, "grp_full", 8, "add", &[&keys]).sign();
    client.publish(&next).await.refused("error");
    let stale = gateway::roster(&admin, "grp_full", 7, "add", &[&keys]).sign();
    let answer = client.publish(&stale).await;
    assert!(!answer.accepted, "{answer:?}");
    let group = NostrGroupId::parse("grp_full").expect("a group id");
    let (state, _) = relay.app().store.group(&group).await.expect("reading goes on");
    let GroupStatus::Managed(view) = &state.status else { panic!("the group is managed: {state:?}") };
    assert_eq!((view.record.seq, view.members.len()), (7, 1));
    relay.stop().await;
}

/// Publishes to a process until it answers that there is no room. Returns the accepted ids.
async fn fill_process(wire: &mut Wire, keys: &Keys) -> BTreeSet<String> {
    let mut taken = BTreeSet::new();
    for n in 0..EVENTS_MAX {
        let event = note(keys, n).sign();
        let answer = wire.publish(&event).await;
        if answer[2] == false {
            let reason = answer[3].as_str().unwrap_or_default();
            assert!(reason.starts_with("error: "), "{answer}");
            return taken;
        }
        taken.insert(event.id().to_owned());
    }
    panic!("the disk does not fill up");
}

/// A store whose file may not grow (EFBIG) refuses writes with `error:` and serves reads. After a restart without the
/// limit every acknowledged event is there, and writes succeed.
#[tokio::test]
async fn a_file_that_cannot_grow_loses_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let bounded = ["bash", "-c", "trap '' XFSZ; ulimit -f 4096; exec \"$0\" \"$@\""];
    let process = Process::start_by(&bounded, directory.path(), &[]);
    let keys = Keys::random();
    let mut wire = Wire::connect(process.address).await;
    let taken = fill_process(&mut wire, &keys).await;
    assert!(taken.len() > 100, "{}", taken.len());
    assert_eq!(found(&mut wire, &taken).await, taken, "reading goes on");
    process.kill();

    let process = Process::start(directory.path(), &[]);
    let mut wire = Wire::connect(process.address).await;
    assert_eq!(found(&mut wire, &taken).await, taken, "nothing acknowledged is lost");
    assert_eq!(wire.publish(&note(&keys, EVENTS_MAX).sign()).await[2], true);
}

/// A store on a full disk (ENOSPC) refuses writes with `error:` and serves reads; when the disk has room again the same
/// process writes again.
#[tokio::test]
async fn a_full_disk_loses_nothing_and_writing_goes_on_when_it_has_room() {
    let directory = tempfile::tempdir().expect("a directory");
    let data = directory.path().join("data");
    std::fs::create_dir(&data).expect("a directory");
    let may_mount = std::process::Command::new("unshare").args(["-m", "true"]).status();
    if !may_mount.is_ok_and(|status| status.success()) {
        eprintln!("skipped: no right to mount a small disk; the test with a bounded file covers this case");
        return;
    }
    // The script mounts a disk of 8 MiB and fills 4 of them with a ballast file; the disk disappears with the process.
    let script = format!(
        "mount -t tmpfs -o size=8m tmpfs {0} && head -c 4194304 /dev/zero > {0}/ballast && exec \"$0\" \"$@\"",
        data.display()
    );
    let process = Process::start_by(&["unshare", "-m", "sh", "-c", &script], directory.path(), &[]);
    let keys = Keys::random();
    let mut wire = Wire::connect(process.address).await;
    let taken = fill_process(&mut wire, &keys).await;
    assert!(taken.len() > 100, "{}", taken.len());
    assert_eq!(found(&mut wire, &taken).await, taken, "reading goes on");

    let ballast = format!("/proc/{}/root{}/ballast", process.pid(), data.display());
    std::fs::remove_file(ballast).expect("the disk has room again");
    let more = note(&keys, EVENTS_MAX).sign();
    assert_eq!(wire.publish(&more).await[2], true);
    assert_eq!(found(&mut wire, &taken).await, taken, "nothing acknowledged is lost");
}
