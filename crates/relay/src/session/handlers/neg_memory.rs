//! The memory that the NIP-77 sessions of all connections take, and each payer's part of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

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
    /// Number of sessions that were ever opened.
    opened: u64,
    /// Payers without a session are forgotten.
    payers: HashMap<PayerHash, OfPayer>,
    /// The payers by their bytes.
    by_bytes: BTreeSet<(usize, PayerHash)>,
}

/// The sessions of one payer, by number: the oldest comes first.
#[derive(Default)]
struct OfPayer {
    bytes: usize,
    sessions: BTreeMap<u64, OfSession>,
}

struct OfSession {
    bytes: usize,
    is_over: Arc<AtomicBool>,
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

impl Taken {
    fn of_payer(&self, payer: PayerHash) -> usize {
        self.payers.get(&payer).map_or(0, |of_payer| of_payer.bytes)
    }

    /// Changes the bytes of a session. It is known from its first byte on.
    fn grow(&mut self, payer: PayerHash, number: u64, (bytes, is_over): (usize, &Arc<AtomicBool>)) {
        let of_payer = self.payers.entry(payer).or_default();
        self.by_bytes.remove(&(of_payer.bytes, payer));
        of_payer.bytes += bytes;
        self.by_bytes.insert((of_payer.bytes, payer));
        let new = || OfSession { bytes: 0, is_over: Arc::clone(is_over) };
        of_payer.sessions.entry(number).or_insert_with(new).bytes += bytes;
        self.bytes += bytes;
    }

    /// Forgets a session, if it is known.
    fn leave(&mut self, payer: PayerHash, number: u64) {
        let Some(of_payer) = self.payers.get_mut(&payer) else { return };
        let Some(session) = of_payer.sessions.remove(&number) else { return };
        self.by_bytes.remove(&(of_payer.bytes, payer));
        of_payer.bytes -= session.bytes;
        self.bytes -= session.bytes;
        if of_payer.sessions.is_empty() {
            self.payers.remove(&payer);
        } else {
            self.by_bytes.insert((of_payer.bytes, payer));
        }
    }

    /// Ends the oldest session of the payer that holds the most, if that is more than `bytes`. The session's bytes are
    /// free for others from now on; its connection gives them back when it looks next.
    fn end_oldest_of_largest(&mut self, bytes: usize) -> bool {
        let Some(&(largest, payer)) = self.by_bytes.last() else { return false };
        let oldest = self.payers.get(&payer).and_then(|of_payer| of_payer.sessions.first_key_value());
        let Some((&number, session)) = oldest.filter(|_| largest > bytes) else { return false };
        session.is_over.store(true, Ordering::Release);
        self.leave(payer, number);
        true
    }
}

/// The memory of one session, given back when it is dropped.
pub(super) struct SessionMemory {
    memory: Arc<NegMemory>,
    payer: PayerHash,
    number: u64,
    bytes: usize,
    /// Set where the session is to end for the sake of others.
    is_over: Arc<AtomicBool>,
    /// The outbox of the session's connection, in whose memory the session counts.
    outbox: Arc<Outbox>,
}

impl SessionMemory {
    /// The reason why a session ends whose payer holds the most.
    pub(super) const OVER: &str = "closed: all NIP-77 sessions hold too many events, and those from your address the \
                                   most; NEG-OPEN it anew over fewer";

    /// The memory of a session that holds nothing yet, on the connection of this outbox.
    pub(super) fn new(memory: &Arc<NegMemory>, payer: PayerHash, outbox: &Arc<Outbox>) -> Self {
        let number = {
            let mut taken = memory.taken.lock();
            taken.opened += 1;
            taken.opened
        };
        let (memory, outbox) = (Arc::clone(memory), Arc::clone(outbox));
        Self { memory, payer, number, bytes: 0, is_over: Arc::default(), outbox }
    }

    /// Returns whether the session is to end for the sake of others.
    pub(super) fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Takes more bytes. When all are taken, the oldest sessions of the payer that holds the most end.
    ///
    /// # Errors
    /// `rate-limited:` at the bound of the payer's sessions, and at the bound of all where no payer holds more than
    /// this one. Nothing is taken then. `error:` where this session is to end itself.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Rejection> {
        let mut taken = self.memory.taken.lock();
        if self.is_over() {
            return Err(Rejection::error(Self::OVER.trim_start_matches("closed: ")));
        }
        let of_payer = taken.of_payer(self.payer) + bytes;
        let refused = if of_payer > self.memory.payer_bytes_max {
            "the open NIP-77 sessions from your address hold too many events; NEG-CLOSE them"
        } else {
            let has_room = loop {
                if taken.bytes + bytes <= self.memory.bytes_max {
                    break true;
                }
                if !taken.end_oldest_of_largest(of_payer) {
                    break false;
                }
            };
            if has_room {
                taken.grow(self.payer, self.number, (bytes, &self.is_over));
                self.bytes += bytes;
                drop(taken);
                self.outbox.holding().grow(bytes);
                return Ok(());
            }
            "the open NIP-77 sessions of all clients hold too many events"
        };
        // A session that is used no more ends within this time.
        Err(Rejection::rate_limited(format!("{refused}; retry in {IDLE_SECS_MAX} s")))
    }
}

impl Drop for SessionMemory {
    fn drop(&mut self) {
        self.outbox.holding().shrink(self.bytes);
        self.memory.taken.lock().leave(self.payer, self.number);
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
        drop(first);
        let mut late = SessionMemory::new(&memory, 12, &outbox);
        late.grow(60).expect("what was given back");
        drop((second, others, late));
        assert_eq!((memory.bytes(), memory.taken.lock().payers.len()), (0, 0));
        assert_eq!(outbox.holding().bytes(), before);
    }

    /// Ten payers that hold all there is do not keep others out: the oldest sessions of the largest payer end, until
    /// all hold as much.
    #[test]
    fn a_newcomer_ends_the_oldest_session_of_the_largest_payer() {
        let (memory, outbox) = (Arc::new(NegMemory::bounded(1_000)), Arc::<Outbox>::default());
        let session = |payer, bytes| {
            let mut session = SessionMemory::new(&memory, payer, &outbox);
            session.grow(bytes).map(|()| session)
        };
        let mut held: Vec<SessionMemory> = (0..20).map(|n| session(n / 2, 50).expect("a part of its own")).collect();
        let newcomer = session(12, 30).expect("room is made");
        let over = |held: &[SessionMemory]| held.iter().filter(|session| session.is_over()).count();
        assert_eq!(over(&held), 1);
        assert!(held.iter().step_by(2).any(SessionMemory::is_over), "the older of two ends");
        let ended = held.iter_mut().find(|session| session.is_over()).expect("one is over");
        assert!(ended.grow(1).is_err(), "a session that is to end takes no more");
        assert_eq!(memory.bytes(), 980);
        held.retain(|session| !session.is_over());
        assert_eq!(memory.bytes(), 980, "its bytes are given back once");
        let crowd: Vec<SessionMemory> = (20..120).map_while(|payer| session(payer, 50).ok()).collect();
        assert!(!newcomer.is_over(), "smaller ones stay");
        assert!(crowd.len() >= 9, "{} newcomers", crowd.len());
        assert!(memory.bytes() <= 1_000);
        drop((held, newcomer, crowd));
        let taken = memory.taken.lock();
        assert_eq!((taken.bytes, taken.payers.len(), taken.by_bytes.len()), (0, 0, 0));
    }
}
