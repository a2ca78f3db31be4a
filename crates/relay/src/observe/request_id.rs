//! Ids of requests, which tie the log lines of one event or request together.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
};

/// The source of a process's ids. It begins at a place drawn at random, so that the lines of several instances can be
/// told apart.
#[derive(Debug)]
pub(crate) struct RequestIds(AtomicU64);

/// 16 hex digits in logs, which no client is told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct RequestId(u64);

impl RequestIds {
    /// Ids from this place on.
    pub(crate) const fn from(first: u64) -> Self {
        Self(AtomicU64::new(first))
    }

    pub(crate) fn next(&self) -> RequestId {
        RequestId(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
