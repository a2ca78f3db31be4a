//! Messages over the store itself, where it carries them ([`Store::messages`]): the costs of accepted events, orders
//! and announcements. The store's own notifications already say that something was committed.

use std::{sync::Arc, time::Duration};

use nostr_store::{PEER_MESSAGE_BYTES_MAX, Store};
use tokio::{
    sync::broadcast::{Receiver, error::RecvError},
    task::JoinHandle,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{PeerChannel, message::BYTES_MAX, receiver::PeerReceiver};

/// Shortest time between two messages: the database does as much for each as for a small write.
const PAUSE: Duration = Duration::from_millis(100);

const _: () = assert!(BYTES_MAX <= PEER_MESSAGE_BYTES_MAX, "a message fits");

/// The transport over a store.
pub(crate) struct StoreTransport {
    store: Arc<dyn Store>,
    messages: Receiver<Arc<[u8]>>,
    receiver: PeerReceiver,
}

impl StoreTransport {
    /// The transport over `store`, which gives `messages`.
    pub(super) fn new(store: Arc<dyn Store>, messages: Receiver<Arc<[u8]>>, receiver: PeerReceiver) -> Self {
        Self { store, messages, receiver }
    }

    /// Sends and receives until `ended`, and then sends the message that waits.
    pub(super) fn start(self, ended: &CancellationToken) -> [JoinHandle<()>; 2] {
        let Self { store, mut messages, receiver } = self;
        let channel = Arc::clone(&receiver.channel);
        let (sending_ended, receiving_ended) = (ended.clone(), ended.clone());
        let receive = async move {
            loop {
                match messages.recv().await {
                    Ok(message) => {
                        receiver.receive(&message);
                    }
                    // Some messages were lost, which a transport may do.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        };
        [
            tokio::spawn(async move { send(&*store, &channel, sending_ended).await }),
            tokio::spawn(async move {
                let _ = receiving_ended.run_until_cancelled(receive).await;
            }),
        ]
    }
}

async fn send(store: &dyn Store, channel: &PeerChannel, ended: CancellationToken) {
    loop {
        let is_last = tokio::select! {
            () = channel.filled.notified() => false,
            () = ended.cancelled() => true,
        };
        let message = channel.take();
        if (message.has_orders || message.announcement.is_some() || !message.charges.is_empty())
            && let Err(error) = store.broadcast(message.encode(&channel.key)).await
        {
            tracing::debug!(%error, "the other instances were not told");
        }
        if is_last {
            return;
        }
        let _ = ended.run_until_cancelled(sleep(PAUSE)).await;
    }
}
