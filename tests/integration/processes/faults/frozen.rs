//! A relay that stops: at its worst moment, while its transaction holds the lock of the log, or at any moment of its
//! work.

use std::time::{Duration, Instant};

use rnostr_test_services::Postgres;
use serde_json::json;

use super::{
    super::load::Subscriber, Cluster, LOOK, READY_SECS_MAX, StoreConfig, accepted, admins, client, is_firestore,
    until_ready_is,
};
use crate::support::{
    Client, Draft, Event, Keys,
    gateway::{message, roster},
    rounds::{Round, Rounds},
};

/// Longest time for which a relay that stopped holds up the others.
const WRITES_SECS_MAX: u64 = 12;
const GROUP: &str = "grp_frozen";
const TOPIC: &str = "frozen";
/// Most members of a group whose rows fill all buffers between the server and a relay that does not read them.
const MEMBERS_MAX: u64 = 150_000;
/// Most targets of a deletion, and most bytes of the tags of each.
const TARGETS_MAX: u64 = 60;
const TAGS_BYTES_MAX: u64 = 180_000;
/// Most events that are under way when a relay stops.
const UNDER_WAY_MAX: u64 = 64;

/// The work of the relay that stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    /// A roster of a group with so many members.
    Roster { members: u64 },
    /// A deletion with so many targets, each with so many bytes of tags.
    Deletion { targets: u64, tags_bytes: u64 },
    /// So many notes.
    Notes { count: u64 },
    /// So many messages of the group.
    Messages { count: u64 },
}

/// The moment at which the relay stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// With the lock of the log.
    Locked,
    /// So long after the work was sent.
    After(Duration),
}

#[derive(Clone, Copy)]
enum Sort {
    Roster,
    LargeRoster,
    Deletion,
    Notes,
    Messages,
}

const OVER_POSTGRES: [(Sort, bool); 8] = [
    (Sort::Roster, true),
    (Sort::LargeRoster, true),
    (Sort::Deletion, true),
    (Sort::Notes, true),
    (Sort::Messages, true),
    (Sort::Messages, false),
    (Sort::Deletion, false),
    (Sort::Notes, false),
];
/// Firestore has no lock of the log that a test could wait for.
const OVER_FIRESTORE: [(Sort, bool); 4] =
    [(Sort::Messages, false), (Sort::Roster, false), (Sort::Deletion, false), (Sort::Notes, false)];

fn choose(round: &mut Round) -> (Work, Moment) {
    let choices: &[(Sort, bool)] = if is_firestore() { &OVER_FIRESTORE } else { &OVER_POSTGRES };
    let (sort, locked) = round.turn(choices);
    let work = match sort {
        Sort::Roster => Work::Roster { members: 0 },
        Sort::LargeRoster => Work::Roster { members: round.within(MEMBERS_MAX / 3..=MEMBERS_MAX) },
        Sort::Deletion => {
            let targets = if is_firestore() { TARGETS_MAX / 6 } else { TARGETS_MAX };
            Work::Deletion { targets: round.within(1..=targets), tags_bytes: round.within(100..=TAGS_BYTES_MAX) }
        }
        Sort::Notes => Work::Notes { count: round.within(1..=UNDER_WAY_MAX) },
        Sort::Messages => Work::Messages { count: round.within(1..=UNDER_WAY_MAX) },
    };
    let moment = if locked { Moment::Locked } else { Moment::After(round.ms(0..=60)) };
    (work, moment)
}

fn sql(database: &str, sql: &str) -> String {
    Postgres::shared().psql(database, sql).expect("psql")
}

/// Sessions of the database that the condition names.
fn sessions(database: &str, condition: &str) -> bool {
    let count = format!("select count(*) from pg_stat_activity where datname = current_database() and {condition}");
    sql(database, &count) != "0"
}

fn until(database: &str, condition: &str) {
    let until = Instant::now() + Duration::from_secs(20);
    while !sessions(database, condition) {
        assert!(Instant::now() < until, "{condition}");
    }
}

/// The relays of the test, and the keys of its clients.
struct Frozen {
    cluster: Cluster,
    /// The URL of the database, if it is PostgreSQL's.
    database: Option<String>,
    admin: Keys,
    alice: Keys,
    /// The number of the last roster.
    seq: u64,
}

