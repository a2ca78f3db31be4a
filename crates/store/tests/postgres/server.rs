//! The state of the server: the size of its tables, and its open transactions.

use std::time::{Duration, Instant};

use nostr_protocol::testing::keypair;
use nostr_store::{
    Saved, Store as _,
    suite::world::{START, capability, deletion, event, id_of, message, new, wrap},
};

use super::{Database, world};

#[tokio::test]
async fn what_expires_leaves_no_more_behind_the_fifteenth_time_than_the_tenth() {
    let Some(database) = Database::new() else { return };
    let store = database.open().await;
    let world = world(&store);
    let sql = |sql: &str| rnostr_test_services::Postgres::shared().psql(&database.0, sql).expect("psql");
    let mut sizes = Vec::new();
    for round in 0..15_u64 {
        let now = START + round * 1_000;
        let mut batch = Vec::new();
        for n in 0..400 {
            let passing = message(&capability("room"), &format!("{round} {n}"))
                .at(now)
                .tag(&["expiration", &(now + 500).to_string()]);
            let passing = passing.sign(&keypair("throw-away"));
            batch.push(world.try_admit(passing, &["alice"], now).await.expect("admitted"));
        }
        assert!(world.save(batch).await.iter().all(|it| matches!(it, Saved::New(_))));
        assert_eq!(world.sweep(now + 500).await, 400);
        sql("vacuum rnostr.events, rnostr.event_index");
        let size = sql("select pg_total_relation_size('rnostr.events') + pg_total_relation_size('rnostr.event_index')");
        sizes.push(size.parse::<u64>().expect("a size"));
    }
    assert!(sizes[14] <= sizes[9] + sizes[9] / 4, "{sizes:?}");
}

/// A caller may drop a save at any moment. No transaction stays open, and no connection is used again within one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_save_holds_up_no_other() {
    let Some(database) = Database::new() else { return };
    let [store, other]: [_; 2] = database.open_all().await;
    let (here, there) = (world(&store), world(&other));
    let mut saved = 0;
    for n in 0..60_u64 {
        let batch = vec![here.admitted(&event(1, &format!("dropped {n}")), "alice").await];
        let dropped = tokio::time::timeout(Duration::from_micros(n * 60), store.save(batch)).await;
        saved += usize::from(dropped.is_ok());
        let started = Instant::now();
        for (world, name) in [(&there, "there"), (&here, "here")] {
            let note = world.admitted(&event(1, &format!("{name} {n}")), "alice").await;
            assert!(matches!(world.save(vec![note]).await[..], [Saved::New(_)]));
        }
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    }
    let log = other.after(0, 1_000).await.expect("the log").entries;
    assert!((120 + saved..=180).contains(&log.len()), "{} events, {saved} of them not dropped", log.len());
    // A save that was dropped within its transaction took the transaction with it.
    let open = "select count(*) from pg_stat_activity where datname = current_database() and state like 'idle in %' \
        and now() - state_change > interval '1 second'";
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    assert_eq!(rnostr_test_services::Postgres::shared().psql(&database.0, open).expect("psql"), "0");
}

/// A batch that the server cannot finish in time is divided: the culprit alone is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_runs_out_of_time_is_divided() {
    let Some(database) = Database::new() else { return };
    let store = database.open().await;
    let w = world(&store);
    let sql = |sql: &str| rnostr_test_services::Postgres::shared().psql(&database.0, sql).expect("psql");
    sql("create function rnostr.stall() returns trigger language plpgsql as \
        $$ begin if new.kind = 7777 then perform pg_sleep(60); end if; return new; end $$; \
        create trigger stall before insert on rnostr.events for each row execute function rnostr.stall()");
    let mut batch = Vec::new();
    for n in 0..8 {
        batch.push(w.admitted(&event(if n == 5 { 7_777 } else { 1 }, &n.to_string()), "alice").await);
    }
    let saved = store.save(batch).await;
    let culprits: Vec<usize> = (0..8).filter(|n| saved[*n].is_err()).collect();
    assert_eq!(culprits, [5], "{saved:?}");
}

/// Bytes loaded under the lock of the log depend on the number of targets, and not on their sizes or tags.
#[tokio::test]
async fn what_decides_loads_no_bodies() {
    let Some(database) = Database::new() else { return };
    let store = database.open().await;
    let w = world(&store);
    let value = "x".repeat(100_000);
    let mut ids = Vec::new();
    for n in 0..20 {
        let note = event(1, &n.to_string()).tag(&["t", &value]).tag(&["x", &value]);
        ids.push(id_of(&new(w.publish(&note, "alice").await)));
        let wrapped = wrap("alice", &n.to_string()).tag(&["x", &value]).tag(&["h", "grp"]);
        ids.push(w.send(&wrapped, "throw-away", "bob").await);
    }
    let before = store.loaded_bytes();
    new(w.publish(&deletion(&ids), "alice").await);
    let loaded = store.loaded_bytes() - before;
    assert!((1..=20_000).contains(&loaded), "{loaded}");
    for id in ids {
        assert!(!w.holds(id).await);
    }
}
