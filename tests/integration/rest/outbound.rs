//! Requests that are sent on to their recipients' relays (docs/rules.md, "Elsewhere" 5).

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use tokio::{io::AsyncReadExt as _, net::TcpListener, time::timeout};

use super::stock::{claim, publish, requests, with_system_key};
use crate::support::{Client, Event, Keys, TestRelay, WAIT, http};

/// Longest time in which a request reaches a relay that answers, whatever others do: less than a pause after a failure
/// and than a wait for an answer.
const PROMPT: Duration = Duration::from_secs(4);

/// A relay that asks the owner, and the other one where the owner reads. The owner's list of this kind names it.
async fn pair(allows_private: bool, list: impl Fn(&Keys, &str) -> Event) -> (TestRelay, TestRelay, Keys, Client) {
    let [system, alice] = Keys::some();
    let elsewhere = TestRelay::with_memory(|config| {
        config.auth.enabled = true;
        config.mls_gateway.system_pubkey = Some(system.public());
    })
    .await;
    let here = TestRelay::start(|config| {
        with_system_key(&system)(config);
        config.outbound.enabled = true;
        config.outbound.allow_private = allows_private;
    })
    .await;
    let mut reads = Client::of(&elsewhere, &[&alice]).await;
    reads.req("live", &[json!({"kinds": [447]})]).await.expect("a subscription");
    let mut client = Client::of(&here, &[&alice]).await;
    client.publish(&list(&alice, &elsewhere.url)).await.ok();
    publish(&mut client, &alice, 2).await;
    claim(&here, &alice, 1).await;
    (here, elsewhere, alice, reads)
}

#[tokio::test]
async fn a_request_reaches_the_relays_where_its_recipient_reads() {
    let inbox = |alice: &Keys, url: &str| alice.event(10_050).tag(["relay", url]).sign();
    let outbox = |alice: &Keys, url: &str| {
        let own = "wss://relay.invalid";
        alice.event(10_002).tag(["r", own, "write"]).tag(["r", url, "read"]).sign()
    };
    for list in [&inbox as &dyn Fn(&Keys, &str) -> Event, &outbox] {
        let (here, elsewhere, alice, mut reads) = pair(true, list).await;
        let sent = tokio::time::timeout(WAIT, reads.next_event("live")).await.expect("it is sent on");
        assert_eq!(requests(&here, &alice).await, [sent], "the same event");
        here.stop().await;
        elsewhere.stop().await;
    }
}

/// A list may name any address, and the relay does not connect to its own network.
#[tokio::test]
async fn a_private_address_is_not_dialled() {
    let inbox = |alice: &Keys, url: &str| {
        let by_name = url.replace("127.0.0.1", "localhost");
        alice.event(10_050).tag(["relay", url]).tag(["relay", &by_name]).tag(["relay", "ws://[::1]:1"]).sign()
    };
    let (here, elsewhere, alice, mut reads) = pair(false, inbox).await;
    assert_eq!(requests(&here, &alice).await.len(), 1, "it is kept here");
    assert_eq!(reads.received("live").await, []);
    assert_eq!(elsewhere.app().connections.len(), 1, "the reader alone has connected");
    here.stop().await;
    elsewhere.stop().await;
}

/// Has the relay send a request to each of these relays, in the name of a key of its own for every three.
async fn send_to(here: &TestRelay, urls: &[String]) {
    for three in urls.chunks(3) {
        let [owner] = Keys::some();
        let mut client = Client::of(here, &[&owner]).await;
        let list = three.iter().fold(owner.event(10_050), |list, url| list.tag(["relay", url]));
        client.publish(&list.sign()).await.ok();
        publish(&mut client, &owner, 2).await;
        claim(here, &owner, 1).await;
    }
}

/// Publishes a list of `alice`'s at one relay that names the other, and waits until her request is there.
async fn arrives(here: &TestRelay, elsewhere: &TestRelay) {
    let [alice] = Keys::some();
    let mut reads = Client::of(elsewhere, &[&alice]).await;
    reads.req("live", &[json!({"kinds": [447]})]).await.expect("a subscription");
    let mut client = Client::of(here, &[&alice]).await;
    client.publish(&alice.event(10_050).tag(["relay", &elsewhere.url]).sign()).await.ok();
    publish(&mut client, &alice, 2).await;
    claim(here, &alice, 1).await;
    timeout(PROMPT, reads.next_event("live")).await.expect("it is sent on");
}

