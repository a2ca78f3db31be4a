//! Random events by random readers, in groups that change: every door gives every reader the events that the table of
//! docs/rules.md says, and so the same ones as every other door.

mod oracle;

use std::collections::BTreeMap;

use futures_util::future::join_all;
use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};

use self::oracle::{Oracle, created_at};
use crate::support::{
    Client, Draft, Event, Keys, TestRelay, gateway,
    rest::{self, Rest},
};

const KEYS: usize = 5;
const GROUPS: usize = 4;
/// The keys of each connection; the sixth key is the relay's admin.
const READERS: [&[usize]; 7] = [&[], &[0], &[1], &[1, 2], &[3], &[4], &[5]];

/// One step of a run; numbers are indices of keys, groups, connections, and of the events so far.
#[derive(Clone, Debug)]
enum Step {
    Note { by: usize, expires_in: Option<u64> },
    Article { by: usize, d: usize },
    KeyPackage { by: usize },
    Direct { by: usize, to: Vec<usize> },
    Noise { by: usize, to: usize },
    Request { to: usize },
    Wrap { to: usize, group: Option<usize>, ephemeral: bool },
    Message { group: usize },
    Roster { group: usize, op: usize, keys: Vec<usize> },
    Delete { by: usize, targets: Vec<prop::sample::Index> },
    Vanish { by: usize },
    Claim { owner: usize, count: usize },
    Wait { secs: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..KEYS;
    let group = || 0..GROUPS;
    prop_oneof![
        2 => (key(), prop::option::of(1..100_u64)).prop_map(|(by, expires_in)| Step::Note { by, expires_in }),
        1 => (key(), 0..2_usize).prop_map(|(by, d)| Step::Article { by, d }),
        2 => key().prop_map(|by| Step::KeyPackage { by }),
        1 => (key(), vec(key(), 1..3)).prop_map(|(by, to)| Step::Direct { by, to }),
        2 => (key(), key()).prop_map(|(by, to)| Step::Noise { by, to }),
        1 => key().prop_map(|to| Step::Request { to }),
        5 => (key(), prop::option::of(group()), any::<bool>())
            .prop_map(|(to, group, rare)| Step::Wrap { to, group, ephemeral: rare && group.is_none() }),
        8 => group().prop_map(|group| Step::Message { group }),
        6 => (group(), 0..6_usize, vec(key(), 1..4)).prop_map(|(group, op, keys)| Step::Roster { group, op, keys }),
        2 => (key(), vec(any::<prop::sample::Index>(), 1..3)).prop_map(|(by, targets)| Step::Delete { by, targets }),
        1 => key().prop_map(|by| Step::Vanish { by }),
        2 => (key(), 1..4_usize).prop_map(|(owner, count)| Step::Claim { owner, count }),
        1 => (1..60_u64).prop_map(|secs| Step::Wait { secs }),
    ]
}

struct Run {
    relay: TestRelay,
    keys: Vec<Keys>,
    groups: [String; GROUPS],
    clients: Vec<Client>,
    subscriptions: Vec<Value>,
    oracle: Oracle,
    made: Vec<Event>,
    seq: u64,
}

impl Run {
    async fn start() -> Self {
        let keys: Vec<Keys> = (0..=KEYS).map(|_| Keys::random()).collect();
        let admin = &keys[KEYS];
        let relay = TestRelay::start(|config| {
            config.mls_gateway.admin_pubkeys = vec![admin.public()];
            config.mls_gateway.claims_per_hour = 0;
            config.mls_gateway.claims_per_address_hour = 0;
            config.mls_gateway.claim_strangers_percent = 100;
        })
        .await;
        let groups = ["grp_a".to_owned(), "grp_b".to_owned(), gateway::capability(), gateway::capability()];
        let mut clients = Vec::new();
        let subscriptions = vec![
            json!({}),
            json!({"kinds": [445, 446, 450, 1059, 21059]}),
            json!({"#h": [groups[2], groups[0]]}),
            json!({"kinds": [445], "#h": [groups[3]]}),
            json!({"#p": [keys[0].hex(), keys[1].hex()]}),
        ];
        let oracle = Oracle { admin: admin.hex(), now: relay.now(), ..Oracle::default() };
        for reader in READERS {
            let own: Vec<&Keys> = reader.iter().map(|&n| &keys[n]).collect();
            let mut client = Client::of(&relay, &own).await;
            for (n, filter) in subscriptions.iter().enumerate() {
                let served = client.req(&n.to_string(), std::slice::from_ref(filter)).await.is_ok();
                assert_eq!(served, !oracle.needs_key(filter, &hex(&own)), "{filter}");
            }
            clients.push(client);
        }
        Self { relay, keys, groups, clients, subscriptions, oracle, made: Vec::new(), seq: 0 }
    }

