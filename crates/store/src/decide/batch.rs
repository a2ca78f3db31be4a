//! Deciding a batch of events on loaded facts. Each event sees the effects of those before it.

use std::time::Duration;

use nostr_extensions::{Admitted, Effect, RouteHasher};
use tokio::time::Instant;

pub(crate) use super::changes::{ChangedGroup, Changes, Mark, MemberChange, Put, RecordChange};
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
        self.outcomes.iter().all(|outcome| matches!(outcome, Decision::Put(..))) && self.changes.put.iter().all(stays)
    }

    /// The answers, when the `n`th event that is put has been committed at `cursor_of(n)`.
    pub(crate) fn answers(self, cursor_of: impl Fn(usize) -> Cursor) -> Vec<Saved> {
        let put = self.changes.put;
        let answer = |outcome: Decision<usize>| match outcome {
            Decision::Put(n, None) => Saved::New(put[n].seal(cursor_of(n))),
            Decision::Put(n, Some(fault)) => Saved::Advised(Box::new((put[n].seal(cursor_of(n)), fault))),
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

/// The outcome of [`save_divided`].
pub(crate) struct Answers {
    /// The answer of each event.
    pub(crate) of_events: Vec<Result<Saved, StoreError>>,
    /// The error for which the store can save nothing now.
    #[cfg_attr(not(feature = "firestore"), allow(dead_code, reason = "the store over Firestore alone asks"))]
    pub(crate) away: Option<StoreError>,
}

/// Saves a part by `store`. A part that holds refused data, or that
/// takes too long, is halved until the culprit stands alone and is refused alone. Half a part gets half the time. After
/// [`WHOLE_TIMES_MAX`] times `limit` the events that are left are refused, so that no batch holds up the next one for
/// longer.
pub(crate) async fn save_divided(store: &impl SavesParts, part: &[Admitted], limit: Duration) -> Answers {
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
                answers.resize(count, Err(error.clone()));
                return Answers { of_events: answers, away: Some(error) };
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
    Answers { of_events: answers, away: None }
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

#[cfg(test)]
mod tests {
    use nostr_extensions::{Policy, Publisher, Reader, admit::admit};
    use nostr_protocol::{
        auth::RelayNames,
        testing::{EventBuilder, keypair},
    };
    use parking_lot::Mutex;

    use super::*;

    /// A store in which parts fail, and the sizes of the parts that it was given, each with its milliseconds.
    struct Failing<F> {
        fails: F,
        tried: Mutex<Vec<(usize, u64)>>,
    }

    impl<F: Fn(&[Admitted]) -> Option<Unsaved> + Sync> SavesParts for Failing<F> {
        async fn save_part(&self, part: &[Admitted], limit: Duration) -> Result<Vec<Saved>, Unsaved> {
            self.tried.lock().push((part.len(), u64::try_from(limit.as_millis()).unwrap_or(u64::MAX)));
            match (self.fails)(part) {
                Some(unsaved) => Err(unsaved),
                None => Ok(vec![Saved::Duplicate; part.len()]),
            }
        }
    }

    fn batch(kinds: &[u16]) -> Vec<Admitted> {
        let (reader, names) = (Reader::default(), RelayNames::Unknown);
        let publisher = Publisher { reader: &reader, names: &names };
        let admitted = |kind: &u16| {
            let event = EventBuilder::new(*kind).sign(&keypair("alice"));
            let now = event.event().created_at();
            admit(event, publisher, &Policy::default(), None, now).expect("it is admitted")
        };
        kinds.iter().map(admitted).collect()
    }

    async fn divided(
        kinds: &[u16],
        fails: impl Fn(&[Admitted]) -> Option<Unsaved> + Sync,
    ) -> (Vec<Result<Saved, StoreError>>, Vec<(usize, u64)>) {
        let store = Failing { fails, tried: Mutex::default() };
        let answers = save_divided(&store, &batch(kinds), Duration::from_millis(4_000)).await;
        let has_stood_still = store.tried.lock().len() == 1 && answers.of_events.iter().all(Result::is_err);
        assert_eq!(answers.away.is_some(), has_stood_still, "one refused event says nothing of the store");
        (answers.of_events, store.tried.into_inner())
    }

    fn has(part: &[Admitted], kind: u16) -> bool {
        part.iter().any(|admitted| admitted.event().kind().0 == kind)
    }

    fn unavailable() -> StoreError {
        StoreError::Unavailable("late".to_owned())
    }

    #[tokio::test]
    async fn a_batch_that_runs_out_of_time_is_divided() {
        let late = |part: &[Admitted]| has(part, 7).then(|| Unsaved::Late(unavailable()));
        let (answers, tried) = divided(&[1, 1, 1, 7, 1, 1, 1, 1], late).await;
        assert_eq!(
            answers.iter().map(Result::is_ok).collect::<Vec<_>>(),
            [true, true, true, false, true, true, true, true]
        );
        assert_eq!(tried, [(8, 4_000), (4, 2_000), (2, 1_000), (2, 1_000), (1, 500), (1, 500), (4, 2_000)]);
    }

    #[tokio::test]
    async fn refused_data_is_refused_alone() {
        let refused = |part: &[Admitted]| has(part, 7).then(|| Unsaved::Data(unavailable()));
        let (answers, _) = divided(&[1, 7, 1], refused).await;
        assert!(matches!(answers[..], [Ok(_), Err(StoreError::Event(_)), Ok(_)]), "{answers:?}");
    }

    #[tokio::test]
    async fn a_store_that_is_away_is_asked_once() {
        let (answers, tried) = divided(&[1; 8], |_| Some(Unsaved::Store(unavailable()))).await;
        assert!(answers.len() == 8 && answers.iter().all(Result::is_err));
        assert_eq!(tried.len(), 1);
    }
}
