//! Vanished keys whose events are not all removed yet: these events are never returned.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwap;
use nostr_extensions::mls_gateway::deletion::is_taken_along;
use nostr_protocol::{EventRef, PublicKey, UnixSecs};

/// A vanished key's events up to `until` are hidden, by a request that was known at the place `known_at` of the log.
/// Later commits have larger places.
#[derive(Clone, Copy, Debug, Default)]
struct HiddenUntil {
    until: UnixSecs,
    known_at: u64,
}

type HiddenKeys = HashMap<PublicKey, HiddenUntil>;

/// The vanished keys that this process knows of: it learns of them from the log.
#[derive(Debug, Default)]
pub(crate) struct Hiding(ArcSwap<HiddenKeys>);

/// The vanished keys that were known at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Hidden(Arc<HiddenKeys>);

impl Hiding {
    /// Hides the events of these keys, each up to its time, by a commit of this place.
    pub(crate) fn learn(&self, keys: &[(PublicKey, UnixSecs)], committed: u64) {
        if keys.is_empty() {
            return;
        }
        self.0.rcu(|known| {
            let mut known = HiddenKeys::clone(known);
            note(&mut known, keys.iter().copied(), committed);
            known
        });
    }

    /// Takes over a read at the place `read_at` of the log: forgets the keys that were known by then, except the
    /// `pending` ones, whose events are not all removed.
    pub(crate) fn settle(&self, pending: &HashMap<PublicKey, UnixSecs>, read_at: u64) {
        self.0.rcu(|known| {
            let later = known.iter().filter(|(_, hidden)| hidden.known_at > read_at);
            let mut next: HiddenKeys = later.map(|(key, hidden)| (*key, *hidden)).collect();
            // The place where they were read goes along, so that an earlier read that comes later takes nothing back.
            note(&mut next, pending.iter().map(|(key, until)| (*key, *until)), read_at);
            next
        });
    }

    /// The keys that are known now. Take them before events are read, so that an event removed since is hidden still.
    pub(crate) fn now(&self) -> Hidden {
        Hidden(self.0.load_full())
    }
}

fn note(known: &mut HiddenKeys, keys: impl Iterator<Item = (PublicKey, UnixSecs)>, place: u64) {
    for (key, until) in keys {
        let hidden = known.entry(key).or_default();
        *hidden = HiddenUntil { until: hidden.until.max(until), known_at: hidden.known_at.max(place) };
    }
}

impl Hidden {
    /// The time up to which a key vanished that has events left.
    #[cfg(feature = "firestore")]
    pub(crate) fn until(&self, key: &PublicKey) -> Option<UnixSecs> {
        self.0.get(key).map(|hidden| hidden.until)
    }

    /// Whether an event is gone for every reader, if not yet from the store. A request to vanish stays itself.
    pub(crate) fn hides(&self, event: EventRef<'_>) -> bool {
        !self.0.is_empty() && is_taken_along(event, |key| self.0.get(key).map(|hidden| hidden.until))
    }
}

#[cfg(test)]
mod tests {
    use nostr_protocol::testing::{EventBuilder, keypair};

    use super::*;

    fn hides(hiding: &Hiding, name: &str) -> bool {
        let event = EventBuilder::new(1).at(5).sign(&keypair(name));
        hiding.now().hides(event.event().view())
    }

    fn pending(names: &[&str]) -> HashMap<PublicKey, UnixSecs> {
        let key = |name: &&str| EventBuilder::new(1).sign(&keypair(name)).event().pubkey();
        names.iter().map(|name| (key(name), 10)).collect()
    }

    #[test]
    fn an_earlier_read_that_comes_later_takes_nothing_back() {
        let hiding = Hiding::default();
        hiding.settle(&pending(&["alice", "bob"]), 7);
        hiding.settle(&pending(&["bob"]), 6);
        assert!(hides(&hiding, "alice") && hides(&hiding, "bob"));
        hiding.settle(&pending(&["bob"]), 7);
        assert!(!hides(&hiding, "alice") && hides(&hiding, "bob"));
        let carol: Vec<_> = pending(&["carol"]).into_iter().collect();
        hiding.learn(&carol, 9);
        hiding.settle(&pending(&[]), 8);
        assert!(hides(&hiding, "carol") && !hides(&hiding, "bob"));
    }
}
