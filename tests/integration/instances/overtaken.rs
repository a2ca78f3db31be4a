//! A removal that is acknowledged while a request reads: the request tells nothing of the group after it. Each test
//! holds the request between two pages, over direct delivery and over followed delivery of one instance and of two.

use std::{
    ops::RangeInclusive,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    Client, Event, Keys, TestRelay, empty_set,
    gateway::{capability, message, roster},
    rounds::Rounds,
    shared::{Link, Shared},
};

/// More messages than one page of the archive holds, and fewer than a request gives.
const MESSAGES: RangeInclusive<u64> = 260..=900;
/// Longer than the states may lag behind by which a page is released.
const LATER: Duration = Duration::from_millis(150);

/// A relay of one instance or of two.
struct Relays {
    /// The instance that the reader asks.
    reading: TestRelay,
    /// The instance that takes the removals, where it is another one.
    removing: Option<TestRelay>,
    /// The link between the reader's instance and the store.
    link: Arc<Link>,
    admin: Keys,
}

#[derive(Clone, Copy, Debug)]
enum Delivers {
    Directly,
    FromTheLog,
    FromTheLogOfTwo,
}

const MODES: [Delivers; 3] = [Delivers::Directly, Delivers::FromTheLog, Delivers::FromTheLogOfTwo];

impl Relays {
    async fn start(mode: Delivers) -> Self {
        let admin = Keys::random();
        let shared = Shared::new();
        let start = async |link_alone: bool| {
            let (store, link) = shared.instance();
            link.is_alone.store(link_alone, Ordering::Relaxed);
            link.loses_notifications.store(true, Ordering::Relaxed);
            let relay = TestRelay::start_over(store, |config| {
                config.mls_gateway.admin_pubkeys = vec![admin.public()];
                config.limitation.default_limit = 1_000;
                config.limitation.max_limit = 1_000;
            });
            (relay.await, link)
        };
        let (reading, link) = start(matches!(mode, Delivers::Directly)).await;
        let removing = match mode {
            Delivers::FromTheLogOfTwo => Some(start(false).await.0),
            Delivers::Directly | Delivers::FromTheLog => None,
        };
        Self { reading, removing, link, admin }
    }

    /// A connection of the admin to the instance that takes removals.
    async fn admins(&self) -> Client {
        Client::of(self.removing.as_ref().unwrap_or(&self.reading), &[&self.admin]).await
    }

    /// Founds a group of the admin and `members` with `count` messages.
    async fn filled(&self, group: &str, members: &[&Keys], count: u64) -> Client {
        let mut admins = self.admins().await;
        let mut all = vec![&self.admin];
        all.extend(members);
        admins.publish(&roster(&self.admin, group, 1, "bootstrap", &all).sign()).await.ok();
        let messages: Vec<Event> = (0..count).map(|_| message(group).sign()).collect();
        for some in messages.chunks(100) {
            admins.publish_all(some).await.iter().for_each(crate::support::Answer::ok);
        }
        admins
    }

    /// Lets the reader's next scan through, and holds the one after it while `meanwhile` runs.
    async fn between_pages<T>(&self, meanwhile: impl Future<Output = T>) -> T {
        let held = self.link.scanning.write().await;
        let before = self.link.scans_held.load(Ordering::Relaxed);
        self.link.scans_free.store(1, Ordering::Relaxed);
        let is_held = async {
            while self.link.scans_held.load(Ordering::Relaxed) == before {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), is_held).await.expect("the request reads a second page");
        let done = meanwhile.await;
        self.link.scans_free.store(u64::MAX, Ordering::Relaxed);
        drop(held);
        done
    }

    async fn stop(self) {
        self.reading.stop().await;
        if let Some(removing) = self.removing {
            removing.stop().await;
        }
    }
}

fn is_session_answer(frame: &Value) -> bool {
    frame[1] == "neg" && (frame[0] == "NEG-MSG" || frame[0] == "NEG-ERR")
}

/// Sends the message of a session, and panics unless the answer is a `NEG-ERR` that says the session ended.
async fn ended(client: &mut Client, sent: &str) {
    let answer = client.find(is_session_answer).await;
    assert_eq!(answer[0], "NEG-ERR", "{sent}: ids were told");
    assert!(answer[2].as_str().is_some_and(|reason| reason.starts_with("closed: ")), "{sent}: {answer}");
}

/// A session whose reader is removed while NEG-OPEN reads is not answered, and neither are its later messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_during_neg_open_ends_the_session() {
    let mut rounds = Rounds::of("a removal during NEG-OPEN");
    while let Some(mut round) = rounds.next() {
        let count = round.within(MESSAGES);
        let began = Instant::now();
        for mode in MODES {
            let relays = Relays::start(mode).await;
            let [bob, carol] = Keys::some();
            let mut admins = relays.filled("grp_a", &[&bob, &carol], count).await;
            let filters = [json!({"kinds": [445], "#h": ["grp_a"]}), json!({})];
            for (seq, (reader, filter)) in (2..).zip([&bob, &carol].into_iter().zip(filters)) {
                let mut readers = Client::of(&relays.reading, &[reader]).await;
                let (_, first) = empty_set();
                let removal = roster(&relays.admin, "grp_a", seq, "remove", &[reader]).sign();
                let removed = relays.between_pages(async { admins.publish(&removal).await.ok() });
                let opening = json!(["NEG-OPEN", "neg", filter, first]);
                tokio::join!(removed, readers.send(&opening));
                ended(&mut readers, &format!("{mode:?}, {filter}")).await;
                readers.send(&json!(["NEG-MSG", "neg", first])).await;
                ended(&mut readers, &format!("{mode:?}, {filter}, later")).await;
            }
            relays.stop().await;
        }
        rounds.ended(&round, &format!("{count} messages"), began.elapsed());
    }
}