    /// The event of a step; `None` for a step that publishes nothing.
    fn draft(&self, step: &Step) -> Option<Draft> {
        let key = |n: &usize| &self.keys[*n];
        Some(match step {
            Step::Note { by, expires_in } => {
                let end = expires_in.map(|secs| (self.relay.now() + secs).to_string());
                end.into_iter().fold(key(by).event(1), |draft, end| draft.tag(["expiration", &end]))
            }
            Step::Article { by, d } => key(by).event(30023).tag(["d", &d.to_string()]),
            Step::KeyPackage { by } => gateway::key_package(key(by)),
            Step::Direct { by, to } => key(by).event(4).tags("p", to.iter().map(|to| key(to).hex())),
            Step::Noise { by, to } => gateway::noise(key(by), key(to)),
            Step::Request { to } => gateway::request(&self.keys[KEYS], key(to)),
            Step::Wrap { to, ephemeral: true, .. } => Keys::random().event(21059).tag(["p", &key(to).hex()]),
            Step::Wrap { to, group: Some(group), .. } => gateway::welcome(key(to), &self.groups[*group]),
            Step::Wrap { to, .. } => gateway::wrap(key(to)),
            Step::Message { group } => gateway::message(&self.groups[*group]),
            Step::Roster { group, op, keys } => {
                let op = ["bootstrap", "add", "remove", "promote", "demote", "replace"][*op];
                let keys: Vec<&Keys> = keys.iter().map(key).collect();
                gateway::roster(&self.keys[KEYS], &self.groups[*group], self.seq, op, &keys)
            }
            Step::Delete { by, targets } => {
                if self.made.is_empty() {
                    return None;
                }
                let targets: BTreeMap<&str, &Event> =
                    targets.iter().map(|at| at.get(&self.made)).map(|event| (event.id(), event)).collect();
                gateway::deletion(key(by), &targets.into_values().collect::<Vec<_>>())
            }
            Step::Vanish { by } => key(by).event(62).tag(["relay", "ALL_RELAYS"]),
            Step::Claim { .. } | Step::Wait { .. } => return None,
        })
    }

    async fn step(&mut self, step: &Step, connection: usize) {
        if let Step::Wait { secs } = step {
            self.relay.advance(*secs);
            self.oracle.now = self.relay.now();
        }
        if let Step::Claim { owner, count } = step {
            self.claim(*owner, *count, connection).await;
        }
        self.seq += 1;
        // Each event is newer than the one before, so that the order is known.
        let Some(draft) = self.draft(step) else { return };
        let event = draft.created_at(self.oracle.now - 100_000 + self.seq).sign();
        let reader = reader(&self.keys, connection);
        let answer = self.clients[connection].publish(&event).await;
        let taken = self.oracle.publish(&event, &reader);
        assert_eq!(answer.accepted, taken, "{step:?} by {connection}: {}", answer.reason);
        self.made.push(event);
        self.check_live(taken).await;
    }

