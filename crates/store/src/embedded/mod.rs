//! The embedded store: everything in one LMDB environment (<http://www.lmdb.tech/doc/>), in one process.
//!
//! Events lie in the order of their commits, as they were received; a short index by audience leads to them. One thread
//! writes (`writer`); readers read in place, each in a snapshot of its own, beside it. The index entries are the
//! cost of a write, so a group message has one, beside its id.

mod claims;
mod decide;
mod env;
mod export;
mod fail;
mod groups;
mod histories;
mod hot;
mod ids;
mod keys;
mod log;
mod once;
mod packages;
mod plan;
mod queue;
mod received;
mod recent;
mod records;
mod reply;
mod rows;
mod scan;
mod summed;
mod sweep;
mod tables;
pub mod tools;
mod vanished;
mod write;
mod writer;
mod written;

use std::{
    fs::File,
    ops::Bound,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Instant,
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use heed::{Env, RoTxn, WithTls};
use nostr_extensions::{
    Admitted, Group, GroupStatus, NostrGroupId, Query, RouteHasher, Sealed, mls_gateway::group::ServiceAnswer,
    query::Position,
};
use nostr_protocol::{EventId, PublicKey, UnixSecs};
use parking_lot::Mutex;

use self::{
    claims::Searched,
    fail::Fail,
    groups::Epochs,
    hot::Hot,
    keys::{Stored, cursor_bytes, number_from},
    log::seal,
    queue::{Call, Queue},
    recent::{Most, Progress, Recent},
    scan::Scan,
    tables::{NEXT_CURSOR, Tables},
    vanished::Vanishing,
    writer::Writer,
};
use crate::{
    AppliedAnswer, Claim, Claimed, Cost, Cursor, Listed, LogEntry, LogPage, OnceName, OpenError, Page, PageBounds,
    Receipt, Received, ReceivedBounds, ReceivedPage, RecordName, Saved, Stats, Stock, StockRequest, Store, StoreError,
    StoredRecord, Swept,
    decide::claim::SEARCHES_MAX,
    weight::{REMOVED_ROWS_MAX, give_way},
};

/// Most transactions of one call of [`Store::sweep`]. The writer serves other calls between them.
const SWEEP_ROUNDS_MAX: usize = 50;

/// The guarantee that the store gives when it answers that an event is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The event is on disk: each transaction ends with an fsync, which all waiting callers share.
    Commit,
    /// The operating system has the event; it is on disk at most this much later.
    ///
    /// A crash of this process loses nothing. When the machine loses power, the events acknowledged in the last
    /// interval are lost, and as LMDB then reuses pages before their successors are on disk, the store itself may be
    /// beyond repair: keep backups.
    Interval {
        /// Most milliseconds between two syncs while anything is written.
        ms: u64,
    },
}

/// Options for opening the store.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// The guarantee that the store gives when it answers that an event is stored.
    pub durability: Durability,
    /// Largest size of the store in bytes. So much address space is set aside at once; memory and disk are used as the
    /// store grows. Up to 64 MiB of it (an eighth of a small store) are kept for the removal of expired events.
    pub map_bytes_max: u64,
}

impl Default for Options {
    /// Durable at commit, at most 64 GiB.
    fn default() -> Self {
        Self { durability: Durability::Commit, map_bytes_max: 64 << 30 }
    }
}

/// State that the writer shares with readers outside the environment.
struct Shared {
    head: AtomicU64,
    vanishing: ArcSwap<Vanishing>,
    recent: Recent,
    epochs: Mutex<Epochs>,
    /// Most rows of the log and of the index that one transaction changed.
    most_rows: AtomicUsize,
    /// Most such rows that the calls took which were served together.
    most_rows_served: AtomicUsize,
    /// Damaged marks of removed events that the last sweep passed over.
    damaged_marks: AtomicUsize,
}

