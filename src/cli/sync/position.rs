//! The position of a filling by pages, in the store, so that a run goes on where an earlier one was broken off.
//!
//! A filling by NIP-77 needs none: the store's own events say what is missing.

use std::collections::BTreeMap;

use nostr_protocol::{UnixSecs, hex};
use nostr_store::{RecordName, Store};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{connection::Trouble, window::Asked};

/// Most fillings of which the store keeps the position.
const POSITIONS_MAX: usize = 64;
/// Most tries to write a position while other commands write theirs.
const WRITE_TRIES_MAX: usize = 8;

/// A part of time of which an earlier run has taken everything, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reached {
    pub(super) newest: UnixSecs,
    pub(super) oldest: UnixSecs,
}

/// The place of one filling's position.
pub(super) struct Place<'a> {
    store: &'a dyn Store,
    name: String,
}

impl<'a> Place<'a> {
    /// The place of the filling from this relay by this filter.
    pub(super) fn of(store: &'a dyn Store, url: &str, asked: &Asked) -> Self {
        let digest = Sha256::digest(format!("{url}\n{}", asked.text()));
        Self { store, name: hex::to_hex(&digest[..16]) }
    }

    /// The position that an earlier run has left.
    pub(super) async fn read(&self) -> Result<Option<Reached>, Trouble> {
        let (_, all) = self.all().await?;
        Ok(all.get(&self.name).and_then(|both| {
            let at = |n: usize| both.get(n)?.as_u64();
            Some(Reached { newest: at(0)?, oldest: at(1)? })
        }))
    }

    /// Writes the position, or removes it.
    pub(super) async fn write(&self, reached: Option<Reached>) -> Result<(), Trouble> {
        for _ in 0..WRITE_TRIES_MAX {
            let (version, mut all) = self.all().await?;
            match reached {
                Some(Reached { newest, oldest }) => drop(all.insert(self.name.clone(), json!([newest, oldest]))),
                None if all.remove(&self.name).is_none() => return Ok(()),
                None => {}
            }
            // Another filling begins at its newest event again if its position goes.
            while all.len() > POSITIONS_MAX {
                let other = all.keys().find(|name| **name != self.name).cloned();
                other.and_then(|name| all.remove(&name));
            }
            let value = json!(all).to_string().into_bytes();
            let written = self.store.put_record(RecordName::Sync, version, value).await;
            if written.map_err(|error| Trouble(error.to_string()))? {
                return Ok(());
            }
        }
        Err(Trouble("other commands write their positions all the time".to_owned()))
    }

    async fn all(&self) -> Result<(u64, BTreeMap<String, Value>), Trouble> {
        let record = self.store.record(RecordName::Sync, 0).await.map_err(|error| Trouble(error.to_string()))?;
        let Some(record) = record else { return Ok((0, BTreeMap::new())) };
        Ok((record.version, serde_json::from_slice(&record.value).unwrap_or_default()))
    }
}
