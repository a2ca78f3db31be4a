//! Answers of the access service: one Commit changes a group's members, and a mark in the log tells.

use std::collections::BTreeSet;

use nostr_extensions::mls_gateway::group::ServiceAnswer;
use nostr_protocol::UnixSecs;

use crate::{
    AppliedAnswer,
    decide::{
        facts::Wanted,
        service::{Answered, decide},
    },
    firestore::{
        Inner,
        read::load::LoadRequest,
        wire::{clock, fail::Fail},
    },
};

impl Inner {
    /// See [`crate::Store::apply_answer`].
    pub(crate) async fn apply(&self, answer: &ServiceAnswer, now: UnixSecs) -> Result<Option<AppliedAnswer>, Fail> {
        self.history.is_ours()?;
        let mut tries = 0;
        loop {
            let applied = self.try_to_apply(answer, now).await;
            if !self.is_tried_again(&applied, tries, 1).await {
                return applied;
            }
            tries += 1;
        }
    }

    async fn try_to_apply(&self, answer: &ServiceAnswer, now: UnixSecs) -> Result<Option<AppliedAnswer>, Fail> {
        let (group, _) = self.group_now(&answer.group).await?;
        if answer.agrees_with(&group.status) {
            return Ok(None);
        }
        let wanted = Wanted::by_answer(answer, &group.status);
        let loaded = self.load(LoadRequest { wanted, events: Vec::new(), owners: BTreeSet::new() }).await?;
        let Some((answered, changes)) = decide(answer, loaded.facts, &self.route_hasher, now) else {
            self.commit_or_end(Ok(Vec::new()), loaded.transaction).await?;
            return Ok(None);
        };
        let (mut documents, place) = (loaded.documents, self.draw_place(&changes));
        let writes = self.writes(&changes, &mut documents, place);
        let Some(time) = self.commit_or_end(writes, loaded.transaction).await? else { return Ok(None) };
        self.committed(&changes, time, place);
        let Answered { touches, left_out } = answered;
        let cursor = clock::cursor(time, place + changes.places() - 1);
        Ok(Some(AppliedAnswer { cursor, touches, left_out }))
    }
}