    /// Claims KeyPackages by the first key of a connection, and checks that the claim gives what the oracle expects.
    async fn claim(&mut self, owner: usize, count: usize, connection: usize) {
        let owner = self.keys[owner].hex();
        let body = json!({"owner": owner, "count": count}).to_string();
        let Some(claimant) = READERS[connection].first() else {
            Rest::anonymous(&self.relay).post("/keypackages/claim", body).refused(401).await;
            return;
        };
        let rest = Rest::of(&self.relay, &self.keys[*claimant]);
        let answer = rest.post("/keypackages/claim", body).send().await;
        let expected = self.oracle.claim(&owner, count);
        if expected.given.is_empty() {
            assert_eq!(answer.status, 404, "{}", answer.body);
            return;
        }
        assert_eq!(answer.status, 200, "{}", answer.body);
        let answer = answer.json();
        let given: Vec<(String, bool)> = answer["keypackages"]
            .as_array()
            .expect("a list")
            .iter()
            .map(|it| (it["event"]["id"].as_str().expect("an id").to_owned(), it["last_resort"] == true))
            .collect();
        assert_eq!((given, &answer["remaining"]), (expected.given, &json!(expected.remaining)), "claim of {count}");
    }

    /// Checks that the event just accepted came live to the readers that may read it, and that nothing else came.
    async fn check_live(&mut self, taken: bool) {
        let Self { clients, subscriptions, oracle, keys, .. } = self;
        let readers = clients.iter_mut().enumerate().map(async |(connection, client)| {
            let reader = reader(keys, connection);
            client.settle().await;
            for (n, filter) in subscriptions.iter().enumerate() {
                let got = client.here(&n.to_string());
                let new = oracle.known.last().filter(|_| taken);
                let due = new.filter(|_| !oracle.needs_key(filter, &reader));
                let due = due.filter(|known| oracle.may_read(known, &reader, filter));
                let due: Vec<Event> = due.map(|known| known.event.clone()).into_iter().collect();
                assert_eq!(got, due, "live, connection {connection}, {filter}");
            }
        });
        join_all(readers).await;
    }

    fn filters(&self) -> Vec<Value> {
        let all: Vec<&str> = self.made.iter().map(Event::id).collect();
        let authors: Vec<&Value> = self.made.iter().map(|event| &event.0["pubkey"]).take(20).collect();
        let middle = self.made.get(self.made.len() / 2).map_or(0, created_at);
        let mut filters: Vec<Value> =
            [1, 4, 5, 443, 445, 446, 447, 450, 1059, 21059, 30023].map(|kind| json!({"kinds": [kind]})).to_vec();
        filters.extend(self.subscriptions.iter().cloned());
        filters.extend([
            json!({"ids": all}),
            json!({"ids": all.iter().step_by(3).collect::<Vec<_>>(), "kinds": [1, 445]}),
            json!({"authors": authors}),
            json!({"kinds": [1, 445, 1059], "limit": 3}),
            json!({"limit": 4}),
            json!({"kinds": [445], "#h": self.groups, "since": middle}),
            json!({"kinds": [5, 445, 450], "until": middle}),
        ]);
        filters
    }

    /// Checks that REQ, COUNT and NIP-77 give the events that the oracle expects; all readers ask at the same time.
    async fn check_stored(&mut self) {
        let filters = self.filters();
        let Self { clients, oracle, keys, .. } = self;
        let readers = clients.iter_mut().enumerate().map(async |(connection, client)| {
            let reader = reader(keys, connection);
            for filter in &filters {
                let (stored, counted) =
                    (client.ids(filter.clone()).await, client.count(std::slice::from_ref(filter)).await);
                let synced = client.neg_ids(filter.clone()).await;
                if oracle.needs_key(filter, &reader) {
                    let refusals = [stored.err(), counted.err(), synced.err()];
                    for reason in refusals {
                        assert!(reason.is_some_and(|reason| reason.starts_with("auth-required: ")), "{filter}");
                    }
                    continue;
                }
                let mut expected = oracle.stored(&reader, filter);
                assert_eq!(stored.as_ref(), Ok(&expected), "REQ, connection {connection}, {filter}");
                assert_eq!(counted, Ok(expected.len() as u64), "COUNT, connection {connection}, {filter}");
                expected.sort_unstable();
                assert_eq!(synced, Ok(expected), "NEG-OPEN, connection {connection}, {filter}");
            }
        });
        join_all(readers).await;
        self.check_rest().await;
    }

