//! Followed delivery: the log of a store that other processes may write to, as far as this process has read it.
//!
//! A *pass* reads the log from the end of the last pass to the head. The [`Follower`] makes one after each
//! notification, and one every [`POLL`] without any. A stranger may invent notifications of other instances, so they
//! lead to [`NOTIFIED_PASSES_PER_SEC_MAX`] passes a second at most. This file is the part that the writer and the
//! requests see.
//!
//! A request reads the archive as far as the log has been followed. It first waits for a pass that began after the
//! request came ([`FollowedLog::fresh`]), so that it finds every event that was acknowledged before; many requests
//! share a pass.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use nostr_extensions::Sealed;
use nostr_protocol::{Rejection, mutation};
use nostr_store::{Cursor, LogEntry, Saved, StoreError};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Parts, follower::Follower, groups::Groups, new_events, shard::Shard};
use crate::{
    error::{StartError, storage_unavailable},
    peers::{self, PeerChannel},
    rate_limit::BucketId,
    system::clock::StoreClock,
};

/// Longest wait for a pass, in seconds. The cached states of groups may be relied on for as long after the beginning of
/// the last pass that reached the head of the log.
pub(super) const FOLLOW_SECS_MAX: u64 = 2;
/// Most seconds by which the machine's clock may be off the store's while this process is ready.
const SKEW_SECS_MAX: u64 = 30;
/// Time between two passes without a notification: the longest delay that a lost notification causes.
const POLL: Duration = Duration::from_millis(500);
/// Most passes a second that notifications of other instances lead to.
pub(super) const NOTIFIED_PASSES_PER_SEC_MAX: u32 = 100;
/// Most such passes in a row, after a time with fewer.
pub(super) const NOTIFIED_PASSES_AT_ONCE_MAX: u32 = 20;
/// Most bytes of own events that are kept until the log has been followed past them; the store is asked for the others.
const OWN_BYTES_MAX: usize = 16 << 20;

/// The writer's and the requests' end of followed delivery.
pub(crate) struct Followed {
    log: Arc<FollowedLog>,
    groups: Arc<Groups>,
    clock: Arc<StoreClock>,
    /// The channel to the other instances, where there is one beside the log.
    peers: Option<Arc<PeerChannel>>,
    /// Ends the follower and the tasks of the peer channel when this is dropped.
    _ends: DropGuard,
}

impl Followed {
    pub(super) fn start(
        parts: Parts,
        notifications: watch::Receiver<u64>,
    ) -> Result<(Self, Vec<JoinHandle<()>>), StartError> {
        let log = Arc::<FollowedLog>::default();
        let ended = CancellationToken::new();
        let mut tasks = Vec::new();
        let peers = peers::open(&parts, &log)?.map(|(channel, transport)| {
            tasks.extend(transport.start(&ended));
            channel
        });
        let (feed, shards) = Shard::start(&parts.live, &parts.store, &parts.groups);
        tasks.extend(shards);
        let follower = Follower::new(Arc::clone(&log), &parts, feed);
        tasks.push(tokio::spawn(follower.run(notifications, ended.clone())));
        let Parts { groups, clock, .. } = parts;
        Ok((Self { log, groups, clock, peers, _ends: ended.drop_guard() }, tasks))
    }

    pub(super) fn log(&self) -> &FollowedLog {
        &self.log
    }

    pub(super) fn not_ready(&self) -> Option<&'static str> {
        if self.log.is_replaced() {
            return Some("the store was restored to an older state; restart this relay");
        }
        if self.clock.skew_ms().unsigned_abs() > SKEW_SECS_MAX * 1_000 {
            return Some("this machine's clock is over 30 s off the store's; set it right");
        }
        (!self.log.is_current()).then_some("the store's log cannot be followed")
    }

    pub(super) const fn has_peers(&self) -> bool {
        self.peers.is_some()
    }

    /// Notes the changes that a batch made before the log has been followed up to it.
    pub(super) fn note_ahead(&self, saved: &[Result<Saved, StoreError>]) {
        for sealed in new_events(saved) {
            self.groups.note_change_ahead(&sealed.touches(), sealed.cursor());
        }
    }

    /// Keeps the events at hand for the follower, and tells the follower and the other instances.
    pub(super) fn committed(&self, events: Vec<Sealed>, paid: Vec<BucketId>) {
        self.log.keep(events);
        self.log.notify();
        self.tell_peers(paid);
    }

    /// The channel to the other instances, where there is one.
    pub(super) fn peers(&self) -> Option<&PeerChannel> {
        self.peers.as_deref()
    }

    pub(super) fn tell_of_orders(&self) {
        if let Some(peers) = &self.peers {
            peers.ordered();
        }
    }

    pub(super) fn tell_peers(&self, paid: impl IntoIterator<Item = BucketId>) {
        if let Some(peers) = &self.peers {
            peers.committed(paid);
        }
    }
}

/// The progress of the follower, and the events of this process that it has not come to yet.
pub(crate) struct FollowedLog {
    passes_begun: AtomicU64,
    /// Set once the store is not the one that was followed. No pass is made any more.
    is_replaced: AtomicBool,
    completed: watch::Sender<CompletedPass>,
    /// Notifications of this process: its writer has committed, or a request waits.
    notified: Notify,
    /// Notifications of other instances, by other ways than the store.
    notified_from_elsewhere: Notify,
    poll: Mutex<Duration>,
    own: Mutex<OwnEvents>,
}

/// The last pass that reached the head of the log.
#[derive(Clone, Copy, Default)]
struct CompletedPass {
    number: u64,
    began: Option<Instant>,
}

