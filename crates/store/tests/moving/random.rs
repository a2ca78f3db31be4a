//! A random store is moved, and answers like the oracle before and after.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use nostr_store::{
    Store,
    memory::Memory,
    suite::{
        moving::{LARGE, SMALL, dump, transfer},
        random::{Pair, Step, strategy::step},
    },
};
use proptest::{
    collection::vec,
    test_runner::{Config, TestRunner},
};

use super::stores::{Sort, TestStore};

async fn moved(before: &[Step], after: &[Step], from: Sort, to: Sort) {
    let (Some(from), Some(to)) = (TestStore::new(from), TestStore::new(to)) else { return };
    let (from, to) = (Rc::new(from), Rc::new(to));
    let current = RefCell::new(Rc::clone(&from));
    let open = async || {
        let place = Rc::clone(&current.borrow());
        place.open().await as Arc<dyn Store>
    };
    let oracle = Arc::new(Memory::new());
    let mut pair = Pair::new(Arc::clone(&oracle) as Arc<dyn Store>, open).await;
    pair.run(before).await;
    let mover = async |now| {
        let (old, new) = (from.open().await, to.open().await);
        let held = dump(&*old, LARGE, now).await;
        transfer(&*old, &*new, SMALL, now).await;
        assert_eq!(dump(&*new, LARGE, now).await, held);
        oracle.forget_claims();
        current.replace(Rc::clone(&to));
    };
    pair.moved(mover).await;
    pair.run(after).await;
}

fn tried(cases: u32, from: Sort, to: Sort) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let config = Config { cases, max_shrink_iters: 300, failure_persistence: None, ..Config::default() };
    let tried = TestRunner::new(config).run(&(vec(step(), 1..40), vec(step(), 1..15)), |(before, after)| {
        runtime.block_on(moved(&before, &after, from, to));
        Ok(())
    });
    if let Err(failed) = tried {
        panic!("{failed}");
    }
}

#[test]
fn a_random_store_is_moved_from_embedded_to_embedded() {
    tried(48, Sort::Embedded, Sort::Embedded);
}

#[test]
fn a_random_store_is_moved_from_embedded_to_postgres() {
    tried(12, Sort::Embedded, Sort::Postgres);
}

#[cfg(feature = "firestore-tests")]
#[test]
fn a_random_store_is_moved_from_embedded_to_firestore() {
    tried(4, Sort::Embedded, Sort::Firestore);
}

#[cfg(feature = "firestore-tests")]
#[test]
fn a_random_store_is_moved_from_firestore_to_embedded() {
    tried(4, Sort::Firestore, Sort::Embedded);
}

#[test]
fn a_random_store_is_moved_from_postgres_to_embedded() {
    tried(12, Sort::Postgres, Sort::Embedded);
}
