//! The documents that this process reads, which the service charges for one by one, and the ceiling of clients' reads.
//!
//! Source: <https://firebase.google.com/docs/firestore/pricing>: a document asked for by name costs one read, there or
//! not; a query costs one for each document that it gives, and at least one; a count costs one for each 1,000 entries
//! of an index.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use parking_lot::Mutex;

use super::fail::Fail;

/// The period of the ceiling, in milliseconds.
const PERIOD_MS: i64 = 60_000;
/// Entries of an index that cost one read in a count.
const COUNTED_PER_READ: u64 = 1_000;

/// Documents read so far, and those that may still be read in this minute.
#[derive(Debug)]
pub(crate) struct Reads {
    total: AtomicU64,
    /// Documents a minute; 0 for any number.
    per_minute_max: u32,
    left: Mutex<Left>,
}

/// Documents left, each as [`PERIOD_MS`], so that all numbers are whole. Reads that no ceiling holds up make it a debt.
#[derive(Debug)]
struct Left {
    level: i64,
    at: Instant,
}

impl Reads {
    /// A ceiling of `per_minute_max` documents a minute, all of which may be read at once; 0 for none.
    pub(crate) fn new(per_minute_max: u32) -> Self {
        let left = Mutex::new(Left { level: i64::from(per_minute_max) * PERIOD_MS, at: Instant::now() });
        Self { total: AtomicU64::new(0), per_minute_max, left }
    }

    /// Documents read so far.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// Counts documents that were read, for whomever.
    pub(crate) fn count(&self, documents: u64) {
        self.total.fetch_add(documents, Ordering::Relaxed);
        self.take(documents);
    }

    /// Counts the documents of a query's answer.
    pub(crate) fn count_query(&self, documents: usize) -> u64 {
        let documents = (documents as u64).max(1);
        self.count(documents);
        documents
    }

    /// Pays for a count of at most `entries_max` entries before it begins. A count that ends without an answer stays
    /// paid: the service may have made it.
    pub(crate) fn pay_for_count(&self, entries_max: u64) -> PaidCount<'_> {
        let documents = documents_of(entries_max);
        let taken = self.take(documents);
        PaidCount { reads: self, documents, taken }
    }

    /// Takes documents from the minute's, and gives how much its level fell.
    fn take(&self, documents: u64) -> i64 {
        if self.per_minute_max == 0 {
            return 0;
        }
        let mut left = self.left.lock();
        let before = left.filled(self.per_minute_max);
        // A debt of more than a minute would shut clients out for longer than the reads of a minute are worth.
        left.level = before.saturating_sub(level_of(documents)).max(-i64::from(self.per_minute_max) * PERIOD_MS);
        before - left.level
    }

    /// Returns whether a client's read may begin. The reads of saves, admission and followers do not ask.
    ///
    /// # Errors
    /// [`Fail::UsedUp`] while the documents of the minute are used up.
    pub(crate) fn allow(&self) -> Result<(), Fail> {
        if self.per_minute_max == 0 {
            return Ok(());
        }
        let missing = PERIOD_MS - self.left.lock().filled(self.per_minute_max);
        if missing <= 0 {
            return Ok(());
        }
        let per_sec = 1_000 * u64::from(self.per_minute_max);
        Err(Fail::UsedUp(missing.unsigned_abs().div_ceil(per_sec)))
    }
}

/// Documents that the service charges for a count.
fn documents_of(entries: u64) -> u64 {
    entries.div_ceil(COUNTED_PER_READ).max(1)
}

fn level_of(documents: u64) -> i64 {
    i64::try_from(documents).unwrap_or(i64::MAX).saturating_mul(PERIOD_MS)
}

/// A count that is paid for and under way.
#[derive(Debug)]
pub(crate) struct PaidCount<'a> {
    reads: &'a Reads,
    /// Documents that count as read when it ends.
    documents: u64,
    /// Fall of the minute's level, given back as far as the answer was cheaper.
    taken: i64,
}

impl PaidCount<'_> {
    /// Settles the price by the answer.
    pub(crate) fn settle(mut self, entries: u64) {
        self.documents = documents_of(entries);
        let back = self.taken.saturating_sub(level_of(self.documents)).max(0);
        self.reads.left.lock().level += back;
    }
}

impl Drop for PaidCount<'_> {
    fn drop(&mut self) {
        self.reads.total.fetch_add(self.documents, Ordering::Relaxed);
    }
}

impl Left {
    fn filled(&mut self, per_minute_max: u32) -> i64 {
        let elapsed_ms = i64::try_from(self.at.elapsed().as_millis()).unwrap_or(i64::MAX);
        if elapsed_ms > 0 {
            let per_minute_max = i64::from(per_minute_max);
            self.level = self.level.saturating_add(elapsed_ms.saturating_mul(per_minute_max));
            self.level = self.level.min(per_minute_max * PERIOD_MS);
            self.at = Instant::now();
        }
        self.level
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_stop_at_the_ceiling_and_others_go_on() {
        let reads = Reads::new(60);
        assert!(reads.allow().is_ok());
        reads.count(60);
        assert!(matches!(reads.allow(), Err(Fail::UsedUp(1))));
        reads.count(10_000);
        assert!(matches!(reads.allow(), Err(Fail::UsedUp(60..=61))), "the debt is bounded");
        assert_eq!(reads.total(), 10_060);
        reads.left.lock().at -= std::time::Duration::from_secs(62);
        assert!(reads.allow().is_ok());
    }

    #[test]
    fn without_a_ceiling_reads_are_counted() {
        let reads = Reads::new(0);
        reads.count(1_000_000);
        assert!(reads.allow().is_ok());
        assert_eq!(reads.count_query(0), 1, "a query that finds nothing costs one");
        reads.pay_for_count(1_000_000).settle(1_500);
        assert_eq!(reads.total(), 1_000_003);
    }

    #[test]
    fn a_count_is_paid_for_before_it_begins() {
        let reads = Reads::new(60);
        let paid = reads.pay_for_count(120_000);
        assert!(matches!(reads.allow(), Err(Fail::UsedUp(60..=61))), "as by the dearest answer");
        paid.settle(1_500);
        assert!(reads.allow().is_ok(), "the rest is given back");
        assert_eq!(reads.total(), 2);
        drop(reads.pay_for_count(120_000));
        assert!(reads.allow().is_err(), "one without an answer stays paid");
        assert_eq!(reads.total(), 122);
        // The debt is bounded, and so is what is given back.
        reads.pay_for_count(u64::MAX).settle(0);
        assert!(reads.allow().is_err());
    }
}
