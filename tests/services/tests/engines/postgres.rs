//! PostgreSQL.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::Path,
    time::{Duration, Instant},
};

use rnostr_test_services::{Options, Postgres, Tls, require};

use crate::support::{MOMENT, WAIT, all_end, family, lives};

/// Longest time for making a database. On an idle machine it takes less.
const CREATE_MAX: Duration = Duration::from_secs(2);

#[test]
fn answers_and_recovers_its_commits() {
    let Some(()) = require(Postgres::available()) else { return };
    let mut postgres = Postgres::start(Options::durable());
    let url = postgres.create_database();
    assert_eq!(postgres.psql(&url, "select 1").unwrap(), "1");
    assert_eq!(postgres.psql(&url, "show fsync").unwrap(), "on");
    assert_eq!(postgres.psql(&url, "show max_connections").unwrap(), "300");
    postgres.psql(&url, "create table t as select generate_series(1, 1000) as n").unwrap();

    let before = family(postgres.pid().unwrap());
    postgres.stop_immediate();
    all_end(&before);
    assert_eq!(postgres.pid(), None);
    assert!(postgres.psql(&url, "select 1").unwrap_err().contains("refused"));

    postgres.restart();
    assert_eq!(postgres.psql(&url, "select count(*) from t").unwrap(), "1000");
    let first = postgres.pid();
    postgres.restart();
    assert_ne!(postgres.pid(), first, "a running server is stopped first");
    assert_eq!(postgres.psql(&url, "select count(*) from t").unwrap(), "1000");

    let folder = folder(&postgres);
    assert!(Path::new(&folder).exists());
    let after = family(postgres.pid().unwrap());
    drop(postgres);
    all_end(&after);
    assert!(!Path::new(&folder).exists());
}

#[test]
fn pauses_and_resumes() {
    let Some(()) = require(Postgres::available()) else { return };
    let mut postgres = Postgres::start(Options::fast());
    let url = postgres.url("postgres");
    postgres.pause();
    let mut stream = TcpStream::connect(postgres.address()).unwrap();
    // A server without TLS answers an SSLRequest by N.
    stream.write_all(&[0, 0, 0, 8, 4, 210, 22, 47]).unwrap();
    stream.set_read_timeout(Some(MOMENT)).unwrap();
    assert!(stream.read_exact(&mut [0]).is_err(), "a suspended server answers nothing");
    postgres.resume();
    stream.set_read_timeout(Some(WAIT)).unwrap();
    let mut answer = [0];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"N");
    postgres.pause();
    postgres.resume();
    assert_eq!(postgres.psql(&url, "select 1").unwrap(), "1");

    postgres.pause();
    let all = family(postgres.pid().unwrap());
    drop(postgres);
    all_end(&all);
}

#[test]
fn databases_are_made_copied_and_dropped() {
    let Some(()) = require(Postgres::shared_available()) else { return };
    let postgres = Postgres::shared();
    let began = Instant::now();
    let one = postgres.create_database();
    assert!(began.elapsed() < CREATE_MAX, "{:?}", began.elapsed());
    postgres.psql(&one, "create table t as select 7 as n").unwrap();
    let (two, three) = (postgres.create_database_from(&one), postgres.create_database());
    assert_eq!(postgres.psql(&two, "select n from t").unwrap(), "7");
    assert!(postgres.psql(&three, "select n from t").unwrap_err().contains("does not exist"));

    let name = one.rsplit('/').next().unwrap();
    assert_eq!(postgres.psql(&postgres.socket_url(name), "select n from t").unwrap(), "7");
    for url in [&one, &two, &three] {
        postgres.drop_database(url);
        assert!(postgres.psql(url, "select 1").unwrap_err().contains("does not exist"));
    }
    assert!(std::ptr::eq(postgres, Postgres::shared()));
}

#[test]
fn a_password_is_asked_for() {
    let Some(()) = require(Postgres::available()) else { return };
    let postgres = Postgres::start(Options::fast().with_password("s3cret").with_setting("work_mem", "3MB"));
    let url = postgres.create_database();
    assert!(url.starts_with("postgres://rnostr:s3cret@127.0.0.1:"), "{url}");
    assert_eq!(postgres.psql(&url, "show work_mem").unwrap(), "3MB");
    let hashes = "select rolpassword like 'SCRAM-SHA-256$%' from pg_authid where rolname = 'rnostr'";
    assert_eq!(postgres.psql(&url, hashes).unwrap(), "t");
    let by_socket = postgres.socket_url("postgres");
    assert_eq!(postgres.psql(&by_socket, "select 1").unwrap(), "1");
    for right in [url, by_socket] {
        let wrong = right.replace("s3cret", "wrong");
        assert!(postgres.psql(&wrong, "select 1").unwrap_err().contains("password authentication failed"));
    }
}

#[test]
fn tls_is_spoken_and_can_be_required() {
    let Some(()) = require(Postgres::available()) else { return };
    let files = tempfile();
    let signed = rcgen::generate_simple_self_signed(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
    let (certificate, key) = (files.join("tls.crt"), files.join("tls.key"));
    fs::write(&certificate, signed.cert.pem()).unwrap();
    fs::write(&key, signed.signing_key.serialize_pem()).unwrap();

    let tls = Tls { certificate: certificate.clone(), key, required: true };
    let postgres = Postgres::start(Options::fast().with_tls(tls));
    let url = postgres.create_database();
    let is_on = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    assert_eq!(postgres.psql(&format!("{url}?sslmode=require"), is_on).unwrap(), "t");
    let full = format!("{url}?sslmode=verify-full&sslrootcert={}", certificate.display());
    assert_eq!(postgres.psql(&full, is_on).unwrap(), "t");
    assert!(postgres.psql(&format!("{url}?sslmode=disable"), is_on).unwrap_err().contains("no encryption"));
    fs::remove_dir_all(files).unwrap();
}

#[test]
fn two_run_side_by_side() {
    let Some(()) = require(Postgres::available()) else { return };
    let (one, two) = std::thread::scope(|scope| {
        let one = scope.spawn(|| Postgres::start(Options::fast()));
        let two = Postgres::start(Options::fast());
        (one.join().unwrap(), two)
    });
    assert_ne!(one.address(), two.address());
    let pid = two.pid().unwrap();
    drop(one);
    assert!(lives(pid));
    assert_eq!(two.psql(&two.url_at(&two.address(), "postgres"), "select 1").unwrap(), "1");
}

/// The folder with the server's socket.
fn folder(postgres: &Postgres) -> String {
    let url = postgres.socket_url("postgres");
    url.split_once("host=").unwrap().1.split('&').next().unwrap().to_owned()
}

fn tempfile() -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(rnostr_test_services::unique("rnostr-tls-"));
    fs::create_dir(&folder).unwrap();
    folder
}
