//! Names that are used once: the document of a name is written if there is none.

use gcloud_sdk::google::firestore::v1::value::ValueType;
use nostr_protocol::UnixSecs;

use crate::{
    OnceName,
    firestore::{
        Inner,
        documents::{names::field, query},
        wire::{
            clock::{SEC, timestamp},
            fail::Fail,
            value::{self, Fields, Version},
        },
    },
};

/// Most names that one call of the service forgets.
const FORGOTTEN_MAX: usize = 400;

impl Inner {
    /// See [`crate::Store::use_once`]. A name past its time counts as used until a sweep has forgotten it.
    pub(crate) async fn use_once(&self, name: &OnceName, until: UnixSecs) -> Result<bool, Fail> {
        self.history.is_ours()?;
        let at = ValueType::TimestampValue(timestamp(until.saturating_mul(SEC)));
        let fields = Fields::default().with(field::EXPIRES_AT, at);
        match self.client.commit(vec![value::put(self.names.once(name), fields, Version::Absent)], None).await {
            Ok(_) => Ok(true),
            Err(Fail::Conflict) => Ok(false),
            Err(fail) => Err(fail),
        }
    }

    /// Forgets names past their time.
    pub(crate) async fn forget_once(&self, now: UnixSecs, rounds_max: usize) -> Result<(), Fail> {
        for _ in 0..rounds_max {
            let past = self.client.query(query::expired_once(&self.names, now, FORGOTTEN_MAX)).await?.documents;
            let count = past.len();
            if count > 0 {
                let deletes = past.into_iter().map(|document| value::delete(document.name)).collect();
                self.client.commit(deletes, None).await?;
            }
            if count < FORGOTTEN_MAX {
                break;
            }
        }
        Ok(())
    }
}
