//! Events that wait for a batch, in fair turns of their payers.
//!
//! Start-time fair queueing: each event has a start, which is the end of its payer's event before it, or now if that
//! has passed. Its end is its start and its price. The event with the least start goes first, and its start is now. So
//! each payer gets an equal share of the batches' work, and one that writes little waits for nobody else's queue.

use std::collections::{BTreeSet, HashMap, VecDeque};

use nostr_store::weight::{Load, Weight};

/// See the module.
pub(super) struct Backlog<T> {
    payers: HashMap<u64, Turns<T>>,
    /// The start of the first event of each payer that has any.
    starts: BTreeSet<(u64, u64)>,
    now: u64,
}

/// The events of one payer, in its order.
struct Turns<T> {
    waiting: VecDeque<(Weight, T)>,
    /// The end of the payer's last event that went into a batch.
    end: u64,
}

impl<T> Default for Backlog<T> {
    fn default() -> Self {
        Self { payers: HashMap::new(), starts: BTreeSet::new(), now: 0 }
    }
}

impl<T> Backlog<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// Adds an event behind the others of its payer.
    pub(super) fn push(&mut self, payer: u64, weight: Weight, event: T) {
        let turns = self.payers.entry(payer).or_insert_with(|| Turns { waiting: VecDeque::new(), end: 0 });
        if turns.waiting.is_empty() {
            turns.end = turns.end.max(self.now);
            self.starts.insert((turns.end, payer));
        }
        turns.waiting.push_back((weight, event));
    }

    /// Takes the events of the next batch: as many as its bounds allow, in turns. Events of one payer keep their order.
    pub(super) fn batch(&mut self) -> Vec<T> {
        let mut batch = Vec::new();
        let mut load = Load::default();
        while let Some(&(start, payer)) = self.starts.first() {
            let Some(turns) = self.payers.get_mut(&payer) else { break };
            let Some((weight, _)) = turns.waiting.front() else { break };
            if !load.take(*weight) {
                break;
            }
            self.starts.pop_first();
            self.now = start;
            turns.end = start.saturating_add(weight.price().into());
            batch.extend(turns.waiting.pop_front().map(|(_, event)| event));
            if !turns.waiting.is_empty() {
                self.starts.insert((turns.end, payer));
            }
        }
        if self.is_empty() {
            // Nobody waits, so nobody is ahead of anybody.
            self.payers.clear();
        } else {
            let now = self.now;
            self.payers.retain(|_, turns| !turns.waiting.is_empty() || turns.end > now);
        }
        batch
    }
}

#[cfg(test)]
mod tests {
    use nostr_store::weight::{BATCH_EVENTS_MAX, BATCH_ROWS_MAX};

    use super::*;

    const LIGHT: Weight = Weight { rows: 6, targets: 0, groups: 0, bytes: 500 };
    const HEAVY: Weight = Weight { rows: 2_504, targets: 0, groups: 0, bytes: 33_000 };

    #[test]
    fn a_payer_with_a_long_queue_delays_no_other() {
        let mut backlog = Backlog::default();
        for n in 0..900 {
            backlog.push(1, HEAVY, (1, n));
        }
        assert_eq!(backlog.batch().len(), BATCH_ROWS_MAX / HEAVY.rows);
        // Forty payers with one event each come behind 897 heavy ones, and are in the next batch.
        for payer in 2..42 {
            backlog.push(payer, LIGHT, (payer, 0));
        }
        let batch = backlog.batch();
        assert!((2..42).all(|payer| batch.contains(&(payer, 0))), "{batch:?}");
    }

    #[test]
    fn payers_get_equal_shares_by_price_and_keep_their_order() {
        let mut backlog = Backlog::default();
        for n in 0..200 {
            backlog.push(1, HEAVY, (1, n));
        }
        for n in 0..20_000 {
            backlog.push(2, LIGHT, (2, n));
        }
        let mut taken: Vec<(u64, i32)> = Vec::new();
        while taken.len() < 2_000 {
            taken.extend(backlog.batch());
        }
        let of = |payer| taken.iter().filter(move |it| it.0 == payer).map(|it| it.1);
        let heavy = of(1).count() * HEAVY.price() as usize;
        assert!(heavy.abs_diff(of(2).count()) <= 2 * HEAVY.price() as usize, "{heavy} and {}", of(2).count());
        assert!(of(1).is_sorted() && of(2).is_sorted());
    }

    #[test]
    fn a_batch_is_cut_by_its_work_and_nothing_is_lost() {
        let mut backlog = Backlog::default();
        for n in 0..3_000 {
            backlog.push(n % 7, if n % 10 == 0 { HEAVY } else { LIGHT }, n);
        }
        let (mut all, mut batches) = (Vec::new(), 0);
        while !backlog.is_empty() {
            let batch = backlog.batch();
            let heavy = batch.iter().filter(|n| **n % 10 == 0).count();
            assert!(heavy <= BATCH_ROWS_MAX / HEAVY.rows && (1..=BATCH_EVENTS_MAX).contains(&batch.len()));
            all.extend(batch);
            batches += 1;
        }
        all.sort_unstable();
        assert!(all.into_iter().eq(0..3_000) && batches >= 100, "{batches}");
        assert!(backlog.payers.is_empty());
    }
}
