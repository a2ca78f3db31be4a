//! The states of groups that the gate is asked with: a bounded cache over the store.
//!
//! Whoever has committed a change forgets the group here before anything that depends on it goes out: the answer to the
//! change, and every event behind it in the log. A state that was loaded before such a change is not kept, and not used.
//!
//! Where the log is followed, this process may know of a change of its own before it has come by all that lies before it
//! in the log. What it knew of the group until then is kept beside, for the events that lie before the change.

use std::{
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
/// Most groups that requests load at one time, so that who follows the log and who writes do not wait long behind them.
const LOADS_TOGETHER_MAX: usize = 16;
/// Most times that a load is tried again because a change overtook it.
const LOADS_MAX: usize = 16;

/// See the module.
pub struct Groups {
    store: Arc<dyn Store>,
    /// The most age of a cached state.
    ttl: Duration,
    inner: Mutex<Inner>,
    /// For requests.
    loads: Semaphore,
    applied: AtomicU64,
}

struct Inner {
    cache: Cache<NostrGroupId, Cached, Bytes>,
    /// Cursor of the last change of any group.
    changed_at: Cursor,
}

/// What is known of one group.
#[derive(Clone, Default)]
struct Cached {
    /// Its state after every change that was noted.
    latest: Option<Loaded>,
    /// Its state before a change that the log has not been followed up to, and that change.
    before: Option<(Loaded, Cursor)>,
}

#[derive(Clone)]
struct Loaded {
    state: Arc<Group>,
    as_of: Cursor,
    at: Instant,
}

impl Cached {
    /// Forgets what was true before the change at `cursor`.
    fn forget_before(&mut self, cursor: Cursor) {
        self.latest.take_if(|latest| latest.as_of < cursor);
        self.before.take_if(|(before, _)| before.as_of < cursor);
    }

    /// Puts what was true before the change at `cursor` aside.
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
struct Bytes;

impl Weighter<NostrGroupId, Cached> for Bytes {
    fn weight(&self, id: &NostrGroupId, cached: &Cached) -> u64 {
        let members = |state: &Group| match &state.status {
            GroupStatus::Managed(view) => view.members.len(),
            _ => 0,
        };
        (id.as_str().len() * 2 + 256 + cached.states().map(members).sum::<usize>() * 48) as u64
    }
}

fn has_roster(state: &Group) -> bool {
    matches!(&state.status, GroupStatus::Managed(view) if view.record.source > Source::GiftWrap)
}

impl Groups {
    /// An empty cache over `store`, whose states are at most `ttl` old.
    pub fn new(store: Arc<dyn Store>, ttl: Duration) -> Self {
        let applied = AtomicU64::new(store.head());
        let cache = Cache::with_weighter(CACHE_GROUPS_EXPECTED, CACHE_BYTES_MAX, Bytes);
        Self {
            store,
            ttl,
            inner: Mutex::new(Inner { cache, changed_at: 0 }),
            loads: Semaphore::new(LOADS_TOGETHER_MAX),
            applied,
        }
    }

    /// The state of a group, no older than the last change that was noted.
    ///
    /// # Errors
    /// Those of the store; the caller then treats the group as shut.
    pub async fn get(&self, id: &NostrGroupId) -> Result<Arc<Group>, StoreError> {
        self.get_at(id, Cursor::MAX).await
    }

    /// The states of the groups of a page, in their order.
    ///
    /// # Errors
    /// As [`Groups::get`], where one of them cannot be read.
    pub async fn get_all(&self, ids: &[&NostrGroupId]) -> Result<Vec<Arc<Group>>, StoreError> {
        let get = async |id: &&NostrGroupId| match self.cached(id, Cursor::MAX) {
            Some(state) => Ok(state),
            None => {
                let _place = self.loads.acquire().await;
                self.get(id).await
            }
        };
        try_join_all(ids.iter().map(get)).await
    }

    /// Those of the groups whose states pass; of any number of them, few are held at one time.
    ///
    /// # Errors
    /// As [`Groups::get`], where one of them cannot be read.
    pub async fn filter(
        &self,
        mut ids: Vec<NostrGroupId>,
        passes: impl Fn(&Group) -> bool,
    ) -> Result<Vec<NostrGroupId>, StoreError> {
        let mut verdicts = Vec::with_capacity(ids.len());
        for some in ids.chunks(LOADS_TOGETHER_MAX) {
            let states = self.get_all(&some.iter().collect::<Vec<_>>()).await?;
            verdicts.extend(states.iter().map(|state| passes(state)));
        }
        let mut verdicts = verdicts.into_iter();
        ids.retain(|_| verdicts.next().unwrap_or(false));
        Ok(ids)
    }

    /// Whether the states of all these groups pass; it looks no further than to the first few of which one does not.
    ///
    /// # Errors
    /// As [`Groups::get`], where one of them cannot be read.
    pub async fn all(&self, ids: &[NostrGroupId], passes: impl Fn(&Group) -> bool) -> Result<bool, StoreError> {
        for some in ids.chunks(LOADS_TOGETHER_MAX) {
            let states = self.get_all(&some.iter().collect::<Vec<_>>()).await?;
            if !states.iter().all(|state| passes(state)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The state that decides about an event at `cursor`, asked by whoever follows the log and is there: that of before a
    /// change which this process has made further on, where it is still known, else the latest.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn get_at(&self, id: &NostrGroupId, cursor: Cursor) -> Result<Arc<Group>, StoreError> {
        if let Some(state) = self.cached(id, cursor) {
            return Ok(state);
        }
        for _ in 0..LOADS_MAX {
            let at = Instant::now();
            let (state, as_of) = self.store.group(id).await?;
            let state = Arc::new(state);
            let mut inner = self.inner.lock();
            if as_of >= inner.changed_at {
                let before = inner.cache.get(id).and_then(|cached| cached.before.clone());
                let latest = Some(Loaded { state: Arc::clone(&state), as_of, at });
                inner.cache.insert(id.clone(), Cached { latest, before });
                return Ok(state);
            }
        }
        Err(StoreError::Unavailable("the group's state changes faster than it can be read".into()))
    }

    fn cached(&self, id: &NostrGroupId, cursor: Cursor) -> Option<Arc<Group>> {
        let inner = self.inner.lock();
        let cached = inner.cache.get(id)?;
        let before = cached.before.as_ref().filter(|(_, changed)| cursor < *changed).map(|(before, _)| before);
        let loaded = before.or(cached.latest.as_ref())?;
        (loaded.at.elapsed() < self.ttl).then(|| Arc::clone(&loaded.state))
    }

    /// Notes that the event at `cursor`, of this kind, changed what it touches. Called in the order of the log.
    pub fn changed(&self, kind: Kind, touches: &Touches, cursor: Cursor) {
        self.note(kind, touches, cursor, Cached::forget_before);
    }

    /// The same for an event of this process to which the log has not been followed yet.
    pub fn changed_ahead(&self, kind: Kind, touches: &Touches, cursor: Cursor) {
        self.note(kind, touches, cursor, Cached::put_aside_before);
    }

    fn note(&self, kind: Kind, touches: &Touches, cursor: Cursor, change: fn(&mut Cached, Cursor)) {
        let mut inner = self.inner.lock();
        match touches {
            Touches::Nothing => return,
            Touches::Group(id) => {
                // Anyone may send a gift wrap that names a group; one that has a roster is not changed by it, for ever.
                if kind == Kind::GIFT_WRAP && inner.cache.get(id).is_some_and(|it| it.states().any(has_roster)) {
                    return;
                }
                if let Some((id, mut cached)) = inner.cache.remove(id) {
                    change(&mut cached, cursor);
                    if !cached.is_empty() {
                        inner.cache.insert(id, cached);
                    }
                }
            }
            Touches::EveryGroup => inner.cache.clear(),
        }
        inner.changed_at = inner.changed_at.max(cursor);
    }

    /// Forgets every state, and keeps none that was true before `cursor`: for who may have missed changes.
    pub fn forget_all(&self, cursor: Cursor) {
        let mut inner = self.inner.lock();
        inner.cache.clear();
        inner.changed_at = inner.changed_at.max(cursor);
    }

    /// Notes that every change up to `cursor` is known here. Called before the first answer to what was committed.
    pub fn applied_up_to(&self, cursor: Cursor) {
        self.applied.fetch_max(cursor, Ordering::AcqRel);
    }

    /// The cursor up to which the archive may be read: what was committed later may depend on a change of a group that
    /// is not known here yet.
    pub fn applied(&self) -> Cursor {
        self.applied.load(Ordering::Acquire)
    }
}
