//! The answers of the access service that a request goes by, and who pays for the questions.
//!
//! Source: docs/rules.md, "Access service". Each door asks as its reader, and pays ([`crate::access::Question`]). An
//! answer that is cached for others does not count for a reader that no stored state lets in, so neither its time nor
//! its words tell whether the group exists.

use std::{collections::HashSet, sync::Arc};

use nostr_extensions::{Group, NostrGroupId, Reader, mls_gateway::group::Refusal};
use nostr_protocol::{Filter, Rejection};
use nostr_store::Cost;

use super::{
    Caller,
    archive::{MEMBERSHIP_UNITS, Meter, ReadError},
};
use crate::{
    access::{Age, Question},
    app::App,
    delivery::groups::GroupState,
    error::read_failed,
    rate_limit::{Cause, Payer, RetryAfter},
};

/// Most groups whose states are held at one time while their questions are made.
const STATES_TOGETHER_MAX: usize = 64;

/// The refusal where a group is closed.
pub(crate) fn closed() -> Rejection {
    Refusal::Closed.into()
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
    let question = Question::of_named(&app.policy(), reader, &stored);
    if reader.is_anonymous() && question.asks_anew() {
        // No answer lets a reader without a key do anything here.
        return Ok(stored);
    }
    access.settle(question.pay(app, access, payer)?).await.map_err(|_| closed())?;
    let state = app.groups.get(&stored.id).await.map_err(read_failed)?;
    if app.gate.is_closed(&state) { Err(closed()) } else { Ok(state) }
}

/// Settles the groups that a request names. Returns those of which nothing is to be read.
///
/// # Errors
/// When the payer has asked too much, and where a state cannot be read.
pub(crate) async fn for_named(
    caller: &Caller,
    meter: &Meter<'_>,
    ids: &[NostrGroupId],
) -> Result<HashSet<NostrGroupId>, ReadError> {
    let (app, reader) = (&caller.app, &caller.reader);
    let Some(access) = &app.access else { return Ok(HashSet::new()) };
    let question = |state: &Group| Question::of_named(&app.policy(), reader, state);
    let is_member = |state: &Group| state.has_member(reader.keys());
    let turn = meter.turn_at_store().await;
    let questions = app.groups.verdicts(ids, &caller.named, is_member, question).await?;
    drop(turn);
    let pay = |question: Question| question.pay(app, access, caller.payer());
    let paid: Vec<_> = questions.into_iter().map(pay).collect::<Result<_, _>>().map_err(ReadError::UsedUp)?;
    Ok(access.settle_all(paid).await)
}

/// The outcome for groups that are open to the reader by their stored states.
#[derive(Default)]
pub(crate) struct Settled {
    /// Groups that are closed, and those for whose questions nobody paid.
    closed: HashSet<NostrGroupId>,
    /// Set where the payer has asked too much.
    unpaid: Option<RetryAfter>,
}

impl Settled {
    /// The groups of which nothing is to be read.
    ///
    /// # Errors
    /// When the payer has asked too much.
    fn paid(self) -> Result<HashSet<NostrGroupId>, ReadError> {
        match self.unpaid {
            Some(retry) => Err(ReadError::UsedUp(retry)),
            None => Ok(self.closed),
        }
    }

    /// The groups of which nothing is to be read by a request that names none. The groups beyond the payer's means are
    /// among them: anybody may add a key to groups, and would else shut its requests out.
    pub(crate) fn closed(self) -> HashSet<NostrGroupId> {
        self.closed
    }

    /// The groups of which nothing is to be read by a request of this cause.
    ///
    /// # Errors
    /// When the payer has asked too much about groups that it names.
    pub(crate) fn of_request(self, cause: Cause) -> Result<HashSet<NostrGroupId>, ReadError> {
        if cause == Cause::Named { self.paid() } else { Ok(self.closed()) }
    }
}

/// The cause of questions about groups whose events a filter found: it names them by their ids or by those of their
/// events, or the reader's memberships have been settled before.
pub(crate) fn cause_of(filter: &Filter) -> Cause {
    let is_named = filter.ids.is_some() || filter.tags.contains_key(&b'h');
    if is_named { Cause::Named } else { Cause::Acted }
}

/// The groups of the reader in which its keys have not acted. Nothing is read where nobody has to be asked about `ids`.
///
/// # Errors
/// Those of the store.
pub(crate) async fn invited(
    caller: &Caller,
    meter: &mut Meter<'_>,
    ids: &[NostrGroupId],
) -> Result<HashSet<NostrGroupId>, ReadError> {
    let app = &caller.app;
    let Some(access) = &app.access else { return Ok(HashSet::new()) };
    if ids.iter().all(|id| access.is_settled(id, Age::Cached)) {
        return Ok(HashSet::new());
    }
    let turn = meter.turn_at_store().await;
    let invited = app.store.invited_groups(caller.reader.keys()).await?;
    drop(turn);
    let count = invited.len() as u64;
    let documents = if app.store.documents_read().is_some() { count.max(1) } else { 0 };
    meter.charge(Cost { units: count * MEMBERSHIP_UNITS, documents });
    Ok(invited.into_iter().collect())
}

/// Settles groups that these stored states open to the reader, each for its cause.
pub(crate) async fn for_open<'s>(
    caller: &Caller,
    states: impl IntoIterator<Item = &'s Group>,
    cause: impl Fn(&NostrGroupId) -> Cause,
) -> Settled {
    let (app, mut settled) = (&caller.app, Settled::default());
    let Some(access) = &app.access else { return settled };
    let mut paid = Vec::new();
    for state in states {
        match Question::of_open(&caller.reader, state, cause(&state.id)).pay(app, access, caller.payer()) {
            Ok(question) => paid.push(question),
            Err(retry) => {
                settled.closed.insert(state.id.clone());
                settled.unpaid = Some(retry);
            }
        }
    }
    settled.closed.extend(access.settle_all(paid).await);
    settled
}

/// Settles groups that are open to the reader by their stored states, which are read where a question has to be asked.
///
/// # Errors
/// Those of the store, where a state cannot be read.
pub(crate) async fn for_ids(
    caller: &Caller,
    meter: &Meter<'_>,
    ids: &[NostrGroupId],
    cause: impl Fn(&NostrGroupId) -> Cause,
) -> Result<Settled, ReadError> {
    let (app, mut settled) = (&caller.app, Settled::default());
    let Some(access) = &app.access else { return Ok(settled) };
    let unsettled: Vec<&NostrGroupId> = ids.iter().filter(|id| !access.is_settled(id, Age::Cached)).collect();
    for some in unsettled.chunks(STATES_TOGETHER_MAX) {
        let turn = meter.turn_at_store().await;
        let states = app.groups.get_all(some).await?;
        drop(turn);
        let Settled { closed, unpaid } = for_open(caller, states.iter().map(|state| state.group()), &cause).await;
        settled.closed.extend(closed);
        settled.unpaid = settled.unpaid.or(unpaid);
    }
    Ok(settled)
}
