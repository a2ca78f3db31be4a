//! The store in Google's Firestore (<https://cloud.google.com/firestore/docs/reference/rpc/google.firestore.v1>), which
//! any number of processes share.
//!
//! A batch that fits is one atomic Commit: the events' documents, all their effects, and one document of the log that
//! lists them. A larger batch is several. All documents of a Commit get the commit's time as their update time. That
//! time and a place within its microsecond are an event's cursor (`wire::clock`).
//!
//! A batch is saved in three steps. `read::load` reads the facts, `decide` decides, and `write::writes` makes
//! the writes of the Commit. `write::save` repeats all three if another process was faster.
//!
//! Measured properties of the service and its emulator, and their consequences:
//!
//! - `commit_time` equals the `create_time` and `update_time` of all documents written, to the microsecond, and a read
//!   time is always less than the time of any later commit. So both are cursors.
//! - A read of the emulator may miss a commit with a lesser time that is still being carried out. Beside the emulator,
//!   a read that serves as a place in the log therefore waits a little, and is complete up to the time before the wait
//!   (`wire::client::Client::settle`).
//! - A field that the service sets to the request's time has milliseconds, and precedes the commit by the duration of
//!   the call. So its order is not the log's (`log::follow`).
//! - A transaction's read holds off writers of the documents that it read: on the emulator always, until it ends, or
//!   for 60 s if its process has stopped, and each commit of such a writer fails after 2 s; on the service not, under
//!   optimistic concurrency. Readers never hold off each other: 200 concurrent transactions over one head took 0.4 s
//!   on the emulator. So a group's messages read its head in a transaction, and a message's commit fails if the group
//!   has changed since. No message of a removed key is committed after the removal, and messages never write the
//!   head.
//! - An update with an empty mask and a precondition changes nothing, not even the update time. The same holds for a
//!   delete of a document that must not exist (`wire::value::verify`).
//! - If racers write one document under a precondition, one wins and the others learn it at once.
//! - The emulator takes 4 MiB a message, so a Commit stays below that. It enforces neither indexes nor lifetimes.

mod documents;
mod history;
mod log;
mod moving;
mod open;
mod options;
mod random;
mod read;
mod wire;
mod write;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_trait::async_trait;
use nostr_extensions::{
    Admitted, Group, NostrGroupId, Query, RouteHasher, Sealed, mls_gateway::group::ServiceAnswer, query::Position,
};
use nostr_protocol::{EventId, PublicKey, UnixSecs};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
};

pub use self::{
    documents::deploy::{indexes_json, rules},
    options::{BATCH_SIZE_MAX, Options, PREFIX},
};
use self::{
    documents::names::Names,
    history::History,
    log::{Tail, locations::Locations},
    random::Random,
    read::{load_members::Acted, lookups::StatsCache, scan::Scan},
    wire::client::Client,
    write::{claims::ClaimQueues, epochs::Epochs},
};
use crate::{
    AppliedAnswer, Claim, Claimed, Cost, Cursor, Listed, LogPage, OnceName, Page, PageBounds, Receipt, Received,
    ReceivedBounds, ReceivedPage, RecordName, Saved, Stats, Stock, StockRequest, Store, StoreError, StoredRecord,
    Swept, decide::hiding::Hiding,
};

/// The state that all calls and tasks share.
struct Inner {
    client: Client,
    names: Names,
    options: Options,
    route_hasher: RouteHasher,
    secret: [u8; 32],
    head: AtomicU64,
    notifications: watch::Sender<u64>,
    saves: Semaphore,
    claims: ClaimQueues,
    scans: Semaphore,
    hiding: Hiding,
    history: History,
    epochs: Epochs,
    acted: Acted,
    locations: Locations,
    tail: Tail,
    random: Random,
    stats: StatsCache,
}

impl Inner {
    fn head(&self) -> Cursor {
        self.head.load(Ordering::Acquire)
    }

    fn advance(&self, to: Cursor) {
        self.head.fetch_max(to, Ordering::AcqRel);
    }

    fn notify(&self) {
        self.notifications.send_modify(|count| *count += 1);
    }
}

/// The store in one database. It works within the tokio runtime that opened it.
pub struct Firestore {
    inner: Arc<Inner>,
    tasks: [JoinHandle<()>; 2],
}

impl std::fmt::Debug for Firestore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Firestore").field("options", &self.inner.options).finish_non_exhaustive()
    }
}

impl Drop for Firestore {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

#[async_trait]
impl Store for Firestore {
    async fn save(&self, batch: Vec<Admitted>) -> Vec<Result<Saved, StoreError>> {
        self.inner.save(batch).await
    }

    async fn rehearse(&self, admitted: &Admitted) -> Result<Saved, StoreError> {
        self.inner.rehearse(admitted).await
    }

