//! A relay in this process.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use nostr_relay::{Relay, app::App, clock::SetClock, config::Config};
use nostr_store::{
    Store,
    embedded::{Embedded, Options},
    memory::Memory,
};
use tempfile::TempDir;

use super::{event::now, shared::Shared};

/// Address space of a test's store.
const MAP_BYTES_MAX: u64 = 1 << 30;
/// Longest wait for something that must come.
pub const WAIT: Duration = Duration::from_secs(20);

/// A relay that listens on a free port of this machine, with a store and a clock of its own.
pub struct TestRelay {
    /// `ws://127.0.0.1:PORT`
    pub url: String,
    /// `http://127.0.0.1:PORT`
    pub http: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its clock: the machine's time at the start, and then as it is set.
    pub clock: Arc<SetClock>,
    relay: Relay,
    directory: Option<TempDir>,
}

impl TestRelay {
    /// A relay over a fresh embedded store. Rates are without limit and the port is free, unless `configure` says
    /// otherwise.
    pub async fn start(configure: impl FnOnce(&mut Config)) -> Self {
        // Every suite keeps what it promises over a store that is shared as well.
        if std::env::var_os("TEST_SHARED_STORE").is_some() {
            return Self::start_over(Shared::new().instance().0, configure).await;
        }
        let directory = directory();
        let mut relay = Self::start_in(directory.path(), configure).await;
        relay.directory = Some(directory);
        relay
    }

    /// A relay over the embedded store in `directory`, which outlives it.
    pub async fn start_in(directory: &Path, configure: impl FnOnce(&mut Config)) -> Self {
        let options = Options { map_bytes_max: MAP_BYTES_MAX, ..Options::default() };
        let store = Embedded::open(directory, options).expect("the store opens");
        Self::start_over(Arc::new(store), configure).await
    }

    /// A relay over the store in memory.
    pub async fn with_memory(configure: impl FnOnce(&mut Config)) -> Self {
        Self::start_over(Arc::new(Memory::default()), configure).await
    }

    /// A relay over `store`.
    pub async fn start_over(store: Arc<dyn Store>, configure: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.server.port = 0;
        config.mls_gateway.rate_limits.max_events_per_minute = 0;
        config.mls_gateway.rate_limits.max_keypackages_per_hour = 0;
        config.mls_gateway.rate_limits.max_group_messages_per_minute = 0;
        configure(&mut config);
        let clock = Arc::new(SetClock::at(now()));
        let relay = Relay::start(Arc::new(config), store, Arc::<SetClock>::clone(&clock)).await;
        let relay = relay.expect("the relay starts");
        let address = relay.address;
        Self {
            url: format!("ws://{address}"),
            http: format!("http://{address}"),
            address,
            clock,
            relay,
            directory: None,
        }
    }

    /// The relay's parts.
    pub const fn app(&self) -> &Arc<App> {
        self.relay.app()
    }

    /// The relay's time.
    pub fn now(&self) -> u64 {
        nostr_relay::clock::Clock::now(&*self.clock)
    }

    /// Moves the relay's clock on.
    pub fn advance(&self, secs: u64) {
        self.clock.set(self.now() + secs);
    }

    /// Waits until everything committed so far has been delivered.
    pub async fn caught_up(&self) {
        caught_up(self.app()).await;
    }

    /// Stops the relay as a signal does.
    pub async fn stop(self) {
        self.relay.stop().await;
    }
}

/// See [`TestRelay::caught_up`].
pub async fn caught_up(app: &App) {
    let head = app.store.head();
    let reached = async {
        while app.live.cursor() < head {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    };
    tokio::time::timeout(WAIT, reached).await.expect("live delivery reaches the head of the log");
}

/// A directory in memory where the machine has one: what is durable is not what these tests ask.
fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.or_else(|_| tempfile::tempdir()).expect("a directory")
}