/// A COUNT whose reader is removed while it reads counts none of the group's events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_during_a_count_is_counted_out() {
    let mut rounds = Rounds::of("a removal during a COUNT");
    while let Some(mut round) = rounds.next() {
        let count = round.within(MESSAGES);
        let began = Instant::now();
        for mode in MODES {
            let relays = Relays::start(mode).await;
            let bob = Keys::random();
            let mut admins = relays.filled("grp_a", &[&bob], count).await;
            let old = relays.reading.now() - 1_000;
            for n in 0..3 {
                admins.publish(&bob.event(1).content(n.to_string()).created_at(old).sign()).await.ok();
            }
            let mut bobs = Client::of(&relays.reading, &[&bob]).await;
            assert_eq!(bobs.count_now("before", &[json!({"kinds": [1, 445]})]).await, Ok(count + 3));
            let removal = roster(&relays.admin, "grp_a", 2, "remove", &[&bob]).sign();
            let filters = [json!({"kinds": [1, 445]})];
            let removed = relays.between_pages(async { admins.publish(&removal).await.ok() });
            let ((), counted) = tokio::join!(removed, bobs.count_now("count", &filters));
            assert_eq!(counted, Ok(3), "{mode:?}");
            relays.stop().await;
        }
        rounds.ended(&round, &format!("{count} messages"), began.elapsed());
    }
}

/// A REQ whose reader is removed while it reads gets no page of the group's events that was read after the removal.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_during_a_long_request_holds_for_its_next_page() {
    let mut rounds = Rounds::of("a removal during a REQ");
    while let Some(mut round) = rounds.next() {
        let count = round.within(MESSAGES);
        let began = Instant::now();
        for mode in MODES {
            let relays = Relays::start(mode).await;
            let bob = Keys::random();
            let mut admins = relays.filled("grp_a", &[&bob], count).await;
            let mut bobs = Client::of(&relays.reading, &[&bob]).await;
            let removal = roster(&relays.admin, "grp_a", 2, "remove", &[&bob]).sign();
            let filters = [json!({"kinds": [445]})];
            let removed = relays.between_pages(async {
                admins.publish(&removal).await.ok();
                tokio::time::sleep(LATER).await;
            });
            let ((), found) = tokio::join!(removed, bobs.req_now("all", &filters));
            let found = found.expect("served").len();
            assert!((1..=256).contains(&found), "{mode:?}: {found} events");
            relays.stop().await;
        }
        rounds.ended(&round, &format!("{count} messages"), began.elapsed());
    }
}

/// A session that names its events by `ids`, or an unlisted group by `#h`, ends when the group is shut to its reader.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_by_ids_ends_with_its_group() {
    for mode in MODES {
        let relays = Relays::start(mode).await;
        let [alice, bob] = Keys::some();
        let mut admins = relays.admins().await;
        let mut bobs = Client::of(&relays.reading, &[&bob]).await;
        let (_, first) = empty_set();
        for by_ids in [true, false] {
            let group = capability();
            let said = message(&group).sign();
            admins.publish(&said).await.ok();
            let filter = if by_ids { json!({"ids": [said.id()]}) } else { json!({"#h": [group]}) };
            bobs.send(&json!(["NEG-OPEN", "neg", filter, first])).await;
            assert_eq!(bobs.find(is_session_answer).await[0], "NEG-MSG", "{mode:?}, {filter}");
            let listed = roster(&relays.admin, &group, 1, "bootstrap", &[&alice]).tag(["force", "true"]).sign();
            admins.publish(&listed).await.ok();
            bobs.send(&json!(["NEG-MSG", "neg", first])).await;
            ended(&mut bobs, &format!("{mode:?}, {filter}")).await;
        }
        relays.stop().await;
    }
}

/// An admin key reads the rosters of every group. A session in which it also reads messages, as a member, ends with the
/// membership; one of rosters alone goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_of_an_admin_key_ends_with_its_membership() {
    for mode in MODES {
        let relays = Relays::start(mode).await;
        let mut admins = relays.filled("grp_a", &[], 300).await;
        let (_, first) = empty_set();
        let mut reading = Client::of(&relays.reading, &[&relays.admin]).await;
        for (id, kinds) in [("neg", json!([445, 450])), ("rosters", json!([450]))] {
            reading.send(&json!(["NEG-OPEN", id, {"kinds": kinds}, first])).await;
            assert_eq!(reading.find(|frame| frame[1] == id).await[0], "NEG-MSG", "{mode:?}");
        }
        admins.publish(&roster(&relays.admin, "grp_a", 2, "remove", &[&relays.admin]).sign()).await.ok();
        reading.send(&json!(["NEG-MSG", "neg", first])).await;
        ended(&mut reading, &format!("{mode:?}")).await;
        reading.send(&json!(["NEG-MSG", "rosters", first])).await;
        assert_eq!(reading.find(|frame| frame[1] == "rosters").await[0], "NEG-MSG", "{mode:?}");
        relays.stop().await;
    }
}
