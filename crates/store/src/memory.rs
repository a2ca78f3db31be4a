//! stub
use crate::*;
pub struct M;
#[allow(warnings)]
impl Store for M {
 fn save(&self, batch: Vec<Admitted>) -> BoxFuture<'_, Vec<Result<Saved, StoreError>>> {todo!()}
 fn scan<'a>(&'a self, query: &'a Query, from: Option<Position>, up_to: Cursor, bounds: PageBounds, now: UnixSecs) -> BoxFuture<'a, Result<Page, StoreError>> {todo!()}
 fn after(&self, cursor: Cursor, entries_max: usize) -> BoxFuture<'_, Result<Vec<LogEntry>, StoreError>>{todo!()}
 fn head(&self) -> Cursor {0}
 fn holds<'a>(&'a self, id: &'a EventId) -> BoxFuture<'a, Result<bool, StoreError>>{todo!()}
 fn group<'a>(&'a self, id: &'a NostrGroupId) -> BoxFuture<'a, Result<(GroupState, Cursor), StoreError>>{todo!()}
 fn groups_of<'a>(&'a self, keys: &'a [PublicKey]) -> BoxFuture<'a, Result<Vec<NostrGroupId>, StoreError>>{todo!()}
 fn claim_key_packages<'a>(&'a self, owner: &'a PublicKey, packages_max: usize, now: UnixSecs) -> BoxFuture<'a, Result<Vec<Sealed>, StoreError>>{todo!()}
 fn sweep(&self, now: UnixSecs, events_max: usize) -> BoxFuture<'_, Result<usize, StoreError>>{todo!()}
 fn stats(&self) -> BoxFuture<'_, Result<Stats, StoreError>>{todo!()}
}
