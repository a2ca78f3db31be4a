//! Relays as processes over one database: their effects on each other, and the state after one of them, or the
//! database, has died.
//!
//! The database is PostgreSQL, or Firestore if `RNOSTR_TEST_BACKEND` says so.

mod death;
mod faults;
mod latency;
mod load;
mod removal;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use rnostr_test_services as services;
use tempfile::TempDir;

use crate::support::{
    backend,
    process::{Line, Process},
};

const GATEWAY: &str = "extensions.mls_gateway";

/// A line of the configuration and its section.
type Setting = (&'static str, String);

fn gateway(line: impl Into<String>) -> Setting {
    (GATEWAY, line.into())
}

/// Settings by which relays reach the database that they share.
struct StoreConfig {
    settings: Vec<Setting>,
    /// Environment of the relays, as `NAME=value`.
    variables: Vec<String>,
    /// Drops the database with this value.
    _database: Option<Database>,
}

impl StoreConfig {
    /// A new database; `None` if the engine is missing and the tests may run without it.
    fn new() -> Option<Self> {
        if is_firestore() {
            services::require(services::FirestoreEmulator::shared_available())?;
            let emulator = services::FirestoreEmulator::shared();
            return Some(Self::firestore(&emulator.host(), &emulator.project()));
        }
        Self::new_postgres()
    }

    fn new_postgres() -> Option<Self> {
        services::require(services::Postgres::shared_available())?;
        let database = Database(services::Postgres::shared().create_database());
        let store = Self::postgres(&database.0);
        Some(Self { _database: Some(database), ..store })
    }

    fn postgres(url: &str) -> Self {
        let settings = vec![
            gateway("storage_backend = \"cloudsql\""),
            gateway(format!("database_url = \"{url}\"")),
            gateway("max_connections = 4"),
        ];
        Self { settings, variables: Vec::new(), _database: None }
    }

    /// URL of the database that this value made.
    fn database(&self) -> &str {
        &self._database.as_ref().expect("it was made for this test").0
    }

    fn firestore(host: &str, project: &str) -> Self {
        let settings = vec![gateway("storage_backend = \"firestore\""), gateway(format!("project_id = \"{project}\""))];
        Self { settings, variables: vec![format!("FIRESTORE_EMULATOR_HOST={host}")], _database: None }
    }

    fn with(mut self, settings: impl IntoIterator<Item = Setting>) -> Self {
        self.settings.extend(settings);
        self
    }

    /// Makes the relays notify each other over Redis.
    fn with_redis(self, url: &str) -> Self {
        self.with([gateway("wake = \"redis\""), gateway(format!("redis_url = \"{url}\""))])
    }
}

fn is_firestore() -> bool {
    backend::name() == "firestore"
}

/// Relays over one database.
struct Cluster {
    store: StoreConfig,
    directories: Vec<TempDir>,
    /// `None` while the process is dead.
    processes: Vec<Option<Process>>,
    /// Seconds by which each relay's clock is ahead.
    shifts: Vec<i64>,
}

impl Cluster {
    /// Starts `count` relays.
    fn start(count: usize, store: StoreConfig) -> Self {
        Self::start_at(&vec![0; count], store)
    }

    /// Starts relays whose clocks are so many seconds ahead. Those that are not wrong at the start stay right.
    fn start_at(shifts: &[i64], store: StoreConfig) -> Self {
        let shifts = shifts.to_vec();
        let mut cluster = Self { store, directories: Vec::new(), processes: Vec::new(), shifts };
        for n in 0..cluster.shifts.len() {
            cluster.directories.push(tempfile::tempdir().expect("a directory"));
            cluster.processes.push(None);
            cluster.revive(n, 0);
        }
        cluster
    }

    /// Starts a dead relay on this port; 0 takes a free port.
    fn revive(&mut self, n: usize, port: u16) {
        let port = format!("port = {port}");
        let mut lines: Vec<Line<'_>> =
            self.store.settings.iter().map(|(section, line)| (*section, line.as_str())).collect();
        lines.push(("server", &port));
        let clock = self.clock(n);
        let wrong = Some(self.shifts[n]).filter(|secs| *secs != 0).map(|secs| {
            services::Faketime::set(&clock, secs);
            services::Faketime::words(&clock)
        });
        let words = self.store.variables.iter().chain(wrong.iter().flatten()).map(String::as_str);
        let by: Vec<&str> = std::iter::once("env").chain(words).collect();
        let directory: &Path = self.directories[n].path();
        let process = Process::start_by(&by, directory, &lines);
        self.processes[n] = Some(process);
    }

    /// The file that says how wrong a relay's clock is.
    fn clock(&self, n: usize) -> PathBuf {
        self.directories[n].path().join("clock")
    }

    /// Sets the clock of a running relay that was started with a wrong one.
    fn set_clock(&self, n: usize, secs: i64) {
        assert_ne!(self.shifts[n], 0, "it was started without faketime");
        services::Faketime::set(&self.clock(n), secs);
    }

    /// Kills a relay by SIGKILL and returns its port.
    fn kill(&mut self, n: usize) -> u16 {
        let process = self.processes[n].take().expect("it lives");
        let port = process.address.port();
        process.kill();
        port
    }

    /// Sends a relay the signal of this name.
    fn signal(&self, n: usize, name: &str) {
        self.processes[n].as_ref().expect("it lives").signal(name);
    }

    fn address(&self, n: usize) -> SocketAddr {
        self.processes[n].as_ref().expect("it lives").address
    }

    fn url(&self, n: usize) -> String {
        self.processes[n].as_ref().expect("it lives").url.clone()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (n, process) in self.processes.iter().enumerate() {
                let log = process.as_ref().map(Process::log).unwrap_or_default();
                println!("the log of relay {n}:\n{log}");
            }
        }
    }
}

/// A database of the server that all tests share; it is dropped with the value.
struct Database(String);

impl Drop for Database {
    fn drop(&mut self) {
        services::Postgres::shared().drop_database(&self.0);
    }
}
