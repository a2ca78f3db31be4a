//! docs/rules.md, "Rate limits": the party that pays. A client's malformed messages, AUTHs and events cost that client,
//! and leave the others of its address alone. The clock stands still unless a test moves it.

use serde_json::{Value, json};

use super::{
    World,
    rate_limits::{behind_proxy, events_per_minute, from, notes, taken},
};
use crate::support::{
    Client, Event, Keys, TestRelay,
    gateway::{message, roster, welcome, wrap},
    wire::Wire,
};

/// Sends texts until the relay closes the connection. Returns its close code.
async fn flood(wire: &mut Wire, texts: impl IntoIterator<Item = String>) -> Option<u16> {
    for text in texts {
        if wire.writer.text(&text).await.is_err() {
            break;
        }
    }
    wire.reader.close_code().await
}

fn forged(by: &Keys, n: usize) -> Value {
    let mut event = by.event(1).content(n.to_string()).sign();
    event.0["sig"] = json!("11".repeat(64));
    event.0
}

fn with_wrong_id(by: &Keys, n: usize) -> Value {
    let mut event = by.event(1).content(n.to_string()).sign();
    event.0["content"] = json!("another one");
    event.0
}

/// A connection that sends malformed messages pays for them alone. It is closed with 1008 at its bound. Other clients
/// of its address publish and authenticate as before.
#[tokio::test]
async fn a_flood_of_malformed_frames_costs_its_connection_alone() {
    let alice = Keys::random();
    let world = World::alone(events_per_minute(60)).await;
    let mut other = world.client(&[]).await;
    let texts: [&dyn Fn(usize) -> String; 4] = [
        &|_| r#"["EVENT",{}]"#.to_owned(),
        &|_| "hello".to_owned(),
        &|n| json!(["EVENT", forged(&alice, n)]).to_string(),
        &|n| json!(["EVENT", with_wrong_id(&alice, n)]).to_string(),
    ];
    for text in texts {
        let mut wire = Wire::connect(world.relay.address).await;
        assert_eq!(flood(&mut wire, (0..60).map(text)).await, Some(1008), "{}", text(0));
        other.auth(&Keys::random()).await.ok();
    }
    // Forged events pay as events too, before their signatures are checked.
    let left = taken(&other.publish_all(&notes(&alice, 210)).await);
    assert!((150..=200).contains(&left), "{left}");
    // A frame of nonsense costs what its bytes cost.
    let mut wire = Wire::connect(world.relay.address).await;
    let nonsense = "x".repeat(500_000);
    assert_eq!(flood(&mut wire, (0..3).map(|_| nonsense.clone())).await, Some(1008));
    let metrics = crate::support::http(world.relay.address, "GET /metrics", &[]).await.body;
    assert!(metrics.contains("mls_gateway_refusals_total{reason=\"faults\"} 5"), "{metrics}");
}

/// A client that makes mistakes now and then is answered and not closed.
#[tokio::test]
async fn ten_malformed_frames_a_minute_are_answered() {
    let world = World::alone(events_per_minute(100)).await;
    let mut client = world.client(&[]).await;
    for n in 0..100 {
        client.send(&json!(["EVENT", {}])).await;
        assert_eq!(client.recv().await[0], "NOTICE", "{n}");
        world.relay.advance(6);
    }
}

/// AUTH is paid from buckets of its own: neither a flood of events nor one of AUTHs at an address keeps a key of that
/// address from authenticating, a resident's or another.
#[tokio::test]
async fn auth_has_a_bucket_of_its_own() {
    let [alice, bob, eve] = Keys::some();
    let world = World::alone(|config| {
        events_per_minute(60)(config);
        config.mls_gateway.admin_pubkeys.push(alice.public());
    })
    .await;
    assert_eq!(taken(&world.client(&[]).await.publish_all(&notes(&eve, 210)).await), 200);
    // Ten connections use up what each may send, and are refused.
    for _ in 0..10 {
        let mut eves = world.client(&[]).await;
        let mut accepted = 0;
        while eves.auth(&eve).await.accepted {
            accepted += 1;
        }
        assert_eq!(accepted, 40);
    }
    for keys in [&alice, &bob, &world.admin] {
        world.client(&[keys]).await;
    }
    // AUTH costs its address nothing of its events.
    world.relay.advance(10);
    let mut bobs = world.client(&[&bob]).await;
    assert_eq!(taken(&bobs.publish_all(&notes(&bob, 20)).await), 10);
}

