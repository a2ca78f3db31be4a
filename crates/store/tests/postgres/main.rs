//! The PostgreSQL store keeps every promise of the suite, and those of shared stores.
#![allow(clippy::expect_used, reason = "a test")]

mod address;
mod outages;
mod removed;
mod restore;
mod server;
mod vanished;

use std::sync::Arc;

use nostr_store::{
    Store,
    memory::Memory,
    moving::Moving,
    postgres::{Options, Postgres},
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
use rnostr_test_services as services;

/// Few connections for each store, so that all tests find theirs.
const OPTIONS: Options = Options { connections_max: 3, notifies: true };

/// A database that is dropped at the end.
struct Database(String);

impl Database {
    fn new() -> Option<Self> {
        services::require(services::Postgres::shared_available())?;
        Some(Self(services::Postgres::shared().create_database()))
    }

    async fn open(&self) -> Arc<Postgres> {
        open(&self.0).await
    }

    /// Several stores over it, like those of several processes.
    async fn open_all<const N: usize>(&self) -> [Arc<Postgres>; N] {
        let mut stores = Vec::new();
        for _ in 0..N {
            stores.push(self.open().await);
        }
        stores.try_into().unwrap_or_else(|_| unreachable!("as many were opened"))
    }
}

async fn open(url: &str) -> Arc<Postgres> {
    Arc::new(Postgres::open(url, OPTIONS).await.expect("the database opens"))
}

fn world(store: &Arc<Postgres>) -> World {
    World::new(Subject { store: Arc::clone(store) as Arc<dyn Store>, keep: Box::new(()) })
}

impl Drop for Database {
    fn drop(&mut self) {
        services::Postgres::shared().drop_database(&self.0);
    }
}

async fn subject() -> Option<Subject> {
    let database = Database::new()?;
    Some(Subject { store: database.open().await, keep: Box::new(database) })
}

async fn handles(count: usize) -> Option<Handles> {
    let database = Database::new()?;
    let mut stores: Vec<Arc<dyn Moving>> = Vec::new();
    for _ in 0..count {
        stores.push(database.open().await);
    }
    Some(Handles { stores, keep: Box::new(database) })
}

mod suite {
    nostr_store::conformance!(super::subject);
    nostr_store::races!(super::handles);
}

#[test]
fn it_answers_as_the_oracle() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let config = Config { cases: 24, max_shrink_iters: 200, failure_persistence: None, ..Config::default() };
    let tried = TestRunner::new(config).run(&vec(step(), 1..40), |steps| {
        let Some(database) = Database::new() else { return Ok(()) };
        let open = async || database.open().await as Arc<dyn Store>;
        runtime.block_on(async { Pair::new(Arc::new(Memory::new()), open).await.run(&steps).await });
        Ok(())
    });
    if let Err(failed) = tried {
        panic!("{failed}");
    }
}
