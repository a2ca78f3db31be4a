//! A relay as a process of its own, which a test can kill.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, mpsc},
    time::{Duration, Instant},
};

use super::relay::WAIT;

/// A line of the configuration and the section in which it stands.
pub type Line<'a> = (&'a str, &'a str);

/// A running relay; killed when it is dropped.
pub struct Process {
    pub address: SocketAddr,
    pub url: String,
    child: Child,
    log: Arc<Mutex<String>>,
}

impl Process {
    /// Starts a relay with its store in `directory`, without rate limits, and waits until it listens. Lines of `config`
    /// replace the defaults.
    pub fn start(directory: &Path, config: &[Line<'_>]) -> Self {
        Self::start_by(&[], directory, config)
    }

    /// Starts the relay through another program, which must become the relay in the end.
    pub fn start_by(by: &[&str], directory: &Path, config: &[Line<'_>]) -> Self {
        let mut child = command(by, directory, config).spawn().expect("the relay starts");
        let log = Arc::new(Mutex::new(String::new()));
        let (listens, listening) = mpsc::channel();
        let lines = BufReader::new(child.stderr.take().expect("standard error is a pipe")).lines();
        let writing = Arc::clone(&log);
        // The thread reads to the end, so that the relay never waits for a full pipe.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                if let Some((_, address)) = line.split_once("listening on ws://") {
                    // A line of JSON goes on behind the address.
                    let address: String = address.chars().take_while(|it| "0123456789.:".contains(*it)).collect();
                    let _ = listens.send(address.parse());
                }
                let mut log = writing.lock().expect("no panic while it is held");
                log.push_str(&line);
                log.push('\n');
            }
        });
        let Ok(Ok(address)) = listening.recv_timeout(WAIT) else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("the relay does not listen: {}", log.lock().expect("no panic while it is held"));
        };
        Self { address, url: format!("ws://{address}"), child, log }
    }

    /// Starts a relay that must refuse to start. Returns its standard error.
    pub fn refusal(directory: &Path, config: &[Line<'_>]) -> String {
        let output = command(&[], directory, config).output().expect("the relay is run");
        assert!(!output.status.success(), "it was not to start");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the lines logged so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("no panic while it is held").clone()
    }

    /// Anonymous memory in KiB, which leaves out the store's map.
    pub fn memory_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process lives");
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("RssAnon is there");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(mut self) {
        self.child.kill().expect("it lives");
        self.child.wait().expect("it is gone");
    }

    /// Sends the signal of this name, for example `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.pid().to_string()]).status();
        assert!(sent.expect("kill is run").success());
    }

    /// Waits until the process has ended.
    pub async fn exit(&mut self, limit: Duration) -> ExitStatus {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("its state is known") {
                return status;
            }
            assert!(Instant::now() < until, "it has not ended in {limit:?}: {}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn command(by: &[&str], directory: &Path, config: &[Line<'_>]) -> Command {
    let file = write_config(directory, config);
    let mut words = by.iter().map(Into::into).chain([env!("CARGO_BIN_EXE_rnostr").into()]);
    let mut command = Command::new::<std::ffi::OsString>(words.next().expect("a program"));
    command.args(words).args(["relay", "-c"]).arg(file);
    // No variable of the environment may configure the relay.
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command
}

fn write_config(directory: &Path, config: &[Line<'_>]) -> PathBuf {
    let path = format!("path = {:?}", directory.join("data"));
    let rates = "extensions.mls_gateway.rate_limits";
    let ours = [
        ("server", "port = 0"),
        ("server", "connections_per_address_max = 0"),
        ("server", "handshakes_per_minute_max = 0"),
        ("data", &path),
        (rates, "max_events_per_minute = 0"),
        (rates, "max_keypackages_per_hour = 0"),
        (rates, "max_group_messages_per_minute = 0"),
        (rates, "max_read_cost_per_minute = 0"),
    ];
    let mut sections = BTreeMap::<&str, BTreeMap<&str, &str>>::new();
    // A test's lines replace the default ones.
    for (section, line) in ours.iter().chain(config) {
        let key = line.split_once('=').map_or(*line, |(key, _)| key.trim());
        sections.entry(section).or_default().insert(key, line);
    }
    let mut text = String::new();
    for (section, lines) in sections {
        writeln!(text, "[{section}]").expect("a string takes it");
        for line in lines.values() {
            writeln!(text, "{line}").expect("a string takes it");
        }
    }
    let file = directory.join("rnostr.toml");
    std::fs::write(&file, text).expect("the configuration is written");
    file
}
