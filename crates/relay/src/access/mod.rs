//! The access service, an HTTP service of the operator that decides about the members of groups (source `acl`).
//!
//! Source: docs/rules.md, "Access service". An answer that differs from a group's stored members is written into the
//! store ([`nostr_store::Store::apply_answer`]), as the change of any other source is. So admission, the gate, live
//! delivery and the transactions of every instance go by one state, and a change comes to them in the order of the log.
//!
//! This module asks the service, and knows how old its answer about each group is. A request sees to it that the answer
//! is young enough before it goes by the group's state ([`Access::settle`]). Live delivery need not: no message is
//! admitted by an old answer. Groups that somebody here waits for are asked about again before their answers are old
//! ([`Access::keep_fresh`]).

mod ages;
mod answer;
mod line;
mod question;
mod service;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream};
use nostr_extensions::{
    NostrGroupId, Source,
    mls_gateway::group::{ServiceAnswer, Told},
};
use nostr_store::Store;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::question::{Paid, Question};
use self::{ages::Ages, line::Line, service::Service};
use crate::{
    config::Config,
    delivery::{Live, groups::Groups},
    error::StartError,
    observe::metrics::Metrics,
    system::clock::Clock,
    turns::{PayerHash, Turns},
};

/// Most questions to the service at one time of members by its answers, and of the relay.
const QUESTIONS_TOGETHER_MAX: usize = 16;
/// Most questions at one time that others ask: members do not wait for these.
const OTHERS_TOGETHER_MAX: usize = 8;
/// Most of these that one payer asks at one time. Payers take turns.
const OF_PAYER_TOGETHER_MAX: usize = 4;
/// Most questions of one request at one time.
const OF_REQUEST_TOGETHER_MAX: usize = 4;
/// Most questions at one time that keep answers young while nobody waits for them.
const REFRESHES_TOGETHER_MAX: usize = 4;
/// Shortest time between two looks for answers that grow old, in milliseconds.
const LOOK_MS: u64 = 100;

/// A group whose members cannot be asked of the service now, and of which no answer is young enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Closed;

/// The age that an answer may have.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Age {
    /// `group_cache_ttl`; while the service cannot be reached, `acl_stale_max`.
    Cached,
    /// The question was asked at this time or later, whatever is cached.
    Since(Instant),
}

/// The party of a question, each of which has questions of its own under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Askers {
    /// Members by an answer of the service, and the relay itself.
    Members,
    /// Anybody else, by the hash of the payer.
    Others(PayerHash),
}

/// See the module.
pub(crate) struct Access {
    service: Service,
    store: Arc<dyn Store>,
    groups: Arc<Groups>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    ttl: Duration,
    stale_max: Duration,
    bounds: nostr_extensions::mls_gateway::group::MembershipBounds,
    ages: Ages,
    /// Groups about which the service is being asked, each with a lock for which others wait.
    asking: Mutex<HashMap<NostrGroupId, Arc<tokio::sync::Mutex<()>>>>,
    questions: Arc<Semaphore>,
    questions_of_others: Arc<Turns>,
    /// Questions that have been sent. Each ends by itself, after the longest time that an answer may take and the write
    /// of it, also where its request is dropped: an answer that is written and not noted would be in force later.
    sent: TaskTracker,
}

impl Access {
    /// The service that the configuration names; `None` if `acl` is no source of membership.
    ///
    /// # Errors
    /// The configuration of the service cannot be used.
    pub(crate) fn of(
        config: &Config,
        store: &Arc<dyn Store>,
        groups: &Arc<Groups>,
        metrics: &Arc<Metrics>,
        clock: &Arc<dyn Clock>,
    ) -> Result<Option<Arc<Self>>, StartError> {
        let gateway = &config.mls_gateway;
        if !gateway.membership_sources.contains(&Source::Acl) {
            return Ok(None);
        }
        Ok(Some(Arc::new(Self {
            service: Service::new(gateway)?,
            store: Arc::clone(store),
            groups: Arc::clone(groups),
            metrics: Arc::clone(metrics),
            clock: Arc::clone(clock),
            ttl: Duration::from_secs(gateway.group_cache_ttl_secs),
            stale_max: Duration::from_secs(gateway.acl_stale_max_secs),
            bounds: config.policy().membership_bounds,
            ages: Ages::default(),
            asking: Mutex::default(),
            questions: Arc::new(Semaphore::new(QUESTIONS_TOGETHER_MAX)),
            questions_of_others: Turns::new(OTHERS_TOGETHER_MAX, OF_PAYER_TOGETHER_MAX),
            sent: TaskTracker::new(),
        })))
    }

