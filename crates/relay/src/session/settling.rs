//! The answers of the access service that a request goes by, and who pays for the questions.
//!
//! Source: docs/rules.md, "Access service". A member of a group by the stored state pays nothing: the service is asked
//! about that group anyway. For anybody else the address pays, and an answer that is cached for others does not count,
//! so that neither its time nor its words tell whether the group exists.

use std::{collections::HashSet, sync::Arc, time::Instant};

use nostr_extensions::{Group, NostrGroupId, Reader};
use nostr_protocol::Rejection;

use crate::{
    access::{Access, Age, Askers},
    app::App,
    delivery::groups::GroupState,
    error::read_failed,
    rate_limit::{Payer, RetryAfter},
};

/// The text for a publisher in a group about which the service cannot be asked.
const CLOSED: &str = "the members of this group cannot be asked of the access service now; try again";

/// A question that a request needs an answer to.
#[derive(Clone, Copy, Debug)]
struct Question {
    age: Age,
    /// The party that asks; others than members pay for it.
    askers: Askers,
}

impl Question {
    /// The question about a group that this reader names, of which the stored state may be known.
    fn of(app: &App, reader: &Reader, id: &NostrGroupId, state: Option<&Group>) -> Self {
        let is_managed = state.is_some_and(Group::is_managed);
        if is_managed && state.is_some_and(|state| state.has_member(reader.keys())) {
            return Self { age: Age::Cached, askers: Askers::Members };
        }
        // The id of an unlisted group is no secret to the reader that names it.
        let is_open = !is_managed && app.policy().unlisted_groups && id.is_capability();
        Self { age: if is_open { Age::Cached } else { Age::Since(Instant::now()) }, askers: Askers::Others }
    }

    /// Takes the price of the question, if one has to be asked.
    fn pay(self, app: &App, access: &Access, id: &NostrGroupId, payer: Payer) -> Result<(), RetryAfter> {
        match payer {
            Payer::Address(block) if self.askers == Askers::Others && !access.is_settled(id, self.age) => {
                app.limits.question(block, app.clock.now_ms())
            }
            _ => Ok(()),
        }
    }
}

/// The state of the group that a publisher names, by an answer of the service that is young enough. `stored` is the
/// state that this process knows.
///
/// # Errors
/// `error:` where the service cannot be asked, `rate-limited:` where the payer has asked too much.
pub(crate) async fn for_publisher(
    app: &App,
    reader: &Reader,
    payer: Payer,
    stored: Arc<GroupState>,
) -> Result<Arc<GroupState>, Rejection> {
    let Some(access) = &app.access else { return Ok(stored) };
    let id = stored.id.clone();
    let question = Question::of(app, reader, &id, Some(stored.group()));
    if reader.is_anonymous() && matches!(question.age, Age::Since(_)) {
        // No answer lets a reader without a key do anything here.
        return Ok(stored);
    }
    question.pay(app, access, &id, payer)?;
    access.settle(&id, question.age, question.askers).await.map_err(|_| Rejection::error(CLOSED))?;
    app.groups.get(&id).await.map_err(read_failed)
}

/// Settles the groups that a request names. Returns those of which nothing is to be read.
///
/// # Errors
/// When the payer has asked too much.
pub(crate) async fn for_named(
    app: &App,
    reader: &Reader,
    payer: Payer,
    ids: &[NostrGroupId],
) -> Result<HashSet<NostrGroupId>, RetryAfter> {
    let Some(access) = &app.access else { return Ok(HashSet::new()) };
    let mut questions = Vec::with_capacity(ids.len());
    for id in ids {
        let state = app.groups.in_memory(id);
        let question = Question::of(app, reader, id, state.as_deref().map(GroupState::group));
        question.pay(app, access, id, payer)?;
        questions.push((id.clone(), question.age, question.askers));
    }
    Ok(access.settle_all(questions).await)
}

/// Settles groups that are open to the reader by their stored states. Returns those that are closed.
pub(crate) async fn for_open(app: &App, ids: impl IntoIterator<Item = NostrGroupId>) -> HashSet<NostrGroupId> {
    match &app.access {
        Some(access) => access.settle_all(ids.into_iter().map(|id| (id, Age::Cached, Askers::Members))).await,
        None => HashSet::new(),
    }
}
