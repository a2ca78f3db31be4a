//! The states of groups that the gate is asked with: a bounded cache over the store.
//!
//! Whoever has committed a change forgets the group here before anything that depends on it goes out: the answer to the
//! change, and every event behind it in the log. A state that was loaded before such a change is not kept, and not used.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use nostr_extensions::{GroupState, GroupStatus, NostrGroupId, Source, gate::Touches};
use nostr_protocol::Kind;
use nostr_store::{Cursor, Store, StoreError};
use parking_lot::Mutex;
use quick_cache::{Weighter, unsync::Cache};

/// Most bytes of cached states, by estimate.
const CACHE_BYTES_MAX: u64 = 64 << 20;
/// Groups that the cache is laid out for.
const CACHE_GROUPS_EXPECTED: usize = 10_000;
/// Most times that a load is tried again because a change overtook it.
const LOADS_MAX: usize = 16;

/// See the module.
pub struct Groups {
    store: Arc<dyn Store>,
    inner: Mutex<Inner>,
    applied: AtomicU64,
}

struct Inner {
    cache: Cache<NostrGroupId, Arc<GroupState>, Bytes>,
    /// Cursor of the last change of any group.
    changed_at: Cursor,
}

#[derive(Clone)]
struct Bytes;

impl Weighter<NostrGroupId, Arc<GroupState>> for Bytes {
    fn weight(&self, id: &NostrGroupId, state: &Arc<GroupState>) -> u64 {
        let members = match &state.status {
            GroupStatus::Managed(view) => view.members.len(),
            _ => 0,
        };
        (id.as_str().len() * 2 + 256 + members * 48) as u64
    }
}

fn has_roster(state: &GroupState) -> bool {
    matches!(&state.status, GroupStatus::Managed(view) if view.record.source > Source::GiftWrap)
}

impl Groups {
    /// An empty cache over `store`.
    pub fn new(store: Arc<dyn Store>) -> Self {
        let applied = AtomicU64::new(store.head());
        let cache = Cache::with_weighter(CACHE_GROUPS_EXPECTED, CACHE_BYTES_MAX, Bytes);
        Self { store, inner: Mutex::new(Inner { cache, changed_at: 0 }), applied }
    }

    /// The state of a group, no older than the last change that was [noted](Self::changed).
    ///
    /// # Errors
    /// Those of the store; the caller then treats the group as shut.
    pub async fn get(&self, id: &NostrGroupId) -> Result<Arc<GroupState>, StoreError> {
        if let Some(state) = self.inner.lock().cache.get(id) {
            return Ok(Arc::clone(state));
        }
        for _ in 0..LOADS_MAX {
            let (state, as_of) = self.store.group(id).await?;
            let state = Arc::new(state);
            let mut inner = self.inner.lock();
            if as_of >= inner.changed_at {
                inner.cache.insert(id.clone(), Arc::clone(&state));
                return Ok(state);
            }
        }
        Err(StoreError::Unavailable("the group's state changes faster than it can be read".into()))
    }

    /// Notes that the event at `cursor`, of this kind, changed what it touches.
    pub fn changed(&self, kind: Kind, touches: &Touches, cursor: Cursor) {
        let mut inner = self.inner.lock();
        match touches {
            Touches::Nothing => return,
            Touches::Group(id) => {
                // Anyone may send a gift wrap that names a group; one that has a roster is not changed by it, for ever.
                if kind == Kind::GIFT_WRAP && inner.cache.get(id).is_some_and(|state| has_roster(state)) {
                    return;
                }
                inner.cache.remove(id);
            }
            Touches::EveryGroup => inner.cache.clear(),
        }
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
