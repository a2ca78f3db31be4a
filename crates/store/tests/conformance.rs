//! Every store keeps every promise of the suite.
#![allow(clippy::expect_used, reason = "a test")]

use std::sync::Arc;

use nostr_store::{
    embedded::{Embedded, Options},
    memory::Memory,
    moving::Moving,
    suite::{races::Handles, world::Subject},
};

async fn memory_subject() -> Option<Subject> {
    Some(Subject { store: Arc::new(Memory::new()), keep: Box::new(()) })
}

async fn embedded_subject() -> Option<Subject> {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Embedded::open(directory.path(), Options::default()).expect("a store");
    Some(Subject { store: Arc::new(store), keep: Box::new(directory) })
}

async fn embedded_subject_that_writes_ids() -> Option<Subject> {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Embedded::open_with_recent_ids(directory.path(), Options::default(), 0).expect("a store");
    Some(Subject { store: Arc::new(store), keep: Box::new(directory) })
}

async fn embedded_subject_that_leaves_rows() -> Option<Subject> {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Embedded::open_that_leaves_rows(directory.path(), Options::default()).expect("a store");
    Some(Subject { store: Arc::new(store), keep: Box::new(directory) })
}

/// A store of one process, as its connections share it.
fn shared(store: Arc<dyn Moving>, count: usize, keep: Box<dyn std::any::Any + Send + Sync>) -> Option<Handles> {
    Some(Handles { stores: vec![store; count], keep })
}

async fn memory_handles(count: usize) -> Option<Handles> {
    shared(Arc::new(Memory::new()), count, Box::new(()))
}

async fn embedded_handles(count: usize) -> Option<Handles> {
    let directory = tempfile::tempdir().expect("a directory");
    let store = Embedded::open(directory.path(), Options::default()).expect("a store");
    shared(Arc::new(store), count, Box::new(directory))
}

mod memory {
    nostr_store::conformance!(super::memory_subject);
    nostr_store::races!(super::memory_handles);
}

mod embedded {
    nostr_store::conformance!(super::embedded_subject);
    nostr_store::races!(super::embedded_handles);
}

/// No read finds an event whose rows a removal left to a sweep.
mod embedded_with_rows_of_removed_events {
    nostr_store::conformance!(super::embedded_subject_that_leaves_rows);
}

mod embedded_with_written_ids {
    nostr_store::conformance!(super::embedded_subject_that_writes_ids);
}