/// Each refused AUTH with an id is answered with `OK false` and the reason: one over the rate with the seconds, one
/// with a wrong signature or id with the fault. An AUTH whose signature is wrong is fined in the bucket of AUTHs.
#[tokio::test]
async fn a_refused_auth_is_answered_with_ok_false() {
    let [alice, bob] = Keys::some();
    let world = World::alone(events_per_minute(60)).await;
    let mut client = world.client(&[]).await;
    for n in 0..4 {
        let mut event = client.auth_event(&alice);
        event.0[if n % 2 == 0 { "sig" } else { "content" }] = json!("11".repeat(64));
        client.send_auth(&event).await.refused("invalid");
    }
    let event = client.auth_event(&alice);
    let answer = client.send_auth(&event).await;
    assert_eq!(answer.refused("rate-limited"), "rate-limited: too many AUTHs; retry in 6 s");
    client.send(&json!(["AUTH", {}])).await;
    assert_eq!(client.recv().await[0], "NOTICE", "it has no id");
    // The fine is the connection's and no event's.
    world.client(&[&alice]).await;
    assert_eq!(taken(&client.publish_all(&notes(&bob, 210)).await), 200);
    world.relay.advance(6);
    client.auth(&alice).await.ok();
}

/// A member pays for what it sends to its managed groups by its key alone: a flood at its address does not stop it, and
/// it stops no other member there.
#[tokio::test]
async fn a_member_pays_by_its_key_alone() {
    let [alice, bob, eve] = Keys::some();
    let world = World::alone(events_per_minute(60)).await;
    world.group("grp_a", &[&alice, &bob]).await;
    world.client(&[&alice]).await.publish(&welcome(&bob, "grp_wrapped").sign()).await.ok();
    for group in ["grp_a", "grp_wrapped"] {
        assert!(taken(&world.client(&[]).await.publish_all(&notes(&eve, 210)).await) >= 199);
        let messages = |count: usize| (0..count).map(|_| message(group).sign()).collect::<Vec<_>>();
        let mut alices = world.client(&[&alice]).await;
        assert_eq!(taken(&alices.publish_all(&messages(410)).await), 400, "{group}");
        assert_eq!(taken(&alices.publish_all(&notes(&alice, 1)).await), 0, "elsewhere its address pays");
        // Two such keys of an address send 800.
        let mut bobs = world.client(&[&bob]).await;
        assert_eq!(taken(&bobs.publish_all(&messages(410)).await), 400, "{group}");
        world.relay.advance(400);
    }
}

/// The members of a group that anyone founded have a ceiling together at their address, and a roster of its founder
/// makes them no keys that cost something.
#[tokio::test]
async fn a_roster_gives_no_burst_to_keys_that_cost_nothing() {
    let [eve, bob] = Keys::some();
    let members = Keys::some::<16>();
    let world = World::alone(events_per_minute(60)).await;
    let mut eves = world.client(&[&eve]).await;
    eves.publish(&welcome(&bob, "grp").sign()).await.ok();
    let added: Vec<&Keys> = members.iter().collect();
    eves.publish(&roster(&eve, "grp", 1, "add", &added).sign()).await.ok();
    let mut accepted = 0;
    for keys in &members {
        // Four of them cost nearly the 400 of one member.
        let heavy = || message("grp").tags("t", (0..2_400).map(|n| n.to_string())).sign();
        let messages: Vec<Event> = (0..4).map(|_| heavy()).collect();
        accepted += taken(&world.client(&[keys]).await.publish_all(&messages).await);
    }
    assert!((36..=44).contains(&accepted), "{accepted}: ten members' bursts, and the address's");
}

