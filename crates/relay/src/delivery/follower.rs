//! The task that follows the log.
//!
//! It takes a page of the log in these steps:
//!
//! 1. Notes the changes of groups, and takes the states that decide about the page's events, in the order of the log.
//! 2. Lets the archive be read up to the page's end.
//! 3. Asks the index for which entries a subscription waits.
//! 4. Fetches the events of those entries and puts them into the queues of the shards.
//!
//! No event falls between the archive and live delivery. A subscription that opens before step 2 is seen by step 3; one
//! that opens after it finds the page's events in the archive.
//!
//! The follower waits while a queue is full, so that it does not run ahead of delivery.
//!
//! After a pass that fails comes a pause, which grows with each failure. The next pass reads on from the last event
//! that was put into the queues.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use nostr_extensions::{Sealed, effect::LOG_SECS};
use nostr_protocol::{Rejection, UnixSecs, mutation};
use nostr_store::{Cursor, LogEntry, LogPage, Store, StoreError};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Parts,
    follow::{FOLLOW_SECS_MAX, FollowedLog, NotifiedPasses},
    groups::{GroupState, Groups},
    live::Live,
    queue::{Feed, LiveEvent},
};
use crate::{
    observe::metrics::Metrics,
    system::{
        backoff,
        clock::{Asked, Clock as _, StoreClock},
    },
};

/// Most entries of the log that are read at one time.
const PAGE_ENTRIES_MAX: usize = 256;
/// Most bytes of events that are fetched at one time, if each is as long as an event may be.
const FETCH_BYTES_MAX: usize = 16 << 20;
/// Longest wait for one answer of the store, in seconds.
const CALL_SECS_MAX: u64 = 5;

/// Longest gap, in seconds, that a follower can catch up on: a shared store keeps its log for an hour or longer.
const GAP_SECS: u64 = 3_000;
/// The same without an archive, when group messages and direct messages are in the log alone.
const GAP_SECS_WITHOUT_ARCHIVE: u64 = LOG_SECS;
/// The reason that clients are given for the end of their subscriptions after a longer gap.
const GAP: &str = "the relay was cut off from its storage, and what came meanwhile may be gone; subscribe again";

/// Reason that clients are given for the end of their subscriptions when the store is another one.
const REPLACED: &str = "the relay's storage was restored to an older state; subscribe again, at another relay or later";
/// Seconds of the clock's skew of which the operator is told.
const SKEW_TOLD_SECS: u64 = 2;

/// The task's parts; the writer is none of them, so that it can end before the follower does.
pub(super) struct Follower {
    log: Arc<FollowedLog>,
    store: Arc<dyn Store>,
    groups: Arc<Groups>,
    live: Arc<Live>,
    feed: Feed,
    metrics: Arc<Metrics>,
    clock: Arc<StoreClock>,
    /// Set while the operator has been told of the clock's skew.
    is_skew_told: AtomicBool,
    /// Most events that are fetched at one time.
    fetch_max: usize,
    /// See [`GAP_SECS`].
    gap_secs: u64,
}

/// An entry that a subscription waits for, and the state that decides about it.
struct AwaitedEntry {
    entry: LogEntry,
    group: Option<Arc<GroupState>>,
}

impl Follower {
    pub(super) fn new(log: Arc<FollowedLog>, parts: &Parts, feed: Feed) -> Self {
        let policy = parts.policy.now();
        Self {
            log,
            store: Arc::clone(&parts.store),
            groups: Arc::clone(&parts.groups),
            live: Arc::clone(&parts.live),
            feed,
            metrics: Arc::clone(&parts.metrics),
            clock: Arc::clone(&parts.clock),
            is_skew_told: AtomicBool::new(false),
            fetch_max: (FETCH_BYTES_MAX / policy.event_bytes_max.max(1)).clamp(1, PAGE_ENTRIES_MAX),
            gap_secs: if policy.archive_secs.is_some() { GAP_SECS } else { GAP_SECS_WITHOUT_ARCHIVE },
        }
    }

    /// Makes passes until `ended`; `notifications` are the store's.
    pub(super) async fn run(self, notifications: watch::Receiver<u64>, ended: CancellationToken) {
        let _ = ended.run_until_cancelled(self.make_passes(notifications)).await;
    }

