//! The world of a simulation: the instances over their store, the clients, and the steps of the plan.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use nostr_protocol::testing::{EventBuilder, key};
use nostr_relay::{
    Relay,
    config::{Config, RelayUrl},
    system::clock::Clock,
};
use nostr_store::{Store, memory::Memory};
use serde_json::{Value, json};
use tokio::{io::DuplexStream, sync::mpsc, task::JoinHandle, time::sleep};

use crate::{
    chance::Chance,
    client::{self, Order, ProofOf, RELAY_URL},
    event::{Event, Keys},
    log::Log,
    net::{self, Delay, Wire},
    plan::{ADMIN, FILTERS, Fault, MALLORY, PEOPLE, Plan, Setup, Step, What},
    record::{Connection, ListName, Record, Trouble},
    seam,
    store::{Faults, Link, Shared},
};

/// Time at the end in which nothing is wrong, so that every instance comes to the head of the log.
pub const CALM_MS: u64 = 15_000;

/// Events of one page of a list.
const PAGE: usize = 40;
/// Time in which an instance notices that its clients are gone.
const GONE_MS: u64 = 3_000;
/// Time that the questions at the end have at each instance.
const ASKED_MS: u64 = 15_000;

/// The machine's clock of an instance.
#[derive(Debug)]
struct SkewedClock(AtomicI64);

impl Clock for SkewedClock {
    fn now_ms(&self) -> u64 {
        let now_ms = seam::BEGIN_SECS * 1_000 + seam::elapsed_ms();
        now_ms.saturating_add_signed(self.0.load(Ordering::Relaxed) * 1_000)
    }
}

/// One instance, which may be away.
struct Slot {
    relay: Option<Relay>,
    link: Option<Arc<Link>>,
    faults: Faults,
    restarts_at_ms: Option<u64>,
    heals_at_ms: Option<u64>,
}

/// A person's connection.
struct Open {
    connection: usize,
    instance: usize,
    orders: mpsc::UnboundedSender<Order>,
    wire: Arc<Wire>,
    task: JoinHandle<()>,
    subscriptions: Vec<String>,
}

/// See the module.
pub struct World {
    plan: Plan,
    config: Arc<Config>,
    shared: Arc<Shared>,
    slots: Vec<Slot>,
    people: Vec<Keys>,
    open: Vec<Option<Open>>,
    groups: Vec<String>,
    seqs: Vec<u64>,
    epochs: Vec<u64>,
    published: Vec<Event>,
    pub record: Arc<Mutex<Record>>,
    chance: Chance,
    count: u64,
    /// Stops that are under way.
    stopping: Vec<JoinHandle<()>>,
}

impl World {
    /// Starts the instances of a plan.
    pub async fn start(plan: Plan, keeps_story: bool) -> Self {
        let seed = plan.seed;
        let log = Arc::<Mutex<Log>>::default();
        let record = Arc::new(Mutex::new(Record::new(Arc::clone(&log), keeps_story)));
        let setup = plan.setup;
        let memory = if setup.decides_as_shared { Memory::deciding_as_shared() } else { Memory::default() };
        let mut world = Self {
            config: Arc::new(config(&setup)),
            shared: Shared::new(log, memory),
            slots: Vec::new(),
            people: PEOPLE.iter().map(|name| Keys::of(name)).collect(),
            open: PEOPLE.iter().map(|_| None).collect(),
            groups: vec!["grp_a".to_owned(), "grp_b".to_owned(), "c".repeat(64)],
            seqs: vec![0; 2],
            epochs: vec![1; 2],
            published: Vec::new(),
            record,
            chance: Chance::new(seed, "world"),
            count: 0,
            stopping: Vec::new(),
            plan,
        };
        for instance in 0..setup.instances {
            let (from, to) = setup.store_ms;
            let faults = Faults { delay_ms: (from, to), ..Faults::default() };
            world.slots.push(Slot { relay: None, link: None, faults, restarts_at_ms: None, heals_at_ms: None });
            world.start_instance(instance).await;
        }
        world.tell(&format!("seed {seed}: {setup:?}"));
        world
    }

    async fn start_instance(&mut self, instance: usize) {
        let name = format!("link {instance} {}", seam::elapsed_ms());
        let (store, link) = self.shared.instance(Chance::new(self.plan.seed, &name));
        let clock = Arc::new(SkewedClock(AtomicI64::new(self.plan.setup.skews[instance])));
        let relay = Relay::start(Arc::clone(&self.config), store as Arc<dyn Store>, clock).await;
        link.set(self.slots[instance].faults);
        let slot = &mut self.slots[instance];
        slot.relay = Some(relay.expect("an instance starts over a store that answers"));
        slot.link = Some(link);
        self.tell(&format!("instance {instance} has started"));
    }

