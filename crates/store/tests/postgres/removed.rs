//! Removals of many index entries: a bounded number goes with a batch, and sweeps take the others.

use nostr_store::{
    Store as _,
    suite::world::{START, deletion, event, everyone, id_of, new},
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

impl Database {
    fn count(&self, table: &str) -> usize {
        let count = format!("select count(*) from {table}");
        let count = rnostr_test_services::Postgres::shared().psql(&self.0, &count).expect("psql");
        count.trim().parse().expect("a number")
    }
}
