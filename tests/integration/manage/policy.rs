//! `[kinds]` and `[retention]`.

use nostr_extensions::{KindRange, Retention};
use serde_json::json;

use crate::support::{
    Client, Keys, TestRelay,
    gateway::{message, roster},
    http,
    rest::Rest,
};

#[tokio::test]
async fn kinds_that_are_not_listed_are_refused() {
    let [admin, alice] = Keys::some();
    let relay = TestRelay::start(|config| {
        config.mls_gateway.admin_pubkeys = vec![admin.public()];
        config.kinds.allowed = vec![KindRange { first: 445, last: 450 }];
    })
    .await;
    let mut admins = Client::of(&relay, &[&admin]).await;
    admins.publish(&roster(&admin, "grp_a", 1, "bootstrap", &[&admin]).sign()).await.ok();
    admins.publish(&message("grp_a").sign()).await.ok();
    let note = alice.event(1).sign();
    admins.publish(&note).await.refused("blocked");
    admins.publish(&alice.event(5).tag(["e", note.id()]).sign()).await.ok();
    let orders = Rest::of(&relay, &admin);
    orders.ordered("allowkind", json!([1])).await;
    super::in_force().await;
    admins.publish(&alice.event(1).content("2").sign()).await.ok();
    assert_eq!(orders.ordered("listallowedkinds", json!([])).await, json!([1, 445, 446, 447, 448, 449, 450]));
}

#[tokio::test]
async fn an_event_is_kept_for_the_time_of_its_kind() {
    let [alice, bob] = Keys::some();
    let relay = TestRelay::start(|config| {
        let rule = |first, last, secs| Retention { kinds: KindRange { first, last }, secs };
        config.retention.rules = vec![rule(7, 7, 60), rule(0, 9, 600)];
    })
    .await;
    let mut client = Client::connect(&relay).await;
    let (like, note, other) = (alice.event(7).sign(), alice.event(1).sign(), alice.event(11).sign());
    let short = alice.event(1).tag(["expiration", &(relay.now() + 30).to_string()]).sign();
    let deletion = alice.event(5).tag(["e", &"0".repeat(64)]).sign();
    for event in [&like, &note, &other, &short, &deletion] {
        client.publish(event).await.ok();
    }
    let mut left = async |secs| {
        relay.advance(secs);
        let mut kinds: Vec<u64> = Vec::new();
        for event in client.req("sub", &[json!({ "authors": [alice.hex(), bob.hex()] })]).await.expect("events") {
            kinds.push(event.kind());
        }
        kinds.sort_unstable();
        kinds
    };
    assert_eq!(left(0).await, [1, 1, 5, 7, 11]);
    assert_eq!(left(31).await, [1, 5, 7, 11]);
    assert_eq!(left(30).await, [1, 5, 11]);
    assert_eq!(left(600).await, [5, 11]);
    let document = http(relay.next_address(), "GET /", &[("accept", "application/nostr+json")]).await.json();
    // The first rule holds kind 7, and kind 5 is kept without end.
    let told = json!([{ "kinds": [[7, 7]], "time": 60 }, { "kinds": [[0, 4], [6, 6], [8, 9]], "time": 600 }]);
    assert_eq!(document["retention"], told);
}

/// NIP-11 tells the kinds that a rule holds, and no kind that is not taken, not kept, or has an end of its own.
#[tokio::test]
async fn the_retention_that_is_told_is_the_one_that_holds() {
    let admin = Keys::random();
    let relay = TestRelay::start(|config| {
        config.mls_gateway.admin_pubkeys = vec![admin.public()];
        config.retention.rules = vec![Retention { kinds: KindRange { first: 0, last: 65_535 }, secs: 60 }];
    })
    .await;
    Rest::of(&relay, &admin).ordered("disallowkind", json!([40_000])).await;
    super::in_force().await;
    let document = http(relay.next_address(), "GET /", &[("accept", "application/nostr+json")]).await.json();
    let kinds = [
        [0, 4],
        [6, 12],
        [14, 61],
        [63, 442],
        [452, 1058],
        [1060, 19_999],
        [30_000, 30_442],
        [30_444, 39_999],
        [40_001, 65_535],
    ];
    assert_eq!(document["retention"], json!([{ "kinds": kinds, "time": 60 }]));
}
