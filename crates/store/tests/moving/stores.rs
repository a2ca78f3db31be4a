//! A place for a store of each sort.

use std::{
    cell::RefCell,
    sync::Arc,
    time::{Duration, Instant},
};

use nostr_store::{
    embedded::{Durability, Embedded},
    memory::Memory,
    moving::Moving,
    postgres::{self, Postgres},
};
use rnostr_test_services as services;
use tempfile::TempDir;

/// Longest wait for a lock that a child has.
const LOCK_SECS_MAX: Duration = Duration::from_secs(10);

/// The sorts of stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    Memory,
    Embedded,
    Postgres,
}

pub(crate) const SORTS: [Sort; 3] = [Sort::Memory, Sort::Embedded, Sort::Postgres];

/// Where a store lies, empty at first; gone with this.
pub(crate) enum Place {
    Memory(RefCell<Option<Arc<Memory>>>),
    Embedded(TempDir),
    Postgres(String),
}

impl Place {
    /// `None` where what it stands on is missing, which has been said then.
    pub(crate) fn new(sort: Sort) -> Option<Self> {
        Some(match sort {
            Sort::Memory => Self::Memory(RefCell::default()),
            Sort::Embedded => Self::Embedded(tempfile::tempdir().expect("a directory")),
            Sort::Postgres => {
                services::require(services::Postgres::shared_available())?;
                Self::Postgres(services::Postgres::shared().create_database())
            }
        })
    }

    pub(crate) async fn open(&self) -> Arc<dyn Moving> {
        match self {
            Self::Memory(store) => Arc::clone(store.borrow_mut().get_or_insert_default()) as Arc<dyn Moving>,
            Self::Embedded(directory) => {
                let options = nostr_store::embedded::Options {
                    durability: Durability::Interval { ms: 1_000 },
                    ..Default::default()
                };
                // Other tests of this process start servers and tools; for a moment each such child has the lock of a
                // store that was just closed.
                let until = Instant::now() + LOCK_SECS_MAX;
                loop {
                    match Embedded::open_with_recent_ids(directory.path(), options, 3) {
                        Ok(store) => break Arc::new(store),
                        Err(error) => assert!(Instant::now() < until, "{error}"),
                    }
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            }
            Self::Postgres(url) => {
                let options = postgres::Options { connections_max: 3, notifies: true };
                Arc::new(Postgres::open(url, options).await.expect("the database opens"))
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Self::Postgres(url) = self {
            services::Postgres::shared().drop_database(url);
        }
    }
}
