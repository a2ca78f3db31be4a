//! Relay of one test, with a free loopback port, a configuration file and a temporary data directory.
//!
//! `RNOSTR_TEST_STORE` may hold lines for `[extensions.mls_gateway]` that name a shared store. The relay then is
//! `RNOSTR_TEST_INSTANCES` processes over that store, and each new client connects to the next process.
//!
//! Dropping a relay stops its processes by SIGTERM. When the test has failed, it also prints the end of their logs.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nostr::{PublicKey, RelayUrl};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;

use crate::WAIT;

/// Time between two checks whether the relay has started or ended.
const POLL: Duration = Duration::from_millis(20);
/// Longest time from SIGTERM to the end of a process.
const STOP_WAIT: Duration = Duration::from_secs(10);
/// Most ports to try, because another process may take a free port before the relay binds it.
const PORT_ATTEMPTS: usize = 3;
/// Most lines of the log that a failed test prints.
const LOG_LINES: usize = 40;

/// Settings in the configuration file beyond address and directory.
#[derive(Debug, Clone, Copy, Default)]
pub struct Settings {
    /// `[auth] enabled`: the relay answers nothing before NIP-42.
    pub auth: bool,
    /// The one key in `admin_pubkeys`.
    pub admin: Option<PublicKey>,
}

/// A running relay, of one process or of several that share a store.
#[derive(Debug)]
pub struct Relay {
    instances: Vec<Instance>,
    next: AtomicUsize,
}

impl Relay {
    /// Starts the relay and waits until `GET /health` of each process answers 200.
    ///
    /// # Panics
    /// If `RNOSTR_BIN` names no file, or the relay is not healthy in time.
    pub async fn start(settings: Settings) -> Self {
        let instances = std::env::var("RNOSTR_TEST_INSTANCES").unwrap_or_else(|_| "1".to_owned());
        let count: usize = instances.parse().expect("RNOSTR_TEST_INSTANCES is a number");
        let mut instances = Vec::new();
        for _ in 0..count {
            instances.push(Instance::start(settings).await);
        }
        Self { instances, next: AtomicUsize::new(0) }
    }

    /// The URL for the next client. NIP-42 names the relay by this URL too.
    pub fn url(&self) -> RelayUrl {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let port = self.instances[next % self.instances.len()].port;
        RelayUrl::parse(&format!("ws://127.0.0.1:{port}")).expect("a URL of these parts is valid")
    }
}

/// A process of the relay.
#[derive(Debug)]
struct Instance {
    process: Child,
    port: u16,
    directory: TempDir,
}

impl Instance {
    async fn start(settings: Settings) -> Self {
        let binary = binary();
        for _ in 0..PORT_ATTEMPTS {
            let mut relay = Self::spawn(&binary, settings);
            match relay.wait_until_healthy().await {
                Ok(()) => return relay,
                Err(_) if TcpListener::bind(("127.0.0.1", relay.port)).is_err() => continue,
                Err(reason) => panic!("the relay did not start: {reason}"),
            }
        }
        panic!("no port stayed free for the relay in {PORT_ATTEMPTS} attempts");
    }

    fn spawn(binary: &Path, settings: Settings) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let port = free_port();
        let config = directory.path().join("rnostr.toml");
        let text = config_text(settings, port, &directory.path().join("data"));
        fs::write(&config, text).expect("the configuration is written");
        let log = File::create(directory.path().join("log")).expect("the log is created");
        let process = Command::new(binary)
            .args(["relay", "-c"])
            .arg(&config)
            .current_dir(directory.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("the log has two writers"))
            .stderr(log)
            .spawn()
            .unwrap_or_else(|error| panic!("{} does not run: {error}", binary.display()));
        Self { process, port, directory }
    }

    async fn wait_until_healthy(&mut self) -> Result<(), String> {
        let deadline = Instant::now() + WAIT;
        while Instant::now() < deadline {
            if let Some(status) = self.ended() {
                return Err(format!("it ended with {status}"));
            }
            if is_healthy(self.port).await {
                return Ok(());
            }
            sleep(POLL).await;
        }
        Err(format!("GET /health was not 200 within {WAIT:?}"))
    }

    fn ended(&mut self) -> Option<ExitStatus> {
        self.process.try_wait().expect("the process is our child and not yet reaped")
    }

    fn stop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        let _ = kill_process(Pid::from_child(&self.process), Signal::TERM);
        let deadline = Instant::now() + STOP_WAIT;
        while Instant::now() < deadline {
            if self.ended().is_some() {
                return;
            }
            std::thread::sleep(POLL);
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
        if !std::thread::panicking() {
            panic!("the relay was still running {STOP_WAIT:?} after SIGTERM");
        }
    }

    fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.stop();
        if std::thread::panicking() {
            eprintln!("--- end of the relay's log\n{}", self.log_tail());
        }
    }
}

fn binary() -> PathBuf {
    let path = std::env::var_os("RNOSTR_BIN")
        .map(PathBuf::from)
        .expect("set RNOSTR_BIN to the relay's binary, e.g. RNOSTR_BIN=$PWD/target/debug/rnostr");
    path.canonicalize().unwrap_or_else(|error| panic!("RNOSTR_BIN={}: {error}", path.display()))
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("loopback has a free port")
        .port()
}

fn config_text(settings: Settings, port: u16, data: &Path) -> String {
    let mut text = format!(
        "[server]\nhost = \"127.0.0.1\"\nport = {port}\n\n\
         [data]\npath = \"{}\"\n\n\
         [auth]\nenabled = {}\n\n\
         [extensions.mls_gateway]\nunlisted_groups = true\ncommit_ordering = \"strict\"\n",
        data.display(),
        settings.auth,
    );
    if let Ok(store) = std::env::var("RNOSTR_TEST_STORE") {
        writeln!(text, "{store}").expect("writing to a string does not fail");
    }
    if let Some(admin) = settings.admin {
        writeln!(text, "admin_pubkeys = [\"{}\"]", admin.to_hex()).expect("writing to a string does not fail");
    }
    text
}

async fn is_healthy(port: u16) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let request = format!("GET /health HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await?;
        Ok::<_, std::io::Error>(&answer == b"HTTP/1.1 200")
    };
    let answer = tokio::time::timeout(Duration::from_secs(2), ask).await;
    matches!(answer, Ok(Ok(true)))
}
