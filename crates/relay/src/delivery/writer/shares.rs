//! The room that the waiting events of one payer take at most, so that it fills the writer's queue for nobody else.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most KiB of one payer's events that wait for a batch or are in one; then its own connections wait.
const PAYER_KIB_MAX: usize = 4 << 10;
/// Least number of payers at which those with nothing under way are forgotten.
const FORGOTTEN_AT_MIN: usize = 64;

/// The payers with events under way.
#[derive(Default)]
pub(super) struct Shares(Mutex<Payers>);

#[derive(Default)]
struct Payers {
    rooms: HashMap<u64, Arc<Semaphore>>,
    forgotten_at: usize,
}

impl Shares {
    /// Takes room among the payer's events, and waits for it.
    pub(super) async fn take(&self, payer: u64, kib: u32) -> Option<OwnedSemaphorePermit> {
        let room = self.0.lock().room(payer);
        room.acquire_many_owned(kib.min(PAYER_KIB_MAX as u32)).await.ok()
    }
}

impl Payers {
    fn room(&mut self, payer: u64) -> Arc<Semaphore> {
        if self.rooms.len() >= self.forgotten_at.max(FORGOTTEN_AT_MIN) {
            // A room that is in use is held by its permits, or by those who wait for them.
            self.rooms.retain(|_, room| Arc::strong_count(room) > 1);
            self.forgotten_at = 2 * self.rooms.len();
        }
        Arc::clone(self.rooms.entry(payer).or_insert_with(|| Arc::new(Semaphore::new(PAYER_KIB_MAX))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_payer_that_fills_its_room_waits_and_no_other_does() {
        let shares = Shares::default();
        let mut held = Vec::new();
        for _ in 0..PAYER_KIB_MAX {
            held.extend(shares.take(1, 1).await);
        }
        let waits = async |payer| tokio::time::timeout(std::time::Duration::ZERO, shares.take(payer, 1)).await.is_err();
        assert!(waits(1).await && !waits(2).await);
        held.pop();
        assert!(!waits(1).await);
    }

    #[tokio::test]
    async fn payers_with_nothing_under_way_are_forgotten() {
        let shares = Shares::default();
        let kept = shares.take(0, 1).await;
        for payer in 1..10_000 {
            drop(shares.take(payer, 1).await);
        }
        let payers = shares.0.lock();
        assert!(payers.rooms.len() <= FORGOTTEN_AT_MIN && payers.rooms.contains_key(&0));
        drop(kept);
    }
}
