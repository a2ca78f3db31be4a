//! The Firestore store keeps every promise of the suite, and those of shared stores.
#![cfg(feature = "firestore")]
#![allow(clippy::expect_used, reason = "a test")]

mod documents;
mod large;
mod moving;
mod outages;
mod reads;
mod restore;

use std::sync::Arc;

use nostr_store::{
    OpenError, Store,
    firestore::{Firestore, Options},
    memory::Memory,
    moving::Moving,
    suite::{
        races::Handles,
        random::{Pair, strategy::step},
        world::{Subject, World},
    },
};
use proptest::{
    collection::vec,
    test_runner::{Config, TestRunner},
};
use rnostr_test_services::{FirestoreEmulator, require};

/// A database of its own.
struct Database(Options);

impl Database {
    fn new() -> Option<Self> {
        require(FirestoreEmulator::shared_available())?;
        let emulator = FirestoreEmulator::shared();
        let emulator_host = Some(emulator.host());
        Some(Self(Options { emulator_host, stats_secs: 0, ..Options::new(&emulator.project()) }))
    }

    /// Opens the database. The emulator's first answers may come late on a busy machine.
    async fn open(&self) -> Arc<Firestore> {
        const TRIES_MAX: usize = 6;
        let mut tries = 1;
        loop {
            match Firestore::open(self.0.clone()).await {
                Err(OpenError::Unreachable(_)) if tries < TRIES_MAX => tries += 1,
                opened => return Arc::new(opened.expect("the database opens")),
            }
        }
    }

    /// Several stores over it, like those of several processes.
    async fn open_all<const N: usize>(&self) -> [Arc<Firestore>; N] {
        let mut stores = Vec::new();
        for _ in 0..N {
            stores.push(self.open().await);
        }
        stores.try_into().unwrap_or_else(|_| unreachable!("as many were opened"))
    }
}

fn world(store: &Arc<Firestore>) -> World {
    World::new(Subject { store: Arc::clone(store) as Arc<dyn Store>, keep: Box::new(()) })
}

async fn subject() -> Option<Subject> {
    let store = Database::new()?.open().await;
    Some(Subject { store, keep: Box::new(()) })
}

async fn handles(count: usize) -> Option<Handles> {
    let database = Database::new()?;
    let mut stores: Vec<Arc<dyn Moving>> = Vec::new();
    for _ in 0..count {
        stores.push(database.open().await);
    }
    Some(Handles { stores, keep: Box::new(()) })
}

mod suite {
    nostr_store::conformance!(super::subject);
    nostr_store::races!(super::handles);
}

#[test]
fn it_answers_as_the_oracle() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let config = Config { cases: 8, max_shrink_iters: 100, failure_persistence: None, ..Config::default() };
    let tried = TestRunner::new(config).run(&vec(step(), 1..40), |steps| {
        let Some(database) = Database::new() else { return Ok(()) };
        runtime.block_on(async {
            let mut last: Option<Arc<Firestore>> = None;
            let open = async || {
                // A process that ends writes its epochs.
                if let Some(last) = last.take() {
                    last.flush().await.expect("what waits is written");
                }
                let store = database.open().await;
                last = Some(Arc::clone(&store));
                store as Arc<dyn Store>
            };
            Pair::new(Arc::new(Memory::new()), open).await.run(&steps).await;
        });
        Ok(())
    });
    if let Err(failed) = tried {
        panic!("{failed}");
    }
}
