//! Export and import of the whole content, for [`Moving`].

mod export;
mod export_events;
mod import;

use futures_util::future::BoxFuture;
use nostr_extensions::Restored;
use nostr_protocol::UnixSecs;

use crate::{
    StoreError,
    firestore::Firestore,
    moving::{ExportBounds, ExportPage, Imported, Moving, Place, Record},
};

impl Moving for Firestore {
    fn export<'a>(
        &'a self,
        from: &'a Place,
        bounds: ExportBounds,
        now: UnixSecs,
    ) -> BoxFuture<'a, Result<ExportPage, StoreError>> {
        Box::pin(async move { Ok(self.inner.export(from, bounds, now).await?) })
    }

    fn import(
        &self,
        records: Vec<Record<Restored>>,
        now: UnixSecs,
    ) -> BoxFuture<'_, Result<Vec<Imported>, StoreError>> {
        Box::pin(async move { Ok(self.inner.import(records, now).await?) })
    }
}
