//! The store: a log of events with the effects of each, and indexes by audience over it.
//!
//! [`Store`] speaks the domain; each call is one transaction. [`embedded::Embedded`] keeps everything in one LMDB
//! environment, [`memory::Memory`] is the oracle that the conformance suite (feature `testing`) holds every store against.

pub mod backoff;
mod decide;
pub mod embedded;
#[cfg(feature = "firestore")]
pub mod firestore;
mod index;
pub mod memory;
pub mod moving;
pub mod postgres;
#[cfg(feature = "testing")]
pub mod suite;

use std::sync::Arc;

use async_trait::async_trait;
use nostr_extensions::{
    Admitted, Group, NostrGroupId, Query, RouteHasher, Sealed, gate::Touches, mls_gateway::group::Refusal,
    query::Position,
};
use nostr_protocol::{EventId, Kind, PublicKey, UnixSecs};
use tokio::sync::{broadcast, watch};

/// A place in the log: every committed event has one, greater than all before it.
pub type Cursor = u64;

/// What became of one event of a batch.
#[derive(Clone, Debug)]
pub enum Saved {
    /// It is durable with its effects. The event's place in the log is in it.
    New(Sealed),
    /// The store has it, whether or not this event is the one that brought it.
    Duplicate,
    /// A newer event of its address is stored.
    Superseded,
    /// Its author or recipient deleted it, or vanished after it was made, or it was claimed.
    Deleted,
    /// What admission found no longer holds.
    Refused(Refusal),
}

/// Why a store could not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Passing: the same call may go through later.
    #[error("storage unavailable, try again: {0}")]
    Unavailable(String),
    /// No room; reading goes on.
    #[error("storage is full: {0}")]
    Full(String),
    /// This one event cannot be stored.
    #[error("this event cannot be stored: {0}")]
    Event(String),
}

/// Why a store does not open; the text is for the operator, and tells no secret.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// Somebody has to change something first.
    #[error("{0}")]
    Refused(String),
    /// What it stands on does not answer; it may later.
    #[error("{0}")]
    Unreachable(String),
}

/// How far one call of [`Store::scan`] goes before it gives back what it has.
#[derive(Clone, Copy, Debug)]
pub struct PageBounds {
    /// Most events in the page.
    pub events_max: usize,
    /// The page ends with the event that reaches this many bytes.
    pub bytes_max: usize,
    /// Most index entries looked at, found or not.
    pub entries_max: usize,
}

/// A part of an answer, in the order of NIP-01.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Events that fit the filter and the scope, not expired, each at most once.
    pub events: Vec<Sealed>,
    /// Where to go on, exclusive; `None` when there is no more.
    pub next: Option<Position>,
}

/// An event in the log, as whoever follows it meets it: enough to know whom it may concern. An import that wrote groups
/// leaves an entry that concerns nobody, has no event, and touches every group.
#[derive(Clone, Debug)]
pub struct LogEntry {
    /// Its place.
    pub cursor: Cursor,
    /// Its kind.
    pub kind: Kind,
    /// Which groups it changed, or may have.
    pub touches: Touches,
    /// The group whose state decides who reads it.
    pub group: Option<NostrGroupId>,
    /// The conditions that it meets, hashed by the store's [`Store::router`].
    pub routes: Vec<u64>,
    /// The event, where the store has it at hand; else [`Store::events_at`] fetches it.
    pub sealed: Option<Sealed>,
}

impl LogEntry {
    /// Of an event at hand. `touches_groups` is whether it took events out of the log that had changed groups.
    #[must_use]
    pub fn new(sealed: Sealed, touches_groups: bool, router: &RouteHasher) -> Self {
        Self {
            cursor: sealed.cursor(),
            kind: sealed.kind(),
            touches: if touches_groups { Touches::EveryGroup } else { sealed.touches() },
            group: sealed.group().cloned(),
            routes: router.routes(&sealed),
            sealed: Some(sealed),
        }
    }
}

/// A part of the log.
#[derive(Clone, Debug, Default)]
pub struct LogPage {
    /// In commit order.
    pub entries: Vec<LogEntry>,
    /// Whoever has the entries knows everything up to here.
    pub through: Cursor,
    /// Whether that is the head of the log when it was read; else there is more behind, and as a rule it goes on.
    pub is_head: bool,
}

/// What is stored, to be shown and measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events in the store.
    pub events: u64,
    /// Managed groups.
    pub groups: u64,
    /// Bytes in use on disk; 0 where that means nothing.
    pub bytes_used: u64,
    /// Bytes that the store may use; 0 for no bound.
    pub bytes_max: u64,
}

