//! The relay's parts in one value that is passed down; there is no global state.

use std::{net::IpAddr, sync::Arc, time::Instant};

use arc_swap::Guard;
use nostr_extensions::{CurrentPolicy, Gate, Policy};
use nostr_store::Store;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access::Access,
    config::Config,
    console::Console,
    delivery::{Delivery, Live, groups::Groups, writer::Writer},
    directory::{described::DescribedCache, request::LowStocks},
    inboxes::Inboxes,
    manage::Management,
    memory::Memory,
    observe::{metrics::Metrics, request_log::RequestLog, telemetry::OwnerTags},
    quotas::Quotas,
    rate_limit::{RateLimits, ReadBudgets},
    rest::Cursors,
    server::tls::Certificates,
    session::handlers::neg_memory::NegMemory,
    shares::Shares,
    system::clock::Clock,
    turns::Turns,
    write_policy::WritePolicy,
};

/// The relay's parts.
pub struct App {
    /// The operator's choices.
    pub config: Arc<Config>,
    /// The choices that the rules read, as of now.
    pub(crate) current_policy: CurrentPolicy,
    /// The configuration and the standing orders in force.
    pub(crate) management: Arc<Management>,
    /// The read decision.
    pub(crate) gate: Gate,
    /// Events and groups.
    pub store: Arc<dyn Store>,
    /// Cached states of groups.
    pub(crate) groups: Arc<Groups>,
    /// The operator's access service, where it is a source of membership.
    pub(crate) access: Option<Arc<Access>>,
    /// Open subscriptions.
    pub live: Arc<Live>,
    /// Takes committed events from the writer to the open subscriptions.
    pub(crate) delivery: Arc<Delivery>,
    /// The operator's program that may refuse events.
    pub(crate) write_policy: WritePolicy,
    /// Inboxes that ask strangers for a proof.
    pub(crate) inboxes: Inboxes,
    /// Counts of what is kept of each key without end.
    pub(crate) quotas: Quotas,
    /// Takes admitted events to the store.
    pub(crate) writer: Writer,
    /// Facts that were read out of KeyPackages.
    pub(crate) described: DescribedCache,
    /// Owners whose stock of KeyPackages is low, which the relay asks for more.
    pub(crate) low_stock: LowStocks,
    /// The token buckets of all clients.
    pub(crate) limits: Arc<RateLimits>,
    /// Shares of the processor, on which the tasks of connections run.
    pub(crate) shares: Arc<Shares>,
    /// Turns at a store that other processes share, for pages of the archive.
    pub(crate) read_turns: Arc<Turns>,
    /// The work that the requests of one party may cost in a minute.
    pub(crate) read_budgets: ReadBudgets,
    /// Memory that clients make grow.
    pub(crate) memory: Arc<Memory>,
    /// The cursors of REST's lists.
    pub(crate) cursors: Cursors,
    /// The parts of the console.
    pub(crate) console: Console,
    /// The memory of the NIP-77 sessions of all connections.
    pub(crate) neg_memory: Arc<NegMemory>,
    /// The counters behind `/metrics`.
    pub(crate) metrics: Arc<Metrics>,
    /// Ids of events and requests, and the lines and traces about them.
    pub(crate) request_log: Arc<RequestLog>,
    /// Names of owners in logs.
    pub(crate) owner_tags: Arc<OwnerTags>,
    /// The certificate and the key, where the relay speaks TLS itself.
    pub(crate) certificates: Option<Arc<Certificates>>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Time at which the relay started, after its store was opened.
    pub(crate) started: Instant,
    /// Cancelled when the relay stops.
    pub stopping: CancellationToken,
    /// The open connections.
    pub connections: TaskTracker,
}

impl App {
    /// The choices that the rules read, as of now.
    pub(crate) fn policy(&self) -> Guard<Arc<Policy>> {
        self.current_policy.now()
    }

    /// Whether clients of this address are refused by an order.
    pub fn blocks(&self, address: IpAddr) -> bool {
        self.management.blocks(address)
    }

    /// Bytes that clients make the relay hold, by estimate.
    pub fn memory_used(&self) -> usize {
        self.memory.used()
    }

    /// The reason why clients should be sent to another instance now, if there is one.
    pub fn not_ready(&self) -> Option<&'static str> {
        if self.stopping.is_cancelled() {
            return Some("this relay is stopping");
        }
        if let Some(reason) = self.delivery.not_ready() {
            return Some(reason);
        }
        if self.policy().moderation.is_unknown {
            return Some("the orders of management were not read");
        }
        self.writer.health().is_bad().then_some("the store takes no events")
    }
}
