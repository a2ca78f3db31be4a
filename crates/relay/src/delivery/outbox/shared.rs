//! The bytes of a live event that waits in the outboxes of many clients: in memory once, counted once in the memory of
//! all connections, and once in that of each payer.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Instant,
};

use bytes::Bytes;
use nostr_extensions::Released;
use parking_lot::Mutex;

use crate::{
    memory::{EventBytes, KeptBytes, Memory, PayerMemory},
    turns::PayerHash,
};

/// An event that waits for clients.
pub(super) struct SharedEvent {
    json: Bytes,
    _bytes: EventBytes,
}

impl SharedEvent {
    fn new(released: &Released, memory: &Arc<Memory>) -> Arc<Self> {
        let bytes = EventBytes::new(memory, released.event().record().len());
        Arc::new(Self { json: released.json(), _bytes: bytes })
    }

    /// Returns whether this is the event that was released: both end in the same place in memory, which this keeps.
    fn is(&self, released: &Released) -> bool {
        self.json.as_ptr_range().end == released.event().record().as_ptr_range().end
    }
}

/// An event that waits for clients of one payer.
pub(super) struct Kept {
    event: Arc<SharedEvent>,
    committed: Instant,
    _bytes: Option<KeptBytes>,
}

impl Kept {
    /// The event's JSON.
    pub(super) fn json(&self) -> &Bytes {
        &self.event.json
    }

    /// Time of the event's commit.
    pub(super) const fn committed(&self) -> Instant {
        self.committed
    }
}

/// The bytes of one event on its way to all shards, while it waits for any client.
#[derive(Default)]
pub(in crate::delivery) struct Sharing(Mutex<Weak<SharedEvent>>);

/// The bytes of one event on its way to the clients of one shard, by their payers. The map has an entry for each payer
/// of several connections, and lives while the event is delivered.
pub(in crate::delivery) struct KeptByPayer<'a> {
    sharing: &'a Sharing,
    committed: Instant,
    event: Option<Arc<SharedEvent>>,
    by_payer: HashMap<PayerHash, Arc<Kept>>,
}

impl<'a> KeptByPayer<'a> {
    /// The bytes of the event of `sharing`, which was committed at this time and waits for nobody in this shard yet.
    pub(in crate::delivery) fn new(sharing: &'a Sharing, committed: Instant) -> Self {
        Self { sharing, committed, event: None, by_payer: HashMap::new() }
    }

    /// Length of the event's JSON.
    pub(super) fn byte_len(&mut self, released: &Released, memory: &Arc<Memory>) -> usize {
        self.event(released, memory).json.len()
    }

    /// The event for a client of this payer.
    pub(super) fn of(
        &mut self,
        payer: Option<&Arc<PayerMemory>>,
        released: &Released,
        memory: &Arc<Memory>,
    ) -> Arc<Kept> {
        let event = Arc::clone(self.event(released, memory));
        let committed = self.committed;
        let kept = |event, payer: Option<&Arc<PayerMemory>>| {
            let bytes_of = |payer| KeptBytes::new(payer, released.event().record().len());
            Arc::new(Kept { event, committed, _bytes: payer.map(bytes_of) })
        };
        match payer.filter(|payer| payer.is_shared()) {
            Some(shared) => {
                Arc::clone(self.by_payer.entry(shared.payer()).or_insert_with(|| kept(event, Some(shared))))
            }
            None => kept(event, payer),
        }
    }

    fn event(&mut self, released: &Released, memory: &Arc<Memory>) -> &Arc<SharedEvent> {
        if self.event.as_ref().is_some_and(|event| !event.is(released)) {
            // Another event was released: it shares nothing with the one before.
            self.event = Some(SharedEvent::new(released, memory));
            self.by_payer.clear();
        }
        self.event.get_or_insert_with(|| self.sharing.event(released, memory))
    }
}

impl Sharing {
    fn event(&self, released: &Released, memory: &Arc<Memory>) -> Arc<SharedEvent> {
        let mut shared = self.0.lock();
        match shared.upgrade().filter(|event| event.is(released)) {
            Some(event) => event,
            None => {
                let event = SharedEvent::new(released, memory);
                *shared = Arc::downgrade(&event);
                event
            }
        }
    }
}
