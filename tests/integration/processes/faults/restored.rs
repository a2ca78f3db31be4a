//! A database that is put back to an older state under running relays, and then grows again.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use rnostr_test_services::{self as services, FirestoreEmulator, Postgres, Proxy};
use serde_json::{Value, json};

use super::{Cluster, LOOK, READY_SECS_MAX, StoreConfig, is_firestore, ready, until_ready_is};
use crate::support::{
    Client, Event, Keys,
    restorable::Restorable,
    rounds::{Round, Rounds},
};

const RESTORED: &str = "restored to an older state";
/// Most events before the copy, after it, and after the restore.
const KEPT_MAX: u64 = 20;
const LOST_MAX: u64 = 30;
const GROWN_MAX: u64 = 90;

fn notes(by: &Keys, text: &str, count: u64) -> Vec<Event> {
    (0..count).map(|n| by.event(1).content(format!("{text} {n}")).sign()).collect()
}

/// Publishes each note until it is accepted, and adds its id.
async fn publish(client: &mut Client, notes: &[Event], acknowledged: &mut BTreeSet<String>) {
    for note in notes {
        super::accepted(client, note, READY_SECS_MAX).await;
        acknowledged.insert(note.id().to_owned());
    }
}

/// The outcome of one subscriber.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// It got every event that was acknowledged after the restore.
    HasAll,
    /// It was told that its subscription ended, and why.
    Closed,
}

/// A subscriber, and the events that it has.
struct Reader {
    client: Client,
    has: BTreeSet<String>,
    closed: Option<String>,
}

impl Reader {
    async fn new(url: &str) -> Self {
        let mut client = Client::open(url, &[]).await.expect("it connects");
        client.req_now("live", &[json!({"kinds": [1]})]).await.expect("it is served");
        Self { client, has: BTreeSet::new(), closed: None }
    }

    fn take(&mut self, frame: &Value) {
        match frame[0].as_str() {
            Some("EVENT") => {
                self.has.insert(frame[2]["id"].as_str().expect("an id").to_owned());
            }
            Some("CLOSED") => self.closed = Some(frame[2].as_str().expect("a reason").to_owned()),
            _ => {}
        }
    }

    /// Reads until it has all of `wanted`, or its subscription was closed.
    async fn outcome(&mut self, wanted: &BTreeSet<String>) -> Outcome {
        let until = Instant::now() + Duration::from_secs(READY_SECS_MAX);
        loop {
            if self.closed.is_some() {
                return Outcome::Closed;
            }
            if wanted.is_subset(&self.has) {
                return Outcome::HasAll;
            }
            let left = until.saturating_duration_since(Instant::now());
            let missing = wanted.difference(&self.has).count();
            let frame = tokio::time::timeout(left, self.client.try_recv()).await;
            let frame = frame.unwrap_or_else(|_| panic!("{missing} acknowledged events never came"));
            let frame = frame.expect("it stays connected");
            self.take(&frame);
        }
    }
}

/// An instance that knows of commits that are gone: it says so, serves nothing, and accepts nothing.
async fn has_ended(cluster: &Cluster, n: usize, by: &Keys) {
    let address = cluster.address(n);
    let until = Instant::now() + Duration::from_secs(READY_SECS_MAX);
    loop {
        let answer = ready(address).await;
        if answer.status == 503 && answer.body.contains(RESTORED) {
            break;
        }
        assert!(Instant::now() < until, "{}: {}", answer.status, answer.body);
        tokio::time::sleep(LOOK).await;
    }
    let mut client = Client::open(&cluster.url(n), &[]).await.expect("it connects");
    client.auth(by).await.ok();
    for event in [by.event(1).sign(), by.event(20_001).sign(), by.event(5).tag(["e", &"ab".repeat(32)]).sign()] {
        assert_eq!(client.publish(&event).await.refused("error"), "error: storage unavailable, try again");
    }
    let asked = client.req_now("any", &[json!({"kinds": [1]})]).await;
    assert_eq!(asked.err().as_deref(), Some("error: storage unavailable, try again"));
}

