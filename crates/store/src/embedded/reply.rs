//! From what became of the works of a transaction to the answers of the calls that brought them.

use nostr_extensions::Sealed;

use super::{queue::Answer, sweep::Swept};
use crate::{Saved, StoreError, moving::Imported};

/// What became of one work of a transaction.
pub(super) enum Outcome {
    Saved(Saved),
    Claimed(Vec<Sealed>),
    Swept(Swept),
    Imported(Vec<Imported>),
}

/// Of all works, in their order.
pub(super) type Outcomes = Vec<Result<Outcome, StoreError>>;

/// Where the outcomes of a call go.
pub(super) enum Reply {
    Save(usize, Answer<Vec<Result<Saved, StoreError>>>),
    Claim(Answer<Result<Vec<Sealed>, StoreError>>),
    Sweep(Answer<Result<Swept, StoreError>>),
    Import(Answer<Result<Vec<Imported>, StoreError>>),
}

impl Reply {
    /// Answers out of the outcomes, which are in the order of the calls. A caller that is gone needs no answer.
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
                    Some(Ok(Outcome::Claimed(given))) => Ok(given),
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
        }
    }
}
