//! Memory that clients can make grow: outboxes, filters, reads, NIP-77 sessions, messages under way.
//!
//! Each connection has a [`Holding`], into which everything that its client makes grow is counted. Together they stay
//! below `[server] memory_bytes_max`: growth above it ends connections of the payer that holds the most, its largest
//! ones first and the newest among equals, until one part in [`FREED_PARTS`] of the bound is free. The clients are told
//! why, and may connect again.
//!
//! A live event that waits for many clients is in memory once. It counts once in the sum of all ([`EventBytes`]), and
//! once in the sum of each payer that it waits for ([`KeptBytes`]), however many connections the payer has.
//!
//! A search for the payer that holds the most looks at every connection. It ends with a part of the bound free, so
//! memory grows by that part before the next one, and the relay looks at one connection for each 256 bytes of growth.
//!
//! Bytes are counted where they are held, by estimate, and given back there. Memory that all clients share (caches, the
//! store's pages, events that wait for a batch, buckets) has bounds of its own.

#[cfg(test)]
mod tests;

use std::{
    collections::{BinaryHeap, HashMap, hash_map::Entry},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use nostr_protocol::mutation;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::turns::PayerHash;

/// Bytes that a connection takes while its client asks for nothing, by measurement.
const CONNECTION_BYTES: usize = 16 << 10;
/// Most bytes that the unfinished messages of one payer hold together.
const UNFINISHED_BYTES_MAX: usize = 32 << 20;
/// Bytes of unfinished messages are counted for a payer in steps of so many.
pub(crate) const UNFINISHED_STEP_BYTES: usize = 16 << 10;
/// Part of the bound that is free after connections were ended: one in so many.
const FREED_PARTS: usize = 64;

/// The bytes of all connections.
pub(crate) struct Memory {
    bytes_max: usize,
    used: AtomicUsize,
    /// Bytes that connections are about to give back, because they end.
    ending: AtomicUsize,
    connections: Mutex<Connections>,
    /// Connections that were looked at so far.
    #[cfg(test)]
    looked_at: AtomicUsize,
}

#[derive(Default)]
struct Connections {
    /// Number of connections that were ever opened.
    opened: u64,
    open: HashMap<u64, Connection>,
    payers: HashMap<PayerHash, Arc<PayerMemory>>,
}

/// One connection, as the search for the largest sees it.
struct Connection {
    holder: Arc<Holder>,
    payer: Arc<PayerMemory>,
}

/// The bytes of one connection.
#[derive(Default)]
struct Holder {
    /// Bytes that the connection alone holds.
    own: AtomicUsize,
    /// Bytes of live events that wait for its client.
    kept: AtomicUsize,
    /// Bytes of it that are in [`Memory::ending`].
    ending: AtomicUsize,
    /// Bytes of the client's unfinished message. They change under the lock of all connections.
    unfinished: AtomicUsize,
    shed: CancellationToken,
}

/// The bytes that the connections of one payer share.
pub(crate) struct PayerMemory {
    payer: PayerHash,
    connections: AtomicUsize,
    /// Bytes of live events that wait for its clients, each event once.
    kept: AtomicUsize,
    /// Bytes of its clients' unfinished messages.
    unfinished: AtomicUsize,
}

/// The bytes that one connection holds.
pub(crate) struct Holding {
    memory: Arc<Memory>,
    /// Number of the connection: the newest has the highest.
    number: u64,
    holder: Arc<Holder>,
}

impl Memory {
    /// Room for `bytes_max` bytes.
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self {
            bytes_max,
            used: AtomicUsize::new(0),
            ending: AtomicUsize::new(0),
            connections: Mutex::default(),
            #[cfg(test)]
            looked_at: AtomicUsize::new(0),
        })
    }

    /// The holding of a new connection, for which `payer` pays.
    pub(crate) fn open(self: &Arc<Self>, payer: PayerHash) -> Holding {
        let holder = Arc::<Holder>::default();
        let mut connections = self.connections.lock();
        connections.opened += 1;
        let number = connections.opened;
        let connection = Connection { holder: Arc::clone(&holder), payer: connections.payer(payer) };
        connections.open.insert(number, connection);
        drop(connections);
        let holding = Holding { memory: Arc::clone(self), number, holder };
        holding.grow(CONNECTION_BYTES);
        holding
    }

    /// Bytes that all connections hold.
    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Bytes of live events that wait for the clients of a payer.
    #[cfg(test)]
    pub(crate) fn kept(&self, payer: PayerHash) -> usize {
        self.connections.lock().payers.get(&payer).map_or(0, |payer| payer.kept.load(Ordering::Relaxed))
    }

    fn grow(&self, bytes: usize) {
        let used = self.used.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if used > self.bytes_max && self.excess(self.bytes_max) > 0 {
            self.shed();
        }
    }

    /// Bytes over `bytes_max` that are there once the connections that end are gone.
    fn excess(&self, bytes_max: usize) -> usize {
        self.used().saturating_sub(self.ending.load(Ordering::Relaxed)).saturating_sub(bytes_max)
    }

    /// Ends connections of the payer that holds the most, the largest and newest first, until a part of the bound is
    /// free.
    #[cold]
    fn shed(&self) {
        let connections = self.connections.lock();
        if self.excess(self.bytes_max) == 0 {
            // Another thread was here.
            return;
        }
        #[cfg(test)]
        self.looked_at.fetch_add(connections.open.len(), Ordering::Relaxed);
        let mut excess = self.excess(self.bytes_max - self.bytes_max / FREED_PARTS);
        let mut payers = connections.by_payer();
        while let Some(mut payer) = payers.pop().filter(|_| excess > 0) {
            let Some((bytes, number)) = payer.connections.pop() else { continue };
            if let Some(connection) = connections.open.get(&number) {
                self.end(&connection.holder, bytes);
                excess = excess.saturating_sub(bytes.max(1));
            }
            payer.bytes = payer.bytes.saturating_sub(bytes);
            payers.push(payer);
        }
    }

    fn end(&self, holder: &Holder, bytes: usize) {
        // In this order, so that no more is given back than was expected.
        self.ending.fetch_add(bytes, Ordering::Relaxed);
        holder.ending.store(bytes, Ordering::Release);
        holder.shed.cancel();
    }
}

