//! Facts that were read out of KeyPackages, kept for a while.
//!
//! Source: docs/rules.md, "Stock" 6; MLS Gateway specification, `keypackage_cache_ttl`. They follow from an event's
//! bytes, so a kept one is never stale: whether a KeyPackage is there is asked of the store each time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use nostr_extensions::mls_gateway::key_package::{Described, describe};
use nostr_protocol::{Event, EventId};
use quick_cache::sync::Cache;

use crate::observe::metrics::Lookups;

/// Most KeyPackages whose facts are kept.
const DESCRIBED_MAX: usize = 8_192;

/// See the module.
pub(crate) struct DescribedCache {
    ttl: Duration,
    entries: Cache<EventId, (Arc<Described>, Instant)>,
    /// Look-ups that the cache answered, and those that it could not.
    pub(crate) lookups: Lookups,
}

impl DescribedCache {
    /// An empty cache; `ttl_secs` of 0 keeps nothing.
    pub(crate) fn new(ttl_secs: u64) -> Self {
        Self { ttl: Duration::from_secs(ttl_secs), entries: Cache::new(DESCRIBED_MAX), lookups: Lookups::default() }
    }

    /// The facts of a KeyPackage event.
    pub(crate) fn of(&self, event: &Event) -> Arc<Described> {
        let id = event.id();
        let kept = self.entries.get(&id).filter(|(_, at)| at.elapsed() < self.ttl);
        if let Some((described, _)) = self.lookups.counted(kept) {
            return described;
        }
        let described = Arc::new(describe(event.view()));
        if !self.ttl.is_zero() {
            self.entries.insert(id, (Arc::clone(&described), Instant::now()));
        }
        described
    }
}

#[cfg(test)]
mod tests {
    use nostr_protocol::testing::{EventBuilder, keypair};

    use super::*;

    #[test]
    fn facts_are_kept_for_their_time() {
        let event = EventBuilder::new(443).tag(&["cs", "0x0002"]).tag(&["kpr", "a"]).event(&keypair("alice"));
        let kept = DescribedCache::new(60);
        let first = kept.of(&event);
        assert_eq!((first.ciphersuite, first.reference.as_deref()), (Some(2), Some("a")));
        assert!(Arc::ptr_eq(&first, &kept.of(&event)));
        let none = DescribedCache::new(0);
        assert!(!Arc::ptr_eq(&none.of(&event), &none.of(&event)));
    }
}
