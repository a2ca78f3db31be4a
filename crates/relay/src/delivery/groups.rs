//! The states of groups that the gate and admission are asked with: a bounded cache over the store.
//!
//! A committed change of a group is noted here before anything that depends on it goes out: the answer to its
//! publisher, and every event after it in the log. A state that was loaded before such a change is neither used nor
//! kept.
//!
//! A group that does not exist is remembered too, in a cache of its own, so that asking for it costs the store as
//! little as asking for one that does.
//!
//! Followed delivery may know of a change that this process made before it has come to the events that lie before the
//! change in the log. The state from before the change is kept beside the latest one, for those events.

#[cfg(test)]
mod tests;

use std::{
    collections::{HashMap, HashSet},
    ops::Deref,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;
use nostr_extensions::{Group, GroupStatus, NostrGroupId, RouteHasher, gate::Touches, route::Condition};
use nostr_protocol::mutation;
use nostr_store::{AppliedAnswer, Cursor, Store, StoreError};
use parking_lot::Mutex;
use quick_cache::{Weighter, unsync::Cache};
use tokio::sync::Semaphore;

use super::members::MemberRoutes;
use crate::observe::metrics::Lookups;

/// Most bytes of cached states, by estimate.
const CACHE_BYTES_MAX: u64 = 64 << 20;
/// Groups that the cache is laid out for.
const CACHE_GROUPS_EXPECTED: usize = 10_000;
/// Bytes that a member takes in a cached state, with its route and the lists that name it.
const MEMBER_BYTES: usize = 72;
/// Most groups that do not exist of which this is remembered.
const UNKNOWN_GROUPS_MAX: usize = 65_536;
/// Most groups that a connection is remembered to have named in its requests.
const NAMED_GROUPS_MAX: usize = 256;
/// Most groups that requests load at one time, so that the follower and the writer do not wait long behind them.
const LOADS_TOGETHER_MAX: usize = 16;
/// Most times that the groups of a page are loaded because one of them changed while another was loaded.
const PAGE_LOADS_MAX: usize = 3;
/// Most times that a load is tried because changes overtake it.
const LOADS_MAX: usize = 16;

/// See the module.
pub(crate) struct Groups {
    store: Arc<dyn Store>,
    /// Whether other processes may write to the store, so that its log is followed.
    is_followed: bool,
    /// Highest age of a cached state.
    ttl: Duration,
    states: Mutex<States>,
    /// Permits for the loads of requests.
    loads: Semaphore,
    /// Hashes groups.
    hasher: RouteHasher,
    readable_up_to: AtomicU64,
    /// Look-ups that the cache answered, and those that it could not.
    pub(crate) lookups: Lookups,
}

struct States {
    cache: Cache<NostrGroupId, CachedGroup, StateBytes>,
    /// Groups that do not exist, by their hashes, each with the time at which that was asked.
    unknown: Cache<u64, Instant>,
    /// Groups about which the store is being asked.
    loading: HashMap<NostrGroupId, Loading>,
    /// Cursor of the last change of any group.
    changed_at: Cursor,
}

/// The questions under way about one group.
struct Loading {
    /// Number of them.
    questions: usize,
    /// An answer from before this cursor is not kept.
    changed_at: Cursor,
    /// Number of changes that were noted meanwhile.
    changes: u64,
    /// Number of those that have no place of their own in the log.
    answers: u64,
}

/// A group's state, and the routes of its members, which live delivery works out once for the state.
pub(crate) struct GroupState {
    group: Group,
    members: MemberRoutes,
}

impl GroupState {
    /// A state whose members' routes nobody has asked for yet.
    pub(super) fn new(group: Group) -> Self {
        Self { group, members: MemberRoutes::default() }
    }

    /// The state.
    pub(crate) const fn group(&self) -> &Group {
        &self.group
    }

    /// The routes of the members.
    pub(super) const fn members(&self) -> &MemberRoutes {
        &self.members
    }
}

impl Deref for GroupState {
    type Target = Group;

    fn deref(&self) -> &Group {
        &self.group
    }
}

/// The groups that one connection has named in its requests. The store is asked about each when it is named first, also
/// where its state is in memory: the time of an answer would tell of a group that others use.
#[derive(Default)]
pub(crate) struct NamedGroups(Mutex<HashSet<u64>>);

impl NamedGroups {
    /// Returns whether the group is named for the first time, as far as the connection is remembered.
    fn is_first(&self, hash: u64) -> bool {
        let mut named = self.0.lock();
        if named.len() >= NAMED_GROUPS_MAX {
            named.clear();
        }
        named.insert(hash)
    }
}

/// The states that are cached of one group.
#[derive(Clone, Default)]
struct CachedGroup {
    /// The state after every change that was noted.
    latest: Option<LoadedState>,
    /// The state before a change that the log has not been followed up to, and that change.
    before: Option<(LoadedState, Cursor)>,
}

#[derive(Clone)]
struct LoadedState {
    state: Arc<GroupState>,
    as_of: Cursor,
    at: Instant,
}

impl CachedGroup {
    /// Forgets the states from before the change at `cursor`.
    fn forget_before(&mut self, cursor: Cursor) {
        self.latest.take_if(|latest| latest.as_of < cursor);
        self.before.take_if(|(before, _)| before.as_of < cursor);
    }

    /// Puts the state from before the change at `cursor` aside.
    fn put_aside_before(&mut self, cursor: Cursor) {
        if let Some(latest) = self.latest.take_if(|latest| latest.as_of < cursor) {
            self.before.get_or_insert((latest, cursor));
        }
    }

    const fn is_empty(&self) -> bool {
        self.latest.is_none() && self.before.is_none()
    }

    fn states(&self) -> impl Iterator<Item = &GroupState> {
        self.latest.iter().chain(self.before.iter().map(|(before, _)| before)).map(|loaded| &*loaded.state)
    }
}

#[derive(Clone)]
struct StateBytes;

impl Weighter<NostrGroupId, CachedGroup> for StateBytes {
    fn weight(&self, id: &NostrGroupId, cached: &CachedGroup) -> u64 {
        let members = |state: &GroupState| match &state.status {
            GroupStatus::Managed(group) => group.members.len(),
            _ => 0,
        };
        (id.as_str().len() * 2 + 256 + cached.states().map(members).sum::<usize>() * MEMBER_BYTES) as u64
    }
}

impl Groups {
    /// An empty cache over `store`, whose states are at most `ttl` old.
    pub(crate) fn new(store: Arc<dyn Store>, ttl: Duration) -> Self {
        let (readable_up_to, hasher) = (AtomicU64::new(store.head()), store.route_hasher());
        let cache = Cache::with_weighter(CACHE_GROUPS_EXPECTED, CACHE_BYTES_MAX, StateBytes);
        Self {
            is_followed: store.notifications().is_some(),
            store,
            ttl,
            states: Mutex::new(States {
                cache,
                unknown: Cache::new(UNKNOWN_GROUPS_MAX),
                loading: HashMap::new(),
                changed_at: 0,
            }),
            loads: Semaphore::new(LOADS_TOGETHER_MAX),
            hasher,
            readable_up_to,
            lookups: Lookups::default(),
        }
    }

    /// The state of a group, no older than the last change that was noted.
    ///
    /// # Errors
    /// Those of the store; the caller then treats the group as closed to every reader.
    pub(crate) async fn get(&self, id: &NostrGroupId) -> Result<Arc<GroupState>, StoreError> {
        self.get_at(id, Cursor::MAX).await
    }

    /// The last state of a group that this process knows of, however old.
    pub(crate) fn last_known(&self, id: &NostrGroupId) -> Option<Arc<GroupState>> {
        let states = self.states.lock();
        states.cache.peek(id)?.latest.as_ref().map(|latest| Arc::clone(&latest.state))
    }

    /// Notes a change by an answer of the access service, which this process wrote. In a store of one process it has no
    /// place of its own in the log, so every state that is loaded meanwhile is loaded again.
    pub(crate) fn note_answer(&self, applied: &AppliedAnswer) {
        if self.is_followed {
            return self.note_change_ahead(&applied.touches, applied.cursor);
        }
        let Touches::Groups(ids) = &applied.touches else { return self.forget_all(applied.cursor) };
        let mut states = self.states.lock();
        for id in ids {
            states.unknown.remove(&self.hash(id));
            states.cache.remove(id);
            if let Some(loading) = states.loading.get_mut(id) {
                loading.change(applied.cursor);
                loading.answers += 1;
            }
        }
    }

    /// The state of a group as [`Self::get`] would give it, if it is in memory.
    pub(crate) fn in_memory(&self, id: &NostrGroupId) -> Option<Arc<GroupState>> {
        self.cached(id, Cursor::MAX)
    }

    /// The states of the groups of a page, in their order, as of one moment at the end of this call: while some were
    /// loaded, others may have changed. Where the cache does not keep them all, they are as of the beginning or later.
    ///
    /// # Errors
    /// As [`Groups::get`], where one of them cannot be read.
    pub(crate) async fn get_all(&self, ids: &[&NostrGroupId]) -> Result<Vec<Arc<GroupState>>, StoreError> {
        let get = async |id: &&NostrGroupId| match self.cached(id, Cursor::MAX) {
            Some(state) => Ok(state),
            None => {
                let _permit = self.loads.acquire().await;
                self.get(id).await
            }
        };
        let mut loaded = Vec::new();
        for _ in 0..PAGE_LOADS_MAX {
            if let Some(states) = self.all_cached(ids) {
                return Ok(states);
            }
            loaded = try_join_all(ids.iter().map(get)).await?;
        }
        Ok(self.all_cached(ids).unwrap_or(loaded))
    }

    /// The states of these groups as of one moment, if all are in memory.
    fn all_cached(&self, ids: &[&NostrGroupId]) -> Option<Vec<Arc<GroupState>>> {
        let states = self.states.lock();
        ids.iter().map(|id| self.cached_in(&states, id, Cursor::MAX)).collect()
    }

    /// The groups whose states pass, of those that a request on the connection of `named` names.
    ///
    /// # Errors
    /// As [`Groups::get`], where one of them cannot be read.
    pub(crate) async fn filter(
        &self,
        mut ids: Vec<NostrGroupId>,
        named: &NamedGroups,
        passes: impl Fn(&Group) -> bool,
    ) -> Result<Vec<NostrGroupId>, StoreError> {
        let mut verdicts = self.verdicts(&ids, named, &passes, &passes).await?.into_iter();
        ids.retain(|_| verdicts.next().unwrap_or(false));
        Ok(ids)
    }

    /// A verdict about the state of each of the groups that a request on the connection of `named` names, in their
    /// order. However many are asked for, few states are held at one time. The store is asked at once which of the
    /// groups it knows at all, so that unknown groups are not read one by one. The reader may know of those that it
    /// `knows`.
    ///
    /// # Errors
    /// As [`Groups::get`], where one of them cannot be read.
    pub(crate) async fn verdicts<T>(
        &self,
        ids: &[NostrGroupId],
        named: &NamedGroups,
        knows: impl Fn(&Group) -> bool,
        verdict: impl Fn(&Group) -> T,
    ) -> Result<Vec<T>, StoreError> {
        let unknown = self.unknown(ids, named, &knows).await?;
        let mut verdicts = Vec::with_capacity(ids.len());
        for some in ids.chunks(LOADS_TOGETHER_MAX) {
            let known: Vec<&NostrGroupId> = some.iter().filter(|id| !unknown.contains(*id)).collect();
            let mut states = self.get_all(&known).await?.into_iter();
            for id in some {
                // `get_all` gives the state of each.
                let state = if unknown.contains(id) { None } else { states.next() };
                verdicts.push(match state {
                    Some(state) => verdict(state.group()),
                    None => verdict(&Group { id: id.clone(), status: GroupStatus::Unknown }),
                });
            }
        }
        Ok(verdicts)
    }

    /// Those of the groups that do not exist. The store is asked about each that is named for the first time, unless
    /// its state is in memory and passes: a reader may know of such a group.
    async fn unknown(
        &self,
        ids: &[NostrGroupId],
        named: &NamedGroups,
        passes: &impl Fn(&Group) -> bool,
    ) -> Result<HashSet<NostrGroupId>, StoreError> {
        let (mut unknown, mut asked) = (HashSet::new(), HashSet::new());
        for id in ids {
            let state = self.cached(id, Cursor::MAX);
            if state.as_ref().is_some_and(|state| passes(state.group())) {
                continue;
            }
            let hash = self.hash(id);
            let is_first = named.is_first(hash);
            let is_unknown = state.is_none() && self.is_known_to_be_unknown(hash);
            if is_first || (state.is_none() && !is_unknown) {
                asked.insert(id.clone());
            } else if is_unknown {
                unknown.insert(id.clone());
            }
        }
        if asked.is_empty() {
            return Ok(unknown);
        }
        let asked: Vec<NostrGroupId> = asked.into_iter().collect();
        let asking: Vec<Asking<'_>> = asked.iter().map(|id| Asking::begin(self, id)).collect();
        let at = Instant::now();
        let known: HashSet<NostrGroupId> = self.store.known_groups(&asked).await?.into_iter().collect();
        let mut states = self.states.lock();
        for asking in asking.iter().filter(|asking| !known.contains(asking.id)) {
            if asking.changes(&states) == asking.changes_before {
                states.unknown.insert(self.hash(asking.id), at);
            }
            unknown.insert(asking.id.clone());
        }
        drop(states);
        Ok(unknown)
    }

    fn hash(&self, id: &NostrGroupId) -> u64 {
        self.hasher.hash(Condition::Tag(b'h', id.as_str()))
    }

    fn is_known_to_be_unknown(&self, hash: u64) -> bool {
        self.states.lock().unknown.get(&hash).is_some_and(|at| at.elapsed() < self.ttl)
    }

    /// Returns whether the states of all these groups pass. It loads no more groups after a chunk with one that does
    /// not.
    ///
    /// # Errors
    /// As [`Groups::get`], where one of them cannot be read.
    pub(crate) async fn all(&self, ids: &[NostrGroupId], passes: impl Fn(&Group) -> bool) -> Result<bool, StoreError> {
        for some in ids.chunks(LOADS_TOGETHER_MAX) {
            let states = self.get_all(&some.iter().collect::<Vec<_>>()).await?;
            if !states.iter().all(|state| passes(state.group())) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The state that governs the event at `cursor`: the cached one from before our own later change, else the latest.
    /// The follower asks for it when it has come to the event.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) async fn get_at(&self, id: &NostrGroupId, cursor: Cursor) -> Result<Arc<GroupState>, StoreError> {
        if let Some(state) = self.cached(id, cursor) {
            return Ok(state);
        }
        let asking = Asking::begin(self, id);
        for _ in 0..LOADS_MAX {
            let (at, answers) = (Instant::now(), asking.answers(&self.states.lock()));
            let (state, as_of) = self.store.group(id).await?;
            let state = Arc::new(GroupState::new(state));
            let mut states = self.states.lock();
            let is_new = as_of >= asking.changed_at(&states) || mutation!("cache-overtaken");
            if is_new && asking.answers(&states) == answers {
                let before = states.cache.get(id).and_then(|cached| cached.before.clone());
                let latest = Some(LoadedState { state: Arc::clone(&state), as_of, at });
                states.cache.insert(id.clone(), CachedGroup { latest, before });
                return Ok(state);
            }
        }
        Err(StoreError::Unavailable("the group's state changes faster than it can be read".into()))
    }

    fn cached(&self, id: &NostrGroupId, cursor: Cursor) -> Option<Arc<GroupState>> {
        self.cached_in(&self.states.lock(), id, cursor)
    }

    fn cached_in(&self, states: &States, id: &NostrGroupId, cursor: Cursor) -> Option<Arc<GroupState>> {
        let of = |cached: &CachedGroup| {
            let before = cached.before.as_ref().filter(|(_, changed)| cursor < *changed).map(|(before, _)| before);
            let loaded = before.or(cached.latest.as_ref())?;
            (loaded.at.elapsed() < self.ttl).then(|| Arc::clone(&loaded.state))
        };
        self.lookups.counted(states.cache.get(id).and_then(of))
    }

    /// Notes that the event at `cursor` changed the groups that it touches. Called in the order of the log.
    pub(super) fn note_change(&self, touches: &Touches, cursor: Cursor) {
        if mutation!("cache-forgets-nothing") {
            return;
        }
        self.note(touches, cursor, CachedGroup::forget_before);
    }

    /// Notes the same of an event that this process committed and the log has not been followed up to.
    pub(super) fn note_change_ahead(&self, touches: &Touches, cursor: Cursor) {
        self.note(touches, cursor, CachedGroup::put_aside_before);
    }

    fn note(&self, touches: &Touches, cursor: Cursor, change: fn(&mut CachedGroup, Cursor)) {
        match touches {
            Touches::Nothing => {}
            Touches::Groups(ids) => {
                let mut states = self.states.lock();
                for id in ids {
                    states.change(id, self.hash(id), cursor, change);
                }
                states.changed_at = states.changed_at.max(cursor);
            }
            Touches::EveryGroup if mutation!("cache-every-group") => {}
            Touches::EveryGroup => self.forget_all(cursor),
        }
    }

    /// Forgets every state, and keeps none that was true before `cursor`: the caller may have missed changes.
    pub(super) fn forget_all(&self, cursor: Cursor) {
        let mut states = self.states.lock();
        states.cache.clear();
        states.unknown.clear();
        states.loading.values_mut().for_each(|loading| loading.change(cursor));
        states.changed_at = states.changed_at.max(cursor);
    }

    /// Lets the archive be read up to `cursor`, as every change of a group up to there is noted. Direct delivery calls
    /// it before the first answer to such an event. The follower calls it later, and `Delivery::fresh` waits for that.
    pub(super) fn allow_reading_up_to(&self, cursor: Cursor) {
        self.readable_up_to.fetch_max(cursor, Ordering::AcqRel);
    }

    /// The cursor up to which the archive may be read. A later event may depend on a change of a group that is not
    /// noted here yet.
    pub(crate) fn readable_up_to(&self) -> Cursor {
        self.readable_up_to.load(Ordering::Acquire)
    }
}

impl States {
    /// Takes in that the group, which has this hash, was changed at `cursor`.
    fn change(&mut self, id: &NostrGroupId, hash: u64, cursor: Cursor, change: fn(&mut CachedGroup, Cursor)) {
        self.unknown.remove(&hash);
        if let Some(loading) = self.loading.get_mut(id) {
            loading.change(cursor);
        }
        if let Some((id, mut cached)) = self.cache.remove(id) {
            change(&mut cached, cursor);
            if !cached.is_empty() {
                self.cache.insert(id, cached);
            }
        }
    }
}

impl Loading {
    fn change(&mut self, cursor: Cursor) {
        self.changed_at = self.changed_at.max(cursor);
        self.changes += 1;
    }
}

/// A question to the store about one group, for which the changes are noted that overtake it. Changes of other groups
/// do not concern it.
struct Asking<'a> {
    groups: &'a Groups,
    id: &'a NostrGroupId,
    changes_before: u64,
}

impl<'a> Asking<'a> {
    fn begin(groups: &'a Groups, id: &'a NostrGroupId) -> Self {
        let mut states = groups.states.lock();
        let changed_at = states.changed_at;
        let new = || Loading { questions: 0, changed_at, changes: 0, answers: 0 };
        let loading = states.loading.entry(id.clone()).or_insert_with(new);
        loading.questions += 1;
        Self { groups, id, changes_before: loading.changes }
    }

    fn changed_at(&self, states: &States) -> Cursor {
        states.loading.get(self.id).map_or(Cursor::MAX, |loading| loading.changed_at)
    }

    fn answers(&self, states: &States) -> u64 {
        states.loading.get(self.id).map_or(u64::MAX, |loading| loading.answers)
    }

    fn changes(&self, states: &States) -> u64 {
        states.loading.get(self.id).map_or(u64::MAX, |loading| loading.changes)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut states = self.groups.states.lock();
        if let Some(loading) = states.loading.get_mut(self.id) {
            loading.questions -= 1;
            if loading.questions == 0 {
                states.loading.remove(self.id);
            }
        }
    }
}
