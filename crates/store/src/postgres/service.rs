//! Answers of the access service: a group's members change under the lock of the log, and a mark in the log tells.

use nostr_extensions::mls_gateway::group::ServiceAnswer;
use nostr_protocol::UnixSecs;

use super::{Postgres, fail::Fail, load::load, log, pipeline::Transaction, save::STATEMENT_MAX, write::write};
use crate::{
    AppliedAnswer,
    decide::{
        facts::Wanted,
        service::{Answered, decide},
    },
};

impl Postgres {
    /// See [`crate::Store::apply_answer`]. The lock is taken only where the group differs from the answer.
    pub(super) async fn apply(&self, answer: &ServiceAnswer, now: UnixSecs) -> Result<Option<AppliedAnswer>, Fail> {
        let (group, _) = self.with_client(async |client| log::state_of(client, &answer.group).await).await?;
        if answer.agrees_with(&group.status) {
            return Ok(None);
        }
        let applied = self
            .transact(STATEMENT_MAX, async |transaction: &Transaction<'_>| {
                let wanted = Wanted::by_answer(answer, &group.status);
                let hidden = self.hiding.now();
                let (facts, head) =
                    load(transaction, wanted, &hidden, &self.route_hasher, &self.loaded, &self.history).await?;
                let Some((answered, changes)) = decide(answer, facts, &self.route_hasher, now) else { return Ok(None) };
                let commit = write(transaction, &changes, head, self.notifies).await?;
                Ok(Some((answered, changes, head, commit)))
            })
            .await?;
        let Some((Answered { touches, left_out }, changes, head, commit)) = applied else { return Ok(None) };
        self.committed(&changes, head, commit);
        Ok(Some(AppliedAnswer { cursor: head + changes.places(), touches, left_out }))
    }
}
