//! Keys that vanished and whose events are not all gone yet: what is left of them is shown to nobody.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use nostr_extensions::{audience::recipients, mls_gateway::deletion::vanishes};
use nostr_protocol::{EventRef, Kind, PublicKey, UnixSecs};

/// Up to when each key's events are to go, and the place in the log by which it was known; that place is a number in which
/// later commits are larger.
type Known = HashMap<PublicKey, (UnixSecs, u64)>;

/// What a process knows of such keys: it hears of them by the log.
#[derive(Debug, Default)]
pub(crate) struct Hiding(ArcSwap<Known>);

/// What was known at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Hidden(Arc<Known>);

impl Hiding {
    /// A key vanished, with all up to `until`, by a commit of this place.
    pub(crate) fn learn(&self, key: PublicKey, until: UnixSecs, committed: u64) {
        self.0.rcu(|known| {
            let mut known = Known::clone(known);
            let entry = known.entry(key).or_default();
            *entry = (entry.0.max(until), entry.1.max(committed));
            known
        });
    }

    /// Of the keys that vanished up to `read_at`, these alone are not done with.
    pub(crate) fn settle(&self, pending: &HashMap<PublicKey, UnixSecs>, read_at: u64) {
        self.0.rcu(|known| {
            let later = known.iter().filter(|(_, (_, committed))| *committed > read_at);
            let mut next: Known = later.map(|(key, what)| (*key, *what)).collect();
            for (key, until) in pending {
                let entry = next.entry(*key).or_default();
                entry.0 = entry.0.max(*until);
            }
            next
        });
    }

    /// To be taken before events are read: one that went since then is hidden still.
    pub(crate) fn now(&self) -> Hidden {
        Hidden(self.0.load_full())
    }
}

impl Hidden {
    /// Whether an event is gone for every reader, if not yet from the store. A request to vanish stays itself.
    pub(crate) fn hides(&self, event: EventRef<'_>) -> bool {
        if self.0.is_empty() || event.kind() == Kind::VANISH {
            return false;
        }
        let takes = |key: &PublicKey| self.0.get(key).is_some_and(|(until, _)| vanishes(event, key, *until));
        takes(&event.pubkey()) || recipients(event).iter().any(takes)
    }
}