/// The store in a directory of its own. Dropping it writes all waiting calls and closes it.
pub struct Embedded {
    env: Env<WithTls>,
    tables: Tables,
    shared: Arc<Shared>,
    hot: Hot,
    route_hasher: RouteHasher,
    secret: [u8; 32],
    queue: Arc<Queue>,
    writer: Option<JoinHandle<()>>,
    map_bytes_max: u64,
    _lock: File,
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded").field("env", &self.env).finish_non_exhaustive()
    }
}

impl Embedded {
    /// Opens the store in `directory`, which is created where it is missing.
    ///
    /// # Errors
    /// [`OpenError`], in words for the operator: the directory cannot be written, is in use by another rnostr, holds no
    /// store, or one that a newer version made.
    pub fn open(directory: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        Self::open_with(directory.as_ref(), options, Most::DEFAULT, REMOVED_ROWS_MAX)
    }

    /// Like [`Embedded::open`], with so few ids in memory that some are written all the time.
    ///
    /// # Errors
    /// See [`Embedded::open`].
    #[cfg(feature = "testing")]
    pub fn open_with_recent_ids(
        directory: impl AsRef<Path>,
        options: Options,
        recent_max: usize,
    ) -> Result<Self, OpenError> {
        let most = Most { ids: recent_max, rows: recent_max };
        Self::open_with(directory.as_ref(), options, most, REMOVED_ROWS_MAX)
    }

    /// Like [`Embedded::open`], but every removal leaves its rows to a sweep.
    ///
    /// # Errors
    /// See [`Embedded::open`].
    #[cfg(feature = "testing")]
    pub fn open_that_leaves_rows(directory: impl AsRef<Path>, options: Options) -> Result<Self, OpenError> {
        Self::open_with(directory.as_ref(), options, Most { ids: 3, rows: 3 }, 0)
    }

    fn open_with(directory: &Path, options: Options, most: Most, removed_rows_max: usize) -> Result<Self, OpenError> {
        let lock = env::lock(directory)?;
        let env = env::open_env(directory, &options)?;
        let tables = Tables::open(&env)?;
        let damaged = |fail: Fail| OpenError::Refused(format!("{}: {}", directory.display(), fail.to_store_error()));
        let secret = tables.secret(&env).map_err(damaged)?;
        let (shared, progress) = recovered(&env, &tables, most).map_err(damaged)?;
        tables.begin_history(&env, shared.head.load(Ordering::Acquire)).map_err(damaged)?;
        let shared = Arc::new(shared);
        let queue = Arc::new(Queue::new());
        let (to_share, to_queue) = (Arc::clone(&shared), Arc::clone(&queue));
        let bounds = (options.durability, removed_rows_max);
        let writer = Writer::new(env.clone(), tables, to_share, to_queue, progress, bounds);
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| OpenError::Refused(format!("the store's writer does not start: {error}")))?;
        let hot = Hot::default();
        Ok(Self {
            env,
            tables,
            shared,
            hot,
            route_hasher: crate::random::route_hasher(),
            secret,
            queue,
            writer: Some(writer),
            map_bytes_max: options.map_bytes_max,
            _lock: lock,
        })
    }

    /// Most rows of the log and of the index that one transaction of this process changed.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn most_rows(&self) -> usize {
        self.shared.most_rows.load(Ordering::Relaxed)
    }

    /// Most rows of the log and of the index that the calls changed which were served together: the next calls wait for
    /// them.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn most_rows_served(&self) -> usize {
        self.shared.most_rows_served.load(Ordering::Relaxed)
    }

    /// Reads in one snapshot.
    fn read<T>(&self, read: impl FnOnce(&RoTxn<'_>) -> Result<T, Fail>) -> Result<T, StoreError> {
        let in_snapshot = || read(&*self.env.read_txn()?);
        in_snapshot().map_err(|fail: Fail| fail.to_store_error())
    }

    fn log_behind(&self, cursor: Cursor, entries_max: usize) -> Result<LogPage, StoreError> {
        let vanishing = self.shared.vanishing.load();
        let head = self.head();
        self.read(|txn| {
            let from = cursor_bytes(cursor.min(keys::CURSOR_MAX));
            let range = (Bound::Excluded(&from[..]), Bound::Unbounded);
            let mut entries = Vec::new();
            for found in self.tables.events.range(txn, &range)? {
                let (key, value) = found?;
                if let Some(LogEntry { cursor: through, .. }) = entries.last().filter(|_| entries.len() >= entries_max)
                {
                    return Ok(LogPage { through: *through, entries, is_head: false, read_at_ms: None });
                }
                let stored = Stored::read(value)?;
                if vanishing.hides(stored.event) || self.tables.is_removed(txn, number_from(key))? {
                    continue;
                }
                let told = self.tables.told(txn, number_from(key), &stored)?;
                let sealed = seal(stored, number_from(key))?;
                entries.push(LogEntry::new(sealed, told, &self.route_hasher));
            }
            let through = entries.last().map_or(cursor, |last| last.cursor).max(head);
            Ok(LogPage { entries, through, is_head: true, read_at_ms: None })
        })
    }

    fn sealed_at(&self, cursors: &[Cursor]) -> Result<Vec<Sealed>, StoreError> {
        let vanishing = self.shared.vanishing.load();
        let mut cursors = cursors.to_vec();
        cursors.sort_unstable();
        self.read(|txn| {
            let mut events = Vec::with_capacity(cursors.len());
            for cursor in cursors {
                let stored = self.tables.event(txn, cursor)?;
                if let Some(stored) = stored.filter(|stored| !vanishing.hides(stored.event)) {
                    events.push(seal(stored, cursor)?);
                }
            }
            Ok(events)
        })
    }

    fn group_now(&self, id: &NostrGroupId) -> Result<(Group, Cursor), StoreError> {
        // The snapshot holds all commits up to `head`. Its log tells whether it holds later ones.
        let head = self.head();
        let epoch = self.shared.epochs.lock().last(id);
        self.read(|txn| {
            let mut status = self.tables.group_status(txn, id)?;
            if let (GroupStatus::Managed(view), Some(last_epoch)) = (&mut status, epoch) {
                Arc::make_mut(view).record.last_epoch = last_epoch;
            }
            let cursor = head.max(self.tables.last_cursor(txn)?);
            Ok((Group { id: id.clone(), status }, cursor))
        })
    }
}

