//! The memory that the NIP-77 sessions of all connections take, and each payer's part of it.

use std::{collections::HashMap, sync::Arc};

use nostr_protocol::Rejection;
use parking_lot::Mutex;

use super::neg::IDLE_SECS_MAX;
use crate::turns::PayerHash;

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
    #[allow(dead_code, reason = "the bound on all memory of clients reads it")]
    pub(crate) fn bytes(&self) -> usize {
        self.taken.lock().bytes
    }
}

/// The memory of one session, given back when it is dropped.
pub(super) struct SessionMemory {
    memory: Arc<NegMemory>,
    payer: PayerHash,
    bytes: usize,
}

impl SessionMemory {
    /// The memory of a session that holds nothing yet.
    pub(super) fn new(memory: &Arc<NegMemory>, payer: PayerHash) -> Self {
        Self { memory: Arc::clone(memory), payer, bytes: 0 }
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
            return Ok(());
        };
        // A session that is used no more ends within this time.
        Err(Rejection::rate_limited(format!("{refused}; retry in {IDLE_SECS_MAX} s")))
    }
}

impl Drop for SessionMemory {
    fn drop(&mut self) {
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
        let memory = Arc::new(NegMemory::bounded(1_000));
        let mut first = SessionMemory::new(&memory, 1);
        let mut second = SessionMemory::new(&memory, 1);
        first.grow(60).expect("within its part");
        second.grow(40).expect("within its part");
        let refused = second.grow(1).expect_err("the payer's part is taken");
        assert!(refused.to_string().ends_with("; retry in 60 s"), "{refused}");
        let others: Vec<SessionMemory> = (2..11)
            .map(|payer| {
                let mut session = SessionMemory::new(&memory, payer);
                session.grow(100).expect("a part of its own");
                session
            })
            .collect();
        assert_eq!(memory.bytes(), 1_000);
        let mut late = SessionMemory::new(&memory, 12);
        assert!(late.grow(1).is_err(), "all is taken");
        drop(first);
        late.grow(60).expect("what was given back");
        drop((second, others, late));
        assert_eq!((memory.bytes(), memory.taken.lock().by_payer.len()), (0, 0));
    }
}