/// The key that is the member pays for a 445: a fresh key that authenticates first brings no burst of its own.
#[tokio::test]
async fn the_member_key_pays_for_a_group_message() {
    let alice = Keys::random();
    let world = World::alone(|config| config.mls_gateway.rate_limits.max_group_messages_per_minute = 60).await;
    world.group("grp_a", &[&alice]).await;
    let mut accepted = 0;
    for _ in 0..3 {
        let mut client = world.client(&[&Keys::random(), &alice]).await;
        let messages: Vec<Event> = (0..150).map(|_| message("grp_a").sign()).collect();
        accepted += taken(&client.publish_all(&messages).await);
    }
    assert_eq!(accepted, 150);
}

/// Forty addresses that flood an inbox leave room for a friend's first wrap: a key to which the inbox's owner has
/// written, or that is a member of one of its groups.
#[tokio::test]
async fn forty_addresses_leave_room_for_a_friend() {
    let world = behind_proxy(60).await;
    let [carol, friend, fellow, stranger] = Keys::some();
    let mut admin = from(&world, "198.51.100.1").await;
    admin.auth(&world.admin).await.ok();
    let group = roster(&world.admin, "grp_a", 1, "bootstrap", &[&carol, &fellow]).sign();
    admin.publish(&group).await.ok();
    let mut carols = from(&world, "198.51.100.2").await;
    carols.auth(&carol).await.ok();
    carols.publish(&wrap(&friend).sign()).await.ok();
    let mut accepted = 0;
    for n in 0..40 {
        let mut client = from(&world, &format!("203.0.113.{n}")).await;
        let wraps: Vec<Event> = (0..150).map(|_| wrap(&carol).sign()).collect();
        accepted += taken(&client.publish_all(&wraps).await);
    }
    assert_eq!(accepted, 2_250, "three quarters of twenty senders' bursts");
    let mut n = 0;
    let mut first_wrap = async |keys: &Keys| {
        n += 1;
        let mut client = from(&world, &format!("192.0.2.{n}")).await;
        client.auth(keys).await.ok();
        client.publish(&wrap(&carol).sign()).await
    };
    first_wrap(&stranger).await.refused("rate-limited");
    first_wrap(&friend).await.ok();
    first_wrap(&fellow).await.ok();
}

/// Any header that a hop adds makes its peer one from elsewhere: it sees no metrics, and may not name a loopback host.
/// The relay counts each request that such a hop forwards, whether it opens a WebSocket or not.
#[tokio::test]
async fn any_forwarding_header_makes_a_peer_remote() {
    let world = World::alone(|_| {}).await;
    let alice = Keys::random();
    let metrics = async |headers: &[(&str, &str)]| {
        crate::support::http(world.relay.address, "GET /metrics", headers).await.status
    };
    assert_eq!(metrics(&[]).await, 200);
    let headers = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "https"),
        ("x-real-ip", "203.0.113.9"),
        ("forwarded", "for=203.0.113.9"),
        ("via", "1.1 proxy"),
        ("cf-connecting-ip", "203.0.113.9"),
    ];
    for header in headers {
        assert_eq!(metrics(&[header]).await, 401, "{header:?}");
        let mut client = Client::connect_with(&world.relay, &[header]).await;
        assert_eq!(client.auth(&alice).await.reason, "error: this relay needs [server] public_url to be set");
    }
    let metrics = crate::support::http(world.relay.address, "GET /metrics", &[]).await.body;
    let line = "mls_gateway_unknown_client_addresses_total{reason=\"untrusted_peer\"} 12";
    assert!(metrics.lines().any(|found| found == line), "{metrics}");
}

