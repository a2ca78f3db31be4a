//! The shared store: one in memory for all instances, each behind a link of its own that delays, fails and loses.
//!
//! Every commit is noted in the [`Log`], in its order: that is the log by which the model decides.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use nostr_extensions::{
    Admitted, Group, NostrGroupId, Query, RouteHasher, Sealed, admit::Persistence, mls_gateway::group::ServiceAnswer,
    query::Position,
};
use nostr_protocol::{EventId, PublicKey, UnixSecs};
use nostr_store::{
    AppliedAnswer, Claim, Claimed, Cost, Cursor, Listed, LogEntry, LogPage, OnceName, Page, PageBounds, Receipt,
    Received, ReceivedBounds, ReceivedPage, RecordName, Repetition, Saved, Stats, Stock, StockRequest, Store,
    StoreError, StoredRecord, Swept, memory::Memory,
};
use tokio::sync::watch;

use crate::{chance::Chance, event::Event, log::Log, seam};

/// The part that all instances share.
pub struct Shared {
    memory: Memory,
    ephemeral: Mutex<BTreeMap<Cursor, Sealed>>,
    links: Mutex<Vec<Arc<Link>>>,
    log: Arc<Mutex<Log>>,
}

/// Faults between one instance and the store, in percent of the calls unless a unit is named.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// Least and greatest milliseconds of each of a call's two journeys.
    pub delay_ms: (u64, u64),
    /// Every call fails.
    pub is_down: bool,
    /// Calls that fail before they have an effect.
    pub failing: u64,
    /// Calls whose effect happens and whose answer is lost.
    pub losing_answers: u64,
    /// Reads of the log that fail.
    pub failing_log: u64,
    /// Reads of events by their places and of groups that fail; each of them takes up to [`READ_MS_MAX`] longer.
    pub failing_reads: u64,
    /// Notifications that do not arrive.
    pub losing_notifications: u64,
    /// Notifications that arrive twice.
    pub doubling_notifications: u64,
}

/// Longest time by which such a read takes longer.
const READ_MS_MAX: u64 = 250;

/// The link between one instance and the store.
pub struct Link {
    faults: Mutex<Faults>,
    chance: Mutex<Chance>,
    notifications: watch::Sender<u64>,
    /// The last commit that this instance knows of.
    known: AtomicU64,
}

/// The store as one instance sees it.
pub struct Instance {
    shared: Arc<Shared>,
    link: Arc<Link>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("no panic while it is held")
}

/// The answer of a call of the store in memory, which never waits.
fn now<T>(call: impl Future<Output = T>) -> T {
    call.now_or_never().expect("the store in memory does not wait")
}

impl Shared {
    /// An empty store that notes its commits in `log`.
    pub fn new(log: Arc<Mutex<Log>>, memory: Memory) -> Arc<Self> {
        Arc::new(Self { memory, ephemeral: Mutex::default(), links: Mutex::default(), log })
    }

    /// The store for one more instance.
    pub fn instance(self: &Arc<Self>, chance: Chance) -> (Arc<Instance>, Arc<Link>) {
        let link = Arc::new(Link {
            faults: Mutex::default(),
            chance: Mutex::new(chance),
            notifications: watch::Sender::new(0),
            known: AtomicU64::new(self.memory.head()),
        });
        lock(&self.links).push(Arc::clone(&link));
        (Arc::new(Instance { shared: Arc::clone(self), link: Arc::clone(&link) }), link)
    }

    /// Forgets the link of an instance that is gone.
    pub fn forget(&self, link: &Arc<Link>) {
        lock(&self.links).retain(|other| !Arc::ptr_eq(other, link));
    }

    fn save(&self, batch: Vec<Admitted>) -> Vec<Result<Saved, StoreError>> {
        let events: Vec<(Event, bool)> = batch
            .iter()
            .map(|admitted| {
                let is_ephemeral = admitted.persistence() == Persistence::Ephemeral;
                (Event::of_json(&admitted.event().json()), is_ephemeral)
            })
            .collect();
        let saved = now(self.memory.save(batch));
        for (saved, (event, is_ephemeral)) in saved.iter().zip(events) {
            let Ok(Saved::New(sealed)) = saved else {
                if let Ok(Saved::Advised(advised)) = saved {
                    lock(&self.log).committed(advised.0.cursor(), event);
                }
                continue;
            };
            if is_ephemeral {
                lock(&self.ephemeral).insert(sealed.cursor(), sealed.clone());
            }
            lock(&self.log).committed(sealed.cursor(), event);
        }
        self.notify();
        saved
    }

