//! Live delivery without sockets: queues, shards, and the work that one client may cause. Counters are asserted, and no
//! times.

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use nostr_extensions::{
    CurrentPolicy, Gate, Group, GroupRecord, GroupStatus, ManagedGroup, NostrGroupId, Policy, Publisher, Reader, Role,
    Sealed, Source, Stamp, admit, admit::NEVER,
};
use nostr_protocol::{
    Filter, PublicKey,
    auth::RelayNames,
    testing::{EventBuilder, key, keypair},
};
use nostr_store::{Saved, Store, StoreError, memory::Memory};

use super::{
    ConnectionId, Live, Outbox,
    direct::Direct,
    groups::{GroupState, Groups},
    index::ROUTES_PER_HOLD_MAX,
    queue::LiveEvent,
    shard::Shard,
};
use crate::{memory, observe::metrics::Metrics, system::clock::SetClock};

const NOW: u64 = 1_795_370_771;

/// Live delivery over a store in memory, whose shards run when the test says so. Its clock stands still, so that no
/// account fills again.
struct Relay {
    store: Arc<dyn Store>,
    groups: Arc<Groups>,
    policy: CurrentPolicy,
    metrics: Arc<Metrics>,
    live: Arc<Live>,
    memory: Arc<memory::Memory>,
}

/// One subscriber.
struct Client {
    connection: ConnectionId,
    outbox: Arc<Outbox>,
}

impl Relay {
    fn with_shards(shards: usize) -> Self {
        let store: Arc<dyn Store> = Arc::new(Memory::default());
        let groups = Arc::new(Groups::new(Arc::clone(&store), std::time::Duration::from_secs(60)));
        let (policy, metrics) = (CurrentPolicy::from(Policy::default()), Arc::<Metrics>::default());
        let live = Live::new(
            Gate::new(policy.clone()),
            Arc::clone(&groups),
            store.route_hasher(),
            Arc::clone(&metrics),
            Arc::new(SetClock::at(NOW)),
            shards,
        );
        let memory = memory::Memory::new(usize::MAX);
        Self { store, groups, policy, metrics, live: Arc::new(live), memory }
    }

    /// Direct delivery, and the shards that the test runs.
    fn direct(&self) -> (Direct, Vec<Shard>) {
        let (feed, shards) = Shard::all(&self.live, &self.store, &self.groups);
        (Direct::over(Arc::clone(&self.groups), self.policy.clone(), feed), shards)
    }

    /// Saves events and hands them on as the writer does.
    async fn publish(&self, direct: &Direct, events: Vec<EventBuilder>) {
        let (reader, names) = (Reader::default(), RelayNames::Loopback);
        let admitted = events.into_iter().map(|event| {
            let publisher = Publisher { reader: &reader, names: &names };
            admit::admit(event.sign(&keypair("alice")), publisher, &self.policy.now(), None, NOW)
                .expect("it is admitted")
        });
        let saved = self.store.save(admitted.collect()).await;
        let states = direct.note(&saved);
        let new = |saved: Result<Saved, StoreError>| match saved {
            Ok(Saved::New(sealed)) => Some(sealed),
            _ => None,
        };
        let events: Vec<Sealed> = saved.into_iter().filter_map(new).collect();
        direct.committed(events, states);
    }

    fn connect(&self, payer: u64) -> Client {
        let outbox = Arc::new(Outbox::new(1 << 30, self.memory.open(payer), Arc::default()));
        Client { connection: self.live.connect(Arc::clone(&outbox), payer), outbox }
    }

    async fn subscribe(&self, client: &Client, id: &str, filters: &[String]) {
        self.live.subscribe(client.connection, id, parsed(filters), 300).await.expect("there is room");
    }

    /// The value of a counter.
    fn counter(&self, name: &str) -> u64 {
        let text = self.metrics.render(crate::observe::metrics::Format::Prometheus);
        let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
    }
}