    /// Whether the answer about a group is young enough, so that nobody need pay for a question.
    pub(crate) fn is_settled(&self, id: &NostrGroupId, age: Age) -> bool {
        let since = match age {
            Age::Cached => Instant::now().checked_sub(self.ttl),
            Age::Since(since) => Some(since),
        };
        // A machine that has not run for so long has only young answers.
        self.ages.answered(id).is_some_and(|answered| since.is_none_or(|since| answered >= since))
    }

    /// Sees to it that the stored members of a group are those of an answer that is young enough. One question about a
    /// group is asked at a time; whoever waits meanwhile takes its answer.
    ///
    /// # Errors
    /// [`Closed`].
    pub(crate) async fn settle(self: &Arc<Self>, Paid { id, age, askers }: Paid) -> Result<(), Closed> {
        if self.is_settled(&id, age) {
            return Ok(());
        }
        // Since the turn began, so that with `group_cache_ttl = 0` many that wait go by one answer.
        let age = match age {
            Age::Cached if self.ttl.is_zero() => Age::Since(Instant::now()),
            age => age,
        };
        // Before the line: a member never waits for a turn of others.
        let of_others = match askers {
            Askers::Others(payer) => Some(self.questions_of_others.take(payer).await),
            Askers::Members => None,
        };
        let Some(line) = Line::join(self, &id) else { return self.unanswered(&id, age) };
        let head = line.head().await;
        if self.is_settled(&id, age) {
            return Ok(());
        }
        if !self.ages.may_ask(&id) {
            return self.unanswered(&id, age);
        }
        let of_members = match askers {
            Askers::Members => Some(self.place_of_members().await),
            Askers::Others(_) => None,
        };
        let (access, asked) = (Arc::clone(self), id.clone());
        let answered = self.finish(async move {
            let _held = (head, of_others, of_members);
            access.ask(&asked, askers, false).await
        });
        match answered.await {
            Ok(()) => Ok(()),
            Err(Closed) => self.unanswered(&id, age),
        }
    }

    /// A place among the questions of members and of the relay.
    async fn place_of_members(&self) -> Option<OwnedSemaphorePermit> {
        // Nobody closes the semaphore.
        Arc::clone(&self.questions).acquire_owned().await.ok()
    }

    /// Runs a question to its end in a task of its own, whatever becomes of the request that waits for it.
    async fn finish(&self, question: impl Future<Output = Result<(), Closed>> + Send + 'static) -> Result<(), Closed> {
        self.sent.spawn(question).await.unwrap_or(Err(Closed))
    }

    /// Waits for the questions that have been sent.
    pub(crate) async fn finished(&self) {
        self.sent.close();
        self.sent.wait().await;
    }

    /// Asks the service about a group, whose line the caller heads, and writes its answer into the store. The caller
    /// runs it to its end ([`Self::finish`]).
    ///
    /// # Errors
    /// [`Closed`]: the service fails, or its answer cannot be written.
    async fn ask(&self, id: &NostrGroupId, askers: Askers, is_refresh: bool) -> Result<(), Closed> {
        let (asked, asked_at_ms) = (Instant::now(), self.clock.now_ms());
        let told = match self.service.members(id).await {
            Ok(members) => members.map_or(Told::Unknown, Told::Members),
            Err(failure) => {
                self.metrics.access_answer("failed");
                self.ages.note_failure(id, &failure, askers);
                return Err(Closed);
            }
        };
        let answer = ServiceAnswer { group: id.clone(), told, asked_at_ms, is_refresh, bounds: self.bounds };
        let is_known = self.apply(&answer).await?;
        self.metrics.access_answer(if is_known { "known" } else { "unknown" });
        self.ages.note_answer(id, asked, is_known);
        Ok(())
    }

    /// Settles several groups at once. Returns those that are closed.
    pub(crate) async fn settle_all(
        self: &Arc<Self>,
        questions: impl IntoIterator<Item = Paid>,
    ) -> HashSet<NostrGroupId> {
        let settle = |question: Paid| async move {
            let id = question.id.clone();
            let is_closed = self.settle(question).await.is_err();
            is_closed.then_some(id)
        };
        let settling = stream::iter(questions).map(settle).buffer_unordered(OF_REQUEST_TOGETHER_MAX);
        settling.filter_map(std::future::ready).collect().await
    }

