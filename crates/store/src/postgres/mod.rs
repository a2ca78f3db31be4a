//! The PostgreSQL store: one database (13 or newer; Cloud SQL, AlloyDB or any other), shared by any number of
//! processes.
//!
//! A writer locks one row, the head of the log, until its transaction ends. So cursors become visible in order and
//! without gaps, and the facts that a batch was decided by still hold at its commit. Writers of all instances go one
//! after the other. The cost is one lock for each batch and not for each event, because every instance writes its
//! waiting events in one transaction.

mod claim;
mod connect;
mod facts;
mod fail;
mod history;
mod listen;
mod load;
mod log;
mod moving;
mod once;
mod pipeline;
mod received;
mod records;
mod rows;
mod save;
mod scan;
mod schema;
mod service;
mod sweep;
mod vanished;
mod write;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use deadpool_postgres::{Client, Pool};
use nostr_extensions::{
    Admitted, Group, NostrGroupId, Query, RouteHasher, Sealed, mls_gateway::group::ServiceAnswer, query::Position,
};
use nostr_protocol::{EventId, PublicKey, UnixSecs};
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, broadcast, watch},
    task::JoinHandle,
};

use self::{
    connect::{DatabaseAddress, Suspicion},
    fail::Fail,
    history::{Commit, History},
    rows::{cursor, fixed},
};
use crate::{
    AppliedAnswer, Claim, Claimed, Cost, Cursor, Listed, LogPage, OnceName, OpenError, PEER_MESSAGES_WAITING_MAX, Page,
    PageBounds, Receipt, Received, ReceivedBounds, ReceivedPage, RecordName, Saved, Stats, Stock, StockRequest, Store,
    StoreError, StoredRecord, Swept,
    decide::{EPHEMERAL_SECS, changes::Changes, hiding::Hiding},
};

/// Longest wait for one call.
const CALL_MAX: Duration = Duration::from_secs(8);
/// Longest wait for a call that follows the log. It is shorter than a follower's own, so that a connection that has
/// fallen silent is noticed here.
const FOLLOW_MAX: Duration = Duration::from_secs(4);

/// Longest time since the last read of the log after which an import's entry is surely still there: half of its
/// lifetime.
const STILL_KNOWN_MAX: Duration = Duration::from_secs(EPHEMERAL_SECS / 2);

/// Settings of the store.
#[derive(Clone, Debug)]
pub struct Options {
    /// Most connections of the pool. One more connection listens.
    pub connections_max: usize,
    /// Whether commits are announced by NOTIFY and listened for. Without it, the relay announces them by other means.
    pub notifies: bool,
}

impl Default for Options {
    /// `min(cores * 2, 20)` connections (MLS Gateway specification, "Database Optimization"), and NOTIFY.
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { connections_max: (cores * 2).min(20), notifies: true }
    }
}

/// The store over one database. See the module.
pub struct Postgres {
    pool: Pool,
    /// One connection that reads records alone: an order of the operator is learnt however busy clients keep the pool.
    records: Pool,
    suspicion: Arc<Suspicion>,
    route_hasher: RouteHasher,
    secret: [u8; 32],
    head: AtomicU64,
    history: History,
    hiding: Hiding,
    /// Bytes that were loaded while the log was locked.
    loaded: AtomicU64,
    /// The time of the last read of the log.
    followed: Mutex<Instant>,
    /// Places for reads of the archive. One connection is left for followers and writers.
    scans: Semaphore,
    notifies: bool,
    notifications: watch::Receiver<u64>,
    /// Messages of other processes. Nothing arrives without the listener.
    messages: broadcast::Sender<Arc<[u8]>>,
    /// Held so that the receivers stay open without a listener.
    _notifier: Option<watch::Sender<u64>>,
    listener: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Postgres {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Postgres").field("pool", &self.pool.status()).finish_non_exhaustive()
    }
}

impl Postgres {
    /// Opens a database, and makes or migrates its tables. It spawns tasks, so it needs a runtime.
    ///
    /// # Errors
    /// [`OpenError::Unreachable`] if the server does not answer. [`OpenError::Refused`] for a malformed URL, a server
    /// that is too old, tables of a newer release, or missing rights. No text tells the password.
    pub async fn open(url: &str, options: Options) -> Result<Self, OpenError> {
        let address = DatabaseAddress::parse(url).map_err(|fail| fail.to_open_error())?;
        let shown = address.shown();
        Self::open_at(address, options).await.map_err(|fail| match fail.to_open_error() {
            OpenError::Refused(text) => OpenError::Refused(format!("database {shown}: {text}")),
            OpenError::Unreachable(text) => OpenError::Unreachable(format!("database {shown}: {text}")),
        })
    }

    /// Hosts, port and name of a `database_url` for the operator's eyes, without user and password.
    ///
    /// # Errors
    /// [`OpenError::Refused`] for a malformed URL.
    pub fn describe(url: &str) -> Result<String, OpenError> {
        Ok(DatabaseAddress::parse(url).map_err(|fail| fail.to_open_error())?.shown())
    }

