//! Calls that wait for the writer: bounded in events, so that callers wait and memory does not grow.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use nostr_extensions::{Admitted, Restored, mls_gateway::group::ServiceAnswer};
use nostr_protocol::UnixSecs;
use parking_lot::{Condvar, Mutex};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use super::sweep::Swept;
use crate::{
    AppliedAnswer, Claim, Claimed, OnceName, RecordName, Saved, StockRequest, StoreError,
    decide::claim::Candidate,
    moving::{Imported, Record},
};

/// Most events that wait or are being written.
const WAITING_EVENTS_MAX: usize = 16_384;
/// Most events that the writer takes at one time; it may divide them further.
const TAKEN_EVENTS_MAX: usize = 4_096;
/// Bytes of events after which the writer takes no further call at the same time.
const TAKEN_BYTES_MAX: usize = 16 << 20;

/// The sender of an answer to its caller.
pub(super) type Answer<T> = oneshot::Sender<T>;

/// One call.
pub(super) enum Call {
    Save {
        batch: Vec<Admitted>,
        answer: Answer<Vec<Result<Saved, StoreError>>>,
    },
    /// See [`crate::Store::rehearse`].
    Rehearse {
        admitted: Box<Admitted>,
        answer: Answer<Result<Saved, StoreError>>,
    },
    /// The answer is `None` if all candidates are gone.
    Claim {
        claim: Claim,
        candidates: Vec<Candidate>,
        now: UnixSecs,
        answer: Answer<Result<Option<Claimed>, StoreError>>,
    },
    Request {
        request: StockRequest,
        now: UnixSecs,
        answer: Answer<Result<bool, StoreError>>,
    },
    /// See [`crate::Store::use_once`].
    UseOnce {
        name: OnceName,
        until: UnixSecs,
        now: UnixSecs,
        answer: Answer<Result<bool, StoreError>>,
    },
    /// See [`crate::Store::put_record`].
    PutRecord {
        name: RecordName,
        known: u64,
        value: Vec<u8>,
        answer: Answer<Result<bool, StoreError>>,
    },
    Sweep {
        now: UnixSecs,
        events_max: usize,
        answer: Answer<Result<Swept, StoreError>>,
    },
    Import {
        records: Vec<Record<Restored>>,
        now: UnixSecs,
        answer: Answer<Result<Vec<Imported>, StoreError>>,
    },
    /// An answer of the access service.
    Service {
        given: ServiceAnswer,
        now: UnixSecs,
        answer: Answer<Result<Option<AppliedAnswer>, StoreError>>,
    },
    Probe {
        answer: Answer<Result<(), StoreError>>,
    },
}

impl Call {
    fn events(&self) -> usize {
        match self {
            Self::Save { batch, .. } => batch.len(),
            Self::Import { records, .. } => records.len(),
            Self::Claim { .. }
            | Self::Rehearse { .. }
            | Self::Request { .. }
            | Self::UseOnce { .. }
            | Self::PutRecord { .. }
            | Self::Sweep { .. }
            | Self::Service { .. }
            | Self::Probe { .. } => 1,
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::Save { batch, .. } => batch.iter().map(|admitted| admitted.event().record().len()).sum(),
            Self::Import { records, .. } => {
                let event = |record: &Record<Restored>| match record {
                    Record::Event(restored) => restored.event().record().len(),
                    _ => 0,
                };
                records.iter().map(event).sum()
            }
            Self::Rehearse { admitted, .. } => admitted.event().record().len(),
            Self::Claim { .. }
            | Self::Request { .. }
            | Self::UseOnce { .. }
            | Self::PutRecord { .. }
            | Self::Sweep { .. }
            | Self::Service { .. }
            | Self::Probe { .. } => 0,
        }
    }
}

/// A call that waits, and its share of the queue, which is free again when it is dropped.
pub(super) struct Waiting {
    call: Call,
    share: OwnedSemaphorePermit,
}

impl Waiting {
    pub(super) fn split(self) -> (Call, OwnedSemaphorePermit) {
        (self.call, self.share)
    }
}

/// The reason for which the writer woke up.
pub(super) enum Taken {
    /// These calls, or none when the time was up.
    Calls(Vec<Waiting>),
    /// Nothing waits and nothing will come.
    Closed,
}

pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    room: Arc<Semaphore>,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    closed: bool,
}

impl Queue {
    pub(super) fn new() -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), room: Arc::new(Semaphore::new(WAITING_EVENTS_MAX)) }
    }

    /// Hands a call to the writer and waits for its answer.
    ///
    /// # Errors
    /// [`StoreError::Unavailable`] when the writer has ended.
    pub(super) async fn call<T>(&self, call: impl FnOnce(Answer<T>) -> Call) -> Result<T, StoreError> {
        let ended = || StoreError::Unavailable("the store is closed".to_owned());
        let (answer, answered) = oneshot::channel();
        let call = call(answer);
        let share = u32::try_from(call.events().min(WAITING_EVENTS_MAX)).unwrap_or(u32::MAX);
        let share = Arc::clone(&self.room).acquire_many_owned(share).await.map_err(|_| ended())?;
        {
            let mut state = self.state.lock();
            if state.closed {
                return Err(ended());
            }
            state.waiting.push_back(Waiting { call, share });
        }
        self.changed.notify_one();
        answered.await.map_err(|_| ended())
    }

    /// Waits for calls, at most `patience`, and takes those that go together.
    pub(super) fn take(&self, patience: Option<Duration>) -> Taken {
        let until = patience.map(|patience| Instant::now() + patience);
        let mut state = self.state.lock();
        while state.waiting.is_empty() {
            if state.closed {
                return Taken::Closed;
            }
            match until {
                None => self.changed.wait(&mut state),
                Some(until) => {
                    if self.changed.wait_until(&mut state, until).timed_out() && state.waiting.is_empty() {
                        return Taken::Calls(Vec::new());
                    }
                }
            }
        }
        let (mut events, mut bytes) = (0, 0);
        let mut taken = Vec::new();
        while let Some(next) = state.waiting.front() {
            events += next.call.events();
            bytes += next.call.bytes();
            if !taken.is_empty() && (events > TAKEN_EVENTS_MAX || bytes > TAKEN_BYTES_MAX) {
                break;
            }
            taken.extend(state.waiting.pop_front());
        }
        Taken::Calls(taken)
    }

    /// Lets nothing more in; waiting calls are still done.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    /// Lets nothing more in and forgets waiting calls, so that nobody waits for a writer that is gone.
    pub(super) fn abandon(&self) {
        let forgotten = {
            let mut state = self.state.lock();
            state.closed = true;
            std::mem::take(&mut state.waiting)
        };
        drop(forgotten);
        self.room.close();
    }
}
