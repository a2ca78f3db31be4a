//! A member that is removed through one relay while another relay counts and compares ids for it.

use std::time::Instant;

use nostr_protocol::hex::parse_any;
use serde_json::{Value, json};

use super::{Cluster, StoreConfig, admins, client, is_firestore};
use crate::support::{
    Event, Keys, empty_set,
    gateway::{message, roster},
    rounds::Rounds,
};

/// Most messages of the group: several pages of the archive.
const MESSAGES_MAX: u64 = 1_200;
const FIRESTORE_MESSAGES_MAX: u64 = 300;
/// Longest time, in milliseconds, between the request and the removal.
const BETWEEN_MS_MAX: u64 = 250;

fn is_answer(frame: &Value) -> bool {
    frame[1] == "neg" && (frame[0] == "NEG-MSG" || frame[0] == "NEG-ERR")
}

/// The number of the group's ids that an answer tells to a client that has none of them.
fn told(answer: &Value) -> usize {
    if answer[0] == "NEG-ERR" {
        assert!(answer[2].as_str().is_some_and(|reason| reason.starts_with("closed: ")), "{answer}");
        return 0;
    }
    let message = parse_any(answer[2].as_str().expect("text").as_bytes()).expect("a message in hex");
    let (mut have, mut need) = (Vec::new(), Vec::new());
    empty_set().0.reconcile_with_ids(&message, &mut have, &mut need).expect("a negentropy message");
    need.len()
}

/// Bob opens a session and asks for a count at a random moment of his removal. Once the removal is acknowledged, the
/// session tells no ids, and nothing of the group is counted or found.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_elsewhere_ends_what_is_under_way() {
    let Some(store) = StoreConfig::new() else { return };
    let [admin, bob] = Keys::some();
    let cluster = Cluster::start(2, store.with([admins(&admin)]));
    let mut on_a = client(&cluster.url(0), &admin).await;
    let mut rounds = Rounds::of("a removal elsewhere");
    while let Some(mut round) = rounds.next() {
        let group = format!("grp_{}", round.number);
        let most = if is_firestore() { FIRESTORE_MESSAGES_MAX } else { MESSAGES_MAX };
        let messages: Vec<Event> = (0..round.within(1..=most)).map(|_| message(&group).sign()).collect();
        on_a.publish(&roster(&admin, &group, 1, "bootstrap", &[&admin, &bob]).sign()).await.ok();
        for some in messages.chunks(100) {
            on_a.publish_all(some).await.iter().for_each(crate::support::Answer::ok);
        }
        let mut bobs = client(&cluster.url(1), &bob).await;
        let filters = [json!({"kinds": [445], "#h": [group]}), json!({"kinds": [445]}), json!({})];
        let filter = round.turn(&[0, 1, 2]);
        let between = round.ms(0..=BETWEEN_MS_MAX);
        let (_, first) = empty_set();
        bobs.send(&json!(["NEG-OPEN", "neg", filters[filter], first])).await;
        bobs.send(&json!(["COUNT", "count", filters[filter]])).await;
        // In some rounds the session tells its ids first, and ends behind that.
        let answered = if round.within(0..=2) == 0 { Some(bobs.find(is_answer).await) } else { None };
        tokio::time::sleep(between).await;
        let removal = roster(&admin, &group, 2, "remove", &[&bob]).sign();
        on_a.publish(&removal).await.ok();
        let began = Instant::now();
        bobs.send(&json!(["NEG-MSG", "neg", first])).await;
        // The first answer is of before the removal, or tells nothing. The second tells nothing in any case.
        let told_before = match answered {
            Some(answer) => told(&answer),
            None => told(&bobs.find(is_answer).await),
        };
        let told_after = told(&bobs.find(is_answer).await);
        let choices = format!("{} messages, removed {between:?} after NEG-OPEN {}", messages.len(), filters[filter]);
        assert_eq!(told_after, 0, "ids were told after the removal: {choices}, {told_before} before it");
        let counted = bobs.find(|frame| frame[1] == "count").await;
        let counted = counted[2]["count"].as_u64().expect("a count");
        // The filter of everything finds the rosters too.
        assert!(counted <= messages.len() as u64 + 2, "{counted}");
        let of_group = json!({"kinds": [445], "#h": [group]});
        assert_eq!(bobs.count_now("after", std::slice::from_ref(&of_group)).await, Ok(0));
        assert_eq!(bobs.req_now("after", &[of_group]).await, Ok(vec![]));
        let choices = format!("{choices}, {told_before} ids told before, {counted} counted");
        rounds.ended(&round, &choices, began.elapsed());
    }
}