    async fn make_passes(self, mut notifications: watch::Receiver<u64>) {
        let mut failures = 0;
        let mut notified_passes = NotifiedPasses::default();
        let mut at_head = None;
        loop {
            let began = Instant::now();
            match self.pass(began, at_head).await {
                Ok(read_at) => {
                    at_head = Some(read_at);
                    if failures > 0 {
                        tracing::info!("the log is followed again");
                    }
                    failures = 0;
                    self.metrics.pass("completed");
                }
                Err(StoreError::Replaced(why)) => {
                    self.end(&why);
                    return;
                }
                Err(error) => {
                    if failures == 0 {
                        tracing::warn!(%error, "the log cannot be followed: live delivery stands still until it can");
                    }
                    self.metrics.pass("failed");
                    sleep(backoff::RECONNECT.pause(failures)).await;
                    failures = failures.saturating_add(1);
                    continue;
                }
            }
            let notified_by_store = async {
                if notifications.changed().await.is_err() {
                    // The store sends no more of them; without this wait the loop would not rest.
                    std::future::pending().await
                }
            };
            let notified_by_others = async {
                tokio::select! {
                    () = notified_by_store => {}
                    () = self.log.notified_from_elsewhere() => {}
                }
                let wait = notified_passes.wait(Instant::now());
                if !wait.is_zero() {
                    sleep(wait).await;
                }
            };
            let is_by_others = tokio::select! {
                () = self.log.notified() => false,
                () = notified_by_others => true,
                () = sleep(self.log.poll().saturating_sub(began.elapsed())) => false,
            };
            if is_by_others {
                notified_passes.begin(Instant::now());
            }
        }
    }

    /// Ends delivery for good: the events that were read and the states of groups may be of commits that never were.
    fn end(&self, why: &str) {
        tracing::error!("the log is not the one that was followed, and this relay answers nothing more: {why}");
        self.log.set_replaced();
        self.metrics.pass("failed");
        self.live.end_all(&Rejection::error(REPLACED));
    }

    /// Reads a page of the log, which tells the store's time.
    async fn page(&self, from: Cursor) -> Result<LogPage, StoreError> {
        let asked = self.clock.ask();
        let page = answer(self.store.after(from, PAGE_ENTRIES_MAX)).await?;
        if let Some(store_ms) = page.read_at_ms {
            self.compare_clocks(asked, store_ms);
        }
        Ok(page)
    }

    /// Compares the machine's clock with the store's.
    fn compare_clocks(&self, asked: Asked, store_ms: u64) {
        self.clock.compare(asked, store_ms);
        let skew_secs = self.clock.skew_ms() as f64 / 1_000.0;
        self.metrics.clock_skew(skew_secs);
        let is_much = skew_secs.abs() > SKEW_TOLD_SECS as f64;
        if is_much != self.is_skew_told.swap(is_much, Ordering::Relaxed) {
            if is_much {
                tracing::warn!(skew_secs, "this machine's clock is off the store's, which the relay goes by: set it");
            } else {
                tracing::info!(skew_secs, "this machine's clock is right again");
            }
        }
    }

    /// Follows the log to its head, which it reached last at the time `at_head`. Gives the time of the first page.
    async fn pass(&self, began: Instant, at_head: Option<UnixSecs>) -> Result<UnixSecs, StoreError> {
        let number = self.log.begin_pass();
        let mut first_at = None;
        // The cached states may lack changes that were made since the last pass, if that pass was long ago.
        let mut doubtful = !self.log.is_current();
        loop {
            let from = self.live.handed();
            let page = self.page(from).await?;
            if first_at.is_none() {
                // Both times are the store's, so a machine's clock that is set makes no gap.
                let read_at = page.read_at_ms.map_or_else(|| self.clock.now(), |ms| ms / 1_000);
                if at_head.is_some_and(|at_head| read_at.saturating_sub(at_head) >= self.gap_secs) {
                    // The subscriptions end before any event that came after the gap is delivered.
                    self.live.end_all(&Rejection::error(GAP));
                }
                first_at = Some(read_at);
            }
            if doubtful {
                self.groups.forget_all(page.through);
                doubtful = false;
            }
            let (is_head, goes_on) = (page.is_head, page.through > from);
            self.take(from, page).await?;
            if is_head {
                break;
            }
            if !goes_on {
                return Err(StoreError::Unavailable("more is written to the log than can be read".to_owned()));
            }
        }
        self.log.complete_pass(number, began);
        Ok(first_at.unwrap_or_default())
    }

    /// Takes in a page of the log after `from`; see the module for the steps.
    async fn take(&self, from: Cursor, page: LogPage) -> Result<(), StoreError> {
        let mut entries = page.entries;
        entries.retain(|entry| entry.cursor > from);
        let (states, failed) = self.states(&entries).await;
        let through = match failed {
            Some(_) if mutation!("follow-skips-failed") => page.through,
            Some(_) => states.len().checked_sub(1).map_or(from, |last| entries[last].cursor),
            None => page.through,
        };
        entries.truncate(states.len());
        if !mutation!("follow-reads-late") {
            self.groups.allow_reading_up_to(through);
        }
        let taken = entries.len();
        let mut awaited = self.awaited(entries, states).await?;
        if mutation!("follow-order") {
            awaited.reverse();
        }
        if mutation!("follow-hands-on-early") {
            self.live.note_handed(through);
        }
        if mutation!("follow-reads-late") {
            self.groups.allow_reading_up_to(through);
        }
        self.metrics.skipped(taken - awaited.len());
        for part in awaited.chunks(self.fetch_max) {
            self.deliver(part).await?;
            tokio::task::yield_now().await;
        }
        self.hand_on(&[], through);
        self.log.forget_up_to(through);
        failed.map_or(Ok(()), Err)
    }

