//! Removals of many index entries: a bounded number goes with a batch, and sweeps take the others.

use nostr_extensions::{NostrGroupId, gate::Touches};
use nostr_store::{
    Store as _,
    suite::world::{START, deletion, event, everyone, id_of, new, vanish, wrap},
    weight::REMOVED_ROWS_MAX,
};

use super::{Database, world};

#[tokio::test]
async fn a_batch_removes_no_more_rows_than_it_may_add() {
    let Some(database) = Database::new() else { return };
    let [a, b] = database.open_all().await;
    let (here, there) = (world(&a), world(&b));
    let mut ids = Vec::new();
    for n in 0..8 {
        let note = (0..2_400).fold(event(1, "note"), |event, tag| event.tag(&["t", &format!("{n} {tag}")]));
        ids.push(id_of(&new(here.publish(&note, "alice").await)));
    }
    let count = async |rows: &str| database.count(rows);
    let before = count("rnostr.event_index").await;
    new(here.publish(&deletion(&ids), "alice").await);
    let after = count("rnostr.event_index").await;
    assert!(before - after <= REMOVED_ROWS_MAX, "{before} entries before, {after} after");
    assert!(after > 7 * 2_400, "{after}");
    for world in [&here, &there] {
        assert_eq!(world.find("{}", everyone()).await.len(), 1, "the deletion alone");
        assert!(world.find(r##"{"#t":["3 7"]}"##, everyone()).await.is_empty());
        for id in &ids {
            assert!(!world.holds(*id).await);
        }
    }
    // Each piece of a sweep is bounded too.
    let mut left = after;
    while b.sweep(START, 500).await.expect("a sweep").removed > 0 {
        let now = count("rnostr.event_index").await;
        assert!(left - now <= REMOVED_ROWS_MAX + 2_410, "{left} entries, then {now}");
        left = now;
    }
    assert_eq!((left, count("rnostr.removed").await), (12, 0), "the deletion's own entries");
}

/// A follower that comes to the place of a removed gift wrap learns there that its group changed: a message that came
/// between the gift wrap and the removal is decided by a state that has the change.
#[tokio::test]
async fn the_log_tells_the_groups_of_events_that_are_gone() {
    let Some(database) = Database::new() else { return };
    let store = database.open().await;
    let here = world(&store);
    let founding = |group: &str, text: &str| wrap("bob", text).tag(&["h", group]);
    // Deleted by its recipient, and in one batch with the deletion.
    let deleted = id_of(&new(here.publish(&founding("deleted", "1"), "alice").await));
    let in_batch = here.admitted(&founding("in-batch", "2"), "alice").await;
    let its_deletion = here.admitted(&deletion(&[in_batch.event().id()]), "bob").await;
    here.save(vec![in_batch, its_deletion]).await;
    new(here.publish(&deletion(&[deleted]), "bob").await);
    // Expired, and left by a key that vanished.
    let expiring = founding("expired", "3").tag(&["expiration", &(START + 1).to_string()]);
    new(here.publish(&expiring, "alice").await);
    new(here.publish(&wrap("carol", "4").tag(&["h", "left"]), "alice").await);
    new(here.publish(&event(1, "a note"), "carol").await);
    new(here.publish(&vanish(START), "carol").await);
    while store.sweep(START + 2, 500).await.expect("a sweep").removed > 0 {}
    assert_eq!(database.count("rnostr.events where kind = 1059"), 0, "all are gone");
    let log = store.after(0, 100).await.expect("the log");
    assert!(log.entries.is_sorted_by_key(|entry| entry.cursor) && log.through == store.head());
    for (place, group) in [(1, "deleted"), (2, "in-batch"), (5, "expired"), (6, "left")] {
        let entry = log.entries.iter().find(|entry| entry.cursor == place).expect("the place is in the log");
        let of_group = Touches::groups(NostrGroupId::parse(group));
        assert!(entry.touches == of_group && entry.routes.is_empty() && entry.group.is_none(), "{entry:?}");
    }
    // Pages go on from each other.
    let mut seen = 0;
    let mut from = 0;
    loop {
        let page = store.after(from, 2).await.expect("a page");
        seen += page.entries.len();
        if page.is_head {
            break;
        }
        from = page.through;
    }
    assert_eq!(seen, log.entries.len());
}

impl Database {
    fn count(&self, table: &str) -> usize {
        let count = format!("select count(*) from {table}");
        let count = rnostr_test_services::Postgres::shared().psql(&self.0, &count).expect("psql");
        count.trim().parse().expect("a number")
    }
}
