//! A database whose history is another one: a restore, or a standby that lacked the last commits.

use std::sync::Arc;

use nostr_store::{
    Saved, Store as _, StoreError,
    postgres::Postgres,
    suite::world::{START, claim_of, event, key_package},
};
use rnostr_test_services as services;

use super::{Database, world};

/// A restore, or a standby that lacked the last commits, has such a log.
#[tokio::test]
async fn a_log_that_went_back_is_not_followed_again() {
    let Some(database) = Database::new() else { return };
    let store = database.open().await;
    let head = |to: u64| {
        services::Postgres::shared().psql(&database.0, &format!("update rnostr.log set head = {to}")).expect("psql");
    };
    head(50);
    assert!(store.after(50, 10).await.expect("the log").is_head);
    head(49);
    for now in [49, 60] {
        head(now);
        let error = store.after(50, 10).await.expect_err("what is known may be of commits that never were");
        assert!(error.to_string().contains("restart"), "{error}");
    }
    assert!(database.open().await.after(60, 10).await.is_ok(), "a process that starts now knows nothing of that");
}

impl Database {
    fn sql(&self, sql: &str) -> String {
        services::Postgres::shared().psql(&self.0, sql).expect("psql")
    }

    /// Gives the last commit another nonce and moves the head on, as a restored copy has them after it has grown.
    fn is_restored_and_grows(&self) {
        self.sql("update rnostr.commits set nonce = nonce + 1 where head = (select head from rnostr.log)");
        self.sql("update rnostr.log set head = head + 100");
        self.sql("insert into rnostr.commits select head, 7, 0 from rnostr.log");
    }
}

#[tokio::test]
async fn a_log_that_grew_past_the_cursor_with_other_events_is_not_followed() {
    let Some(database) = Database::new() else { return };
    let [store, other] = database.open_all().await;
    let world = world(&store);
    for n in 0..3 {
        let note = world.admitted(&event(1, &format!("note {n}")), "alice").await;
        assert!(matches!(store.save(vec![note]).await[0], Ok(Saved::New(_))));
    }
    let head = store.head();
    assert_eq!(other.after(0, 10).await.expect("the log").through, head);
    database.is_restored_and_grows();
    for store in [&store, &other] {
        for _ in 0..2 {
            let error = store.after(head, 10).await.expect_err("other events are in the place of those that were read");
            assert!(matches!(error, StoreError::Replaced(_)), "{error}");
        }
        assert!(matches!(store.stats().await, Err(StoreError::Replaced(_))), "nothing is answered any more");
    }
}

/// The transaction looks for the known commit under the lock, so no write slips in before the follower notices.
#[tokio::test]
async fn a_write_to_another_history_is_refused_under_the_lock() {
    let Some(database) = Database::new() else { return };
    let [saves, claims] = database.open_all().await;
    let world = world(&saves);
    let note = async |text: &str| vec![world.admitted_at(START, &event(1, text), "alice").await];
    assert!(matches!(saves.save(note("known").await).await[0], Ok(Saved::New(_))));
    for (content, reference) in [("a", "1"), ("b", "2")] {
        let package = world.admitted_at(START, &key_package(content, reference), "alice").await;
        assert!(matches!(saves.save(vec![package]).await[0], Ok(Saved::New(_))));
    }
    claims.after(0, 10).await.expect("the log");
    database.is_restored_and_grows();
    let before = database.sql("select count(*), max(head) from rnostr.events, rnostr.log");
    let saved = saves.save(note("after").await).await.remove(0);
    assert!(matches!(saved, Err(StoreError::Replaced(_))), "{saved:?}");
    let claimed = claims.claim_key_packages(&claim_of("alice", 1), START).await;
    assert!(matches!(claimed, Err(StoreError::Replaced(_))), "{claimed:?}");
    for store in [&saves, &claims] {
        assert!(matches!(store.sweep(START, 10).await, Err(StoreError::Replaced(_))), "a sweep is a write too");
    }
    assert_eq!(database.sql("select count(*), max(head) from rnostr.events, rnostr.log"), before);
}

