//! The task that follows the log.
//!
//! Of each page, in the order of the log: changes of groups are noted and the states that decide about its events are
//! taken, each as of its event's place; then the archive may be read up to the page's end; then it is asked for which
//! events anybody waits; those are fetched and delivered. Who opens a subscription before the archive's end moves is seen
//! when it is asked who waits; who does after finds the events in the archive. So nothing falls between the two.
//!
//! A pass that fails begins anew behind the last event that was delivered, after a pause that grows.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use nostr_extensions::{Group, Sealed, effect::LOG_SECS};
use nostr_protocol::Rejection;
use nostr_store::{Cursor, LogEntry, LogPage, Store, StoreError};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::follow::{FOLLOW_SECS_MAX, Follow};
use crate::{app::App, backoff, clock::Clock, groups::Groups, live::Live, metrics::Metrics};

/// Most entries of the log that are read at one time.
const PAGE_ENTRIES_MAX: usize = 256;
/// Most bytes of events that are fetched at one time, if each is as long as an event may be.
const FETCH_BYTES_MAX: usize = 16 << 20;
/// Longest wait for one answer of the store.
const CALL_SECS_MAX: u64 = 5;

/// Who has not followed the log for so long has missed what was kept for less, in seconds: with an archive, the log that a
/// store keeps for an hour; without, group messages and direct messages.
const GAP_SECS: u64 = 3_000;
const GAP_SECS_WITHOUT_ARCHIVE: u64 = LOG_SECS;
/// What clients are told then.
const GAP: &str = "the relay was cut off from its storage, and what came meanwhile may be gone; subscribe again";

/// What the task needs, without the writer, so that the writer can end before it.
pub struct Follower {
    follow: Arc<Follow>,
    store: Arc<dyn Store>,
    groups: Arc<Groups>,
    live: Arc<Live>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    /// Most events that are fetched at one time.
    fetch_max: usize,
    /// See [`GAP_SECS`].
    gap_secs: u64,
}

/// An entry that somebody waits for.
struct Wanted {
    entry: LogEntry,
    group: Option<Arc<Group>>,
}

impl Follower {
    /// The parts of `app` that it takes.
    #[must_use]
    pub fn new(follow: Arc<Follow>, app: &App) -> Self {
        Self {
            follow,
            store: Arc::clone(&app.store),
            groups: Arc::clone(&app.groups),
            live: Arc::clone(&app.live),
            metrics: Arc::clone(&app.metrics),
            clock: Arc::clone(&app.clock),
            gap_secs: if app.policy.archive_secs.is_some() { GAP_SECS } else { GAP_SECS_WITHOUT_ARCHIVE },
            fetch_max: (FETCH_BYTES_MAX / app.config.limitation.max_event_length.max(1)).clamp(1, PAGE_ENTRIES_MAX),
        }
    }

    /// Makes passes until `ended`.
    pub async fn run(self, ended: CancellationToken) {
        let _ = ended.run_until_cancelled(self.make_passes()).await;
    }

