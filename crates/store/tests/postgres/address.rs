//! Addresses of databases, and refusals.

use std::sync::Arc;

use nostr_extensions::gate::Touches;
use nostr_store::{
    OpenError, Store as _,
    postgres::{Options, Postgres},
    suite::world::group,
};
use rnostr_test_services as services;

use super::{Database, OPTIONS};

async fn refusal(url: &str) -> String {
    match Postgres::open(url, OPTIONS).await {
        Ok(_) => panic!("it opened"),
        Err(error) => error.to_string(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_processes_start_at_once_on_an_empty_database() {
    let Some(database) = Database::new() else { return };
    let url = Arc::new(database.0.clone());
    let starting = (0..10).map(|_| {
        let url = Arc::clone(&url);
        tokio::spawn(async move { Postgres::open(&url, Options { connections_max: 1, notifies: false }).await })
    });
    for started in futures_util::future::join_all(starting).await {
        started.expect("no panic").expect("it opens");
    }
    let sql = |sql: &str| services::Postgres::shared().psql(&database.0, sql).expect("psql");
    assert_eq!(sql("select version from rnostr.schema_version"), "14");
    assert_eq!(sql("select count(*) from rnostr.log"), "1");
}

#[tokio::test]
async fn tables_of_the_first_release_are_brought_up_to_date() {
    let Some(database) = Database::new() else { return };
    let sql = |sql: &str| services::Postgres::shared().psql(&database.0, sql).expect("psql");
    drop(database.open().await);
    // The tables of the first release, with a key whose events were removed together with its request.
    sql("alter table rnostr.vanished drop column pending, drop column prefixes");
    sql("drop table rnostr.commits");
    sql("drop table rnostr.removed");
    sql("drop table rnostr.member_counts");
    sql("alter table rnostr.members drop column invited_at, drop column invited_by");
    sql("alter table rnostr.groups drop column founder");
    sql("alter table rnostr.events drop column touched_groups");
    sql("drop table rnostr.removed_touches");
    sql("drop table rnostr.used_once, rnostr.ledgers, rnostr.receipts, rnostr.histories, rnostr.records");
    sql("drop index rnostr.events_received");
    // Entries of the log that name the group of a gift wrap, and stand for any group.
    for (cursor, touches_group, flags) in [(1, "'club'", 0), (2, "null", 4), (3, "null", 0)] {
        sql(&format!(
            "insert into rnostr.events (cursor, id, author, kind, created_at, received_at, flags, touches_group, \
                prefixes, routes, record) values ({cursor}, decode(repeat('0{cursor}', 32), 'hex'), \
                decode(repeat('02', 32), 'hex'), 1059, 1, 1, {flags}, {touches_group}, '{{}}', '{{}}', '')"
        ));
    }
    sql("update rnostr.log set head = 3");
    sql("insert into rnostr.members values ('a', decode(repeat('02', 32), 'hex'), true), \
        ('b', decode(repeat('02', 32), 'hex'), false)");
    sql("update rnostr.schema_version set version = 1");
    sql("insert into rnostr.vanished values (decode(repeat('01', 32), 'hex'), 1)");
    let store = database.open().await;
    assert_eq!(sql("select version from rnostr.schema_version"), "14");
    let log = store.after(0, 10).await.expect("the log");
    let touches: Vec<Touches> = log.entries.into_iter().map(|entry| entry.touches).collect();
    assert_eq!(touches, [Touches::groups([group("club")]), Touches::EveryGroup, Touches::Nothing]);
    assert_eq!(sql("select count(*) from rnostr.vanished where not pending"), "1");
    // Nobody loses a membership: each counts as acted in.
    assert_eq!(sql("select memberships, invited from rnostr.member_counts"), "2|0");
    assert_eq!(sql("select count(*) from rnostr.members where invited_at is null"), "2");
}

#[tokio::test]
async fn tables_of_a_newer_release_are_refused() {
    let Some(database) = Database::new() else { return };
    drop(database.open().await);
    services::Postgres::shared().psql(&database.0, "update rnostr.schema_version set version = 99").expect("psql");
    let refused = Postgres::open(&database.0, OPTIONS).await.expect_err("it is newer");
    assert!(matches!(refused, OpenError::Refused(_)));
    assert!(refused.to_string().contains("version 99, made by a newer release"), "{refused}");
}

#[tokio::test]
async fn a_database_that_takes_no_writes_is_not_opened() {
    let Some(database) = Database::new() else { return };
    drop(database.open().await);
    let server = services::Postgres::shared();
    let name = database.0.rsplit('/').next().expect("a name");
    let name = name.split('?').next().expect("a name");
    let only_read = format!("alter database \"{name}\" set default_transaction_read_only = on");
    server.psql(&database.0, &only_read).expect("psql");
    let refused = Postgres::open(&database.0, OPTIONS).await.expect_err("a standby has not all that was acknowledged");
    assert!(matches!(&refused, OpenError::Unreachable(text) if text.contains("writes")), "{refused}");
}

#[tokio::test]
async fn no_text_tells_the_password() {
    let Some(()) = services::require(services::Postgres::available()) else { return };
    let server = services::Postgres::start(services::Options::fast().with_password("correct-horse"));
    let right = server.create_database();
    let wrong = right.replace("correct-horse", "s3kret%21pass");
    assert_ne!(right, wrong);
    let refused = Postgres::open(&wrong, OPTIONS).await.expect_err("the password is wrong");
    assert!(matches!(refused, OpenError::Refused(_)), "another password does not come by itself: {refused}");
    for text in [refused.to_string(), format!("{refused:?}"), refusal("postgres://u:s3kret!pass@127.0.0.1:1/db").await]
    {
        assert!(!text.contains("s3kret") && !text.contains("correct-horse"), "{text}");
        assert!(text.contains("127.0.0.1"), "it says which server: {text}");
    }
    // An unescaped @ ends the password in a URL.
    let text = refusal("postgres://u:s3@kret@127.0.0.1:1/db").await;
    assert!(text.contains("%40") && !text.contains("kret"), "{text}");
    let open = Postgres::open(&right, OPTIONS).await.expect("the password is right");
    assert!(!format!("{open:?}").contains("correct-horse"));
    for bad in
        ["postgres://u:s3kret@h:port/db", "s3kret", "postgres://u:s3kret@h/db?sslmode=best", "postgres:///s3kret?x=1"]
    {
        let text = refusal(bad).await;
        assert!(!text.contains("s3kret"), "{text}");
    }
}

#[tokio::test]
async fn a_socket_leads_there_too() {
    let Some(()) = services::require(services::Postgres::available()) else { return };
    let server = services::Postgres::start(services::Options::fast());
    let url = server.create_database();
    let name = url.rsplit('/').next().expect("a name");
    let by_socket = server.socket_url(name);
    Postgres::open(&by_socket, OPTIONS).await.expect("it opens");
    // Cloud SQL's directories have colons in their names, and are mounted under a short path.
    let folder = by_socket.split_once("host=").and_then(|(_, rest)| rest.split('&').next()).expect("a folder");
    let mounted = tempfile::Builder::new().prefix("sql").tempdir_in("/tmp").expect("a directory");
    let instance = mounted.path().join("project:us-central1:relay");
    std::os::unix::fs::symlink(folder, &instance).expect("a link");
    let by_instance = by_socket.replace(folder, &instance.to_string_lossy());
    assert_ne!(by_instance, by_socket);
    Postgres::open(&by_instance, OPTIONS).await.expect("it opens");
}

#[tokio::test]
async fn tls_is_as_strict_as_sslmode_says() {
    let Some(()) = services::require(services::Postgres::available()) else { return };
    let folder = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    };
    // A self-signed certificate for a name other than the server's.
    let own = rcgen::generate_simple_self_signed(["db.example".to_owned()]).expect("a certificate");
    let other = rcgen::generate_simple_self_signed(["db.example".to_owned()]).expect("a certificate");
    let certificate = file("own.pem", &own.cert.pem());
    let key = file("own.key", &own.signing_key.serialize_pem());
    let stranger = file("other.pem", &other.cert.pem());
    let tls = services::Tls { certificate: certificate.clone(), key, required: true };
    let server = services::Postgres::start(services::Options::fast().with_tls(tls));
    let url = server.create_database();
    let with = |parameters: String| format!("{url}?{parameters}");
    Postgres::open(&with("sslmode=require".into()), OPTIONS).await.expect("whoever it is");
    Postgres::open(&url, OPTIONS).await.expect("where the server offers it");
    let own = certificate.display();
    Postgres::open(&with(format!("sslmode=verify-ca&sslrootcert={own}")), OPTIONS).await.expect("it is signed so");
    for strict in [
        "sslmode=disable".to_owned(),
        format!("sslmode=verify-full&sslrootcert={own}"),
        format!("sslmode=verify-ca&sslrootcert={}", stranger.display()),
        format!("sslmode=require&sslrootcert={}", stranger.display()),
        "sslmode=verify-full".to_owned(),
        "sslmode=verify-ca&sslrootcert=/no/such/file.pem".to_owned(),
    ] {
        refusal(&with(strict)).await;
    }
}
