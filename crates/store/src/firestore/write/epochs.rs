//! The last epochs of groups. They are kept in memory and written once a second, so that a message writes no group's
//! document.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use nostr_extensions::NostrGroupId;
use parking_lot::Mutex;

use crate::firestore::{
    Inner,
    wire::{fail::Fail, value},
};

/// Most groups whose last epoch is remembered.
const EPOCHS_MAX: usize = 65_536;

/// Pause between writes of epochs, in milliseconds.
const EPOCHS_MS: u64 = 1_000;
/// Most epochs of one write.
const EPOCHS_WRITTEN_MAX: usize = 400;

/// Last epochs by group, known and written.
#[derive(Debug, Default)]
pub(crate) struct Epochs(Mutex<HashMap<NostrGroupId, Epoch>>);

#[derive(Clone, Copy, Debug, Default)]
struct Epoch {
    last: Option<u64>,
    written: Option<u64>,
}

impl Epochs {
    /// Whether the stored epoch of this group has been read.
    pub(crate) fn knows(&self, group: &NostrGroupId) -> bool {
        self.0.lock().contains_key(group)
    }

    /// The last epoch that this process knows of.
    pub(crate) fn last(&self, group: &NostrGroupId) -> Option<u64> {
        self.0.lock().get(group).and_then(|epoch| epoch.last)
    }

    /// Notes the stored epoch of a group.
    pub(crate) fn learn(&self, group: &NostrGroupId, stored: Option<u64>) {
        self.change(group, |epoch| {
            epoch.written = epoch.written.max(stored);
            epoch.last = epoch.last.max(stored);
        });
    }

    /// Notes the epoch of a message.
    pub(crate) fn rise(&self, group: &NostrGroupId, to: u64) {
        self.change(group, |epoch| epoch.last = epoch.last.max(Some(to)));
    }

    fn change(&self, group: &NostrGroupId, change: impl FnOnce(&mut Epoch)) {
        let mut epochs = self.0.lock();
        if epochs.len() >= EPOCHS_MAX && !epochs.contains_key(group) {
            epochs.retain(|_, epoch| epoch.last > epoch.written);
        }
        change(epochs.entry(group.clone()).or_default());
    }

    /// At most `most` epochs that are not stored yet.
    pub(crate) fn unwritten(&self, most: usize) -> Vec<(NostrGroupId, u64)> {
        let epochs = self.0.lock();
        let unwritten = epochs.iter().filter(|(_, epoch)| epoch.last > epoch.written);
        unwritten.filter_map(|(group, epoch)| Some((group.clone(), epoch.last?))).take(most).collect()
    }
}

/// Writes epochs until the store is gone.
pub(crate) async fn write_epochs(store: Weak<Inner>) {
    loop {
        tokio::time::sleep(Duration::from_millis(EPOCHS_MS)).await;
        let Some(inner) = store.upgrade() else { return };
        if let Err(fail) = inner.flush().await {
            tracing::debug!("epochs are written later: {fail:?}");
        }
    }
}

impl Inner {
    /// Writes all epochs that are not stored yet.
    pub(crate) async fn flush(self: &Arc<Self>) -> Result<(), Fail> {
        loop {
            let waiting = self.epochs.unwritten(EPOCHS_WRITTEN_MAX);
            if waiting.is_empty() {
                return Ok(());
            }
            self.history.is_ours()?;
            let writes = waiting.iter().map(|(group, epoch)| value::raise(self.names.epoch(group), "epoch", *epoch));
            self.client.commit(writes.collect(), None).await?;
            for (group, epoch) in &waiting {
                self.epochs.learn(group, Some(*epoch));
            }
        }
    }
}