/// A relay that sends requests on, and one that takes them.
async fn sender_and_taker() -> (TestRelay, TestRelay) {
    let [system] = Keys::some();
    let elsewhere = TestRelay::with_memory(|config| config.mls_gateway.system_pubkey = Some(system.public())).await;
    let here = TestRelay::start(|config| {
        with_system_key(&system)(config);
        config.outbound.enabled = true;
        config.outbound.allow_private = true;
    })
    .await;
    (here, elsewhere)
}

/// Accepts connections and says nothing; gives the address, and the most connections that were open at one time.
async fn silent(host: &str) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((host, 0)).await.expect("an address of this machine");
    let port = listener.local_addr().expect("an address").port();
    let most = Arc::new(AtomicUsize::new(0));
    let (open, counted) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&most));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            let open = Arc::clone(&open);
            tokio::spawn(async move {
                let mut bytes = [0; 512];
                while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {}
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    (port, most)
}

async fn outcomes(relay: &TestRelay, outcome: &str) -> u64 {
    let page = http(relay.address, "GET /metrics", &[]).await.body;
    let name = format!("mls_gateway_outbound_requests_total{{outcome=\"{outcome}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().expect("a number"))
}

/// Many hosts that are down rest for seconds and minutes; none of them delays another relay's request.
#[tokio::test]
async fn hosts_that_rest_delay_no_other_host() {
    let (here, elsewhere) = sender_and_taker().await;
    let down: Vec<String> = (2..92).map(|n| format!("ws://127.0.2.{n}:1")).collect();
    send_to(&here, &down).await;
    arrives(&here, &elsewhere).await;
    assert_eq!((outcomes(&here, "sent").await, outcomes(&here, "dropped").await), (1, 0));
    here.stop().await;
    elsewhere.stop().await;
}

/// One machine that answers nothing, under many names, has the connections of one machine.
#[tokio::test]
async fn a_machine_with_many_names_has_the_share_of_one() {
    let (here, elsewhere) = sender_and_taker().await;
    let (port, most) = silent("127.0.0.7").await;
    let spelled = ["127.0.0.7", "127.0.7", "127.7", "2130706439", "0x7f000007", "017700000007", "0x7f.7", "0177.7"];
    let more = ["127.0.0.07", "127.0.0.0x7", "127.0x7", "0x7f.0.7", "0177.0.7", "0x7f.0.0.7", "127.00.7"];
    let names: Vec<String> = spelled.iter().chain(&more).map(|name| format!("ws://{name}:{port}")).collect();
    send_to(&here, &names).await;
    arrives(&here, &elsewhere).await;
    assert_eq!(most.load(Ordering::SeqCst), 2);
    here.stop().await;
    elsewhere.stop().await;
}

/// A host has a bounded number of requests that wait for it. The metrics count those beyond it, and others get through.
#[tokio::test]
async fn requests_that_find_no_room_are_counted() {
    let (here, elsewhere) = sender_and_taker().await;
    let (port, _) = silent("127.0.0.8").await;
    let urls: Vec<String> = (0..150).map(|n| format!("ws://127.0.0.8:{port}/{n}")).collect();
    send_to(&here, &urls).await;
    arrives(&here, &elsewhere).await;
    let dropped = outcomes(&here, "dropped").await;
    assert!((15..=22).contains(&dropped), "{dropped} of 150, as 128 may wait");
    here.stop().await;
    elsewhere.stop().await;
}

/// A stranger's list names a relay by a port on which nothing listens, by the wrong scheme and by a path that is none
/// of a relay. The relay itself does not rest for that.
#[tokio::test]
async fn a_strangers_list_locks_no_relay_out() {
    let (here, elsewhere) = sender_and_taker().await;
    let wrong = elsewhere.url.replace("ws://", "wss://");
    let closed = "ws://127.0.0.1:1".to_owned();
    send_to(&here, &[closed, wrong, format!("{}/none/of/a/relay", elsewhere.url.trim_end_matches('/'))]).await;
    let refused = async {
        while outcomes(&here, "refused").await == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(WAIT, refused).await.expect("the upgrade is refused");
    arrives(&here, &elsewhere).await;
    here.stop().await;
    elsewhere.stop().await;
}
