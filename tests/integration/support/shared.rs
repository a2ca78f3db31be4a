//! A store that several relays of this process share, as processes share a database: the store in memory, with a log
//! that also holds ephemeral events, with notifications, and with the faults that occur between a relay and its
//! database.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use nostr_extensions::{
    Admitted, Group, NostrGroupId, Query, RouteHasher, Sealed, admit::Persistence, mls_gateway::group::ServiceAnswer,
    query::Position,
};
use nostr_protocol::{EventId, Kind, PublicKey, UnixSecs};
use nostr_store::{
    AppliedAnswer, Claim, Claimed, Cost, Cursor, Listed, LogEntry, LogPage, OnceName, Page, PageBounds, Receipt,
    Received, ReceivedBounds, ReceivedPage, RecordName, Saved, Stats, Stock, StockRequest, Store, StoreError,
    StoredRecord, Swept, memory::Memory,
};
use tokio::sync::{RwLock, watch};

/// The part that all instances share.
#[derive(Default)]
pub struct Shared {
    memory: Memory,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    ephemeral: BTreeMap<Cursor, Sealed>,
    links: Vec<Arc<Link>>,
}

/// The link between one instance and the store: faults that tests set, and counters that tests read.
pub struct Link {
    /// Every call takes this many milliseconds longer.
    pub delay_ms: AtomicU64,
    /// Every call fails.
    pub is_down: AtomicBool,
    /// Calls that read the log fail; all other calls succeed.
    pub log_is_down: AtomicBool,
    /// Reads of records fail.
    pub records_are_down: AtomicBool,
    /// A test that holds this lock for writing keeps back the answers to writes of records.
    pub recording: RwLock<()>,
    /// Milliseconds that the next read of a record takes longer.
    pub record_delay_ms: AtomicU64,
    /// Pages of the log come without rosters.
    pub lost_rosters: AtomicBool,
    /// Number of further failures; every second call fails until they are used up.
    pub hiccups: AtomicU64,
    /// Number of further failures; every read of a group's state fails until they are used up.
    pub group_failures: AtomicU64,
    /// Reads of a group's state so far.
    pub group_reads: AtomicU64,
    /// Questions which groups are known so far.
    pub group_questions: AtomicU64,
    /// A test that holds this lock for writing blocks reads of a group's state.
    pub reading_groups: RwLock<()>,
    /// Reads of a group's state in progress.
    pub group_loads: AtomicU64,
    /// Most reads of a group's state that were ever in progress at once.
    pub group_loads_most: AtomicU64,
    /// A test that holds this lock for writing blocks `events_at`.
    pub fetching: RwLock<()>,
    /// Scans that come through; each later one waits while a test holds `scanning` for writing.
    pub scans_free: AtomicU64,
    /// See `scans_free`.
    pub scanning: RwLock<()>,
    /// Scans that have waited for `scanning`, or are waiting.
    pub scans_held: AtomicU64,
    /// The relay is told that it alone writes to the store, so that it delivers directly.
    pub is_alone: AtomicBool,
    /// Claims that succeed; each later one fails.
    pub claims_left: AtomicU64,
    /// A test that holds this lock for writing keeps back the answers of claims that are committed.
    pub claiming: RwLock<()>,
    /// Claims that have succeeded so far.
    pub claims: AtomicU64,
    /// Notifications do not arrive.
    pub loses_notifications: AtomicBool,
    /// Most entries that one call of `after` returns.
    pub log_entries_max: AtomicUsize,
    /// Calls of `after` so far.
    pub after_calls: AtomicU64,
    /// Calls of `events_at` so far.
    pub fetches: AtomicU64,
    /// Events that `events_at` has returned so far.
    pub fetched: AtomicU64,
    calls: AtomicU64,
    notifications: watch::Sender<u64>,
}

/// The store as one relay sees it.
pub struct Instance {
    shared: Arc<Shared>,
    link: Arc<Link>,
}