impl Connections {
    /// The memory of a payer, with one connection more.
    fn payer(&mut self, payer: PayerHash) -> Arc<PayerMemory> {
        let zero = || AtomicUsize::new(0);
        let new = || Arc::new(PayerMemory { payer, connections: zero(), kept: zero(), unfinished: zero() });
        let payer = Arc::clone(self.payers.entry(payer).or_insert_with(new));
        payer.connections.fetch_add(1, Ordering::Relaxed);
        payer
    }

    /// Takes a connection off its payer. A payer without connections is forgotten.
    fn leave(&mut self, payer: &PayerMemory) {
        if payer.connections.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.payers.remove(&payer.payer);
        }
    }

    /// The payers of connections that do not end yet, the one that holds the most first.
    fn by_payer(&self) -> BinaryHeap<OfPayer> {
        let mut payers: HashMap<PayerHash, OfPayer> = HashMap::new();
        for (number, Connection { holder, payer }) in &self.open {
            let of_payer = match payers.entry(payer.payer) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    new.insert(OfPayer { bytes: payer.kept.load(Ordering::Relaxed), connections: BinaryHeap::new() })
                }
            };
            if holder.shed.is_cancelled() {
                of_payer.bytes = of_payer.bytes.saturating_sub(holder.kept.load(Ordering::Relaxed));
            } else {
                of_payer.bytes += holder.own.load(Ordering::Relaxed);
                of_payer.connections.push((holder.bytes(), *number));
            }
        }
        payers.into_values().collect()
    }
}

/// The connections of one payer that do not end yet. The greatest holds the most; among equal payers it has the newest
/// of the largest connections.
struct OfPayer {
    bytes: usize,
    /// Bytes and number of each.
    connections: BinaryHeap<(usize, u64)>,
}

impl OfPayer {
    fn rank(&self) -> (usize, Option<&(usize, u64)>) {
        (self.bytes, self.connections.peek())
    }
}

impl Ord for OfPayer {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl PartialOrd for OfPayer {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for OfPayer {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for OfPayer {}

impl Holder {
    fn bytes(&self) -> usize {
        self.own.load(Ordering::Relaxed) + self.kept.load(Ordering::Relaxed)
    }
}

impl Holding {
    /// Counts bytes that the connection holds from now on. Above the bound some connection ends, which may be this one.
    pub(crate) fn grow(&self, bytes: usize) {
        if bytes > 0 {
            self.holder.own.fetch_add(bytes, Ordering::Relaxed);
            self.memory.grow(bytes);
        }
    }

    /// Counts bytes out that the connection no longer holds.
    pub(crate) fn shrink(&self, bytes: usize) {
        if bytes > 0 {
            self.holder.own.fetch_sub(bytes, Ordering::Relaxed);
            self.memory.used.fetch_sub(bytes, Ordering::Relaxed);
            self.given_back(bytes);
        }
    }

    /// Counts bytes that the connection holds until the guard is dropped.
    pub(crate) fn hold(&self, bytes: usize) -> Held<'_> {
        self.grow(bytes);
        Held { holding: self, bytes }
    }

    /// Notes the bytes of the live events that wait for the client. One caller at a time.
    pub(crate) fn note_kept(&self, bytes: usize) {
        let before = self.holder.kept.load(Ordering::Relaxed);
        self.holder.kept.store(bytes, Ordering::Relaxed);
        self.given_back(before.saturating_sub(bytes));
    }