/// The nonces that a process may still look for are kept, and no others.
#[tokio::test]
async fn old_nonces_are_removed_up_to_the_last_that_counts() {
    let Some(database) = Database::new() else { return };
    let store = database.open().await;
    database.sql("delete from rnostr.commits");
    // Commits of every hour since ten hours ago.
    database.sql(
        "insert into rnostr.commits select n, 7, extract(epoch from clock_timestamp())::bigint - (10 - n) * 3600 - 60 \
         from generate_series(0, 9) n",
    );
    database.sql("update rnostr.log set head = 9");
    assert_eq!(store.sweep(START, 10).await.expect("it sweeps").removed, 0);
    // The commit before six hours ago was the last one then.
    assert_eq!(database.sql("select string_agg(head::text, ' ' order by head) from rnostr.commits"), "4 5 6 7 8 9");
    // Later the last commit stays, however old it is.
    database.sql("update rnostr.commits set at = at - 1000000");
    assert_eq!(store.sweep(START, 10).await.expect("it sweeps").removed, 0);
    assert_eq!(database.sql("select string_agg(head::text, ' ' order by head) from rnostr.commits"), "9");
}

#[tokio::test]
async fn a_place_that_is_reached_again_belongs_to_another_history() {
    let Some(database) = Database::new() else { return };
    let store = database.open().await;
    let save = async |store: &Arc<Postgres>, text: &str| {
        let note = world(store).admitted(&event(1, text), "alice").await;
        assert!(matches!(store.save(vec![note]).await[0], Ok(Saved::New(_))));
        store.head()
    };
    let mark = async |store: &Arc<Postgres>, place| store.history_at(place).await.expect("a mark");
    let early = save(&store, "early").await;
    let second = database.open().await;
    let late = save(&second, "late").await;
    let marks = (mark(&store, early).await, mark(&store, late).await);
    assert_eq!((mark(&second, early).await, mark(&second, late).await), marks, "all processes say the same");
    let third = database.open().await;
    assert_eq!((mark(&third, early).await, mark(&third, late).await), marks, "after a start");
    // A copy from before the second start.
    database.sql(&format!("delete from rnostr.events where cursor > {early}"));
    database.sql(&format!("delete from rnostr.commits where head > {early}"));
    database
        .sql("delete from rnostr.histories where mark <> (select mark from rnostr.histories order by head limit 1)");
    database.sql(&format!("update rnostr.log set head = {early}"));
    let restored = database.open().await;
    assert!(save(&restored, "other").await >= late);
    assert_eq!(mark(&restored, early).await, marks.0);
    assert_ne!(mark(&restored, late).await, marks.1);
}

/// A failover loses commits that one instance had not read: it goes on, and neither its own check nor a start tells.
#[tokio::test]
async fn a_place_from_before_a_failover_belongs_to_another_history() {
    let Some(database) = Database::new() else { return };
    let store = database.open().await;
    let note = world(&store).admitted(&event(1, "a note"), "alice").await;
    assert!(matches!(store.save(vec![note]).await[0], Ok(Saved::New(_))));
    let place = store.head();
    let before = store.history_at(place).await.expect("a mark");
    let other = database.open().await;
    assert_eq!(other.history_at(place).await.expect("a mark"), before);
    // Another server of the same data, on the next timeline.
    database.sql(
        "create function rnostr.pg_walfile_name(pg_lsn) returns text language sql as \
        $$ select lpad(to_hex(('x' || left(pg_catalog.pg_walfile_name($1), 8))::bit(32)::int + 1), 8, '0') $$",
    );
    database.sql(
        "do $$ begin execute format('alter database %I set search_path = rnostr, pg_catalog', current_database()); \
        end $$",
    );
    let promoted = database.open().await;
    assert_ne!(promoted.history_at(place).await.expect("a mark"), before);
    assert_eq!(promoted.history_at(0).await.expect("a mark"), 0, "nothing stands before the beginning");
}
