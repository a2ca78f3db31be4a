//! An answer of the access service, decided from the state that the store finds.
//!
//! Source: docs/rules.md, "Access service". The answer is no event: it leaves a mark in the log, by which every process
//! learns which groups changed.

use nostr_extensions::{
    GroupStatus, RouteHasher,
    gate::Touches,
    mls_gateway::group::{ServiceAnswer, Told, apply_service},
};
use nostr_protocol::{PublicKey, UnixSecs};

use super::{
    changes::{Changes, Mark},
    collect::Collecting,
    event::Decider,
    facts::{Facts, Wanted},
    lookup::Apply,
};

/// The effect of an answer that changed its group.
#[derive(Debug)]
pub(crate) struct Answered {
    /// The group, and the groups in which a membership gave way.
    pub(crate) touches: Touches,
    /// Keys of the answer that are members of as many groups as a key may be, and stay out.
    pub(crate) left_out: usize,
}

impl Wanted {
    /// The facts that applying an answer to a group of this status takes.
    pub(crate) fn by_answer(answer: &ServiceAnswer, status: &GroupStatus) -> Self {
        let is_new = |key: &&PublicKey| match status {
            GroupStatus::Managed(view) => !view.members.contains_key(*key),
            GroupStatus::Unknown | GroupStatus::Unlisted => true,
        };
        let named = match &answer.told {
            Told::Members(members) => Some(members),
            Told::Unknown | Told::Nothing => None,
        };
        let joining = named.into_iter().flatten().map(|(key, _)| key).filter(is_new);
        let group = || [answer.group.clone()].into();
        Self {
            groups: group(),
            whole: group(),
            ordered: group(),
            joining: joining.map(|key| (*key, 1)).collect(),
            memberships_max: answer.bounds.memberships_max,
            ..Self::default()
        }
    }
}

/// Decides about an answer on loaded facts; `None` where it changes nothing.
pub(crate) fn decide(
    answer: &ServiceAnswer,
    facts: Facts,
    route_hasher: &RouteHasher,
    now: UnixSecs,
) -> Option<(Answered, Changes)> {
    let mut collecting = Collecting::new(facts, route_hasher);
    let Ok(answered) = Decider(&mut collecting).answer(answer, now);
    let answered = answered?;
    let mark = Some(Mark { at: now, touches: answered.touches.clone() });
    Some((answered, Changes { mark, ..collecting.changes }))
}

impl<S: Apply> Decider<'_, S> {
    /// Applies an answer; `None` where it changes nothing.
    ///
    /// # Errors
    /// The store's; the transaction is to be given up.
    pub(crate) fn answer(&mut self, answer: &ServiceAnswer, now: UnixSecs) -> Result<Option<Answered>, S::Error> {
        let status = self.0.group(&answer.group)?;
        let Some(mut changed) = apply_service(&status, answer, now) else { return Ok(None) };
        let (mut gives_way, mut without_room) = (Vec::new(), Vec::new());
        for join in &changed.joined {
            if self.0.memberships(&join.key)? < answer.bounds.memberships_max {
                continue;
            }
            match self.0.first_to_give_way(&join.key)? {
                Some((group, invited)) => gives_way.push((join.key, group, invited)),
                None => without_room.push(join.key),
            }
        }
        let left_out = without_room.len();
        changed.leave_out(&without_room);
        let is_known =
            matches!(&status, GroupStatus::Managed(view) if view.record.source == changed.view.record.source);
        if is_known && changed.delta.is_empty() && !answer.sets_time_of(&status) {
            return Ok(None);
        }
        let touches = self.change_members(&answer.group, changed, gives_way, now)?;
        Ok(Some(Answered { touches, left_out }))
    }
}