/// The state that a process needs before its first transaction.
fn recovered(env: &Env<WithTls>, tables: &Tables, most: Most) -> Result<(Shared, Progress), Fail> {
    let txn = env.read_txn()?;
    let next = tables.meta.get(&txn, NEXT_CURSOR)?.map_or(1, number_from);
    let head = tables.last_cursor(&txn)?.max(next.saturating_sub(1));
    let vanishing = Vanishing::read(tables, &txn)?;
    let (recent, progress) = Recent::recover(tables, &txn, most)?;
    let shared = Shared {
        head: AtomicU64::new(head),
        vanishing: ArcSwap::from_pointee(vanishing),
        recent,
        epochs: Mutex::default(),
        most_rows: AtomicUsize::new(0),
        most_rows_served: AtomicUsize::new(0),
        damaged_marks: AtomicUsize::new(0),
    };
    Ok((shared, progress))
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(writer) = self.writer.take() {
            // It answers with nothing, and a panic in it has been reported.
            let _ = writer.join();
        }
    }
}

#[async_trait]
impl Store for Embedded {
    async fn save(&self, batch: Vec<Admitted>) -> Vec<Result<Saved, StoreError>> {
        let count = batch.len();
        if count == 0 {
            return Vec::new();
        }
        match self.queue.call(|answer| Call::Save { batch, answer }).await {
            Ok(saved) => saved,
            Err(error) => vec![Err(error); count],
        }
    }

    async fn rehearse(&self, admitted: &Admitted) -> Result<Saved, StoreError> {
        let admitted = Box::new(admitted.clone());
        self.queue.call(|answer| Call::Rehearse { admitted, answer }).await?
    }