    async fn scan(
        &self,
        query: &Query,
        from: Option<Position>,
        up_to: Cursor,
        bounds: PageBounds,
        now: UnixSecs,
    ) -> Result<Page, StoreError> {
        self.inner.client.reads.allow()?;
        Ok(self.inner.scan(Scan { query, from, up_to, bounds, now }).await?)
    }

    async fn received(
        &self,
        query: &Received,
        from: Receipt,
        up_to: Cursor,
        bounds: ReceivedBounds,
        now: UnixSecs,
    ) -> Result<ReceivedPage, StoreError> {
        self.inner.client.reads.allow()?;
        Ok(self.inner.received(query, from, up_to, bounds, now).await?)
    }

    async fn after(&self, cursor: Cursor, entries_max: usize) -> Result<LogPage, StoreError> {
        Ok(self.inner.after(cursor, entries_max).await?)
    }

    async fn events_at(&self, cursors: &[Cursor]) -> Result<Vec<Sealed>, StoreError> {
        Ok(self.inner.events_at(cursors).await?)
    }

    fn head(&self) -> Cursor {
        self.inner.head()
    }

    fn route_hasher(&self) -> RouteHasher {
        self.inner.route_hasher
    }

    fn secret(&self) -> [u8; 32] {
        self.inner.secret
    }

    fn notifications(&self) -> Option<watch::Receiver<u64>> {
        Some(self.inner.notifications.subscribe())
    }

    async fn holds(&self, id: &EventId, now: UnixSecs) -> Result<bool, StoreError> {
        Ok(self.inner.holds(id, now).await?)
    }

    async fn group(&self, id: &NostrGroupId) -> Result<(Group, Cursor), StoreError> {
        Ok(self.inner.group(id).await?)
    }

    async fn known_groups(&self, ids: &[NostrGroupId]) -> Result<Vec<NostrGroupId>, StoreError> {
        self.inner.client.reads.allow()?;
        Ok(self.inner.known_groups(ids).await?)
    }

    async fn groups_of(&self, keys: &[PublicKey]) -> Result<Vec<NostrGroupId>, StoreError> {
        self.inner.client.reads.allow()?;
        Ok(self.inner.groups_of(keys).await?)
    }

    async fn groups_after(
        &self,
        prefix: &str,
        after: Option<&NostrGroupId>,
        most: usize,
    ) -> Result<Listed<NostrGroupId>, StoreError> {
        self.inner.client.reads.allow()?;
        Ok(self.inner.groups_after(prefix, after, most).await?)
    }

    async fn owners_after(&self, after: Option<&PublicKey>, most: usize) -> Result<Listed<PublicKey>, StoreError> {
        self.inner.client.reads.allow()?;
        Ok(self.inner.owners_after(after, most).await?)
    }

    async fn invited_groups(&self, keys: &[PublicKey]) -> Result<Vec<NostrGroupId>, StoreError> {
        self.inner.client.reads.allow()?;
        Ok(self.inner.invited_groups(keys).await?)
    }

    async fn apply_answer(&self, answer: &ServiceAnswer, now: UnixSecs) -> Result<Option<AppliedAnswer>, StoreError> {
        Ok(self.inner.apply(answer, now).await?)
    }

    async fn claim_key_packages(&self, claim: &Claim, now: UnixSecs) -> Result<Claimed, StoreError> {
        Ok(self.inner.claim(claim, now).await?)
    }

    async fn stock(&self, owner: &PublicKey, now: UnixSecs) -> Result<Stock, StoreError> {
        self.inner.client.reads.allow()?;
        Ok(self.inner.count_packages(owner, now).await?)
    }

    async fn may_request(&self, request: &StockRequest, now: UnixSecs) -> Result<bool, StoreError> {
        Ok(self.inner.request(request, now).await?)
    }

    async fn shares_group(&self, owner: &PublicKey, key: &PublicKey) -> Result<(bool, Cost), StoreError> {
        self.inner.client.reads.allow()?;
        Ok(self.inner.find_common_group(owner, key).await?)
    }

    async fn use_once(&self, name: &OnceName, until: UnixSecs, _now: UnixSecs) -> Result<bool, StoreError> {
        Ok(self.inner.use_once(name, until).await?)
    }

    async fn record(&self, name: RecordName, known: u64) -> Result<Option<StoredRecord>, StoreError> {
        Ok(self.inner.record(name, known).await?)
    }

    async fn put_record(&self, name: RecordName, known: u64, value: Vec<u8>) -> Result<bool, StoreError> {
        Ok(self.inner.put_record(name, known, value).await?)
    }

    async fn sweep(&self, now: UnixSecs, events_max: usize) -> Result<Swept, StoreError> {
        Ok(self.inner.sweep(now, events_max).await?)
    }

    fn documents_read(&self) -> Option<u64> {
        Some(self.inner.client.reads.total())
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        Ok(self.inner.stats().await?)
    }

    /// Writes the epochs of groups that are still in memory.
    async fn flush(&self) -> Result<(), StoreError> {
        Ok(self.inner.flush().await?)
    }
}
