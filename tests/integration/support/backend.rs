//! The store that the suites run over, and the number of instances, as the environment says.
//!
//! `RNOSTR_TEST_BACKEND` is `embedded` (the default), `memory` (one store in memory that several instances share),
//! `postgres` or `firestore`. `RNOSTR_TEST_INSTANCES` is the number of relays that share the store; each new client
//! connects to the next relay in turn.

use std::{any::Any, path::Path, sync::Arc};

use nostr_store::{
    Store,
    embedded::{Embedded, Options},
    postgres::{self, Postgres},
};
use rnostr_test_services as services;
use tempfile::TempDir;

use super::shared::Shared;

/// Address space of a test's embedded store.
pub const MAP_BYTES_MAX: u64 = 1 << 30;
/// Connections of one instance to the database: all tests of a machine share one server.
const CONNECTIONS_MAX: usize = 3;

/// A store for each instance, and the values that must live as long as they do.
pub struct Stores {
    pub stores: Vec<Arc<dyn Store>>,
    pub keep: Box<dyn Any + Send + Sync>,
}

fn variable(name: &str, default: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| default.to_owned())
}

/// Name of the store.
pub fn name() -> String {
    variable("RNOSTR_TEST_BACKEND", "embedded")
}

/// Number of relays that share a store.
pub fn instances() -> usize {
    variable("RNOSTR_TEST_INSTANCES", "1").parse().expect("RNOSTR_TEST_INSTANCES is a number")
}

/// Opens an empty store for each instance, as the environment says.
pub async fn stores() -> Stores {
    stores_of(&name(), instances()).await
}

/// Opens an empty store of this name for each of so many instances.
pub async fn stores_of(name: &str, instances: usize) -> Stores {
    match name {
        "embedded" => {
            assert_eq!(instances, 1, "an embedded store belongs to one instance");
            let directory = directory();
            let store: Arc<dyn Store> = embedded(directory.path());
            Stores { stores: vec![store], keep: Box::new(directory) }
        }
        "memory" => {
            let shared = Shared::new();
            let stores = (0..instances).map(|_| -> Arc<dyn Store> { shared.instance().0 }).collect();
            Stores { stores, keep: Box::new(()) }
        }
        "postgres" => {
            let database = Database(services::Postgres::shared().create_database());
            let mut stores: Vec<Arc<dyn Store>> = Vec::new();
            for _ in 0..instances {
                let options = postgres::Options { connections_max: CONNECTIONS_MAX, ..Default::default() };
                stores.push(Arc::new(Postgres::open(&database.0, options).await.expect("the database opens")));
            }
            Stores { stores, keep: Box::new(database) }
        }
        #[cfg(feature = "mls_gateway_firestore")]
        "firestore" => {
            use nostr_store::firestore::{Firestore, Options};
            let emulator = services::FirestoreEmulator::shared();
            let mut options = Options::new(&emulator.project());
            options.emulator_host = Some(emulator.host());
            // The store caches its counts by default, and tests compare counts right after a change.
            options.stats_secs = 0;
            let mut stores: Vec<Arc<dyn Store>> = Vec::new();
            for _ in 0..instances {
                stores.push(Arc::new(Firestore::open(options.clone()).await.expect("the database opens")));
            }
            Stores { stores, keep: Box::new(()) }
        }
        other => panic!("RNOSTR_TEST_BACKEND={other}: write embedded, memory, postgres or firestore"),
    }
}

/// The embedded store in `directory`.
pub fn embedded(directory: &Path) -> Arc<Embedded> {
    let options = Options { map_bytes_max: MAP_BYTES_MAX, ..Options::default() };
    Arc::new(Embedded::open(directory, options).expect("the store opens"))
}

/// A directory in memory if the machine has one: these tests do not depend on durability.
fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.or_else(|_| tempfile::tempdir()).expect("a directory")
}

/// A database that is dropped with the value.
struct Database(String);

impl Drop for Database {
    fn drop(&mut self) {
        services::Postgres::shared().drop_database(&self.0);
    }
}
