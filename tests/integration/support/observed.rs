//! A store that notes the pages that were read of it, around another store.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use nostr_extensions::{
    Admitted, Group, NostrGroupId, Query, RouteHasher, Sealed, mls_gateway::group::ServiceAnswer, query::Position,
};
use nostr_protocol::{EventId, PublicKey, UnixSecs};
use nostr_store::{
    AppliedAnswer, Claim, Claimed, Cost, Cursor, Listed, LogPage, OnceName, Page, PageBounds, Receipt, Received,
    ReceivedBounds, ReceivedPage, RecordName, Saved, Stats, Stock, StockRequest, Store, StoreError, StoredRecord,
    Swept,
};
use tokio::sync::{broadcast, watch};

/// A page that was read.
#[derive(Clone, Copy, Debug)]
pub struct ObservedPage {
    /// The first kind that the filter asks for.
    pub kind: Option<u16>,
    /// The work of the page.
    pub cost: Cost,
}

/// See the module.
pub struct Observed {
    store: Arc<dyn Store>,
    pages: Mutex<Vec<ObservedPage>>,
    stats_asked: AtomicUsize,
    stats_fail: AtomicBool,
    stats_delay_ms: AtomicU64,
}

impl Observed {
    /// Notes the pages of `store`.
    pub fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self {
            store,
            pages: Mutex::default(),
            stats_asked: AtomicUsize::new(0),
            stats_fail: AtomicBool::new(false),
            stats_delay_ms: AtomicU64::new(0),
        })
    }

    /// Questions for the store's sizes so far.
    pub fn stats_asked(&self) -> usize {
        self.stats_asked.load(Ordering::SeqCst)
    }

    /// Lets each such question fail.
    pub fn fail_stats(&self, fails: bool) {
        self.stats_fail.store(fails, Ordering::SeqCst);
    }

    /// Lets each such question take so long.
    pub fn delay_stats(&self, delay: Duration) {
        self.stats_delay_ms.store(u64::try_from(delay.as_millis()).expect("a short time"), Ordering::SeqCst);
    }

    /// The pages so far, in the order in which they were read.
    pub fn pages(&self) -> Vec<ObservedPage> {
        self.pages.lock().expect("no panic while it is held").clone()
    }
}

#[async_trait]
impl Store for Observed {
    async fn save(&self, batch: Vec<Admitted>) -> Vec<Result<Saved, StoreError>> {
        self.store.save(batch).await
    }

    async fn scan(
        &self,
        query: &Query,
        from: Option<Position>,
        up_to: Cursor,
        bounds: PageBounds,
        now: UnixSecs,
    ) -> Result<Page, StoreError> {
        let page = self.store.scan(query, from, up_to, bounds, now).await?;
        let kind = query.filter.kinds.as_ref().and_then(|kinds| kinds.first()).map(|kind| kind.0);
        self.pages.lock().expect("no panic while it is held").push(ObservedPage { kind, cost: page.cost });
        Ok(page)
    }

    async fn received(
        &self,
        query: &Received,
        from: Receipt,
        up_to: Cursor,
        bounds: ReceivedBounds,
        now: UnixSecs,
    ) -> Result<ReceivedPage, StoreError> {
        self.store.received(query, from, up_to, bounds, now).await
    }

    async fn after(&self, cursor: Cursor, entries_max: usize) -> Result<LogPage, StoreError> {
        self.store.after(cursor, entries_max).await
    }

    async fn events_at(&self, cursors: &[Cursor]) -> Result<Vec<Sealed>, StoreError> {
        self.store.events_at(cursors).await
    }

    fn head(&self) -> Cursor {
        self.store.head()
    }

    fn secret(&self) -> [u8; 32] {
        self.store.secret()
    }

    fn route_hasher(&self) -> RouteHasher {
        self.store.route_hasher()
    }

    fn notifications(&self) -> Option<watch::Receiver<u64>> {
        self.store.notifications()
    }