impl Shared {
    /// An empty store.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Returns the store for one more relay, and the link between the two.
    pub fn instance(self: &Arc<Self>) -> (Arc<Instance>, Arc<Link>) {
        let link = Arc::new(Link {
            delay_ms: AtomicU64::new(0),
            is_down: AtomicBool::new(false),
            log_is_down: AtomicBool::new(false),
            records_are_down: AtomicBool::new(false),
            recording: RwLock::new(()),
            record_delay_ms: AtomicU64::new(0),
            lost_rosters: AtomicBool::new(false),
            hiccups: AtomicU64::new(0),
            group_failures: AtomicU64::new(0),
            group_reads: AtomicU64::new(0),
            group_questions: AtomicU64::new(0),
            reading_groups: RwLock::new(()),
            group_loads: AtomicU64::new(0),
            group_loads_most: AtomicU64::new(0),
            fetching: RwLock::new(()),
            scans_free: AtomicU64::new(u64::MAX),
            scanning: RwLock::new(()),
            scans_held: AtomicU64::new(0),
            is_alone: AtomicBool::new(false),
            claims_left: AtomicU64::new(u64::MAX),
            claiming: RwLock::new(()),
            claims: AtomicU64::new(0),
            loses_notifications: AtomicBool::new(false),
            after_calls: AtomicU64::new(0),
            fetches: AtomicU64::new(0),
            fetched: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            log_entries_max: AtomicUsize::new(usize::MAX),
            notifications: watch::Sender::new(0),
        });
        self.log.lock().expect("no panic while it is held").links.push(Arc::clone(&link));
        (Arc::new(Instance { shared: Arc::clone(self), link: Arc::clone(&link) }), link)
    }
}

/// Decrements `left`; `false` if it is zero.
fn take_one(left: &AtomicU64) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

impl Link {
    /// Sends a notification of nothing, as a stranger can who reaches the database.
    pub fn notify(&self) {
        self.notifications.send_modify(|notifications| *notifications += 1);
    }

    async fn pass(&self) -> Result<(), StoreError> {
        let delay = self.delay_ms.load(Ordering::Relaxed);
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        } else {
            tokio::task::yield_now().await;
        }
        let odd = self.calls.fetch_add(1, Ordering::Relaxed) % 2 == 1;
        if self.is_down.load(Ordering::Relaxed) || (odd && take_one(&self.hiccups)) {
            return Err(StoreError::Unavailable("the test says so".into()));
        }
        Ok(())
    }
}

/// What a call of the store in memory gives: it never waits.
fn now<T>(call: impl Future<Output = T>) -> T {
    call.now_or_never().expect("the store in memory does not wait")
}

impl Shared {
    fn save(&self, batch: Vec<Admitted>) -> Vec<Result<Saved, StoreError>> {
        let mut log = self.log.lock().expect("no panic while it is held");
        let ephemeral: Vec<bool> =
            batch.iter().map(|admitted| admitted.persistence() == Persistence::Ephemeral).collect();
        let saved = now(self.memory.save(batch));
        for (saved, is_ephemeral) in saved.iter().zip(ephemeral) {
            if let (Ok(Saved::New(sealed)), true) = (saved, is_ephemeral) {
                log.ephemeral.insert(sealed.cursor(), sealed.clone());
            }
        }
        for link in log.links.iter().filter(|link| !link.loses_notifications.load(Ordering::Relaxed)) {
            link.notifications.send_modify(|notifications| *notifications += 1);
        }
        saved
    }

    fn after(&self, cursor: Cursor, entries_max: usize) -> Result<LogPage, StoreError> {
        let log = self.log.lock().expect("no panic while it is held");
        let stored = now(self.memory.after(cursor, entries_max))?;
        let router = self.memory.route_hasher();
        let ephemeral = log.ephemeral.range(cursor.saturating_add(1)..).take(entries_max);
        let ephemeral = ephemeral.map(|(_, sealed)| LogEntry::new(sealed.clone(), None, &router));
        let mut entries: Vec<LogEntry> = stored.entries.into_iter().chain(ephemeral).collect();
        entries.sort_unstable_by_key(|entry| entry.cursor);
        entries.truncate(entries_max);
        for entry in &mut entries {
            entry.sealed = None;
        }
        let head = self.memory.head().max(cursor);
        let (through, is_head) = match entries.last() {
            Some(last) if entries.len() >= entries_max => (last.cursor, last.cursor == head),
            _ => (head, true),
        };
        Ok(LogPage { entries, through, is_head, read_at_ms: None })
    }

