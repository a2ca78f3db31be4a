//! A relay of this build as a process on its own core, over its own store.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use tempfile::TempDir;

/// A running relay; dropping the value ends it.
pub struct RelayProcess {
    pub port: u16,
    child: Child,
    _dir: TempDir,
}

impl RelayProcess {
    /// Starts a relay over an empty store.
    pub fn start() -> Self {
        Self::over(TempDir::new_in(scratch()).unwrap())
    }

    /// Starts a relay over the store in `dir`/data.
    pub fn over(dir: TempDir) -> Self {
        Self::start_with(dir, "", None)
    }

    /// Starts a relay over an empty store, with lines of the gateway's section.
    pub fn with_gateway(gateway: &str) -> Self {
        Self::start_with(TempDir::new_in(scratch()).unwrap(), gateway, None)
    }

    /// Starts a relay over a shared database, given by lines of the gateway's section and an environment variable.
    pub fn over_shared(gateway: &str, variable: Option<(&str, &str)>) -> Self {
        Self::start_with(TempDir::new_in(scratch()).unwrap(), gateway, variable)
    }

    fn start_with(dir: TempDir, gateway: &str, variable: Option<(&str, &str)>) -> Self {
        let rates = "[extensions.mls_gateway.rate_limits]\nmax_events_per_minute = 0\nmax_keypackages_per_hour = 0\n\
                     max_group_messages_per_minute = 0\nmax_read_cost_per_minute = 0\n";
        let server = "connections_per_address_max = 0\nhandshakes_per_minute_max = 0\n";
        Self::start_from(dir, server, &format!("{gateway}\n{rates}"), variable)
    }

    /// Starts a relay with its default limits over the store that `gateway` names, or over an embedded one in `dir`.
    pub fn with_limits(dir: TempDir, gateway: &str, variable: Option<(&str, &str)>) -> Self {
        Self::start_from(dir, "", gateway, variable)
    }

    fn start_from(dir: TempDir, server: &str, gateway: &str, variable: Option<(&str, &str)>) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = dir.path().join("rnostr.toml");
        let text = format!(
            "[server]\nport = {port}\nworkers = 1\n{server}[data]\npath = {:?}\n\
             [extensions.mls_gateway]\n{gateway}\n",
            dir.path().join("data")
        );
        fs::write(&config, text).unwrap();
        let child = Command::new("taskset")
            .args(["-c", "0", env!("CARGO_BIN_EXE_rnostr"), "relay", "-c"])
            .arg(&config)
            .env("RUST_LOG", "warn")
            .envs(variable)
            .stdout(Stdio::null())
            .spawn()
            .expect("taskset (util-linux) is installed");
        let relay = Self { port, child, _dir: dir };
        let started = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(30), "the relay did not start");
            std::thread::sleep(Duration::from_millis(20));
        }
        relay
    }

    /// CPU time that the relay has used so far, user and system.
    pub fn cpu(&self) -> Duration {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        // Linux counts in hundredths of a second, independently of the kernel's own tick.
        Duration::from_millis(ticks * 10)
    }

    /// Resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Directory for the stores of a benchmark: on a disk, and not in memory.
pub fn scratch() -> PathBuf {
    let dir = std::env::var_os("CARGO_TARGET_TMPDIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_rnostr")).parent().unwrap().join("bench"), PathBuf::from);
    fs::create_dir_all(&dir).unwrap();
    dir
}