    async fn open_at(address: DatabaseAddress, options: Options) -> Result<Self, Fail> {
        let suspicion = Arc::<Suspicion>::default();
        let pool = address.pool(options.connections_max.max(1), &suspicion)?;
        let records = address.pool(1, &suspicion)?;
        let mut client = pool.get().await?;
        schema::migrate(&mut client).await?;
        history::begin(&mut client).await?;
        let log = client.query_one(history::HEAD, &[]).await?;
        let router_key = fixed(&log, "router_key")?;
        let (route_hasher, secret) = (RouteHasher::new(&router_key), crate::random::secret_of(&router_key));
        let head = AtomicU64::new(cursor(&log, "head")?);
        let history = History::new(Commit::of(&log)?, history::has_timeline(&client).await?);
        let hiding = Hiding::default();
        vanished::learn(&client, &hiding).await?;
        drop(client);
        let (notifier, notifications) = watch::channel(0);
        let messages = broadcast::Sender::new(PEER_MESSAGES_WAITING_MAX);
        let (listener, notifier) = if options.notifies {
            (Some(tokio::spawn(listen::run(address, notifier, messages.clone()))), None)
        } else {
            (None, Some(notifier))
        };
        Ok(Self {
            pool,
            records,
            suspicion,
            route_hasher,
            secret,
            head,
            history,
            hiding,
            loaded: AtomicU64::new(0),
            followed: Mutex::new(Instant::now()),
            scans: Semaphore::new(options.connections_max.saturating_sub(1).max(1)),
            notifies: options.notifies,
            notifications,
            messages,
            _notifier: notifier,
            listener,
        })
    }

    /// Bytes of facts that this process loaded while the log was locked.
    #[cfg(feature = "testing")]
    pub fn loaded_bytes(&self) -> u64 {
        self.loaded.load(Ordering::Relaxed)
    }

    fn knows_of(&self, cursor: Cursor) {
        self.head.fetch_max(cursor, Ordering::AcqRel);
    }

    /// Notes durable changes. `head` is the log's head before them, `commit` is theirs.
    fn committed(&self, changes: &Changes, head: Cursor, commit: Option<Commit>) {
        self.history.learn(commit);
        let head = head + changes.places();
        self.hiding.learn(&changes.vanished, head);
        self.knows_of(head);
    }

    /// [`Postgres::with_client`], with the trait's error.
    async fn call<T>(&self, work: impl AsyncFnOnce(&mut Client) -> Result<T, Fail>) -> Result<T, StoreError> {
        self.with_client(work).await.map_err(|fail| fail.to_store_error())
    }

    /// Runs `work` with a connection of the pool, within [`FOLLOW_MAX`].
    async fn follow<T>(&self, work: impl AsyncFnOnce(&mut Client) -> Result<T, Fail>) -> Result<T, Fail> {
        // The connection is closed with the dropped call.
        tokio::time::timeout(FOLLOW_MAX, self.with_client(work)).await.unwrap_or(Err(Fail::Late))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if let Some(listener) = &self.listener {
            listener.abort();
        }
    }
}

#[async_trait]
impl Store for Postgres {
    async fn save(&self, batch: Vec<Admitted>) -> Vec<Result<Saved, StoreError>> {
        self.save_all(batch).await
    }

    async fn rehearse(&self, admitted: &Admitted) -> Result<Saved, StoreError> {
        self.rehearse_save(admitted).await.map_err(|fail| fail.to_store_error())
    }

    async fn scan(
        &self,
        query: &Query,
        from: Option<Position>,
        up_to: Cursor,
        bounds: PageBounds,
        now: UnixSecs,
    ) -> Result<Page, StoreError> {
        let _place = self.scans.acquire().await;
        self.call(async move |client| {
            let hidden = self.hiding.now();
            scan::Scan { query, from, up_to, bounds, now, hidden }.page(client).await
        })
        .await
    }

    async fn received(
        &self,
        query: &Received,
        from: Receipt,
        up_to: Cursor,
        bounds: ReceivedBounds,
        now: UnixSecs,
    ) -> Result<ReceivedPage, StoreError> {
        let _place = self.scans.acquire().await;
        self.call(async move |client| {
            received::page(client, query, (from, up_to), bounds, (now, self.hiding.now())).await
        })
        .await
    }

    async fn after(&self, cursor: Cursor, entries_max: usize) -> Result<LogPage, StoreError> {
        let asked = Instant::now();
        let knows = asked.duration_since(*self.followed.lock()) < STILL_KNOWN_MAX;
        let log = log::LogReader { hiding: &self.hiding, history: &self.history, knows };
        let read = async |client: &mut Client| log.after(client, cursor, entries_max).await;
        let page = self.follow(read).await.map_err(|fail| fail.to_store_error())?;
        *self.followed.lock() = asked;
        self.knows_of(page.through);
        Ok(page)
    }

