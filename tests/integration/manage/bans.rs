//! Bans hold for authors and for readers, by every door.

use serde_json::json;

use super::{ends, in_force, managed};
use crate::support::{
    Client, Keys, TestRelay, backend,
    gateway::{key_package, message, roster, wrap},
    rest::{Rest, shown},
};

#[tokio::test]
async fn a_banned_key_neither_reads_nor_writes_and_its_connections_end() {
    let (relay, admin, _) = managed().await;
    let [alice, bob] = Keys::some();
    let mut alices = Client::of(&relay, &[&alice]).await;
    let mut bobs = Client::of(&relay, &[&bob, &alice]).await;
    let mut others = Client::connect(&relay).await;
    alices.publish(&alice.event(1).sign()).await.ok();
    assert_eq!(admin.ordered("banpubkey", json!([alice.hex(), "spam"])).await, json!(true));
    ends(&mut alices).await;
    ends(&mut bobs).await;
    in_force().await;
    others.publish(&alice.event(1).content("again").sign()).await.refused("blocked");
    others.publish(&bob.event(1).sign()).await.ok();
    others.auth(&alice).await.refused("restricted");
    let rest = Rest::of(&relay, &alice);
    assert!(rest.get("/inbox").refused(403).await.contains("banned"));
    let listed = admin.ordered("listbannedpubkeys", json!([])).await;
    assert_eq!(listed, json!([{ "pubkey": alice.hex(), "reason": "spam" }]));
    // A key that is unbanned is as any other, and its events are there again.
    admin.ordered("unbanpubkey", json!([alice.hex()])).await;
    in_force().await;
    let mut alices = Client::of(&relay, &[&alice]).await;
    assert_eq!(alices.ids(json!({ "authors": [alice.hex()] })).await.expect("an answer").len(), 1);
    alices.publish(&alice.event(1).content("again").sign()).await.ok();
}

/// No door shows an event of a banned author, or a banned event; the answers are those of a store without it.
#[tokio::test]
async fn no_door_shows_what_is_banned() {
    let (relay, admin, keys) = managed().await;
    let [alice, bob, carol] = Keys::some();
    let mut admins = Client::of(&relay, &[&keys]).await;
    admins.publish(&roster(&keys, "grp_a", 1, "bootstrap", &[&alice, &bob]).sign()).await.ok();
    let mut alices = Client::of(&relay, &[&alice]).await;
    let (note, package) = (alice.event(1).sign(), key_package(&alice).sign());
    let (to_bob, other) = (alice.event(4).tag(["p", &bob.hex()]).sign(), carol.event(1).sign());
    // The author of a group's message tells nothing about its sender, and members need every commit.
    let to_group = alice.event(445).tag(["h", "grp_a"]).content("x").sign();
    for event in [&note, &package, &to_bob, &to_group, &other] {
        alices.publish(event).await.ok();
    }
    let mut bobs = Client::of(&relay, &[&bob]).await;
    bobs.req("live", &[json!({ "kinds": [1, 4, 443], "authors": [alice.hex(), carol.hex()] })]).await.expect("events");
    admin.ordered("banpubkey", json!([alice.hex()])).await;
    admin.ordered("banevent", json!([other.id(), "illegal"])).await;
    in_force().await;
    let by = json!({ "authors": [alice.hex(), carol.hex()], "kinds": [1, 4, 443] });
    assert_eq!(bobs.ids(by.clone()).await.expect("an answer"), Vec::<String>::new());
    assert_eq!(bobs.ids(json!({ "ids": [other.id()] })).await.expect("an answer"), Vec::<String>::new());
    assert_eq!(bobs.count(std::slice::from_ref(&by)).await, Ok(0));
    assert_eq!(bobs.neg_ids(by).await.expect("an answer"), Vec::<String>::new());
    let rest = Rest::of(&relay, &bob);
    assert_eq!(shown(&rest, &format!("/keypackages?owner={}", alice.hex()), "cursor").await, Ok(Vec::new()));
    rest.post("/keypackages/claim", json!({ "owner": alice.hex() }).to_string()).refused(404).await;
    let group = bobs.ids(json!({ "kinds": [445], "#h": ["grp_a"] })).await;
    assert_eq!(group.expect("an answer"), [to_group.id()]);
    bobs.publish(&other).await.refused("blocked");
    admin.ordered("allowevent", json!([other.id()])).await;
    in_force().await;
    assert_eq!(bobs.ids(json!({ "ids": [other.id()] })).await.expect("an answer"), [other.id()]);
}