/// The course of a round over PostgreSQL.
#[derive(Debug)]
struct Course {
    kept: u64,
    /// Events that the running instances know and the copy does not have.
    lost: u64,
    /// Events that another instance adds after the restore, before the others see it.
    grown: u64,
    /// Whether the way to the database is cut meanwhile, so that no instance sees the head in between.
    cut: bool,
}

impl Course {
    fn choose(round: &mut Round) -> Self {
        let (kept, some) = (round.within(0..=KEPT_MAX), round.within(1..=LOST_MAX));
        // The log has not grown to the known place, has grown just to it, just past it, or far past it.
        let (lost, grown) = match round.turn(&[0, 1, 2, 3, 4]) {
            0 => (some, round.within(0..=some - 1)),
            1 => (some, some),
            2 => (some, some + 1),
            3 => (some, some + round.within(2..=GROWN_MAX)),
            _ => (0, round.within(0..=GROWN_MAX)),
        };
        Self { kept, lost, grown, cut: round.within(0..=3) > 0 }
    }
}

/// Two relays know events of a history that is lost. They notice it, however far the log has grown; relays that knew
/// nothing of the lost part go on and miss nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_is_noticed_however_far_the_log_has_grown() {
    if is_firestore() {
        return a_replaced_database_of_firestore_is_noticed().await;
    }
    let Some(()) = services::require(Postgres::shared_available()) else { return };
    let mut rounds = Rounds::of("a restore");
    while let Some(mut round) = rounds.next() {
        let course = Course::choose(&mut round);
        let alice = Keys::random();
        let mut database = Restorable::new();
        let mut before = BTreeSet::new();
        {
            let first = Cluster::start(1, StoreConfig::postgres(&database.url));
            let mut client = Client::open(&first.url(0), &[]).await.expect("it connects");
            publish(&mut client, &notes(&alice, "kept", course.kept), &mut before).await;
        }
        until_alone(&database.url);
        database.copy();
        let proxy = Proxy::start(&Postgres::shared().address());
        let through = Postgres::shared().url_at(&proxy.address(), &database.name);
        let cluster = Cluster::start(2, StoreConfig::postgres(&through));
        let mut readers = [Reader::new(&cluster.url(0)).await, Reader::new(&cluster.url(1)).await];
        let mut on_a = Client::open(&cluster.url(0), &[]).await.expect("it connects");
        let mut lost = BTreeSet::new();
        publish(&mut on_a, &notes(&alice, "lost", course.lost), &mut lost).await;
        for reader in &mut readers {
            assert_eq!(reader.outcome(&lost).await, Outcome::HasAll);
        }
        if course.cut {
            proxy.cut();
        }
        database.restore();
        let third = Cluster::start(1, StoreConfig::postgres(&database.url));
        let mut on_third = Client::open(&third.url(0), &[]).await.expect("it connects");
        let mut acknowledged = BTreeSet::new();
        publish(&mut on_third, &notes(&alice, "new", course.grown), &mut acknowledged).await;
        let began = Instant::now();
        proxy.restore();
        for (n, reader) in readers.iter_mut().enumerate() {
            if course.lost > 0 {
                has_ended(&cluster, n, &alice).await;
                while reader.closed.is_none() {
                    let frame = reader.client.recv().await;
                    reader.take(&frame);
                }
                let said = reader.closed.as_ref().expect("it was closed");
                assert!(said.starts_with("error: ") && said.contains("restored"), "{said}");
            } else {
                assert_eq!(reader.outcome(&acknowledged).await, Outcome::HasAll);
                until_ready_is(cluster.address(n), 200).await;
            }
        }
        let took = began.elapsed();
        assert!(took < Duration::from_secs(READY_SECS_MAX), "{took:?}: {course:?}");
        // A relay that starts now serves all of the history that there is, and nothing was written behind its back.
        let found = on_third.neg_ids_now(json!({"kinds": [1]})).await.expect("it is served");
        let there: BTreeSet<String> = found.into_iter().collect();
        assert_eq!(there, before.union(&acknowledged).cloned().collect::<BTreeSet<_>>());
        assert_eq!(ready(third.address(0)).await.status, 200);
        rounds.ended(&round, &format!("{course:?}"), took);
    }
}

