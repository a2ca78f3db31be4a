//! A relay in this process, as one instance or as several that share a store.

use std::{
    any::Any,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use nostr_relay::{
    Relay,
    app::App,
    config::{Config, Reading},
    system::clock::{Clock, SetClock},
};
use nostr_store::{Store, memory::Memory};

use super::{
    backend::{self, Stores},
    event::now,
};

/// Longest wait for something that must come.
pub const WAIT: Duration = Duration::from_secs(20);

/// A relay that listens on a free port of this machine, with a store and a clock of its own.
pub struct TestRelay {
    /// `ws://127.0.0.1:PORT` of the first instance.
    pub url: String,
    /// `http://127.0.0.1:PORT`
    pub http: String,
    /// Address of the first instance.
    pub address: SocketAddr,
    /// The clock of all instances: the machine's time at the start, later the time that tests set.
    pub clock: Arc<SetClock>,
    relays: Vec<Relay>,
    next: AtomicUsize,
    _keep: Box<dyn Any + Send + Sync>,
}

impl TestRelay {
    /// Starts a relay over an empty store, as many instances as the environment says. Rates are unlimited, ports are
    /// free ones, and nothing waits for AUTH, unless `configure` changes that.
    pub async fn start(configure: impl FnOnce(&mut Config)) -> Self {
        Self::start_with(backend::stores().await, configure).await
    }

    /// Starts so many instances over an empty store of this name, whatever the environment says.
    pub async fn start_on(backend: &str, instances: usize, configure: impl FnOnce(&mut Config)) -> Self {
        Self::start_with(backend::stores_of(backend, instances).await, configure).await
    }

    /// Starts one instance, independently of the environment, for limits that each instance counts by itself.
    pub async fn start_alone(configure: impl FnOnce(&mut Config)) -> Self {
        let mut stores = backend::stores().await;
        stores.stores.truncate(1);
        Self::start_with(stores, configure).await
    }

    /// Starts a relay over the embedded store in `directory`, which outlives it.
    pub async fn start_in(directory: &Path, configure: impl FnOnce(&mut Config)) -> Self {
        Self::start_over(backend::embedded(directory), configure).await
    }

    /// Starts a relay over the store in memory.
    pub async fn with_memory(configure: impl FnOnce(&mut Config)) -> Self {
        Self::start_over(Arc::new(Memory::default()), configure).await
    }

    /// Starts a relay over `store`.
    pub async fn start_over(store: Arc<dyn Store>, configure: impl FnOnce(&mut Config)) -> Self {
        Self::start_with(Stores { stores: vec![store], keep: Box::new(()) }, configure).await
    }

    /// Starts a relay over `store` on a machine whose clock is `clock`.
    pub async fn start_by(store: Arc<dyn Store>, clock: Arc<dyn Clock>, configure: impl FnOnce(&mut Config)) -> Self {
        Self::start_at(Stores { stores: vec![store], keep: Box::new(()) }, Some(clock), configure).await
    }

    async fn start_with(stores: Stores, configure: impl FnOnce(&mut Config)) -> Self {
        Self::start_at(stores, None, configure).await
    }

    async fn start_at(stores: Stores, by: Option<Arc<dyn Clock>>, configure: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.server.port = 0;
        config.auth.grace_ms = 0;
        config.server.connections_per_address_max = 0;
        config.server.handshakes_per_minute_max = 0;
        config.mls_gateway.rate_limits.max_events_per_minute = 0;
        config.mls_gateway.rate_limits.max_keypackages_per_hour = 0;
        config.mls_gateway.rate_limits.max_group_messages_per_minute = 0;
        config.mls_gateway.rate_limits.max_read_cost_per_minute = 0;
        configure(&mut config);
        let clock = Arc::new(SetClock::at(now()));
        let config = Arc::new(config);
        let mut relays = Vec::new();
        for store in stores.stores {
            let by = by.clone().unwrap_or_else(|| Arc::<SetClock>::clone(&clock));
            let relay = Relay::start(Arc::clone(&config), store, by).await;
            relays.push(relay.expect("the relay starts"));
        }
        let address = relays.first().expect("an instance").address;
        Self {
            url: format!("ws://{address}"),
            http: format!("http://{address}"),
            address,
            clock,
            relays,
            next: AtomicUsize::new(0),
            _keep: stores.keep,
        }
    }

    /// URL of the instance for the next client.
    pub(super) fn next_url(&self) -> String {
        format!("ws://{}", self.next_address())
    }

    /// Address of the instance for the next client.
    pub fn next_address(&self) -> SocketAddr {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        self.relays[next % self.relays.len()].address
    }

    /// Addresses of all instances.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.relays.iter().map(|relay| relay.address).collect()
    }

    /// Address of the port of the first instance's metrics, if they have one of their own.
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.relays[0].metrics_address
    }

    /// The parts of all instances.
    pub fn apps(&self) -> impl Iterator<Item = &Arc<App>> {
        self.relays.iter().map(Relay::app)
    }

    /// The parts of the first instance.
    pub fn app(&self) -> &Arc<App> {
        self.relays[0].app()
    }

    /// The relay's time.
    pub fn now(&self) -> u64 {
        self.clock.now()
    }

    /// Moves the relay's clock forward.
    pub fn advance(&self, secs: u64) {
        self.clock.set(self.now() + secs);
    }

    /// Waits until everything committed so far has been delivered.
    pub async fn caught_up(&self) {
        caught_up(&self.apps().map(Arc::as_ref).collect::<Vec<_>>()).await;
    }

    /// Reads the certificates again, as at SIGHUP.
    pub fn reload(&self) {
        self.relays.iter().for_each(Relay::reload);
    }

    /// Puts another configuration into force on all instances, as at SIGHUP.
    pub fn reconfigure(&self, reading: &Reading) {
        self.relays.iter().for_each(|relay| relay.reconfigure(reading));
    }

    /// Looks at the certificates, as each minute.
    pub fn look_at_certificates(&self) {
        self.relays.iter().for_each(Relay::look_at_certificates);
    }

    /// Stops the relay in order, as a signal does.
    pub async fn stop(self) {
        for relay in self.relays {
            relay.stop().await;
        }
    }
}

/// Waits until every instance has delivered everything that any of them knows to be committed.
pub async fn caught_up(apps: &[&App]) {
    let head = apps.iter().map(|app| app.store.head()).max().unwrap_or(0);
    let reached = async {
        while apps.iter().any(|app| app.live.cursor() < head) {
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    };
    tokio::time::timeout(WAIT, reached).await.expect("live delivery reaches the head of the log");
}
