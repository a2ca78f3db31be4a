//! Export and import of the whole content, for [`Moving`].

mod export;
mod export_events;
mod import;

use async_trait::async_trait;
use nostr_extensions::Restored;
use nostr_protocol::UnixSecs;

use crate::{
    StoreError,
    firestore::Firestore,
    moving::{ExportBounds, ExportPage, ExportPosition, Imported, Moving, Record},
};

#[async_trait]
impl Moving for Firestore {
    async fn export(
        &self,
        from: &ExportPosition,
        bounds: ExportBounds,
        now: UnixSecs,
    ) -> Result<ExportPage, StoreError> {
        Ok(self.inner.export(from, bounds, now).await?)
    }

    async fn import(&self, records: Vec<Record<Restored>>, now: UnixSecs) -> Result<Vec<Imported>, StoreError> {
        Ok(self.inner.import(records, now).await?)
    }
}
