//! A relay process, for the commands that talk to one.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Stdio},
};

use tempfile::TempDir;

use super::run::{command, spawn};

/// A relay process over a store of its own.
pub(crate) struct Relay {
    /// The directory with `relay.toml` and the store.
    pub(crate) directory: TempDir,
    /// The relay's WebSocket URL.
    pub(crate) url: String,
    child: Child,
}

impl Relay {
    /// Starts a relay on a free port; `server` are lines of `[server]`, `more` further sections.
    pub(crate) fn start(server: &str, more: &str) -> Self {
        Self::start_in(tempfile::tempdir().expect("a directory"), server, more)
    }

    /// Starts a relay in a directory that holds the files that `server` and `more` name.
    pub(crate) fn start_in(directory: TempDir, server: &str, more: &str) -> Self {
        let at = directory.path();
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let text = format!("[server]\nport = {free}\n{server}\n{more}\n");
        fs::write(at.join("relay.toml"), text).expect("it is written");
        let mut relay = command(at, &["relay", "-c", "relay.toml"]);
        let mut child = spawn(relay.stdout(Stdio::null()).stderr(Stdio::piped()));
        let lines = BufReader::new(child.stderr.take().expect("its log")).lines();
        let mut lines = lines.map(|line| line.expect("text"));
        assert!(lines.any(|line| line.contains("listening on")), "the relay does not start");
        // The relay must never wait for a reader of its log.
        std::thread::spawn(move || lines.for_each(drop));
        Self { directory, url: format!("ws://127.0.0.1:{free}"), child }
    }

    /// Kills the process and waits for its end.
    pub(crate) fn kill(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("it ends");
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
