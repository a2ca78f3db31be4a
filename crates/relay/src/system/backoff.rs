//! Pauses before this crate tries again to reach a service that is away.

use nostr_store::backoff::Backoff;

/// Longest pause before the log or Redis is tried again.
pub(crate) const PAUSE_MS_MAX: u64 = 2_000;
/// Pauses before the log or Redis is tried again.
pub(crate) const RECONNECT: Backoff = Backoff::new(50, PAUSE_MS_MAX);

/// Longest pause before a start tries again to reach the database.
const START_PAUSE_MS_MAX: u64 = 5_000;
/// Pauses before a start tries again to reach the database.
pub(crate) const START: Backoff = Backoff::new(250, START_PAUSE_MS_MAX);