/// Waits until no relay is connected to a database.
fn until_alone(url: &str) {
    let others = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()";
    while Postgres::shared().psql(url, others).expect("psql") != "0" {
        std::thread::sleep(LOOK);
    }
}

/// The events by which a database of Firestore becomes another under running relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replaced {
    /// It is emptied.
    Emptied,
    /// It is emptied, and another relay starts over it.
    StartedAnew,
    /// The layout's document is written anew, as an import does.
    Imported,
}

/// Calls the emulator's interface for tests and REST.
fn call(method: &str, path: &str, body: &str) {
    let host = FirestoreEmulator::shared().host();
    let mut stream = TcpStream::connect(&host).expect("the emulator listens");
    let head = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer owner\r\n");
    let rest = format!("Connection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all((head + &rest).as_bytes()).expect("it reads");
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).expect("it answers");
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 200 OK");
}

async fn a_replaced_database_of_firestore_is_noticed() {
    let Some(()) = services::require(FirestoreEmulator::shared_available()) else { return };
    let emulator = FirestoreEmulator::shared();
    let mut rounds = Rounds::of("a replaced database of Firestore");
    while let Some(mut round) = rounds.next() {
        let replaced = round.turn(&[Replaced::StartedAnew, Replaced::Emptied, Replaced::Imported]);
        let (lost, grown) = (round.within(0..=LOST_MAX), round.within(0..=GROWN_MAX / 3));
        let alice = Keys::random();
        let project = emulator.project();
        let cluster = Cluster::start(2, StoreConfig::firestore(&emulator.host(), &project));
        let mut reader = Reader::new(&cluster.url(1)).await;
        let mut on_a = Client::open(&cluster.url(0), &[]).await.expect("it connects");
        let mut known = BTreeSet::new();
        publish(&mut on_a, &notes(&alice, "lost", lost), &mut known).await;
        assert_eq!(reader.outcome(&known).await, Outcome::HasAll);
        tokio::time::sleep(round.ms(0..=10_000)).await;
        let documents = format!("/v1/projects/{project}/databases/(default)/documents");
        let began = Instant::now();
        match replaced {
            Replaced::Emptied | Replaced::StartedAnew => call("DELETE", &format!("/emulator{documents}"), ""),
            Replaced::Imported => {
                let path = format!("{documents}/rnostr_meta/layout?updateMask.fieldPaths=restored");
                call("PATCH", &path, r#"{"fields":{"restored":{"booleanValue":true}}}"#);
            }
        }
        let mut acknowledged = BTreeSet::new();
        if replaced == Replaced::StartedAnew {
            let third = Cluster::start(1, StoreConfig::firestore(&emulator.host(), &project));
            let mut on_third = Client::open(&third.url(0), &[]).await.expect("it connects");
            publish(&mut on_third, &notes(&alice, "new", grown), &mut acknowledged).await;
        }
        for n in 0..2 {
            has_ended(&cluster, n, &alice).await;
        }
        let took = began.elapsed();
        while reader.closed.is_none() {
            let frame = reader.client.recv().await;
            reader.take(&frame);
        }
        let said = reader.closed.as_ref().expect("it was closed");
        assert!(said.starts_with("error: ") && said.contains("restored"), "{said}");
        rounds.ended(&round, &format!("{replaced:?}, {lost} lost, {grown} new"), took);
    }
}
