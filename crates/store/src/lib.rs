//! The store: a log of events with their effects, and indexes by audience over it.
//!
//! [`Store`] speaks the domain. Each event, claim and record is written in one transaction with all its effects; a call
//! may make several transactions. [`embedded::Embedded`] keeps everything in one LMDB environment,
//! [`postgres::Postgres`] and Firestore (feature `firestore`) share a database between processes, and
//! [`memory::Memory`] is the oracle: the conformance suite (feature `testing`) compares every store with it.
#![deny(clippy::disallowed_methods)]

mod authored;
pub mod backoff;
mod claim;
mod cost;
mod decide;
pub mod embedded;
#[cfg(feature = "firestore")]
pub mod firestore;
mod index;
mod listing;
pub mod memory;
pub mod moving;
mod plan;
pub mod postgres;
mod random;
mod received;
mod saved;
#[cfg(feature = "testing")]
pub mod suite;
pub mod weight;

use std::sync::Arc;

use async_trait::async_trait;
use nostr_extensions::{
    Admitted, Group, NostrGroupId, Query, RouteHasher, Sealed, gate::Touches, mls_gateway::group::ServiceAnswer,
    query::Position,
};
use nostr_protocol::{EventId, Kind, PublicKey, UnixSecs};
use tokio::sync::{broadcast, watch};

/// Starts of a store whose marks of history are kept, the newest ones. A place from before them has no mark.
pub(crate) const HISTORIES_KEPT_MAX: usize = 4_096;

pub use self::{
    authored::authored,
    claim::{
        Claim, ClaimFilters, ClaimRates, Claimed, ExpiredPackage, Given, PartyHash, RECEIPT_SECS, ReceiptName,
        Repetition, Stock, StockRequest, Swept,
    },
    cost::Cost,
    decide::stock::KEY_PACKAGES_KEPT_MAX,
    listing::Listed,
    plan::{Part, parts},
    received::{RECEIVED_KINDS, Receipt, Received, ReceivedBounds, ReceivedPage, Recipient},
    saved::{DUPLICATE, Saved},
};

/// A place in the log. Every committed event has one, greater than all before it.
pub type Cursor = u64;

/// The reason why a store could not do as it was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// A passing failure: the same call may succeed later.
    #[error("storage unavailable, try again: {0}")]
    Unavailable(String),
    /// The store is not the one that was opened: it was restored to an older state, or lost commits that were read.
    /// Every further call fails until the process is started anew.
    #[error("storage was replaced: {0}")]
    Replaced(String),
    /// The store has no room. Reading goes on.
    #[error("storage is full: {0}")]
    Full(String),
    /// The store cannot hold this one event.
    #[error("this event cannot be stored: {0}")]
    Event(String),
    /// Clients have read as much as the operator pays for; a client's read may succeed after this many seconds.
    #[error("the reads of clients are used up for {0} s")]
    UsedUp(u64),
}

/// The reason why a store does not open. The text is for the operator and tells no secret.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OpenError {
    /// The operator has to change something first.
    #[error("{0}")]
    Refused(String),
    /// The database does not answer; it may answer later.
    #[error("{0}")]
    Unreachable(String),
}

/// Limits of one call of [`Store::scan`], after which it returns what it has.
#[derive(Clone, Copy, Debug)]
pub struct PageBounds {
    /// The part of the query that the call reads.
    pub part: Part,
    /// Most events in the page.
    pub events_max: usize,
    /// The page ends with the event that reaches this many bytes.
    pub bytes_max: usize,
    /// Most index entries that are looked at, whether or not their events fit. The tags of an event count as further
    /// ones.
    pub entries_max: usize,
}

/// One page of an answer, in the order of NIP-01.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// Events that fit the filter and the scope and have not expired, each at most once.
    pub events: Vec<Sealed>,
    /// The position to go on from, exclusive; `None` when nothing is left.
    pub next: Option<Position>,
    /// The work of the call.
    pub cost: Cost,
}