    pub fn tell(&self, text: &str) {
        self.record.lock().expect("no panic while it is held").tell(text);
    }

    /// Goes through the steps, and then through the calm at the end.
    pub async fn play(&mut self) {
        for (number, Step { at_ms, what }) in self.plan.steps.clone().into_iter().enumerate() {
            self.pass_to(at_ms).await;
            self.tell(&format!("step {number}: {what}"));
            self.step(&what).await;
            self.look_at_memory();
        }
        self.heal_all().await;
        self.tell("all is well from here on");
        let end = seam::elapsed_ms() + CALM_MS;
        self.pass_to(end).await;
        self.record.lock().expect("no panic while it is held").settled_ms = seam::elapsed_ms();
        self.ask_all().await;
    }

    /// Has everybody ask every instance for everything.
    async fn ask_all(&mut self) {
        self.tell("everybody asks every instance");
        for instance in 0..self.slots.len() {
            for (who, name) in PEOPLE.iter().enumerate() {
                self.connect(who, instance);
                // One reader has no key.
                if who != MALLORY {
                    self.order(who, Order::Prove(Box::new(ProofOf((*name).to_owned()))));
                }
                for number in 0..FILTERS {
                    let filter = self.filter(number);
                    for verb in ["REQ", "COUNT", "NEG-OPEN"] {
                        let (filter, id) = (filter.clone(), self.next_id("e"));
                        self.order(who, Order::Ask { verb, id, filter });
                    }
                }
                for group in 0..=self.groups.len() {
                    self.catch_up(who, group, instance);
                }
            }
            sleep(Duration::from_millis(ASKED_MS)).await;
        }
    }

    /// Lets the time pass, with the restarts and the ends of faults that fall into it.
    async fn pass_to(&mut self, until_ms: u64) {
        loop {
            let due = |slot: &Slot| slot.restarts_at_ms.into_iter().chain(slot.heals_at_ms).min();
            let next = self.slots.iter().enumerate().filter_map(|(n, slot)| Some((due(slot)?, n))).min();
            let next = next.filter(|(at_ms, _)| *at_ms <= until_ms);
            let target_ms = next.map_or(until_ms, |(at_ms, _)| at_ms);
            sleep(Duration::from_millis(target_ms.saturating_sub(seam::elapsed_ms()))).await;
            match next {
                Some((_, instance)) => self.mend(instance).await,
                None => return,
            }
        }
    }

