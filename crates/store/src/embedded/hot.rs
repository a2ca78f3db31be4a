//! Events that were asked for lately, kept as they lie in the log.
//!
//! To find an event in the log is a descent into a tree that fits no cache of the processor, and most events that are
//! asked for were asked for a moment ago, by the other members of a group. The value at a cursor never changes and a
//! cursor is never used again, so nothing here can be stale. The index and the event itself say whether the event is
//! still there, and still to be shown.

use bytes::Bytes;
use quick_cache::{Weighter, sync::Cache};

use crate::Cursor;

/// Most bytes of events that are kept.
const HOT_BYTES_MAX: u64 = 128 << 20;
/// Events that the cache is laid out for.
const HOT_EVENTS_EXPECTED: usize = 100_000;
/// Bytes that an entry costs beside its value, by estimate.
const ENTRY_BYTES: u64 = 96;

/// See the module.
pub(super) struct Hot(Cache<Cursor, Bytes, Weight>);

#[derive(Clone)]
struct Weight;

impl Weighter<Cursor, Bytes> for Weight {
    fn weight(&self, _: &Cursor, value: &Bytes) -> u64 {
        value.len() as u64 + ENTRY_BYTES
    }
}

impl Default for Hot {
    fn default() -> Self {
        Self(Cache::with_weighter(HOT_EVENTS_EXPECTED, HOT_BYTES_MAX, Weight))
    }
}

impl Hot {
    /// The value in the log at `cursor`, if it is kept.
    pub(super) fn get(&self, cursor: Cursor) -> Option<Bytes> {
        self.0.get(&cursor)
    }

    /// Keeps the value, maybe in the place of others.
    pub(super) fn keep(&self, cursor: Cursor, value: Bytes) {
        self.0.insert(cursor, value);
    }
}

/// A value of the log, in the map or kept.
#[derive(Clone)]
pub(super) enum Value<'t> {
    /// Read in place.
    Mapped(&'t [u8]),
    /// Shared with the cache.
    Kept(Bytes),
}

impl Value<'_> {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Mapped(value) => value,
            Self::Kept(value) => value,
        }
    }
}
