//! Starting and stopping: the parts put together, and taken down in order.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use nostr_extensions::{CurrentPolicy, Gate, RouteHasher};
use nostr_store::Store;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access::Access,
    app::App,
    config::{Config, Reading, StorageBackend},
    console::{self, Console},
    delivery::{Delivery, Live, Parts, groups::Groups, writer::Writer},
    directory::{described::DescribedCache, request::LowStocks, system_key},
    error::StartError,
    expiry,
    inboxes::Inboxes,
    manage::{self, Management},
    memory::Memory,
    observe::{
        metrics::{Metrics, Recorder, sizes},
        request_log::RequestLog,
        telemetry::{self, OwnerTags},
    },
    pid_file::PidFile,
    quotas::Quotas,
    rate_limit::{RateLimits, ReadBudgets},
    rest::Cursors,
    server::{self, Server, tls::Certificates},
    shares::Shares,
    storage,
    system::{
        clock::{Clock, StoreClock, SystemClock},
        random,
    },
    turns::Turns,
    write_policy::WritePolicy,
};

/// A relay that listens.
pub struct Relay {
    /// The address that it listens on.
    pub address: SocketAddr,
    /// The address of the port of its metrics, if they have one of their own.
    pub metrics_address: Option<SocketAddr>,
    app: Arc<App>,
    #[cfg(feature = "simulation")]
    server: Server,
    tasks: Vec<JoinHandle<()>>,
    writer: JoinHandle<()>,
    /// The tasks of delivery, which end after the writer.
    delivery: Vec<JoinHandle<()>>,
}

/// Runs a relay until SIGTERM or Ctrl-C. At SIGHUP it reads its certificate again, and its configuration by `read`.
///
/// # Errors
/// [`StartError`], in words for the operator.
pub async fn run(config: Config, read: impl Fn() -> Reading) -> Result<(), StartError> {
    telemetry::init(&config.server);
    raise_descriptor_limit(config.server.connections_max);
    // Signals are listened to from here on, so that one that comes while the relay starts stops it in order too.
    let stop_signal = stop_signal()?;
    let mut hang_up = listen_to(SignalKind::hangup())?;
    let mut stop_signal = std::pin::pin!(stop_signal);
    let store = tokio::select! {
        store = storage::open(&config) => store?,
        () = &mut stop_signal => return Ok(()),
    };
    let _running = PidFile::of(&config).map_err(StartError::new)?;
    let config = Arc::new(config);
    let recorder = Recorder::installed();
    let relay = Relay::start_with(Arc::clone(&config), store, Arc::new(SystemClock), recorder).await?;
    announce(&config, relay.address);
    loop {
        tokio::select! {
            () = &mut stop_signal => break,
            _ = hang_up.recv() => {
                relay.reload();
                relay.reconfigure(&read());
            }
        }
    }
    tracing::info!("stopping: no new connections, what was accepted is finished");
    relay.stop().await;
    tracing::info!("stopped");
    Ok(())
}

/// Raises the limit on open files as far as the system lets it: each connection takes a descriptor, and systems start
/// processes with few.
fn raise_descriptor_limit(connections_max: usize) {
    const OTHER_DESCRIPTORS: u64 = 256;
    let wanted = connections_max as u64 + OTHER_DESCRIPTORS;
    match rlimit::increase_nofile_limit(wanted) {
        Ok(limit) if limit < wanted => {
            tracing::warn!(
                "the system allows {limit} open files, too few for server.connections_max = {connections_max}: start \
                 the relay with `ulimit -n {wanted}` or LimitNOFILE={wanted}, or write connections_max = {}",
                limit.saturating_sub(OTHER_DESCRIPTORS).max(1)
            );
        }
        Ok(_) => {}
        Err(error) => tracing::warn!(%error, "the limit on open files was not raised"),
    }
}