impl Frozen {
    async fn start() -> Option<Self> {
        let store = StoreConfig::new()?;
        let database = (!is_firestore()).then(|| store.database().to_owned());
        let [admin, alice] = Keys::some();
        let cluster = Cluster::start(2, store.with([admins(&admin)]));
        let mut on_a = client(&cluster.url(0), &admin).await;
        on_a.publish(&roster(&admin, GROUP, 1, "bootstrap", &[&admin, &alice]).sign()).await.ok();
        Some(Self { cluster, database, admin, alice, seq: 1 })
    }

    fn roster(&mut self, op: &str, keys: &[&Keys]) -> Event {
        self.seq += 1;
        roster(&self.admin, GROUP, self.seq, op, keys).sign()
    }

    /// Makes the events of this work; what they need is published through the first relay.
    async fn events(&mut self, work: Work, on_a: &mut Client) -> Vec<Event> {
        match work {
            Work::Roster { members } => {
                if let Some(database) = &self.database {
                    let sql_text = format!(
                        "insert into rnostr.members (group_id, key, admin) select '{GROUP}', \
                        decode(lpad(to_hex(n), 64, '0'), 'hex'), false from generate_series(1, {members}) n \
                        on conflict do nothing"
                    );
                    sql(database, &sql_text);
                }
                vec![self.roster("add", &[&Keys::random()])]
            }
            Work::Deletion { targets, tags_bytes } => {
                let notes: Vec<Event> = (0..targets).map(|n| large(&self.alice, n, tags_bytes).sign()).collect();
                for some in notes.chunks(10) {
                    on_a.publish_all(some).await.iter().for_each(crate::support::Answer::ok);
                }
                vec![crate::support::gateway::deletion(&self.alice, &notes.iter().collect::<Vec<_>>()).sign()]
            }
            Work::Notes { count } => {
                (0..count).map(|n| self.alice.event(1).tag(["t", TOPIC]).content(format!("b {n}")).sign()).collect()
            }
            Work::Messages { count } => (0..count).map(|_| message(GROUP).sign()).collect(),
        }
    }

    /// Has the second relay work on the events and stops it. Returns whether the moment was met: with the lock of the
    /// log, the relay may give up in the moment in which it gets it.
    async fn freeze(&self, on_b: &mut Client, events: &[Event], moment: Moment) -> bool {
        let (Moment::Locked, Some(database)) = (moment, &self.database) else {
            for event in events {
                on_b.send(&json!(["EVENT", event.0])).await;
            }
            if let Moment::After(time) = moment {
                tokio::time::sleep(time).await;
            }
            self.cluster.signal(1, "STOP");
            return true;
        };
        let holder = {
            let database = database.clone();
            let hold = "begin; select head from rnostr.log for update; select pg_sleep(60)";
            std::thread::spawn(move || Postgres::shared().psql(&database, hold))
        };
        until(database, "wait_event = 'PgSleep'");
        for event in events {
            on_b.send(&json!(["EVENT", event.0])).await;
        }
        until(database, "wait_event_type = 'Lock'");
        self.cluster.signal(1, "STOP");
        let ends = "select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'PgSleep' \
            and datname = current_database()";
        sql(database, ends);
        assert!(holder.join().expect("no panic").is_err(), "it was cancelled");
        tokio::time::sleep(Duration::from_millis(300)).await;
        sessions(database, "wait_event_type = 'Client' and xact_start is not null and pid <> pg_backend_pid()")
    }

    /// Takes the answers of the relay that went on, and checks that each was true.
    async fn answers(&self, on_b: &mut Client, events: &[Event], moment: Moment) {
        let mut on_a = client(&self.cluster.url(0), &self.admin).await;
        for event in events {
            let answer = on_b.answer(event.id()).await;
            let found = on_a.req_now("told", &[json!({"ids": [event.id()]})]).await.expect("it is served");
            assert!(!answer.accepted || found.len() == 1, "{} was acknowledged and is lost", event.id());
            // Others have published later rosters meanwhile. Behind the transaction that was ended there is no other.
            if !answer.accepted && event.kind() != 450 {
                assert_eq!(answer.reason, "error: storage unavailable, try again");
            }
            if moment == Moment::Locked && events.len() == 1 {
                answer.refused("error");
                assert!(found.is_empty(), "a transaction that was ended commits nothing");
            }
        }
    }

