//! The end of an HTTP connection whose request holds the most memory when there is none left.
//!
//! Source: docs/rules.md, "Memory" 3. A client that does not read its answer keeps the connection's task from asking
//! the answer for more, so the task of the connection waits for the end itself.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// The end of the request under way on one connection.
#[derive(Clone)]
pub(crate) struct Sheds(Arc<watch::Sender<Option<CancellationToken>>>);

impl Sheds {
    /// No request is under way.
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(None)))
    }

    /// From now on the connection ends when `shed` is cancelled.
    pub(super) fn follow(&self, shed: CancellationToken) {
        self.0.send_replace(Some(shed));
    }

    /// Waits until the request under way is to end for want of memory.
    pub(crate) async fn shed(&self) {
        let mut changes = self.0.subscribe();
        loop {
            let current = changes.borrow_and_update().clone();
            let ended = async {
                match &current {
                    Some(token) => token.cancelled().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = ended => return,
                // The sender lives as long as this handle.
                _ = changes.changed() => {}
            }
        }
    }
}
