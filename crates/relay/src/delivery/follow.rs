//! Followed delivery: the log of a store that other processes may write to, as far as this process has read it.
//!
//! A *pass* reads the log from the end of the last pass to the head. The [`Follower`] makes one after each
//! notification, and one every [`POLL`] without any. This file is the part that the writer and the requests see.
//!
//! A request reads the archive as far as the log has been followed. It first waits for a pass that began after the
//! request came ([`FollowedLog::fresh`]), so that it finds every event that was acknowledged before; many requests
//! share a pass.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use nostr_extensions::Sealed;
use nostr_protocol::Rejection;
use nostr_store::{Cursor, LogEntry, Saved, StoreError};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Parts, follower::Follower, groups::Groups, new_events};
use crate::{
    error::{StartError, storage_unavailable},
    peers::{self, PeerChannel},
    rate_limit::BucketId,
};

/// Longest wait for a pass, in seconds. The cached states of groups may be relied on for as long after the beginning of
/// the last pass that reached the head of the log.
pub(super) const FOLLOW_SECS_MAX: u64 = 2;
/// Time between two passes without a notification: the longest delay that a lost notification causes.
const POLL: Duration = Duration::from_millis(500);
/// Most bytes of own events that are kept until the log has been followed past them; the store is asked for the others.
const OWN_BYTES_MAX: usize = 16 << 20;

/// The writer's and the requests' end of followed delivery.
pub(crate) struct Followed {
    log: Arc<FollowedLog>,
    groups: Arc<Groups>,
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
        let follower = Follower::new(Arc::clone(&log), &parts);
        tasks.push(tokio::spawn(follower.run(notifications, ended.clone())));
        Ok((Self { log, groups: parts.groups, peers, _ends: ended.drop_guard() }, tasks))
    }

    pub(super) fn log(&self) -> &FollowedLog {
        &self.log
    }

    pub(super) const fn has_peers(&self) -> bool {
        self.peers.is_some()
    }

    /// Notes the changes that a batch made before the log has been followed up to it.
    pub(super) fn note_ahead(&self, saved: &[Result<Saved, StoreError>]) {
        for sealed in new_events(saved) {
            self.groups.note_change_ahead(sealed.kind(), &sealed.touches(), sealed.cursor());
        }
    }

    /// Keeps the events at hand for the follower, and tells the follower and the other instances.
    pub(super) fn committed(&self, events: Vec<Sealed>, paid: Vec<BucketId>) {
        self.log.keep(events);
        self.log.notify();
        self.tell_peers(paid);
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
    completed: watch::Sender<CompletedPass>,
    notified: Notify,
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
            completed: watch::Sender::new(CompletedPass::default()),
            notified: Notify::new(),
            poll: Mutex::new(POLL),
            own: Mutex::default(),
        }
    }
}

impl FollowedLog {
    /// Tells the follower that the log may have grown.
    pub(crate) fn notify(&self) {
        self.notified.notify_one();
    }

    /// Waits for a notification. One that came since the last wait ends this wait at once.
    pub(super) async fn notified(&self) {
        self.notified.notified().await;
    }

    /// Waits for a pass that begins after this call: this process then knows all that any process committed before it.
    ///
    /// # Errors
    /// `error:` when no such pass ends within [`FOLLOW_SECS_MAX`].
    pub(super) async fn fresh(&self) -> Result<(), Rejection> {
        let mut completed = self.completed.subscribe();
        let next = self.passes_begun.load(Ordering::SeqCst) + 1;
        self.notify();
        let pass = completed.wait_for(|completed| completed.number >= next);
        match timeout(Duration::from_secs(FOLLOW_SECS_MAX), pass).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(storage_unavailable()),
        }
    }

    /// Returns whether a pass reached the head of the log so lately that the cached states of groups may be relied on.
    pub(super) fn is_current(&self) -> bool {
        self.lag().is_some_and(|lag| lag < Duration::from_secs(FOLLOW_SECS_MAX))
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
