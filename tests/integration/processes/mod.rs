//! Relays as processes of their own over one database: what they do to each other, and what is left when one of them, or
//! what they stand on, dies.

mod death;
mod latency;
mod load;
mod removal;

use std::path::Path;

use rnostr_test_services as services;
use tempfile::TempDir;

use crate::support::process::{Line, Process};

const GATEWAY: &str = "extensions.mls_gateway";

/// Lines for relays that wake each other over Redis.
fn by_redis(url: &str) -> [(&'static str, String); 2] {
    [(GATEWAY, "wake = \"redis\"".to_owned()), (GATEWAY, format!("redis_url = \"{url}\""))]
}

/// Relays over one database.
struct Cluster {
    lines: Vec<(&'static str, String)>,
    directories: Vec<TempDir>,
    /// `None` while it is dead.
    processes: Vec<Option<Process>>,
}

impl Cluster {
    /// So many relays over the PostgreSQL database at `url`, with these lines beside.
    fn over_postgres(count: usize, url: &str, lines: &[(&'static str, String)]) -> Self {
        let mut all = vec![
            (GATEWAY, "storage_backend = \"cloudsql\"".to_owned()),
            (GATEWAY, format!("database_url = \"{url}\"")),
            (GATEWAY, "max_connections = 4".to_owned()),
        ];
        all.extend_from_slice(lines);
        Self::start(count, all)
    }

    fn start(count: usize, lines: Vec<(&'static str, String)>) -> Self {
        let mut cluster = Self { lines, directories: Vec::new(), processes: Vec::new() };
        for n in 0..count {
            cluster.directories.push(tempfile::tempdir().expect("a directory"));
            cluster.processes.push(None);
            cluster.revive(n, 0);
        }
        cluster
    }

    fn lines(&self) -> Vec<Line<'_>> {
        self.lines.iter().map(|(section, line)| (*section, line.as_str())).collect()
    }

    /// Starts a dead one, on this port; 0 takes a free one.
    fn revive(&mut self, n: usize, port: u16) {
        let port = format!("port = {port}");
        let mut lines = self.lines();
        lines.push(("server", &port));
        let directory: &Path = self.directories[n].path();
        let process = Process::start(directory, &lines);
        self.processes[n] = Some(process);
    }

    /// SIGKILL; the port on which it was.
    fn kill(&mut self, n: usize) -> u16 {
        let process = self.processes[n].take().expect("it lives");
        let port = process.address.port();
        process.kill();
        port
    }

    fn url(&self, n: usize) -> String {
        self.processes[n].as_ref().expect("it lives").url.clone()
    }
}

/// A database of the server that all tests share, taken away at the end.
struct Database(String);

impl Database {
    fn new() -> Option<Self> {
        services::require(services::Postgres::shared_available())?;
        Some(Self(services::Postgres::shared().create_database()))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        services::Postgres::shared().drop_database(&self.0);
    }
}