    async fn broadcast(&self, message: Vec<u8>) -> Result<(), StoreError> {
        self.store.broadcast(message).await
    }

    fn messages(&self) -> Option<broadcast::Receiver<Arc<[u8]>>> {
        self.store.messages()
    }

    async fn holds(&self, id: &EventId, now: UnixSecs) -> Result<bool, StoreError> {
        self.store.holds(id, now).await
    }

    async fn group(&self, id: &NostrGroupId) -> Result<(Group, Cursor), StoreError> {
        self.store.group(id).await
    }

    async fn known_groups(&self, ids: &[NostrGroupId]) -> Result<Vec<NostrGroupId>, StoreError> {
        self.store.known_groups(ids).await
    }

    async fn groups_of(&self, keys: &[PublicKey]) -> Result<Vec<NostrGroupId>, StoreError> {
        self.store.groups_of(keys).await
    }

    async fn groups_after(
        &self,
        prefix: &str,
        after: Option<&NostrGroupId>,
        most: usize,
    ) -> Result<Listed<NostrGroupId>, StoreError> {
        self.store.groups_after(prefix, after, most).await
    }

    async fn owners_after(&self, after: Option<&PublicKey>, most: usize) -> Result<Listed<PublicKey>, StoreError> {
        self.store.owners_after(after, most).await
    }

    async fn invited_groups(&self, keys: &[PublicKey]) -> Result<Vec<NostrGroupId>, StoreError> {
        self.store.invited_groups(keys).await
    }

    async fn rehearse(&self, admitted: &Admitted) -> Result<Saved, StoreError> {
        self.store.rehearse(admitted).await
    }

    async fn apply_answer(&self, answer: &ServiceAnswer, now: UnixSecs) -> Result<Option<AppliedAnswer>, StoreError> {
        self.store.apply_answer(answer, now).await
    }

    async fn claim_key_packages(&self, claim: &Claim, now: UnixSecs) -> Result<Claimed, StoreError> {
        self.store.claim_key_packages(claim, now).await
    }

    async fn stock(&self, owner: &PublicKey, now: UnixSecs) -> Result<Stock, StoreError> {
        self.store.stock(owner, now).await
    }

    async fn may_request(&self, request: &StockRequest, now: UnixSecs) -> Result<bool, StoreError> {
        self.store.may_request(request, now).await
    }

    async fn shares_group(&self, owner: &PublicKey, key: &PublicKey) -> Result<(bool, Cost), StoreError> {
        self.store.shares_group(owner, key).await
    }

    async fn history_at(&self, cursor: Cursor) -> Result<u64, StoreError> {
        self.store.history_at(cursor).await
    }

    async fn use_once(&self, name: &OnceName, until: UnixSecs, now: UnixSecs) -> Result<bool, StoreError> {
        self.store.use_once(name, until, now).await
    }

    async fn record(&self, name: RecordName, known: u64) -> Result<Option<StoredRecord>, StoreError> {
        self.store.record(name, known).await
    }

    async fn put_record(&self, name: RecordName, known: u64, value: Vec<u8>) -> Result<bool, StoreError> {
        self.store.put_record(name, known, value).await
    }

    async fn sweep(&self, now: UnixSecs, events_max: usize) -> Result<Swept, StoreError> {
        self.store.sweep(now, events_max).await
    }

    fn documents_read(&self) -> Option<u64> {
        self.store.documents_read()
    }

    async fn stats(&self) -> Result<Stats, StoreError> {
        self.stats_asked.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(self.stats_delay_ms.load(Ordering::SeqCst))).await;
        if self.stats_fail.load(Ordering::SeqCst) {
            return Err(StoreError::Unavailable("the test says so".to_owned()));
        }
        self.store.stats().await
    }

    async fn flush(&self) -> Result<(), StoreError> {
        self.store.flush().await
    }
}
