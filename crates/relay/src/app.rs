//! What every part of the server is handed: no global state, one value passed down.

use std::{sync::Arc, time::Instant};

use nostr_extensions::{Gate, Policy};
use nostr_protocol::Rejection;
use nostr_store::Store;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    clock::Clock,
    config::Config,
    follow::Follow,
    groups::Groups,
    live::Live,
    metrics::Metrics,
    peers::Wake,
    rate_limit::{RateLimits, Receipt},
    telemetry::OwnerTags,
    writer::Writer,
};

/// The relay's parts.
pub struct App {
    /// The operator's choices.
    pub config: Arc<Config>,
    /// Those of them that the rules read.
    pub policy: Arc<Policy>,
    /// The read decision.
    pub gate: Gate,
    /// Events and groups.
    pub store: Arc<dyn Store>,
    /// Cached states of groups.
    pub groups: Arc<Groups>,
    /// Open subscriptions.
    pub live: Arc<Live>,
    /// How far the log is followed; `None` where no other process writes to the store.
    pub follow: Option<Arc<Follow>>,
    /// The way into the store.
    pub writer: Writer,
    /// Who may do how much.
    pub limits: Arc<RateLimits>,
    /// Tells other instances what was committed and spent, where the store does not.
    pub wake: Option<Arc<Wake>>,
    /// Places for requests that read without a limit: COUNT and NEG-OPEN.
    pub unbounded_reads: Semaphore,
    /// Places for events in the sessions of NIP-77, of all connections together.
    pub neg_events: Arc<Semaphore>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Names owners in logs.
    pub owner_tags: OwnerTags,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// When the process started.
    pub started: Instant,
    /// Set when the relay stops.
    pub stopping: CancellationToken,
    /// The open connections.
    pub connections: TaskTracker,
}

impl App {
    /// Waits until what was committed before this call is known here, by whichever process it was.
    ///
    /// # Errors
    /// `error:` when the log cannot be followed.
    pub async fn fresh(&self) -> Result<(), Rejection> {
        match &self.follow {
            Some(follow) => follow.fresh().await,
            None => Ok(()),
        }
    }

    /// For what an event costs.
    pub fn receipt(&self) -> Receipt {
        Receipt::new(self.wake.is_some())
    }

    /// Whether what is cached of groups may be relied on.
    pub fn is_current(&self) -> bool {
        self.follow.as_ref().is_none_or(|follow| follow.is_current())
    }

    /// Why clients should be sent to another instance now, if there is a reason.
    pub fn not_ready(&self) -> Option<&'static str> {
        if self.stopping.is_cancelled() {
            return Some("this relay is stopping");
        }
        (!self.is_current()).then_some("the store's log cannot be followed")
    }
}
