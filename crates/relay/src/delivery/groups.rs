//! The states of groups that the gate and admission are asked with: a bounded cache over the store.
//!
//! A committed change of a group is noted here before anything that depends on it goes out: the answer to its
//! publisher, and every event after it in the log. A state that was loaded before such a change is neither used nor
//! kept.
//!
//! Followed delivery may know of a change that this process made before it has come to the events that lie before the
//! change in the log. The state from before the change is kept beside the latest one, for those events.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;
use nostr_extensions::{Group, GroupStatus, NostrGroupId, Source, gate::Touches};
use nostr_protocol::Kind;
use nostr_store::{Cursor, Store, StoreError};
use parking_lot::Mutex;
use quick_cache::{Weighter, unsync::Cache};
use tokio::sync::Semaphore;

/// Most bytes of cached states, by estimate.
const CACHE_BYTES_MAX: u64 = 64 << 20;
/// Groups that the cache is laid out for.
const CACHE_GROUPS_EXPECTED: usize = 10_000;
/// Most groups that requests load at one time, so that the follower and the writer do not wait long behind them.
const LOADS_TOGETHER_MAX: usize = 16;
/// Most times that the groups of a page are loaded because one of them changed while another was loaded.
const PAGE_LOADS_MAX: usize = 3;
/// Most times that a load is tried because changes overtake it.
const LOADS_MAX: usize = 16;

/// See the module.
pub(crate) struct Groups {
    store: Arc<dyn Store>,
    /// Highest age of a cached state.
    ttl: Duration,
    states: Mutex<States>,
    /// Permits for the loads of requests.
    loads: Semaphore,
    readable_up_to: AtomicU64,
}

struct States {
    cache: Cache<NostrGroupId, CachedGroup, StateBytes>,
    /// Cursor of the last change of any group.
    changed_at: Cursor,
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
    state: Arc<Group>,
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

    fn states(&self) -> impl Iterator<Item = &Group> {
        self.latest.iter().chain(self.before.iter().map(|(before, _)| before)).map(|loaded| &*loaded.state)
    }
}

#[derive(Clone)]
struct StateBytes;

impl Weighter<NostrGroupId, CachedGroup> for StateBytes {
    fn weight(&self, id: &NostrGroupId, cached: &CachedGroup) -> u64 {
        let members = |state: &Group| match &state.status {
            GroupStatus::Managed(group) => group.members.len(),
            _ => 0,
        };
        (id.as_str().len() * 2 + 256 + cached.states().map(members).sum::<usize>() * 48) as u64
    }
}

fn has_roster(state: &Group) -> bool {
    matches!(&state.status, GroupStatus::Managed(group) if group.record.source > Source::GiftWrap)
}

impl Groups {
    /// An empty cache over `store`, whose states are at most `ttl` old.
    pub(crate) fn new(store: Arc<dyn Store>, ttl: Duration) -> Self {
        let readable_up_to = AtomicU64::new(store.head());
        let cache = Cache::with_weighter(CACHE_GROUPS_EXPECTED, CACHE_BYTES_MAX, StateBytes);
        Self {
            store,
            ttl,
            states: Mutex::new(States { cache, changed_at: 0 }),
            loads: Semaphore::new(LOADS_TOGETHER_MAX),
            readable_up_to,
        }
    }

    /// The state of a group, no older than the last change that was noted.
    ///
    /// # Errors
    /// Those of the store; the caller then treats the group as closed to every reader.
    pub(crate) async fn get(&self, id: &NostrGroupId) -> Result<Arc<Group>, StoreError> {
        self.get_at(id, Cursor::MAX).await
    }

    /// The state of a group as [`Self::get`] would give it, if it is in memory.
    pub(crate) fn in_memory(&self, id: &NostrGroupId) -> Option<Arc<Group>> {
        self.cached(id, Cursor::MAX)
    }