impl Client {
    /// The frames that came: the verb, the subscription, and the event's content or the reason.
    fn frames(&self) -> impl Iterator<Item = [String; 3]> {
        std::iter::from_fn(|| self.outbox.pop()).map(|frame| {
            let frame: serde_json::Value = serde_json::from_slice(&frame.into_bytes()).expect("JSON");
            let last = if frame[0] == "EVENT" { &frame[2]["content"] } else { &frame[2] };
            [&frame[0], &frame[1], last].map(|text| text.as_str().expect("a string").to_owned())
        })
    }

    /// The contents of the events that came, and the reasons for which subscriptions ended.
    fn received(&self) -> (Vec<String>, Vec<String>) {
        let (events, ends): (Vec<_>, Vec<_>) = self.frames().partition(|[verb, ..]| verb == "EVENT");
        let last = |frames: Vec<[String; 3]>| frames.into_iter().map(|[.., last]| last).collect();
        (last(events), last(ends))
    }
}

fn parsed(filters: &[String]) -> Arc<[Filter]> {
    filters.iter().map(|filter| serde_json::from_str(filter).expect("a filter")).collect()
}

/// A note that fills a 256th of a queue.
fn large(n: u64) -> EventBuilder {
    note(n).tag(&["large", &"x".repeat(64 << 10)])
}

fn note(content: impl ToString) -> EventBuilder {
    EventBuilder::new(1).content(content.to_string())
}

/// An event of which queries know nothing, handed to one shard alone.
fn live_event(n: u64, event: EventBuilder) -> LiveEvent {
    let stamp = Stamp { cursor: n, received_at: NOW, expires_at: NEVER, author_only: false };
    LiveEvent::new(Sealed::new(event.event(&keypair("alice")), stamp), None, true, std::time::Instant::now())
}

