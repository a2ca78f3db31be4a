//! Telling the other instances that something was committed, and what it cost its sender.
//!
//! Nothing depends on it but time: who is not told finds out at its next look at the log, and who cannot be told is not
//! waited for. What waits to be told is one message, into which all further ones are put.

mod message;
pub mod redis;
pub mod store;

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::Notify;

pub use self::message::{Message, SPENT_MAX};
use crate::{
    clock::Clock,
    random,
    rate_limit::{Debit, RateLimits, Spent},
};

/// What is to be told to the other instances.
pub struct Wake {
    /// Drawn at random at each start.
    instance: [u8; 16],
    pending: Mutex<Pending>,
    filled: Notify,
}

#[derive(Default)]
struct Pending {
    knocks: bool,
    spent: HashMap<Debit, u32>,
}

impl Default for Wake {
    fn default() -> Self {
        let mut instance = [0; 16];
        instance.copy_from_slice(&random::bytes32()[..16]);
        Self { instance, pending: Mutex::default(), filled: Notify::new() }
    }
}

impl Wake {
    /// Something was committed. `debits` are what its senders paid for it; past [`SPENT_MAX`] they are dropped.
    pub fn committed(&self, debits: impl IntoIterator<Item = Debit>) {
        let mut pending = self.pending.lock();
        pending.knocks = true;
        pending.spend(debits);
        drop(pending);
        self.filled.notify_one();
    }

    /// What waits, which then does not wait any more.
    fn take(&self) -> Message {
        let Pending { knocks, spent } = std::mem::take(&mut *self.pending.lock());
        let spent = spent.into_iter().map(|(debit, times)| Spent { debit, times }).collect();
        Message { instance: self.instance, knocks, spent }
    }

    fn is_empty(&self) -> bool {
        !self.pending.lock().knocks
    }
}

/// What an instance does with what others tell it.
pub struct Hearing {
    /// What it tells itself.
    pub wake: Arc<Wake>,
    /// The buckets from which the others' events are paid too.
    pub limits: Arc<RateLimits>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
}

impl Hearing {
    /// Takes in a message; says whether something was committed.
    fn hear(&self, message: &[u8]) -> bool {
        let Some(message) = Message::decode(message) else { return false };
        if message.instance == self.wake.instance {
            return false;
        }
        let now_ms = self.clock.now_ms();
        for spent in &message.spent {
            self.limits.spent(*spent, now_ms);
        }
        message.knocks
    }
}

impl Pending {
    fn spend(&mut self, debits: impl IntoIterator<Item = Debit>) {
        for debit in debits {
            if self.spent.len() < SPENT_MAX || self.spent.contains_key(&debit) {
                let times = self.spent.entry(debit).or_default();
                *times = times.saturating_add(1);
            }
        }
    }
}
