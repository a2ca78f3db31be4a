//! The time of day, which tests can set. Nothing else in this crate asks the system for it, except the timestamps of
//! log lines.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{SystemTime, UNIX_EPOCH},
};

use nostr_protocol::UnixSecs;

/// A source of Unix time.
pub trait Clock: Send + Sync + 'static {
    /// Milliseconds since 1970.
    fn now_ms(&self) -> u64;

    /// Seconds since 1970.
    fn now(&self) -> UnixSecs {
        self.now_ms() / 1_000
    }
}

/// The machine's clock.
#[derive(Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "this module is the one source of the time of day")]
    fn now_ms(&self) -> u64 {
        // A clock before 1970 reads as 1970: every event is then too far ahead and is refused with that said.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
    }
}

/// A clock that stands still until it is set, for tests.
#[derive(Debug, Default)]
pub struct SetClock(AtomicU64);

impl SetClock {
    /// A clock that shows `secs`.
    #[must_use]
    pub fn at(secs: UnixSecs) -> Self {
        Self(AtomicU64::new(secs * 1_000))
    }

    /// Sets the clock to `secs`.
    pub fn set(&self, secs: UnixSecs) {
        self.0.store(secs * 1_000, Ordering::Relaxed);
    }
}

impl Clock for SetClock {
    fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
