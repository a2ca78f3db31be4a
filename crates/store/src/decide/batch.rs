//! Deciding a batch of events on loaded facts. Each event sees the effects of those before it.

use std::time::Duration;

use nostr_extensions::{Admitted, Effect, RouteHasher};
use tokio::time::Instant;

pub(crate) use super::changes::{ChangedGroup, Changes, Put};
use super::{
    collect::Collecting,
    event::{Decider, Decision},
    facts::Facts,
};
use crate::{
    Cursor, Saved, StoreError,
    weight::{Load, Weight},
};

/// The outcomes of a batch, and the changes to be written for it.
#[derive(Debug)]
pub(crate) struct Decided {
    /// A put event is named by its number among those that are put.
    outcomes: Vec<Decision<usize>>,
    pub(crate) changes: Changes,
}

impl Decided {
    /// Whether every event of the batch is to be stored and stays: then the commit fails by itself if one is stored
    /// already.
    #[cfg(feature = "firestore")]
    pub(crate) fn puts_all(&self) -> bool {
        let stays = |put: &Put| {
            let id = put.event.id();
            !put.gone && self.changes.removed.iter().all(|(_, removed)| *removed != id)
        };
        self.outcomes.iter().all(|outcome| matches!(outcome, Decision::Put(_))) && self.changes.put.iter().all(stays)
    }

    /// The answers, when the `n`th event that is put has been committed at `cursor_of(n)`.
    pub(crate) fn answers(self, cursor_of: impl Fn(usize) -> Cursor) -> Vec<Saved> {
        let put = self.changes.put;
        let answer = |outcome: Decision<usize>| match outcome {
            Decision::Put(n) => Saved::New(put[n].seal(cursor_of(n))),
            Decision::Answer(saved) => saved,
        };
        self.outcomes.into_iter().map(answer).collect()
    }
}

/// Cuts a batch into parts of bounded work, each of which is one transaction. A request to vanish stands alone: the
/// store finds and removes the key's events when it writes the request, and the events after the request must find them
/// gone.
pub(crate) fn cut(batch: Vec<Admitted>) -> Vec<Vec<Admitted>> {
    let mut parts: Vec<Vec<Admitted>> = Vec::new();
    let (mut open, mut load) = (false, Load::default());
    for admitted in batch {
        let alone = matches!(admitted.effect(), Effect::Vanish);
        let weight = Weight::of(admitted.event().view());
        match parts.last_mut().filter(|_| open && !alone && load.take(weight)) {
            Some(part) => part.push(admitted),
            None => {
                parts.push(vec![admitted]);
                load = Load::default();
                load.take(weight);
            }
        }
        open = !alone;
    }
    parts
}

/// The reason why a part of a batch was not saved as a whole.
#[derive(Clone, Debug)]
pub(crate) enum Unsaved {
    /// The store refuses the data of some event: it may take the others.
    Data(StoreError),
    /// The part took too long, while the store answered: smaller parts take less.
    Late(StoreError),
    /// The store cannot save now, whichever events are given.
    Store(StoreError),
}

/// Least time, in milliseconds, for which a part is tried.
const PART_MS_MIN: u64 = 500;
/// Number of times that the parts of one batch may take together, of the time that the whole batch is given.
const WHOLE_TIMES_MAX: u32 = 3;

/// A store that saves parts of batches, each as a whole.
pub(crate) trait SavesParts: Sync {
    /// Saves all events of a part, or none, and tries for about `limit`.
    fn save_part(&self, part: &[Admitted], limit: Duration)
    -> impl Future<Output = Result<Vec<Saved>, Unsaved>> + Send;
}

/// Saves a part by `store`. A part that holds refused data, or that
/// takes too long, is halved until the culprit stands alone and is refused alone. Half a part gets half the time. After
/// [`WHOLE_TIMES_MAX`] times `limit` the events that are left are refused, so that no batch holds up the next one for
/// longer.
pub(crate) async fn save_divided(
    store: &impl SavesParts,
    part: &[Admitted],
    limit: Duration,
) -> Vec<Result<Saved, StoreError>> {
    let until = Instant::now() + limit * WHOLE_TIMES_MAX;
    // Parts that wait, the next one last, each with its time.
    let mut waiting = vec![(part, limit)];
    let count = part.len();
    let mut answers = Vec::with_capacity(count);
    while let Some((part, limit)) = waiting.pop() {
        let unsaved = match store.save_part(part, limit).await {
            Ok(saved) => {
                answers.extend(saved.into_iter().map(Ok));
                continue;
            }
            Err(unsaved) => unsaved,
        };
        let (error, next) = match unsaved {
            Unsaved::Data(error @ StoreError::Event(_)) if part.len() == 1 => (error, None),
            Unsaved::Data(error) if part.len() == 1 => (StoreError::Event(error.to_string()), None),
            Unsaved::Data(error) => (error, Some(limit)),
            Unsaved::Late(error) if part.len() == 1 => (error, None),
            Unsaved::Late(error) => (error, Some((limit / 2).max(Duration::from_millis(PART_MS_MIN)))),
            Unsaved::Store(error) => {
                answers.resize(count, Err(error));
                return answers;
            }
        };
        match next {
            Some(next) if Instant::now() < until => {
                let (front, back) = part.split_at(part.len() / 2);
                waiting.extend([(back, next), (front, next)]);
            }
            _ => answers.extend(vec![Err(error); part.len()]),
        }
    }
    answers
}

/// Decides a batch on loaded facts, which stay true until the changes are committed: by a lock, or by preconditions.
pub(crate) fn decide(batch: &[Admitted], facts: Facts, route_hasher: &RouteHasher) -> Decided {
    let mut collecting = Collecting::new(facts, route_hasher);
    let mut outcomes = Vec::with_capacity(batch.len());
    for admitted in batch {
        let Ok(outcome) = Decider(&mut collecting).event(admitted);
        outcomes.push(outcome);
    }
    Decided { outcomes, changes: collecting.changes }
}