    async fn make_passes(self) {
        let mut knocks = self.store.notifications();
        let mut failures = 0;
        let mut at_head = self.clock.now();
        loop {
            let began = Instant::now();
            let began_at = self.clock.now();
            if began_at.saturating_sub(at_head) >= self.gap_secs {
                // Before anything is delivered that lies behind the gap.
                self.live.end_all(&Rejection::error(GAP));
            }
            match self.pass(began).await {
                Ok(()) => {
                    at_head = began_at;
                    if failures > 0 {
                        tracing::info!("the log is followed again");
                    }
                    failures = 0;
                    self.metrics.pass("completed");
                }
                Err(error) => {
                    if failures == 0 {
                        tracing::warn!(%error, "the log cannot be followed: live delivery stands still until it can");
                    }
                    self.metrics.pass("failed");
                    sleep(backoff::after(failures)).await;
                    failures = failures.saturating_add(1);
                    continue;
                }
            }
            let knocked = async {
                match &mut knocks {
                    Some(receiver) => match receiver.changed().await {
                        Ok(()) => {}
                        // No more of these come; without this the loop would not rest.
                        Err(_) => std::future::pending().await,
                    },
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.follow.wake.notified() => {}
                () = knocked => {}
                () = sleep(self.follow.poll().saturating_sub(began.elapsed())) => {}
            }
        }
    }

    /// Follows the log to its head.
    async fn pass(&self, began: Instant) -> Result<(), StoreError> {
        let number = self.follow.begin();
        // Whoever could not follow for long relies on nothing that it knew before.
        let mut doubtful = !self.follow.is_current();
        loop {
            let from = self.live.cursor();
            let page = answer(self.store.after(from, PAGE_ENTRIES_MAX)).await?;
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
        self.follow.complete(number, began);
        Ok(())
    }

    /// Takes in a page of the log behind `from`.
    async fn take(&self, from: Cursor, page: LogPage) -> Result<(), StoreError> {
        let mut entries = page.entries;
        entries.retain(|entry| entry.cursor > from);
        let (states, failed) = self.states(&entries).await;
        let through = match failed {
            Some(_) => states.len().checked_sub(1).map_or(from, |last| entries[last].cursor),
            None => page.through,
        };
        entries.truncate(states.len());
        self.groups.applied_up_to(through);
        let skipped = entries.len();
        let wanted = self.wanted(entries, states).await?;
        self.metrics.skipped(skipped - wanted.len());
        for part in wanted.chunks(self.fetch_max) {
            self.deliver(part).await?;
            tokio::task::yield_now().await;
        }
        self.live.advance(through);
        self.follow.passed(through);
        failed.map_or(Ok(()), Err)
    }

    /// Notes what the entries changed, and takes the states of groups that decide about them. At a state that cannot be
    /// read now it ends: what is behind waits with it.
    async fn states(&self, entries: &[LogEntry]) -> (Vec<Option<Arc<Group>>>, Option<StoreError>) {
        let mut states = Vec::with_capacity(entries.len());
        for entry in entries {
            self.groups.changed(entry.kind, &entry.touches, entry.cursor);
            match self.state(entry).await {
                Ok(state) => states.push(state),
                Err(error) => return (states, Some(error)),
            }
        }
        (states, None)
    }

    /// The state of the entry's group, where anybody may wait for the entry.
    async fn state(&self, entry: &LogEntry) -> Result<Option<Arc<Group>>, StoreError> {
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

    /// The entries that anybody waits for. Asked after the archive's end has moved past them.
    async fn wanted(&self, entries: Vec<LogEntry>, states: Vec<Option<Arc<Group>>>) -> Result<Vec<Wanted>, StoreError> {
        let mut wanted = Vec::new();
        for (entry, state) in entries.into_iter().zip(states) {
            let group = match state {
                Some(state) => Some(state),
                // Where somebody has begun to wait since the states were taken.
                None => self.state(&entry).await?,
            };
            if self.live.wants(&entry, group.as_deref()) {
                wanted.push(Wanted { entry, group });
            }
        }
        Ok(wanted)
    }

    /// Delivers events in the order of the log, and fetches those that are not at hand. Those that are gone are left out.
    async fn deliver(&self, wanted: &[Wanted]) -> Result<(), StoreError> {
        let mut events: Vec<Option<Sealed>> = wanted.iter().map(|it| self.follow.at_hand(&it.entry)).collect();
        let missing = wanted.iter().zip(&events).filter(|(_, event)| event.is_none());
        let missing: Vec<Cursor> = missing.map(|(it, _)| it.entry.cursor).collect();
        if !missing.is_empty() {
            let mut fetched = answer(self.store.events_at(&missing)).await?;
            self.metrics.fetched(fetched.len());
            fetched.sort_unstable_by_key(Sealed::cursor);
            for (it, event) in wanted.iter().zip(&mut events).filter(|(_, event)| event.is_none()) {
                let found = fetched.binary_search_by_key(&it.entry.cursor, Sealed::cursor);
                *event = found.ok().map(|at| fetched[at].clone());
            }
        }
        for (Wanted { entry, group }, event) in wanted.iter().zip(events) {
            let Some(sealed) = event else { continue };
            let delivered = self.live.deliver_along(&entry.routes, &sealed, group.as_deref(), self.clock.now());
            self.metrics.delivered(delivered);
        }
        Ok(())
    }
}

/// The store's answer, if it comes.
async fn answer<T>(call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
    match timeout(Duration::from_secs(CALL_SECS_MAX), call).await {
        Ok(answer) => answer,
        Err(_) => Err(StoreError::Unavailable(format!("no answer within {CALL_SECS_MAX} s"))),
    }
}

const _: () =
    assert!(backoff::PAUSE_MS_MAX <= FOLLOW_SECS_MAX * 1_000, "who waits for a pass outlasts the pause before it");