    /// The states of the groups of a page, in their order, as of one moment at the end of this call: while some were
    /// loaded, others may have changed. Where the cache does not keep them all, they are as of the beginning or later.
    ///
    /// # Errors
    /// As [`Groups::get`], where one of them cannot be read.
    pub(crate) async fn get_all(&self, ids: &[&NostrGroupId]) -> Result<Vec<Arc<Group>>, StoreError> {
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
    fn all_cached(&self, ids: &[&NostrGroupId]) -> Option<Vec<Arc<Group>>> {
        let states = self.states.lock();
        ids.iter().map(|id| self.cached_in(&states, id, Cursor::MAX)).collect()
    }

    /// The groups whose states pass. However many are asked for, few states are held at one time. The store is asked
    /// at once which of the others it knows at all, so that unknown groups are not read one by one.
    ///
    /// # Errors
    /// As [`Groups::get`], where one of them cannot be read.
    pub(crate) async fn filter(
        &self,
        mut ids: Vec<NostrGroupId>,
        passes: impl Fn(&Group) -> bool,
    ) -> Result<Vec<NostrGroupId>, StoreError> {
        let unknown = self.unknown(&ids).await?;
        let mut verdicts = Vec::with_capacity(ids.len());
        for some in ids.chunks(LOADS_TOGETHER_MAX) {
            let known: Vec<&NostrGroupId> = some.iter().filter(|id| !unknown.contains(*id)).collect();
            let mut states = self.get_all(&known).await?.into_iter();
            verdicts.extend(some.iter().map(|id| match unknown.contains(id) {
                true => passes(&Group { id: id.clone(), status: GroupStatus::Unknown }),
                false => states.next().is_some_and(|state| passes(&state)),
            }));
        }
        let mut verdicts = verdicts.into_iter();
        ids.retain(|_| verdicts.next().unwrap_or(false));
        Ok(ids)
    }

    /// Those of the groups that are not cached and that the store does not know.
    async fn unknown(&self, ids: &[NostrGroupId]) -> Result<HashSet<NostrGroupId>, StoreError> {
        let is_new = |id: &&NostrGroupId| self.cached(id, Cursor::MAX).is_none();
        let mut unknown: HashSet<NostrGroupId> = ids.iter().filter(is_new).cloned().collect();
        if !unknown.is_empty() {
            let asked: Vec<NostrGroupId> = unknown.iter().cloned().collect();
            for known in self.store.known_groups(&asked).await? {
                unknown.remove(&known);
            }
        }
        Ok(unknown)
    }

    /// Returns whether the states of all these groups pass. It loads no more groups after a chunk with one that does
    /// not.
    ///
    /// # Errors
    /// As [`Groups::get`], where one of them cannot be read.
    pub(crate) async fn all(&self, ids: &[NostrGroupId], passes: impl Fn(&Group) -> bool) -> Result<bool, StoreError> {
        for some in ids.chunks(LOADS_TOGETHER_MAX) {
            let states = self.get_all(&some.iter().collect::<Vec<_>>()).await?;
            if !states.iter().all(|state| passes(state)) {
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
    pub(super) async fn get_at(&self, id: &NostrGroupId, cursor: Cursor) -> Result<Arc<Group>, StoreError> {
        if let Some(state) = self.cached(id, cursor) {
            return Ok(state);
        }
        for _ in 0..LOADS_MAX {
            let at = Instant::now();
            let (state, as_of) = self.store.group(id).await?;
            let state = Arc::new(state);
            let mut states = self.states.lock();
            if as_of >= states.changed_at {
                let before = states.cache.get(id).and_then(|cached| cached.before.clone());
                let latest = Some(LoadedState { state: Arc::clone(&state), as_of, at });
                states.cache.insert(id.clone(), CachedGroup { latest, before });
                return Ok(state);
            }
        }
        Err(StoreError::Unavailable("the group's state changes faster than it can be read".into()))
    }

    fn cached(&self, id: &NostrGroupId, cursor: Cursor) -> Option<Arc<Group>> {
        self.cached_in(&self.states.lock(), id, cursor)
    }

    fn cached_in(&self, states: &States, id: &NostrGroupId, cursor: Cursor) -> Option<Arc<Group>> {
        let cached = states.cache.get(id)?;
        let before = cached.before.as_ref().filter(|(_, changed)| cursor < *changed).map(|(before, _)| before);
        let loaded = before.or(cached.latest.as_ref())?;
        (loaded.at.elapsed() < self.ttl).then(|| Arc::clone(&loaded.state))
    }

    /// Notes that the event at `cursor`, of this kind, changed the groups that it touches. Called in the order of the
    /// log.
    pub(super) fn note_change(&self, kind: Kind, touches: &Touches, cursor: Cursor) {
        self.note(kind, touches, cursor, CachedGroup::forget_before);
    }

    /// Notes the same of an event that this process committed and the log has not been followed up to.
    pub(super) fn note_change_ahead(&self, kind: Kind, touches: &Touches, cursor: Cursor) {
        self.note(kind, touches, cursor, CachedGroup::put_aside_before);
    }

    fn note(&self, kind: Kind, touches: &Touches, cursor: Cursor, change: fn(&mut CachedGroup, Cursor)) {
        let mut states = self.states.lock();
        match touches {
            Touches::Nothing => return,
            Touches::Group(id) => {
                // Anyone may send a gift wrap that names a group, and a group with a roster is never changed by one.
                if kind == Kind::GIFT_WRAP && states.cache.get(id).is_some_and(|it| it.states().any(has_roster)) {
                    return;
                }
                if let Some((id, mut cached)) = states.cache.remove(id) {
                    change(&mut cached, cursor);
                    if !cached.is_empty() {
                        states.cache.insert(id, cached);
                    }
                }
            }
            Touches::EveryGroup => states.cache.clear(),
        }
        states.changed_at = states.changed_at.max(cursor);
    }

    /// Forgets every state, and keeps none that was true before `cursor`: the caller may have missed changes.
    pub(super) fn forget_all(&self, cursor: Cursor) {
        let mut states = self.states.lock();
        states.cache.clear();
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
