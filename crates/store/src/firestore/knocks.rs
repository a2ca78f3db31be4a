//! Knocks: the service tells of new documents in the log, and the epochs that wait are written.
//!
//! A listener is never more than a knock: what is new is read by the log's own query. It watches the newest few documents,
//! as the emulator sends its whole result at each change.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use gcloud_sdk::google::firestore::v1::listen_response::ResponseType;

use super::{Inner, fail::Fail, query, value};

/// Documents that are watched: what was long under way takes its place behind what was not, and is not among the newest.
const WATCHED_MAX: usize = 8;
/// Longest wait before the listener is set up again, first and at most, in milliseconds.
const AGAIN_MS_FIRST: u64 = 100;
const AGAIN_MS_MAX: u64 = 5_000;
/// How often epochs of groups are written, in milliseconds.
const EPOCHS_MS: u64 = 1_000;
/// Most epochs that are written at once.
const EPOCHS_MAX: usize = 400;

/// Listens until the store is gone.
pub(super) async fn listen(store: Weak<Inner>) {
    let mut failed = 0;
    while let Some(inner) = store.upgrade() {
        let heard = inner.client.listen(query::log_newest(&inner.names, WATCHED_MAX)).await;
        let wait = inner.random.below((AGAIN_MS_FIRST << failed.min(10)).min(AGAIN_MS_MAX)) + 1;
        drop(inner);
        match heard {
            Ok(mut answers) => {
                while let Ok(Some(answer)) = answers.message().await {
                    let Some(inner) = store.upgrade() else { return };
                    failed = 0;
                    if matches!(answer.response_type, Some(ResponseType::DocumentChange(_))) {
                        inner.knock();
                    }
                }
            }
            Err(fail) => tracing::debug!("no word from Firestore of what is new: {fail:?}"),
        }
        failed += 1;
        tokio::time::sleep(Duration::from_millis(wait)).await;
        // What came while nobody listened has to be looked for.
        if let Some(inner) = store.upgrade() {
            inner.knock();
        }
    }
}

/// Writes epochs until the store is gone.
pub(super) async fn write_epochs(store: Weak<Inner>) {
    loop {
        tokio::time::sleep(Duration::from_millis(EPOCHS_MS)).await;
        let Some(inner) = store.upgrade() else { return };
        if let Err(fail) = inner.flush().await {
            tracing::debug!("epochs are written later: {fail:?}");
        }
    }
}

impl Inner {
    /// Writes the epochs that wait.
    pub(super) async fn flush(self: &Arc<Self>) -> Result<(), Fail> {
        loop {
            let waiting = self.epochs.unwritten(EPOCHS_MAX);
            if waiting.is_empty() {
                return Ok(());
            }
            let writes = waiting.iter().map(|(group, epoch)| value::raise(self.names.epoch(group), "epoch", *epoch));
            self.client.commit(writes.collect(), None).await?;
            for (group, epoch) in &waiting {
                self.epochs.learn(group, Some(*epoch));
            }
        }
    }
}