    async fn scan(
        &self,
        query: &Query,
        from: Option<Position>,
        up_to: Cursor,
        bounds: PageBounds,
        now: UnixSecs,
    ) -> Result<Page, StoreError> {
        // The rows of events behind the head may not be in memory yet.
        let up_to = up_to.min(self.head());
        let before = scan::Before::take(&self.shared.recent, query, bounds.part);
        let (tables, vanishing) = (&self.tables, &self.shared.vanishing.load());
        let scan = Scan { tables, vanishing, hot: &self.hot, query, before, from, up_to, bounds, now };
        self.read(|txn| scan.run(txn))
    }

    async fn received(
        &self,
        query: &Received,
        from: Receipt,
        up_to: Cursor,
        bounds: ReceivedBounds,
        now: UnixSecs,
    ) -> Result<ReceivedPage, StoreError> {
        // Events behind the head may not stand in the list yet.
        let up_to = up_to.min(self.head());
        let before = received::Before::take(&self.shared.recent.rows, query);
        let (tables, vanishing) = (&self.tables, &self.shared.vanishing.load());
        let list = received::List { tables, vanishing, hot: &self.hot, query, before, from, up_to, bounds, now };
        self.read(|txn| list.run(txn))
    }

    async fn after(&self, cursor: Cursor, entries_max: usize) -> Result<LogPage, StoreError> {
        self.log_behind(cursor, entries_max)
    }

    async fn events_at(&self, cursors: &[Cursor]) -> Result<Vec<Sealed>, StoreError> {
        self.sealed_at(cursors)
    }

    fn route_hasher(&self) -> RouteHasher {
        self.route_hasher
    }

    fn secret(&self) -> [u8; 32] {
        self.secret
    }

    async fn history_at(&self, cursor: Cursor) -> Result<u64, StoreError> {
        self.read(|txn| self.tables.history_at(txn, cursor))
    }

    fn head(&self) -> Cursor {
        self.shared.head.load(Ordering::Acquire)
    }

    async fn holds(&self, id: &EventId, now: UnixSecs) -> Result<bool, StoreError> {
        let recent = self.shared.recent.ids.cursors(id);
        let vanishing = self.shared.vanishing.load();
        self.read(|txn| {
            let found = self.tables.find(txn, id, &recent)?;
            Ok(found.is_some_and(|(_, stored)| stored.expires_at > now && !vanishing.hides(stored.event)))
        })
    }

    async fn group(&self, id: &NostrGroupId) -> Result<(Group, Cursor), StoreError> {
        self.group_now(id)
    }

    async fn known_groups(&self, ids: &[NostrGroupId]) -> Result<Vec<NostrGroupId>, StoreError> {
        self.read(|txn| {
            let mut known = Vec::new();
            for id in ids {
                if self.tables.is_managed(txn, id)? || self.tables.is_unlisted(txn, id)? {
                    known.push(id.clone());
                }
            }
            Ok(known)
        })
    }

    async fn groups_of(&self, keys: &[PublicKey]) -> Result<Vec<NostrGroupId>, StoreError> {
        self.read(|txn| Ok(self.tables.groups_of(txn, keys)?.into_iter().collect()))
    }

    async fn groups_after(
        &self,
        prefix: &str,
        after: Option<&NostrGroupId>,
        most: usize,
    ) -> Result<Listed<NostrGroupId>, StoreError> {
        self.read(|txn| Ok(Listed::of(self.tables.groups_after(txn, prefix, after, most + 1)?, most)))
    }

    async fn owners_after(&self, after: Option<&PublicKey>, most: usize) -> Result<Listed<PublicKey>, StoreError> {
        self.read(|txn| Ok(Listed::of(self.tables.owners_after(txn, after, most + 1)?, most)))
    }

    async fn invited_groups(&self, keys: &[PublicKey]) -> Result<Vec<NostrGroupId>, StoreError> {
        self.read(|txn| Ok(self.tables.invited_groups(txn, keys)?.into_iter().collect()))
    }