    fn notify(&self) {
        for link in lock(&self.links).iter() {
            let faults = *lock(&link.faults);
            let mut chance = lock(&link.chance);
            if faults.is_down || chance.is(faults.losing_notifications) {
                continue;
            }
            let times = if chance.is(faults.doubling_notifications) { 2 } else { 1 };
            for _ in 0..times {
                let wait = Duration::from_millis(chance.between(faults.delay_ms.0, faults.delay_ms.1));
                let link = Arc::clone(link);
                tokio::spawn(async move {
                    tokio::time::sleep(wait).await;
                    link.notifications.send_modify(|notifications| *notifications += 1);
                });
            }
        }
    }

    fn after(&self, cursor: Cursor, entries_max: usize) -> Result<LogPage, StoreError> {
        let stored = now(self.memory.after(cursor, entries_max))?;
        let router = self.memory.route_hasher();
        let ephemeral = lock(&self.ephemeral);
        let ephemeral = ephemeral.range(cursor.saturating_add(1)..).take(entries_max);
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
        let read_at_ms = Some(seam::BEGIN_SECS * 1_000 + seam::elapsed_ms());
        Ok(LogPage { entries, through, is_head, read_at_ms })
    }

    fn events_at(&self, cursors: &[Cursor]) -> Result<Vec<Sealed>, StoreError> {
        let mut events = now(self.memory.events_at(cursors))?;
        let ephemeral = lock(&self.ephemeral);
        events.extend(cursors.iter().filter_map(|cursor| ephemeral.get(cursor)).cloned());
        events.sort_unstable_by_key(Sealed::cursor);
        Ok(events)
    }

    fn claim(&self, claim: &Claim, at: UnixSecs) -> Result<Claimed, StoreError> {
        let claimed = now(self.memory.claim_key_packages(claim, at))?;
        let used_up = claimed.given.iter().filter(|given| given.is_used_up);
        let used_up: Vec<String> = used_up.map(|given| given.sealed.position().id.to_hex()).collect();
        if matches!(claimed.repetition, Repetition::First) {
            lock(&self.log).claimed(&used_up);
        }
        Ok(claimed)
    }
}

impl Link {
    /// Sets the faults from now on.
    pub fn set(&self, faults: Faults) {
        *lock(&self.faults) = faults;
    }

    /// The faults of now.
    pub fn faults(&self) -> Faults {
        *lock(&self.faults)
    }

    fn drawn(&self, percent: u64) -> bool {
        percent > 0 && lock(&self.chance).is(percent)
    }

    async fn travel(&self) {
        let (from, to) = self.faults().delay_ms;
        let wait_ms = lock(&self.chance).between(from, to);
        if wait_ms == 0 {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        }
    }

    /// Whether a read of events by their places, or of a group, goes through.
    async fn read(&self) -> Result<(), StoreError> {
        let failing = self.faults().failing_reads;
        if failing > 0 {
            let wait_ms = lock(&self.chance).below(READ_MS_MAX);
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        }
        if self.drawn(failing) {
            return Err(StoreError::Unavailable("the simulation fails this read".into()));
        }
        Ok(())
    }

    /// A call with its two journeys.
    async fn call<T>(&self, call: impl FnOnce() -> Result<T, StoreError> + Send) -> Result<T, StoreError> {
        self.travel().await;
        let faults = self.faults();
        if faults.is_down || self.drawn(faults.failing) {
            return Err(StoreError::Unavailable("the simulation fails this call".into()));
        }
        let answer = call();
        self.travel().await;
        let faults = self.faults();
        if faults.is_down || self.drawn(faults.losing_answers) {
            return Err(StoreError::Unavailable("the simulation loses this answer".into()));
        }
        answer
    }
}

#[async_trait]
impl Store for Instance {
    async fn save(&self, batch: Vec<Admitted>) -> Vec<Result<Saved, StoreError>> {
        let count = batch.len();
        match self.link.call(|| Ok(self.shared.save(batch))).await {
            Ok(saved) => {
                let cursors = saved.iter().filter_map(|saved| match saved {
                    Ok(Saved::New(sealed)) => Some(sealed.cursor()),
                    Ok(Saved::Advised(advised)) => Some(advised.0.cursor()),
                    _ => None,
                });
                self.link.known.fetch_max(cursors.max().unwrap_or(0), Ordering::Relaxed);
                saved
            }
            Err(error) => vec![Err(error); count],
        }
    }

    async fn rehearse(&self, admitted: &Admitted) -> Result<Saved, StoreError> {
        self.link.call(|| now(self.shared.memory.rehearse(admitted))).await
    }

    async fn scan(
        &self,
        query: &Query,
        from: Option<Position>,
        up_to: Cursor,
        bounds: PageBounds,
        at: UnixSecs,
    ) -> Result<Page, StoreError> {
        self.link.call(|| now(self.shared.memory.scan(query, from, up_to, bounds, at))).await
    }

    async fn received(
        &self,
        query: &Received,
        from: Receipt,
        up_to: Cursor,
        bounds: ReceivedBounds,
        at: UnixSecs,
    ) -> Result<ReceivedPage, StoreError> {
        self.link.call(|| now(self.shared.memory.received(query, from, up_to, bounds, at))).await
    }