/// An address has so many connections and opens so many in a minute; the relay refuses more with 429. Another address,
/// and the same one later, are served.
#[tokio::test]
async fn an_address_has_a_bound_of_connections() {
    let relay = TestRelay::with_memory(|config| {
        config.server.trusted_proxies = vec!["127.0.0.1/32".parse().expect("a range")];
        config.server.connections_per_address_max = 3;
        config.server.handshakes_per_minute_max = 6;
    })
    .await;
    let open = async |client: &str| Wire::open(relay.address, &format!("x-forwarded-for: {client}\r\n")).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(open("203.0.113.1").await.expect("a place"));
    }
    let refused = open("203.0.113.1").await.err().expect("no place is left").to_string();
    assert!(refused.starts_with("http/1.1 429 ") && refused.contains("retry-after: 60"), "{refused}");
    open("203.0.113.2").await.expect("another address");
    for n in 0..12 {
        held.push(open(&format!("2001:db8:1:{n}::1")).await.expect("a place"));
    }
    assert!(open("2001:db8:1:99::1").await.is_err(), "a /48 has the places of four addresses");
    // Its places are free again, but it has opened six in this minute.
    held.clear();
    let mut opened = 3;
    while opened < 6 {
        // The relay notices a moment later that a client has left.
        opened += usize::from(open("203.0.113.1").await.is_ok());
    }
    while open("203.0.113.1").await.err().is_none_or(|refused| !refused.to_string().contains("retry-after: 10")) {}
    relay.advance(10);
    open("203.0.113.1").await.expect("six a minute are one each 10 s");
    let metrics = crate::support::http(relay.address, "GET /metrics", &[]).await.body;
    for bound in ["connections_per_address_max", "handshakes_per_minute_max"] {
        assert!(metrics.contains(&format!("mls_gateway_refusals_total{{reason=\"{bound}\"}} ")), "{metrics}");
    }
    relay.stop().await;
}

/// A direct peer is refused before its request is read, on a connection that is closed at once; this machine counts
/// like any other.
#[tokio::test]
async fn a_direct_peer_over_its_bound_is_closed_at_once() {
    let relay = TestRelay::with_memory(|config| config.server.connections_per_address_max = 2).await;
    let mut held = [Wire::connect(relay.address).await, Wire::connect(relay.address).await];
    assert!(Wire::open(relay.address, "").await.is_err());
    assert_eq!(held[0].ask(r#"["COUNT","c",{"ids":[]}]"#).await[0], "COUNT");
    relay.stop().await;
}

/// Hostile frames over many connections cost the relay no more signatures than they paid for, however many frames and
/// bytes they are, and the address authenticates and a resident publishes afterwards.
#[tokio::test]
async fn frames_times_connections_cost_what_was_paid() {
    const CONNECTIONS: usize = 30;
    const FRAMES: usize = 120;
    let [alice, eve] = Keys::some();
    let world = World::alone(|config| {
        events_per_minute(100)(config);
        config.mls_gateway.admin_pubkeys.push(alice.public());
    })
    .await;
    let checked = async || {
        let metrics = crate::support::http(world.relay.address, "GET /metrics", &[]).await.body;
        let line = metrics.lines().find_map(|line| line.strip_prefix("mls_gateway_signatures_checked_total "));
        line.expect("the counter").parse::<usize>().expect("a number")
    };
    let (mut bytes, before) = (0, checked().await);
    let mut closed = 0;
    for connection in 0..CONNECTIONS {
        let mut wire = Wire::connect(world.relay.address).await;
        let frames = (0..FRAMES).map(|n| match (n * 7 + connection) % 6 {
            0 => r#"["EVENT",{}]"#.to_owned(),
            1 => json!(["EVENT", forged(&eve, n)]).to_string(),
            2 => json!(["EVENT", with_wrong_id(&eve, n)]).to_string(),
            3 => json!(["AUTH", forged(&eve, n)]).to_string(),
            4 => "x".repeat(4_096 * (n % 8)),
            _ => json!(["EVENT", eve.event(1).content(format!("{connection} {n}")).sign().0]).to_string(),
        });
        let frames: Vec<String> = frames.collect();
        bytes += frames.iter().map(String::len).sum::<usize>();
        closed += usize::from(flood(&mut wire, frames).await == Some(1008));
    }
    assert_eq!(closed, CONNECTIONS);
    let checked = checked().await - before;
    // The address's burst of events, and four forged AUTHs of each connection.
    assert!(checked <= 200 + 4 * CONNECTIONS, "{checked} signatures were checked for {bytes} bytes");
    let mut alices = world.client(&[&alice]).await;
    assert_eq!(taken(&alices.publish_all(&notes(&alice, 410)).await), 400);
}