    /// Checks that the REST doors give each reader of one key the events that the oracle expects.
    async fn check_rest(&self) {
        let Self { relay, oracle, keys, groups, made, .. } = self;
        let single = READERS.iter().filter(|reader| reader.len() == 1).map(|reader| &keys[reader[0]]);
        let readers = single.map(async |own| {
            let (rest, reader) = (Rest::of(relay, own), [own.hex()]);
            let mut doors: Vec<(String, &str, Value)> = Vec::new();
            for group in groups {
                let messages = json!({"kinds": [445], "#h": [group]});
                doors.push((format!("/messages?limit=3&group={group}"), "since_cursor", messages));
                doors.push((
                    format!("/groups/{group}/roster?limit=2"),
                    "cursor",
                    json!({"kinds": [450], "#h": [group]}),
                ));
            }
            doors.push((
                "/inbox?limit=2".into(),
                "since_cursor",
                json!({"kinds": [446, 447, 1059], "#p": [own.hex()]}),
            ));
            for owner in keys {
                let packages = json!({"kinds": [443, 30443], "authors": [owner.hex()]});
                doors.push((format!("/keypackages?limit=1&include=event&owner={}", owner.hex()), "cursor", packages));
            }
            for event in made {
                doors.push((format!("/events/{}", event.id()), "cursor", json!({"ids": [event.id()]})));
            }
            for (path, cursor, filter) in doors {
                let mut shown = rest::shown(&rest, &path, cursor).await.expect("an answer");
                let mut expected = oracle.stored(&reader, &filter);
                shown.sort_unstable();
                expected.sort_unstable();
                assert_eq!(shown, expected, "{path} as {filter}");
            }
        });
        join_all(readers).await;
    }
}

/// The keys of a connection.
fn reader(keys: &[Keys], connection: usize) -> Vec<String> {
    hex(&READERS[connection].iter().map(|&n| &keys[n]).collect::<Vec<_>>())
}

fn hex(keys: &[&Keys]) -> Vec<String> {
    keys.iter().map(|keys| keys.hex()).collect()
}

#[test]
fn every_path_agrees() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    // A case takes about 15 s over the emulator, which is slow.
    let cases = if crate::support::backend::name() == "firestore" { 4 } else { 10 };
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 60, ..Config::default() };
    // The relay refuses most rosters and requests of other senders, so the admin's connection sends three in four of
    // them.
    let story = vec((step(), 0..READERS.len(), 0..4_usize), 10..40);
    let result = TestRunner::new(config).run(&story, |story| {
        runtime.block_on(async {
            let mut run = Run::start().await;
            // Each story has a message that most readers may not see.
            run.step(&Step::Roster { group: 0, op: 0, keys: vec![0] }, READERS.len() - 1).await;
            run.step(&Step::Message { group: 0 }, 1).await;
            for (at, (step, connection, strays)) in story.iter().enumerate() {
                let of_admin = matches!(step, Step::Roster { .. } | Step::Request { .. }) && *strays != 0;
                let connection = if of_admin { READERS.len() - 1 } else { *connection };
                run.step(step, connection).await;
                if at == story.len() / 2 {
                    run.check_stored().await;
                }
            }
            run.check_stored().await;
        });
        Ok(())
    });
    result.unwrap_or_else(|failure| panic!("{failure}"));
}