    /// Takes the rows away that [`Work::Roster`] added.
    fn clear_members(&self) {
        if let Some(database) = &self.database {
            let of_rows = format!("group_id = '{GROUP}' and encode(key, 'hex') like '000000000000%'");
            sql(database, &format!("delete from rnostr.members where {of_rows}"));
        }
    }
}

/// A note with so many bytes of tags that no filter can name.
fn large(by: &Keys, n: u64, tags_bytes: u64) -> Draft {
    let text = "x".repeat(100);
    let draft = by.event(1).content(n.to_string());
    draft.tags("text", (0..tags_bytes / 100).map(|_| &text))
}

/// One relay is stopped. The other writes again soon, notes and removals; when the stopped one goes on, it has answered
/// nothing that is not true, and both deliver everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_instance_stops_nobody_for_long() {
    let Some(mut frozen) = Frozen::start().await else { return };
    let mut rounds = Rounds::of("a frozen instance");
    let urls = [0, 1].map(|n| frozen.cluster.url(n));
    let mut acknowledged = std::collections::BTreeSet::new();
    let mut subscribers = [Subscriber::new(&urls[0], TOPIC).await, Subscriber::new(&urls[1], TOPIC).await];
    while let Some(mut round) = rounds.next() {
        let (work, moment) = choose(&mut round);
        let mut on_a = client(&urls[0], &frozen.admin).await;
        let (events, mut on_b) = loop {
            let mut on_b = client(&urls[1], &frozen.admin).await;
            let events = frozen.events(work, &mut on_a).await;
            if frozen.freeze(&mut on_b, &events, moment).await {
                break (events, on_b);
            }
            frozen.cluster.signal(1, "CONT");
            for event in &events {
                let _ = on_b.answer(event.id()).await;
            }
        };
        let (mut took, mut put_off) = (Duration::ZERO, None);
        let member = Keys::random();
        for n in 0..4 {
            let note = frozen.alice.event(1).tag(["t", TOPIC]).content(format!("{} {n}", round.number)).sign();
            took += accepted(&mut on_a, &note, WRITES_SECS_MAX).await;
            acknowledged.insert(note.id().to_owned());
            frozen.clear_members();
            let change = frozen.roster(if n % 2 == 0 { "add" } else { "remove" }, &[&member]);
            if is_firestore() {
                // The emulator holds off writers of a document that an open transaction has read. They are told so.
                let began = Instant::now();
                if !on_a.publish(&change).await.accepted {
                    put_off = Some(change);
                }
                took = took.max(began.elapsed());
            } else {
                took += accepted(&mut on_a, &change, WRITES_SECS_MAX).await;
            }
            if put_off.is_some() {
                break;
            }
        }
        // Others do not wait for that group.
        let note = frozen.alice.event(1).tag(["t", TOPIC]).content(format!("{} last", round.number)).sign();
        took = took.max(accepted(&mut on_a, &note, WRITES_SECS_MAX).await);
        acknowledged.insert(note.id().to_owned());
        assert!(took < Duration::from_secs(WRITES_SECS_MAX), "others waited {took:?}: {work:?}, {moment:?}");
        until_ready_is(frozen.cluster.address(0), 200).await;
        frozen.cluster.signal(1, "CONT");
        frozen.answers(&mut on_b, &events, moment).await;
        if let Some(change) = &put_off {
            accepted(&mut on_a, change, READY_SECS_MAX).await;
        }
        works_again(&urls[1], &frozen.admin).await;
        until_ready_is(frozen.cluster.address(1), 200).await;
        for subscriber in &mut subscribers {
            subscriber.read_all(&acknowledged).await;
        }
        let group = if put_off.is_some() { ", the group's change put off" } else { "" };
        rounds.ended(&round, &format!("{work:?}, {moment:?}, others wrote again{group}"), took);
    }
}

/// Publishes through a relay that went on until it accepts an event.
async fn works_again(url: &str, by: &Keys) {
    let until = Instant::now() + Duration::from_secs(READY_SECS_MAX);
    let note = by.event(1).content(by.hex()).tag(["n", &Keys::random().hex()]).sign();
    loop {
        let mut client = client(url, by).await;
        if client.publish(&note).await.accepted {
            return;
        }
        assert!(Instant::now() < until, "it does not write again");
        tokio::time::sleep(LOOK).await;
    }
}
