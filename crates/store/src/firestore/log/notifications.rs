//! Notifications of new commits: a stream of the service that watches the log.
//!
//! A notification carries no entry: the log's own query reads what is new. The stream watches only the few newest
//! documents, because the emulator sends its whole result at each change.

use std::sync::Weak;

use gcloud_sdk::google::firestore::v1::listen_response::ResponseType;

use crate::{
    backoff::Backoff,
    firestore::{Inner, documents::query},
};

/// Documents that the stream watches. A slow commit's document may have an earlier time than documents that were there
/// before it.
const WATCHED_MAX: usize = 8;
/// Longest pause before the stream is opened again, in milliseconds.
const AGAIN_MS_MAX: u64 = 5_000;
const AGAIN: Backoff = Backoff::new(100, AGAIN_MS_MAX);

/// Listens until the store is gone.
pub(crate) async fn listen(store: Weak<Inner>) {
    let mut failures: u32 = 0;
    while let Some(inner) = store.upgrade() {
        let mut replaced = inner.client.replaced();
        let heard = inner.client.listen(query::log_newest(&inner.names, WATCHED_MAX)).await;
        drop(inner);
        match heard {
            Ok(mut answers) => {
                let mut next = async || {
                    tokio::select! {
                        answer = answers.message() => answer.ok().flatten(),
                        _ = replaced.changed() => None,
                    }
                };
                while let Some(answer) = next().await {
                    let Some(inner) = store.upgrade() else { return };
                    failures = 0;
                    if matches!(answer.response_type, Some(ResponseType::DocumentChange(_))) {
                        inner.client.reads.count(1);
                        inner.notify();
                    }
                }
            }
            Err(fail) => tracing::debug!("no word from Firestore of what is new: {fail:?}"),
        }
        tokio::time::sleep(AGAIN.pause(failures)).await;
        failures = failures.saturating_add(1);
        // Commits while nobody listened sent no notification.
        if let Some(inner) = store.upgrade() {
            inner.notify();
        }
    }
}
