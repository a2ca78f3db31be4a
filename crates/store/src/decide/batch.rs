//! Deciding a batch of events on loaded facts. Each event sees the effects of those before it.

use nostr_extensions::{Admitted, Effect, RouteHasher};

pub(crate) use super::changes::{ChangedGroup, Changes, Put};
use super::{
    collect::Collecting,
    event::{Decider, Decision},
    facts::Facts,
};
use crate::{Cursor, Saved};

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

/// Cuts a batch so that a request to vanish stands alone: the store finds and removes the key's events when it writes
/// the request, and the events after the request must find them gone.
pub(crate) fn cut(batch: Vec<Admitted>) -> Vec<Vec<Admitted>> {
    let mut parts: Vec<Vec<Admitted>> = Vec::new();
    let mut open = false;
    for admitted in batch {
        let alone = matches!(admitted.effect(), Effect::Vanish);
        match parts.last_mut().filter(|_| open && !alone) {
            Some(part) => part.push(admitted),
            None => parts.push(vec![admitted]),
        }
        open = !alone;
    }
    parts
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
