//! Outcomes of the works of a transaction, as the answers to the calls that brought them.

use super::{queue::Answer, sweep::Swept};
use crate::{AppliedAnswer, Claimed, Saved, StoreError, moving::Imported};

/// The outcome of one work of a transaction.
pub(super) enum Outcome {
    Saved(Saved),
    Claimed(Option<Claimed>),
    Requested(bool),
    UsedOnce(bool),
    RecordPut(bool),
    Swept(Swept),
    Imported(Vec<Imported>),
    Applied(Option<AppliedAnswer>),
    Probed,
}

/// The outcomes of all works, in their order.
pub(super) type Outcomes = Vec<Result<Outcome, StoreError>>;

/// The answer that a call waits for.
pub(super) enum Reply {
    Save(usize, Answer<Vec<Result<Saved, StoreError>>>),
    Claim(Answer<Result<Option<Claimed>, StoreError>>),
    Request(Answer<Result<bool, StoreError>>),
    UseOnce(Answer<Result<bool, StoreError>>),
    PutRecord(Answer<Result<bool, StoreError>>),
    Sweep(Answer<Result<Swept, StoreError>>),
    Import(Answer<Result<Vec<Imported>, StoreError>>),
    Service(Answer<Result<Option<AppliedAnswer>, StoreError>>),
    Probe(Answer<Result<(), StoreError>>),
}

impl Reply {
    /// Answers from the outcomes, which are in the order of the calls. A caller that is gone needs no answer.
    pub(super) fn send(self, outcomes: &mut impl Iterator<Item = Result<Outcome, StoreError>>) {
        let lost = || StoreError::Unavailable("the writer lost an answer".to_owned());
        match self {
            Self::Save(count, answer) => {
                let saved = |outcome| match outcome {
                    Ok(Outcome::Saved(saved)) => Ok(saved),
                    Ok(_) => Err(lost()),
                    Err(error) => Err(error),
                };
                let _ = answer.send(outcomes.take(count).map(saved).collect());
            }
            Self::Claim(answer) => {
                let _ = answer.send(match outcomes.next() {
                    Some(Ok(Outcome::Claimed(claimed))) => Ok(claimed),
                    Some(Err(error)) => Err(error),
                    _ => Err(lost()),
                });
            }
            Self::Request(answer) => {
                let _ = answer.send(match outcomes.next() {
                    Some(Ok(Outcome::Requested(may))) => Ok(may),
                    Some(Err(error)) => Err(error),
                    _ => Err(lost()),
                });
            }
            Self::UseOnce(answer) => {
                let _ = answer.send(match outcomes.next() {
                    Some(Ok(Outcome::UsedOnce(is_new))) => Ok(is_new),
                    Some(Err(error)) => Err(error),
                    _ => Err(lost()),
                });
            }
            Self::PutRecord(answer) => {
                let _ = answer.send(match outcomes.next() {
                    Some(Ok(Outcome::RecordPut(is_put))) => Ok(is_put),
                    Some(Err(error)) => Err(error),
                    _ => Err(lost()),
                });
            }
            Self::Sweep(answer) => {
                let _ = answer.send(match outcomes.next() {
                    Some(Ok(Outcome::Swept(swept))) => Ok(swept),
                    Some(Err(error)) => Err(error),
                    _ => Err(lost()),
                });
            }
            Self::Import(answer) => {
                let _ = answer.send(match outcomes.next() {
                    Some(Ok(Outcome::Imported(imported))) => Ok(imported),
                    Some(Err(error)) => Err(error),
                    _ => Err(lost()),
                });
            }
            Self::Service(answer) => {
                let _ = answer.send(match outcomes.next() {
                    Some(Ok(Outcome::Applied(applied))) => Ok(applied),
                    Some(Err(error)) => Err(error),
                    _ => Err(lost()),
                });
            }
            Self::Probe(answer) => {
                let _ = answer.send(match outcomes.next() {
                    Some(Ok(Outcome::Probed)) => Ok(()),
                    Some(Err(error)) => Err(error),
                    _ => Err(lost()),
                });
            }
        }
    }
}
