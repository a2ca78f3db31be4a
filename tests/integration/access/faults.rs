//! Answers that count for nothing: the group is closed, and the relay goes on.

use std::time::{Duration, Instant};

use serde_json::json;

use super::service::{Fault, Faulty, ask};
use crate::support::{Client, Keys, TestRelay, gateway::message};

/// A good answer, which names these members.
pub fn members(keys: &[&Keys]) -> Fault {
    let members: Vec<_> = keys.iter().map(|keys| json!({"pubkey": keys.hex(), "role": "member"})).collect();
    Fault::answer("200 OK", "", &json!({"members": members}).to_string())
}

/// A relay whose groups are in the hands of a service that answers as the test says.
async fn relay(service: &Faulty) -> TestRelay {
    TestRelay::start_alone(|config| {
        ask(config, service.address);
        config.mls_gateway.acl_stale_max_secs = 1;
    })
    .await
}

/// Waits until the relay asks again after a failure.
async fn pause() {
    tokio::time::sleep(Duration::from_millis(1_200)).await;
}

#[tokio::test]
async fn wrong_answers_close_the_group_and_change_nothing() {
    let alice = Keys::random();
    let elsewhere = Faulty::start(members(&[&alice])).await;
    let service = Faulty::start(members(&[&alice])).await;
    let relay = relay(&service).await;
    let mut client = Client::of(&relay, &[&alice]).await;
    client.publish(&message("team").sign()).await.ok();
    let to = format!("location: http://{}/groups/team\r\n", elsewhere.address);
    let twice =
        json!({"members": [{"pubkey": alice.hex(), "role": "member"}, {"pubkey": alice.hex(), "role": "admin"}]});
    let faults = [
        Fault::answer("200 OK", "", "<html>"),
        Fault::answer("200 OK", "", r#"{"members":"all"}"#),
        Fault::answer("200 OK", "", r#"{"members":[{"pubkey":1,"role":"member"}]}"#),
        Fault::answer("200 OK", "", &twice.to_string()),
        Fault::answer("204 No Content", "", ""),
        Fault::answer("500 Internal Server Error", "", r#"{"members":[]}"#),
        Fault::answer("401 Unauthorized", "", ""),
        Fault::answer("302 Found", &to, ""),
        Fault::answer("308 Permanent Redirect", &to, ""),
        Fault::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{\"members\":[".to_vec()),
        Fault::Bytes(b"SSH-2.0-OpenSSH\r\n".to_vec()),
        Fault::Bytes(Vec::new()),
        Fault::Long(10 << 20),
    ];
    for fault in faults {
        let shown = format!("{fault:.90?}");
        service.now(fault);
        pause().await;
        let answer = client.publish(&message("team").sign()).await;
        assert!(!answer.accepted && answer.reason.starts_with("error: "), "{shown}: {answer:?}");
        assert_eq!(client.ids(json!({"#h": ["team"]})).await, Ok(vec![]), "{shown}");
        service.now(members(&[&alice]));
        pause().await;
        client.publish(&message("team").sign()).await.ok();
    }
    assert_eq!(elsewhere.questions(), 0, "a redirect is not followed");
    relay.stop().await;
}

/// A group that the service refuses, as one whose id it does not like, shuts nobody's question about another group out.
#[tokio::test]
async fn a_refusal_of_one_group_pauses_that_group_alone() {
    let alice = Keys::random();
    let service = Faulty::start(members(&[&alice])).await;
    let relay = relay(&service).await;
    let mut client = Client::of(&relay, &[&alice]).await;
    for group in ["team", "odd"] {
        client.publish(&message(group).sign()).await.ok();
    }
    for status in ["400 Bad Request", "418 I'm a teapot", "422 Unprocessable Content"] {
        let both = (Fault::answer(status, "", ""), members(&[&alice]));
        service.now(Fault::About("odd".to_owned(), Box::new(both)));
        pause().await;
        let asked = service.questions();
        client.publish(&message("odd").sign()).await.refused("error");
        client.publish(&message("odd").sign()).await.refused("error");
        client.publish(&message("team").sign()).await.ok();
        assert_eq!(service.questions(), asked + 2, "{status}: the refused group is not asked about again at once");
    }
    // A refusal of the relay is one of every group.
    service.now(Fault::About("odd".to_owned(), Box::new((Fault::answer("403 Forbidden", "", ""), members(&[&alice])))));
    pause().await;
    client.publish(&message("odd").sign()).await.refused("error");
    client.publish(&message("team").sign()).await.refused("error");
    relay.stop().await;
}

#[tokio::test]
async fn a_silent_or_slow_service_costs_a_bounded_wait() {
    let alice = Keys::random();
    for fault in [Fault::Silence, Fault::Slow] {
        let service = Faulty::start(fault).await;
        let relay = relay(&service).await;
        let (mut client, mut other) =
            (Client::of(&relay, &[&alice]).await, Client::of(&relay, &[&Keys::random()]).await);
        let began = Instant::now();
        let publishing = async {
            client.publish(&message("team").sign()).await.refused("error");
            began.elapsed()
        };
        let others = async {
            other.publish(&Keys::random().event(1).sign()).await.ok();
            began.elapsed()
        };
        let (waited, others_waited) = tokio::join!(publishing, others);
        assert!(waited < Duration::from_secs(6), "{waited:?}");
        assert!(others_waited < Duration::from_secs(2), "nobody else waits for the service: {others_waited:?}");
        // While the service is known to be away, nobody waits for it.
        let began = Instant::now();
        client.publish(&message("team").sign()).await.refused("error");
        assert!(began.elapsed() < Duration::from_secs(1));
        assert_eq!(service.questions(), 1);
        relay.stop().await;
    }
}

#[tokio::test]
async fn many_that_wait_for_one_group_go_by_one_answer() {
    let alice = Keys::random();
    let service = Faulty::start(members(&[&alice])).await;
    let relay = relay(&service).await;
    let mut clients = Vec::new();
    for _ in 0..12 {
        clients.push(Client::of(&relay, &[&alice]).await);
    }
    let publishing = clients.iter_mut().map(|client| async { client.publish(&message("team").sign()).await.ok() });
    futures_util::future::join_all(publishing).await;
    let asked = service.questions();
    assert!(asked <= 6, "{asked} questions of twelve clients that came at once");
    relay.stop().await;
}
