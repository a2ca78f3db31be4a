//! Random names of documents and random places in the log.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::atomic::{AtomicU64, Ordering},
};

use super::wire::value::hex;

/// A source of numbers that no other process draws.
#[derive(Debug, Default)]
pub(crate) struct Random {
    keys: [RandomState; 2],
    next: AtomicU64,
}

impl Random {
    fn number(&self, sort: usize) -> u64 {
        self.keys[sort].hash_one(self.next.fetch_add(1, Ordering::Relaxed))
    }

    pub(crate) fn bytes(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.number(0).to_be_bytes());
        bytes[8..].copy_from_slice(&self.number(1).to_be_bytes());
        bytes
    }

    /// A document's id.
    pub(crate) fn id(&self) -> String {
        hex(&self.bytes())
    }

    /// A number less than `bound`, which is not 0.
    pub(crate) fn below(&self, bound: u64) -> u64 {
        self.number(0) % bound.max(1)
    }
}