    async fn after(&self, cursor: Cursor, entries_max: usize) -> Result<LogPage, StoreError> {
        let failing = self.link.faults().failing_log;
        if self.link.drawn(failing) {
            return Err(StoreError::Unavailable("the simulation fails this read of the log".into()));
        }
        let page = self.link.call(|| self.shared.after(cursor, entries_max)).await?;
        self.link.known.fetch_max(page.through, Ordering::Relaxed);
        Ok(page)
    }

    async fn events_at(&self, cursors: &[Cursor]) -> Result<Vec<Sealed>, StoreError> {
        self.link.read().await?;
        self.link.call(|| self.shared.events_at(cursors)).await
    }

    fn head(&self) -> Cursor {
        self.link.known.load(Ordering::Relaxed)
    }

    fn secret(&self) -> [u8; 32] {
        self.shared.memory.secret()
    }

    fn route_hasher(&self) -> RouteHasher {
        self.shared.memory.route_hasher()
    }

    fn notifications(&self) -> Option<watch::Receiver<u64>> {
        Some(self.link.notifications.subscribe())
    }

    async fn holds(&self, id: &EventId, at: UnixSecs) -> Result<bool, StoreError> {
        self.link.call(|| now(self.shared.memory.holds(id, at))).await
    }

    async fn group(&self, id: &NostrGroupId) -> Result<(Group, Cursor), StoreError> {
        let group = self.link.call(|| now(self.shared.memory.group(id))).await?;
        self.link.read().await?;
        Ok(group)
    }

    async fn known_groups(&self, ids: &[NostrGroupId]) -> Result<Vec<NostrGroupId>, StoreError> {
        self.link.call(|| now(self.shared.memory.known_groups(ids))).await
    }

    async fn groups_of(&self, keys: &[PublicKey]) -> Result<Vec<NostrGroupId>, StoreError> {
        self.link.call(|| now(self.shared.memory.groups_of(keys))).await
    }

    async fn groups_after(
        &self,
        prefix: &str,
        after: Option<&NostrGroupId>,
        most: usize,
    ) -> Result<Listed<NostrGroupId>, StoreError> {
        self.link.call(|| now(self.shared.memory.groups_after(prefix, after, most))).await
    }

    async fn owners_after(&self, after: Option<&PublicKey>, most: usize) -> Result<Listed<PublicKey>, StoreError> {
        self.link.call(|| now(self.shared.memory.owners_after(after, most))).await
    }

    async fn invited_groups(&self, keys: &[PublicKey]) -> Result<Vec<NostrGroupId>, StoreError> {
        self.link.call(|| now(self.shared.memory.invited_groups(keys))).await
    }

    async fn apply_answer(&self, answer: &ServiceAnswer, at: UnixSecs) -> Result<Option<AppliedAnswer>, StoreError> {
        self.link.call(|| now(self.shared.memory.apply_answer(answer, at))).await
    }

    async fn claim_key_packages(&self, claim: &Claim, at: UnixSecs) -> Result<Claimed, StoreError> {
        self.link.call(|| self.shared.claim(claim, at)).await
    }

    async fn stock(&self, owner: &PublicKey, at: UnixSecs) -> Result<Stock, StoreError> {
        self.link.call(|| now(self.shared.memory.stock(owner, at))).await
    }

    async fn may_request(&self, request: &StockRequest, at: UnixSecs) -> Result<bool, StoreError> {
        self.link.call(|| now(self.shared.memory.may_request(request, at))).await
    }

    async fn shares_group(&self, owner: &PublicKey, key: &PublicKey) -> Result<(bool, Cost), StoreError> {
        self.link.call(|| now(self.shared.memory.shares_group(owner, key))).await
    }

    async fn history_at(&self, cursor: Cursor) -> Result<u64, StoreError> {
        self.link.call(|| now(self.shared.memory.history_at(cursor))).await
    }

    async fn use_once(&self, name: &OnceName, until: UnixSecs, at: UnixSecs) -> Result<bool, StoreError> {
        self.link.call(|| now(self.shared.memory.use_once(name, until, at))).await
    }

    async fn record(&self, name: RecordName, known: u64) -> Result<Option<StoredRecord>, StoreError> {
        self.link.call(|| now(self.shared.memory.record(name, known))).await
    }

    async fn put_record(&self, name: RecordName, known: u64, value: Vec<u8>) -> Result<bool, StoreError> {
        self.link.call(|| now(self.shared.memory.put_record(name, known, value))).await
    }

    async fn sweep(&self, at: UnixSecs, events_max: usize) -> Result<Swept, StoreError> {
        self.link.call(|| now(self.shared.memory.sweep(at, events_max))).await
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.link.call(|| now(self.shared.memory.stats())).await
    }
}