    async fn apply_answer(&self, answer: &ServiceAnswer, now: UnixSecs) -> Result<Option<AppliedAnswer>, StoreError> {
        if answer.agrees_with(&self.group_now(&answer.group)?.0.status) {
            return Ok(None);
        }
        let given = answer.clone();
        self.queue.call(|answer| Call::Service { given, now, answer }).await?
    }

    async fn claim_key_packages(&self, claim: &Claim, now: UnixSecs) -> Result<Claimed, StoreError> {
        let mut cost = Cost::default();
        for _ in 0..SEARCHES_MAX {
            let vanishing = self.shared.vanishing.load_full();
            let searched = self.read(|txn| self.tables.search_packages(txn, claim, &vanishing, now))?;
            let candidates = match searched {
                Searched::Answered(claimed) => return Ok(claimed),
                Searched::Found(candidates, spent) => {
                    cost += spent;
                    candidates
                }
            };
            let claim = claim.clone();
            if let Some(claimed) = self.queue.call(|answer| Call::Claim { claim, candidates, now, answer }).await?? {
                return Ok(Claimed { cost, ..claimed });
            }
        }
        Err(StoreError::Unavailable("KeyPackages are taken faster than they are found".to_owned()))
    }

    async fn stock(&self, owner: &PublicKey, now: UnixSecs) -> Result<Stock, StoreError> {
        let vanishing = self.shared.vanishing.load();
        self.read(|txn| self.tables.count_packages(txn, owner, &vanishing, now))
    }

    async fn may_request(&self, request: &StockRequest, now: UnixSecs) -> Result<bool, StoreError> {
        let request = *request;
        self.queue.call(|answer| Call::Request { request, now, answer }).await?
    }

    async fn shares_group(&self, owner: &PublicKey, key: &PublicKey) -> Result<(bool, Cost), StoreError> {
        self.read(|txn| {
            let groups = self.tables.groups_of(txn, &[*key])?;
            let cost = Cost::of_units(1 + groups.len() as u64);
            for group in groups {
                let membership = self.tables.membership(txn, &group, owner)?;
                if membership.is_some_and(|membership| membership.invited.is_none()) {
                    return Ok((true, cost));
                }
            }
            Ok((false, cost))
        })
    }

    async fn use_once(&self, name: &OnceName, until: UnixSecs, now: UnixSecs) -> Result<bool, StoreError> {
        let name = *name;
        self.queue.call(|answer| Call::UseOnce { name, until, now, answer }).await?
    }

    async fn record(&self, name: RecordName, known: u64) -> Result<Option<StoredRecord>, StoreError> {
        let record = self.read(|txn| self.tables.record(txn, name))?;
        Ok(Some(record).filter(|record| record.version != known))
    }

    async fn put_record(&self, name: RecordName, known: u64, value: Vec<u8>) -> Result<bool, StoreError> {
        self.queue.call(|answer| Call::PutRecord { name, known, value, answer }).await?
    }

    async fn sweep(&self, now: UnixSecs, events_max: usize) -> Result<Swept, StoreError> {
        // A backup that was killed would keep LMDB from using any page again that is freed from then on.
        self.env.clear_stale_readers().map_err(|error| Fail::from(error).to_store_error())?;
        let mut all = Swept::default();
        for _ in 0..SWEEP_ROUNDS_MAX {
            let events_max = events_max.saturating_sub(all.removed);
            let started = Instant::now();
            let swept = self.queue.call(|answer| Call::Sweep { now, events_max, answer }).await??;
            all.removed += swept.removed;
            all.expired.extend(swept.expired);
            if !swept.more || swept.removed >= events_max {
                break;
            }
            give_way(started.elapsed()).await;
        }
        Ok(all)
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.queue.call(|answer| Call::Probe { answer }).await?
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.read(|txn| {
            Ok(Stats {
                events: self.tables.events.len(txn)?.saturating_sub(self.tables.removed.len(txn)?),
                groups: self.tables.groups.len(txn)?,
                key_packages: Some(self.tables.packages.len(txn)?),
                bytes_used: writer::bytes_used(&self.tables, txn)?,
                bytes_max: self.map_bytes_max,
            })
        })
    }
}
