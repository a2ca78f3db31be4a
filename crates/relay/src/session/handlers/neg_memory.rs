//! The memory that the NIP-77 sessions of all connections take, and each payer's part of it.

use std::{collections::HashMap, sync::Arc};

use nostr_protocol::Rejection;
use parking_lot::Mutex;

use super::neg::IDLE_SECS_MAX;
use crate::{delivery::Outbox, turns::PayerHash};

/// Most bytes of the sessions of all connections: five million events.
const BYTES_MAX: usize = 200 << 20;
/// Part of [`BYTES_MAX`] that the sessions of one payer take at most: one in this number.
const PAYERS_AT_BOUND: usize = 10;

/// See the module.
pub(crate) struct NegMemory {
    taken: Mutex<Taken>,
    bytes_max: usize,
    payer_bytes_max: usize,
}

#[derive(Default)]
struct Taken {
    bytes: usize,
    /// Payers without a session are forgotten.
    by_payer: HashMap<PayerHash, usize>,
}

impl Default for NegMemory {
    fn default() -> Self {
        Self::bounded(BYTES_MAX)
    }
}

impl NegMemory {
    fn bounded(bytes_max: usize) -> Self {
        Self { taken: Mutex::default(), bytes_max, payer_bytes_max: bytes_max / PAYERS_AT_BOUND }
    }

    /// Bytes that all sessions take, approximately.
    #[cfg(test)]
    fn bytes(&self) -> usize {
        self.taken.lock().bytes
    }
}

/// The memory of one session, given back when it is dropped.
pub(super) struct SessionMemory {
    memory: Arc<NegMemory>,
    payer: PayerHash,
    bytes: usize,
    /// The outbox of the session's connection, in whose memory the session counts.
    outbox: Arc<Outbox>,
}

impl SessionMemory {
    /// The memory of a session that holds nothing yet, on the connection of this outbox.
    pub(super) fn new(memory: &Arc<NegMemory>, payer: PayerHash, outbox: &Arc<Outbox>) -> Self {
        Self { memory: Arc::clone(memory), payer, bytes: 0, outbox: Arc::clone(outbox) }
    }

    /// Takes more bytes.
    ///
    /// # Errors
    /// `rate-limited:` at the bound of all sessions, or of the payer's. Nothing is taken then.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Rejection> {
        let mut taken = self.memory.taken.lock();
        let of_payer = taken.by_payer.get(&self.payer).copied().unwrap_or(0);
        let refused = if of_payer + bytes > self.memory.payer_bytes_max {
            "the open NIP-77 sessions from your address hold too many events; NEG-CLOSE them"
        } else if taken.bytes + bytes > self.memory.bytes_max {
            "the open NIP-77 sessions of all clients hold too many events"
        } else {
            taken.bytes += bytes;
            taken.by_payer.insert(self.payer, of_payer + bytes);
            self.bytes += bytes;
            drop(taken);
            self.outbox.holding().grow(bytes);
            return Ok(());
        };
        // A session that is used no more ends within this time.
        Err(Rejection::rate_limited(format!("{refused}; retry in {IDLE_SECS_MAX} s")))
    }
}

impl Drop for SessionMemory {
    fn drop(&mut self) {
        self.outbox.holding().shrink(self.bytes);
        let mut taken = self.memory.taken.lock();
        taken.bytes -= self.bytes;
        let left = taken.by_payer.get(&self.payer).map_or(0, |bytes| bytes - self.bytes);
        if left == 0 {
            taken.by_payer.remove(&self.payer);
        } else {
            taken.by_payer.insert(self.payer, left);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sessions_of_one_payer_take_a_tenth_and_give_it_back() {
        let (memory, outbox) = (Arc::new(NegMemory::bounded(1_000)), Arc::<Outbox>::default());
        let before = outbox.holding().bytes();
        let mut first = SessionMemory::new(&memory, 1, &outbox);
        let mut second = SessionMemory::new(&memory, 1, &outbox);
        first.grow(60).expect("within its part");
        second.grow(40).expect("within its part");
        let refused = second.grow(1).expect_err("the payer's part is taken");
        assert!(refused.to_string().ends_with("; retry in 60 s"), "{refused}");
        let others: Vec<SessionMemory> = (2..11)
            .map(|payer| {
                let mut session = SessionMemory::new(&memory, payer, &outbox);
                session.grow(100).expect("a part of its own");
                session
            })
            .collect();
        assert_eq!((memory.bytes(), outbox.holding().bytes() - before), (1_000, 1_000));
        let mut late = SessionMemory::new(&memory, 12, &outbox);
        assert!(late.grow(1).is_err(), "all is taken");
        drop(first);
        late.grow(60).expect("what was given back");
        drop((second, others, late));
        assert_eq!((memory.bytes(), memory.taken.lock().by_payer.len()), (0, 0));
        assert_eq!(outbox.holding().bytes(), before);
    }
}