/// Most bytes of a message that processes tell each other.
pub const PEER_MESSAGE_BYTES_MAX: usize = 3_584;
/// Most such messages that wait for whoever hears them; the oldest go first.
pub const PEER_MESSAGES_WAITING_MAX: usize = 64;

/// A store. Reading never waits for writing.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Stores a batch in its order, in one transaction where no event of it fails; each event with all its effects or
    /// not at all, durable when the answer is there. The answers are in the batch's order, the cursors of `New` rise.
    ///
    /// Events of one batch see each other's effects. An event that cannot be stored harms no other.
    async fn save(&self, batch: Vec<Admitted>) -> Vec<Result<Saved, StoreError>>;

    /// Events that fit `query`, from behind `from` on, none committed after `up_to`, none expired at `now`.
    async fn scan(
        &self,
        query: &Query,
        from: Option<Position>,
        up_to: Cursor,
        bounds: PageBounds,
        now: UnixSecs,
    ) -> Result<Page, StoreError>;

    /// The log behind `cursor` in commit order, at most `entries_max` entries. Nothing at or before a cursor that it gave
    /// becomes visible later. A store that is shared has ephemeral events in its log for a while; one that is not hands
    /// them to whoever saved them and to nobody else. The log may name events that are gone.
    ///
    /// A store that keeps its log for some time alone gives who comes from before that one entry that touches every group
    /// and belongs to no event, and goes on behind it.
    async fn after(&self, cursor: Cursor, entries_max: usize) -> Result<LogPage, StoreError>;

    /// The events at these places of the log, ephemeral ones too, in the order of their cursors; those that are gone are
    /// left out.
    async fn events_at(&self, cursors: &[Cursor]) -> Result<Vec<Sealed>, StoreError>;

    /// The cursor of the last commit that this process knows of.
    fn head(&self) -> Cursor;

    /// Hashes the conditions of subscriptions: the same for all who share the store.
    fn route_hasher(&self) -> RouteHasher;

    /// Where other processes write to this store too: a receiver that changes soon after each commit of anyone's. A knock
    /// may be lost, and says no more than that there may be something [behind](Self::after) the last cursor.
    ///
    /// `None` where this process alone writes.
    fn notifications(&self) -> Option<watch::Receiver<u64>> {
        None
    }

    /// Tells the other processes something that is worth no place in the log, in at most [`PEER_MESSAGE_BYTES_MAX`] bytes. It may
    /// be lost, and who tells it may hear it too. A store without a [road](Self::messages) for that does nothing.
    async fn broadcast(&self, _message: Vec<u8>) -> Result<(), StoreError> {
        Ok(())
    }

    /// What processes [tell](Self::broadcast) each other from now on; `None` where the store has no road for that.
    fn messages(&self) -> Option<broadcast::Receiver<Arc<[u8]>>> {
        None
    }

    /// Whether the event is stored, found by queries or not.
    async fn holds(&self, id: &EventId) -> Result<bool, StoreError>;

    /// A group's state, and the cursor up to which it is true.
    async fn group(&self, id: &NostrGroupId) -> Result<(Group, Cursor), StoreError>;

    /// The managed groups of which one of these keys is a member, each once.
    async fn groups_of(&self, keys: &[PublicKey]) -> Result<Vec<NostrGroupId>, StoreError>;

    /// Takes up to `packages_max` KeyPackages of `owner` for one reader, in one transaction, twins counted once, the
    /// oldest first. What is taken is gone for good with its twins, but for those of last resort and for the last one
    /// left, which are given and stay (decisions, "KeyPackages" 4).
    async fn claim_key_packages(
        &self,
        owner: &PublicKey,
        packages_max: usize,
        now: UnixSecs,
    ) -> Result<Vec<Sealed>, StoreError>;

    /// Removes what has expired and what vanished keys left, at most `events_max` events; says how many.
    async fn sweep(&self, now: UnixSecs, events_max: usize) -> Result<usize, StoreError>;

    /// What is stored.
    async fn stats(&self) -> Result<Stats, StoreError>;

    /// Writes what a store puts off, which is nothing that was acknowledged: for a process that is about to end.
    async fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}

/// A router for a store that no other process shares.
fn random_route_hasher() -> RouteHasher {
    use std::hash::{BuildHasher as _, RandomState};
    let random = RandomState::new();
    let [a, b] = [random.hash_one(0), random.hash_one(1)];
    RouteHasher::new(&(u128::from(a) << 64 | u128::from(b)).to_be_bytes())
}