    /// Notes the bytes of the client's unfinished message. Returns whether those of its payer fit; fewer bytes always
    /// do.
    pub(crate) fn note_unfinished(&self, bytes: usize) -> bool {
        let connections = self.memory.connections.lock();
        let Some(Connection { payer, .. }) = connections.open.get(&self.number) else { return true };
        let before = self.holder.unfinished.swap(bytes, Ordering::Relaxed);
        payer.unfinished.fetch_sub(before, Ordering::Relaxed);
        let of_payer = payer.unfinished.fetch_add(bytes, Ordering::Relaxed) + bytes;
        bytes <= before || of_payer <= UNFINISHED_BYTES_MAX
    }

    /// A connection that ends has given some of its bytes back.
    fn given_back(&self, bytes: usize) {
        if self.holder.ending.load(Ordering::Acquire) == 0 {
            return;
        }
        let take = |ending: usize| Some(ending.saturating_sub(bytes));
        if let Ok(before) = self.holder.ending.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            self.memory.ending.fetch_sub(before.min(bytes), Ordering::Relaxed);
        }
    }

    /// Bytes that the connection holds, with those of events that wait for other clients as well.
    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.holder.bytes()
    }

    /// The memory of all connections.
    pub(crate) const fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// The memory that the connections of this one's payer share.
    pub(crate) fn payer(&self) -> Option<Arc<PayerMemory>> {
        self.memory.connections.lock().open.get(&self.number).map(|connection| Arc::clone(&connection.payer))
    }

    /// Lets another payer answer for the connection.
    pub(crate) fn change_payer(&self, payer: PayerHash) {
        let mut connections = self.memory.connections.lock();
        let payer = connections.payer(payer);
        let before = match connections.open.get_mut(&self.number) {
            Some(connection) => {
                let unfinished = self.holder.unfinished.load(Ordering::Relaxed);
                payer.unfinished.fetch_add(unfinished, Ordering::Relaxed);
                connection.payer.unfinished.fetch_sub(unfinished, Ordering::Relaxed);
                std::mem::replace(&mut connection.payer, payer)
            }
            None => payer,
        };
        connections.leave(&before);
    }

    /// Cancelled when the connection is to end for want of memory.
    pub(crate) fn shed(&self) -> &CancellationToken {
        &self.holder.shed
    }
}

/// Bytes that a connection holds for a while.
pub(crate) struct Held<'a> {
    holding: &'a Holding,
    bytes: usize,
}

impl Held<'_> {
    /// Holds so many bytes from now on.
    pub(crate) fn set(&mut self, bytes: usize) {
        match bytes.checked_sub(self.bytes) {
            Some(more) => self.holding.grow(more),
            None => self.holding.shrink(self.bytes - bytes),
        }
        self.bytes = bytes;
    }

    /// Returns whether the connection is to end for want of memory.
    pub(crate) fn is_shed(&self) -> bool {
        self.holding.shed().is_cancelled()
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.holding.shrink(self.bytes);
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        if mutation!("memory-kept") {
            return;
        }
        let mut connections = self.memory.connections.lock();
        if let Some(Connection { payer, .. }) = connections.open.remove(&self.number) {
            payer.unfinished.fetch_sub(self.holder.unfinished.load(Ordering::Relaxed), Ordering::Relaxed);
            connections.leave(&payer);
        }
        drop(connections);
        self.memory.used.fetch_sub(self.holder.own.load(Ordering::Relaxed), Ordering::Relaxed);
        self.memory.ending.fetch_sub(self.holder.ending.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// The bytes of a live event that waits for clients, in the sum of all connections.
pub(crate) struct EventBytes {
    memory: Arc<Memory>,
    bytes: usize,
}

impl EventBytes {
    /// Counts the event until this is dropped.
    pub(crate) fn new(memory: &Arc<Memory>, bytes: usize) -> Self {
        memory.grow(bytes);
        Self { memory: Arc::clone(memory), bytes }
    }
}

impl Drop for EventBytes {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The bytes of a live event that waits for clients of one payer.
pub(crate) struct KeptBytes {
    payer: Arc<PayerMemory>,
    bytes: usize,
}

impl KeptBytes {
    /// Counts the event until this is dropped.
    pub(crate) fn new(payer: &Arc<PayerMemory>, bytes: usize) -> Self {
        payer.kept.fetch_add(bytes, Ordering::Relaxed);
        Self { payer: Arc::clone(payer), bytes }
    }
}

impl Drop for KeptBytes {
    fn drop(&mut self) {
        self.payer.kept.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

impl PayerMemory {
    /// The payer's number.
    pub(crate) const fn payer(&self) -> PayerHash {
        self.payer
    }

    /// Returns whether the payer has several connections.
    pub(crate) fn is_shared(&self) -> bool {
        self.connections.load(Ordering::Relaxed) > 1
    }
}