/// A banned sender is refused whatever key signed the event, and its own events may still be taken back.
#[tokio::test]
async fn a_ban_looks_at_the_sender_and_lets_events_be_taken_back() {
    let (relay, admin, keys) = managed().await;
    let [alice, bob] = Keys::some();
    let note = alice.event(1).sign();
    let mut anyone = Client::connect(&relay).await;
    anyone.publish(&note).await.ok();
    admin.ordered("banpubkey", json!([alice.hex()])).await;
    in_force().await;
    let mut banned = Client::connect(&relay).await;
    banned.auth(&alice).await.refused("restricted");
    let deletion = alice.event(5).tag(["e", note.id()]).sign();
    anyone.publish(&deletion).await.ok();
    admin.ordered("unbanpubkey", json!([alice.hex()])).await;
    in_force().await;
    assert_eq!(anyone.ids(json!({ "ids": [note.id()] })).await.expect("an answer"), Vec::<String>::new());
    // The admin's own connection is not touched by orders.
    let mut admins = Client::of(&relay, &[&keys]).await;
    admins.publish(&wrap(&bob).sign()).await.ok();
    admins.publish(&message("nowhere").sign()).await.refused("restricted");
}

/// An order on one of four instances holds on the others within a second, for connections that stay open too.
async fn holds_on_four_instances(backend: &str) {
    let (admin, [alice, bob]) = (Keys::random(), Keys::some());
    let relay = TestRelay::start_on(backend, 4, |config| {
        config.mls_gateway.admin_pubkeys = vec![admin.public()];
    })
    .await;
    let orders = Rest::of(&relay, &admin);
    let mut alices = Vec::new();
    let mut bobs = Vec::new();
    for _ in 0..4 {
        alices.push(Client::of(&relay, &[&alice]).await);
        bobs.push(Client::of(&relay, &[&bob]).await);
    }
    orders.ordered("banpubkey", json!([alice.hex()])).await;
    orders.ordered("changerelayname", json!(["Four"])).await;
    for client in &mut alices {
        ends(client).await;
    }
    in_force().await;
    for (n, client) in (0..).zip(&mut bobs) {
        client.publish(&alice.event(1).content(format!("{n}")).sign()).await.refused("blocked");
        client.publish(&bob.event(1).content(format!("{n}")).sign()).await.ok();
        let answer = crate::support::http(relay.next_address(), "GET /", &[("accept", "application/nostr+json")]).await;
        assert_eq!(answer.json()["name"], "Four");
    }
    relay.stop().await;
}

#[tokio::test]
async fn an_order_holds_on_four_instances_within_a_second() {
    holds_on_four_instances("memory").await;
}

#[tokio::test]
async fn an_order_holds_on_four_instances_over_postgres() {
    holds_on_four_instances("postgres").await;
}

/// The standing orders are in the store, so a relay that is started again has them.
#[tokio::test]
async fn a_ban_outlives_the_relay() {
    let (directory, admin, alice) = (tempfile::tempdir().expect("a directory"), Keys::random(), Keys::random());
    let start = || {
        TestRelay::start_over(backend::embedded(directory.path()), |config| {
            config.mls_gateway.admin_pubkeys = vec![admin.public()];
        })
    };
    let relay = start().await;
    Rest::of(&relay, &admin).ordered("banpubkey", json!([alice.hex()])).await;
    relay.stop().await;
    let relay = start().await;
    Client::connect(&relay).await.publish(&alice.event(1).sign()).await.refused("blocked");
}

