//! Messages over Redis (pub/sub), for a store without notifications of its own or one that is to be spared them.
//!
//! One task sends and one listens, each over a connection of its own that it opens anew when it breaks. An instance
//! receives its own messages too, at least once a second. While it receives none, the follower looks at the log more
//! often. Nothing waits for Redis.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use nostr_extensions::RouteHasher;
use redis::{AsyncConnectionConfig, Client, RedisError, aio::MultiplexedConnection};
use tokio::{
    task::JoinHandle,
    time::{Instant, error::Elapsed, sleep, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::receiver::{PeerReceiver, Received};
use crate::{config::Secret, delivery::follow::FollowedLog, error::StartError, system::backoff};

/// Longest wait for an answer of Redis, in seconds.
const ANSWER_SECS_MAX: u64 = 1;
/// Time between two messages when there is nothing to send.
const BEAT: Duration = Duration::from_secs(1);
/// Longest silence: an instance that did not receive even its own messages for so long does not receive the others'.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// Time between two looks at the log while Redis is away.
const AWAY_POLL: Duration = Duration::from_millis(100);

/// The transport over one Redis.
pub(crate) struct RedisTransport {
    client: Client,
    channel: String,
    receiver: PeerReceiver,
    log: Arc<FollowedLog>,
}

/// The reason why Redis cannot be used now.
#[derive(Debug, thiserror::Error)]
enum Disconnected {
    #[error("{0}")]
    Redis(#[from] RedisError),
    #[error("it does not answer")]
    Silent(#[from] Elapsed),
    #[error("it closed the connection")]
    Ended,
}

impl RedisTransport {
    /// The transport for the instances that share the store of `hasher`, over the Redis at `url`. The channel's name
    /// tells nothing of the store, and no other store has the same.
    ///
    /// # Errors
    /// [`StartError`] when `url` is missing or malformed.
    pub(super) fn new(
        url: Option<&Secret>,
        hasher: &RouteHasher,
        receiver: PeerReceiver,
        log: Arc<FollowedLog>,
    ) -> Result<Self, StartError> {
        let refuse = |problem: &str| {
            StartError::new(format!("extensions.mls_gateway.redis_url: {problem}; write redis://host:6379"))
        };
        let url = url.ok_or_else(|| refuse("wake = \"redis\" needs it"))?;
        // The error's own words may repeat the URL, which may hold a password.
        let client = Client::open(url.expose()).map_err(|_| refuse("not a URL of Redis"))?;
        let channel = format!("rnostr:{:016x}", hasher.derived("wake channel"));
        Ok(Self { client, channel, receiver, log })
    }

    /// Sends and listens until `ended`, and then sends the message that waits.
    pub(super) fn start(self, ended: &CancellationToken) -> [JoinHandle<()>; 2] {
        let transport = Arc::new(self);
        let (sender, sending_ended) = (Arc::clone(&transport), ended.clone());
        let listening_ended = ended.clone();
        [
            tokio::spawn(async move { sender.send(sending_ended).await }),
            tokio::spawn(async move {
                let _ = listening_ended.run_until_cancelled(transport.listen()).await;
            }),
        ]
    }

    async fn send(&self, ended: CancellationToken) {
        let channel = &self.receiver.channel;
        let mut connection = None;
        let mut failures = 0;
        loop {
            let is_last = tokio::select! {
                () = channel.filled.notified() => false,
                () = sleep(BEAT) => false,
                () = ended.cancelled() => true,
            };
            if is_last && channel.is_empty() {
                return;
            }
            match self.publish(&mut connection).await {
                Ok(()) => failures = 0,
                Err(error) => {
                    // The listening task tells the operator.
                    tracing::debug!(%error, "a message to the other instances was not sent");
                    connection = None;
                    let _ = ended.run_until_cancelled(sleep(backoff::RECONNECT.pause(failures))).await;
                    failures = failures.saturating_add(1);
                }
            }
            if is_last {
                return;
            }
        }
    }

    async fn publish(&self, connection: &mut Option<MultiplexedConnection>) -> Result<(), Disconnected> {
        let limit = Duration::from_secs(ANSWER_SECS_MAX);
        let connection = match connection {
            Some(connection) => connection,
            None => {
                let config = AsyncConnectionConfig::new().set_connection_timeout(Some(limit));
                let opened = self.client.get_multiplexed_async_connection_with_config(&config);
                connection.insert(timeout(limit, opened).await??)
            }
        };
        let channel = &self.receiver.channel;
        let message = channel.take().encode(&channel.key);
        let mut command = redis::cmd("PUBLISH");
        let command = command.arg(&self.channel).arg(message);
        timeout(limit, command.query_async::<i64>(connection)).await??;
        Ok(())
    }

    async fn listen(&self) {
        let mut failures = 0;
        let mut is_operator_told = false;
        self.log.set_poll(Some(AWAY_POLL));
        loop {
            let opened = || {
                if is_operator_told {
                    tracing::info!("notifications over Redis are back");
                }
                (failures, is_operator_told) = (0, false);
                self.log.set_poll(None);
            };
            let Err(error) = self.receive(opened).await;
            self.log.set_poll(Some(AWAY_POLL));
            if !is_operator_told {
                let poll = AWAY_POLL.as_millis();
                tracing::warn!(
                    %error,
                    "no notifications over Redis; until it is back the log is looked at every {poll} ms"
                );
                is_operator_told = true;
            }
            sleep(backoff::RECONNECT.pause(failures)).await;
            failures = failures.saturating_add(1);
        }
    }

    /// Receives until the connection ends; calls `opened` at the first message of an instance, which proves that the
    /// channel works. Messages of strangers prove nothing.
    async fn receive(&self, opened: impl FnOnce()) -> Result<std::convert::Infallible, Disconnected> {
        let limit = Duration::from_secs(ANSWER_SECS_MAX);
        let mut listening = timeout(limit, self.client.get_async_pubsub()).await??;
        timeout(limit, listening.subscribe(&self.channel)).await??;
        let mut messages = listening.on_message();
        let mut opened = Some(opened);
        let mut until = Instant::now() + SILENCE_MAX;
        loop {
            let message = timeout_at(until, messages.next()).await?.ok_or(Disconnected::Ended)?;
            let received = self.receiver.receive(message.get_payload_bytes());
            if received == Received::Dropped {
                continue;
            }
            until = Instant::now() + SILENCE_MAX;
            if let Some(opened) = opened.take() {
                opened();
            }
            if received == (Received::Others { has_commits: true }) {
                self.log.notify_from_elsewhere();
            }
        }
    }
}
