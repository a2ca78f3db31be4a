//! What a process remembers between calls.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use nostr_extensions::NostrGroupId;
use parking_lot::Mutex;

use super::value::hex;

/// Most groups whose last epoch is remembered.
const EPOCHS_MAX: usize = 65_536;

/// The last epochs of groups, as the registry shows them. They are written once a second and not with each message.
#[derive(Debug, Default)]
pub(super) struct Epochs(Mutex<HashMap<NostrGroupId, Epoch>>);

#[derive(Clone, Copy, Debug, Default)]
struct Epoch {
    last: Option<u64>,
    written: Option<u64>,
}

impl Epochs {
    /// Whether what the store holds of this group's epoch was read before.
    pub(super) fn knows(&self, group: &NostrGroupId) -> bool {
        self.0.lock().contains_key(group)
    }

    /// The last epoch that this process knows of.
    pub(super) fn last(&self, group: &NostrGroupId) -> Option<u64> {
        self.0.lock().get(group).and_then(|epoch| epoch.last)
    }

    /// The store holds this one.
    pub(super) fn learn(&self, group: &NostrGroupId, stored: Option<u64>) {
        self.change(group, |epoch| {
            epoch.written = epoch.written.max(stored);
            epoch.last = epoch.last.max(stored);
        });
    }

    /// A message was of this one.
    pub(super) fn rise(&self, group: &NostrGroupId, to: u64) {
        self.change(group, |epoch| epoch.last = epoch.last.max(Some(to)));
    }

    fn change(&self, group: &NostrGroupId, change: impl FnOnce(&mut Epoch)) {
        let mut epochs = self.0.lock();
        if epochs.len() >= EPOCHS_MAX && !epochs.contains_key(group) {
            epochs.retain(|_, epoch| epoch.last > epoch.written);
        }
        change(epochs.entry(group.clone()).or_default());
    }

    /// Those that the store does not hold, at most so many.
    pub(super) fn unwritten(&self, most: usize) -> Vec<(NostrGroupId, u64)> {
        let epochs = self.0.lock();
        let unwritten = epochs.iter().filter(|(_, epoch)| epoch.last > epoch.written);
        unwritten.filter_map(|(group, epoch)| Some((group.clone(), epoch.last?))).take(most).collect()
    }
}

/// Names that no other process chooses, and waits that are not the same for all.
#[derive(Debug, Default)]
pub(super) struct Random {
    keys: [RandomState; 2],
    next: AtomicU64,
}

impl Random {
    fn number(&self, sort: usize) -> u64 {
        self.keys[sort].hash_one(self.next.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.number(0).to_be_bytes());
        bytes[8..].copy_from_slice(&self.number(1).to_be_bytes());
        bytes
    }

    /// A document's id.
    pub(super) fn id(&self) -> String {
        hex(&self.bytes())
    }

    /// Less than `bound`, which is not 0.
    pub(super) fn below(&self, bound: u64) -> u64 {
        self.number(0) % bound.max(1)
    }
}
