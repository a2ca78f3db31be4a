//! The events of one author, as a relay counts them against its quotas.

use nostr_extensions::kinds::Quota;
use nostr_protocol::EventId;

use super::world::{START, WIDE, World, deletion, event, id_of, key, new, vanish, wrap};
use crate::{PageBounds, authored};

/// All that the queries find for alice and count, page by page.
async fn of_alice(w: &World, quota: Quota) -> Vec<EventId> {
    let mut found = Vec::new();
    for query in authored(&key("alice"), quota) {
        let mut from = None;
        loop {
            let bounds = PageBounds { events_max: 3, ..WIDE };
            let page = w.store.scan(&query, from, u64::MAX, bounds, START).await.expect("a page");
            let counted = page.events.iter().filter(|sealed| w.policy.quota_of(sealed.kind()) == Some(quota));
            found.extend(counted.map(id_of));
            from = page.next;
            if from.is_none() {
                break;
            }
        }
    }
    found.sort_unstable();
    found
}

async fn published(w: &World, kind: u16, content: &str) -> EventId {
    let to_bob = key("bob").to_hex();
    let event = event(kind, content);
    let event = if kind == 4 { event.tag(&["p", &to_bob]) } else { event.tag(&["d", content]) };
    id_of(&new(w.publish(&event, "alice").await))
}

fn sorted(mut ids: Vec<EventId>) -> Vec<EventId> {
    ids.sort_unstable();
    ids
}

pub async fn all_events_of_an_author_are_found_by_their_quota(w: &World) {
    let mut events = Vec::new();
    for n in 0..5 {
        for kind in [1, 7, 30_023] {
            events.push(published(w, kind, &n.to_string()).await);
        }
    }
    let messages = vec![published(w, 4, "one").await, published(w, 4, "two").await];
    // Other authors' events lie beside them: also messages to alice.
    let to_alice = [["p", &key("alice").to_hex()]];
    new(w.publish(&event(4, "hello").tag(&to_alice[0]), "bob").await);
    new(w.publish(&event(1, "hello").tag(&to_alice[0]), "bob").await);
    new(w.publish(&wrap("alice", "hello"), "bob").await);
    published(w, 0, "profile").await;
    assert_eq!(of_alice(w, Quota::Events).await, sorted(events.clone()));
    assert_eq!(of_alice(w, Quota::DirectMessages).await, sorted(messages.clone()));
    // A deletion of a public event is for everyone, and one of a message for its author.
    let public = id_of(&new(w.publish(&deletion(&[events[0], events[1]]), "alice").await));
    let private = id_of(&new(w.publish(&deletion(&messages[..1]), "alice").await));
    assert_eq!(of_alice(w, Quota::Events).await, sorted(events[2..].to_vec()));
    assert_eq!(of_alice(w, Quota::DirectMessages).await, messages[1..]);
    assert_eq!(of_alice(w, Quota::Deletions).await, sorted(vec![public, private]));
    // A version that is replaced counts no more.
    let newer = event(30_023, "newer").tag(&["d", "4"]).at(START + 1);
    let newer = id_of(&new(w.publish(&newer, "alice").await));
    let kept = events[2..14].iter().copied().chain([newer]).collect();
    assert_eq!(of_alice(w, Quota::Events).await, sorted(kept));
    let request = id_of(&new(w.publish(&vanish(START + 2), "alice").await));
    assert_eq!(of_alice(w, Quota::Vanishing).await, [request]);
    for quota in [Quota::Events, Quota::DirectMessages, Quota::Deletions] {
        assert_eq!(of_alice(w, quota).await, [], "{quota:?}");
    }
}
