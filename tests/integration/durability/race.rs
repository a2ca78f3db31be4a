//! Concurrent writes that exclude each other.

use std::sync::Arc;

use tokio::sync::Barrier;

use crate::support::{Answer, Client, Event, Keys, TestRelay, gateway};

const CONNECTIONS: usize = 20;
const RACES: u64 = 50;

/// Publishes one event on each connection at the same moment and returns the answers.
async fn race(clients: &mut Vec<Client>, events: Vec<Event>) -> Vec<Answer> {
    let start = Arc::new(Barrier::new(clients.len()));
    let racers: Vec<_> = clients
        .drain(..)
        .zip(events)
        .map(|(mut client, event)| {
            let start = Arc::clone(&start);
            tokio::spawn(async move {
                start.wait().await;
                let answer = client.publish(&event).await;
                (client, answer)
            })
        })
        .collect();
    let mut answers = Vec::new();
    for racer in racers {
        let (client, answer) = racer.await.expect("a racer does not panic");
        clients.push(client);
        answers.push(answer);
    }
    answers
}

async fn start() -> (TestRelay, Vec<Keys>, Vec<Client>) {
    let admins: Vec<Keys> = Keys::some::<CONNECTIONS>().into();
    let relay = TestRelay::start(|config| {
        config.mls_gateway.admin_pubkeys = admins.iter().map(Keys::public).collect();
    })
    .await;
    let mut clients = Vec::new();
    for admin in &admins {
        clients.push(Client::of(&relay, &[admin]).await);
    }
    (relay, admins, clients)
}

/// 20 connections race for one `seq`, 50 times. One wins each time, and the others are answered with the current one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_twenty_racers_for_one_seq_one_wins_each_time() {
    let (relay, admins, mut clients) = start().await;
    let founding = gateway::roster(&admins[0], "grp_race", 1, "bootstrap", &[&admins[0]]).sign();
    clients[0].publish(&founding).await.ok();
    let mut won = Vec::new();
    for seq in 2..2 + RACES {
        let roster = |by: &Keys| gateway::roster(by, "grp_race", seq, "add", &[&Keys::random()]).sign();
        let events: Vec<Event> = admins.iter().map(roster).collect();
        let answers = race(&mut clients, events.clone()).await;
        let winners: Vec<usize> = (0..answers.len()).filter(|&at| answers[at].accepted).collect();
        assert_eq!(winners.len(), 1, "seq {seq}: {answers:?}");
        for answer in answers.iter().filter(|answer| !answer.accepted) {
            assert_eq!(answer.reason, format!("invalid: roster seq {seq} is not above {seq}"));
        }
        won.push(events[winners[0]].id().to_owned());
    }
    let mut stored = clients[0].ids(serde_json::json!({"kinds": [450]})).await.expect("an admin may read rosters");
    stored.retain(|id| id != founding.id());
    stored.sort_unstable();
    won.sort_unstable();
    assert_eq!(stored, won, "the winners are stored and nothing else");
    relay.stop().await;
}

/// 20 admins found one group at the same moment, and one of them succeeds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_twenty_founders_of_one_group_one_founds_it() {
    let (relay, admins, mut clients) = start().await;
    for n in 0..10 {
        let group = format!("grp_founded_{n}");
        let events = admins.iter().map(|by| gateway::roster(by, &group, 1, "bootstrap", &[by]).sign()).collect();
        let answers = race(&mut clients, events).await;
        assert_eq!(answers.iter().filter(|answer| answer.accepted).count(), 1, "{answers:?}");
        for answer in answers.iter().filter(|answer| !answer.accepted) {
            answer.refused("invalid");
        }
    }
    relay.stop().await;
}
