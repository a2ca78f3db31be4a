//! A store that several relays of this process share, as processes share a database: the store in memory with a log that
//! keeps ephemeral events too, knocks, and the things that go wrong between a relay and its database.

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
    Admitted, Group, NostrGroupId, Query, RouteHasher, Sealed, admit::Persistence, query::Position,
};
use nostr_protocol::{EventId, Kind, PublicKey, UnixSecs};
use nostr_store::{Cursor, LogEntry, LogPage, Page, PageBounds, Saved, Stats, Store, StoreError, memory::Memory};
use tokio::sync::{RwLock, watch};

/// What all instances share.
#[derive(Default)]
pub struct Shared {
    memory: Memory,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    ephemeral: BTreeMap<Cursor, Sealed>,
    doors: Vec<Arc<Door>>,
}

/// What lies between one instance and the store, to be turned by tests.
pub struct Door {
    /// Every call takes so many milliseconds longer.
    pub delay_ms: AtomicU64,
    /// Every call fails.
    pub is_down: AtomicBool,
    /// The log cannot be read; all else can.
    pub log_is_down: AtomicBool,
    /// The log has lost its rosters.
    pub lost_rosters: AtomicBool,
    /// So many further calls fail, one in two.
    pub hiccups: AtomicU64,
    /// So many further reads of a group's state fail.
    pub group_failures: AtomicU64,
    /// Reads of a group's state that are under way, and the most that were.
    pub group_loads: AtomicU64,
    pub group_loads_most: AtomicU64,
    /// Whoever holds it for writing holds up `events_at`.
    pub fetching: RwLock<()>,
    /// Knocks do not arrive.
    pub loses_knocks: AtomicBool,
    /// Most entries that one call of `after` gives.
    pub log_entries_max: AtomicUsize,
    /// Calls of `after`.
    pub after_calls: AtomicU64,
    /// Calls of `events_at`.
    pub fetches: AtomicU64,
    /// Events that they gave.
    pub fetched: AtomicU64,
    calls: AtomicU64,
    knocks: watch::Sender<u64>,
}

/// The store as one relay has it.
pub struct Instance {
    shared: Arc<Shared>,
    door: Arc<Door>,
}

impl Shared {
    /// An empty store.
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The store for one more relay, and what lies between them.
    pub fn instance(self: &Arc<Self>) -> (Arc<Instance>, Arc<Door>) {
        let door = Arc::new(Door {
            delay_ms: AtomicU64::new(0),
            is_down: AtomicBool::new(false),
            log_is_down: AtomicBool::new(false),
            lost_rosters: AtomicBool::new(false),
            hiccups: AtomicU64::new(0),
            group_failures: AtomicU64::new(0),
            group_loads: AtomicU64::new(0),
            group_loads_most: AtomicU64::new(0),
            fetching: RwLock::new(()),
            loses_knocks: AtomicBool::new(false),
            after_calls: AtomicU64::new(0),
            fetches: AtomicU64::new(0),
            fetched: AtomicU64::new(0),
            calls: AtomicU64::new(0),
            log_entries_max: AtomicUsize::new(usize::MAX),
            knocks: watch::Sender::new(0),
        });
        self.log.lock().expect("no panic while it is held").doors.push(Arc::clone(&door));
        (Arc::new(Instance { shared: Arc::clone(self), door: Arc::clone(&door) }), door)
    }
}

/// Takes one of what is left.
fn take_one(left: &AtomicU64) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

impl Door {
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
        for door in log.doors.iter().filter(|door| !door.loses_knocks.load(Ordering::Relaxed)) {
            door.knocks.send_modify(|knocks| *knocks += 1);
        }
        saved
    }

    fn after(&self, cursor: Cursor, entries_max: usize) -> Result<LogPage, StoreError> {
        let log = self.log.lock().expect("no panic while it is held");
        let stored = now(self.memory.after(cursor, entries_max))?;
        let router = self.memory.route_hasher();
        let ephemeral = log.ephemeral.range(cursor.saturating_add(1)..).take(entries_max);
        let ephemeral = ephemeral.map(|(_, sealed)| LogEntry::new(sealed.clone(), false, &router));
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
        Ok(LogPage { entries, through, is_head })
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
        match self.door.pass().await {
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
        self.door.pass().await?;
        self.shared.memory.scan(query, from, up_to, bounds, now).await
    }

    async fn after(&self, cursor: Cursor, entries_max: usize) -> Result<LogPage, StoreError> {
        self.door.after_calls.fetch_add(1, Ordering::Relaxed);
        self.door.pass().await?;
        if self.door.log_is_down.load(Ordering::Relaxed) {
            return Err(StoreError::Unavailable("the test says so".into()));
        }
        let entries_max = entries_max.min(self.door.log_entries_max.load(Ordering::Relaxed));
        let mut page = self.shared.after(cursor, entries_max)?;
        if self.door.lost_rosters.load(Ordering::Relaxed) {
            page.entries.retain(|entry| entry.kind != Kind::ROSTER);
        }
        Ok(page)
    }

    async fn events_at(&self, cursors: &[Cursor]) -> Result<Vec<Sealed>, StoreError> {
        self.door.fetches.fetch_add(1, Ordering::Relaxed);
        let _open = self.door.fetching.read().await;
        self.door.pass().await?;
        let events = self.shared.events_at(cursors)?;
        self.door.fetched.fetch_add(events.len() as u64, Ordering::Relaxed);
        Ok(events)
    }

    fn head(&self) -> Cursor {
        self.shared.memory.head()
    }

    fn route_hasher(&self) -> RouteHasher {
        self.shared.memory.route_hasher()
    }

    fn notifications(&self) -> Option<watch::Receiver<u64>> {
        Some(self.door.knocks.subscribe())
    }

    async fn holds(&self, id: &EventId) -> Result<bool, StoreError> {
        self.door.pass().await?;
        self.shared.memory.holds(id).await
    }

    async fn group(&self, id: &NostrGroupId) -> Result<(Group, Cursor), StoreError> {
        let loads = self.door.group_loads.fetch_add(1, Ordering::Relaxed) + 1;
        self.door.group_loads_most.fetch_max(loads, Ordering::Relaxed);
        let passed = self.door.pass().await;
        self.door.group_loads.fetch_sub(1, Ordering::Relaxed);
        passed?;
        if take_one(&self.door.group_failures) {
            return Err(StoreError::Unavailable("the test says so".into()));
        }
        self.shared.memory.group(id).await
    }

    async fn groups_of(&self, keys: &[PublicKey]) -> Result<Vec<NostrGroupId>, StoreError> {
        self.door.pass().await?;
        self.shared.memory.groups_of(keys).await
    }

    async fn claim_key_packages(
        &self,
        owner: &PublicKey,
        packages_max: usize,
        now: UnixSecs,
    ) -> Result<Vec<Sealed>, StoreError> {
        self.door.pass().await?;
        self.shared.memory.claim_key_packages(owner, packages_max, now).await
    }

    async fn sweep(&self, now: UnixSecs, events_max: usize) -> Result<usize, StoreError> {
        self.shared.memory.sweep(now, events_max).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.shared.memory.stats().await
    }
}