/// Events that this process committed and the log has not been followed up to.
#[derive(Default)]
struct OwnEvents {
    events: BTreeMap<Cursor, Sealed>,
    bytes: usize,
    /// The log has been followed up to here.
    through: Cursor,
}

impl Default for FollowedLog {
    fn default() -> Self {
        Self {
            passes_begun: AtomicU64::new(0),
            is_replaced: AtomicBool::new(false),
            completed: watch::Sender::new(CompletedPass::default()),
            notified: Notify::new(),
            notified_from_elsewhere: Notify::new(),
            poll: Mutex::new(POLL),
            own: Mutex::default(),
        }
    }
}

/// The rate of passes that notifications of other instances lead to.
#[derive(Default)]
pub(super) struct NotifiedPasses {
    /// The time up to which the passes so far have used the rate up.
    used_to: Option<Instant>,
}

impl NotifiedPasses {
    const EACH: Duration = Duration::from_millis(1_000 / NOTIFIED_PASSES_PER_SEC_MAX as u64);

    /// Time until the next pass may begin.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        let ahead = Self::EACH * (NOTIFIED_PASSES_AT_ONCE_MAX - 1);
        self.used_to.map_or(Duration::ZERO, |used_to| used_to.saturating_duration_since(now).saturating_sub(ahead))
    }

    /// Notes a pass that begins at `now`.
    pub(super) fn begin(&mut self, now: Instant) {
        self.used_to = Some(self.used_to.map_or(now, |used_to| used_to.max(now)) + Self::EACH);
    }
}

impl FollowedLog {
    /// Tells the follower that the log may have grown.
    pub(crate) fn notify(&self) {
        self.notified.notify_one();
    }

    /// Tells the follower that another instance says so.
    pub(crate) fn notify_from_elsewhere(&self) {
        self.notified_from_elsewhere.notify_one();
    }

    /// Waits for a notification of this process. One that came since the last wait ends this wait at once.
    pub(super) async fn notified(&self) {
        self.notified.notified().await;
    }

    /// Waits for a notification of another instance, as [`Self::notified`] does.
    pub(super) async fn notified_from_elsewhere(&self) {
        self.notified_from_elsewhere.notified().await;
    }

    /// Waits for a pass that begins after this call: this process then knows all that any process committed before it.
    ///
    /// # Errors
    /// `error:` when no such pass ends within [`FOLLOW_SECS_MAX`].
    pub(super) async fn fresh(&self) -> Result<(), Rejection> {
        if mutation!("fresh-without-pass") {
            return Ok(());
        }
        if self.is_replaced() {
            return Err(storage_unavailable());
        }
        let mut completed = self.completed.subscribe();
        let next = self.passes_begun.load(Ordering::SeqCst) + u64::from(!mutation!("fresh-old-pass"));
        self.notify();
        let pass = completed.wait_for(|completed| completed.number >= next);
        match timeout(Duration::from_secs(FOLLOW_SECS_MAX), pass).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(storage_unavailable()),
        }
    }

    /// Returns whether a pass reached the head of the log so lately that the cached states of groups may be relied on.
    pub(super) fn is_current(&self) -> bool {
        !self.is_replaced() && self.lag().is_some_and(|lag| lag < Duration::from_secs(FOLLOW_SECS_MAX))
    }

    /// Notes that the store is another one than was followed.
    pub(super) fn set_replaced(&self) {
        self.is_replaced.store(true, Ordering::SeqCst);
    }

    /// Returns whether the store is another one than was followed, so that nothing of it is known.
    pub(super) fn is_replaced(&self) -> bool {
        self.is_replaced.load(Ordering::SeqCst)
    }

    /// Time since the last pass that reached the head of the log began.
    pub(super) fn lag(&self) -> Option<Duration> {
        self.completed.borrow().began.map(|began| began.elapsed())
    }

    /// Keeps events that this process committed, so that the follower need not fetch them.
    fn keep(&self, events: Vec<Sealed>) {
        let mut own = self.own.lock();
        for sealed in events {
            let bytes = own.bytes + sealed.byte_len();
            if sealed.cursor() > own.through && bytes <= OWN_BYTES_MAX {
                own.bytes = bytes;
                own.events.insert(sealed.cursor(), sealed);
            }
        }
    }

    /// Sets the time between two passes without a notification; `None` sets [`POLL`].
    pub(crate) fn set_poll(&self, interval: Option<Duration>) {
        *self.poll.lock() = interval.unwrap_or(POLL);
        self.notify();
    }

    pub(super) fn poll(&self) -> Duration {
        *self.poll.lock()
    }

    /// The event of an entry, where this process has it.
    pub(super) fn at_hand(&self, entry: &LogEntry) -> Option<Sealed> {
        entry.sealed.clone().or_else(|| self.own.lock().events.get(&entry.cursor).cloned())
    }

    /// Forgets own events up to `cursor`, which the log has been followed past.
    pub(super) fn forget_up_to(&self, cursor: Cursor) {
        let mut own = self.own.lock();
        let through = own.through.max(cursor);
        own.through = through;
        own.events = own.events.split_off(&through.saturating_add(1));
        own.bytes = own.events.values().map(Sealed::byte_len).sum();
    }

    /// Begins a pass, and gives its number.
    pub(super) fn begin_pass(&self) -> u64 {
        self.passes_begun.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// Notes that the pass of this number reached the head of the log.
    pub(super) fn complete_pass(&self, number: u64, began: Instant) {
        self.completed.send_replace(CompletedPass { number, began: Some(began) });
    }
}