fn numbers(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

/// 50 letters, of which an event below meets all but the last.
fn letters() -> Vec<char> {
    ('a'..='z').chain('A'..='Z').filter(|letter| !matches!(letter, 'e' | 'p')).collect()
}

/// Filters of 50 letters, in subscriptions of at most 100.
async fn subscribe_hostile(relay: &Relay, client: &Client, filters: usize) {
    let all: Vec<String> = (0..filters).map(hostile_filter).collect();
    for (at, part) in all.chunks(100).enumerate() {
        relay.subscribe(client, &format!("hostile {at}"), part).await;
    }
}

/// A filter of 50 letters, different for each number.
fn hostile_filter(n: usize) -> String {
    let conditions: Vec<String> = letters().iter().map(|letter| format!("\"#{letter}\":[\"v\"]")).collect();
    format!("{{\"since\":{n},{}}}", conditions.join(","))
}

/// An event of 2,490 tags that meets all conditions but those on the last letter.
fn hostile_event(n: u64) -> EventBuilder {
    let letters = letters();
    let mut event = note("hostile").at(NOW + n);
    for tag in 0..2_490 {
        let letter = letters[tag % letters.len()];
        let value = if tag < 49 { "v".to_owned() } else { format!("x{tag}") };
        event = event.tag(&[&letter.to_string(), &value]);
    }
    event
}

/// Events that nearly match 377 filters of 50 letters cost their payer its account, and end its subscriptions. Others
/// of the same shard get what comes after, and the work for the hostile ones stays within the account.
#[tokio::test]
async fn a_hostile_filter_delays_no_delivery() {
    let relay = Relay::with_shards(1);
    let (hostile, honest) = (relay.connect(1), relay.connect(2));
    subscribe_hostile(&relay, &hostile, 377).await;
    relay
        .subscribe(&honest, "honest", &[r#"{"kinds":[1],"authors":["00"]}"#.replace("00", &key("alice").to_hex())])
        .await;
    for n in 1..=100 {
        relay.live.deliver(0, &live_event(2 * n, hostile_event(n))).await;
        relay.live.deliver(0, &live_event(2 * n + 1, note(n))).await;
    }
    let conditions = relay.counter("mls_gateway_delivery_conditions_total");
    assert!(conditions < 2_500_000, "{conditions} conditions for 377 filters and 100 events");
    let (_, reasons) = hostile.received();
    assert_eq!(reasons.len(), 4, "every hostile subscription ends");
    assert!(reasons.iter().all(|reason| reason.starts_with("rate-limited: ")), "{reasons:?}");
    let (contents, reasons) = honest.received();
    let expected: Vec<String> = (1..=100).flat_map(|n| ["hostile".to_owned(), n.to_string()]).collect();
    assert_eq!((contents, reasons), (expected, vec![]));
}

/// A payer's other subscriptions go on when one that costs too much ends, and all its connections pay together.
#[tokio::test]
async fn a_subscription_that_exceeds_its_budget_is_closed() {
    let relay = Relay::with_shards(2);
    let clients = [relay.connect(1), relay.connect(1)];
    for client in &clients {
        subscribe_hostile(&relay, client, 300).await;
        relay.subscribe(client, "modest", &[r##"{"kinds":[1],"#d":["modest"]}"##.to_owned()]).await;
    }
    for n in 1..=200 {
        for shard in 0..2 {
            relay.live.deliver(shard, &live_event(n, hostile_event(n))).await;
        }
    }
    for shard in 0..2 {
        relay.live.deliver(shard, &live_event(300, note("modest").tag(&["d", "modest"]))).await;
    }
    for client in &clients {
        let (contents, reasons) = client.received();
        assert_eq!(contents, ["modest"]);
        assert_eq!(reasons.len(), 3, "the subscriptions that cost too much end");
        assert!(reasons.iter().all(|reason| reason.contains("name fewer tag letters")), "{reasons:?}");
    }
    assert_eq!(relay.live.subscriptions(), 2);
    // Ordinary filters stay far below: a thousand events for each of ten.
    let ordinary = relay.connect(2);
    for n in 0..10 {
        relay.subscribe(&ordinary, &n.to_string(), &[format!(r#"{{"kinds":[1],"since":{n}}}"#)]).await;
    }
    let before = relay.counter("mls_gateway_delivery_conditions_total");
    for n in 0..1_000 {
        relay.live.deliver(ordinary_shard(&relay, &ordinary), &live_event(400 + n, note(n))).await;
    }
    let cost = relay.counter("mls_gateway_delivery_conditions_total") - before;
    assert!(cost < 2_000_000 / 10, "{cost} conditions for a second of an ordinary client");
    assert_eq!(ordinary.received().0.len(), 10_000);
}

/// Work that a payer owes for subscriptions that ended stays with the payer, however many it opens anew.
#[tokio::test]
async fn closing_and_opening_subscriptions_lends_nothing() {
    let relay = Relay::with_shards(1);
    let mut refusals = 0;
    for round in 0..200 {
        let client = relay.connect(1);
        let filters = (0..100).map(|n| hostile_filter(round * 100 + n)).collect::<Vec<_>>();
        match relay.live.subscribe(client.connection, "hostile", parsed(&filters), 10).await {
            Ok(_) => relay.live.deliver(0, &live_event(round as u64 + 1, hostile_event(1))).await,
            Err(refusal) => {
                let refusal = refusal.to_string();
                assert!(refusal.starts_with("rate-limited: ") && refusal.ends_with("; retry in 1 s"), "{refusal}");
                refusals += 1;
            }
        }
        relay.live.disconnect(client.connection).await;
    }
    let conditions = relay.counter("mls_gateway_delivery_conditions_total");
    assert!(refusals > 50, "{refusals} refusals");
    assert!(conditions < 2_000_000 + 50_000, "{conditions} conditions");
}

/// The shard that delivers to the client: the one whose deliveries it gets.
fn ordinary_shard(relay: &Relay, client: &Client) -> usize {
    client.connection.0 as usize % relay.live.shards()
}

/// While no shard runs, batches are handed on at once, and the queues stay within their bounds.
#[tokio::test]
async fn the_writer_never_waits_for_delivery() {
    let relay = Relay::with_shards(2);
    let (direct, shards) = relay.direct();
    for batch in 0..40 {
        let events = (0..20).map(|n| large(batch * 20 + n)).collect();
        // Nothing else runs meanwhile, so a wait for room would have no end.
        let mut published = pin!(relay.publish(&direct, events));
        assert_eq!(published.as_mut().poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(()));
    }
    for shard in &shards {
        let (events, bytes) = shard.waiting();
        assert!(events <= 8_192 && bytes <= 16 << 20, "{events} events of {bytes} bytes wait");
    }
}

/// Events that found no room in the queue are delivered from the log, each once and in order, and ephemeral ones among
/// them in their place.
#[tokio::test]
async fn delivery_goes_on_by_the_log_when_its_queue_is_full() {
    let relay = Relay::with_shards(2);
    let clients: Vec<Client> = (0..4).map(|payer| relay.connect(payer)).collect();
    for client in &clients {
        relay.subscribe(client, "all", &[r#"{"kinds":[1,20001]}"#.to_owned()]).await;
    }
    let (direct, shards) = relay.direct();
    let event = |n: u64| if n.is_multiple_of(50) { EventBuilder::new(20_001).content(n.to_string()) } else { large(n) };
    for batch in 0..30 {
        relay.publish(&direct, (batch * 20..(batch + 1) * 20).map(event).collect()).await;
    }
    assert!(shards.iter().all(|shard| shard.waiting().0 < 300), "the queues did not hold all");
    drop(direct);
    for shard in shards {
        shard.run().await;
    }
    for client in &clients {
        assert_eq!(client.received(), (numbers(0..600), vec![]));
    }
    assert!(relay.counter("mls_gateway_delivery_log_events_total") > 2 * 300);
}

/// An ephemeral event is in no log: while as many as there is room for wait, no further one is taken.
#[tokio::test]
async fn an_ephemeral_event_that_finds_no_room_is_not_taken() {
    let relay = Relay::with_shards(1);
    let client = relay.connect(1);
    relay.subscribe(&client, "all", &[r#"{"kinds":[1,20001]}"#.to_owned()]).await;
    let (direct, shards) = relay.direct();
    let ephemeral = EventBuilder::new(20_001).tag(&["large", &"x".repeat(64 << 10)]);
    let mut taken = 0;
    while direct.takes(nostr_protocol::Kind(20_001)) {
        relay.publish(&direct, vec![ephemeral.clone().content(taken.to_string())]).await;
        taken += 1;
        assert!(taken < 1_000, "a bound is reached");
    }
    assert!(direct.takes(nostr_protocol::Kind(1)), "an event of the log is always taken");
    relay.publish(&direct, (taken..taken + 300).map(large).collect()).await;
    drop(direct);
    for shard in shards {
        shard.run().await;
    }
    assert_eq!(client.received(), (numbers(0..taken + 300), vec![]), "none that was taken is lost");
}

/// Polls `future` to its end, and calls `between` after each poll.
async fn step_by_step<T>(future: impl Future<Output = T>, mut between: impl FnMut()) -> T {
    let mut future = pin!(future);
    loop {
        let polled = future.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        between();
        if let Poll::Ready(done) = polled {
            return done;
        }
    }
}

/// A request of 19,000 routes is opened and replaced a bounded number of routes at a time, and is found once all its
/// routes are there. AUTH adds as few.
#[tokio::test]
async fn replacing_a_large_request_holds_no_lock_for_long() {
    let relay = Relay::with_shards(1);
    let client = relay.connect(1);
    let values = |of: &str| {
        let filter = |part: usize| {
            let values: Vec<String> = (0..950).map(|n| format!("\"{of} {part} {n}\"")).collect();
            format!("{{\"#t\":[{}]}}", values.join(","))
        };
        parsed(&(0..20).map(filter).collect::<Vec<_>>())
    };
    for (of, before) in [("first", None), ("second", Some("first"))] {
        let mut routes = relay.live.routes();
        let mut steps = 0;
        let subscribed = relay.live.subscribe(client.connection, "large", values(of), 10);
        let between = || {
            let now = relay.live.routes();
            // Up to one lock's worth is added or removed in a step, and one of each where removing ends.
            assert!(now.abs_diff(routes) <= ROUTES_PER_HOLD_MAX, "{} routes in one step", now.abs_diff(routes));
            routes = now;
            steps += 1;
        };
        step_by_step(subscribed, between).await.expect("there is room");
        assert_eq!(relay.live.routes(), 19_000);
        assert!(steps >= 19_000 / ROUTES_PER_HOLD_MAX, "{steps} steps");
        for (value, comes) in [(Some(of), true), (before, false)] {
            let Some(value) = value else { continue };
            relay.live.deliver(0, &live_event(1, note(value).tag(&["t", &format!("{value} 19 949")]))).await;
            assert_eq!(!client.received().0.is_empty(), comes, "{value}");
        }
    }
    let disconnected = relay.live.disconnect(client.connection);
    let mut routes = relay.live.routes();
    step_by_step(disconnected, || {
        let now = relay.live.routes();
        assert!(now.abs_diff(routes) <= ROUTES_PER_HOLD_MAX);
        routes = now;
    })
    .await;
    assert_eq!((relay.live.routes(), relay.live.subscriptions()), (0, 0));
}

/// A subscription under way gets nothing before it is complete, and everything behind the cursor that it is given.
#[tokio::test]
async fn a_subscription_is_found_once_all_its_routes_are_there() {
    let relay = Relay::with_shards(1);
    let client = relay.connect(1);
    let values: Vec<String> = (0..900).map(|n| format!("\"{n}\"")).collect();
    let filters = parsed(&[format!("{{\"#t\":[{}]}}", values.join(","))]);
    let mut subscribed = pin!(relay.live.subscribe(client.connection, "large", filters, 10));
    assert!(subscribed.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let all = || values.iter().fold(note("early"), |event, value| event.tag(&["t", value.trim_matches('"')]));
    relay.live.deliver(0, &live_event(1, all())).await;
    assert_eq!(client.received().0, Vec::<String>::new());
    relay.groups.allow_reading_up_to(5);
    assert_eq!(subscribed.await, Ok(5), "the archive is read up to the cursor of its last step");
    relay.live.deliver(0, &live_event(5, all())).await;
    assert_eq!(client.received().0, Vec::<String>::new(), "the archive has it");
    relay.live.deliver(0, &live_event(6, all())).await;
    assert_eq!(client.received().0, ["early"], "once, however many routes lead to it");
}

/// AUTH routes the open subscriptions by the new key.
#[tokio::test]
async fn a_subscription_follows_its_reader() {
    let relay = Relay::with_shards(1);
    let client = relay.connect(1);
    relay.subscribe(&client, "inbox", &[r#"{"kinds":[4]}"#.to_owned(), r##"{"#t":["x"]}"##.to_owned()]).await;
    let message = |n| EventBuilder::new(4).content(n).tag(&["p", &key("bob").to_hex()]);
    relay.live.deliver(0, &live_event(1, message("before"))).await;
    for name in ["carol", "bob"] {
        let keys: Vec<_> =
            ["carol", "bob"].iter().take(if name == "bob" { 2 } else { 1 }).map(|name| key(name)).collect();
        relay.live.set_reader(client.connection, &Reader::new(&keys));
    }
    relay.live.deliver(0, &live_event(2, message("after"))).await;
    relay.live.deliver(0, &live_event(3, note("tagged").tag(&["t", "x"]))).await;
    assert_eq!(client.received().0, ["after", "tagged"]);
    relay.live.disconnect(client.connection).await;
    assert_eq!(relay.live.routes(), 0);
}

/// The connections of one payer have a bound together; a connection of another payer has its own.
#[tokio::test]
async fn the_requests_of_one_address_are_bounded_together() {
    let relay = Relay::with_shards(2);
    let filter = |part: usize| {
        let values: Vec<String> = (0..950).map(|n| format!("\"{part} {n}\"")).collect();
        format!("{{\"#t\":[{}]}}", values.join(","))
    };
    let filters: Vec<String> = (0..20).map(filter).collect();
    let mut opened = Vec::new();
    let refusal = loop {
        let client = relay.connect(7);
        match relay.live.subscribe(client.connection, "large", parsed(&filters), 10).await {
            Ok(_) => opened.push(client),
            Err(refusal) => break refusal.to_string(),
        }
        assert!(opened.len() < 50, "a bound is reached");
    };
    assert!(refusal.contains("from this address") && refusal.contains("CLOSE some first"), "{refusal}");
    assert_eq!(opened.len(), 10);
    relay.subscribe(&relay.connect(8), "large", &filters).await;
    relay.live.disconnect(opened[0].connection).await;
    relay.subscribe(&relay.connect(7), "large", &filters).await;
}

/// An event that waits for many clients is in memory once, and counts once, until the last of them has taken it. A
/// payer answers once for the events that its connections wait for.
#[tokio::test]
async fn an_event_that_many_clients_wait_for_counts_once() {
    let relay = Relay::with_shards(2);
    let clients: Vec<Client> = (0..100).map(|n| relay.connect(n / 10)).collect();
    for client in &clients {
        relay.subscribe(client, "all", &[r#"{"kinds":[1]}"#.to_owned()]).await;
    }
    let before = relay.memory.used();
    let (direct, shards) = relay.direct();
    relay.publish(&direct, (0..4).map(large).collect()).await;
    drop(direct);
    for shard in shards {
        shard.run().await;
    }
    let all = 4 * (64 << 10);
    let grown = |before: usize| relay.memory.used() - before;
    // A record holds the large tag twice: parsed, and in its JSON.
    assert!((2 * all..3 * all).contains(&grown(before)), "{} bytes for four events of 64 KiB", grown(before));
    let kept = relay.memory.kept(9);
    assert!((all..6 * all).contains(&kept), "{kept} bytes for a payer of ten clients in two shards");
    let held = clients[0].outbox.holding().bytes();
    assert!(held > all, "a client alone holds what waits for it: {held}");
    let (last, others) = clients.split_last().expect("there are clients");
    for client in others {
        assert_eq!(client.received().0, numbers(0..4));
    }
    assert!(grown(before) > all, "they wait for the last client");
    assert_eq!(last.received().0, numbers(0..4));
    assert!(grown(before) < all / 8, "{} bytes are left", grown(before));
    assert_eq!(relay.memory.kept(9), 0);
}

/// Lets a client subscribe to filters at which a delivery of `hostile_event` lets others run. Gives the number of its
/// polls.
async fn subscribe_costly(relay: &Relay) -> usize {
    subscribe_hostile(relay, &relay.connect(1), 200).await;
    let mut polls = 0;
    step_by_step(relay.live.deliver(0, &live_event(1, hostile_event(1))), || polls += 1).await;
    polls
}

/// Polls a delivery until only its last poll is left: all subscriptions are found then, and the costly ones served.
fn until_last(mut delivery: std::pin::Pin<&mut impl Future<Output = ()>>, polls: usize) {
    for _ in 1..polls {
        assert!(delivery.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending(), "it lets others run");
    }
}

/// A client's CLOSE, and a request that replaces another, hold for a delivery that has found the subscription already,
/// and for the events that wait.
#[tokio::test]
async fn a_replaced_request_shows_no_event_of_the_old_filters() {
    let relay = Relay::with_shards(1);
    let polls = subscribe_costly(&relay).await;
    let honest = relay.connect(2);
    let all = [r#"{"kinds":[1]}"#.to_owned()];
    for id in ["closed", "replaced", "open"] {
        relay.subscribe(&honest, id, &all).await;
    }
    relay.live.deliver(0, &live_event(2, note("waits"))).await;
    let event = live_event(3, hostile_event(1));
    let mut delivery = pin!(relay.live.deliver(0, &event));
    until_last(delivery.as_mut(), polls);
    relay.live.unsubscribe(honest.connection, "closed").await;
    relay.subscribe(&honest, "replaced", &[r#"{"kinds":[7]}"#.to_owned()]).await;
    delivery.await;
    relay.live.deliver(0, &live_event(4, EventBuilder::new(7).content("new"))).await;
    let frames: Vec<(String, String)> = honest.frames().map(|[_, id, content]| (id, content)).collect();
    let expected = [("open", "waits"), ("open", "hostile"), ("replaced", "new")];
    assert_eq!(frames, expected.map(|(id, content)| (id.to_owned(), content.to_owned())));
}

/// Nothing is queued under a subscription after its end, and its end does not close the request of the same id that
/// came after it.
#[tokio::test]
async fn nothing_comes_under_a_subscription_after_its_closed() {
    let relay = Relay::with_shards(1);
    let polls = subscribe_costly(&relay).await;
    let honest = relay.connect(2);
    for id in ["left", "again"] {
        relay.subscribe(&honest, id, &[r#"{"kinds":[1]}"#.to_owned()]).await;
    }
    relay.live.deliver(0, &live_event(2, note("before"))).await;
    let event = live_event(3, hostile_event(1));
    let mut delivery = pin!(relay.live.deliver(0, &event));
    until_last(delivery.as_mut(), polls);
    relay.live.end_all(&nostr_protocol::Rejection::error("the log was lost"));
    relay.subscribe(&honest, "again", &[r#"{"kinds":[7]}"#.to_owned()]).await;
    delivery.await;
    relay.live.deliver(0, &live_event(4, EventBuilder::new(7).content("new"))).await;
    let frames: Vec<[String; 3]> = honest.frames().collect();
    let expected =
        [["EVENT", "left", "before"], ["CLOSED", "left", "error: the log was lost"], ["EVENT", "again", "new"]];
    assert_eq!(frames, expected.map(|frame| frame.map(str::to_owned)));
}

/// A group of `strangers` made-up keys and these.
fn group_of(strangers: u32, names: &[&str]) -> Arc<GroupState> {
    let made_up = (0..strangers).map(|n| {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&n.to_be_bytes());
        PublicKey::from_bytes(bytes)
    });
    let members = made_up.chain(names.iter().map(|name| key(name))).map(|key| (key, Role::Member)).collect();
    let record = GroupRecord::new(Source::Roster, 1, NOW, None);
    let id = NostrGroupId::parse("grp").expect("an id");
    let status = GroupStatus::Managed(Arc::new(ManagedGroup { record, members }));
    Arc::new(GroupState::new(Group { id, status }))
}

/// A message to the group, in this state of it.
fn group_event(n: u64, state: &Arc<GroupState>) -> LiveEvent {
    let event = EventBuilder::new(445).content(n.to_string()).tag(&["h", "grp"]).event(&keypair("alice"));
    let stamp = Stamp { cursor: n, received_at: NOW, expires_at: NEVER, author_only: false };
    LiveEvent::new(Sealed::new(event, stamp), Some(Arc::clone(state)), true, std::time::Instant::now())
}

/// A client that has authenticated this key, with a subscription that stands under it as a member.
async fn member(relay: &Relay, payer: u64, name: &str) -> Client {
    let client = relay.connect(payer);
    relay.live.set_reader(client.connection, &Reader::new(&[key(name)]));
    relay.subscribe(&client, "messages", &[r#"{"kinds":[445]}"#.to_owned()]).await;
    client
}

/// The members of a group are looked up once for a state of it. After that an event costs as much in a group of 10,000
/// as in one of two.
#[tokio::test]
async fn an_event_of_a_large_group_costs_the_subscriptions_that_it_wakes() {
    let relay = Relay::with_shards(2);
    let bob = member(&relay, 1, "bob").await;
    let carol = member(&relay, 2, "carol").await;
    let mut costs = Vec::new();
    for (first, strangers) in [(1, 1), (1_000, 10_000)] {
        let state = group_of(strangers, &["bob"]);
        let mut cost_of = Vec::new();
        for n in first..first + 100 {
            let before = relay.live.routes_looked_up();
            for shard in 0..2 {
                relay.live.deliver(shard, &group_event(n, &state)).await;
            }
            cost_of.push(relay.live.routes_looked_up() - before);
        }
        assert!(cost_of[0] <= 2 * (u64::from(strangers) + 20), "{} routes for the first event", cost_of[0]);
        costs.push(cost_of[1..].iter().sum::<u64>());
        assert_eq!(bob.received(), (numbers(first..first + 100), vec![]));
        assert_eq!(carol.received(), (vec![], vec![]), "she is no member");
    }
    assert_eq!(costs[0], costs[1], "routes for 99 events in a small group and in a large one");
    assert!(costs[1] <= 99 * 2 * 10, "{} routes for 99 events", costs[1]);
}

/// A subscription that opens, closes or follows its reader is found, or not found, by the next event of a group whose
/// members were looked up before; and so it is after more subscriptions came and went than are noted.
#[tokio::test]
async fn the_members_that_subscribe_are_followed() {
    let relay = Relay::with_shards(1);
    let state = group_of(3_000, &["bob", "carol", "dave"]);
    let mut n = 0;
    let deliver = async |state: &Arc<GroupState>, n: u64| relay.live.deliver(0, &group_event(n, state)).await;
    let mut next = || {
        n += 1;
        n
    };
    let bob = member(&relay, 1, "bob").await;
    deliver(&state, next()).await;
    let carol = member(&relay, 2, "carol").await;
    deliver(&state, next()).await;
    assert_eq!((bob.received().0, carol.received().0), (numbers(1..3), numbers(2..3)));
    relay.live.unsubscribe(bob.connection, "messages").await;
    let late = relay.connect(3);
    relay.subscribe(&late, "messages", &[r#"{"kinds":[445]}"#.to_owned()]).await;
    deliver(&state, next()).await;
    assert_eq!((bob.received().0, carol.received().0, late.received().0), (vec![], numbers(3..4), vec![]));
    relay.live.set_reader(late.connection, &Reader::new(&[key("dave")]));
    deliver(&state, next()).await;
    assert_eq!((carol.received().0, late.received().0), (numbers(4..5), numbers(4..5)));
    // More routes come and go than an index notes.
    for churn in 0..50_u64 {
        let crowd: Vec<PublicKey> = (0..90_u8).map(|of| PublicKey::from_bytes([of + 100; 32])).collect();
        for keys in crowd.chunks(nostr_extensions::READER_KEYS_MAX) {
            let client = relay.connect(1_000 + churn);
            relay.live.set_reader(client.connection, &Reader::new(keys));
            relay.subscribe(&client, "messages", &[r#"{"kinds":[445]}"#.to_owned()]).await;
            relay.live.disconnect(client.connection).await;
        }
    }
    let again = member(&relay, 4, "bob").await;
    deliver(&state, next()).await;
    assert_eq!((carol.received().0, again.received().0), (numbers(5..6), numbers(5..6)));
    // A state without dave: the gate and the list are asked anew.
    deliver(&group_of(3_000, &["bob", "carol"]), next()).await;
    assert_eq!((again.received().0, late.received().0), (numbers(6..7), numbers(5..6)));
    relay.live.end_all(&nostr_protocol::Rejection::error("over"));
    deliver(&state, next()).await;
    assert_eq!((again.received().0, late.received().0), (vec![], vec![]));
}

/// The length of a request is paid for before it is read, however little the request then opens.
#[tokio::test]
async fn long_requests_are_paid_for_before_they_are_read() {
    let relay = Relay::with_shards(1);
    let (client, other) = (relay.connect(1), relay.connect(2));
    let charge = |client: &Client| relay.live.charge_length(client.connection, 1 << 20);
    let paid = (0..1_000).take_while(|_| charge(&client).is_ok()).count();
    assert_eq!(paid, 61, "a million values at once, of 64 bytes each");
    let refused = charge(&client).expect_err("the account is empty");
    assert!(refused.to_string().starts_with("rate-limited: ") && refused.to_string().contains("retry in"), "{refused}");
    charge(&other).expect("another address pays for itself");
}