/// An event in the log, as a follower reads it: enough to tell whom it may concern.
///
/// An import that wrote groups leaves an entry without an event. It concerns nobody and touches every group.
#[derive(Clone, Debug)]
pub struct LogEntry {
    /// The event's place in the log.
    pub cursor: Cursor,
    /// The event's kind.
    pub kind: Kind,
    /// The groups that the event changed, and those that the events changed which it removed.
    pub touches: Touches,
    /// The group whose state decides about its readers.
    pub group: Option<NostrGroupId>,
    /// Conditions of subscriptions that the event meets, hashed by [`Store::route_hasher`].
    pub routes: Vec<u64>,
    /// The event, if the store has it at hand. Otherwise [`Store::events_at`] fetches it.
    pub sealed: Option<Sealed>,
}

impl LogEntry {
    /// The entry of an event at hand. `told` are the groups that it touched; `None` where its kind says all.
    #[must_use]
    pub fn new(sealed: Sealed, told: Option<Touches>, route_hasher: &RouteHasher) -> Self {
        Self {
            cursor: sealed.cursor(),
            kind: sealed.kind(),
            touches: told.unwrap_or_else(|| sealed.touches()),
            group: sealed.group().cloned(),
            routes: route_hasher.routes(&sealed),
            sealed: Some(sealed),
        }
    }
}

/// One page of the log.
#[derive(Clone, Debug, Default)]
pub struct LogPage {
    /// Entries in commit order.
    pub entries: Vec<LogEntry>,
    /// The last cursor that the page covers: a reader of its entries knows everything up to here.
    pub through: Cursor,
    /// Whether `through` was the head of the log at the time of the read. Otherwise more entries follow.
    pub is_head: bool,
    /// Time of the read by the clock of the store, in milliseconds since 1970; `None` if the store has no clock.
    pub read_at_ms: Option<u64>,
}

/// A change by an answer of the access service.
#[derive(Clone, Debug)]
pub struct AppliedAnswer {
    /// The change's place in the log, or in a store of one process the place of the event before it.
    pub cursor: Cursor,
    /// The group, and the groups in which a membership gave way.
    pub touches: Touches,
    /// Number of keys that stayed out.
    pub left_out: usize,
}

/// Sizes of the store, for display and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Events in the store.
    pub events: u64,
    /// Managed groups.
    pub groups: u64,
    /// KeyPackages in the directory, twins counted each; `None` in a store that does not count them.
    pub key_packages: Option<u64>,
    /// Bytes in use on disk; 0 in a store that cannot tell.
    pub bytes_used: u64,
    /// Bytes that the store may use; 0 if nothing bounds them.
    pub bytes_max: u64,
}

/// A record of the relay itself, which all processes of a store share, see [`Store::record`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RecordName {
    /// The operator's standing orders over NIP-86.
    Management,
    /// The positions of fillings from other relays that were broken off.
    Sync,
}

impl RecordName {
    /// The name in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Management => "management",
            Self::Sync => "sync",
        }
    }
}

/// The value of a record, see [`Store::record`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    /// The number of writes so far.
    pub version: u64,
    /// The value of the last write.
    pub value: Vec<u8>,
}

/// Most bytes of a record's value: a document of Firestore holds 1 MiB.
pub const RECORD_BYTES_MAX: usize = 1_000_000;

/// A name that is used once, see [`Store::use_once`]: an id, or a hash.
pub type OnceName = [u8; 32];
/// Most names past their time that one transaction of a sweep forgets.
pub(crate) const ONCE_FORGOTTEN_MAX: usize = 250;

/// Most bytes of a message between processes.
pub const PEER_MESSAGE_BYTES_MAX: usize = 3_584;
/// Most messages between processes that wait for their receiver. The oldest are dropped first.
pub const PEER_MESSAGES_WAITING_MAX: usize = 64;