    fn events_at(&self, cursors: &[Cursor]) -> Result<Vec<Sealed>, StoreError> {
        let log = self.log.lock().expect("no panic while it is held");
        let mut events = now(self.memory.events_at(cursors))?;
        events.extend(cursors.iter().filter_map(|cursor| log.ephemeral.get(cursor)).cloned());
        events.sort_unstable_by_key(Sealed::cursor);
        Ok(events)
    }
}

#[async_trait]
impl Store for Instance {
    async fn save(&self, batch: Vec<Admitted>) -> Vec<Result<Saved, StoreError>> {
        match self.link.pass().await {
            Ok(()) => self.shared.save(batch),
            Err(error) => batch.iter().map(|_| Err(error.clone())).collect(),
        }
    }

    async fn scan(
        &self,
        query: &Query,
        from: Option<Position>,
        up_to: Cursor,
        bounds: PageBounds,
        now: UnixSecs,
    ) -> Result<Page, StoreError> {
        self.link.pass().await?;
        if !take_one(&self.link.scans_free) {
            self.link.scans_held.fetch_add(1, Ordering::Relaxed);
            let _open = self.link.scanning.read().await;
        }
        self.shared.memory.scan(query, from, up_to, bounds, now).await
    }

    async fn received(
        &self,
        query: &Received,
        from: Receipt,
        up_to: Cursor,
        bounds: ReceivedBounds,
        now: UnixSecs,
    ) -> Result<ReceivedPage, StoreError> {
        self.link.pass().await?;
        self.shared.memory.received(query, from, up_to, bounds, now).await
    }