impl Relay {
    /// Starts a relay over `store` and binds its port. Its metrics are its own.
    ///
    /// # Errors
    /// [`StartError`], in words for the operator.
    pub async fn start(config: Arc<Config>, store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Result<Self, StartError> {
        Self::start_with(config, store, clock, Recorder::new()).await
    }

    /// Starts a relay that counts into `recorder`.
    ///
    /// # Errors
    /// [`StartError`], in words for the operator.
    pub async fn start_with(
        config: Arc<Config>,
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        recorder: Recorder,
    ) -> Result<Self, StartError> {
        let certificates = Certificates::of(&config.server).map_err(StartError::new)?.map(Arc::new);
        let (low_stock, requests) = LowStocks::new(system_key::of(&config).map_err(StartError::new)?);
        let wanted = config.server.socket_address();
        let listener = server::bind(wanted).map_err(|error| {
            StartError::new(format!("server.host and server.port: cannot listen on {wanted}: {error}"))
        })?;
        let address = listener.local_addr().map_err(|error| StartError::new(error.to_string()))?;
        let metrics_listener = bind_metrics(&config)?;
        let metrics_address = metrics_listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let store_clock = Arc::new(StoreClock::new(clock));
        let clock = Arc::<StoreClock>::clone(&store_clock) as Arc<dyn Clock>;
        let policy = CurrentPolicy::from(config.policy());
        let owner_tags = Arc::new(OwnerTags::new(random::bytes32()));
        let management = Management::start(&config, Arc::clone(&store), policy.clone(), Arc::clone(&owner_tags)).await;
        let management = Arc::new(management.map_err(StartError::new)?);
        let gate = Gate::new(policy.clone());
        let group_ttl = Duration::from_secs(config.mls_gateway.group_cache_ttl_secs);
        let groups = Arc::new(Groups::new(Arc::clone(&store), group_ttl));
        let metrics = Arc::new(Metrics::new(recorder));
        let hasher = store.route_hasher();
        let live = Live::new(
            gate.clone(),
            Arc::clone(&groups),
            hasher,
            Arc::clone(&metrics),
            Arc::clone(&clock),
            config.server.workers,
        );
        let live = Arc::new(live);
        let limits = Arc::new(RateLimits::new(
            &config.mls_gateway.rate_limits,
            config.server.handshakes_per_minute_max,
            &hasher,
        ));
        let (delivery, delivery_tasks) = Delivery::start(Parts {
            config: Arc::clone(&config),
            policy: policy.clone(),
            ordered: Arc::clone(&management.told),
            store: Arc::clone(&store),
            groups: Arc::clone(&groups),
            live: Arc::clone(&live),
            limits: Arc::clone(&limits),
            metrics: Arc::clone(&metrics),
            clock: store_clock,
        })?;
        let request_log = Arc::new(RequestLog::open(&config.server, clock.as_ref(), random::below(u64::MAX))?);
        let (writer, writer_task) =
            Writer::start(Arc::clone(&store), Arc::clone(&delivery), Arc::clone(&metrics), Arc::clone(&request_log));
        let stopping = CancellationToken::new();
        let write_policy = WritePolicy::start(Arc::clone(&management), stopping.clone());
        let access = Access::of(&config, &store, &groups, &metrics, &clock)?;
        let workers = config.server.workers.max(1);
        let app = Arc::new(App {
            limits,
            low_stock,
            described: DescribedCache::new(config.mls_gateway.keypackage_cache_ttl_secs),
            shares: Shares::new(workers),
            memory: Memory::new(config.server.memory_bytes_max),
            read_turns: Turns::new(2 * workers, workers),
            read_budgets: read_budgets(&config, &hasher),
            cursors: Cursors::new(&store.secret()),
            console: Console::new(&store.secret()),
            neg_memory: Arc::default(),
            request_log,
            owner_tags,
            current_policy: policy,
            management,
            write_policy,
            inboxes: Inboxes::default(),
            quotas: Quotas::default(),
            gate,
            store,
            groups,
            access,
            live,
            delivery,
            writer,
            metrics,
            certificates,
            clock,
            started: Instant::now(),
            stopping,
            connections: TaskTracker::new(),
            config,
        });
        let server = Server::new(Arc::clone(&app));
        let listening = tokio::spawn(server.clone().run(listener));
        let sweeping = tokio::spawn(expiry::run(Arc::clone(&app)));
        let counting = tokio::spawn(sizes::run(Arc::clone(&app)));
        let watching = tokio::spawn(console::run(Arc::clone(&app)));
        let asking = requests.map(|requests| tokio::spawn(requests.run(Arc::clone(&app))));
        if app.delivery.is_followed() {
            tokio::spawn(Arc::clone(&app.management).follow(app.stopping.clone()));
        }
        if let Some(access) = &app.access {
            tokio::spawn(Arc::clone(access).keep_fresh(Arc::clone(&app.live), app.stopping.clone()));
        }
        if let Some(certificates) = &app.certificates {
            let (watching, stopping) = (Arc::clone(certificates).watch(), app.stopping.clone());
            tokio::spawn(async move { stopping.run_until_cancelled(watching).await });
        }
        let (settled, stopping) = (Arc::clone(&app.metrics), app.stopping.clone());
        let settling =
            tokio::spawn(async move { stopping.run_until_cancelled(settled.settle()).await.unwrap_or_default() });
        let showing = metrics_listener.map(|listener| tokio::spawn(server::metrics::run(Arc::clone(&app), listener)));
        let tasks =
            [listening, sweeping, counting, settling, watching].into_iter().chain(asking).chain(showing).collect();
        Ok(Self {
            address,
            metrics_address,
            app,
            #[cfg(feature = "simulation")]
            server,
            tasks,
            writer: writer_task,
            delivery: delivery_tasks,
        })
    }

    /// Reads the certificate and the key again if one of their files has changed, as the relay does each minute.
    pub fn look_at_certificates(&self) {
        if let Some(certificates) = &self.app.certificates {
            certificates.look();
        }
    }

    /// Reads the certificate and the key again, as at SIGHUP. If they do not go together, the earlier ones stay.
    pub fn reload(&self) {
        match &self.app.certificates {
            Some(certificates) => certificates.read_again(),
            None => tracing::info!("SIGHUP: this relay has no certificate to read again"),
        }
    }

    /// Puts the keys of a configuration into force that may change while the relay runs, and logs those that may not.
    /// One with faults changes nothing.
    pub fn reconfigure(&self, reading: &Reading) {
        manage::tell(&self.app.management.reload(reading));
    }

    /// The relay's parts.
    #[must_use]
    pub const fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// Serves a connection of the simulation as one that came by the port.
    #[cfg(feature = "simulation")]
    pub fn take(
        &self,
        stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
        peer: SocketAddr,
    ) {
        self.server.take(stream, peer);
    }

    /// Takes no new connections, answers the accepted events, and ends each connection; takes at most
    /// `shutdown_timeout_secs`.
    pub async fn stop(self) {
        let limit = Duration::from_secs(self.app.config.server.shutdown_timeout_secs);
        self.app.stopping.cancel();
        self.app.connections.close();
        let finished = tokio::time::timeout(limit, async {
            for task in self.tasks {
                let _ = task.await;
            }
            self.app.connections.wait().await;
            if let Some(access) = &self.app.access {
                access.finished().await;
            }
            let (store, request_log) = (Arc::clone(&self.app.store), Arc::clone(&self.app.request_log));
            // The writer ends when the last handle to the parts is gone, and delivery when the writer has ended too.
            drop(self.app);
            #[cfg(feature = "simulation")]
            drop(self.server);
            let _ = self.writer.await;
            for task in self.delivery {
                let _ = task.await;
            }
            if let Err(error) = store.flush().await {
                tracing::warn!(%error, "the store did not write what it had put off");
            }
            if request_log.sends_traces() {
                let _ = tokio::task::spawn_blocking(move || request_log.close()).await;
            }
        });
        if finished.await.is_err() {
            tracing::warn!("not everything was finished in {} s", limit.as_secs());
        }
    }
}

/// Binds the port of the metrics, if they have one of their own.
fn bind_metrics(config: &Config) -> Result<Option<TcpListener>, StartError> {
    let Some(wanted) = config.metrics.listen else { return Ok(None) };
    let bound = server::bind(wanted);
    bound.map(Some).map_err(|error| StartError::new(format!("metrics.listen: cannot listen on {wanted}: {error}")))
}

/// The budgets of reads by the configuration. Only the documents of Firestore have a budget of their own.
fn read_budgets(config: &Config, hasher: &RouteHasher) -> ReadBudgets {
    let gateway = &config.mls_gateway;
    let documents = match gateway.storage_backend {
        StorageBackend::Firestore => gateway.firestore_reads_per_minute_max,
        _ => 0,
    };
    ReadBudgets::new(gateway.rate_limits.max_read_cost_per_minute, documents, hasher)
}

fn announce(config: &Config, address: SocketAddr) {
    let scheme = if config.server.tls().is_some() { "wss" } else { "ws" };
    tracing::info!("listening on {scheme}://{address}");
    if let Some(address) = config.metrics.listen {
        tracing::info!("metrics on http://{address}/metrics");
    }
    for line in config.rules() {
        tracing::info!("{line}");
    }
    for line in config.warnings() {
        tracing::warn!("{line}");
    }
}

/// Resolves at the first SIGTERM or Ctrl-C since the call; further ones change nothing.
fn stop_signal() -> Result<impl Future<Output = ()>, StartError> {
    let (mut terminate, mut interrupt) = (listen_to(SignalKind::terminate())?, listen_to(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

fn listen_to(kind: SignalKind) -> Result<Signal, StartError> {
    signal(kind).map_err(|error| StartError::new(format!("signals cannot be listened to: {error}")))
}
