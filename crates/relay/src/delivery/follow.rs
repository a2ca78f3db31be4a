//! Following the log of a store that other processes write to as well.
//!
//! What this process commits and what others commit takes one road: the log, in commit order. A *pass* reads it from
//! where the last one ended up to its head; [`Follower`](super::follower::Follower) makes one after each knock, be it the store's, the writer's or a
//! request's, and every so often without, for knocks that were lost. This file is what the rest of the relay sees of it.
//!
//! A request reads the archive as far as the log has been followed. So that it finds all that was acknowledged anywhere
//! before it came, it first waits for a pass that began after it ([`Follow::fresh`]); many requests share one.

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
use nostr_store::{Cursor, LogEntry};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use tokio_util::sync::DropGuard;

use crate::{peers::Wake, rate_limit::Debit};

/// Longest wait for a pass; and for how long after its beginning a pass vouches for what is cached.
pub const FOLLOW_SECS_MAX: u64 = 2;
/// Time between two passes that nothing asks for: what a knock that was lost costs at most.
const POLL: Duration = Duration::from_millis(500);
/// Most bytes of own events that wait for the log to come by them; what is beyond is fetched from the store.
const OWN_BYTES_MAX: usize = 16 << 20;

/// See the module.
pub struct Follow {
    /// Passes that have begun.
    begun: AtomicU64,
    completed: watch::Sender<Completed>,
    pub(super) wake: Notify,
    poll: Mutex<Duration>,
    own: Mutex<Own>,
}

/// The last pass that reached the head of the log.
#[derive(Clone, Copy, Default)]
struct Completed {
    number: u64,
    began: Option<Instant>,
}

/// Events that this process committed and the log has not been followed up to.
#[derive(Default)]
struct Own {
    events: BTreeMap<Cursor, Sealed>,
    bytes: usize,
    /// The log has been followed up to here.
    through: Cursor,
}

impl Default for Follow {
    fn default() -> Self {
        Self {
            begun: AtomicU64::new(0),
            completed: watch::Sender::new(Completed::default()),
            wake: Notify::new(),
            poll: Mutex::new(POLL),
            own: Mutex::default(),
        }
    }
}

impl Follow {
    /// Says that there may be something new in the log.
    pub fn knock(&self) {
        self.wake.notify_one();
    }

    /// Waits for a pass that begins after this call: what was committed before it, by whomever, is then known here.
    ///
    /// # Errors
    /// `error:` when there is none within [`FOLLOW_SECS_MAX`].
    pub async fn fresh(&self) -> Result<(), Rejection> {
        let mut completed = self.completed.subscribe();
        let wanted = self.begun.load(Ordering::SeqCst) + 1;
        self.knock();
        let pass = completed.wait_for(|completed| completed.number >= wanted);
        match timeout(Duration::from_secs(FOLLOW_SECS_MAX), pass).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Rejection::error("storage unavailable, try again")),
        }
    }

    /// Whether the log was followed to its head not long ago, so that what is cached may be relied on.
    pub fn is_current(&self) -> bool {
        self.lag().is_some_and(|lag| lag < Duration::from_secs(FOLLOW_SECS_MAX))
    }

    /// How long ago the last pass that reached the head of the log began.
    pub fn lag(&self) -> Option<Duration> {
        self.completed.borrow().began.map(|began| began.elapsed())
    }

    /// Takes in what this process committed, so that it need not be fetched.
    pub fn committed(&self, events: impl IntoIterator<Item = Sealed>) {
        let mut own = self.own.lock();
        for sealed in events {
            let bytes = own.bytes + sealed.byte_len();
            if sealed.cursor() > own.through && bytes <= OWN_BYTES_MAX {
                own.bytes = bytes;
                own.events.insert(sealed.cursor(), sealed);
            }
        }
    }

    /// Sets the time between two passes that nothing asks for; `None` for what it is at the start.
    pub fn set_poll(&self, interval: Option<Duration>) {
        *self.poll.lock() = interval.unwrap_or(POLL);
        self.knock();
    }

    pub(super) fn poll(&self) -> Duration {
        *self.poll.lock()
    }

    /// The event of an entry, where it is at hand.
    pub(super) fn at_hand(&self, entry: &LogEntry) -> Option<Sealed> {
        entry.sealed.clone().or_else(|| self.own.lock().events.get(&entry.cursor).cloned())
    }

    /// Forgets own events up to `cursor`.
    pub(super) fn passed(&self, cursor: Cursor) {
        let mut own = self.own.lock();
        let through = own.through.max(cursor);
        own.through = through;
        own.events = own.events.split_off(&through.saturating_add(1));
        own.bytes = own.events.values().map(Sealed::byte_len).sum();
    }

    /// A pass begins; its number.
    pub(super) fn begin(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The pass of this number reached the head of the log.
    pub(super) fn complete(&self, number: u64, began: Instant) {
        self.completed.send_replace(Completed { number, began: Some(began) });
    }
}

/// Where committed events go on from the writer when the log is followed.
pub struct Handover {
    /// What takes them.
    pub follow: Arc<Follow>,
    /// What tells the other instances, where the store does not.
    pub wake: Option<Arc<Wake>>,
    /// Ends all of that when this is dropped.
    pub ends: DropGuard,
}

impl Handover {
    /// Events were committed for these costs.
    pub(crate) fn committed(&self, events: impl IntoIterator<Item = Sealed>, costs: impl IntoIterator<Item = Debit>) {
        self.follow.committed(events);
        self.follow.knock();
        if let Some(wake) = &self.wake {
            wake.committed(costs);
        }
    }
}