    /// Ends what is wrong at an instance by now.
    async fn mend(&mut self, instance: usize) {
        let now_ms = seam::elapsed_ms();
        if self.slots[instance].heals_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            let (from, to) = self.plan.setup.store_ms;
            let faults = Faults { delay_ms: (from, to), ..Faults::default() };
            let slot = &mut self.slots[instance];
            (slot.heals_at_ms, slot.faults) = (None, faults);
            if let Some(link) = &slot.link {
                link.set(faults);
            }
            self.tell(&format!("instance {instance} is well again"));
        }
        if self.slots[instance].restarts_at_ms.is_some_and(|at_ms| at_ms <= now_ms) {
            self.slots[instance].restarts_at_ms = None;
            self.start_instance(instance).await;
        }
    }

    async fn heal_all(&mut self) {
        let now_ms = seam::elapsed_ms();
        for instance in 0..self.slots.len() {
            let slot = &mut self.slots[instance];
            slot.restarts_at_ms = slot.restarts_at_ms.map(|_| now_ms);
            slot.heals_at_ms = slot.heals_at_ms.map(|_| now_ms);
            self.mend(instance).await;
        }
        let mut record = self.record.lock().expect("no panic while it is held");
        for trouble in &mut record.troubles {
            trouble.to_ms = trouble.to_ms.min(now_ms);
        }
    }

    fn look_at_memory(&self) {
        let used = self.slots.iter().filter_map(|slot| slot.relay.as_ref()).map(|relay| relay.app().memory_used());
        let most = used.max().unwrap_or(0);
        let mut record = self.record.lock().expect("no panic while it is held");
        record.memory_most = record.memory_most.max(most);
    }

    /// The instance of this number, or the next one that is there.
    fn instance_from(&self, wanted: usize) -> Option<usize> {
        let count = self.slots.len();
        (0..count).map(|ahead| (wanted + ahead) % count).find(|n| self.slots[*n].relay.is_some())
    }

    /// A new connection to an instance, by this person's address.
    fn dial(&mut self, who: usize, instance: usize) -> Option<(DuplexStream, Arc<Wire>)> {
        let (from_ms, to_ms) = self.plan.setup.net_ms;
        let (client, server, wire) = net::connect(Delay { from_ms, to_ms }, &mut self.chance);
        let address = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 10 + who as u8));
        self.slots[instance].relay.as_ref()?.take(server, SocketAddr::new(address, 40_000));
        Some((client, wire))
    }

    /// The person's connection, a new one where there is none. An honest client proves its key at once.
    fn connected(&mut self, who: usize) -> Option<&mut Open> {
        if self.open[who].as_ref().is_none_or(|open| open.task.is_finished()) {
            let wanted = self.chance.index(self.slots.len());
            let instance = self.instance_from(wanted)?;
            self.connect(who, instance);
            let proves = who != MALLORY || self.chance.is(50);
            if proves {
                self.order(who, Order::Prove(Box::new(ProofOf(PEOPLE[who].to_owned()))));
            }
        }
        self.open[who].as_mut()
    }

    /// Opens a connection in the place of the person's last one.
    pub fn connect(&mut self, who: usize, instance: usize) {
        let Some((stream, wire)) = self.dial(who, instance) else { return };
        let (orders, receiver) = mpsc::unbounded_channel();
        let connection = {
            let mut record = self.record.lock().expect("no panic while it is held");
            record.connections.push(Connection {
                who,
                instance,
                opened_ms: seam::elapsed_ms(),
                greeted_ms: None,
                lines: Vec::new(),
                is_cut: false,
                leaves: false,
            });
            record.connections.len() - 1
        };
        let task = tokio::spawn(client::run(stream, connection, Arc::clone(&self.record), receiver));
        // The client leaves the connection before, in whose place the new one comes.
        self.order(who, Order::Leave);
        self.open[who] = Some(Open { connection, instance, orders, wire, task, subscriptions: Vec::new() });
    }

    /// Gives the person's connection an order.
    pub fn order(&mut self, who: usize, order: Order) {
        if let Some(open) = &self.open[who] {
            if matches!(order, Order::Leave) {
                self.record.lock().expect("no panic while it is held").connections[open.connection].leaves = true;
            }
            let _ = open.orders.send(order);
        }
    }

    fn publish(&mut self, who: usize, event: Event) {
        if self.connected(who).is_none() {
            return;
        }
        self.published.push(event.clone());
        self.order(who, Order::Publish(event));
    }

    /// A draft that no other equals, of the time of now.
    fn draft(&mut self, kind: u16) -> EventBuilder {
        self.count += 1;
        EventBuilder::new(kind).at(client::now_secs()).content(format!("event {}", self.count))
    }

    /// Keys that are used for one event alone.
    fn throw_away(&self) -> Keys {
        Keys::of(&format!("once {}", self.count))
    }

    fn next_id(&mut self, word: &str) -> String {
        self.count += 1;
        format!("{word}{}", self.count)
    }

    /// The filters that clients ask for.
    pub fn filter(&self, number: usize) -> Value {
        let hex = |who: usize| &self.people[who].hex;
        match number {
            0 => json!({}),
            1 => json!({"kinds": [445, 446, 450, 1059]}),
            2 => json!({"#h": [self.groups[2], self.groups[0]]}),
            3 => json!({"kinds": [445], "#h": [self.groups[2]]}),
            4 => json!({"#p": [hex(0), hex(1)]}),
            5 => json!({"kinds": [1, 5, 62, 30023]}),
            6 => json!({"kinds": [445], "#h": [self.groups[0]]}),
            7 => json!({"kinds": [443]}),
            _ => json!({"kinds": [21059, 1059, 4]}),
        }
    }

    async fn step(&mut self, what: &What) {
        match what {
            What::Note { who, expires_in_secs } => {
                let mut draft = self.draft(1);
                if *expires_in_secs > 0 {
                    draft = draft.tag(&["expiration", &(client::now_secs() + expires_in_secs).to_string()]);
                }
                self.publish(*who, self.people[*who].sign(&draft));
            }
            What::Article { who, d } => {
                let mut draft = self.draft(30023).tag(&["d", &d.to_string()]);
                // Versions of one second would be told apart by their ids.
                draft.created_at = draft.created_at - 100_000 + self.count;
                self.publish(*who, self.people[*who].sign(&draft));
            }
            What::Package { who } => {
                let hex = self.people[*who].hex.clone();
                let mut draft = self.draft(443).tag(&["p", &hex]);
                draft = draft.tag(&["kpr", &format!("{:064x}", self.count)]);
                self.publish(*who, self.people[*who].sign(&draft));
            }
            What::Direct { who, to } => {
                let draft = self.draft(4).tag(&["p", &self.people[*to].hex]);
                self.publish(*who, self.people[*who].sign(&draft));
            }
            What::Noise { who, to } => {
                let draft = self.draft(446).tag(&["p", &self.people[*to].hex]).tag(&["v", "noise.1"]);
                self.publish(*who, self.people[*who].sign(&draft.content("bm9pc2U=")));
            }
            What::Wrap { who, to, is_ephemeral } => {
                let kind = if *is_ephemeral { 21059 } else { 1059 };
                let draft = self.draft(kind).tag(&["p", &self.people[*to].hex]).tag(&["v", "gift.1"]);
                self.publish(*who, self.throw_away().sign(&draft));
            }
            What::Message { who, group } => {
                let draft = self.draft(445).tag(&["h", &self.groups[*group]]);
                self.publish(*who, self.throw_away().sign(&draft));
            }
            What::Commit { who, group } => {
                let content = mls_commit(self.epochs[*group]);
                // Some commits end an epoch that another one has ended, or is about to end.
                self.epochs[*group] += u64::from(self.chance.is(60));
                let draft = self.draft(445).tag(&["h", &self.groups[*group]]).content(content);
                self.publish(*who, self.throw_away().sign(&draft));
            }
            What::Roster { who, signer, group, op, keys, seq_ahead } => {
                self.roster((*who, *signer), *group, op, keys, *seq_ahead);
            }
            What::Delete { who, nth } => {
                let Some(target) = self.nth(*nth) else { return };
                let draft = self.draft(5).tag(&["e", target.id()]);
                self.publish(*who, self.people[*who].sign(&draft));
            }
            What::Vanish { who } => {
                let draft = self.draft(62).tag(&["relay", "ALL_RELAYS"]);
                self.publish(*who, self.people[*who].sign(&draft));
            }
            What::Again { who, nth } => {
                // The relay keeps no ephemeral event, so it delivers one again that is published again.
                let Some(event) = self.nth(*nth).filter(|event| !event.is_ephemeral()) else { return };
                self.publish(*who, event);
            }
            What::Subscribe { who, filter } => {
                let (filter, id) = (self.filter(*filter), self.next_id("s"));
                if let Some(open) = self.connected(*who) {
                    open.subscriptions.push(id.clone());
                    self.order(*who, Order::Ask { verb: "REQ", id, filter });
                }
            }
            What::Unsubscribe { who } => {
                if let Some(id) = self.open[*who].as_mut().and_then(|open| open.subscriptions.pop()) {
                    self.order(*who, Order::Close(id));
                }
            }
            What::Ask { who, verb, filter } => {
                let (filter, id) = (self.filter(*filter), self.next_id("a"));
                if self.connected(*who).is_some() {
                    self.order(*who, Order::Ask { verb, id, filter });
                }
            }
            What::Claim { who, owner, instance } => {
                let body = json!({"owner": self.people[*owner].hex, "count": 1});
                let Some((instance, stream)) = self.dial_rest(*who, *instance) else { return };
                let keys = self.people[*who].clone();
                let (path, body) = ("/keypackages/claim".to_owned(), Some(body));
                let request = client::Request { keys, method: "POST", path, body };
                tokio::spawn(client::answer(stream, request, Arc::clone(&self.record), (*who, instance), None));
            }
            What::List { who, group, instance } => self.catch_up(*who, *group, *instance),
            What::Auth { who, key } => {
                if self.connected(*who).is_some() {
                    self.order(*who, Order::Prove(Box::new(ProofOf(PEOPLE[*key].to_owned()))));
                }
            }
            What::Leave { who } => self.order(*who, Order::Leave),
            What::Flood { count, instance } => self.flood(*count, *instance),
            What::Fault { instance, fault, for_ms } => self.fault(*instance, *fault, *for_ms),
            What::Cut { who } => self.cut(*who),
            What::Stall { who, for_ms } => {
                let until_ms = seam::elapsed_ms() + for_ms;
                let Some(open) = &self.open[*who] else { return };
                open.wire.stalled_until_ms.store(until_ms, Ordering::Relaxed);
                let instance = open.instance;
                self.trouble(instance, *for_ms);
            }
        }
    }

    fn nth(&self, nth: u64) -> Option<Event> {
        let index = (nth as usize).checked_rem(self.published.len())?;
        Some(self.published[index].clone())
    }

    fn roster(&mut self, (who, signer): (usize, usize), group: usize, op: &str, keys: &[usize], seq_ahead: u64) {
        self.seqs[group] = (self.seqs[group] + seq_ahead).max(1);
        let seq = self.seqs[group].to_string();
        let mut draft = self.draft(450).tag(&["h", &self.groups[group]]).tag(&["seq", &seq]).tag(&["op", op]);
        let mut keys = keys.to_vec();
        keys.sort_unstable();
        keys.dedup();
        for key in keys {
            draft = draft.tag(&["p", &self.people[key].hex]);
        }
        self.publish(who, self.people[signer].sign(&draft));
    }

    fn flood(&mut self, count: u64, instance: usize) {
        let Some(instance) = self.instance_from(instance) else { return };
        self.connect(MALLORY, instance);
        for number in 0..count {
            let order = match self.chance.below(4) {
                0 => Order::Raw(format!("[\"REQ\",\"f{number}\",{{\"kinds\":[{number}]}}]")),
                1 => Order::Raw("[\"EVENT\",{}]".to_owned()),
                2 => {
                    let draft = self.draft(445).tag(&["h", &self.groups[0]]);
                    Order::Publish(self.throw_away().sign(&draft))
                }
                _ => {
                    let draft = self.draft(1);
                    Order::Publish(self.throw_away().sign(&draft))
                }
            };
            self.order(MALLORY, order);
        }
    }

    /// A connection for a request to the REST doors.
    fn dial_rest(&mut self, who: usize, instance: usize) -> Option<(usize, DuplexStream)> {
        let instance = self.instance_from(instance)?;
        Some((instance, self.dial(who, instance)?.0))
    }

    /// Has a person read a list from the cursor on that it got last. It reads a list by one request at a time.
    fn catch_up(&mut self, who: usize, group: usize, instance: usize) {
        let (path, filter) = match self.groups.get(group) {
            Some(group) => (format!("/messages?limit={PAGE}&group={group}"), json!({"kinds": [445], "#h": [group]})),
            None => {
                let filter = json!({"kinds": [446, 447, 1059], "#p": [self.people[who].hex]});
                (format!("/inbox?limit={PAGE}"), filter)
            }
        };
        let Some((instance, stream)) = self.dial_rest(who, instance) else { return };
        let list = ListName { who, path: path.clone() };
        let begun = self.record.lock().expect("no panic while it is held").begin_list(&list, filter);
        let Some(cursor) = begun else { return };
        let path = cursor.map_or(path.clone(), |cursor| format!("{path}&since_cursor={cursor}"));
        let request = client::Request { keys: self.people[who].clone(), method: "GET", path, body: None };
        tokio::spawn(client::answer(stream, request, Arc::clone(&self.record), (who, instance), Some(list)));
    }

    fn trouble(&self, instance: usize, for_ms: u64) {
        let from_ms = seam::elapsed_ms();
        let trouble = Trouble { instance, from_ms, to_ms: from_ms + for_ms };
        self.record.lock().expect("no panic while it is held").troubles.push(trouble);
    }

    fn cut(&mut self, who: usize) {
        if let Some(open) = &self.open[who] {
            open.wire.cut();
            self.record.lock().expect("no panic while it is held").connections[open.connection].is_cut = true;
        }
    }

    fn fault(&mut self, instance: usize, fault: Fault, for_ms: u64) {
        let until_ms = seam::elapsed_ms() + for_ms;
        let slot = &mut self.slots[instance];
        let Some(link) = slot.link.clone().filter(|_| slot.relay.is_some()) else { return };
        let (from, to) = self.plan.setup.store_ms;
        let mut faults = Faults { delay_ms: (from, to), ..slot.faults };
        match fault {
            Fault::Slow => faults.delay_ms = (50, 1_500),
            Fault::Down => faults.is_down = true,
            Fault::Failing => faults.failing = 40,
            Fault::LosingAnswers => faults.losing_answers = 40,
            Fault::FailingLog => faults.failing_log = 80,
            Fault::Reads => faults.failing_reads = 45,
            Fault::Deaf => faults.losing_notifications = 100,
            Fault::Doubling => faults.doubling_notifications = 60,
            Fault::Stop | Fault::Crash => {}
        }
        match fault {
            Fault::Stop | Fault::Crash => {
                let Some(relay) = slot.relay.take() else { return };
                slot.restarts_at_ms = Some(until_ms);
                slot.link = None;
                if fault == Fault::Crash {
                    link.set(Faults { is_down: true, ..Faults::default() });
                    self.shared.forget(&link);
                    for who in 0..self.open.len() {
                        if self.open[who].as_ref().is_some_and(|open| open.instance == instance) {
                            self.cut(who);
                        }
                    }
                }
                let shared = Arc::clone(&self.shared);
                let open = self.open.iter().flatten().filter(|open| open.instance == instance);
                let left: Vec<(usize, Arc<Wire>)> =
                    open.map(|open| (open.connection, Arc::clone(&open.wire))).collect();
                let record = Arc::clone(&self.record);
                self.stopping.push(tokio::spawn(async move {
                    relay.stop().await;
                    // A process ends here, with its connections and its way to the store.
                    link.set(Faults { is_down: true, ..Faults::default() });
                    shared.forget(&link);
                    for (connection, wire) in left {
                        wire.cut();
                        record.lock().expect("no panic while it is held").connections[connection].is_cut = true;
                    }
                }));
            }
            _ => {
                slot.faults = faults;
                slot.heals_at_ms = slot.heals_at_ms.max(Some(until_ms));
                link.set(faults);
            }
        }
        self.trouble(instance, for_ms);
    }

    /// Stops all instances in order.
    pub async fn stop(mut self) -> Arc<Mutex<Record>> {
        for who in 0..self.open.len() {
            self.order(who, Order::Leave);
        }
        sleep(Duration::from_millis(GONE_MS)).await;
        let left = self.slots.iter().filter_map(|slot| slot.relay.as_ref()).map(|relay| relay.app().memory_used());
        let left = left.max().unwrap_or(0);
        self.record.lock().expect("no panic while it is held").memory_left = left;
        for slot in &mut self.slots {
            if let Some(relay) = slot.relay.take() {
                relay.stop().await;
            }
        }
        for stopping in self.stopping {
            let _ = stopping.await;
        }
        self.record
    }
}