    /// Notes the changes that the entries made, and takes the states of groups that decide about them. It ends at a
    /// state that cannot be read now: the entries after it wait with it.
    async fn states(&self, entries: &[LogEntry]) -> (Vec<Option<Arc<GroupState>>>, Option<StoreError>) {
        let mut states = Vec::with_capacity(entries.len());
        for entry in entries {
            self.groups.note_change(&entry.touches, entry.cursor);
            match self.state(entry).await {
                Ok(state) => states.push(state),
                Err(error) => return (states, Some(error)),
            }
        }
        (states, None)
    }

    /// The state of the entry's group, where a subscription may wait for the entry.
    async fn state(&self, entry: &LogEntry) -> Result<Option<Arc<GroupState>>, StoreError> {
        let Some(id) = entry.group.as_ref().filter(|_| self.live.may_want(entry)) else { return Ok(None) };
        match answer(self.groups.get_at(id, entry.cursor)).await {
            Ok(state) => Ok(Some(state)),
            Err(error @ StoreError::Unavailable(_)) => Err(error),
            Err(error) => {
                tracing::error!(%error, "the state of a group cannot be read: a message was delivered to nobody");
                Ok(None)
            }
        }
    }

    /// The entries that a subscription waits for. Called after the end of the archive has moved past them.
    async fn awaited(
        &self,
        entries: Vec<LogEntry>,
        states: Vec<Option<Arc<GroupState>>>,
    ) -> Result<Vec<AwaitedEntry>, StoreError> {
        let mut awaited = Vec::new();
        for (entry, state) in entries.into_iter().zip(states) {
            let group = match state {
                Some(state) => Some(state),
                // A subscription may have opened since the states were taken.
                None => self.state(&entry).await?,
            };
            if self.live.wants(&entry, group.as_deref()).await {
                awaited.push(AwaitedEntry { entry, group });
            }
        }
        Ok(awaited)
    }

    /// Puts events into the queues in the order of the log, and fetches those that are not at hand. Events that are
    /// gone are left out.
    async fn deliver(&self, awaited: &[AwaitedEntry]) -> Result<(), StoreError> {
        let mut events: Vec<Option<Sealed>> = awaited.iter().map(|it| self.log.at_hand(&it.entry)).collect();
        let missing = awaited.iter().zip(&events).filter(|(_, event)| event.is_none());
        let missing: Vec<Cursor> = missing.map(|(it, _)| it.entry.cursor).collect();
        if !missing.is_empty() {
            let mut fetched = match answer(self.store.events_at(&missing)).await {
                Err(_) if mutation!("follow-fetch") => Vec::new(),
                fetched => fetched?,
            };
            self.metrics.fetched(fetched.len());
            fetched.sort_unstable_by_key(Sealed::cursor);
            for (it, event) in awaited.iter().zip(&mut events).filter(|(_, event)| event.is_none()) {
                let found = fetched.binary_search_by_key(&it.entry.cursor, Sealed::cursor);
                *event = found.ok().map(|at| fetched[at].clone());
            }
        }
        for (AwaitedEntry { entry, group }, event) in awaited.iter().zip(events) {
            if let Some(sealed) = event {
                let (cursor, routes) = (sealed.cursor(), entry.routes.clone());
                self.feed.room().await;
                self.hand_on(&[Arc::new(LiveEvent::of_log(sealed, group.clone(), routes))], cursor);
            }
        }
        Ok(())
    }

    /// Puts events into the queues, with which every event up to `through` is handed on.
    fn hand_on(&self, events: &[Arc<LiveEvent>], through: Cursor) {
        self.feed.put(events, through);
        self.live.note_handed(through);
    }
}

/// The store's answer, or an error when none comes in time.
async fn answer<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match timeout(Duration::from_secs(CALL_SECS_MAX), call).await {
        Ok(answer) => answer,
        Err(_) => Err(StoreError::Unavailable(format!("no answer within {CALL_SECS_MAX} s"))),
    }
}

const _: () =
    assert!(backoff::PAUSE_MS_MAX <= FOLLOW_SECS_MAX * 1_000, "a request that waits for a pass outlasts the pause");
