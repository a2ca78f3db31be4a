//! Token buckets in a map that cannot grow without bound.
//!
//! A bucket that is full again equals a new one, so forgetting it gives nobody further events. A bucket that is not
//! full is never forgotten to make room: when a shard holds nothing else, newcomers to it share one bucket of their
//! own, [`CEILING_FACTOR`] times larger than one sender's, and the owners of the others go on as before.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::CEILING_FACTOR;

/// Number of maps, each with its own lock.
const SHARDS: usize = 64;
/// Shortest time between two searches of a shard at its bound for full buckets, so that a flood does not cost the
/// relay's time.
const SWEEP_PAUSE_MS: u64 = 1_000;

/// A number of events a period, and a number at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    /// Events a period; 0 means no limit.
    number: u32,
    period_ms: u32,
    burst: u32,
}

impl Rate {
    pub(super) const fn new(number: u32, period_ms: u32, burst: u32) -> Self {
        Self { number, period_ms, burst }
    }

    /// The rate of `factor` senders together.
    pub(super) const fn times(self, factor: u32) -> Self {
        Self {
            number: self.number.saturating_mul(factor),
            period_ms: self.period_ms,
            burst: self.burst.saturating_mul(factor),
        }
    }

    /// The level of a full bucket. One event takes `period_ms`, and `number` comes in each millisecond, so that all
    /// numbers are whole.
    const fn capacity(self) -> i64 {
        self.burst as i64 * self.period_ms as i64
    }
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    level: i64,
    updated_ms: u64,
    first_ms: u64,
    rate: Rate,
}

impl Bucket {
    const fn full(rate: Rate, now_ms: u64) -> Self {
        Self { level: rate.capacity(), updated_ms: now_ms, first_ms: now_ms, rate }
    }

    fn level_at(&self, now_ms: u64) -> i64 {
        let elapsed_ms = i64::try_from(now_ms.saturating_sub(self.updated_ms)).unwrap_or(i64::MAX);
        self.level.saturating_add(elapsed_ms.saturating_mul(self.rate.number.into())).min(self.rate.capacity())
    }

    fn fill(&mut self, now_ms: u64) {
        self.level = self.level_at(now_ms);
        self.updated_ms = self.updated_ms.max(now_ms);
    }

    /// Takes one event, or gives the seconds until there is one.
    fn take(&mut self, now_ms: u64) -> Result<(), u64> {
        self.fill(now_ms);
        let missing = i64::from(self.rate.period_ms) - self.level;
        if missing <= 0 {
            self.level -= i64::from(self.rate.period_ms);
            return Ok(());
        }
        let per_sec = 1_000 * u64::from(self.rate.number);
        Err(missing.unsigned_abs().div_ceil(per_sec))
    }
}

/// The rule by which a bucket may be forgotten.
#[derive(Clone, Copy, Debug)]
pub(super) enum Eviction {
    /// A bucket is forgotten when it is full again.
    WhenFull,
    /// A bucket is forgotten when it is full again and was not used for `memory_ms`. If room is short, it is also
    /// forgotten when it is full again and was first used less than `known_after_ms` ago.
    WhenForgotten { memory_ms: u64, known_after_ms: u64 },
}

impl Eviction {
    fn forgets(self, bucket: &Bucket, now_ms: u64, room_is_short: bool) -> bool {
        let is_full = bucket.level_at(now_ms) == bucket.rate.capacity();
        let since = |then_ms: u64| now_ms.saturating_sub(then_ms);
        is_full
            && match self {
                Self::WhenFull => true,
                Self::WhenForgotten { memory_ms, known_after_ms } => {
                    since(bucket.updated_ms) >= memory_ms || (room_is_short && since(bucket.first_ms) < known_after_ms)
                }
            }
    }
}

#[derive(Debug, Default)]
struct Shard {
    buckets: HashMap<u64, Bucket>,
    /// The bucket of all newcomers while there is no room.
    overflow: Option<Bucket>,
    swept_ms: Option<u64>,
}