    async fn after(&self, cursor: Cursor, entries_max: usize) -> Result<LogPage, StoreError> {
        self.link.after_calls.fetch_add(1, Ordering::Relaxed);
        self.link.pass().await?;
        if self.link.log_is_down.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("the test says so".into()));
        }
        let entries_max = entries_max.min(self.link.log_entries_max.load(Ordering::Relaxed));
        let mut page = self.shared.after(cursor, entries_max)?;
        if self.link.lost_rosters.load(Ordering::Relaxed) {
            page.entries.retain(|entry| entry.kind != Kind::ROSTER);
        }
        Ok(page)
    }

    async fn events_at(&self, cursors: &[Cursor]) -> Result<Vec<Sealed>, StoreError> {
        self.link.fetches.fetch_add(1, Ordering::Relaxed);
        let _open = self.link.fetching.read().await;
        self.link.pass().await?;
        let events = self.shared.events_at(cursors)?;
        self.link.fetched.fetch_add(events.len() as u64, Ordering::Relaxed);
        Ok(events)
    }

    fn head(&self) -> Cursor {
        self.shared.memory.head()
    }

    fn secret(&self) -> [u8; 32] {
        self.shared.memory.secret()
    }

    fn route_hasher(&self) -> RouteHasher {
        self.shared.memory.route_hasher()
    }

    fn notifications(&self) -> Option<watch::Receiver<u64>> {
        (!self.link.is_alone.load(Ordering::Relaxed)).then(|| self.link.notifications.subscribe())
    }

    async fn holds(&self, id: &EventId, now: UnixSecs) -> Result<bool, StoreError> {
        self.link.pass().await?;
        self.shared.memory.holds(id, now).await
    }

    async fn group(&self, id: &NostrGroupId) -> Result<(Group, Cursor), StoreError> {
        self.link.group_reads.fetch_add(1, Ordering::Relaxed);
        let loads = self.link.group_loads.fetch_add(1, Ordering::Relaxed) + 1;
        self.link.group_loads_most.fetch_max(loads, Ordering::Relaxed);
        let _open = self.link.reading_groups.read().await;
        let passed = self.link.pass().await;
        self.link.group_loads.fetch_sub(1, Ordering::Relaxed);
        passed?;
        if take_one(&self.link.group_failures) {
            return Err(StoreError::Unavailable("the test says so".into()));
        }
        self.shared.memory.group(id).await
    }

    async fn known_groups(&self, ids: &[NostrGroupId]) -> Result<Vec<NostrGroupId>, StoreError> {
        self.link.group_questions.fetch_add(1, Ordering::Relaxed);
        self.link.pass().await?;
        self.shared.memory.known_groups(ids).await
    }

    async fn groups_of(&self, keys: &[PublicKey]) -> Result<Vec<NostrGroupId>, StoreError> {
        self.link.pass().await?;
        self.shared.memory.groups_of(keys).await
    }

    async fn groups_after(
        &self,
        prefix: &str,
        after: Option<&NostrGroupId>,
        most: usize,
    ) -> Result<Listed<NostrGroupId>, StoreError> {
        self.link.pass().await?;
        self.shared.memory.groups_after(prefix, after, most).await
    }

    async fn owners_after(&self, after: Option<&PublicKey>, most: usize) -> Result<Listed<PublicKey>, StoreError> {
        self.link.pass().await?;
        self.shared.memory.owners_after(after, most).await
    }

    async fn invited_groups(&self, keys: &[PublicKey]) -> Result<Vec<NostrGroupId>, StoreError> {
        self.link.pass().await?;
        self.shared.memory.invited_groups(keys).await
    }

    async fn rehearse(&self, admitted: &Admitted) -> Result<Saved, StoreError> {
        self.link.pass().await?;
        self.shared.memory.rehearse(admitted).await
    }

    async fn apply_answer(&self, answer: &ServiceAnswer, now: UnixSecs) -> Result<Option<AppliedAnswer>, StoreError> {
        self.link.pass().await?;
        let log = self.shared.log.lock().expect("no panic while it is held");
        let applied = self::now(self.shared.memory.apply_answer(answer, now));
        for link in log.links.iter().filter(|link| !link.loses_notifications.load(Ordering::Relaxed)) {
            link.notifications.send_modify(|notifications| *notifications += 1);
        }
        applied
    }

    async fn claim_key_packages(&self, claim: &Claim, now: UnixSecs) -> Result<Claimed, StoreError> {
        self.link.pass().await?;
        if !take_one(&self.link.claims_left) {
            return Err(StoreError::Unavailable("the test says so".into()));
        }
        let claimed = self.shared.memory.claim_key_packages(claim, now).await;
        self.link.claims.fetch_add(1, Ordering::Relaxed);
        let _answers = self.link.claiming.read().await;
        claimed
    }

    async fn stock(&self, owner: &PublicKey, now: UnixSecs) -> Result<Stock, StoreError> {
        self.link.pass().await?;
        self.shared.memory.stock(owner, now).await
    }

    async fn may_request(&self, request: &StockRequest, now: UnixSecs) -> Result<bool, StoreError> {
        self.link.pass().await?;
        self.shared.memory.may_request(request, now).await
    }

    async fn shares_group(&self, owner: &PublicKey, key: &PublicKey) -> Result<(bool, Cost), StoreError> {
        self.link.pass().await?;
        self.shared.memory.shares_group(owner, key).await
    }

    async fn history_at(&self, cursor: Cursor) -> Result<u64, StoreError> {
        self.link.pass().await?;
        self.shared.memory.history_at(cursor).await
    }

    async fn use_once(&self, name: &OnceName, until: UnixSecs, now: UnixSecs) -> Result<bool, StoreError> {
        self.link.pass().await?;
        self.shared.memory.use_once(name, until, now).await
    }

    async fn record(&self, name: RecordName, known: u64) -> Result<Option<StoredRecord>, StoreError> {
        self.link.pass().await?;
        let delay = self.link.record_delay_ms.swap(0, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(delay)).await;
        if self.link.records_are_down.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("the test says so".into()));
        }
        self.shared.memory.record(name, known).await
    }

    async fn put_record(&self, name: RecordName, known: u64, value: Vec<u8>) -> Result<bool, StoreError> {
        self.link.pass().await?;
        let written = self.shared.memory.put_record(name, known, value).await;
        let _answers = self.link.recording.read().await;
        written
    }

    async fn sweep(&self, now: UnixSecs, events_max: usize) -> Result<Swept, StoreError> {
        self.shared.memory.sweep(now, events_max).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.shared.memory.stats().await
    }
}
