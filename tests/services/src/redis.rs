//! Redis, a server of its own or one that is given.

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

/// Names the URL of a server that runs already.
const GIVEN: &str = "RNOSTR_TEST_REDIS";
const PROGRAM: &str = "redis-server";
const PACKAGE: &str = "redis-server";

/// A Redis server that keeps nothing on disk. One that was started here is ended when this is dropped.
///
/// Its channels are one for all databases: tests that share it keep apart by [`unique`](crate::unique) names.
#[derive(Debug)]
pub struct Redis {
    url: Url,
    /// What was started here.
    own: Option<Engine>,
}

impl Redis {
    /// Whether a server can be started here.
    ///
    /// # Errors
    /// What is missing, and the package that brings it.
    pub fn available() -> Result<(), String> {
        find().map(drop)
    }

    /// Whether [`Redis::shared`] has a server to give.
    ///
    /// # Errors
    /// See [`Redis::available`].
    pub fn shared_available() -> Result<(), String> {
        if given(GIVEN).is_some() { Ok(()) } else { Self::available() }
    }

    /// The packages that are to be installed before a server can be started here.
    pub fn missing_packages() -> Vec<&'static str> {
        if Self::available().is_ok() { Vec::new() } else { vec![PACKAGE] }
    }

    /// Starts a server.
    ///
    /// # Panics
    /// When it does not start, with its log; when it is not [`Redis::available`].
    pub fn start() -> Self {
        let server = find().unwrap_or_else(|why| panic!("{why}"));
        let mut command = vec![server.into()];
        let words = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", "."];
        command.extend(words.map(Into::into));
        let recipe = Recipe { name: "Redis", command, port_option: "--port", ending: Signal::KILL, is_ready };
        let own = Engine::start(recipe, folder::new("rnostr-redis-", Medium::Disk, None));
        Self { url: Url::parse(&format!("redis://{}", own.address())), own: Some(own) }
    }

    /// The server that all tests of this process share: the one that `RNOSTR_TEST_REDIS` names, or else one that is
    /// started now and ends with the process.
    ///
    /// # Panics
    /// As [`Redis::start`]; [`Redis::shared_available`] tells before.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Redis> = OnceLock::new();
        SHARED.get_or_init(|| given(GIVEN).map_or_else(Self::start, |url| Self { url: Url::parse(&url), own: None }))
    }

    /// `redis://127.0.0.1:PORT/`
    pub fn url(&self) -> String {
        self.url.to_string()
    }

    /// The same at another address, `host:port`, as of a [`Proxy`](crate::Proxy) before this server.
    pub fn url_at(&self, address: &str) -> String {
        self.url.with_address(address).to_string()
    }

    /// Where it listens, `host:port`.
    pub fn address(&self) -> String {
        self.url.address.clone()
    }

    /// The server's process id; none of one that is stopped or was not started here.
    pub fn pid(&self) -> Option<u32> {
        self.own.as_ref()?.pid()
    }

    /// SIGKILL.
    ///
    /// # Panics
    /// When it was not started here.
    pub fn kill(&mut self) {
        self.own().stop();
    }

    /// Starts it again, empty and at the same port, after [`Redis::kill`] if it runs.
    ///
    /// # Panics
    /// When it does not start, with its log; when it was not started here.
    pub fn restart(&mut self) {
        self.own().restart();
    }

    /// Stalls it: its process stops where it is, and the system goes on accepting connections for it.
    ///
    /// # Panics
    /// When it is stopped or was not started here.
    pub fn pause(&mut self) {
        self.own().pause();
    }

    /// Lets it go on after [`Redis::pause`].
    ///
    /// # Panics
    /// When it is stopped or was not started here.
    pub fn resume(&mut self) {
        self.own().resume();
    }

    fn own(&mut self) -> &mut Engine {
        self.own.as_mut().expect("a server that is given is not ours to stop")
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
