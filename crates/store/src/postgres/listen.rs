//! Notifications of commits and messages between processes, by PostgreSQL's LISTEN on a connection outside the pool.
//!
//! A lost notification only delays a reader, because the log holds everything. A connection that has fallen silent
//! shows by a beat: a statement every few seconds, whose answer must come.

use std::{sync::Arc, time::Duration};

use deadpool_postgres::Client;
use futures_util::{StreamExt as _, stream};
use nostr_protocol::hex;
use tokio::sync::{broadcast, watch};
use tokio_postgres::AsyncMessage;

use super::{connect::DatabaseAddress, fail::Fail};
use crate::{PEER_MESSAGE_BYTES_MAX, backoff::Backoff};

/// Longest pause before listening is tried again, in milliseconds.
const RETRY_MS_MAX: u64 = 2_000;
const RETRY: Backoff = Backoff::new(50, RETRY_MS_MAX);
/// Time between two beats.
const BEAT: Duration = Duration::from_secs(3);
/// Longest wait for the answer to a beat.
const BEAT_ANSWER_MAX: Duration = Duration::from_secs(3);

/// The channel of messages between processes. They are sent in hex, because a payload is text of less than 8,000 bytes.
/// The channel keeps the name of the first release, so that instances of two releases hear each other.
const MESSAGES: &str = "rnostr_told";
const BROADCAST: &str = "select pg_notify('rnostr_told', $1)";
const _: () = assert!(2 * PEER_MESSAGE_BYTES_MAX < 8_000, "a message fits into a payload");

/// See [`crate::Store::broadcast`].
pub(super) async fn send(client: &Client, message: &[u8]) -> Result<(), Fail> {
    let statement = client.prepare_cached(BROADCAST).await?;
    client.query(&statement, &[&hex::to_hex(message)]).await.map(drop).map_err(Fail::from)
}

/// Listens until the receivers are gone.
pub(super) async fn run(
    address: DatabaseAddress,
    notifications: watch::Sender<u64>,
    messages: broadcast::Sender<Arc<[u8]>>,
) {
    let mut failures = 0;
    loop {
        let ended = tokio::select! {
            () = notifications.closed() => return,
            ended = listen(&address, &notifications, &messages, &mut failures) => ended,
        };
        if let Err(fail) = ended {
            tracing::debug!(error = %fail.to_store_error(), "listening to the database ended");
        }
        tokio::time::sleep(RETRY.pause(failures)).await;
        failures = failures.saturating_add(1);
    }
}

async fn listen(
    address: &DatabaseAddress,
    notifications: &watch::Sender<u64>,
    messages: &broadcast::Sender<Arc<[u8]>>,
    failures: &mut u32,
) -> Result<(), Fail> {
    let (client, mut connection) = address.connect().await?;
    let incoming = stream::poll_fn(move |context| connection.poll_message(context));
    let mut incoming = std::pin::pin!(incoming);
    // Without an answer to this the first beat, which is sent behind it, ends the connection.
    let mut listening = std::pin::pin!(client.batch_execute("listen rnostr_log; listen rnostr_told"));
    let mut is_listening = false;
    let mut beats = std::pin::pin!(beat(&client));
    loop {
        tokio::select! {
            fail = &mut beats => return Err(fail),
            done = &mut listening, if !is_listening => {
                done?;
                is_listening = true;
                *failures = 0;
                // Commits before this moment sent their notifications to nobody here.
                notifications.send_modify(|count| *count += 1);
            }
            message = incoming.next() => match message {
                Some(Ok(AsyncMessage::Notification(message))) if message.channel() == MESSAGES => {
                    if let Some(message) = hex::parse_any(message.payload().as_bytes()) {
                        // An error means that nobody receives messages.
                        let _ = messages.send(message.into());
                    }
                }
                Some(Ok(AsyncMessage::Notification(_))) => notifications.send_modify(|count| *count += 1),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Ok(()),
            },
        }
    }
}

/// Asks for an answer every [`BEAT`], and ends when none comes.
async fn beat(client: &tokio_postgres::Client) -> Fail {
    loop {
        tokio::time::sleep(BEAT).await;
        match tokio::time::timeout(BEAT_ANSWER_MAX, client.simple_query("")).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return error.into(),
            Err(_) => return Fail::Silent,
        }
    }
}