/// The configuration of all instances.
fn config(setup: &Setup) -> Config {
    let mut config = Config::default();
    config.server.port = 0;
    config.server.workers = 2;
    config.server.public_url = Some(RelayUrl::parse(RELAY_URL).expect("a URL"));
    config.server.memory_bytes_max = 64 << 20;
    let gateway = &mut config.mls_gateway;
    gateway.admin_pubkeys = vec![key(PEOPLE[ADMIN])];
    gateway.enable_message_archive = setup.has_archive;
    gateway.claims_per_hour = 0;
    gateway.claims_per_address_hour = 0;
    gateway.claim_strangers_percent = 100;
    gateway.rate_limits.max_keypackages_per_hour = 0;
    if setup.is_strict {
        gateway.commit_ordering = nostr_extensions::mls_gateway::group::CommitOrdering::Strict;
    }
    config
}

/// The epoch that a message of [`mls_commit`] ends.
pub fn epoch_of(event: &Event) -> Option<u64> {
    use base64::Engine as _;
    let bytes = base64::prelude::BASE64_STANDARD.decode(event.json()["content"].as_str()?).ok()?;
    let epoch = bytes.strip_prefix(&MLS_HEAD)?.first_chunk::<8>()?;
    Some(u64::from_be_bytes(*epoch))
}

/// The beginning of a PrivateMessage of a group (RFC 9420, 6).
const MLS_HEAD: [u8; 8] = [0, 1, 0, 2, 3, b'm', b'l', b's'];

/// The content of a 445 that shows the header of a commit: a PrivateMessage of a group, with its epoch (RFC 9420, 6).
fn mls_commit(epoch: u64) -> String {
    use base64::Engine as _;
    let mut bytes = MLS_HEAD.to_vec();
    bytes.extend_from_slice(&epoch.to_be_bytes());
    bytes.extend_from_slice(&[3, 0, 0, 0]);
    base64::prelude::BASE64_STANDARD.encode(bytes)
}