    /// Asks about a group anew, whatever is cached. From then on no answer to an earlier question counts, on any
    /// instance.
    ///
    /// # Errors
    /// [`Closed`]: a group that is managed is closed on every instance until the service answers.
    pub(crate) async fn refresh(self: &Arc<Self>, id: &NostrGroupId) -> Result<(), Closed> {
        let asked_at_ms = self.clock.now_ms();
        let head = match Line::join(self, id) {
            Some(line) => Some((line.head().await, self.place_of_members().await)),
            None => None,
        };
        let (access, group) = (Arc::clone(self), id.clone());
        // The service itself asks for it, so an earlier failure is no reason to wait.
        let answered = self.finish(async move {
            let asked = match &head {
                Some(_) => access.ask(&group, Askers::Members, true).await,
                None => Err(Closed),
            };
            if asked.is_err() {
                let (told, bounds) = (Told::Nothing, access.bounds);
                let _ = access.apply(&ServiceAnswer { group, told, asked_at_ms, is_refresh: true, bounds }).await;
            }
            asked
        });
        answered.await
    }

    /// Asks again about the groups that a subscription waits for, before their answers are old, until `stopping`.
    pub(crate) async fn keep_fresh(self: Arc<Self>, live: Arc<Live>, stopping: CancellationToken) {
        let _ = stopping.run_until_cancelled(self.look_again(&live)).await;
    }

    async fn look_again(self: &Arc<Self>, live: &Live) {
        let look = (self.ttl / 8).max(Duration::from_millis(LOOK_MS));
        loop {
            tokio::time::sleep(look).await;
            // An answer that would be old before the look after the next one.
            let old = self.ttl.saturating_sub(2 * look);
            let due = self.ages.old(old);
            let settling = stream::iter(due).map(|id| self.refresh_group(id, live));
            settling.buffer_unordered(REFRESHES_TOGETHER_MAX).for_each(|()| std::future::ready(())).await;
        }
    }

    /// Asks again about a group, if a subscription waits for it. Else its answer is forgotten once nobody goes by it.
    async fn refresh_group(self: &Arc<Self>, id: NostrGroupId, live: &Live) {
        let state = match self.groups.last_known(&id) {
            Some(state) => Some(state),
            None => self.groups.get(&id).await.ok(),
        };
        if let Some(state) = state
            && live.awaits_messages_of(&state).await
        {
            let _ = self.settle(Paid { id, age: Age::Since(Instant::now()), askers: Askers::Members }).await;
            return;
        }
        let stands = self.ttl.max(self.stale_max);
        if self.ages.answered(&id).is_none_or(|at| at.elapsed() >= stands) {
            self.ages.forget(&id);
        }
    }

    /// The outcome where the service has no answer. A reader to whom the group is closed anyway gets no answer by an
    /// old one: it would tell a group that others use from one that does not exist.
    fn unanswered(&self, id: &NostrGroupId, age: Age) -> Result<(), Closed> {
        let answered = self.ages.answered(id);
        let stands = matches!(age, Age::Cached) && answered.is_some_and(|at| at.elapsed() < self.stale_max);
        if stands { Ok(()) } else { Err(Closed) }
    }

    /// Writes an answer into the store, where it changes anything. Returns whether the service decides about the group.
    ///
    /// # Errors
    /// [`Closed`] where the store does not take it.
    async fn apply(&self, answer: &ServiceAnswer) -> Result<bool, Closed> {
        let is_known = matches!(answer.told, Told::Members(_)) || self.ages.is_known(&answer.group);
        let applied = self.store.apply_answer(answer, self.clock.now()).await.map_err(|error| {
            tracing::warn!(%error, "an answer of the access service was not written");
            Closed
        })?;
        let Some(applied) = applied else { return Ok(is_known) };
        self.groups.note_answer(&applied);
        self.metrics.members_changed();
        if applied.left_out > 0 {
            tracing::warn!(
                keys = applied.left_out,
                "the access service names members that are in as many groups as a key may be: they stay out"
            );
        }
        Ok(true)
    }
}
