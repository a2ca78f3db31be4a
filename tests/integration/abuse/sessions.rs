//! NIP-77 sessions: each ends by itself, and those of one address leave memory for others.

use serde_json::{Value, json};

use crate::support::{Client, Keys, TestRelay, empty_set};

fn is_answer(frame: &Value) -> bool {
    frame[0] == "NEG-MSG" || frame[0] == "NEG-ERR"
}

async fn ask(client: &mut Client, verb: &str, id: &str, filter: Option<&Value>) -> Value {
    let (_, first) = empty_set();
    let message = match filter {
        Some(filter) => json!([verb, id, filter, first]),
        None => json!([verb, id, first]),
    };
    client.send(&message).await;
    client.find(|frame| frame[1] == id && is_answer(frame)).await
}

#[track_caller]
fn is_closed(frame: &Value) {
    let reason = frame[2].as_str().unwrap_or_default();
    assert!(frame[0] == "NEG-ERR" && reason.starts_with("closed: "), "{frame}");
}

/// A session that is not used for 60 s ends, and its client is told without having sent anything. One that is used goes
/// on, for 10 minutes at most.
#[tokio::test]
async fn an_idle_session_ends_without_a_message_of_its_client() {
    let relay = TestRelay::with_memory(|_| {}).await;
    let mut client = Client::connect(&relay).await;
    let filter = json!({"kinds": [1]});
    for id in ["idle", "used"] {
        assert_eq!(ask(&mut client, "NEG-OPEN", id, Some(&filter)).await[0], "NEG-MSG");
    }
    relay.advance(59);
    assert_eq!(ask(&mut client, "NEG-MSG", "used", None).await[0], "NEG-MSG");
    relay.advance(1);
    is_closed(&client.find(|frame| frame[1] == "idle").await);
    is_closed(&ask(&mut client, "NEG-MSG", "idle", None).await);
    for _ in 0..9 {
        assert_eq!(ask(&mut client, "NEG-MSG", "used", None).await[0], "NEG-MSG");
        relay.advance(59);
    }
    assert_eq!(ask(&mut client, "NEG-MSG", "used", None).await[0], "NEG-MSG");
    relay.advance(9);
    let ended = client.find(|frame| frame[1] == "used").await;
    is_closed(&ended);
    assert!(ended[2].as_str().is_some_and(|reason| reason.contains("600 s")), "{ended}");
    relay.stop().await;
}

/// The sessions of one address share a part of the memory for sessions, however many connections they are on. The
/// refusal says when to come back, and by then those that are not used have ended.
#[tokio::test]
async fn sessions_of_one_address_leave_room_for_others() {
    let resident = Keys::random();
    let relay = TestRelay::with_memory(|config| config.auth.pubkey_whitelist = vec![resident.public()]).await;
    // A filter that takes 2.4 MB, on a session without events.
    let values = |letter: u8| -> Vec<String> { (0..1_000).map(|n| format!("{}{n}", char::from(letter))).collect() };
    let mut filter = json!({"kinds": [1]});
    for letter in (b'a'..=b'z').chain(b'A'..=b'Z').filter(|letter| !b"ep".contains(letter)) {
        filter[format!("#{}", char::from(letter))] = json!(values(letter));
    }
    let mut clients = Vec::new();
    let mut opened = 0;
    let refused = 'all: loop {
        let mut client = Client::connect(&relay).await;
        for id in ["a", "b"] {
            let answer = ask(&mut client, "NEG-OPEN", id, Some(&filter)).await;
            if answer[0] == "NEG-ERR" {
                break 'all answer;
            }
            opened += 1;
        }
        clients.push(client);
        assert!(opened < 100, "nothing bounds the sessions of one address");
    };
    assert!((4..20).contains(&opened), "{opened} sessions of 2 MB");
    let reason = refused[2].as_str().unwrap_or_default();
    assert!(reason.starts_with("rate-limited: ") && reason.ends_with("; retry in 60 s"), "{reason}");
    let mut residents = Client::of(&relay, &[&resident]).await;
    assert_eq!(ask(&mut residents, "NEG-OPEN", "a", Some(&filter)).await[0], "NEG-MSG", "another payer");
    relay.advance(60);
    for client in &mut clients {
        for id in ["a", "b"] {
            is_closed(&client.find(|frame| frame[1] == id && is_answer(frame)).await);
        }
    }
    let mut client = Client::connect(&relay).await;
    assert_eq!(ask(&mut client, "NEG-OPEN", "a", Some(&filter)).await[0], "NEG-MSG");
    relay.stop().await;
}