/// An instance that could not read the orders yet takes and serves nothing, and then obeys them.
#[tokio::test]
async fn an_instance_without_the_orders_is_shut() {
    use std::sync::atomic::Ordering;

    use crate::support::{WAIT, shared::Shared};
    let [admin, alice] = Keys::some();
    let shared = Shared::new();
    let configure = |config: &mut nostr_relay::config::Config| {
        config.mls_gateway.admin_pubkeys = vec![admin.public()];
    };
    let first = TestRelay::start_over(shared.instance().0, configure).await;
    let note = alice.event(1).sign();
    Client::connect(&first).await.publish(&note).await.ok();
    Rest::of(&first, &admin).ordered("banpubkey", json!([alice.hex()])).await;
    let (store, link) = shared.instance();
    link.is_down.store(true, Ordering::Relaxed);
    let second = TestRelay::start_over(store, configure).await;
    let mut client = Client::connect(&second).await;
    assert!(client.ids(json!({ "ids": [note.id()] })).await.is_err_and(|reason| reason.starts_with("error")));
    client.publish(&admin.event(1).sign()).await.refused("error");
    // The store answers again before the instance reads the orders, so that every door must ask for them itself.
    link.records_are_down.store(true, Ordering::Relaxed);
    link.is_down.store(false, Ordering::Relaxed);
    tokio::time::sleep(std::time::Duration::from_millis(600)).await;
    assert!(client.auth(&alice).await.refused("error").contains("try again"));
    let rest = Rest::of(&second, &admin);
    let claim = json!({ "owner": alice.hex() }).to_string();
    rest.post("/keypackages/claim", claim).refused(503).await;
    for path in ["/keypackages?owner=", "/events/", "/groups/", "/inbox?"].map(|it| format!("{it}{}", alice.hex())) {
        assert!(rest.get(&path).refused(503).await.contains("orders"), "{path}");
    }
    Rest::anonymous(&second).get("/groups").refused(503).await;
    link.records_are_down.store(false, Ordering::Relaxed);
    link.is_down.store(false, Ordering::Relaxed);
    let ready = async {
        while crate::support::http(second.address, "GET /ready", &[]).await.status != 200 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(WAIT, ready).await.expect("it is ready");
    assert_eq!(client.ids(json!({ "ids": [note.id()] })).await, Ok(Vec::new()));
    client.publish(&admin.event(1).content("2").sign()).await.ok();
}

/// A banned KeyPackage is not used up by a claim, by REST or by reading, and the answers are those of a store without
/// it.
#[tokio::test]
async fn a_banned_key_package_is_not_used_up() {
    use nostr_extensions::policy::KeyPackageConsumption;
    let (admin, [alice, bob]) = (Keys::random(), Keys::some());
    let relay = TestRelay::start(|config| {
        config.mls_gateway.admin_pubkeys = vec![admin.public()];
        config.mls_gateway.keypackage_consumption = KeyPackageConsumption::OnRead;
        config.mls_gateway.claim_strangers_percent = 100;
    })
    .await;
    let orders = Rest::of(&relay, &admin);
    let package = |n: u64| key_package(&alice).tag(["n", &n.to_string()]).content(format!("package {n}")).sign();
    let (first, second, third) = (package(1), package(2), package(3));
    let mut alices = Client::of(&relay, &[&alice]).await;
    let mut bobs = Client::of(&relay, &[&bob]).await;
    let wanted = json!({ "kinds": [443], "authors": [alice.hex()] });
    let claimed = async || {
        let body = json!({ "owner": alice.hex() }).to_string();
        let answer = Rest::of(&relay, &bob).post("/keypackages/claim", body).ok().await;
        answer["keypackages"][0]["event"]["id"].as_str().expect("an id").to_owned()
    };
    alices.publish(&first).await.ok();
    orders.ordered("banevent", json!([first.id()])).await;
    in_force().await;
    let body = json!({ "owner": alice.hex() }).to_string();
    Rest::of(&relay, &bob).post("/keypackages/claim", body).refused(404).await;
    assert_eq!(bobs.ids(wanted.clone()).await, Ok(Vec::new()));
    alices.publish(&second).await.ok();
    alices.publish(&third).await.ok();
    assert_eq!(claimed().await, second.id());
    assert_eq!(bobs.ids(wanted.clone()).await, Ok(vec![third.id().to_owned()]));
    orders.ordered("unbanevent", json!([first.id()])).await;
    in_force().await;
    // The third one was the owner's last, and stays for when there is no other.
    assert_eq!(claimed().await, first.id());
    assert_eq!(bobs.ids(wanted).await, Ok(vec![third.id().to_owned()]));
}

/// A set that was read before an order tells nothing of what the order hides.
#[tokio::test]
async fn an_order_ends_sets_that_were_read_before_it() {
    let (relay, admin, _) = managed().await;
    let [alice, bob] = Keys::some();
    let note = alice.event(1).sign();
    let mut bobs = Client::of(&relay, &[&bob]).await;
    bobs.publish(&note).await.ok();
    let (_, first) = crate::support::empty_set();
    bobs.send(&json!(["NEG-OPEN", "set", { "authors": [alice.hex()] }, first])).await;
    let open = bobs.recv().await;
    assert!(open[0] == "NEG-MSG" && open.to_string().contains(note.id()), "{open}");
    admin.ordered("banpubkey", json!([alice.hex()])).await;
    bobs.send(&json!(["NEG-MSG", "set", first])).await;
    let ended = bobs.recv().await;
    assert_eq!((&ended[0], &ended[1]), (&json!("NEG-ERR"), &json!("set")), "{ended}");
    assert!(ended[2].as_str().is_some_and(|reason| reason.starts_with("closed: ")), "{ended}");
}

/// A client of IPv6 has a network of addresses, and a block of one of them holds it.
#[tokio::test]
async fn a_block_of_an_address_holds_its_client() {
    let (relay, admin, _) = managed().await;
    for (given, listed) in [
        ("2001:db8:0:7::1", "2001:db8:0:7::/64"),
        ("2001:db8:0:8::1/128", "2001:db8:0:8::/64"),
        ("::ffff:198.51.100.0/120", "198.51.100.0/24"),
    ] {
        admin.ordered("blockip", json!([given, "abuse"])).await;
        assert_eq!(admin.ordered("listblockedips", json!([])).await, json!([{ "ip": listed, "reason": "abuse" }]));
        let app = relay.app();
        let blocks = |address: &str| app.blocks(address.parse().expect("an address"));
        assert!(blocks("198.51.100.7") == (listed == "198.51.100.0/24"));
        assert!(blocks("2001:db8:0:7:a:b:c:d") == (listed == "2001:db8:0:7::/64"));
        admin.ordered("unblockip", json!([given])).await;
        assert_eq!(admin.ordered("listblockedips", json!([])).await, json!([]));
    }
}

/// A diagnosis goes by the orders, and names the rule of each.
#[tokio::test]
async fn a_diagnosis_sees_the_orders() {
    let (relay, admin, _) = managed().await;
    let [alice, bob] = Keys::some();
    let mut bobs = Client::of(&relay, &[&bob]).await;
    let (note, long) = (bob.event(1).sign(), bob.event(30_023).tag(["d", "x"]).sign());
    bobs.publish(&note).await.ok();
    admin.ordered("banevent", json!([note.id()])).await;
    admin.ordered("banpubkey", json!([alice.hex()])).await;
    admin.ordered("disallowkind", json!([30_023])).await;
    in_force().await;
    let (hers, his) = (alice.event(1).sign(), bob.event(1).content("other").sign());
    let table = "Who may publish, who may read";
    let cases = [
        (&note, &bob, "Management 6"),
        (&hers, &bob, "Management 3"),
        (&his, &alice, "Management 3"),
        (&long, &bob, "Management 8"),
        (&his, &bob, table),
    ];
    for (event, reader, rule) in cases {
        let question = json!({ "event": event.0, "reader": reader.hex() });
        let answer = admin.post("/diagnose", question.to_string()).ok().await;
        let told = |part: &str, yes: &str| (answer[part][yes] == true, answer[part]["rule"].clone());
        let decided = (rule == table, json!(rule));
        assert_eq!(told("write", "allowed"), decided, "{answer}");
        assert_eq!(told("read", "visible"), decided, "{answer}");
    }
}
