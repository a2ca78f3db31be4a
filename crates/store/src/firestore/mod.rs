//! The store in Google's Firestore (<https://cloud.google.com/firestore/docs/reference/rpc/google.firestore.v1>), which
//! any number of processes share.
//!
//! A batch is one atomic Commit: the events' documents, all their effects, and one document of the log that lists them.
//! The commit's time is the update time of all of them, and with a place in its microsecond the cursor (`clock`). What
//! stays the same whatever the store is ([`crate::shared`]) decides; this module reads what it has to know (`load`), writes
//! what it says (`write`), and does both again where others were faster (`save`).
//!
//! What was found about the service and its emulator, and what follows from it:
//!
//! - `commit_time` equals the `create_time` and `update_time` of all that was written, to the microsecond, and a read time
//!   is always less than the time of any later commit. So both are cursors.
//! - But a read of the emulator may miss a commit of a lesser time that is being carried out at that moment. Beside the
//!   emulator, a read that is to be a place in the log waits a little and vouches for what lies before the wait
//!   (`client::Client::settle`).
//! - A field that the service sets to the request's time has milliseconds and is earlier than the commit by as much as the
//!   call took, so its order is not the log's (`follow`).
//! - A transaction's read holds off whoever writes what it read (the emulator always, for at most 2 s; the service not,
//!   when it is asked for optimistic concurrency), and readers never hold off each other: 200 concurrent transactions over
//!   one head took 0.4 s on the emulator. So a group's messages read its head in a transaction, and the commit of a
//!   message fails if the group has changed since: no message of a key that was removed is committed after the removal.
//!   A group's head is never written by its messages.
//! - An update with an empty mask and a precondition changes nothing, not even the update time, and so does a delete of
//!   what must not exist (`value::verify`).
//! - Of racers that write one document under a precondition one wins and the others hear of it at once.
//! - The emulator takes 4 MiB a message, so a Commit stays below that; it enforces neither indexes nor lifetimes.

mod documents;
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
use nostr_extensions::{Admitted, Group, NostrGroupId, Query, RouteHasher, Sealed, query::Position};
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
    log::{Tail, locations::Locations},
    random::Random,
    read::{lookups::StatsCache, scan::Scan},
    wire::client::Client,
    write::epochs::Epochs,
};
use crate::{Cursor, LogPage, Page, PageBounds, Saved, Stats, Store, StoreError, decide::hiding::Hiding};

/// What all calls share.
struct Inner {
    client: Client,
    names: Names,
    options: Options,
    router: RouteHasher,
    head: AtomicU64,
    notifications: watch::Sender<u64>,
    saves: Semaphore,
    scans: Semaphore,
    hiding: Hiding,
    epochs: Epochs,
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

    async fn scan(
        &self,
        query: &Query,
        from: Option<Position>,
        up_to: Cursor,
        bounds: PageBounds,
        now: UnixSecs,
    ) -> Result<Page, StoreError> {
        Ok(self.inner.scan(Scan { query, from, up_to, bounds, now }).await?)
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
        self.inner.router
    }

    fn notifications(&self) -> Option<watch::Receiver<u64>> {
        Some(self.inner.notifications.subscribe())
    }

    async fn holds(&self, id: &EventId) -> Result<bool, StoreError> {
        Ok(self.inner.holds(id).await?)
    }

    async fn group(&self, id: &NostrGroupId) -> Result<(Group, Cursor), StoreError> {
        Ok(self.inner.group(id).await?)
    }

    async fn groups_of(&self, keys: &[PublicKey]) -> Result<Vec<NostrGroupId>, StoreError> {
        Ok(self.inner.groups_of(keys).await?)
    }

    async fn claim_key_packages(
        &self,
        owner: &PublicKey,
        packages_max: usize,
        now: UnixSecs,
    ) -> Result<Vec<Sealed>, StoreError> {
        Ok(self.inner.claim(owner, packages_max, now).await?)
    }

    async fn sweep(&self, now: UnixSecs, events_max: usize) -> Result<usize, StoreError> {
        Ok(self.inner.sweep(now, events_max).await?)
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        Ok(self.inner.stats().await?)
    }

    /// Epochs of groups, which the registry shows.
    async fn flush(&self) -> Result<(), StoreError> {
        Ok(self.inner.flush().await?)
    }
}
