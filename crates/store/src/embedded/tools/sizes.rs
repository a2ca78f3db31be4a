//! The sizes of a store.

use std::collections::BTreeMap;

use super::{
    super::{
        env::page_bytes,
        fail::Fail,
        keys::Stored,
        tables::{NAMES, Tables},
    },
    copy::Beside,
};
use crate::OpenError;

/// See [`Beside::sizes`].
#[derive(Clone, Debug, Default)]
pub struct Sizes {
    /// Events that are stored.
    pub events: u64,
    /// Managed groups.
    pub groups: u64,
    /// Bytes of pages that hold something.
    pub used: u64,
    /// Bytes of all pages of the file.
    pub file: u64,
    /// Each table with its rows and the bytes of its pages.
    pub tables: Vec<(&'static str, u64, u64)>,
    /// Events by kind, if they were asked for.
    pub kinds: Option<BTreeMap<u16, u64>>,
}

impl Beside {
    /// The sizes of the store at this moment. To count by kind reads every event.
    ///
    /// # Errors
    /// [`OpenError`]: the store cannot be read, or has an older layout.
    pub fn sizes(&self, by_kind: bool) -> Result<Sizes, OpenError> {
        let Some(tables) = Tables::open_existing(&self.0)? else {
            return Err(OpenError::Refused("the store has an older layout; start the relay over it once".to_owned()));
        };
        let refused = |fail: Fail| OpenError::Refused(fail.to_store_error().to_string());
        let read = || -> Result<Sizes, Fail> {
            let txn = self.0.read_txn()?;
            let mut sizes = Sizes {
                events: tables.events.len(&txn)?.saturating_sub(tables.removed.len(&txn)?),
                groups: tables.groups.len(&txn)?,
                file: (self.0.info().last_page_number as u64 + 1) * page_bytes(&self.0),
                ..Sizes::default()
            };
            for (name, table) in NAMES.iter().zip(tables.all()) {
                let stat = table.stat(&txn)?;
                let pages = stat.branch_pages + stat.leaf_pages + stat.overflow_pages;
                let bytes = pages as u64 * u64::from(stat.page_size);
                sizes.tables.push((name, stat.entries as u64, bytes));
                sizes.used += bytes;
            }
            if by_kind {
                let mut kinds = BTreeMap::new();
                for row in tables.events.iter(&txn)? {
                    *kinds.entry(Stored::read(row?.1)?.event.kind().0).or_default() += 1;
                }
                sizes.kinds = Some(kinds);
            }
            Ok(sizes)
        };
        read().map_err(refused)
    }
}
