//! A relay that stops at its worst moment: while its transaction holds the lock of the log.

use std::time::{Duration, Instant};

use rnostr_test_services as services;

use super::{Cluster, StoreConfig, gateway};
use crate::support::{Client, Event, Keys, gateway::roster};

const ROUNDS: u64 = 4;
/// Longest time for which a relay that stopped holds up the others.
const STOPPED_SECS_MAX: u64 = 12;
const GROUP: &str = "grp_frozen";
/// Members of a group whose rows fill all buffers between the server and a relay that does not read them.
const MANY: usize = 150_000;

fn sql(database: &str, sql: &str) -> String {
    services::Postgres::shared().psql(database, sql).expect("psql")
}

async fn client(url: &str, keys: &Keys) -> Client {
    let mut client = Client::open(url, &[]).await.expect("it connects");
    client.auth(keys).await.ok();
    client
}

/// Sessions of the database that the condition names.
fn sessions(database: &str, condition: &str) -> bool {
    let count = format!("select count(*) from pg_stat_activity where datname = current_database() and {condition}");
    sql(database, &count) != "0"
}

fn until(database: &str, condition: &str) {
    let until = Instant::now() + Duration::from_secs(20);
    while !sessions(database, condition) {
        assert!(Instant::now() < until, "{condition}");
    }
}

/// Publishes through the second relay, and stops it while its transaction waits for the lock of the log, which it gets
/// then. Returns whether it got it: it may have given up in this moment.
async fn freeze(cluster: &Cluster, database: &str, client: &mut Client, event: &Event) -> bool {
    let holder = {
        let database = database.to_owned();
        let hold = "begin; select head from rnostr.log for update; select pg_sleep(60)";
        std::thread::spawn(move || services::Postgres::shared().psql(&database, hold))
    };
    until(database, "wait_event = 'PgSleep'");
    client.send(&serde_json::json!(["EVENT", event.0])).await;
    until(database, "wait_event_type = 'Lock'");
    cluster.signal(1, "STOP");
    sql(
        database,
        "select pg_cancel_backend(pid) from pg_stat_activity where wait_event = 'PgSleep' \
            and datname = current_database()",
    );
    assert!(holder.join().expect("no panic").is_err(), "it was cancelled");
    std::thread::sleep(Duration::from_millis(300));
    sessions(database, "wait_event_type = 'Client' and xact_start is not null and pid <> pg_backend_pid()")
}

/// One relay is stopped with the lock of the log, in every other round while the server sends it more rows than fit
/// into the buffers between them. The other relay writes again soon, and the stopped one commits nothing when it goes
/// on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_instance_stops_nobody_for_long() {
    let Some(store) = StoreConfig::new_postgres() else { return };
    let database = store.database().to_owned();
    let [admin, alice, bob] = Keys::some();
    let cluster = Cluster::start(2, store.with([gateway(format!("admin_pubkeys = [\"{}\"]", admin.hex()))]));
    let mut on_a = client(&cluster.url(0), &admin).await;
    on_a.publish(&roster(&admin, GROUP, 1, "bootstrap", &[&admin, &alice]).sign()).await.ok();
    for round in 0..ROUNDS {
        let mut on_b = client(&cluster.url(1), &admin).await;
        let many = round % 2 == 1;
        if many {
            sql(
                &database,
                &format!(
                    "insert into rnostr.members (group_id, key, admin) \
                    select '{GROUP}', decode(lpad(to_hex(n), 64, '0'), 'hex'), false from generate_series(1, {MANY}) n"
                ),
            );
        }
        let mut stale = roster(&admin, GROUP, 100 + round, "add", &[&bob]).sign();
        while !freeze(&cluster, &database, &mut on_b, &stale).await {
            cluster.signal(1, "CONT");
            let _ = on_b.answer(stale.id()).await;
            on_b = client(&cluster.url(1), &admin).await;
            stale = roster(&admin, GROUP, 100 + round, "add", &[&bob]).content("again").sign();
        }
        let stopped = Instant::now();
        on_a.publish(&alice.event(1).content(round.to_string()).sign()).await.ok();
        assert!(stopped.elapsed() < Duration::from_secs(STOPPED_SECS_MAX), "{:?}", stopped.elapsed());
        sql(&database, &format!("delete from rnostr.members where group_id = '{GROUP}' and not admin"));
        cluster.signal(1, "CONT");
        on_b.answer(stale.id()).await.refused("error");
        let known = sql(&database, &format!("select count(*) from rnostr.events where id = '\\x{}'", stale.id()));
        assert_eq!(known, "0", "a transaction that was ended commits nothing");
        // It works again.
        let url = cluster.url(1);
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            let mut client = client(&url, &admin).await;
            if client.publish(&bob.event(1).content(round.to_string()).sign()).await.accepted {
                break;
            }
            assert!(Instant::now() < until, "it does not write again");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
