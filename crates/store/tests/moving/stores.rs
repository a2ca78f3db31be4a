//! A place for a store of each sort.

use std::{
    cell::RefCell,
    sync::Arc,
    time::{Duration, Instant},
};

#[cfg(feature = "firestore-tests")]
use nostr_store::{
    Store as _,
    firestore::{self, Firestore},
};
use nostr_store::{
    embedded::{Durability, Embedded},
    memory::Memory,
    moving::Moving,
    postgres::{self, Postgres},
};
use rnostr_test_services as services;
use tempfile::TempDir;

/// Longest wait for a lock that a child process holds.
const LOCK_SECS_MAX: Duration = Duration::from_secs(10);

/// The sorts of stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    Memory,
    Embedded,
    Postgres,
    #[cfg(feature = "firestore-tests")]
    Firestore,
}

pub(crate) const SORTS: &[Sort] = &[
    Sort::Memory,
    Sort::Embedded,
    Sort::Postgres,
    #[cfg(feature = "firestore-tests")]
    Sort::Firestore,
];

/// The place of a store, empty at first and removed on drop.
pub(crate) enum TestStore {
    Memory(RefCell<Option<Arc<Memory>>>),
    Embedded(TempDir),
    Postgres(String),
    #[cfg(feature = "firestore-tests")]
    Firestore(Box<firestore::Options>, RefCell<Option<Arc<Firestore>>>),
}

impl TestStore {
    /// A place for a store; `None` if its engine is missing, which has been printed.
    pub(crate) fn new(sort: Sort) -> Option<Self> {
        Some(match sort {
            Sort::Memory => Self::Memory(RefCell::default()),
            Sort::Embedded => Self::Embedded(tempfile::tempdir().expect("a directory")),
            Sort::Postgres => {
                services::require(services::Postgres::shared_available())?;
                Self::Postgres(services::Postgres::shared().create_database())
            }
            #[cfg(feature = "firestore-tests")]
            Sort::Firestore => {
                services::require(services::FirestoreEmulator::shared_available())?;
                let emulator = services::FirestoreEmulator::shared();
                let options = firestore::Options::new(&emulator.project());
                let emulator_host = Some(emulator.host());
                let options = firestore::Options { emulator_host, stats_secs: 0, ..options };
                Self::Firestore(Box::new(options), RefCell::default())
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
                // Other tests of this process start servers and tools. Each such child holds the lock of a store that
                // was just closed for a moment.
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
            #[cfg(feature = "firestore-tests")]
            Self::Firestore(options, last) => {
                // A process that ends writes its epochs.
                let before = last.take();
                if let Some(before) = before {
                    before.flush().await.expect("what waits is written");
                }
                let store = Arc::new(Firestore::open((**options).clone()).await.expect("the database opens"));
                last.replace(Some(Arc::clone(&store)));
                store
            }
        }
    }
}

impl Drop for TestStore {
    fn drop(&mut self) {
        if let Self::Postgres(url) = self {
            services::Postgres::shared().drop_database(url);
        }
    }
}
