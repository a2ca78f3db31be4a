//! Telling the other instances over the store itself what accepted events cost, where it has a road for that. That
//! something was committed they hear from it anyway.

use std::{sync::Arc, time::Duration};

use nostr_store::{PEER_MESSAGE_BYTES_MAX, Store};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    task::JoinHandle,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{Hearing, message::BYTES_MAX};

/// Shortest time between two messages: the database does as much for each as for a small write.
const PAUSE: Duration = Duration::from_millis(100);

const _: () = assert!(BYTES_MAX <= PEER_MESSAGE_BYTES_MAX, "a message fits");

/// The road over a store.
pub struct Told {
    store: Arc<dyn Store>,
    heard: Receiver<Arc<[u8]>>,
    hearing: Hearing,
}

impl Told {
    /// The road over `store`, where it has one: `heard` is its other end.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, heard: Receiver<Arc<[u8]>>, hearing: Hearing) -> Self {
        Self { store, heard, hearing }
    }

    /// Sends and hears until `ended`, and then sends what waits.
    pub fn start(self, ended: &CancellationToken) -> [JoinHandle<()>; 2] {
        let Self { store, mut heard, hearing } = self;
        let hearing = Arc::new(hearing);
        let (sending, sent, ended) = (Arc::clone(&hearing), ended.clone(), ended.clone());
        [
            tokio::spawn(async move { send(&*store, &sending, sent).await }),
            tokio::spawn(async move {
                let hear = async {
                    loop {
                        match heard.recv().await {
                            Ok(message) => {
                                hearing.hear(&message);
                            }
                            // Some were lost, as some may be.
                            Err(RecvError::Lagged(_)) => {}
                            Err(RecvError::Closed) => return,
                        }
                    }
                };
                let _ = ended.run_until_cancelled(hear).await;
            }),
        ]
    }
}

async fn send(store: &dyn Store, hearing: &Hearing, ended: CancellationToken) {
    loop {
        let is_last = tokio::select! {
            () = hearing.wake.filled.notified() => false,
            () = ended.cancelled() => true,
        };
        let message = hearing.wake.take();
        if !message.spent.is_empty()
            && let Err(error) = store.broadcast(message.encode()).await
        {
            tracing::debug!(%error, "what events cost was not told");
        }
        if is_last {
            return;
        }
        let _ = ended.run_until_cancelled(sleep(PAUSE)).await;
    }
}