    async fn events_at(&self, cursors: &[Cursor]) -> Result<Vec<Sealed>, StoreError> {
        let read = async move |client: &mut Client| log::events_at(client, cursors, &self.hiding.now()).await;
        self.follow(read).await.map_err(|fail| fail.to_store_error())
    }

    fn head(&self) -> Cursor {
        self.head.load(Ordering::Acquire)
    }

    fn route_hasher(&self) -> RouteHasher {
        self.route_hasher
    }

    fn secret(&self) -> [u8; 32] {
        self.secret
    }

    async fn history_at(&self, cursor: Cursor) -> Result<u64, StoreError> {
        self.call(async move |client| self.history.mark_at(client, cursor).await).await
    }

    fn notifications(&self) -> Option<watch::Receiver<u64>> {
        Some(self.notifications.clone())
    }

    async fn broadcast(&self, message: Vec<u8>) -> Result<(), StoreError> {
        self.call(async move |client| listen::send(client, &message).await).await
    }

    fn messages(&self) -> Option<broadcast::Receiver<Arc<[u8]>>> {
        self.notifies.then(|| self.messages.subscribe())
    }

    async fn holds(&self, id: &EventId, now: UnixSecs) -> Result<bool, StoreError> {
        self.call(async move |client| log::holds(client, id, now, &self.hiding.now()).await).await
    }

    async fn group(&self, id: &NostrGroupId) -> Result<(Group, Cursor), StoreError> {
        let read = async move |client: &mut Client| log::state_of(client, id).await;
        self.follow(read).await.map_err(|fail| fail.to_store_error())
    }

    async fn known_groups(&self, ids: &[NostrGroupId]) -> Result<Vec<NostrGroupId>, StoreError> {
        self.call(async move |client| log::known_groups(client, ids).await).await
    }

    async fn groups_of(&self, keys: &[PublicKey]) -> Result<Vec<NostrGroupId>, StoreError> {
        self.call(async move |client| log::groups_of(client, keys).await).await
    }

    async fn groups_after(
        &self,
        prefix: &str,
        after: Option<&NostrGroupId>,
        most: usize,
    ) -> Result<Listed<NostrGroupId>, StoreError> {
        let found = self.call(async move |client| log::groups_after(client, prefix, after, most + 1).await).await?;
        Ok(Listed::of(found, most))
    }

    async fn owners_after(&self, after: Option<&PublicKey>, most: usize) -> Result<Listed<PublicKey>, StoreError> {
        let found = self.call(async move |client| log::owners_after(client, after, most + 1).await).await?;
        Ok(Listed::of(found, most))
    }

    async fn invited_groups(&self, keys: &[PublicKey]) -> Result<Vec<NostrGroupId>, StoreError> {
        self.call(async move |client| log::invited_groups(client, keys).await).await
    }

    async fn apply_answer(&self, answer: &ServiceAnswer, now: UnixSecs) -> Result<Option<AppliedAnswer>, StoreError> {
        self.apply(answer, now).await.map_err(|fail| fail.to_store_error())
    }

    async fn claim_key_packages(&self, claim: &Claim, now: UnixSecs) -> Result<Claimed, StoreError> {
        self.claim(claim, now).await.map_err(|fail| fail.to_store_error())
    }

    async fn stock(&self, owner: &PublicKey, now: UnixSecs) -> Result<Stock, StoreError> {
        self.count_packages(owner, now).await.map_err(|fail| fail.to_store_error())
    }

    async fn may_request(&self, request: &StockRequest, now: UnixSecs) -> Result<bool, StoreError> {
        self.request(request, now).await.map_err(|fail| fail.to_store_error())
    }

    async fn shares_group(&self, owner: &PublicKey, key: &PublicKey) -> Result<(bool, Cost), StoreError> {
        self.find_common_group(owner, key).await.map_err(|fail| fail.to_store_error())
    }

    async fn use_once(&self, name: &OnceName, until: UnixSecs, now: UnixSecs) -> Result<bool, StoreError> {
        self.call(async move |client| once::use_once(client, name, until, now).await).await
    }

    async fn record(&self, name: RecordName, known: u64) -> Result<Option<StoredRecord>, StoreError> {
        let read = async |client: &mut Client| records::read(client, name, known).await;
        self.with_client_of(&self.records, read).await.map_err(|fail| fail.to_store_error())
    }

    async fn put_record(&self, name: RecordName, known: u64, value: Vec<u8>) -> Result<bool, StoreError> {
        self.call(async move |client| records::put(client, name, known, &value).await).await
    }

    async fn sweep(&self, now: UnixSecs, events_max: usize) -> Result<Swept, StoreError> {
        self.call(async move |client| sweep::sweep(client, now, events_max, &self.hiding).await).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.try_to_write().await.map_err(|fail| fail.to_store_error())
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.call(async |client| sweep::stats(client).await).await
    }
}
