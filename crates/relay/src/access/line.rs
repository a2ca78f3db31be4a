//! The lines of requests that wait for an answer about one group, of which the first asks.

use std::sync::Arc;

use nostr_extensions::NostrGroupId;
use tokio::sync::OwnedMutexGuard;

use super::Access;

/// Most groups about which requests wait for answers at one time. The groups beyond them are as good as unanswered.
const WAITING_GROUPS_MAX: usize = 4_096;

/// A place in the line of those that wait for an answer about one group.
pub(super) struct Line {
    access: Arc<Access>,
    id: NostrGroupId,
    lock: Arc<tokio::sync::Mutex<()>>,
}

/// The head of the line. It lets go of the lock before it leaves the line.
pub(super) struct Head {
    _lock: OwnedMutexGuard<()>,
    _line: Line,
}

impl Line {
    /// Joins the line; `None` where requests wait for too many groups.
    pub(super) fn join(access: &Arc<Access>, id: &NostrGroupId) -> Option<Self> {
        let mut asking = access.asking.lock();
        if asking.len() >= WAITING_GROUPS_MAX && !asking.contains_key(id) {
            return None;
        }
        let lock = Arc::clone(asking.entry(id.clone()).or_default());
        Some(Self { access: Arc::clone(access), id: id.clone(), lock })
    }

    /// Waits until those before have left.
    pub(super) async fn head(self) -> Head {
        Head { _lock: Arc::clone(&self.lock).lock_owned().await, _line: self }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let mut asking = self.access.asking.lock();
        // The map's own, and this one.
        if Arc::strong_count(&self.lock) == 2 {
            asking.remove(&self.id);
        }
    }
}
