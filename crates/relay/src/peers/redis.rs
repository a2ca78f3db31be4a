//! Wake-ups over Redis (pub/sub), for a store that has none of its own or is to be spared them.
//!
//! One task sends and one listens, each over a connection of its own that it opens anew when it breaks. An instance hears
//! itself too, at least once a second; while it does not, the log is looked at more often. Nothing waits for Redis.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use nostr_extensions::RouteHasher;
use redis::{AsyncConnectionConfig, Client, RedisError, aio::MultiplexedConnection};
use tokio::{
    task::JoinHandle,
    time::{error::Elapsed, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::Hearing;
use crate::{backoff, config::Secret, follow::Follow};

/// Longest wait for an answer of Redis.
const ANSWER_SECS_MAX: u64 = 1;
/// Time between two messages when there is nothing to tell.
const BEAT: Duration = Duration::from_secs(1);
/// Whoever has not even heard itself for so long does not hear the others either.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// Time between two looks at the log while Redis is away.
const AWAY_POLL: Duration = Duration::from_millis(100);

/// The road over one Redis.
pub struct Redis {
    client: Client,
    channel: String,
    hearing: Hearing,
    follow: Arc<Follow>,
}

/// Why it cannot be gone.
#[derive(Debug, thiserror::Error)]
enum Closed {
    #[error("{0}")]
    Redis(#[from] RedisError),
    #[error("it does not answer")]
    Silent(#[from] Elapsed),
    #[error("it closed the connection")]
    Ended,
}

impl Redis {
    /// The road for all who share the store of `router`, over the Redis at `url`: the channel has a name that says
    /// nothing of the store and is no other store's.
    ///
    /// # Errors
    /// When `url` is none.
    pub fn new(url: &Secret, router: &RouteHasher, hearing: Hearing, follow: Arc<Follow>) -> Result<Self, String> {
        // The error's own words may repeat the URL, which may hold a password.
        let client = Client::open(url.expose()).map_err(|_| "not a URL of Redis".to_owned())?;
        let channel = format!("rnostr:{:016x}", router.derived("wake channel"));
        Ok(Self { client, channel, hearing, follow })
    }

    /// Sends and listens until `ended`, and then sends what waits.
    pub fn start(self, ended: &CancellationToken) -> [JoinHandle<()>; 2] {
        let road = Arc::new(self);
        let (sending, sent) = (Arc::clone(&road), ended.clone());
        let heard = ended.clone();
        [
            tokio::spawn(async move { sending.send(sent).await }),
            tokio::spawn(async move {
                let _ = heard.run_until_cancelled(road.listen()).await;
            }),
        ]
    }

    async fn send(&self, ended: CancellationToken) {
        let mut connection = None;
        let mut failures = 0;
        loop {
            let is_last = tokio::select! {
                () = self.hearing.wake.filled.notified() => false,
                () = sleep(BEAT) => false,
                () = ended.cancelled() => true,
            };
            if is_last && self.hearing.wake.is_empty() {
                return;
            }
            match self.publish(&mut connection).await {
                Ok(()) => failures = 0,
                Err(error) => {
                    // The listening side says it to the operator.
                    tracing::debug!(%error, "a wake-up was not sent");
                    connection = None;
                    let _ = ended.run_until_cancelled(sleep(backoff::after(failures))).await;
                    failures = failures.saturating_add(1);
                }
            }
            if is_last {
                return;
            }
        }
    }

    async fn publish(&self, connection: &mut Option<MultiplexedConnection>) -> Result<(), Closed> {
        let limit = Duration::from_secs(ANSWER_SECS_MAX);
        let connection = match connection {
            Some(connection) => connection,
            None => {
                let config = AsyncConnectionConfig::new().set_connection_timeout(Some(limit));
                let opened = self.client.get_multiplexed_async_connection_with_config(&config);
                connection.insert(timeout(limit, opened).await??)
            }
        };
        let message = self.hearing.wake.take().encode();
        let mut command = redis::cmd("PUBLISH");
        let command = command.arg(&self.channel).arg(message);
        timeout(limit, command.query_async::<i64>(connection)).await??;
        Ok(())
    }

    async fn listen(&self) {
        let mut failures = 0;
        let mut is_told = false;
        self.follow.set_poll(Some(AWAY_POLL));
        loop {
            let opened = || {
                if is_told {
                    tracing::info!("wake-ups over Redis are back");
                }
                (failures, is_told) = (0, false);
                self.follow.set_poll(None);
            };
            let Err(error) = self.hear(opened).await;
            self.follow.set_poll(Some(AWAY_POLL));
            if !is_told {
                let poll = AWAY_POLL.as_millis();
                tracing::warn!(%error, "no wake-ups over Redis; until it is back the log is looked at every {poll} ms");
                is_told = true;
            }
            sleep(backoff::after(failures)).await;
            failures = failures.saturating_add(1);
        }
    }

    /// Hears until the road is closed; `opened` is called when it is known to be open.
    async fn hear(&self, opened: impl FnOnce()) -> Result<std::convert::Infallible, Closed> {
        let limit = Duration::from_secs(ANSWER_SECS_MAX);
        let mut listening = timeout(limit, self.client.get_async_pubsub()).await??;
        timeout(limit, listening.subscribe(&self.channel)).await??;
        let mut messages = listening.on_message();
        let mut opened = Some(opened);
        loop {
            let message = timeout(SILENCE_MAX, messages.next()).await?.ok_or(Closed::Ended)?;
            if let Some(opened) = opened.take() {
                opened();
            }
            if self.hearing.hear(message.get_payload_bytes()) {
                self.follow.knock();
            }
        }
    }
}
