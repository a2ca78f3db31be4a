//! Whether the store takes events, as far as the writer has seen.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use nostr_store::{Saved, StoreError};
use parking_lot::Mutex;

/// Longest time, in seconds, that a batch may take before clients are sent to another instance.
const SAVE_SECS_MAX: u64 = 5;

/// The outcome of the last batch, and the beginning of the one that is being saved.
#[derive(Debug, Default)]
pub(crate) struct WriteHealth {
    fails: AtomicBool,
    saving_since: Mutex<Option<Instant>>,
}

impl WriteHealth {
    /// Whether events are refused because the store takes none, or wait for a batch that takes too long.
    pub(crate) fn is_bad(&self) -> bool {
        let late = |since: Instant| since.elapsed() >= Duration::from_secs(SAVE_SECS_MAX);
        self.fails() || self.saving_since.lock().is_some_and(late)
    }

    /// Whether the store took no event of the last batch.
    pub(super) fn fails(&self) -> bool {
        self.fails.load(Ordering::Acquire)
    }

    pub(super) fn begin(&self) {
        *self.saving_since.lock() = Some(Instant::now());
    }

    pub(super) fn end(&self, saved: &[Result<Saved, StoreError>]) {
        *self.saving_since.lock() = None;
        // A store that cannot hold one event takes others.
        self.note(!saved.iter().all(|it| matches!(it, Err(StoreError::Unavailable(_) | StoreError::Full(_)))));
    }

    /// Notes whether the store takes events.
    pub(super) fn note(&self, takes: bool) {
        if self.fails.swap(!takes, Ordering::AcqRel) == takes {
            match takes {
                true => tracing::info!("the store takes events again"),
                false => tracing::warn!("the store takes no events: this instance is not ready until it does"),
            }
        }
    }
}