/// The age of a bucket.
#[derive(Clone, Copy, Debug)]
pub(super) struct BucketAge {
    /// Time of the bucket's first use.
    pub(super) first_ms: u64,
    /// Set at the first use.
    pub(super) is_first: bool,
}

/// Buckets by the hash of their owner.
#[derive(Debug)]
pub(super) struct Buckets {
    shards: Vec<Mutex<Shard>>,
    shard_max: usize,
    eviction: Eviction,
}

impl Buckets {
    /// Empty maps with room for about `buckets_max`.
    pub(super) fn new(buckets_max: usize, eviction: Eviction) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            shard_max: buckets_max.div_ceil(SHARDS),
            eviction,
        }
    }

    /// Takes one event from the bucket of `hash`, or gives the seconds until there is one. Each hash always comes with
    /// the same rate.
    pub(super) fn take(&self, hash: u64, rate: Rate, now_ms: u64) -> Result<BucketAge, u64> {
        if rate.number == 0 {
            return Ok(BucketAge { first_ms: now_ms, is_first: true });
        }
        self.with_bucket(hash, rate, now_ms, |bucket, is_first| {
            bucket.take(now_ms).map(|()| BucketAge { first_ms: bucket.first_ms, is_first })
        })
    }

    /// Takes `times` events from the bucket of `hash`, whether they are there or not; the debt stays under a burst.
    pub(super) fn charge(&self, hash: u64, rate: Rate, times: u32, now_ms: u64) {
        if rate.number == 0 {
            return;
        }
        self.with_bucket(hash, rate, now_ms, |bucket, _| {
            bucket.fill(now_ms);
            let cost = i64::from(times) * i64::from(rate.period_ms);
            bucket.level = bucket.level.saturating_sub(cost).max(-bucket.rate.capacity());
        });
    }

    /// Forgets the bucket of `hash`.
    pub(super) fn forget(&self, hash: u64) {
        self.shard(hash).lock().buckets.remove(&hash);
    }

    /// Forgets the buckets that may be forgotten.
    pub(super) fn sweep(&self, now_ms: u64) {
        for shard in &self.shards {
            shard.lock().sweep(self.eviction, now_ms, false);
        }
    }

    /// Number of buckets that are held.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().buckets.len()).sum()
    }

    fn shard(&self, hash: u64) -> &Mutex<Shard> {
        // The remainder is below SHARDS, so it fits and the shard is there.
        &self.shards[(hash % SHARDS as u64) as usize]
    }

    fn with_bucket<T>(&self, hash: u64, rate: Rate, now_ms: u64, act: impl FnOnce(&mut Bucket, bool) -> T) -> T {
        let mut shard = self.shard(hash).lock();
        if let Some(bucket) = shard.buckets.get_mut(&hash) {
            return act(bucket, false);
        }
        if shard.buckets.len() >= self.shard_max {
            shard.make_room(self.eviction, now_ms);
        }
        if shard.buckets.len() >= self.shard_max {
            let shared = shard.overflow.get_or_insert_with(|| Bucket::full(rate.times(CEILING_FACTOR), now_ms));
            // An owner that cannot be remembered is always new.
            shared.first_ms = now_ms;
            return act(shared, true);
        }
        act(shard.buckets.entry(hash).or_insert_with(|| Bucket::full(rate, now_ms)), true)
    }
}

impl Shard {
    fn make_room(&mut self, eviction: Eviction, now_ms: u64) {
        if self.swept_ms.is_none_or(|swept_ms| now_ms.saturating_sub(swept_ms) >= SWEEP_PAUSE_MS) {
            self.swept_ms = Some(now_ms);
            self.sweep(eviction, now_ms, true);
        }
    }

    fn sweep(&mut self, eviction: Eviction, now_ms: u64, room_is_short: bool) {
        self.buckets.retain(|_, bucket| !eviction.forgets(bucket, now_ms, room_is_short));
        if self.buckets.capacity() > 4 * self.buckets.len() + 64 {
            self.buckets.shrink_to(2 * self.buckets.len());
        }
    }
}
