//! Logins: who gets in, and at whose price.

use super::{API, Console, found, login, relay_of};
use crate::support::{
    Client, Keys, TestRelay,
    gateway::roster,
    rest::{Rest, header_of, problem},
};

#[tokio::test]
async fn admin_keys_and_group_admins_log_in() {
    let [admin, alice, bob] = Keys::some();
    let relay = relay_of(&admin).await;
    let mut client = Client::of(&relay, &[&admin]).await;
    found(&mut client, &admin, "grp", &alice, &bob).await;
    let answer = login(&Rest::of(&relay, &admin)).ok().await;
    for (field, expected) in [
        ("pubkey", admin.hex()),
        ("npub", admin.public().to_npub()),
        ("role", "operator".to_owned()),
        ("api_prefix", "/api/v1/mls".to_owned()),
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
    ] {
        assert_eq!(answer[field], expected, "{field}");
    }
    assert_eq!(answer["expires_in"], 900);
    let relay_url = answer["relay_url"].as_str().expect("a URL");
    assert!(relay_url.starts_with("ws://127.0.0.1:"), "{relay_url}");
    assert_eq!(answer["nip86_url"], format!("{}/", relay_url.replacen("ws", "http", 1)));
    assert_eq!(login(&Rest::of(&relay, &alice)).ok().await["role"], "group_admin");
}

#[tokio::test]
async fn nobody_else_logs_in() {
    let [admin, alice, bob, stranger] = Keys::some();
    let relay = relay_of(&admin).await;
    let mut client = Client::of(&relay, &[&admin]).await;
    found(&mut client, &admin, "grp", &alice, &bob).await;
    for keys in [&bob, &stranger] {
        let detail = login(&Rest::of(&relay, keys)).refused(403).await;
        assert!(detail.contains("admin_pubkeys") && !detail.contains("grp"), "{detail}");
    }
    login(&Rest::anonymous(&relay)).refused(401).await;
    // An admin who is made a member logs in no more.
    client.publish(&roster(&admin, "grp", 3, "demote", &[&alice]).sign()).await.ok();
    login(&Rest::of(&relay, &alice)).refused(403).await;
}

/// A proof that was seen on its way opens nothing a second time, and a token is no proof.
#[tokio::test]
async fn a_proof_is_used_once() {
    let admin = Keys::random();
    let relay = relay_of(&admin).await;
    let rest = Rest::of(&relay, &admin);
    let proof = header_of(&login(&rest).proof(&admin));
    let with = |proof: &str| login(&Rest::anonymous(&relay)).header("authorization", proof);
    assert_eq!(with(&proof).send_bare().await.status, 200);
    assert_eq!(with(&proof).send_bare().await.status, 401);
    let elsewhere = rest.at_target("POST", "/api/v1/mls/events").proof(&admin);
    assert_eq!(with(&header_of(&elsewhere)).send_bare().await.status, 401);
    let console = Console::login(&relay, &admin).await;
    assert_eq!(with(&format!("Bearer {}", console.token)).send_bare().await.status, 401);
}

/// A login is paid as an event is, by the client's address: nobody else's logins wait for a stranger's.
#[tokio::test]
async fn a_stranger_pays_for_logins() {
    let stranger = Keys::random();
    let relay = TestRelay::start_alone(|config| config.mls_gateway.rate_limits.max_events_per_minute = 1).await;
    let rest = Rest::of(&relay, &stranger);
    let mut refused = None;
    for _ in 0..400 {
        let answer = login(&rest).send().await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
        assert_eq!(answer.status, 403);
    }
    let detail = problem(&refused.expect("the address has a rate"), 429, "a login");
    assert!(!detail.contains("HTTP requests"), "{detail}");
}

/// Every instance takes the token, for its time.
#[tokio::test]
async fn a_token_counts_for_a_quarter_of_an_hour() {
    let admin = Keys::random();
    let relay = relay_of(&admin).await;
    let console = Console::login(&relay, &admin).await;
    for _ in 0..4 {
        console.elsewhere(&relay).get("/access").await;
    }
    relay.advance(899);
    console.get("/access").await;
    relay.advance(1);
    let expired = console.ask("GET", "/access").send_bare().await;
    assert_eq!((expired.status, &expired.json()["code"]), (401, &"expired".into()));
    assert!(expired.json().get("url").is_none(), "no proof helps here");
    let rest = Rest::anonymous(&relay);
    let missing = rest.at_target("GET", &format!("{API}/access")).send_bare().await;
    assert_eq!((missing.status, &missing.json()["code"]), (401, &"token".into()));
}