/// A store. Reading never waits for writing.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Stores a batch in its order, in one transaction or in several that each hold whole events. Each event is stored
    /// with all its effects or not at all, and is durable before the answer. The answers are in the batch's order, and
    /// the cursors of `New` rise.
    ///
    /// Events of one batch see each other's effects. An event that cannot be stored harms no other.
    async fn save(&self, batch: Vec<Admitted>) -> Vec<Result<Saved, StoreError>>;

    /// Events that fit `query` and lie in the part of `bounds`, beginning after `from`. None was committed after
    /// `up_to`, and none has expired at `now`. [`parts`] divides a query so that one call's work is bounded.
    async fn scan(
        &self,
        query: &Query,
        from: Option<Position>,
        up_to: Cursor,
        bounds: PageBounds,
        now: UnixSecs,
    ) -> Result<Page, StoreError>;

    /// Events of one group or of one recipient behind a place, in the order in which this store received them, none of
    /// them committed after `up_to`. The call costs what the page costs, however many other events the store holds.
    async fn received(
        &self,
        query: &Received,
        from: Receipt,
        up_to: Cursor,
        bounds: ReceivedBounds,
        now: UnixSecs,
    ) -> Result<ReceivedPage, StoreError>;

    /// At most `entries_max` entries of the log after `cursor`, in commit order. Nothing becomes visible later at or
    /// before a cursor that this call gave. The log may name events that are gone.
    ///
    /// A shared store keeps ephemeral events in its log for a while. A store of one process gives them to the caller of
    /// [`Store::save`] only.
    ///
    /// If a store keeps its log for a limited time and `cursor` lies before its beginning, the page starts with one
    /// entry that has no event and touches every group.
    async fn after(&self, cursor: Cursor, entries_max: usize) -> Result<LogPage, StoreError>;

    /// The events at these places of the log, ephemeral ones included, in the order of their cursors. Events that are
    /// gone are left out.
    async fn events_at(&self, cursors: &[Cursor]) -> Result<Vec<Sealed>, StoreError>;

    /// The cursor of the last commit that this process knows of.
    fn head(&self) -> Cursor;

    /// The hasher for conditions of subscriptions. All processes that share a store have the same.
    fn route_hasher(&self) -> RouteHasher;

    /// A secret of the store, the same in all its processes and for all its life. A store that is restored has the
    /// same one, and a store that its content is moved to another one.
    fn secret(&self) -> [u8; 32];

    /// A mark of the log's history up to a place: the same for as long as the log leads there by the same commits. A
    /// store that is restored to an older copy, or that lost commits, gives another mark for a place that it had before
    /// and has reached again. Firestore has one mark: its places are times, so it reaches none again.
    async fn history_at(&self, _cursor: Cursor) -> Result<u64, StoreError> {
        Ok(0)
    }

    /// A receiver that changes soon after each commit of any process; `None` if only this process writes to the store.
    ///
    /// Notifications may be lost. They only say that there may be new entries [after](Self::after) the last cursor.
    fn notifications(&self) -> Option<watch::Receiver<u64>> {
        None
    }

    /// Sends the other processes a message of at most [`PEER_MESSAGE_BYTES_MAX`] bytes that takes no place in the log.
    /// It may be lost, and its sender may receive it too. A store without such [messages](Self::messages) does nothing.
    async fn broadcast(&self, _message: Vec<u8>) -> Result<(), StoreError> {
        Ok(())
    }

    /// Messages that processes [broadcast](Self::broadcast) from now on; `None` if the store carries none.
    fn messages(&self) -> Option<broadcast::Receiver<Arc<[u8]>>> {
        None
    }

    /// Whether the event is stored and has not expired at `now`, including events that no query finds.
    async fn holds(&self, id: &EventId, now: UnixSecs) -> Result<bool, StoreError>;

    /// A group's state, and the cursor up to which it holds.
    async fn group(&self, id: &NostrGroupId) -> Result<(Group, Cursor), StoreError>;

    /// Those of these groups that have a record or carried unlisted messages, in their order. The state of each other
    /// one is [`nostr_extensions::GroupStatus::Unknown`].
    async fn known_groups(&self, ids: &[NostrGroupId]) -> Result<Vec<NostrGroupId>, StoreError>;

    /// Managed groups that have one of these keys as a member, each once.
    async fn groups_of(&self, keys: &[PublicKey]) -> Result<Vec<NostrGroupId>, StoreError>;

    /// At most `most` managed groups whose ids begin with `prefix` and lie behind `after`, in the order of their ids.
    async fn groups_after(
        &self,
        prefix: &str,
        after: Option<&NostrGroupId>,
        most: usize,
    ) -> Result<Listed<NostrGroupId>, StoreError>;

    /// At most `most` owners of KeyPackages behind `after`, in the order of their keys. An owner whose KeyPackages are
    /// gone may be among them for a while.
    async fn owners_after(&self, after: Option<&PublicKey>, most: usize) -> Result<Listed<PublicKey>, StoreError>;

    /// Those of these groups in which one of these keys has not acted, since another key made it a member
    /// (docs/rules.md, "Memberships" 2), each once.
    async fn invited_groups(&self, keys: &[PublicKey]) -> Result<Vec<NostrGroupId>, StoreError>;

    /// The outcome that [`Self::save`] would have for this event now, by the same decision. Nothing is stored or
    /// changed, and a place in the log that the outcome tells is none.
    async fn rehearse(&self, admitted: &Admitted) -> Result<Saved, StoreError>;

    /// Gives a group the members that the operator's access service answered, if they differ from those that it has. A
    /// key that is a member of as many groups as a key may be stays out, unless another membership of it gives way.
    /// Returns nothing if nothing changed, as after the answer to an earlier question. In a shared store the change has
    /// a place in the log, and followers learn of it.
    async fn apply_answer(&self, answer: &ServiceAnswer, now: UnixSecs) -> Result<Option<AppliedAnswer>, StoreError>;

    /// Takes KeyPackages of one owner for one reader: only those that a filter of the request matches, the oldest first
    /// and those of last resort after all others. Twins count once. One transaction counts the claim, uses up the
    /// KeyPackages that are given for good, with their twins, and writes the receipt. Those of last resort are given
    /// and stay, and the last one that the owner has becomes one of them (docs/rules.md, "Claims" and "Consumption on
    /// read"). A claim that changes nothing writes nothing and waits for no writer.
    async fn claim_key_packages(&self, claim: &Claim, now: UnixSecs) -> Result<Claimed, StoreError>;

    /// Uses a name once over all processes: gives `true` to the first of any number of calls, and `false` to the others
    /// until `until`. Later the name may be forgotten, and used again. The use is durable before the answer.
    async fn use_once(&self, name: &OnceName, until: UnixSecs, now: UnixSecs) -> Result<bool, StoreError>;

    /// The value of a record, if its version is not `known`; version 0 stands for a record that was never written.
    async fn record(&self, name: RecordName, known: u64) -> Result<Option<StoredRecord>, StoreError>;

    /// Writes a record of at most [`RECORD_BYTES_MAX`] bytes, if its version is still `known`, and raises the version
    /// by one. Of any number of processes that know the same version one writes, and the others get `false`. The value
    /// is durable before the answer.
    async fn put_record(&self, name: RecordName, known: u64, value: Vec<u8>) -> Result<bool, StoreError>;

    /// The stock of an owner.
    async fn stock(&self, owner: &PublicKey, now: UnixSecs) -> Result<Stock, StoreError>;

    /// Whether the relay may ask the owner for new KeyPackages now, and notes that it does. It may if the stock is
    /// below the watermark, if the owner has no 30443, if it was not asked in the last hour, and if no earlier request
    /// is stored that the owner has not answered by a new KeyPackage (docs/rules.md, "Stock"). Of any number of
    /// instances that ask at one time, one may.
    async fn may_request(&self, request: &StockRequest, now: UnixSecs) -> Result<bool, StoreError>;

    /// Whether `owner` has acted in a managed group of which `key` is a member. An owner that was made a member by
    /// others and never acted shares nothing with them. The cost depends on the groups of `key` alone.
    async fn shares_group(&self, owner: &PublicKey, key: &PublicKey) -> Result<(bool, Cost), StoreError>;

    /// Removes at most `events_max` events that have expired or that vanished keys left, and what claims had counted
    /// and kept and has lapsed.
    async fn sweep(&self, now: UnixSecs, events_max: usize) -> Result<Swept, StoreError>;

    /// Documents that this process has read so far, in a store whose service charges for them.
    fn documents_read(&self) -> Option<u64> {
        None
    }

    /// Sizes of the store, see [`Stats`].
    async fn stats(&self) -> Result<Stats, StoreError>;

    /// Asks whether a write would succeed now, by one that changes nothing. A relay asks while its writes fail, so that
    /// it learns when they succeed again without an event of a client.
    ///
    /// # Errors
    /// The error that an event would get.
    async fn probe(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// Writes values that the store puts off, none of which was acknowledged. Called before a process ends.
    async fn flush(&self) -> Result<(), StoreError> {
        Ok(())
    }
}
