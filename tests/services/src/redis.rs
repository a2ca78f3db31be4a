//! Redis: a server that was started here, or one that the environment names.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::PathBuf,
    sync::OnceLock,
    time::Duration,
};

use rustix::process::Signal;

use crate::{
    engine::{Engine, Look, Recipe},
    folder::{self, Medium},
    given, programs,
    url::Url,
};

/// Variable with the URL of a running server.
const GIVEN: &str = "RNOSTR_TEST_REDIS";
const PROGRAM: &str = "redis-server";
const PACKAGE: &str = "redis-server";

/// A Redis server that keeps nothing on disk. Dropping this ends a server that was started here.
///
/// All databases of a server share its channels, so tests that share a server use [`unique`](crate::unique) names.
#[derive(Debug)]
pub struct Redis {
    url: Url,
    /// The engine, if it was started here.
    own: Option<Engine>,
}

impl Redis {
    /// Checks that a server can be started here.
    ///
    /// # Errors
    /// The missing program, and the package that installs it.
    pub fn available() -> Result<(), String> {
        find().map(drop)
    }

    /// Checks that [`Redis::shared`] can give a server.
    ///
    /// # Errors
    /// See [`Redis::available`].
    pub fn shared_available() -> Result<(), String> {
        if given(GIVEN).is_some() { Ok(()) } else { Self::available() }
    }

    /// The packages to install before a server can be started here.
    pub fn missing_packages() -> Vec<&'static str> {
        if Self::available().is_ok() { Vec::new() } else { vec![PACKAGE] }
    }

    /// Starts a server.
    ///
    /// # Panics
    /// When the server does not start, with its log, or is not [`Redis::available`].
    pub fn start() -> Self {
        let server = find().unwrap_or_else(|why| panic!("{why}"));
        let mut command = vec![server.into()];
        let words = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", "."];
        command.extend(words.map(Into::into));
        let recipe =
            Recipe { name: "Redis", command, port_option: "--port", port_prefix: "", ending: Signal::KILL, is_ready };
        let own = Engine::start(recipe, folder::new("rnostr-redis-", Medium::Disk, None));
        Self { url: Url::parse(&format!("redis://{}", own.address())), own: Some(own) }
    }

    /// The server that all tests of this process share: the one that `RNOSTR_TEST_REDIS` names, else one that the first
    /// call starts and that ends with the process.
    ///
    /// # Panics
    /// Like [`Redis::start`]. [`Redis::shared_available`] checks for it beforehand.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Redis> = OnceLock::new();
        SHARED.get_or_init(|| given(GIVEN).map_or_else(Self::start, |url| Self { url: Url::parse(&url), own: None }))
    }

    /// `redis://127.0.0.1:PORT/`
    pub fn url(&self) -> String {
        self.url.to_string()
    }

    /// The URL at another address, `host:port`, such as a [`Proxy`](crate::Proxy) before this server.
    pub fn url_at(&self, address: &str) -> String {
        self.url.with_address(address).to_string()
    }

    /// The server's address, `host:port`.
    pub fn address(&self) -> String {
        self.url.address.clone()
    }

    /// The server's process id; `None` when it is stopped or was not started here.
    pub fn pid(&self) -> Option<u32> {
        self.own.as_ref()?.pid()
    }

    /// Ends the server by SIGKILL.
    ///
    /// # Panics
    /// When the server was not started here.
    pub fn kill(&mut self) {
        self.own().stop();
    }

    /// Starts the server again, empty and at the same port. A running server is killed first.
    ///
    /// # Panics
    /// When the server does not start, with its log, or was not started here.
    pub fn restart(&mut self) {
        self.own().restart();
    }

    /// Suspends the server's process. The system still accepts connections for it.
    ///
    /// # Panics
    /// When the server is stopped or was not started here.
    pub fn pause(&mut self) {
        self.own().pause();
    }

    /// Lets the server run again after [`Redis::pause`].
    ///
    /// # Panics
    /// When the server is stopped or was not started here.
    pub fn resume(&mut self) {
        self.own().resume();
    }

    fn own(&mut self) -> &mut Engine {
        self.own.as_mut().expect("the environment named this server, so tests cannot stop it")
    }
}

fn find() -> Result<PathBuf, String> {
    programs::in_path(PROGRAM).ok_or_else(|| format!("{PROGRAM} is not in PATH: install the package {PACKAGE}"))
}

fn is_ready(look: &Look<'_>) -> bool {
    let ping = || -> std::io::Result<bool> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, look.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        Ok(answer.trim_end() == "+PONG")
    };
    ping().unwrap_or(false)
}
