//! The doors behind a token: who is let in, and what no answer tells.

use serde_json::json;

use super::{API, Console, DOORS, found, relay_of};
use crate::support::{
    Client, Keys, TestRelay,
    rest::{Rest, problem},
};

#[tokio::test]
async fn no_door_opens_without_a_token_of_this_store() {
    let [admin, stranger] = Keys::some();
    let (relay, other) = (relay_of(&admin).await, relay_of(&admin).await);
    let good = Console::login(&relay, &admin).await;
    let elsewhere = Console::login(&other, &admin).await;
    let mut forged = good.token.clone().into_bytes();
    forged[9] = if forged[9] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).expect("text");
    for (method, path, _) in DOORS {
        let ask = || Rest::anonymous(&relay).at_target(method, &format!("{API}{path}"));
        problem(&ask().send_bare().await, 401, path);
        for value in [
            format!("Bearer {}", elsewhere.token),
            format!("Bearer {forged}"),
            format!("Bearer {}", &good.token[..good.token.len() - 2]),
            "Bearer".to_owned(),
            "Bearer ".to_owned(),
            format!("Basic {}", good.token),
            good.token.clone(),
        ] {
            let answer = ask().header("authorization", &value).send_bare().await;
            problem(&answer, 401, &format!("{path} {value}"));
            assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        }
        let twice = ask().header("authorization", &format!("Bearer {}", good.token)).header("authorization", "x");
        problem(&twice.send_bare().await, 401, path);
        // A proof of the admin's key itself is no token: it would give a read to whoever saw it on its way.
        let rest = Rest::of(&relay, &admin).at_target(method, &format!("{API}{path}"));
        problem(&rest.send().await, 401, path);
        let rest = Rest::of(&relay, &stranger).at_target(method, &format!("{API}{path}"));
        problem(&rest.send().await, 401, path);
    }
}

#[tokio::test]
async fn a_group_admin_opens_no_door_of_the_operators() {
    let [admin, alice, bob] = Keys::some();
    let relay = relay_of(&admin).await;
    let mut client = Client::of(&relay, &[&admin]).await;
    found(&mut client, &admin, "grp", &alice, &bob).await;
    let console = Console::login(&relay, &alice).await;
    for (method, path, is_operators) in DOORS {
        if is_operators {
            problem(&console.ask(method, path).send_bare().await, 403, path);
        }
    }
    // The token of one who was an admin key opens nothing either.
    let operator = Console::login(&relay, &admin).await;
    operator.get("/access").await;
    let mut config = (*relay.app().config).clone();
    config.mls_gateway.admin_pubkeys.clear();
    relay.reconfigure(&config.into());
    operator.refused("/access", 403).await;
}

/// A key that is banned, and an address that is blocked, read nothing more by a token that they have.
#[tokio::test]
async fn a_token_of_a_banned_key_counts_for_nothing() {
    let [admin, alice, bob] = Keys::some();
    let key = admin.public();
    let relay = TestRelay::start_alone(move |config| config.mls_gateway.admin_pubkeys = vec![key]).await;
    let mut client = Client::of(&relay, &[&admin]).await;
    found(&mut client, &admin, "grp", &alice, &bob).await;
    let console = Console::login(&relay, &alice).await;
    Rest::of(&relay, &admin).ordered("banpubkey", json!([alice.hex()])).await;
    assert!(console.refused("/access", 403).await.contains("banned"));
}

#[tokio::test]
async fn a_token_from_a_blocked_address_counts_for_nothing() {
    let admin = Keys::random();
    let key = admin.public();
    let relay = TestRelay::start_alone(move |config| {
        config.mls_gateway.admin_pubkeys = vec![key];
        config.server.trusted_proxies = vec!["127.0.0.1/32".parse().expect("a range")];
    })
    .await;
    let console = Console::login(&relay, &admin).await;
    let read = async |address| console.ask("GET", "/access").header("x-forwarded-for", address).send_bare().await;
    assert_eq!(read("203.0.113.9").await.status, 200);
    Rest::of(&relay, &admin).ordered("blockip", json!(["203.0.113.9"])).await;
    assert!(problem(&read("203.0.113.9").await, 403, "a blocked address").contains("blocked"));
    assert_eq!(read("198.51.100.7").await.status, 200);
}

#[tokio::test]
async fn the_operator_reads_the_lists_and_who_changed_them() {
    let [admin, bob] = Keys::some();
    let relay = relay_of(&admin).await;
    let rest = Rest::of(&relay, &admin);
    rest.ordered("banpubkey", json!([bob.hex(), "spam"])).await;
    rest.ordered("changerelayname", json!(["our relay"])).await;
    rest.ordered("disallowkind", json!([7])).await;
    rest.ordered("blockip", json!(["198.51.100.0/24", "abuse"])).await;
    let access = Console::login(&relay, &admin).await.get("/access").await;
    assert_eq!(access["admins"], json!([admin.hex()]));
    assert_eq!(access["banned_keys"], json!([{"pubkey": bob.hex(), "reason": "spam"}]));
    assert_eq!(access["blocked_ips"], json!([{"ip": "198.51.100.0/24", "reason": "abuse"}]));
    assert_eq!((&access["name"], &access["refused_kinds"]), (&json!("our relay"), &json!([7])));
    for field in ["whitelist", "allowed_keys", "banned_events", "allowed_kinds"] {
        assert_eq!(access[field], json!([]), "{field}");
    }
    let audit = access["audit"].as_array().expect("a trail");
    assert_eq!((&audit[0]["method"], &audit[3]["subject"]), (&json!("blockip"), &json!(bob.hex())));
    assert!(audit.iter().all(|line| line["by"] == admin.hex() && line["at"].is_u64()));
}

/// Whatever is asked for, no answer holds a secret.
#[tokio::test]
async fn no_answer_holds_a_secret() {
    let [admin, system] = Keys::some();
    let key = admin.public();
    let secret = nostr_protocol::hex::to_hex(&system.pair().to_secret_bytes());
    let system_key = nostr_protocol::sign::SecretKey::from_hex_or_nsec(&secret);
    let relay = TestRelay::start(move |config| {
        config.mls_gateway.admin_pubkeys = vec![key];
        config.mls_gateway.system_pubkey = Some(system.public());
        config.mls_gateway.system_key = system_key;
        config.mls_gateway.acl_token = Some(nostr_relay::config::Secret::new("hunter2".to_owned()));
        config.metrics.auth = Some(nostr_relay::config::Secret::new("hunter3".to_owned()));
    })
    .await;
    let console = Console::login(&relay, &admin).await;
    let store = nostr_protocol::hex::to_hex(&relay.app().store.secret());
    for (method, path, _) in DOORS {
        let answer = console.ask(method, path).send_bare().await;
        for hidden in ["hunter", &secret, &store, &console.token] {
            assert!(!answer.body.contains(hidden), "{path}: {hidden}");
        }
    }
    let keys = console.get("/configuration").await;
    let of = |name: &str| keys["keys"].as_array().and_then(|keys| keys.iter().find(|it| it["key"] == name)).cloned();
    let port = of("port").expect("a key");
    assert_eq!((&port["value"], &port["source"], &port["restart"]), (&json!(0), &json!("default"), &json!(true)));
    for name in ["system_key", "acl_token"] {
        let key = of(name).expect("a key");
        assert_eq!((&key["value"], &key["secret"]), (&json!(null), &json!(true)), "{name}");
    }
}
