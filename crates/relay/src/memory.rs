//! Memory that clients can make grow: outboxes, filters, NIP-77 sessions, messages under way.
//!
//! Each connection has a [`Holding`], into which everything that its client makes grow is counted. Together they stay
//! below `[server] memory_bytes_max`: growth above it ends the connection that holds the most, the newest among equals,
//! until the rest fits. The client is told why, and may connect again.
//!
//! Bytes are counted where they are held, by estimate, and given back there. Memory that all clients share (caches, the
//! store's pages, events that wait for a batch, buckets) has bounds of its own.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// Bytes that a connection takes while its client asks for nothing, by measurement.
const CONNECTION_BYTES: usize = 16 << 10;

/// The bytes of all connections.
pub(crate) struct Memory {
    bytes_max: usize,
    used: AtomicUsize,
    opened: AtomicU64,
    holdings: Mutex<HashMap<u64, Holder>>,
}

/// One connection, as the search for the largest sees it.
struct Holder {
    bytes: Arc<AtomicUsize>,
    shed: CancellationToken,
}

/// The bytes that one connection holds.
pub(crate) struct Holding {
    memory: Arc<Memory>,
    /// Number of the connection: the newest has the highest.
    number: u64,
    bytes: Arc<AtomicUsize>,
    shed: CancellationToken,
}

impl Memory {
    /// Room for `bytes_max` bytes.
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, used: AtomicUsize::new(0), opened: AtomicU64::new(0), holdings: Mutex::default() })
    }

    /// The holding of a new connection.
    pub(crate) fn open(self: &Arc<Self>) -> Holding {
        let number = self.opened.fetch_add(1, Ordering::Relaxed);
        let (bytes, shed) = (Arc::<AtomicUsize>::default(), CancellationToken::new());
        self.holdings.lock().insert(number, Holder { bytes: Arc::clone(&bytes), shed: shed.clone() });
        let holding = Holding { memory: Arc::clone(self), number, bytes, shed };
        holding.grow(CONNECTION_BYTES);
        holding
    }

    /// Bytes that all connections hold.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Ends connections, the largest and newest first, until the rest fits.
    fn shed(&self) {
        let holdings = self.holdings.lock();
        let ending: usize = holdings.values().filter(|it| it.shed.is_cancelled()).map(Holder::bytes).sum();
        let mut excess = self.used().saturating_sub(ending).saturating_sub(self.bytes_max);
        while excess > 0 {
            let open = holdings.iter().filter(|(_, holder)| !holder.shed.is_cancelled());
            let Some((_, largest)) = open.max_by_key(|(number, holder)| (holder.bytes(), **number)) else { return };
            largest.shed.cancel();
            excess = excess.saturating_sub(largest.bytes().max(1));
        }
    }
}

impl Holder {
    fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Holding {
    /// Counts bytes that the connection holds from now on. Above the bound some connection ends, which may be this one.
    pub(crate) fn grow(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let used = self.memory.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if used > self.memory.bytes_max && bytes > 0 {
            self.memory.shed();
        }
    }

    /// Counts bytes out that the connection no longer holds.
    pub(crate) fn shrink(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.memory.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Counts bytes that the connection holds until the guard is dropped.
    pub(crate) fn hold(&self, bytes: usize) -> Held<'_> {
        self.grow(bytes);
        Held { holding: self, bytes }
    }

    /// Bytes that the connection holds.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Cancelled when the connection is to end for want of memory.
    pub(crate) const fn shed(&self) -> &CancellationToken {
        &self.shed
    }
}

/// Bytes that a connection holds for a while.
pub(crate) struct Held<'a> {
    holding: &'a Holding,
    bytes: usize,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.holding.shrink(self.bytes);
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        self.memory.holdings.lock().remove(&self.number);
        self.memory.used.fetch_sub(self.bytes(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_shed(holding: &Holding) -> bool {
        holding.shed.is_cancelled()
    }

    #[test]
    fn the_largest_and_newest_connection_ends_first() {
        let memory = Memory::new(10 * CONNECTION_BYTES);
        let [small, large, larger] = [0; 3].map(|_| memory.open());
        large.grow(3 * CONNECTION_BYTES);
        larger.grow(3 * CONNECTION_BYTES);
        assert!([&small, &large, &larger].into_iter().all(|holding| !is_shed(holding)), "all fit");
        small.grow(CONNECTION_BYTES + 1);
        assert!(is_shed(&larger) && !is_shed(&large) && !is_shed(&small), "of two equal ones the newer ends");
        small.grow(CONNECTION_BYTES);
        assert!(!is_shed(&large), "the connection that ends is about to give enough back");
    }

    #[test]
    fn bytes_are_given_back() {
        let memory = Memory::new(usize::MAX);
        let (first, second) = (memory.open(), memory.open());
        first.grow(1_000);
        first.shrink(400);
        assert_eq!(memory.used(), 2 * CONNECTION_BYTES + 600);
        drop(first);
        assert_eq!(memory.used(), CONNECTION_BYTES);
        drop(second);
        assert_eq!((memory.used(), memory.holdings.lock().len()), (0, 0));
    }
}
