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
    /// These keys vanished, each with all up to its time, by a commit of this place.
    pub(crate) fn learn(&self, keys: &[(PublicKey, UnixSecs)], committed: u64) {
        if keys.is_empty() {
            return;
        }
        self.0.rcu(|known| {
            let mut known = Known::clone(known);
            note(&mut known, keys.iter().copied(), committed);
            known
        });
    }

    /// Of the keys that vanished up to `read_at`, these alone are not done with.
    pub(crate) fn settle(&self, pending: &HashMap<PublicKey, UnixSecs>, read_at: u64) {
        self.0.rcu(|known| {
            let later = known.iter().filter(|(_, (_, committed))| *committed > read_at);
            let mut next: Known = later.map(|(key, what)| (*key, *what)).collect();
            // With the place where they were read: who read before that knows less, however late it comes.
            note(&mut next, pending.iter().map(|(key, until)| (*key, *until)), read_at);
            next
        });
    }

    /// To be taken before events are read: one that went since then is hidden still.
    pub(crate) fn now(&self) -> Hidden {
        Hidden(self.0.load_full())
    }
}

fn note(known: &mut Known, keys: impl Iterator<Item = (PublicKey, UnixSecs)>, place: u64) {
    for (key, until) in keys {
        let entry = known.entry(key).or_default();
        *entry = (entry.0.max(until), entry.1.max(place));
    }
}

impl Hidden {
    /// Whether an event is gone for every reader, if not yet from the store. A request to vanish stays itself.
    pub(crate) fn hides(&self, event: EventRef<'_>) -> bool {
        if self.0.is_empty() || event.kind() == Kind::VANISH {
            return false;
        }
        let takes = |key: &PublicKey| self.0.get(key).is_some_and(|(until, _)| vanishes(event, key, *until));
        let has_recipients = matches!(event.kind(), Kind::NOISE_DM | Kind::KEY_PACKAGE_REQUEST | Kind::GIFT_WRAP);
        takes(&event.pubkey()) || (has_recipients && recipients(event).iter().any(takes))
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

    fn of(names: &[&str]) -> HashMap<PublicKey, UnixSecs> {
        let key = |name: &&str| EventBuilder::new(1).sign(&keypair(name)).event().pubkey();
        names.iter().map(|name| (key(name), 10)).collect()
    }

    #[test]
    fn who_read_earlier_and_comes_later_takes_nothing_back() {
        let hiding = Hiding::default();
        hiding.settle(&of(&["alice", "bob"]), 7);
        hiding.settle(&of(&["bob"]), 6);
        assert!(hides(&hiding, "alice") && hides(&hiding, "bob"));
        hiding.settle(&of(&["bob"]), 7);
        assert!(!hides(&hiding, "alice") && hides(&hiding, "bob"));
        let carol: Vec<_> = of(&["carol"]).into_iter().collect();
        hiding.learn(&carol, 9);
        hiding.settle(&of(&[]), 8);
        assert!(hides(&hiding, "carol") && !hides(&hiding, "bob"));
    }
}
