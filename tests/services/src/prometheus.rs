//! Prometheus, which scrapes the relays of a test.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    engine::{Engine, Look, Recipe},
    folder::{self, Medium},
    programs,
};

const PROGRAM: &str = "prometheus";
const PACKAGE: &str = "prometheus";
/// Longest wait for an answer of the server.
const ANSWER: Duration = Duration::from_secs(10);

/// A Prometheus server. Dropping this ends it.
#[derive(Debug)]
pub struct Prometheus(Engine);

impl Prometheus {
    /// Checks that a server can be started here.
    ///
    /// # Errors
    /// The missing program, and the package that installs it.
    pub fn available() -> Result<(), String> {
        find().map(drop)
    }

    /// The packages to install before a server can be started here.
    pub fn missing_packages() -> Vec<&'static str> {
        if Self::available().is_ok() { Vec::new() } else { vec![PACKAGE] }
    }

    /// Starts a server with this configuration, beside which lies a copy of the file `rules`.
    ///
    /// # Panics
    /// When the server does not start, with its log, or is not [`Prometheus::available`].
    pub fn start(config: &str, rules: &Path) -> Self {
        let server = find().unwrap_or_else(|why| panic!("{why}"));
        let folder = folder::new("rnostr-prometheus-", Medium::Disk, None);
        fs::write(folder.path().join("prometheus.yml"), config).expect("a new folder can be written to");
        let name = rules.file_name().expect("the rules are a file");
        fs::copy(rules, folder.path().join(name)).expect("the rules can be read");
        let mut command = vec![server.into()];
        command.extend(["--config.file=prometheus.yml", "--storage.tsdb.path=data"].map(Into::into));
        let (port_option, port_prefix) = ("--web.listen-address", "127.0.0.1:");
        let recipe = Recipe { name: "Prometheus", command, port_option, port_prefix, ending: Signal::KILL, is_ready };
        Self(Engine::start(recipe, folder))
    }

    /// The server's address, `host:port`.
    pub fn address(&self) -> String {
        self.0.address()
    }
}

fn find() -> Result<PathBuf, String> {
    programs::in_path(PROGRAM).ok_or_else(|| format!("{PROGRAM} is not in PATH: install the package {PACKAGE}"))
}

fn is_ready(look: &Look<'_>) -> bool {
    let ask = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, look.port))?;
        stream.set_read_timeout(Some(ANSWER))?;
        stream.write_all(b"GET /-/ready HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer.contains(" 200 "))
    };
    ask().unwrap_or(false)
}
